"""Diagnoses as lines for a terminal, and from what a folder holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from training.base.terminal import coloured
from training.diagnosis.evidence import Evidence
from training.diagnosis.rules import RULES, Diagnosis
from training.evaluation.run_overview import CONFIG, history_of
from training.evaluation.stored import Result

SHOWN_IDS = 5


def lines(found: Sequence[Diagnosis], name: str) -> Iterator[str]:
    """What a terminal shows. ``name``: of what was looked at: a run, and the split that was scored."""
    if not found:
        yield f"diagnosis of {name}: no fault found ({len(RULES)} rules were checked)"
        return
    yield f"diagnosis of {name}:"
    for one in found:
        yield f"  {one.title}"
        yield f"    seen  {one.seen}"
        if one.ids:
            more = f" and {len(one.ids) - SHOWN_IDS} more" if len(one.ids) > SHOWN_IDS else ""
            yield f"    rows  {', '.join(one.ids[:SHOWN_IDS])}{more}"
        yield f"    do    {one.advice}"
        yield from (f"    $ {command}" for command in one.commands)


def drawn(found: Iterable[str]) -> Iterator[str]:
    """The `lines` in a terminal's colours: what was looked at, the faults and the commands stand out."""
    for line in found:
        command, fault = line.startswith("    $"), line.startswith("  ") and not line.startswith("    ")
        head = not line.startswith(" ") and line.endswith(":")
        yield coloured(line, "yellow" if fault else "bold") if fault or command or head else line


def evidence_of(folder: Path, result: Result | None) -> Evidence:
    """What a run's folder holds, and one evaluation of it."""
    file = folder / CONFIG
    config = yaml.safe_load(file.read_text(encoding="utf8")) if file.is_file() else None
    return Evidence(
        folder=folder,
        config=config if isinstance(config, dict) else {},
        records=history_of(folder),
        report=result.report if result is not None else {},
        predictions=result.predictions() if result is not None else (),
    )


def split_of(report: Mapping[str, Any]) -> str:
    """``test``, ``dev``, … or the name of the manifest that an evaluation is of."""
    meta = report.get("meta") or {}
    return str(meta.get("split") or Path(str(meta.get("manifest") or "dev")).name)
