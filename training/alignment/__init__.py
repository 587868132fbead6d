"""Forced alignment: times of known words from a trained model, and the manifest that stores them."""
