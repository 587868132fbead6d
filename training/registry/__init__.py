"""The data registry: recordings, transcripts, frozen versions of data sets, runs and their predictions, in a database."""
