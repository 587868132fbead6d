"""What every part of the library stands on: errors and files."""
