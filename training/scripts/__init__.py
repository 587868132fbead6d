"""The commands; each file also runs as a plain script."""
