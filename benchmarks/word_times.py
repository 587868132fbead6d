"""Word times of a Whisper on speech with known pauses: several ways from its attention to times, side by side.

    python benchmarks/word_times.py MODEL --corpus DIR [--digits DIR] [--utterances 60] [--half report] [--ctc_clips N]

``--corpus``: the English demo corpus (``polyvox demo-data --corpus english``); its rows without noise get silences of 0.2 to
1.5 s between their words, before the first and after the last. ``--digits``: recorded single words (a folder with
``manifest.tsv``: audio_path, transcript, speaker); those of one speaker are joined, most of them with a silence between.
Conditions: ``paused`` (half of the places between words), ``fluent`` (none), each also with white noise of 20 and 10 dB. The
decoder reads the reference; one reading serves every arm. Half of the voices were used to choose the constants
(``--half tune``), the others are for the report. ``--ctc_clips``: one more arm for the sentences, a linear CTC head on the
frozen encoder, trained on so many paused sentences of the other half.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import count, table
from frozen_ctc import FrozenCtc
from paused_speech import RATE, Paused, chained, trimmed, with_noise, with_pauses

from training.alignment.teachers import load_teacher
from training.alignment.whisper import WhisperTeacher, published_times
from training.data.audio import load_audio
from training.data.example import TRANSCRIBE, AudioRef, Example, SpokenWord
from training.data.manifest import load_manifest
from training.decoding.attention_times import Reading, Times, times_and_shares, word_bounds
from training.decoding.sound_level import level_track, pause_threshold
from training.evaluation.word_times import Draws, score_times, timing
from training.models.common.log_mels import ENCODER_FRAMES_PER_SECOND, FRAMES_PER_SECOND
from training.transcription.transcript import spread

CONDITIONS: Mapping[str, tuple[float, float | None]] = {
    "paused": (0.5, None),
    "paused, 20 dB": (0.5, 20.0),
    "paused, 10 dB": (0.5, 10.0),
    "fluent": (0.0, None),
    "fluent, 20 dB": (0.0, 20.0),
}
"""Share of the places between words that get a silence, and the signal-to-noise ratio in dB."""
MASS = 0.1
"""Share of a word's attention before its start, and after its end, in the arm of the mass."""
HALVES = ("tune", "report")
DIGITS = (5, 9)


def mass_times(reading: Reading) -> Times:
    """From the first to the last tenth of the mass of each word's attention, heads averaged."""
    attention = reading.weights.mean(axis=0)
    found = []
    for first, stop in word_bounds(reading.sizes):
        mass = np.cumsum(attention[first:stop].sum(axis=0))
        edges = np.searchsorted(mass / mass[-1], (MASS, 1 - MASS))
        start, end = (edges + np.array([0, 1])) / ENCODER_FRAMES_PER_SECOND
        found.append((min(float(start), reading.seconds), min(float(end), reading.seconds)))
    return found


def trimmed_times(reading: Reading) -> Times:
    """The published times; what is below the threshold of pauses at both ends of a word is cut off."""
    level = level_track(reading.log_mel)
    is_loud = level > pause_threshold(level)
    found = []
    for start, end in published_times(reading):
        first = math.floor(start * FRAMES_PER_SECOND)
        loud = np.flatnonzero(is_loud[first : math.ceil(end * FRAMES_PER_SECOND)])
        inside = (first + loud[[0, -1]] + np.array([0, 1])) / FRAMES_PER_SECOND if len(loud) else (start, end)
        found.append((float(inside[0]), float(inside[1])))
    return found


ARMS: Mapping[str, Callable[[Reading], Times]] = {
    "published: attention, warped": published_times,
    "the same, pauses cut off": trimmed_times,
    "mass of the attention": mass_times,
    "attention and sound (shipped)": lambda reading: times_and_shares(reading)[0],
}


@dataclass(frozen=True)
class Spoken:
    """A clip with its reference."""

    example: Example
    wave: np.ndarray


def spoken(name: str, clip: Paused, language: str) -> Spoken:
    """An utterance of the clip."""
    seconds = len(clip.wave) / RATE
    text = {TRANSCRIBE: " ".join(word.text for word in clip.words)}
    example = Example(
        id=name, audio=AudioRef(path=name), duration=seconds, texts=text, language=language, words=clip.words
    )
    return Spoken(example, np.clip(clip.wave, -1, 1).astype(np.float32))


def half_of(speakers: Sequence[str], half: str) -> set[str]:
    """Every second speaker, by name."""
    return set(sorted(set(speakers))[HALVES.index(half) :: 2])


def sentences(folder: Path, half: str, number: int, condition: str, seed: int) -> Iterator[Spoken]:
    """Clean utterances of the English demo corpus, with pauses and noise."""
    share, snr = CONDITIONS[condition]
    rows = [row for row in load_manifest(folder / "manifest.tsv") if row.words and is_clean(row)]
    voices = half_of([row.speaker or "" for row in rows], half)
    rng = np.random.default_rng(seed)
    mine = [row for row in rows if row.speaker in voices]
    for place in rng.permutation(len(mine))[:number].tolist():
        row = mine[place]
        wave = load_audio(row.audio, RATE).astype(np.float64)
        clip = with_noise(with_pauses(wave, row.words, share, rng), snr, rng)
        yield spoken(row.id, clip, row.language or "en")


def is_clean(row: Example) -> bool:
    """Whether the softest tenth of its sound is digital silence, as before and after a clip of a session without noise."""
    wave = load_audio(row.audio, RATE)
    return bool(np.percentile(np.abs(wave), 10) < 1e-4)


def digits(folder: Path, half: str, number: int, condition: str, seed: int) -> Iterator[Spoken]:
    """Recorded words of one speaker at a time, joined."""
    share, snr = CONDITIONS[condition]
    rows = list(load_manifest(folder / "manifest.tsv"))
    speakers = sorted(half_of([row.speaker or "" for row in rows], half))
    rng = np.random.default_rng(seed)
    for n in range(number):
        mine = [row for row in rows if row.speaker == speakers[n % len(speakers)]]
        chosen = [mine[place] for place in rng.integers(len(mine), size=rng.integers(*DIGITS)).tolist()]
        words = [(row.texts[TRANSCRIBE], trimmed(load_audio(row.audio, RATE))) for row in chosen]
        clip = with_noise(chained(words, min(1.0, share * 1.4), rng), snr, rng)
        yield spoken(f"digits {n}", clip, "en")


@dataclass(frozen=True)
class Read:
    """What a Whisper attended to in a clip, and its encoder states ``[frames, width]`` of the clip's own frames."""

    reading: Reading
    states: torch.Tensor


class Reader:
    """Reads clips with a Whisper, each in a context of 30 s."""

    def __init__(self, model: str) -> None:
        teacher = load_teacher(model, native=True)
        if not isinstance(teacher, WhisperTeacher):
            raise SystemExit(f"{model}: no Whisper")
        self.architecture, self.kept = teacher.architecture, list[Reading]()
        self.aligner = replace(teacher.aligner, place=self._keep)

    def _keep(self, reading: Reading) -> Times:
        self.kept.append(reading)
        return published_times(reading)

    def __call__(self, one: Spoken) -> Read:
        model: Any = self.architecture.model
        batch = self.architecture.collate([self.architecture.encode(one.example, one.wave)])
        with torch.no_grad():
            states = model.encode(batch["input_features"])
        self.kept.clear()
        self.aligner(model, batch, [one.example.texts[TRANSCRIBE]], states)
        return Read(self.kept[0], states[0, : self.kept[0].weights.shape[-1]])


def trained_head(reader: Reader, args: argparse.Namespace) -> FrozenCtc:
    """The CTC head, trained on sentences of the voices that are not scored."""
    other = HALVES[1 - HALVES.index(args.half)]
    clips = list(sentences(args.corpus, other, args.ctc_clips, "paused", args.seed + 1000))
    return FrozenCtc([reader(one).states for one in clips], [one.example.texts[TRANSCRIBE] for one in clips])


Words = tuple[SpokenWord, ...]


def words_of(example: Example, times: Times) -> Words:
    """The reference's words at other times."""
    return tuple(
        SpokenWord(text=word.text, start=start, end=end, confidence=1.0)
        for word, (start, end) in zip(example.words, times, strict=True)
    )


def placed(clips: Sequence[Spoken], read: Sequence[Read], ctc: FrozenCtc | None) -> dict[str, list[Words]]:
    """The words of every clip by every arm; nothing where the CTC head cannot place them."""
    pairs = list(zip(clips, read, strict=True))
    found = {
        name: [words_of(one.example, place(here.reading)) for one, here in pairs]
        for name, place in ARMS.items()
    }
    if ctc is not None:
        found["CTC head on the frozen encoder"] = [
            ctc(here.states, one.example.texts[TRANSCRIBE]) for one, here in pairs
        ]
    found["words spread evenly"] = [
        tuple(spread(one.example.texts[TRANSCRIBE], 0.0, one.example.duration)) for one in clips
    ]
    return found


def row_of(name: str, examples: Sequence[Example], words: Sequence[Words], seed: int) -> list[str]:
    """A line of the table, of the clips that have words."""
    kept = [(example, found) for example, found in zip(examples, words, strict=True) if found]
    rows = [example for example, _ in kept]
    times = timing(rows, [found for _, found in kept])
    scores = score_times(times, Draws.over(rows, 1000, seed))
    cells = [name, str(scores["matched_words"])]
    for side in ("start", "end"):
        figures = scores[side]
        far = 100 - figures["within"]["100"]["value"]
        cells += [_figure(figures["mean_absolute_error"]), _figure(figures["bias"], "+.0f"), f"{far:.0f} %"]
    return cells


def _figure(found: Mapping[str, Any], form: str = ".0f") -> str:
    return f"{found['value']:{form}} [{found['low']:{form}}, {found['high']:{form}}]"


HEAD = (
    "milliseconds", "words", "starts: mean error", "bias", "beyond 100", "ends: mean error", "bias", "beyond 100",
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Read, place and score every condition; print a table of each."""
    args = arguments(argv)
    reader = Reader(args.model)
    ctc = trained_head(reader, args) if args.ctc_clips else None
    sources = {"sentences": (sentences, args.corpus), "digits": (digits, args.digits)}
    for number, condition in enumerate(args.conditions):
        for name, (source, folder) in sources.items():
            if folder is None:
                continue
            seed = args.seed + number
            clips = list(source(folder, args.half, args.utterances, condition, seed))
            read = [reader(one) for one in clips]
            head = ctc if name == "sentences" else None
            examples = [one.example for one in clips]
            rows = [
                row_of(arm, examples, words, args.seed) for arm, words in placed(clips, read, head).items()
            ]
            print(f"\n{name}, {condition}: {len(clips)} clips, half {args.half}, seed {seed}")
            print(table(HEAD, rows), flush=True)
    return 0


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="folder of a Whisper, stock or of ours")
    parser.add_argument("--corpus", type=Path, help="folder of the English demo corpus")
    parser.add_argument("--digits", type=Path, help="folder of recorded single words")
    parser.add_argument("--utterances", type=count, default=60, help="clips per condition and corpus (60)")
    parser.add_argument(
        "--conditions", nargs="+", choices=CONDITIONS, default=list(CONDITIONS), metavar="NAME"
    )
    parser.add_argument("--half", choices=HALVES, default="report", help="of the voices (report)")
    parser.add_argument("--seed", type=int, default=0, help="of pauses, noise and choice (0)")
    parser.add_argument("--ctc_clips", type=int, default=0, help="sentences for a CTC head (0: no such arm)")
    args = parser.parse_args(argv)
    if args.corpus is None and args.digits is None:
        parser.error("give --corpus, --digits or both")
    if args.ctc_clips and args.corpus is None:
        parser.error("--ctc_clips needs --corpus")
    return args


if __name__ == "__main__":
    sys.exit(main())
