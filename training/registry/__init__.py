"""The data registry: recordings, transcripts, frozen versions of data sets, runs and what they said, in a database."""
