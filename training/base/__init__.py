"""Errors, files and names that every part of the library uses."""
