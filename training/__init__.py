"""Polyvox: speech models of several architectures, one data format, one configuration, one trainer."""

__version__ = "0.1.0"
