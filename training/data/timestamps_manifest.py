"""``timestamps_manifest.json``: utterances whose words have times, as `polyvox timestamps` writes them.

A JSON object: ``version``, ``model``, ``split``, ``kept``, ``dropped`` and ``samples``, a list of objects with
``audio_path`` (from the file's folder), ``text``, ``duration``, ``words`` (``[{word, start, end, confidence}]``, seconds
from the start of the utterance) and what else is known of an utterance under the names of a manifest's columns.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from training.base.errors import UserError
from training.base.files import atomic_text
from training.base.nearest import path_hint
from training.data.json_tables import json_value
from training.data.lengths import TOLERANCE_SECONDS, TOLERANCE_SHARE
from training.data.tables import LINE, MAX_PROBLEMS, json_cell, raise_problems

FILE = "timestamps_manifest.json"
SUFFIX = ".json"
VERSION = 1


def read_timestamps(path: Path) -> pa.Table:
    """All samples as `training.data.tables.read_table` gives rows; the "line" of a row is its sample's number, from 1.

    Raises `UserError` that names file, sample and reason for what is no such manifest: up to twenty at once.
    """
    samples = _samples(path)
    problems = [
        f"{path}: sample {number}{_named(sample)}: {reason}"
        for number, sample in enumerate(samples, 1)
        if (reason := _problem(sample))
    ]
    raise_problems(problems, more=len(problems) - MAX_PROBLEMS)
    rows = [_row(sample) for sample in samples]
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns: dict[str, Any] = {name: pa.array([row.get(name) for row in rows], pa.string()) for name in names}
    return pa.table({**columns, LINE: pa.array(range(1, len(rows) + 1), pa.int32())})


def _samples(path: Path) -> list[Any]:
    if not path.is_file():
        raise UserError(f"{path}: no such file{path_hint(path)}")
    try:
        content = json_value(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise UserError(f"{path}: damaged, {error}; make it again") from error
    samples = content.get("samples") if isinstance(content, dict) else None
    if not isinstance(samples, list):
        raise UserError(
            f"{path}: no timestamps manifest: an object with a list 'samples' is expected (polyvox timestamps writes one)"
        )
    if content.get("version") != VERSION:
        raise UserError(f"{path}: version {content.get('version')!r}; this Polyvox reads version {VERSION}")
    return samples


def _named(sample: Any) -> str:
    name = sample.get("id") if isinstance(sample, dict) else None
    return f" ({name!r})" if name is not None else ""


def _problem(sample: Any) -> str | None:
    """A message about an error in a sample; None where there is none."""
    if not isinstance(sample, dict):
        return f"an object is expected, this is {type(sample).__name__}"
    missing = [name for name in ("audio_path", "text", "duration", "words") if name not in sample]
    if missing:
        return f"lacks {', '.join(missing)}"
    if not _is_number(sample["duration"]):
        return f"duration: {sample['duration']!r} is no number of seconds"
    if not isinstance(sample["text"], str):
        return "text: no text"
    if not isinstance(sample["words"], list):
        return "words: a list is expected"
    return _words_problem(sample["words"], sample["text"].split(), sample["duration"]) or _cells_problem(
        sample
    )


def _cells_problem(sample: Mapping[str, Any]) -> str | None:
    try:
        _row(sample)
    except ValueError as error:
        return str(error)
    return None


def _words_problem(words: list[Any], text: list[str], duration: float) -> str | None:
    last = duration + max(TOLERANCE_SECONDS, TOLERANCE_SHARE * duration)  # as far as the sound may be longer
    before = 0.0
    for number, word in enumerate(words, 1):
        if not isinstance(word, dict) or not isinstance(word.get("word"), str):
            return f"words: {number}: an object with word, start and end is expected"
        if problem := _time_problem(word.get("start"), word.get("end"), before, last):
            return f"words: {number} ({word['word']!r}): {problem}"
        before = word["start"]
    spoken = [word["word"] for word in words]
    return None if spoken == text else f"words: {len(spoken)} that are not the {len(text)} of the text"


def _time_problem(start: Any, end: Any, first: float, last: float) -> str | None:
    if not (_is_number(start) and _is_number(end)):
        return "start and end must be seconds"
    if first <= start < end <= last:
        return None
    return (
        f"{start:g}–{end:g} s; it must begin at {first:g} s or later, end after that, and lie within the utterance "
        f"(up to {last:g} s)"
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _row(sample: Mapping[str, Any]) -> dict[str, str | None]:
    """A sample under the names of a manifest's columns."""
    times = [[word["word"], word["start"], word["end"]] for word in sample["words"]]
    others = {name: value for name, value in sample.items() if name not in ("text", "words")}
    cells = {**others, "transcript": sample["text"], "words": times}
    return {name: json_cell(value, name) for name, value in cells.items()}


def write_timestamps(path: Path, head: Mapping[str, Any], samples: Iterable[Mapping[str, Any]]) -> None:
    """Write the manifest whole or not at all, a sample a line."""
    with atomic_text(path) as handle:
        opening = json.dumps({"version": VERSION, **head}, ensure_ascii=False, indent=1)
        handle.write(opening.removesuffix("\n}") + ',\n "samples": [')
        mark = "\n  "
        for sample in samples:
            handle.write(mark + json.dumps(sample, ensure_ascii=False, allow_nan=False))
            mark = ",\n  "
        handle.write("\n ]\n}\n")
