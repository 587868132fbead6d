"""Check a Whisper in the pipelines that people deploy it with; ``polyvox check-deployment`` does the same."""

from __future__ import annotations

import csv
import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.api.predicting import open_rows, readable
from training.base.errors import UserError
from training.base.files import atomic_text
from training.base.progress import progress_bar
from training.data.example import TRANSCRIBE, Example
from training.evaluation.stored import DEPLOYMENT_SUFFIX, free_name

if TYPE_CHECKING:
    from training.decoding.loading import Trained
    from training.evaluation.deployment import Decoded
    from training.evaluation.joined_files import Plan
    from training.transcription.stock_pipelines import Output, Pipeline

logger = logging.getLogger(__name__)

WHISPERS = ("whisper", "domain_whisper")
UTTERANCES = 100
MAX_GAP = 1.0
AT_30_SECONDS = (
    "this model was trained on trimmed contexts and never on 30 s (model.full_context_share is 0): stock pipelines pad to 30 s, "
    "and it is checked there"
)


class NotCheckable(UserError):
    """The utterances do not let the check be made, and the message says why."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be checked.

    domain: of the speakers, for our own decoding of a model with domain tokens; stock pipelines write none.
    utterances: short clips, spread evenly over the split; 0: none. files, seconds, pause: long files, their wanted length and
    the silence between the clips in them; 0 files: none. max_gap: points that a pipeline's score may lie above ours.
    """

    split: str = "test"
    manifest: Path | None = None
    audio_root: Path | None = None
    columns: Mapping[str, str] | None = None
    language: str | None = None
    domain: str | None = None
    device: str | None = None
    utterances: int = UTTERANCES
    files: int = 12
    seconds: float = 110.0
    pause: float = 0.3
    max_gap: float = MAX_GAP
    faster_whisper: bool = True
    resamples: int = 1000
    seed: int = 0
    report_only: bool = False
    """Make the short clips' part alone, and say why, where no long files can be made."""


def check_deployment(folder: Path, wanted: Wanted, output: Path | None = None) -> dict[str, Any]:
    """Decode short clips and long files with stock transformers, faster-whisper and Polyvox, and compare.

    Args:
        folder: a run's folder, a checkpoint, or a stock Whisper.
        wanted: what is to be checked.
        output: folder for ``{run}_deployment.json`` (the figures and the verdict) and ``{run}_deployment.csv`` (every
            hypothesis); None: nothing is written.

    Returns:
        The content of the JSON; ``verdict["passed"]`` says whether every pipeline is good enough.

    Raises:
        UserError: the folder is no Whisper that transcribes, faster-whisper is not installed (and wanted), or the data cannot
            be used.
    """
    from training.decoding.quiet import quietly
    from training.transcription.stock_pipelines import require_faster_whisper

    if wanted.faster_whisper:
        require_faster_whisper()
    with quietly(), tempfile.TemporaryDirectory(prefix="polyvox-deployment-") as work:
        return _checked(_loaded(folder, wanted), wanted, Path(work), output)


def _loaded(folder: Path, wanted: Wanted) -> Trained:
    from training.decoding.loading import load_trained, with_tasks

    trained = load_trained(folder)
    if trained.model_type not in WHISPERS:
        raise UserError(
            f"{folder}: a {trained.model_type} model; only Whisper ({', '.join(WHISPERS)}) runs in stock pipelines"
        )
    trained = with_tasks(trained, (TRANSCRIBE,))
    if wanted.device is not None:
        model: Any = trained.architecture.model
        model.to(wanted.device)
    architecture: Any = trained.architecture
    if (architecture.train_collate or architecture.collate).padding == "longest":
        logger.warning(AT_30_SECONDS)
    return trained


def _checked(trained: Trained, wanted: Wanted, work: Path, output: Path | None) -> dict[str, Any]:
    from training.evaluation.deployment import RULE, judge, score_part, table

    split: Any = wanted.split
    rows, path = open_rows(trained, wanted.manifest, "--manifest", split, wanted.audio_root, wanted.columns)
    found = readable(trained, rows, wanted.split)
    found.require()
    parts = dict(_parts(trained, found.dataset.manifest, wanted, work))
    pipelines = _pipelines(trained, wanted, work)
    scored, lines = {}, []
    for part, examples in parts.items():
        decoded = list(_decoded(trained, examples, part == "long", pipelines, wanted))
        scored[part] = score_part(examples, decoded, resamples=wanted.resamples, seed=wanted.seed)
        lines += _hypotheses(part, examples, decoded)
    name = trained.name if output is None else _free_name(output, trained.name, trained.folder)
    report = {
        "format": 1,
        "run": name,
        "meta": _meta(trained, wanted, path, pipelines, len(found.ledger)),
        "rule": RULE,
        "parts": scored,
        "verdict": judge(scored, wanted.max_gap),
    }
    logger.info(table(report))
    if output is not None:
        logger.info(f"written: {', '.join(map(str, write(report, lines, output, name)))}")
    return report


def _parts(trained: Trained, rows: Any, wanted: Wanted, work: Path) -> Iterator[tuple[str, list[Example]]]:
    """Short clips and long files, as sound files that every pipeline reads, each with its language."""
    from training.evaluation.joined_files import plan_clips, write_files

    rows = rows.select([row for row in range(len(rows)) if TRANSCRIBE in rows[row].texts])
    default = wanted.language or trained.architecture.languages[0]
    _check_languages(rows, default)
    plans = {}
    if wanted.utterances:
        plans["short"] = plan_clips(rows, wanted.utterances)
    if wanted.files and (planned := _long_files(rows, wanted, alone=not plans)):
        plans["long"] = planned
        taken = sum(len(plan.rows) for plan in planned)
        logger.info(
            f"{taken:,} of {len(rows):,} clips are in {len(planned)} long files of about {wanted.seconds:g} s"
        )
    for name, chosen in plans.items():
        made = write_files(rows, chosen, work / name, pause=wanted.pause)
        yield name, [replace(one, language=wanted.language or one.language or default) for one in made]


def _long_files(rows: Any, wanted: Wanted, *, alone: bool) -> list[Plan]:
    """Which rows become which long file; none, and a line why, where only a report is wanted and short clips are left."""
    from training.evaluation.joined_files import plan_files

    try:
        return plan_files(rows, seconds=wanted.seconds, files=wanted.files, pause=wanted.pause)
    except UserError as error:
        if alone or not wanted.report_only:
            raise NotCheckable(str(error)) from error
        logger.warning(f"short clips alone: {error}")
        return []


def _check_languages(rows: Any, default: str) -> None:
    """`UserError` where the language of a row is open: the pipelines would detect different ones, or refuse the row."""
    from training.data.amounts import cells
    from training.models.architecture import AUTO

    unnamed = sum(not name for name in cells(rows, "language"))
    if unnamed and default == AUTO:
        raise NotCheckable(
            f"{unnamed:,} of {len(rows):,} utterances name no language, and the model has none of its own: add a column "
            "language to the manifest, or give --language"
        )


def _pipelines(trained: Trained, wanted: Wanted, work: Path) -> dict[str, Pipeline | str]:
    """The stock pipelines by name; the reason where one cannot load the folder, which is a finding."""
    from training.decoding.loading import default_device
    from training.transcription.stock_pipelines import FasterWhisper, StockTransformers

    device = wanted.device or default_device()
    made: dict[str, Callable[[], Pipeline]] = {
        StockTransformers.name: lambda: StockTransformers(trained.folder, device)
    }
    if wanted.faster_whisper:
        made[FasterWhisper.name] = lambda: FasterWhisper(trained.folder, work, device, wanted.seed)
    return {name: _attempt(make) for name, make in made.items()}


def _attempt(call: Callable[[], Any]) -> Any:
    """The result, or what went wrong: whatever a stock pipeline raises over this folder is what the check is for."""
    try:
        return call()
    except Exception as error:
        logger.debug("a stock pipeline raised", exc_info=True)
        first = str(error).strip().partition("\n")[0]
        return f"{type(error).__name__}: {first}"


def _decoded(
    trained: Trained,
    examples: Sequence[Example],
    long: bool,
    pipelines: Mapping[str, Pipeline | str],
    wanted: Wanted,
) -> Iterator[Decoded]:
    from training.evaluation.deployment import OURS, Decoded

    yield Decoded(OURS, _ours(trained, examples, wanted.domain))
    for name, pipeline in pipelines.items():
        if isinstance(pipeline, str):
            yield Decoded(name, failure=pipeline)
            continue
        found = _attempt(partial(_outputs, pipeline, examples, long))
        yield Decoded(name, failure=found) if isinstance(found, str) else Decoded(name, found)


def _outputs(pipeline: Pipeline, examples: Sequence[Example], long: bool) -> list[Output]:
    from training.data.audio import load_audio
    from training.transcription.stock_pipelines import RATE

    bar = progress_bar(total=len(examples), unit="file", desc=pipeline.name)
    found = []
    for example in examples:
        waveform = load_audio(example.audio, RATE)
        found.append(pipeline(waveform, str(example.language), long=long))
        bar.update(1)
    return found


def _ours(trained: Trained, examples: Sequence[Example], domain: str | None) -> list[Output]:
    """As ``polyvox transcribe`` does it, one file at a time, as the others get them."""
    from training.transcription.stock_pipelines import Output
    from training.transcription.transcriber import Transcriber

    languages = dict.fromkeys(str(example.language) for example in examples)
    transcribers = {
        language: Transcriber(trained, language=language, domain=domain) for language in languages
    }
    bar = progress_bar(total=len(examples), unit="file", desc="polyvox")
    found = []
    for example in examples:
        started = time.perf_counter()
        transcript = transcribers[str(example.language)](example.audio.path)
        seconds = time.perf_counter() - started
        spans = tuple((one.start, one.end) for one in transcript.segments if one.texts[TRANSCRIBE])
        found.append(Output(transcript.text, spans, seconds))
        bar.update(1)
    return found


def _meta(
    trained: Trained, wanted: Wanted, path: Path | None, pipelines: Mapping[str, Any], dropped: int
) -> dict[str, Any]:
    import torch

    from training.engine.versions import commit, versions

    asked = {
        name: value
        for name, value in vars(wanted).items()
        if name not in ("columns", "manifest", "audio_root")
    }
    return {
        "model_dir": str(trained.folder),
        "model_type": trained.model_type,
        "manifest": path.name if path is not None else None,
        "dropped": dropped,
        "asked": asked,
        "pipelines": {name: getattr(one, "settings", None) for name, one in pipelines.items()},
        "threads": torch.get_num_threads(),
        "commit": commit(),
        "versions": versions(),
    }


def _free_name(output: Path, wanted: str, folder: Path) -> str:
    """``wanted``, or another name where the result files of that name are of another run."""
    found = free_name(output, wanted, folder, None, DEPLOYMENT_SUFFIX)
    if found != wanted:
        logger.info(
            f"{output}: the check of another run has the name {wanted}; this one gets the name {found}"
        )
    return found


def write(
    report: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], output: Path, run: str
) -> tuple[Path, Path]:
    """Write the figures and the table of hypotheses; returns their paths."""
    output.mkdir(parents=True, exist_ok=True)
    figures, texts = output / f"{run}{DEPLOYMENT_SUFFIX}", output / f"{run}_deployment.csv"
    with atomic_text(figures) as handle:
        handle.write(json.dumps(report, ensure_ascii=False, indent=2, allow_nan=False) + "\n")
    with atomic_text(texts) as handle:
        writer = csv.DictWriter(handle, fieldnames=list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    return figures, texts


def _hypotheses(part: str, examples: Sequence[Example], decoded: Sequence[Decoded]) -> list[dict[str, Any]]:
    """The rows of the table."""
    return [
        {
            "part": part,
            "pipeline": one.name,
            "id": example.id,
            "recording": example.group or "",
            "language": example.language,
            "duration": round(example.duration, 3),
            "seconds": round(output.seconds, 3),
            "reference": example.texts[TRANSCRIBE],
            "hypothesis": output.text,
        }
        for one in decoded
        for example, output in zip(examples, one.outputs or (), strict=False)
    ]
