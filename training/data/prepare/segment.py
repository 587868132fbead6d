"""Long recordings with labels to clips and a manifest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import soundfile

from training.base.errors import UserError
from training.base.files import DerivedFiles, atomic_bytes, atomic_text, rebase, sha256, writable
from training.base.system_files import listed
from training.data.audio import SOUND_SUFFIXES, AudioError, load_audio, probe
from training.data.example import AudioRef
from training.data.labels.readers import READERS, Label, read_labels
from training.data.labels.segments import Rules, segmented
from training.data.ledger import DropLedger
from training.data.prepare.clean import ledger_path
from training.data.tables import row_writer

RECORD = "segments.json"
RATE = 16_000
UNREADABLE = "unreadable_recording"
"""Reason in the ledger for a whole recording; its entry counts the labels that are lost with it, perhaps none."""


@dataclass(frozen=True)
class Labelled:
    """A recording and the file of its labels. name: unique, of the recording's path below its folder."""

    name: str
    audio: Path
    labels: Path


@dataclass
class Pairs:
    """Recordings with labels, and the files that have no partner."""

    found: list[Labelled] = field(default_factory=list)
    without_labels: list[Path] = field(default_factory=list)
    without_sound: list[Path] = field(default_factory=list)


def pairs(sources: Sequence[Path], labels: Path | None = None, language: str | None = None) -> Pairs:
    """Recordings and labels of the same name: ``talk.mp3`` and ``talk.srt``, ``talk.vi.srt`` or ``talk.TextGrid``.

    Args:
        sources: recordings, or folders that are searched for them.
        labels: folder of the labels, with the same folders below it; None: they lie beside the recordings.
        language: chooses ``talk.vi.srt`` where there is a ``talk.en.srt`` too.

    Raises:
        UserError: a path that is not there, several labels for one recording, or two recordings of one name.
    """
    result = Pairs()
    used: set[Path] = set()
    for source in sources:
        if not source.exists():
            raise UserError(f"{source}: no such file or folder")
        root = source if source.is_dir() else source.parent
        audio = [source] if source.is_file() else _with_suffixes(source, SOUND_SUFFIXES)
        for one in audio:
            inner = one.relative_to(root)
            folder = (labels or root) / inner.parent
            mine = _labels_of(folder, one.stem, language)
            if len(mine) > 1:
                raise UserError(
                    f"{one}: several files hold labels for it: {', '.join(map(str, mine))}; keep one, name their folder with --labels, or the language of talk.vi.srt with --language"
                )
            used.update(mine)
            if mine:
                result.found.append(Labelled("_".join(inner.with_suffix("").parts), one, mine[0]))
            else:
                result.without_labels.append(one)
        if source.is_dir():
            below = _with_suffixes(labels or root, READERS)
            result.without_sound += [
                path for path in below if path not in used and path.suffix.lower() != ".txt"
            ]
    names: dict[str, Path] = {}
    for pair in result.found:
        if pair.name in names:
            raise UserError(
                f"{pair.audio}: has the same name as {names[pair.name]}; rename one, so that ids stay unique"
            )
        names[pair.name] = pair.audio
    return result


def _with_suffixes(folder: Path, suffixes: Any) -> list[Path]:
    return sorted(
        path for path in listed(folder, "**/*") if path.suffix.lower() in suffixes and path.is_file()
    )


def _labels_of(folder: Path, stem: str, language: str | None) -> list[Path]:
    """``STEM.LANGUAGE.srt`` of this language, else ``STEM.srt``, else those of any language."""
    if not folder.is_dir():
        return []
    near = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in READERS]
    choices: tuple[Callable[[Path], bool], ...] = (
        lambda path: bool(language) and path.stem == f"{stem}.{language}",
        lambda path: path.stem == stem,
        lambda path: path.stem.rpartition(".")[0] == stem,
    )
    return next((chosen for rule in choices if (chosen := list(filter(rule, near)))), [])


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where the result goes. clips: folder of the clips; None: none are cut, the manifest names stretches of the recordings."""

    manifest: Path
    clips: Path | None
    force: bool = False


def segment(
    found: Sequence[Labelled],
    target: Target,
    rules: Rules,
    *,
    language: str | None = None,
    progress: Callable[[str], object] = lambda name: None,
) -> tuple[int, float, DropLedger]:
    """Write the clips, FLAC of 16 kHz, the manifest, and beside it the ledger of what was left out.

    The manifest has the columns ``id``, ``video_id`` (the recording, which a split keeps together), ``position`` (start in the
    recording, seconds), ``audio_path``, ``start`` and ``end`` where nothing is cut, ``duration``, ``transcript``, ``speaker``,
    ``language``.

    Args:
        found: see `pairs`.
        target: places. Clips of an earlier call are replaced, other files only with ``force``.
        rules: how labels become segments.
        language: of the transcripts, where known.
        progress: is told each recording before it is read.

    Returns:
        Number of utterances, their seconds, and the ledger.

    Raises:
        UserError: no segment is left, a file stands in the way, labels cannot be read, or several tiers hold labels.
    """
    if target.manifest.suffix not in (".tsv", ".csv", ".jsonl"):
        raise UserError(f"--output {target.manifest}: a manifest is written as .tsv, .csv or .jsonl")
    writable(target.manifest.parent, "--output")
    record = target.manifest.with_name(f"{target.manifest.stem}_{RECORD}")
    ledger = DropLedger()
    count, seconds = 0, 0.0
    with DerivedFiles(record, [target.manifest, ledger_path(target.manifest)], force=target.force) as files:
        if target.clips is not None:
            _take(target.clips, target.force)
        with files.open(target.manifest) as handle:
            write = row_writer(handle, target.manifest.suffix, _columns(target, language))
            for row in _rows(found, target, rules, language, ledger, progress):
                write(row)
                count, seconds = count + 1, seconds + row["duration"]
        if not count:
            raise UserError(f"no segment can be used\n{ledger.summary()}")
        with files.open(ledger_path(target.manifest)) as handle:
            ledger.write_to(handle)
        files.publish(
            {
                "made_by": "segment",
                "labels": {pair.labels.as_posix(): sha256(pair.labels) for pair in found},
                "utterances": count,
                "dropped": ledger.counts(),
            }
        )
    return count, seconds, ledger


def _take(clips: Path, force: bool) -> None:
    """Mark the folder as ours. Raises `UserError` where it holds files and was not made by this command."""
    writable(clips, "--clips")
    mark = clips / RECORD
    if not force and not mark.is_file() and next(listed(clips), None) is not None:
        raise UserError(
            f"--clips {clips}: holds files that this command did not write; name another folder, or say --force"
        )
    with atomic_text(mark) as handle:
        json.dump({"made_by": "segment"}, handle)


def _columns(target: Target, language: str | None) -> list[str]:
    stretch = [] if target.clips is not None else ["start", "end"]
    last = ["language"] if language else []
    return ["id", "video_id", "position", "audio_path", *stretch, "duration", "transcript", "speaker", *last]


def _rows(
    found: Sequence[Labelled],
    target: Target,
    rules: Rules,
    language: str | None,
    ledger: DropLedger,
    progress: Callable[[str], object],
) -> Iterator[dict[str, Any]]:
    for pair in found:
        progress(pair.name)
        labels = read_labels(pair.labels)
        try:
            seconds = probe(pair.audio).duration
        except AudioError as error:
            lost = (
                f"{len(labels):,} labels are left out with it" if labels else f"{pair.labels} holds no labels"
            )
            ledger.add(pair.name, UNREADABLE, f"{error}; {lost}", utterances=len(labels))
            continue
        result = segmented(labels, seconds, rules, f"{pair.labels}")
        ledger.drops += result.drops
        ledger.notes += result.notes
        for number, label in enumerate(result.kept, 1):
            row: dict[str, Any] = {
                "id": f"{pair.name}_{number:04d}",
                "video_id": pair.name,
                "position": label.start,
                "duration": label.end - label.start,
                "transcript": label.text,
                "speaker": label.speaker,
                "language": language,
            }
            try:
                yield row | _sound(pair, label, row["id"], target)
            except AudioError as error:
                ledger.add(row["id"], "unreadable", str(error))


def _sound(pair: Labelled, label: Label, name: str, target: Target) -> dict[str, Any]:
    """The columns that say where the sound is; the clip is written where one is wanted."""
    folder = target.manifest.parent
    if target.clips is None:
        return {"audio_path": rebase(str(pair.audio), folder), "start": label.start, "end": label.end}
    path = target.clips / pair.name / f"{name}.flac"
    samples = load_audio(AudioRef(path=str(pair.audio), start=label.start, end=label.end), RATE)
    with atomic_bytes(path) as handle:
        soundfile.write(handle, samples, RATE, format="FLAC", subtype="PCM_16")
    return {"audio_path": rebase(str(path), folder), "duration": len(samples) / RATE}
