"""Is a tuned Whisper as good where people deploy it? Scores of stock pipelines beside ours, and a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.data.example import TRANSCRIBE, Example
from training.data.metric import CER, LABELS, WER
from training.evaluation.errors import LOOP_RULE, loops
from training.evaluation.intervals import Units, interval, paired
from training.evaluation.metrics import transcript_statistics
from training.evaluation.rows import Row, make_row
from training.evaluation.word_alignment import align_characters, align_words
from training.transcription.stock_pipelines import Output, without_text

OURS = "polyvox"
PARTS = {"short": "short clips", "long": "long files"}
KINDS = ("substitutions", "deletions", "insertions")
RULE = (
    "score of the pipeline minus ours, in points, 95 % paired bootstrap over recordings; a difference above the allowed gap "
    "is a problem, whatever its interval; without_text: percent of the sound that no segment with text covers (a short clip: "
    "all of it or nothing); rtf: seconds of decoding / seconds of audio"
)
SILENT_POINTS = 2.0
"""Points of sound without text beyond ours that a reason names."""


@dataclass(frozen=True)
class Decoded:
    """The outputs of one pipeline for the utterances of one part, or why there are none."""

    name: str
    outputs: Sequence[Output] | None = None
    failure: str = ""


def judged_by(rows: Sequence[Row]) -> str:
    """The score of the verdict: WER, or CER where the language's word spacing is free."""
    return (WER if all(row.normalizer.spaces_in_cer for row in rows) else CER).name


def recordings_of(examples: Sequence[Example]) -> Units:
    """Recordings (``group``) as the units of the bootstrap, utterances where one names none."""
    named = all(example.group for example in examples)
    names = [str(example.group if named else example.id) for example in examples]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    index = np.array([numbers[name] for name in names], dtype=np.int64)
    return Units("recording" if named else "utterance", index, len(numbers))


def score_part(
    examples: Sequence[Example], decoded: Sequence[Decoded], *, resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """The figures of one part: short clips, or long files.

    Args:
        examples: utterances with transcripts.
        decoded: ours (`OURS`) first, then the other pipelines.
        resamples, seed: of the bootstrap.

    Returns:
        ``rows``, ``seconds``, ``metric``, and by pipeline its scores with intervals, counts of errors, loops, sound without
        text, real-time factor and ``minus_ours``; ``failure`` alone where a pipeline could not decode.
    """
    units = recordings_of(examples)
    rows = {one.name: rows_of(examples, one.outputs) for one in decoded if one.outputs is not None}
    metric = judged_by(rows[OURS])
    draws = {"resamples": resamples, "seed": seed}
    ours = transcript_statistics(rows[OURS])
    systems: dict[str, Any] = {}
    for one in decoded:
        if one.outputs is None:
            systems[one.name] = {"failure": one.failure}
            continue
        statistics = transcript_statistics(rows[one.name])
        found: dict[str, Any] = {
            name: interval(statistic, units, **draws).to_json() for name, statistic in statistics.items()
        }
        found |= _counts(rows[one.name], metric) | _sound(examples, one.outputs)
        if one.name != OURS:
            found["minus_ours"] = {
                name: paired(statistics[name], ours[name], units, **draws).to_json() for name in statistics
            }
        systems[one.name] = found
    return {
        "rows": len(examples),
        "seconds": sum(example.duration for example in examples),
        "recordings": units.count if units.kind == "recording" else None,
        "metric": metric,
        "pipelines": systems,
    }


def rows_of(examples: Sequence[Example], outputs: Sequence[Output]) -> list[Row]:
    """One row per utterance."""
    return [
        make_row(example, TRANSCRIBE, example.texts[TRANSCRIBE], output.text, output.seconds)
        for example, output in zip(examples, outputs, strict=True)
    ]


def _counts(rows: Sequence[Row], metric: str) -> dict[str, Any]:
    """Errors of each kind in the units of the metric, and loops."""
    if metric == CER.name:
        aligned = align_characters(
            [row.normalizer.characters(row.raw_reference) for row in rows],
            [row.normalizer.characters(row.raw_hypothesis) for row in rows],
        )
    else:
        aligned = align_words([row.reference for row in rows], [row.hypothesis for row in rows])
    hits, *errors = (int(count) for count in aligned.counts.sum(axis=0))
    reference = hits + errors[0] + errors[1]
    found: dict[str, Any] = {
        kind: {"count": count, "points": 100.0 * count / reference if reference else None}
        for kind, count in zip(KINDS, errors, strict=True)
    }
    return {**found, "loops": sum(map(loops, rows)), "empty": sum(not row.hypothesis for row in rows)}


def _sound(examples: Sequence[Example], outputs: Sequence[Output]) -> dict[str, Any]:
    seconds = sum(example.duration for example in examples)
    silent = sum(
        without_text(output.spans, example.duration)
        for example, output in zip(examples, outputs, strict=True)
    )
    return {
        "without_text": 100.0 * silent / seconds if seconds else None,
        "rtf": sum(output.seconds for output in outputs) / seconds if seconds else None,
    }


def judge(parts: Mapping[str, Mapping[str, Any]], max_gap: float) -> dict[str, Any]:
    """The verdict over all parts.

    Args:
        parts: by `PARTS`, of `score_part`.
        max_gap: points that a pipeline's score may lie above ours.

    Returns:
        ``passed``; ``problems``: one line each, with the likeliest reason; ``line``: all of it in one.
    """
    problems = []
    for name, part in parts.items():
        ours = part["pipelines"][OURS]
        for pipeline, found in part["pipelines"].items():
            if "failure" in found:
                problems.append(f"{pipeline}, {PARTS[name]}: cannot decode: {found['failure']}")
            elif "minus_ours" in found:
                gap = found["minus_ours"][part["metric"]]
                if gap["value"] is None or gap["value"] > max_gap:
                    problems.append(_problem(pipeline, name, part["metric"], gap, ours, found, part["rows"]))
    line = (
        "as good in every pipeline"
        if not problems
        else f"{len(problems)} of the pipelines' results are worse"
    )
    return {"passed": not problems, "max_gap": max_gap, "problems": problems, "line": line}


def _problem(
    pipeline: str,
    part: str,
    metric: str,
    gap: Mapping[str, Any],
    ours: Mapping[str, Any],
    found: Mapping[str, Any],
    rows: int,
) -> str:
    scores = (found[metric]["value"], ours[metric]["value"], gap["value"], gap["low"], gap["high"])
    if any(score is None for score in scores):
        return f"{pipeline}, {PARTS[part]}: {LABELS[metric]} cannot be compared (no reference words)"
    theirs, own, value, low, high = scores
    return (
        f"{pipeline}, {PARTS[part]}: {LABELS[metric]} {theirs:.1f} against {own:.1f} by polyvox: {value:+.1f} "
        f"[{low:+.1f}, {high:+.1f}] points; {reason(ours, found, rows)}"
    )


def reason(ours: Mapping[str, Any], found: Mapping[str, Any], rows: int) -> str:
    """What the gap is made of: the kind of error that grew most, loops, sound without text."""
    grown = {kind: (found[kind]["points"] or 0.0) - (ours[kind]["points"] or 0.0) for kind in KINDS}
    most = max(KINDS, key=lambda kind: grown[kind])
    told = [f"mostly {most} ({grown[most]:+.1f} points)"]
    if found["loops"] > ours["loops"]:
        told.append(f"{found['loops']} of {rows} texts run in loops (ours {ours['loops']})")
    silent = (found["without_text"] or 0.0) - (ours["without_text"] or 0.0)
    if silent > SILENT_POINTS:
        told.append(
            f"{found['without_text']:.1f} % of the sound has no text (ours {ours['without_text']:.1f} %)"
        )
    return ", ".join(told)


def table(report: Mapping[str, Any]) -> str:
    """The figures for a terminal."""
    lines = []
    for name, part in report["parts"].items():
        metric = part["metric"]
        lines.append(f"{PARTS[name]}: {part['rows']}, {part['seconds'] / 60:.1f} minutes, {_units(part)}")
        lines.append(
            f"  {'':16}{LABELS[metric] + ', %':>20}{'minus ours':>22}{'ins':>7}{'del':>7}{'loops':>7}{'no text %':>11}{'RTF':>8}"
        )
        lines += [f"  {_line(pipeline, metric, found)}" for pipeline, found in part["pipelines"].items()]
    return "\n".join([*lines, f"loops: {LOOP_RULE}"])


def _units(part: Mapping[str, Any]) -> str:
    if part["recordings"] == 1:
        return "one recording: its intervals have no width and say nothing"
    return (
        f"{part['recordings']} recordings"
        if part["recordings"]
        else "no recordings named: utterances are drawn"
    )


def _line(pipeline: str, metric: str, found: Mapping[str, Any]) -> str:
    if "failure" in found:
        return f"{pipeline:16}cannot decode: {found['failure']}"
    gap = found.get("minus_ours", {}).get(metric)
    points = [f"{found[kind]['points'] or 0.0:7.1f}" for kind in ("insertions", "deletions")]
    return (
        f"{pipeline:16}{_score(found[metric]):>20}{_score(gap, '+') if gap else '':>22}{''.join(points)}"
        f"{found['loops']:7d}{found['without_text'] or 0.0:11.1f}{found['rtf'] or 0.0:8.2f}"
    )


def _score(entry: Mapping[str, Any], sign: str = "") -> str:
    if entry["value"] is None:
        return "–"
    return f"{entry['value']:{sign}.1f} [{entry['low']:{sign}.1f}, {entry['high']:{sign}.1f}]"
