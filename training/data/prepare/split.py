"""Split a manifest.

Whole videos (or speakers, or sentences) go to train, dev or test, balanced by duration. What the parts share all the
same is printed and stored in ``splits.json``. Rows with a ``split_hint`` go to ``<hint>.csv`` and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.base.errors import UserError
from training.base.files import DerivedFiles, rebase
from training.data import missing
from training.data.columns import COMMAND
from training.data.manifest import TEXT_COLUMNS, Manifest, load_manifest
from training.data.prepare.partition import partition
from training.data.prepare.split_report import describe_overlap, describe_parts
from training.data.tables import MAX_PROBLEMS, raise_problems, row_writer
from training.data.text import sentence_key

PARTS = ("train", "dev", "test")
GROUPINGS = {"video": "group", "speaker": "speaker", "sentence": "transcript"}
"""What is never torn apart → the column that tells it, in the order in which they are chosen."""
RECORD = "splits.json"
FAR_OFF = 0.5
"""A part whose share is off by more than this (relative) is worth a warning."""

_ALIASES = {
    "training": "train",
    "val": "dev",
    "valid": "dev",
    "validation": "dev",
    "eval": "dev",
    "testing": "test",
}
_BLOCK = 8192
_CHOSEN = {
    "speaker": "split by speaker, because no column names videos (video_id or group)",
    "sentence": "warning: split by sentence, because no column names videos or speakers (video_id, group, speaker): one speaker "
    "can be in train and in test, and scores are then better than for new speakers",
}


def parse_ratios(text: str) -> tuple[float, float, float]:
    """``80/10/10`` to shares that add up to 1. Raises `UserError`."""
    try:
        values = [float(value) for value in text.split("/")]
    except ValueError:
        values = []
    if len(values) != 3 or not all(np.isfinite(v) and v >= 0 for v in values) or values[0] <= 0:
        raise UserError(f"--ratios {text}: expected three numbers for train/dev/test, such as 80/10/10")
    train, dev, test = (value / sum(values) for value in values)
    return train, dev, test


def split(
    source: Path,
    output_dir: Path,
    *,
    ratios: Sequence[float] = (0.8, 0.1, 0.1),
    seed: int = 42,
    by: str | None = None,
    audio_root: Path | None = None,
    columns: Mapping[str, str] | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Write ``<part>.csv`` for every part and ``splits.json``; returns the content of the latter.

    ``by``: one of `GROUPINGS`, or ``column``; None: the first grouping whose column is there, and a warning where that is not
    the video.

    Audio paths are rewritten relative to ``output_dir``. Raises `UserError` where the groups do not suffice, where
    a row has none, and for files that somebody else made.
    """
    manifest = load_manifest(
        source, audio_root=audio_root, columns=columns, check_words=False, need_text=True, option=COMMAND
    )
    hinted, rest = _hinted(manifest)
    chosen = by or next((one for one in GROUPINGS if _has_column(manifest, one)), "video")
    warnings = [] if by or chosen == "video" else [_CHOSEN[chosen]]
    by = chosen
    parts = (
        _by_column(manifest, rest) if by == "column" else _by_group(manifest, rest, hinted, ratios, seed, by)
    )
    for name, rows in hinted.items():
        parts[name] = np.sort(np.concatenate([parts[name], rows])) if name in parts else rows
    parts = {name: rows for name, rows in parts.items() if len(rows)}
    keys = _keys(manifest)
    report: dict[str, Any] = {
        "made_by": "split_data",
        "manifest": source.as_posix(),
        "manifest_sha256": manifest.sha256(),
        "by": by,
        "ratios": [round(value, 6) for value in ratios],
        "seed": seed,
        "parts": describe_parts(parts, manifest.durations, keys),
        "overlap": describe_overlap(parts, keys),
    }
    texts = {name: manifest.column(name) for name in TEXT_COLUMNS.values() if name in manifest.column_names}
    report["warnings"] = [*warnings, *_warnings(report["parts"], ratios, by), *missing.warnings(texts)]
    _write(manifest, parts, output_dir, report, force)
    return report


def _hinted(manifest: Manifest) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Rows by their ``split_hint``, and the rows without one."""
    if "split_hint" not in manifest.column_names:
        return {}, np.arange(len(manifest))
    hints = [(hint or "").strip() for hint in manifest.column("split_hint")]
    wrong = [i for i, hint in enumerate(hints) if hint and not re.fullmatch(r"[A-Za-z0-9][\w-]*", hint)]
    _raise_rows(manifest, wrong, lambda i: f"split_hint: {hints[i]!r} cannot be the name of a file")
    values = np.array(hints, dtype=object)
    named = {hint: np.flatnonzero(values == hint) for hint in sorted(set(hints)) if hint}
    return named, np.flatnonzero(values == "")


def _raise_rows(manifest: Manifest, rows: Sequence[int], describe: Any) -> None:
    shown = rows[:MAX_PROBLEMS]
    problems = [f"{manifest.path}:{manifest.line(i)}: {describe(i)}" for i in shown]
    raise_problems(problems, more=len(rows) - len(shown))


def part_name(cell: str | None) -> str:
    """What a cell of the column ``split`` calls a part, under our name (``val`` is ``dev``); "" for an empty one."""
    name = (cell or "").strip().lower()
    return _ALIASES.get(name, name)


def _by_column(manifest: Manifest, rest: np.ndarray) -> dict[str, np.ndarray]:
    """The parts that the column ``split`` names."""
    names = [part_name(name) for name in manifest.column("split")]
    wrong = [int(i) for i in rest if names[i] not in PARTS]
    _raise_rows(manifest, wrong, lambda i: f"split: {names[i]!r} is none of {', '.join(PARTS)}")
    return {part: np.array([i for i in rest if names[i] == part], dtype=np.int64) for part in PARTS}


def _by_group(
    manifest: Manifest,
    rest: np.ndarray,
    hinted: Mapping[str, np.ndarray],
    ratios: Sequence[float],
    seed: int,
    by: str,
) -> dict[str, np.ndarray]:
    """Groups to parts. Rows that a hint has put into a part count for it."""
    cells = _group_cells(manifest, by)
    missing = [int(i) for i in rest if not cells[i]]
    _raise_rows(manifest, missing, lambda i: f"no {by} in this row, needed by --by {by}")
    names, group_of = np.unique(
        np.array([cells[i] for i in rest], dtype=object).astype(str), return_inverse=True
    )
    durations = manifest.durations.astype(float)
    held = [float(durations[hinted[part]].sum()) if part in hinted else 0.0 for part in PARTS]
    needed = sum(share > 0 and not taken for share, taken in zip(ratios, held, strict=True))
    if len(names) < needed:
        raise UserError(_too_few(manifest, rest, len(names), needed, by))
    seconds = np.bincount(group_of, weights=durations[rest], minlength=len(names))
    part_of = partition(seconds, ratios, seed, taken=held)[group_of] if len(names) else group_of
    return {part: rest[part_of == j] for j, part in enumerate(PARTS)}


def _has_column(manifest: Manifest, by: str) -> bool:
    names = manifest.column_names
    return GROUPINGS[by] in names or (by == "video" and "video_id" in names)


def _group_cells(manifest: Manifest, by: str) -> list[str | None]:
    name = GROUPINGS[by]
    if not _has_column(manifest, by):
        others = _other_groupings(manifest, np.arange(len(manifest)), by)
        raise UserError(
            f"{manifest.path}:1: --by {by} needs the column {'video_id' if by == 'video' else name!r}, which is missing; "
            f"{others or 'no other grouping is possible with these columns'}"
        )
    cells = manifest.column(name)
    return [sentence_key(cell) if cell else None for cell in cells] if by == "sentence" else cells


def _too_few(manifest: Manifest, rest: np.ndarray, groups: int, needed: int, by: str) -> str:
    others = _other_groupings(manifest, rest, by)
    advice = others or "give --ratios with a 0, such as 90/10/0"
    return f"{manifest.path}: {groups} {by}{'s' if groups != 1 else ''} for {needed} parts that must not share one; {advice}"


def _other_groupings(manifest: Manifest, rest: np.ndarray, by: str) -> str:
    """The other options that would work, with what each of them has to offer."""
    offers = []
    for other in GROUPINGS:
        if other == by or not _has_column(manifest, other):
            continue
        cells = _group_cells(manifest, other)
        count = len({cells[i] for i in rest if cells[i]})
        if count >= len(PARTS):
            offers.append(f"--by {other} ({count:,} {other}s)")
    return f"split by something else: {' or '.join(offers)}" if offers else ""


def _keys(manifest: Manifest) -> dict[str, list[str | None]]:
    """What may leak from part to part: videos, speakers, sentences; as far as the manifest has them."""
    keys: dict[str, list[str | None]] = {}
    if {"group", "video_id"} & set(manifest.column_names):
        keys["videos"] = manifest.column("group")
    if "speaker" in manifest.column_names:
        keys["speakers"] = manifest.column("speaker")
    if "transcript" in manifest.column_names:
        keys["sentences"] = [sentence_key(cell) if cell else None for cell in manifest.column("transcript")]
    return keys


def _warnings(parts: Mapping[str, Mapping[str, Any]], ratios: Sequence[float], by: str) -> list[str]:
    lines = []
    total = sum(parts[name]["hours"] for name in PARTS if name in parts)
    for name, share in zip(PARTS, ratios, strict=True):
        if name not in parts:
            if share > 0:
                lines.append(f"warning: no {name} part")
            continue
        got = parts[name]["hours"] / total if total else 0.0
        if by != "column" and share > 0 and abs(got / share - 1) > FAR_OFF:
            lines.append(
                f"warning: {name} has {got:.0%} of the duration instead of {share:.0%}: too few {by}s to choose from"
            )
    return lines


def _write(
    manifest: Manifest,
    parts: Mapping[str, np.ndarray],
    output_dir: Path,
    report: Mapping[str, Any],
    force: bool,
) -> None:
    targets = {name: output_dir / f"{name}.csv" for name in parts}
    with DerivedFiles(output_dir / RECORD, targets.values(), force=force) as files:
        for name, path in targets.items():
            with files.open(path) as handle:
                write = row_writer(handle, ".csv", manifest.column_names)
                for row in _rows(manifest, parts[name], output_dir):
                    write({**row, "split": name} if "split" in row else row)
        files.publish(report)


def _rows(manifest: Manifest, rows: np.ndarray, folder: Path) -> Any:
    part = manifest.select(rows).table
    for start in range(0, len(rows), _BLOCK):
        for row in part.slice(start, _BLOCK).to_pylist():
            cell = row["audio_path"]
            yield {
                **row,
                "audio_path": cell if Path(cell).is_absolute() else rebase(manifest.resolve(cell), folder),
            }
