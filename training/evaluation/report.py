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
from training.data.metric import BLEU, LABELS, WER, of_task
from training.evaluation.charts import smooth
from training.evaluation.compare import compare
from training.evaluation.deployment import PARTS
from training.evaluation.figures import Bar, bars, curves, reliability
from training.evaluation.run_labels import colour, labels
from training.evaluation.selected_rows import select_rows
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
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        score=score_text, paired=paired_text, retained=retained_text, number=_number, pretty=_pretty
    )
    selected = select_rows(results)
    return environment.get_template(TEMPLATE).render(
        title=title,
        results=results,
        histories=list(zip(labels(histories), histories, strict=True)),
        colours=[(colour(n), colour(n, dark=True)) for n in range(max(len(histories), SERIES))],
        names=LABELS,
        errors=of_task(TRANSCRIBE),
        qualities=of_task(TRANSLATE),
        wer=WER,
        systems=SYSTEMS,
        timed=TIMED,
        texts=TEXTS,
        figures=[(name, legend, Markup(svg)) for name, legend, svg in _figures(results, histories)],
        comparisons=comparisons(results),
        deployments=deployments,
        diagnoses=list(_diagnoses(results, diagnoses or {}, load)),
        parts=PARTS,
        selected=[(row, _sound(row.id, load)) for row in selected],
    )


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


def _figures(results: Sequence[Result], histories: Sequence[History]) -> Iterable[tuple[str, Legend, str]]:
    """(caption, legend, SVG); figures that nothing is known for are left out."""
    runs = [result.run for result in results]
    errors = [
        (one.label, [_bar(r.report["scores"].get(one.name)) for r in results]) for one in of_task(TRANSCRIBE)
    ]
    yield from _bar_figure(
        "Errors in transcription, percent", runs, errors, WER.target if judged_by(results, WER) else None
    )
    translations = [
        ("model, all rows", [_bar(r.report["scores"].get(BLEU.name)) for r in results]),
        *(
            (f"{name}, rows that change", [_bar(r.translated(CHANGED, system, BLEU)) for r in results])
            for system, name in SYSTEMS.items()
        ),
    ]
    yield from _bar_figure(
        f"Translation, {BLEU.label}", runs, translations, BLEU.target if judged_by(results, BLEU) else None
    )
    yield from _curve_figure("Loss", histories, (("loss", True), ("eval_loss", False)))
    caption = f"{WER.label} during training (selection set), percent"
    yield from _curve_figure(caption, histories, ((WER.logged, True),))
    for result in results:
        if found := result.report.get("confidence"):
            bins = [(one["confidence"], one["right"], one["words"]) for one in found["bins"]]
            caption = f"Share of right words by confidence, {result.run}"
            yield (
                caption,
                [(0, "words; the dashed line is calibrated confidence")],
                reliability(bins, caption),
            )


def _bar_figure(
    caption: str, runs: list[str], series: list[tuple[str, list[Bar | None]]], target: float | None
) -> Iterable[tuple[str, Legend, str]]:
    shown = [(name, found) for name, found in series if any(found)]
    if shown:
        yield caption, list(enumerate(name for name, _ in shown)), bars(runs, shown, caption, target)


def _curve_figure(
    caption: str, histories: Sequence[History], wanted: Sequence[tuple[str, bool]]
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
        yield caption, legend, curves(series, caption, numbers)


def _bar(score: dict[str, Any] | None) -> Bar | None:
    if not score or score.get("value") is None:
        return None
    return Bar(score["value"], score.get("low"), score.get("high"))


def _sound(name: str, load: LoadAudio | None) -> str | None:
    """The sound of an utterance as a data URI."""
    found = load(name) if load else None
    if found is None:
        return None
    data, mime = found
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"


def _number(value: Any, digits: int = 1) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _pretty(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
