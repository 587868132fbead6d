"""Hints how to remove utterances with unusable audio from the data: for a table, a command to copy."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

WRITTEN = (".tsv", ".csv", ".jsonl")
"""Formats of a cleaned manifest."""


def remedy(rows: Any, texts: Sequence[str], min_seconds: float, max_seconds: float) -> str:
    """What to do about a row of ``rows`` (`training.data.checks.Rows`).

    texts: columns that the model learns from; min_seconds, max_seconds: bounds of the run. The command leaves out no
    other row that the run could use.
    """
    if getattr(rows, "renamed", None) is None:
        return str(getattr(rows, "remedy", "take this utterance out of the data"))
    output = rows.path.with_name(f"{rows.path.stem}_decoded{_suffix(rows.path.suffix)}")
    words = ["polyvox", "preprocess", "--input", str(rows.path), "--output", str(output), "--decode"]
    words += ["--min_duration", f"{min_seconds:g}", "--max_duration", f"{max_seconds:g}"]
    if rows.audio_root is not None:
        words += ["--audio_root", str(rows.audio_root)]
    for ours, theirs in rows.renamed.items():
        words += ["--column", f"{ours}={theirs}"]
    if len(texts) == 1 and {"transcript", "translation"} <= set(rows.column_names):
        words += ["--require", texts[0]]
    return f"this command leaves such clips out:\n{shlex.join(words)}\nthen name {output} in place of {rows.path}"


def _suffix(suffix: str) -> str:
    return suffix if suffix in WRITTEN else ".jsonl"
