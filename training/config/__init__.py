"""Reading, merging and checking configurations."""
