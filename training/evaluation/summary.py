"""The scores of one evaluation as a few lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from training.base.terminal import table_lines
from training.data.example import TRANSLATE
from training.data.metric import BLEU, LABELS, WER, of_task

SYSTEMS = {"model": "model", "teacher": "teacher's labels", "even": "evenly spread"}
"""System whose word times are scored → its printed name."""
TEXTS = {"given": "reference text given", "own": "own text"}
"""Mode of the word times → its printed name."""
_COPIES = {
    "copy_of_own_transcript": "copy of its own transcript",
    "copy_of_reference_transcript": "copy of the reference transcript",
}


def score_text(score: Mapping[str, Any] | None, *, unit: str = "", digits: int = 1) -> str:
    """``12.3 [10.1, 14.0]``; a dash where the score is undefined."""
    if not score or score.get("value") is None:
        return "–"
    text = f"{score['value']:.{digits}f}{unit}"
    if score.get("low") is None:
        return text
    return f"{text} [{score['low']:.{digits}f}, {score['high']:.{digits}f}]"


def signed_text(found: Mapping[str, Any], key: str = "value") -> str:
    """A difference with its sign and interval: ``+1.2 [-0.3, +2.6]``."""
    if found.get(key) is None:
        return "undefined"
    return f"{found[key]:+.1f} [{found['low']:+.1f}, {found['high']:+.1f}]"


def summarize(report: Mapping[str, Any], *, drawn: bool = False) -> str:
    """The main figures as lines: scores and targets, baselines, changed rows, speakers that are not in training.

    ``drawn``: the scores are the table that standard output gets (`training.base.terminal.table_lines`).
    """
    sections = (
        *(
            _start,
            _score_table if drawn else _scores,
            _accuracy,
            _domains,
            _languages,
            _translation,
            _nearest,
            _voices,
        ),
        *(_word_times, _confidence, _oddities, _retained, _speed),
    )
    return "\n".join(line for section in sections for line in section(report))


def _score_table(report: Mapping[str, Any]) -> Iterator[str]:
    targets = {target["metric"]: target for target in report["targets"]}
    head = ["score", "value", "95 % interval", *(["target"] if targets else []), "raw"]
    rows = []
    for name, score in report["scores"].items():
        value, _, interval = score_text(score).partition(" ")
        row = [LABELS[name], value, interval]
        if targets:
            target = targets.get(name)
            row.append(f"{target['wanted']}: {'met' if target['met'] else 'not met'}" if target else "")
        rows.append([*row, score_text(report["scores_raw"].get(name))])
    yield from table_lines(head, rows, right=(1,))
    yield _units(report)


def _units(report: Mapping[str, Any]) -> str:
    first = next(iter(report["scores"].values()))
    return f"95 % intervals over {first['units']} units ({first['unit']}), {first['rows']} rows"


def _scores(report: Mapping[str, Any]) -> Iterator[str]:
    targets = {target["metric"]: target for target in report["targets"]}
    width = max(5, *(len(LABELS[name]) for name in report["scores"]))
    for name, score in report["scores"].items():
        target = targets.get(name)
        verdict = f"  (wanted {target['wanted']}: {'met' if target['met'] else 'not met'})" if target else ""
        raw = score_text(report["scores_raw"].get(name))
        yield f"{LABELS[name]:{width}} {score_text(score)}{verdict}  raw {raw}"
    yield f"{'':{width}} {_units(report)}"


def _start(report: Mapping[str, Any]) -> Iterator[str]:
    found = report.get("start")
    if not found:
        return
    if found.get("note"):
        yield f"start weights: {found['note']}"
        return
    scores = ", ".join(f"{LABELS[name]} {score_text(score)}" for name, score in found["scores"].items())
    yield f"start weights ({found['name']}, untouched, {found['context']}): {scores}"
    told = (f"{LABELS[name]} {paired_text(one)}" for name, one in found["differences"].items())
    yield f"  change since: {'; '.join(told)}"
    for domain, part in found.get("by_domain", {}).items():
        told = (f"{LABELS[name]} {changed_text(one)}" for name, one in part["metrics"].items())
        yield f"  change of domain {domain}: {'; '.join(told)}"


def _retained(report: Mapping[str, Any]) -> Iterator[str]:
    for found in report.get("retained") or []:
        yield f"retained, {found['name']}: {retained_text(found)}"


def retained_text(found: Mapping[str, Any]) -> str:
    """``WER 12.1 -> 13.0, +0.9 [+0.2, +1.6] paired: worse``, or why there is no score."""
    if found.get("note"):
        return str(found["note"])
    metric = found["metric"]
    return f"{LABELS[metric]} {changed_text(found['differences'][metric])}"


def changed_text(one: Mapping[str, Any]) -> str:
    """``12.1 -> 13.0, +0.9 [+0.2, +1.6] paired: worse``."""
    if one["difference"] is None:
        return "undefined"
    return f"{one['a']:.1f} -> {one['b']:.1f}, {paired_text(one)}"


def paired_text(one: Mapping[str, Any]) -> str:
    """``-1.2 [-2.4, -0.2] paired: better``."""
    if one["difference"] is None:
        return "undefined"
    return f"{signed_text(one, 'difference')} paired: {one['verdict']}"


def _accuracy(report: Mapping[str, Any]) -> Iterator[str]:
    found = report.get("accuracy")
    if not found:
        return
    yield f"accuracy: {score_text(found['words'], unit=' %')} of words, {score_text(found['utterances'], unit=' %')} of utterances without an error"
    if len(report["by_duration"]) > 1:
        parts = [f"{name} {score_text(group[WER.name])}" for name, group in report["by_duration"].items()]
        yield f"{WER.label} by length: {', '.join(parts)}"
    known = report["by_vocabulary"]
    if known:
        parts = [
            f"{name} {score_text(score)} ({score['of']})" for name, score in known["word_errors"].items()
        ]
        yield f"words missed, by how often training had them: {', '.join(parts)}"


def _domains(report: Mapping[str, Any]) -> Iterator[str]:
    for name, found in report.get("by_domain", {}).items():
        scores = ", ".join(f"{LABELS[key]} {score_text(found[key])}" for key in LABELS if key in found)
        yield f"domain {name}: {scores}, {found['rows']} rows"
    if predicted := report.get("heard_domains"):
        parts = [f"{name} {score_text(score)}" for name, score in predicted["by_domain"].items()]
        yield f"domain predicted correctly: {score_text(predicted['accuracy'], unit=' %')}: {', '.join(parts)}"
    gap = report.get("domain_gap")
    if not gap:
        return
    for name, found in gap["gaps"].items():
        scores = ", ".join(f"{LABELS[key]} {score_text(score)}" for key, score in found.items())
        yield f"domain gap, {name} − {gap['base']}: {scores}"


def _languages(report: Mapping[str, Any]) -> Iterator[str]:
    found = report.get("word_languages")
    if not found:
        return
    parts = [f"{language} {score_text(score)}" for language, score in found[WER.name].items()]
    yield f"{WER.label} by word language: {', '.join(parts)}; {found['note'].split(';')[0]}"
    if found["embedded_word_recall"]["of"]:
        yield f"embedded words recalled: {score_text(found['embedded_word_recall'], unit=' %')}"
        points = found["switch_points"]
        yield f"errors at switch points: {score_text(points['at'])}, elsewhere in the same rows {score_text(points['elsewhere'])}"


def _translation(report: Mapping[str, Any]) -> Iterator[str]:
    found = report.get("translation")
    if not found:
        return
    rows = found["rows"]
    yield f"translation, {BLEU.label} on all {rows['all']} rows / the {rows['changed']} rows that change:"
    for system, name in {"ours": "model", **_COPIES}.items():
        if system in found["all"]:
            scores = [score_text(found[group][system][BLEU.name]) for group in ("all", "changed")]
            yield f"  {name}: {scores[0]} / {scores[1]}"
    for system, name in _COPIES.items():
        gaps = found["paired_on_changed"].get(f"ours_minus_{system}")
        if gaps:
            told = ", ".join(f"{one.label} {score_text(gaps[one.name])}" for one in of_task(TRANSLATE))
            yield f"  model − {name}, changed rows: {told}"
    replaced = found["words_replaced"]
    if replaced:
        whole = replaced["replaced"]
        yield (
            f"  foreign words replaced: {score_text(whole, unit=' %')} ({whole['count']} of {whole['of']}); "
            f"gone {score_text(replaced['gone'], unit=' %')}"
        )


def _nearest(report: Mapping[str, Any]) -> Iterator[str]:
    for task, found in report["nearest_training_sentence"].items():
        if task != "rule":
            scores = ", ".join(
                f"{LABELS[name]} {score_text(found[name])}" for name in LABELS if name in found
            )
            close = found["references_within_one_word"]
            yield f"nearest training sentence ({task}, oracle): {scores}; {close} references within one word"


def _voices(report: Mapping[str, Any]) -> Iterator[str]:
    for group, found in (report.get("by_training") or {}).items():
        scores = [f"{LABELS[name]} {score_text(found[name])}" for name in LABELS if name in found]
        if scores:
            yield f"speakers {'that are' if group == 'heard' else 'that are not'} in training: {', '.join(scores)}"


def _word_times(report: Mapping[str, Any]) -> Iterator[str]:
    found = report.get("word_times") or {}
    for mode, name in TEXTS.items():
        if mode not in found:
            continue
        for system, told in SYSTEMS.items():
            if system in found[mode]:
                yield from _times(name, told, found[mode][system])
        for group, scores in found[mode].get("model", {}).get("groups", {}).items():
            yield (
                f"  {group}: onsets {score_text(scores['start_mean_absolute_error'], unit=' ms')}, "
                f"within 50 ms {score_text(scores['start_within_50'], unit=' %')}"
            )


def _times(mode: str, system: str, found: Mapping[str, Any]) -> Iterator[str]:
    sides = "; ".join(
        f"{name} {score_text(found[side]['mean_absolute_error'], unit=' ms')}, "
        f"median {found[side]['median_absolute_error']['value'] or 0:.0f}, bias {found[side]['bias']['value'] or 0:+.0f}, "
        f"within 50 ms {score_text(found[side]['within']['50'], unit=' %')}"
        for side, name in (("start", "onsets"), ("end", "ends"))
        if found["matched_words"]
    )
    words = f"{found['matched_words']} of {found['reference_words']} words matched"
    yield f"word times, {mode}, {system} ({words}): {sides or '–'}"
    ratio = found.get("even_over_model", {}).get("value")
    if ratio is not None:
        yield f"  evenly spread words are {score_text(found['even_over_model'])} times as far off"


def _confidence(report: Mapping[str, Any]) -> Iterator[str]:
    found = report.get("confidence")
    if not found:
        return
    own = found.get("raw")
    before = f"; the model's own {score_text(own['ece'], digits=3)}" if own else ""
    yield (
        f"confidence of words: expected calibration error {score_text(found['ece'], digits=3)} (equal mass "
        f"{score_text(found['ece_equal_mass'], digits=3)}), {found['words']} words{before}"
    )
    if found["note"]:
        yield f"  {found['note']}"


def _oddities(report: Mapping[str, Any]) -> Iterator[str]:
    for task, found in report["degenerate"].items():
        yield f"{task}: {found['looping']['count']} hypotheses loop, {found['empty']['count']} are empty, of {found['rows']}"
    invented = [
        f"{kind} {found['words_per_clip']:.1f}"
        for kind, found in report["no_speech"].items()
        if found["clips"]
    ]
    if invented:
        yield f"words made up per clip without speech: {', '.join(invented)}"


def _speed(report: Mapping[str, Any]) -> Iterator[str]:
    speed = report["speed"]
    if speed["rtf"] is not None:
        probes = speed.get("probe_seconds")
        beside = "" if probes is None else f"; clips without speech {probes:.0f} s more"
        yield f"RTF {speed['rtf']:.3f}, mean latency {speed['mean_latency_seconds']:.3f} s per utterance{beside}"
