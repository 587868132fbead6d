"""What the registry holds, as data: per split hours, files, speakers, sentences, and what splits share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.data.prepare.split import PARTS
from training.data.prepare.split_report import describe_overlap, describe_parts
from training.data.text import sentence_key
from training.registry import DEFAULT, versions
from training.registry.store import Registry, open_registry


def statistics(registry: Registry, version: str) -> dict[str, Any]:
    """``{"version", "parts": {part: figures}, "overlap": {pair: figures}}`` of a version."""
    found = versions.rows(registry, version)
    described = describe(
        [row.split for row in found],
        np.array([row.duration for row in found]),
        files=[row.content_hash for row in found],
        speakers=[row.speaker for row in found],
        groups=[row.recording_group for row in found],
        texts=[row.text for row in found],
    )
    return {"version": version, **described}


def get_dataset_statistics(version: str, registry: str | Path = DEFAULT) -> dict[str, Any]:
    """How much a version of the registry holds.

    Args:
        version: its name, e.g. ``"v1"``.
        registry: a SQLite file or an SQLAlchemy URL.

    Returns:
        For each of ``train``, ``val``, ``test`` that the version has: ``{part}_files`` (count), ``{part}_hours`` (of audio);
        beside them ``parts`` and ``overlap`` as `statistics` describes them. Dev rows are called ``val`` here.

    Raises:
        UserError: there is no such registry, or it has no such version.
    """
    with open_registry(registry) as opened:
        found = statistics(opened, version)
    counts: dict[str, Any] = {}
    for part, figures in found["parts"].items():
        name = "val" if part == "dev" else part
        counts |= {f"{name}_files": figures["files"], f"{name}_hours": figures["hours"]}
    return {**counts, **found}


def describe(
    parts: Sequence[str],
    seconds: np.ndarray,
    *,
    files: Sequence[str],
    speakers: Sequence[str | None],
    groups: Sequence[str | None],
    texts: Sequence[str],
) -> dict[str, Any]:
    """The figures of a choice of splits, one entry per row in each argument."""
    keys: dict[str, Sequence[str | None]] = {"files": files}
    if any(speakers):
        keys["speakers"] = speakers
    if any(groups):
        keys["groups"] = groups
    keys["sentences"] = [sentence_key(text) for text in texts]
    names = np.array(parts, dtype=object)
    rows = {part: np.flatnonzero(names == part) for part in PARTS if part in set(parts)}
    return {"parts": describe_parts(rows, seconds, keys), "overlap": describe_overlap(rows, keys)}
