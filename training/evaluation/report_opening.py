"""What the report says first: what each run is, what it reached, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.data.metric import BLEU, CER, CER_SPACES, LABELS, METRICS, WER
from training.evaluation.stored import Result
from training.evaluation.summary import paired_text, score_text

FIRST = (WER.name, BLEU.name)
"""Scores that stand for a run in one sentence: the first that it has."""


@dataclass(frozen=True)
class EvaluationGroup:
    """The utterances that some evaluations share. name: for a person. results: in the order of the report."""

    name: str
    results: tuple[Result, ...]


def grouped(results: Sequence[Result]) -> list[EvaluationGroup]:
    """The evaluations by what they were scored on: a chart holds those of one test set alone.

    Evaluations share a test set where the hash of the manifest and the number of utterances are the same.
    """
    found: dict[tuple[Any, ...], list[Result]] = {}
    for result in results:
        found.setdefault(_key(result), []).append(result)
    names = [_scored_on(group[0]) for group in found.values()]
    told = [name if names.count(name) == 1 else f"{name} ({n})" for n, name in enumerate(names, 1)]
    return [EvaluationGroup(name, tuple(group)) for name, group in zip(told, found.values(), strict=True)]


def _key(result: Result) -> tuple[Any, ...]:
    meta = result.report.get("meta") or {}
    source = meta.get("manifest_sha256") or (meta.get("manifest"), meta.get("split"))
    return (source, tuple((name, score["rows"]) for name, score in result.report["scores"].items()))


def opening(result: Result, compared: Sequence[Mapping[str, Any]] = ()) -> str:
    """Two sentences on a run: what was trained on what and scored on what; the first score, and what it is better than.

    Args:
        result: an evaluation. What it does not know is left out.
        compared: paired comparisons of runs (`training.evaluation.report.comparisons`).
    """
    meta = result.report.get("meta") or {}
    name, score = first_score(result)
    trained = _trained_on(meta)
    kind = f" ({_kind(meta)})" if meta.get("model_type") else ""
    told = f"{result.run}{kind}{trained} was scored on {score['rows']:,} utterances of {_scored_on(result)}."
    return f"{told} {_reached(result, name, score, compared)}"


def first_score(result: Result) -> tuple[str, Mapping[str, Any]]:
    """Name and value of the score that stands for a run."""
    scores = result.report["scores"]
    if CER_SPACES.name in scores:  # where word spacing is free, words are not compared
        return CER.name, scores[CER.name]
    name = next((one for one in FIRST if one in scores), next(iter(scores)))
    return name, scores[name]


def _kind(meta: Mapping[str, Any]) -> str:
    size = meta.get("parameters")
    return f"{meta['model_type']}, {size / 1e6:,.1f} million parameters" if size else str(meta["model_type"])


def _trained_on(meta: Mapping[str, Any]) -> str:
    data = (meta.get("config") or {}).get("data") or {}
    named = next((data[key] for key in ("registry", "shards", "manifest") if data.get(key)), None)
    source = named or data.get("train")  # data.train keeps its default beside them
    if data.get("registry"):  # the last part alone: an address may hold a password
        source = f"{str(named).rpartition('/')[2].partition('?')[0]}[{data.get('version')}]"
    if not source or not isinstance(source, str):
        return ""
    start = ((meta.get("config") or {}).get("model") or {}).get("name")
    return f", trained on {source}" + (f" from {Path(str(start)).name}," if start else ",")


def _scored_on(result: Result) -> str:
    meta = result.report.get("meta") or {}
    if meta.get("split") and not meta.get("manifest"):
        return f"the {meta['split']} split"
    if meta.get("manifest"):
        place, _, part = str(meta["manifest"]).partition("[")  # data/registry.db[v1/test]
        return Path(place).name + (f"[{part}" if part else "")
    return "its test set"


def _reached(
    result: Result, name: str, score: Mapping[str, Any], compared: Sequence[Mapping[str, Any]]
) -> str:
    reached = f"{LABELS[name]} is {score_text(score)}"
    start = result.report.get("start") or {}
    if name in (start.get("differences") or {}):
        return f"{reached}; against {start['name']} before the training {paired_text(start['differences'][name])}."
    if other := _best_other(result.run, name, compared):
        return f"{reached}; {other}."
    copied = result.translated("all", "copy_of_reference_transcript", BLEU) if name == BLEU.name else None
    if copied:
        return f"{reached}; a copy of the reference transcript has {score_text(copied)}."
    return f"{reached}; no other model was scored on the same utterances in this evaluation."


def _best_other(run: str, name: str, compared: Sequence[Mapping[str, Any]]) -> str | None:
    """The difference to the best other run on the same utterances, and its doubt."""
    sign = -1 if METRICS[name].higher_is_better else 1
    others = []
    for one in compared:
        found = one["metrics"].get(name)
        if run not in one["names"] or not found or found["difference"] is None:
            continue
        first = one["names"][0] == run
        low, high = (-found["high"], -found["low"]) if first else (found["low"], found["high"])
        mine = -found["difference"] if first else found["difference"]
        other = one["names"][1 if first else 0]
        text = f"against {other} on the same utterances {mine:+.1f} [{low:+.1f}, {high:+.1f}] paired"
        others.append((sign * found["b" if first else "a"], text))
    return min(others)[1] if others else None
