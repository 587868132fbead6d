"""Long recordings with known texts: clips of one recording, joined in order to files of about a given length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from training.base.errors import UserError
from training.data.example import TRANSCRIBE, AudioRef, Example
from training.data.recordings import COLUMNS, names, sequences

SECONDS, FILES, PAUSE = 110.0, 12, 0.3
FULL = 0.5
"""A file of less than this share of the wanted length is not made."""


@dataclass(frozen=True)
class Plan:
    """One file to be made: rows of one recording, in order, and its length in seconds, pauses included."""

    recording: str
    rows: tuple[int, ...]
    seconds: float


def plan_files(
    rows: Any, *, seconds: float = SECONDS, files: int | None = FILES, pause: float = PAUSE
) -> list[Plan]:
    """Which rows become which file.

    The recordings take turns: first the first file of each, then the second of each. What is left at the end of a
    recording becomes a file of its own where it is at least `FULL` of the wanted length.

    Args:
        rows: utterances with transcripts, as `training.data.manifest.Manifest`.
        seconds: wanted length of a file; one ends before the clip that would make it longer.
        files: the most files; None: all.
        pause: silence between two clips, in seconds.

    Raises:
        UserError: nothing says which recording a row is part of, or no recording is long enough.
    """
    recordings = names(rows)
    if recordings is None:
        raise UserError(
            "nothing says which recording a clip is part of, so that no long files can be made: add one of the columns "
            f"{', '.join(COLUMNS)} to the manifest"
        )
    durations = rows.durations.astype(float)
    found: dict[str, list[Plan]] = {}
    for sequence in sequences(rows):
        name = recordings[sequence[0]]
        found.setdefault(name, []).extend(_plans(name, sequence, durations, seconds, pause))
    turns = max(map(len, found.values()), default=0)
    plans = [of_one[turn] for turn in range(turns) for of_one in found.values() if turn < len(of_one)]
    if not plans:
        raise UserError(
            f"no recording has {FULL * seconds:g} s of clips, so that no long files can be made: ask for shorter ones "
            "(--seconds)"
        )
    return plans if files is None else plans[:files]


def plan_clips(rows: Any, count: int) -> list[Plan]:
    """Single clips as files: ``count`` of the rows, spread evenly."""
    recordings = names(rows)
    count = min(count, len(rows))
    chosen = [n * len(rows) // count for n in range(count)]
    durations = rows.durations
    return [Plan(recordings[row] if recordings else "", (row,), float(durations[row])) for row in chosen]


def _plans(
    name: str, sequence: Sequence[int], durations: np.ndarray, seconds: float, pause: float
) -> Iterator[Plan]:
    chosen: list[int] = []
    length = 0.0
    for row in [*sequence, None]:
        longer = length + (pause if chosen else 0.0) + (durations[row] if row is not None else seconds)
        if chosen and longer > seconds:
            if length >= FULL * seconds:
                yield Plan(name, tuple(chosen), length)
            chosen, longer = [], durations[row] if row is not None else 0.0
        if row is not None:
            chosen.append(row)
            length = float(longer)


def write_files(
    rows: Any, plans: Sequence[Plan], folder: Path, *, sample_rate: int = 16_000, pause: float = PAUSE
) -> list[Example]:
    """Write the files (WAV, 16 bits, mono) and return them as utterances.

    Args:
        rows: those that were planned.
        plans: of `plan_files`.
        folder: is made where it is not there; the files are named after it.
        sample_rate: of the files, in Hz.
        pause: silence between two clips, in seconds.

    Returns:
        One utterance per file, a single clip under its own id: its transcript, with single spaces between those of the clips, language, domain and
        speaker of the first clip, and as its group the recording.

    Raises:
        training.data.audio.AudioError: a clip cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    silence = np.zeros(round(pause * sample_rate), dtype=np.float32)
    made = []
    for number, plan in enumerate(plans):
        sounds = [rows.waveform(row, sample_rate) for row in plan.rows]
        pieces = [piece for sound in sounds for piece in (silence, sound)][1:]
        samples = np.concatenate(pieces)
        path = folder / f"{folder.name}_{number:03d}.wav"
        soundfile.write(path, samples, sample_rate, subtype="PCM_16")
        made.append(_utterance(path, plan, [rows[row] for row in plan.rows], len(samples) / sample_rate))
    return made


def _utterance(path: Path, plan: Plan, clips: Sequence[Example], seconds: float) -> Example:
    first = clips[0]
    speakers = {clip.speaker for clip in clips}
    return Example(
        id=first.id if len(clips) == 1 else path.stem,
        audio=AudioRef(path=str(path)),
        duration=seconds,
        texts={TRANSCRIBE: " ".join(clip.texts[TRANSCRIBE] for clip in clips if TRANSCRIBE in clip.texts)},
        language=first.language,
        domain=first.domain,
        speaker=first.speaker if len(speakers) == 1 else None,
        group=plan.recording or None,
        source=first.source if len(clips) == 1 else f"{first.source} and {len(clips) - 1} after it",
    )
