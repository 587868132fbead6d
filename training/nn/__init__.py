"""Bricks that several architectures share."""
