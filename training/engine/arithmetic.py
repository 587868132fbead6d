"""The arithmetic of a run on this machine: what ``profile.precision: auto`` chooses, and why."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from training.config import agreement
from training.config.schema import Config

AUTO = "auto"
BF16_CAPABILITY = 8
"""Major compute capability (Ampere) from which CUDA GPUs multiply bfloat16 in hardware."""


@dataclass(frozen=True)
class Choice:
    """``precision``: fp32, fp16 or bf16. ``reason``: why, where the machine was asked; else empty."""

    precision: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.precision} (auto: {self.reason})" if self.reason else self.precision


def device(config: Config) -> str:
    """``cuda`` or ``cpu``: the profile's device, this machine's where the profile leaves it open."""
    if config.profile.device != "auto":
        return config.profile.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def precision(config: Config) -> str:
    """``fp32``, ``fp16`` or ``bf16``."""
    return choice(config).precision


def choice(config: Config) -> Choice:
    """What the configuration says; for ``auto`` the fastest arithmetic of the run's device that trains without care."""
    asked = agreement.precision(config)
    if asked != AUTO:
        return Choice(asked)
    return _of_cpu() if device(config) == "cpu" else _of_gpu()


def fast_bf16_on_cpu() -> str | None:
    """The instructions with which this processor multiplies bfloat16 matrices; None where it has none."""
    known = {"AMX": "_is_amx_tile_supported", "AVX512-BF16": "_is_avx512_bf16_supported"}
    return next((name for name, asked in known.items() if getattr(torch.cpu, asked, bool)()), None)


def _of_cpu() -> Choice:
    found = fast_bf16_on_cpu()
    if found is None:
        return Choice("fp32", "this processor has neither AVX512-BF16 nor AMX, so that bf16 would be slower")
    return Choice("bf16", f"this processor multiplies bf16 by {found}")


def _of_gpu() -> Choice:
    if not torch.cuda.is_available():
        return Choice("bf16", "as GPUs since Ampere do; this machine has none to ask")
    name = torch.cuda.get_device_name()
    if torch.cuda.get_device_capability()[0] >= BF16_CAPABILITY:
        return Choice("bf16", f"{name} computes in it")
    return Choice("fp16", f"{name} is too old for bf16")
