"""Names of the hardware profiles; imports nothing, because every command's options name them."""

from __future__ import annotations

AUTO = "auto"
PROFILES = ("cpu", "rtx2050", "cuda_8gb", "cuda_16gb", "cuda_24gb", "a100", "h100", "mps")
"""Names that can be chosen; each is a file of ``configs/profiles``."""
CHOICES = (*PROFILES, AUTO)
