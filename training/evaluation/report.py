"""One self-contained ``report.html``: scores with intervals, curves, errors, examples with audio, settings.

Everything is in the file: figures as inline SVG, sound as data URIs, no scripts. All text is escaped.
"""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from training.base.errors import UserError
from training.data.example import TRANSCRIBE, TRANSLATE
from training.data.metric import BLEU, LABELS, WER, Metric, of_task
from training.evaluation.charts import smooth
from training.evaluation.compare import compare
from training.evaluation.deployment import PARTS
from training.evaluation.figures import Bar, bars, curves, reliability
from training.evaluation.report_opening import EvaluationGroup, first_score, grouped, opening
from training.evaluation.run_labels import colour, labels
from training.evaluation.selected_rows import select_rows
from training.evaluation.spectrogram import spectrogram
from training.evaluation.stored import CHANGED, History, Result, judged_by
from training.evaluation.summary import SYSTEMS as TIMED
from training.evaluation.summary import TEXTS, paired_text, retained_text, score_text

TEMPLATE = "report.html.j2"
LoadAudio = Callable[[str], "tuple[bytes, str] | None"]
"""Sound of an utterance by id: (bytes, MIME type), or None where it cannot be had."""

SERIES = 6
"""Colours that a figure has at least, for bars that are not of runs."""
Legend = list[tuple[int, str]]
"""Number of the colour, name."""
SECTIONS = {
    "diagnosis": "Diagnosis",
    "runs": "Runs",
    "scores": "Scores",
    "figures": "Figures",
    "translation": "Translation",
    "languages": "Word languages",
    "words": "Words",
    "errors": "Errors",
    "speakers": "Speakers",
    "comparison": "Comparison",
    "deployment": "Deployment",
    "examples": "Examples",
    "settings": "Settings",
}
"""Anchor → name, in the order of the page; a section without content is left out."""
TERMS = {
    "WER": "word error rate: wrong, missing and added words per 100 words of the reference; lower is better",
    "CER": "character error rate: the same for characters; lower is better",
    "CER with spaces": "character error rate with spaces counted as characters",
    "BLEU": "overlap of one to four words in a row with the reference translation, 0 to 100; higher is better",
    "chrF": "overlap of character sequences with the reference translation, 0 to 100; higher is better",
    "RTF": "real-time factor: seconds of computing for a second of sound; lower is faster",
}
"""Terms that the report explains where they stand."""
SYSTEMS = {
    "ours": "model",
    "copy_of_own_transcript": "copy of its own transcript",
    "copy_of_reference_transcript": "copy of the reference transcript",
}


def build_report(
    results: Sequence[Result],
    histories: Sequence[History] = (),
    load: LoadAudio | None = None,
    *,
    title: str = "Polyvox report",
    deployments: Sequence[dict[str, Any]] = (),
    diagnoses: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> str:
    """The page as text.

    Args:
        results: evaluations.
        histories: curves of runs.
        load: gives the sound of the examples; without it they are shown silent.
        title: of the page.
        deployments: what `training.evaluation.stored.load_deployments` found.
        diagnoses: name of an evaluation → what is probably wrong, as in the ``diagnosis`` of its metrics file, which
            stands for those that are not given.
    """
    from markupsafe import Markup

    selected = select_rows(results)
    groups = grouped(results)
    compared = comparisons(results)
    figures = [(name, legend, Markup(svg)) for name, legend, svg in _figures(groups, histories)]
    told = list(_diagnoses(results, diagnoses or {}, load))
    has = _sections(results, figures, compared, deployments, selected, told)
    return _template().render(
        title=title,
        results=results,
        groups=groups,
        openings=[opening(result, compared) for result in results],
        with_start=any((result.report.get("start") or {}).get("differences") for result in results),
        terms=TERMS,
        histories=list(zip(labels(histories), histories, strict=True)),
        colours=[(colour(n), colour(n, dark=True)) for n in range(max(len(histories), SERIES))],
        names=LABELS,
        errors=of_task(TRANSCRIBE),
        qualities=of_task(TRANSLATE),
        wer=WER,
        systems=SYSTEMS,
        timed=TIMED,
        texts=TEXTS,
        figures=figures,
        comparisons=compared,
        has=has,
        sections=[(anchor, name) for anchor, name in SECTIONS.items() if has[anchor]],
        shown_scores=[name for name in LABELS if any(name in result.report["scores"] for result in results)],
        deployments=deployments,
        diagnoses=told,
        parts=PARTS,
        selected=[(row, *_sound_and_spectrogram(row.id, load)) for row in selected],
    )


def _template() -> Any:
    """The page's template with its filters; all text is escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        first_score=first_score,
        score=score_text,
        paired=paired_text,
        retained=retained_text,
        number=_number,
        pretty=_pretty,
    )
    return environment.get_template(TEMPLATE)


def _sections(
    results: Sequence[Result],
    figures: Sequence[Any],
    compared: Sequence[Any],
    deployments: Sequence[Any],
    selected: Sequence[Any],
    diagnoses: Sequence[Any],
) -> dict[str, bool]:
    """Anchor of a section → whether there is anything in it."""

    def any_has(*names: str) -> bool:
        return any(result.report.get(name) for result in results for name in names)

    return {
        "diagnosis": bool(diagnoses),
        "runs": bool(results),
        "scores": bool(results),
        "figures": bool(figures),
        "translation": any_has("translation"),
        "languages": any_has("word_languages"),
        "words": any_has("word_times", "confidence"),
        "errors": bool(results),
        "speakers": any_has("by_speaker"),
        "comparison": bool(compared),
        "deployment": bool(deployments),
        "examples": bool(selected),
        "settings": True,
    }


def write_report(
    path: Path,
    results: Sequence[Result],
    histories: Sequence[History],
    load: LoadAudio | None,
    deployments: Sequence[dict[str, Any]] = (),
    diagnoses: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    page = build_report(results, histories, load, deployments=deployments, diagnoses=diagnoses)
    path.write_text(page, encoding="utf-8")


def _diagnoses(
    results: Sequence[Result], given: Mapping[str, Sequence[Mapping[str, Any]]], load: LoadAudio | None
) -> Iterable[tuple[str, list[tuple[Mapping[str, Any], list[tuple[str, str, str, str | None]]]]]]:
    """Of each evaluation that has any: its diagnoses, each with its rows: id, reference, hypothesis, sound."""
    for result in results:
        found = given.get(result.run, result.report.get("diagnosis") or [])
        if not found:
            continue
        rows = {line["id"]: line for line in result.predictions() if line["task"] == TRANSCRIBE}
        yield (
            result.run,
            [
                (
                    one,
                    [
                        (name, rows[name]["reference"], rows[name]["hypothesis"], _sound(name, load))
                        for name in one.get("ids") or ()
                        if name in rows
                    ],
                )
                for one in found
            ],
        )


def comparisons(results: Sequence[Result], most: int = 10) -> list[dict[str, Any]]:
    """Paired comparisons of the runs that share their test utterances; a pair that does not says why."""
    with_rows = [result for result in results if result.predictions_path is not None]
    found = []
    for a, b in itertools.islice(itertools.combinations(with_rows, 2), most):
        assert a.predictions_path is not None and b.predictions_path is not None
        try:
            found.append({"names": (a.run, b.run), **compare(a.predictions_path, b.predictions_path)})
        except UserError as error:  # runs of different test sets stand side by side in one folder
            found.append({"names": (a.run, b.run), "why_not": str(error), "metrics": {}})
    return found


def _figures(
    groups: Sequence[EvaluationGroup], histories: Sequence[History]
) -> Iterable[tuple[str, Legend, str]]:
    """(caption, legend, SVG); figures that nothing is known for are left out. Bars of one figure are of one test set."""
    for group in groups:
        runs = [result.run for result in group.results]
        of = f", {group.name}" if len(groups) > 1 else ""
        errors = [
            (one.label, [_bar(r.report["scores"].get(one.name)) for r in group.results])
            for one in of_task(TRANSCRIBE)
        ]
        yield from _bar_figure(
            f"Errors in transcription, percent{of}", runs, errors, _target(group.results, WER)
        )
        translations = [
            ("model, all rows", [_bar(r.report["scores"].get(BLEU.name)) for r in group.results]),
            *(
                (
                    f"{name}, rows that change",
                    [_bar(r.translated(CHANGED, system, BLEU)) for r in group.results],
                )
                for system, name in SYSTEMS.items()
            ),
        ]
        yield from _bar_figure(
            f"Translation, {BLEU.label}{of}", runs, translations, _target(group.results, BLEU)
        )
    yield from _curve_figure("Loss (log scale)", histories, (("loss", True), ("eval_loss", False)), log=True)
    caption = f"{WER.label} during training (selection set), percent"
    yield from _curve_figure(caption, histories, ((WER.logged, True),))
    for result in (one for group in groups for one in group.results):
        if found := result.report.get("confidence"):
            bins = [(one["confidence"], one["right"], one["words"]) for one in found["bins"]]
            caption = f"Share of right words by confidence, {result.run}"
            yield (
                caption,
                [(0, "words; the dashed line is calibrated confidence")],
                reliability(bins, caption),
            )


def _target(results: Sequence[Result], metric: Metric) -> float | None:
    """The guides' target, where the runs are judged by it."""
    return metric.target if judged_by(results, metric) else None


def _bar_figure(
    caption: str, runs: list[str], series: list[tuple[str, list[Bar | None]]], target: float | None
) -> Iterable[tuple[str, Legend, str]]:
    shown = [(name, found) for name, found in series if any(found)]
    if shown:
        yield caption, list(enumerate(name for name, _ in shown)), bars(runs, shown, caption, target)


def _curve_figure(
    caption: str, histories: Sequence[History], wanted: Sequence[tuple[str, bool]], *, log: bool = False
) -> Iterable[tuple[str, Legend, str]]:
    """All curves of a run in its colour."""
    told = {"loss": "training", "eval_loss": "evaluation (dots)", WER.logged: WER.label}
    found = [
        (number, (f"{run}, {told[name]}", smooth(points) if name == "loss" else points, joined))
        for number, (run, history) in enumerate(zip(labels(histories), histories, strict=True))
        for name, joined in wanted
        if (points := history.curve(name))
    ]
    if found:
        numbers, series = [number for number, _ in found], [one for _, one in found]
        legend = [(number, name) for number, (name, _, _) in found]
        yield caption, legend, curves(series, caption, numbers, log=log)


def _bar(score: dict[str, Any] | None) -> Bar | None:
    if not score or score.get("value") is None:
        return None
    return Bar(score["value"], score.get("low"), score.get("high"))


def _sound(name: str, load: LoadAudio | None) -> str | None:
    """The sound of an utterance as a data URI; None where it cannot be had."""
    found = load(name) if load else None
    return None if found is None else _data_uri(*found)


def _sound_and_spectrogram(name: str, load: LoadAudio | None) -> tuple[str | None, str | None]:
    """Both as data URIs, from sound that is decoded once; None where it cannot be had."""
    found = load(name) if load else None
    return (
        (None, None) if found is None else (_data_uri(*found), _data_uri(spectrogram(found[0]), "image/png"))
    )


def _data_uri(data: bytes, mime: str) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"


def _number(value: Any, digits: int = 1) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _pretty(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
