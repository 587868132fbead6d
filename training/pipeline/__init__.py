"""The six steps from a manifest to a report; ``polyvox pipeline``, run_dev and run_prod."""

from training.pipeline.command import main

__all__ = ["main"]
