"""Bricks that several architectures share."""

SETTINGS = "polyvox"
"""Key of a checkpoint's ``config.json`` that holds what stock transformers has no field for."""
