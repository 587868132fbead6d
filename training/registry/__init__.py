"""The data registry: recordings, transcripts, frozen versions of data sets, runs and their predictions, in a database."""

DEFAULT = "data/registry.db"
"""The database that commands use where none is named."""
