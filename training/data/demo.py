"""The demo corpus: code-switched Vietnamese–English speech that anyone can make, spoken by espeak-ng.

Laid out as an annotation system exports it: ``manifest.tsv`` and ``video_<id>/segment_<n>.wav`` (16 kHz,
mono, PCM16). Each video has one voice, one recording level and one background noise. Columns:

- ``id, video_id, audio_path, duration, transcript, translation``: paths relative to the manifest, seconds;
  the texts carry some markup (``[cười]``, ``**…**``) for the cleaner to remove;
- ``speaker, language, target_language``: both languages are ``vi``, the language that embeds the other;
- ``word_languages``: gold tags, ``vi`` or ``en``, one for each whitespace-separated word of the *cleaned*
  transcript, that is without bracketed notes and asterisks. Proper names (TikTok) count as ``en`` and stay
  as they are in the translation;
- ``kind`` (see ``demo_text.TENS``), ``voice``, ``snr_db`` (empty: no noise);
- ``split_hint``: ``unheard`` on the rows of a voice that must stay out of train, dev and test.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, fields
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from training.data.demo_text import Sentence, corpus, normalised_words
from training.data.espeak import Espeak, ssml
from training.data.text import clean_transcript
from training.errors import UserError, exit_on_user_error
from training.folders import writable

SAMPLE_RATE = 16000
DEFAULT_MINUTES = 156.0
DEFAULT_OUTPUT = Path("data/export")
UNHEARD = "unheard"
MANIFEST = "manifest.tsv"
_ASIDE = ".replaced"

VIDEOS_PER_SPEAKER = 5
_UNHEARD_VIDEOS, _UNHEARD_UTTERANCES = 2, 60
_SNRS: tuple[float | None, ...] = (None, 30.0, 20.0, 15.0)
_SHORTEST_MEAN = 1.55  # seconds an utterance: sentences are written ahead for clips about this short
_PEAK = 0.9
_PROCESSES = 8

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Speaker:
    """An espeak voice with a variant, its rate in words a minute and its pitch of 0–99."""

    name: str
    voice: str
    rate: int
    pitch: int


SPEAKERS = (
    Speaker("lan", "vi+f2", 235, 50),
    Speaker("minh", "vi", 240, 45),
    Speaker("nam", "vi+m3", 230, 60),
    Speaker("hoa", "vi-vn-x-south+f4", 240, 48),
    Speaker("tuan", "vi-vn-x-south", 235, 55),
    Speaker("thu", "vi-vn-x-central+f1", 230, 52),
)
UNHEARD_SPEAKER = Speaker("khoa", "vi+m7", 235, 52)


@dataclass(frozen=True, slots=True)
class Video:
    """One recording session, all that a worker needs to make it. ``seconds``: stop when this much is said."""

    id: str
    speaker: Speaker
    sentences: tuple[Sentence, ...]
    seconds: float
    snr_db: float | None
    noise_slope: float
    level_db: float
    seed: int
    split_hint: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the manifest; the names of the fields are its columns."""

    id: str
    video_id: str
    audio_path: str
    duration: str
    transcript: str
    translation: str
    speaker: str
    language: str
    target_language: str
    word_languages: str
    kind: str
    voice: str
    snr_db: str
    split_hint: str


@dataclass(frozen=True, slots=True)
class DemoSummary:
    """What was made: ``minutes`` of audio, ``words`` distinct ones, ``changed`` by the translation."""

    manifest: Path
    utterances: int
    videos: int
    minutes: float
    words: int
    changed: int
    unheard: int
    wall_seconds: float

    def __str__(self) -> str:
        return (
            f"{self.manifest}: {self.utterances} utterances, {self.minutes:.1f} minutes in {self.videos} videos, "
            f"{self.words} distinct words, {self.changed} rows changed by the translation, "
            f"{self.unheard} of an unheard voice; {self.wall_seconds:.1f} s"
        )


def make_demo(
    output: Path,
    *,
    minutes: float = DEFAULT_MINUTES,
    seed: int = 42,
    force: bool = False,
    progress: Progress | None = None,
) -> DemoSummary:
    """Write the corpus to the folder ``output``: about ``minutes`` of the voices that training hears.

    The utterances of the unheard voice come on top. Equal arguments give equal bytes. Nothing is seen in
    ``output`` before everything is made. Raises `UserError` where a demo or another export is there
    already (unless ``force``), where espeak-ng is missing, or where the grammar has too few sentences.
    """
    started = time.perf_counter()
    if not (math.isfinite(minutes) and minutes > 0):
        raise UserError(f"--minutes must be above 0 (got {minutes:g}).")
    _refuse_to_overwrite(output, force)
    partial = output.parent / f".{output.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        videos = plan(minutes, seed)
        rows = _synthesise_all(videos, partial, progress)
        _write_manifest(partial / MANIFEST, rows)
        _publish(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return _summary(output / MANIFEST, rows, len(videos), time.perf_counter() - started)


def plan(minutes: float, seed: int) -> list[Video]:
    """Who says what in which recording. Sentences are written ahead; a video ends when its time is full."""
    heard = len(SPEAKERS) * VIDEOS_PER_SPEAKER
    seconds = minutes * 60 / heard
    tens = math.ceil(seconds / _SHORTEST_MEAN / 10)
    unheard = max(1, min(_UNHEARD_UTTERANCES, round(minutes * 1.5)) // _UNHEARD_VIDEOS)
    sentences = corpus(heard * tens * 10 + _UNHEARD_VIDEOS * unheard, seed)
    shares = _deal(sentences, heard, tens) + _halves(sentences[heard * tens * 10 :])
    rng = random.Random(seed)
    videos = []
    for number in range(heard + _UNHEARD_VIDEOS):
        session, index = divmod(number, len(SPEAKERS))
        is_heard = number < heard
        speaker = SPEAKERS[index] if is_heard else UNHEARD_SPEAKER
        videos.append(
            Video(
                id=f"demo{number + 1:02d}",
                speaker=_in_session(speaker, rng),
                sentences=shares[number],
                seconds=seconds if is_heard else math.inf,
                snr_db=_SNRS[(session + index) % len(_SNRS)],
                noise_slope=rng.choice((0.0, 1.0, 2.0)),
                level_db=rng.uniform(-26.0, -20.0),
                seed=rng.randrange(2**31),
                split_hint="" if is_heard else UNHEARD,
            )
        )
    return videos


def _deal(sentences: list[Sentence], videos: int, tens: int) -> list[tuple[Sentence, ...]]:
    """Ten by ten in turn: every video has the shares of kinds, and what no time is left for was written last."""
    starts = [[(turn * videos + video) * 10 for turn in range(tens)] for video in range(videos)]
    return [tuple(sentence for start in own for sentence in sentences[start : start + 10]) for own in starts]


def _halves(sentences: list[Sentence]) -> list[tuple[Sentence, ...]]:
    size = len(sentences) // _UNHEARD_VIDEOS
    return [tuple(sentences[first * size : (first + 1) * size]) for first in range(_UNHEARD_VIDEOS)]


def synthesise(videos: list[Video], folder: Path) -> list[Row]:
    """Speak the videos in order, in this process."""
    return [row for video in videos for row in _speak(video, folder)]


def _speak(video: Video, folder: Path) -> list[Row]:
    import soundfile
    import soxr

    espeak = Espeak(video.seed)
    espeak.set_voice(video.speaker.voice, rate=video.speaker.rate, pitch=video.speaker.pitch)
    rng = np.random.default_rng(video.seed)
    clips = folder / f"video_{video.id}"
    clips.mkdir()
    rows: list[Row] = []
    total = 0.0
    for number, sentence in enumerate(video.sentences, 1):
        if total >= video.seconds:
            break
        speech = soxr.resample(
            espeak.speak(spoken(sentence)).astype(np.float32) / 32768, espeak.sample_rate, SAMPLE_RATE
        )
        samples = _record(speech, video, rng)
        path = clips / f"segment_{number:04d}.wav"
        soundfile.write(path, samples, SAMPLE_RATE, subtype="PCM_16")
        duration = len(samples) / SAMPLE_RATE
        total += duration
        rows.append(_row(video, sentence, number, path.relative_to(folder), duration))
    return rows


def spoken(sentence: Sentence) -> str:
    """What the synthesiser is given (SSML): the voice is Vietnamese and switches for every other run."""
    return ssml((part.text, None if part.language == "vi" else part.language) for part in sentence.parts)


def _in_session(speaker: Speaker, rng: random.Random) -> Speaker:
    """Nobody speaks alike on two days: rate ±4 %, pitch ±3."""
    rate = round(speaker.rate * rng.uniform(0.96, 1.04))
    return Speaker(speaker.name, speaker.voice, rate, speaker.pitch + rng.randint(-3, 3))


def _record(speech: np.ndarray, video: Video, rng: np.random.Generator) -> np.ndarray:
    """Speech ``[samples]`` at the level of the session, with silence around it and noise over all: int16."""
    speech = _trim(speech)
    level = 10 ** ((video.level_db + rng.uniform(-1, 1)) / 20)
    speech = speech * (level / np.sqrt(np.mean(speech**2)))
    before, after = (int(rng.uniform(0.05, 0.25) * SAMPLE_RATE) for _ in range(2))
    samples = np.pad(speech, (before, after))
    if video.snr_db is not None:
        samples = samples + _noise(len(samples), video.noise_slope, rng) * level * 10 ** (-video.snr_db / 20)
    peak = np.max(np.abs(samples))
    if peak > _PEAK:
        samples = samples * (_PEAK / peak)
    return np.round(samples * 32767).astype(np.int16)


def _trim(speech: np.ndarray) -> np.ndarray:
    """Without the quiet at both ends, espeak's pause after a full stop above all."""
    loud = np.flatnonzero(np.abs(speech) > 0.01 * np.max(np.abs(speech), initial=0.0))
    if len(loud) == 0:
        raise RuntimeError("espeak-ng made no sound")
    return speech[loud[0] : loud[-1] + 1]


def _noise(length: int, slope: float, rng: np.random.Generator) -> np.ndarray:
    """Noise of RMS 1, its power falling with frequency as 1/f^slope above 50 Hz (0 white, 1 pink, 2 brown)."""
    spectrum = np.fft.rfft(rng.standard_normal(length))
    frequency = np.fft.rfftfreq(length, 1 / SAMPLE_RATE)
    noise = np.fft.irfft(spectrum / np.maximum(frequency, 50.0) ** (slope / 2), length)
    return noise / np.sqrt(np.mean(noise**2))


def _row(video: Video, sentence: Sentence, number: int, path: Path, duration: float) -> Row:
    return Row(
        id=f"{video.id}_{number:04d}",
        video_id=video.id,
        audio_path=path.as_posix(),
        duration=f"{duration:.3f}",
        transcript=sentence.marked(sentence.transcript),
        translation=sentence.marked(sentence.translation),
        speaker=video.speaker.name,
        language="vi",
        target_language="vi",
        word_languages=" ".join(sentence.word_languages),
        kind=sentence.kind,
        voice=video.speaker.voice,
        snr_db="" if video.snr_db is None else f"{video.snr_db:g}",
        split_hint=video.split_hint,
    )


def _synthesise_all(videos: list[Video], folder: Path, progress: Progress | None) -> list[Row]:
    """A set number of fresh processes, whatever the machine: espeak's sound depends on what it said before."""
    rows: list[Row] = []
    groups = [videos[first::_PROCESSES] for first in range(_PROCESSES)]
    done = 0
    with ThreadPoolExecutor(min(_cores(), _PROCESSES)) as pool:
        for made, group in zip(
            pool.map(_in_fresh_process, groups, [folder] * len(groups)), groups, strict=True
        ):
            rows += made
            done += len(group)
            if progress:
                progress(done, len(videos))
    return sorted(rows, key=lambda row: row.id)


def _in_fresh_process(videos: list[Video], folder: Path) -> list[Row]:
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            return process.submit(synthesise, videos, folder).result()
    except BrokenProcessPool as error:
        raise UserError(
            f"the process in which espeak-ng spoke {videos[0].id} and others was killed (out of memory?). Call again."
        ) from error


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _write_manifest(path: Path, rows: Iterable[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(
            file, [field.name for field in fields(Row)], delimiter="\t", lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def _refuse_to_overwrite(output: Path, force: bool) -> None:
    if output.exists() and not output.is_dir():
        raise UserError(f"{output} is a file; --output names the folder that receives the corpus.")
    there = [path for path in _ours(output) if path.exists()]
    if there and not force:
        raise UserError(f"{there[0]} exists. Choose another --output, or replace it with --force.")


def _ours(output: Path) -> list[Path]:
    return [output / MANIFEST, *sorted(output.glob("video_demo*"))]


def _publish(partial: Path, output: Path) -> None:
    """Move the finished corpus to its place, the manifest last; other files in ``output`` stay.

    What it replaces is renamed aside first, put back where the new one cannot be moved, and removed at the end.
    """
    if not output.exists():
        partial.rename(output)
        return
    aside = output / _ASIDE
    _put_back(aside, output)
    aside.mkdir()
    try:
        for old in _ours(output):
            if old.exists():
                old.rename(aside / old.name)
        for new in (*sorted(partial.glob("video_*")), partial / MANIFEST):
            new.rename(output / new.name)
    except BaseException:
        _put_back(aside, output)
        raise
    shutil.rmtree(aside)


def _put_back(aside: Path, output: Path) -> None:
    """Undo a replacement that ended halfway: in this call, or in one that was killed."""
    if not aside.is_dir():
        return
    for old in aside.iterdir():
        half = output / old.name
        if half.is_dir():
            shutil.rmtree(half)
        old.replace(half)
    aside.rmdir()


def _summary(manifest: Path, rows: list[Row], videos: int, wall_seconds: float) -> DemoSummary:
    return DemoSummary(
        manifest=manifest,
        utterances=len(rows),
        videos=videos,
        minutes=sum(float(row.duration) for row in rows) / 60,
        words=len({word for row in rows for word in normalised_words(clean_transcript(row.transcript))}),
        changed=sum(row.transcript != row.translation for row in rows),
        unheard=sum(row.split_hint == UNHEARD for row in rows),
        wall_seconds=wall_seconds,
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output", type=Path, default=DEFAULT_OUTPUT, help="folder to write (default %(default)s)"
    )
    parser.add_argument(
        "--minutes", type=float, default=DEFAULT_MINUTES, help="speech to make (default %(default)g)"
    )
    parser.add_argument(
        "--seed", type=int, default=42, help="equal seeds give equal bytes (default %(default)s)"
    )
    parser.add_argument("--force", action="store_true", help="replace the corpus that is in the folder")


def _show(done: int, total: int) -> None:
    end = "\n" if done == total else ""
    print(f"\rspeaking: {done}/{total} videos", end=end, file=sys.stderr, flush=True)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="polyvox demo-data",
        description="Synthesise the code-switched demo corpus.",
        allow_abbrev=False,
    )
    add_arguments(parser)
    options = parser.parse_args(argv)
    if not options.output.exists():
        writable(options.output.parent, "--output")
    summary = make_demo(
        options.output,
        minutes=options.minutes,
        seed=options.seed,
        force=options.force,
        progress=_show if sys.stderr.isatty() else None,
    )
    print(summary)
    return 0


if __name__ == "__main__":
    exit_on_user_error(main)
