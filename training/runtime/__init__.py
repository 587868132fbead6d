"""Runs exported folders without torch and without transformers."""
