"""Public corpora from the net to a folder: ``polyvox download``."""
