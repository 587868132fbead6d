"""What a training says before its first step: device, data, parameters, length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from training.data.amounts import amounts
from training.engine import freezing
from training.engine.provenance import told as devices_told
from training.engine.run import Run


def lines(run: Run, model: Any, plan: Any, devices: Any, steps: int) -> Iterator[str]:
    """The lines.

    Args:
        run: what is trained.
        model: what is trained of it.
        plan: which of its parameters learn.
        devices: record of what is computed on (`training.engine.provenance`).
        steps: optimiser steps of the whole run.
    """
    config = run.config
    yield f"device      {devices_told(devices)}, profile {config.profile.name}"
    for name, rows in (("train", run.train), ("dev", run.dev)):
        if rows is not None:
            yield f"{name:11} {data(amounts(rows.manifest))}"
    total, learning = freezing.counts(freezing.table(model, plan))
    yield f"parameters  {total:,}, {learning:,} of them are trained ({getattr(config.model, 'type', '?')})"
    yield f"length      {steps:,} steps; each logged line says what is left (polyvox train --dry_run times a step before)"


def data(found: Mapping[str, Any]) -> str:
    """``2,410 utterances, 3.20 h, language vi``: amounts of a split in words."""
    languages = found["languages"]
    named = f", language{'s' if len(languages) > 1 else ''} {', '.join(languages)}" if languages else ""
    return f"{found['utterances']:,} utterances, {found['hours']:.2f} h{named}"
