"""Draws of tokens that are the same with every engine."""

from __future__ import annotations

import numpy as np

SEED = 0
"""Of the draws: the same utterance gives the same text, whatever is decoded with it."""


class GumbelNoise:
    """Noise by which the largest logit is a draw: of logits / temperature plus this, the place of the largest value has the
    distribution of their softmax (Gumbel, 1954). One generator in numpy, so that torch and ONNX Runtime draw the same."""

    def __init__(self, seed: int = SEED) -> None:
        self.generator = np.random.default_rng(seed)

    def __call__(self, shape: tuple[int, ...]) -> np.ndarray:
        """The noise of the next step, float32."""
        return self.generator.gumbel(size=shape).astype(np.float32)
