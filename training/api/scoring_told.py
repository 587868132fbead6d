"""What an evaluation says around its scores: device and data before them, what is probably wrong and the next commands behind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.api.predicting import Decoding
    from training.decoding.loading import Trained
    from training.diagnosis.rules import Diagnosis
    from training.evaluation.evaluate import Evaluation as Evaluated


def what(split: str, manifest: Path | None) -> str:
    """``test split``, or the name of the manifest."""
    return manifest.name if manifest is not None else f"{split} split"


def opening(trained: Trained, dataset: Any, how: Decoding, scored: str) -> Iterator[str]:
    """Device, data and model of an evaluation."""
    from training.data.amounts import amounts
    from training.engine.opening import data
    from training.engine.spoken_language import contradiction

    # An exported model has an engine in place of a module.
    parameters = getattr(trained.architecture.model, "parameters", None)
    device = next((one.device for one in parameters()), "cpu") if parameters else "cpu"
    yield f"device      {device}, batches of {how.batch_seconds:g} s"
    yield f"data        {scored}: {data(amounts(dataset.manifest))}"
    if told := contradiction(trained.architecture.languages[0], dataset.manifest, option=False):
        yield f"warning     the rows are scored as {told}"
    yield f"parameters  {trained.architecture.parameters:,} ({trained.model_type}, {trained.folder})"


def diagnosed(evaluation: Evaluated, trained: Trained) -> tuple[Evaluated, list[Diagnosis]]:
    """The evaluation with what is probably wrong in its report."""
    from training.diagnosis.evidence import Evidence
    from training.diagnosis.rules import diagnose
    from training.evaluation.run_overview import history_of

    checkpoint = trained.folder.name.startswith("checkpoint-")
    run = trained.folder.parent if checkpoint else trained.folder
    found = diagnose(
        Evidence(
            folder=run,
            config=trained.config.as_dict() if trained.config is not None else {},
            records=history_of(run),
            report=evaluation.report,
            predictions=evaluation.predictions,
        )
    )
    report = {"diagnosis": [one.as_dict() for one in found], **evaluation.report}
    return replace(evaluation, report=report), found


def next_commands(trained: Trained, results: Path) -> str:
    """Commands that go on from an evaluation."""
    outputs = "" if results == Path("outputs/results") else f" --results {results}"
    return f"next: polyvox charts{outputs} · polyvox runs · polyvox transcribe AUDIO --model {trained.folder}"


def is_demo(rows: Any) -> bool:
    """Whether these are rows of the demo corpus, for which the guides name targets."""
    from training.data.amounts import cells
    from training.recipes.machine import DEMO_COLUMNS, DEMO_VIDEO

    if not set(rows.column_names) >= DEMO_COLUMNS:
        return False
    return all((name or "").startswith(DEMO_VIDEO) for name in cells(rows, "video_id"))
