"""Types of command-line options."""

from __future__ import annotations

import argparse


def count(text: str) -> int:
    """A whole number from 1 on."""
    number = int(text) if text.lstrip("-").isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1 (got {text})")
    return number
