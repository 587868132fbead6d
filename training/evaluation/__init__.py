"""Scores that can be trusted, and what they are made of."""
