"""Makes ``timestamps_manifest.json`` of a split: aligns each utterance once, keeps the good ones, lists the others in
the ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from training.alignment.labelling import Labeller
from training.alignment.parts import Parts, Record
from training.alignment.processes import in_processes
from training.base.files import rebase
from training.base.system_files import listed
from training.data.batch_policy import longest_first
from training.data.example import TRANSCRIBE, Example
from training.data.ledger import DropLedger
from training.data.manifest import Manifest
from training.data.tables import fingerprint
from training.data.timestamps_manifest import FILE, write_timestamps

LEDGER = "dropped.tsv"
METHOD = 2
"""Number of the method that gives times; a folder that was begun by another one is not continued. 2: a Whisper's times come from
attention and sound."""
_OPTIONAL = ("speaker", "language", "domain", "group")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Options of `generate`.

    max_wer: the largest word error rate (a share) of the model on an utterance that is kept. batch_seconds: seconds of
    audio in one batch. parallel: number of processes. The other options are those of `Labeller`.
    """

    model: str
    split: str
    max_wer: float = 0.1
    batch_seconds: float = 60.0
    parallel: int = 1
    device: str | None = None
    native: bool = False
    fast: bool = False
    language: str | None = None
    force: bool = False


@dataclass(frozen=True)
class Made:
    """The manifest's path, the ledger, and how many utterances were kept."""

    path: Path
    kept: int
    ledger: DropLedger


def generate(
    rows: Manifest, output: Path, settings: Settings, progress: Callable[[int], object] = lambda rows: None
) -> Made:
    """Give times to the words of ``rows`` and write them to ``output/<split>``; go on where an earlier call stopped.

    Batches are the same whatever was found before and however many processes there are, and so is the result.
    """
    folder = output / settings.split
    parts = Parts(folder, _identity(rows, settings), force=settings.force)
    ids = rows.ids
    batches = longest_first(rows.durations, settings.batch_seconds, 1 if settings.native else None)
    wanted = [batch for batch in batches if any(ids[row] not in parts.records for row in batch)]
    progress(len(rows) - sum(map(len, wanted)))
    labeller = Labeller(
        rows, settings.model, settings.device, settings.native, settings.fast, settings.language
    )
    for records in in_processes(labeller, wanted, settings.parallel):
        parts.add(records)
        progress(len(records))
    return _finish(rows, parts.records, folder, settings)


def _identity(rows: Manifest, settings: Settings) -> dict[str, Any]:
    """Settings that the records depend on: data, model and method."""
    return {
        "model": settings.model,
        "weights": _weights(Path(settings.model)),
        "native": settings.native,
        "method": METHOD,
        "language": settings.language,
        "data": fingerprint(rows.table),
    }


def _weights(folder: Path) -> list[list[Any]]:
    """Size and time of a folder's weights: one that was trained again is another model."""
    files = sorted(listed(folder, "*.safetensors")) if folder.is_dir() else []
    return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]


def _finish(rows: Manifest, records: Mapping[str, Record], folder: Path, settings: Settings) -> Made:
    ledger = DropLedger(list(getattr(rows, "refused", ())))  # what a source has left out itself
    kept = [index for index, name in enumerate(rows.ids) if _keep(records[name], settings.max_wer, ledger)]
    head = {
        "model": settings.model,
        "split": settings.split,
        "max_wer": settings.max_wer,
        "kept": len(kept),
        "dropped": len(ledger),
    }
    path = folder / FILE
    ledger.write(folder / LEDGER)
    write_timestamps(path, head, _samples(rows, kept, records, folder, settings.language))
    return Made(path, len(kept), ledger)


def _keep(record: Record, max_wer: float, ledger: DropLedger) -> bool:
    if not record.reason and record.wer <= max_wer:
        return True
    if record.reason:
        ledger.add(record.id, record.reason, record.detail)
    else:
        ledger.add(record.id, "misheard", f"WER {record.wer:g}, at most {max_wer:g}")
    return False


def _samples(
    rows: Manifest, kept: list[int], records: Mapping[str, Record], folder: Path, language: str | None
) -> Iterator[dict[str, Any]]:
    for index in kept:
        example = replace(rows[index], language=rows[index].language or language)
        yield sample_of(example, records[example.id], folder)


def sample_of(example: Example, record: Record, folder: Path) -> dict[str, Any]:
    """One entry of the manifest's ``samples``."""
    span = {"start": example.audio.start, "end": example.audio.end} if _is_stretch(example) else {}
    known = {name: value for name in _OPTIONAL if (value := getattr(example, name)) is not None}
    return {
        "id": example.id,
        "audio_path": rebase(example.audio.path, folder),
        "text": example.texts[TRANSCRIBE],
        "duration": round(example.duration, 6),
        **{name: value for name, value in span.items() if value is not None},
        **known,
        "words": [
            {"word": word.text, "start": word.start, "end": word.end, "confidence": word.confidence}
            for word in record.words
        ],
        "wer": record.wer,
    }


def _is_stretch(example: Example) -> bool:
    return example.audio.start > 0 or example.audio.end is not None
