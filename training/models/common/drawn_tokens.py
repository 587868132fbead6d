"""Draws tokens while transformers generates them."""

from __future__ import annotations

import torch
from transformers import LogitsProcessor

from training.models.common.drawing import GumbelNoise


class DrawnTokens(LogitsProcessor):
    """Makes the likeliest token of greedy generation a draw at a temperature, see `GumbelNoise`."""

    def __init__(self, temperature: float) -> None:
        self.temperature, self.noise = temperature, GumbelNoise()

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        noise = torch.from_numpy(self.noise(tuple(scores.shape))).to(scores.device)
        return scores.float() / self.temperature + noise
