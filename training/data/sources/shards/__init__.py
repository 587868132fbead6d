"""WebDataset shards: tar archives of sounds and their texts, written, read at their offsets, shuffled as a stream."""
