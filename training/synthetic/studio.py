"""Synthesis of the demo corpora: speaks the planned videos with espeak-ng and writes WAV files, 16 kHz, mono, PCM16."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import (
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from training.base.errors import UserError
from training.base.system_files import listed
from training.synthetic.espeak import Espeak
from training.synthetic.espeak_words import word_spans
from training.synthetic.plan import Row, Take, Video

SAMPLE_RATE = 16000
_PEAK = 0.9
_PROCESSES = 8

_LOOK = 0.5
"""Seconds between two looks at what is finished."""

Progress = Callable[[int, int], None]
"""Is told how many videos are finished, of how many."""


def synthesise_all(videos: list[Video], folder: Path, progress: Progress | None) -> list[Row]:
    """Synthesise the videos into ``folder``; returns the rows of the manifest, ordered by id.

    The number of fresh processes is the same on every machine, because the sound of espeak depends on earlier calls.
    """
    rows: list[Row] = []
    groups = [group for first in range(_PROCESSES) if (group := videos[first::_PROCESSES])]
    at_once = min(_cores(), _PROCESSES)
    with ThreadPoolExecutor(at_once) as pool:
        speaking = [pool.submit(_in_fresh_process, group, folder) for group in groups]
        waiting: set[Future[list[Row]]] = set(speaking)
        try:
            while waiting:
                ended, waiting = wait(waiting, _LOOK)
                rows += [row for one in ended for row in one.result()]
                if progress:
                    progress(_finished(folder, len(videos), min(at_once, len(waiting))), len(videos))
        finally:
            for one in waiting:
                one.cancel()
    return sorted(rows, key=lambda row: row["id"])


def _finished(folder: Path, videos: int, unfinished: int) -> int:
    """Videos that are spoken: each has a folder from its begin on, and so many of these are not finished."""
    begun = sum(1 for _ in listed(folder, "video_*"))
    return max(0, min(begun, videos) - unfinished)


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


def synthesise(videos: list[Video], folder: Path) -> list[Row]:
    """Speak the videos in order, in this process."""
    return [row for video in videos for row in _speak(video, folder)]


def _speak(video: Video, folder: Path) -> list[Row]:
    import soundfile

    espeak = Espeak(video.seed)
    rng = np.random.default_rng(video.seed)
    clips = folder / f"video_{video.id}"
    clips.mkdir()
    rows: list[Row] = []
    total = 0.0
    speaker = None
    for number, take in enumerate(video.takes, 1):
        if total >= video.seconds and (number - 1) % video.together == 0:
            break
        if take.speaker != speaker:
            speaker = take.speaker
            espeak.set_voice(speaker.voice, rate=speaker.rate, pitch=speaker.pitch)
        speech, times = _say(espeak, take)
        samples, before = _record(speech, video, rng)
        path = clips / f"segment_{number:04d}.wav"
        soundfile.write(path, samples, SAMPLE_RATE, subtype="PCM_16")
        duration = len(samples) / SAMPLE_RATE
        total += duration
        words = _words_cell(take, times + before / SAMPLE_RATE)
        rows += _rows(video, take, number, path.relative_to(folder), duration, words)
    return rows


def _say(espeak: Espeak, take: Take) -> tuple[np.ndarray, np.ndarray]:
    """The speech, float ``[samples]`` without the quiet at both ends, and the times of its words, ``[words, 2]`` in seconds."""
    if not take.positions:
        speech = _at_our_rate(espeak.speak(take.ssml), espeak.sample_rate)
        first, end = _loud_part(speech)
        return speech[first:end], np.zeros((0, 2))
    sound, events = espeak.speak_with_events(take.ssml)
    speech = _at_our_rate(sound, espeak.sample_rate)
    first, end = _loud_part(speech)
    times = np.array(word_spans(sound, events, take.positions)) / espeak.sample_rate - first / SAMPLE_RATE
    return speech[first:end], np.clip(times, 0.0, (end - first) / SAMPLE_RATE)


def _at_our_rate(sound: np.ndarray, rate: int) -> np.ndarray:
    import soxr

    return soxr.resample(sound.astype(np.float32) / 32768, rate, SAMPLE_RATE)


def _words_cell(take: Take, times: np.ndarray) -> str:
    """The column ``words``: JSON ``[[word, start, end], …]``, in seconds; empty where the take asks for no times."""
    if not take.positions:
        return ""
    words = take.cells[0]["transcript"].split()
    cells = [
        [word, round(start, 3), round(end, 3)]
        for word, (start, end) in zip(words, times.tolist(), strict=True)
    ]
    return json.dumps(cells, ensure_ascii=False)


def _record(speech: np.ndarray, video: Video, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Speech ``[samples]`` at the level of the session, with silence around it and noise over all: int16.

    Also how many samples of silence stand before it.
    """
    level = 10 ** ((video.level_db + rng.uniform(-1, 1)) / 20)
    speech = speech * (level / np.sqrt(np.mean(speech**2)))
    before, after = (int(rng.uniform(*video.silence) * SAMPLE_RATE) for _ in range(2))
    samples = np.pad(speech, (before, after))
    if video.snr_db is not None:
        samples = samples + _noise(len(samples), video.noise_slope, rng) * level * 10 ** (-video.snr_db / 20)
    peak = np.max(np.abs(samples))
    if peak > _PEAK:
        samples = samples * (_PEAK / peak)
    return np.round(samples * 32767).astype(np.int16), before


def _loud_part(speech: np.ndarray) -> tuple[int, int]:
    """Where the speech begins and ends: the quiet before and after it is espeak's pause at a full stop above all."""
    loud = np.flatnonzero(np.abs(speech) > 0.01 * np.max(np.abs(speech), initial=0.0))
    if len(loud) == 0:
        raise RuntimeError("espeak-ng made no sound")
    return int(loud[0]), int(loud[-1]) + 1


def _noise(length: int, slope: float, rng: np.random.Generator) -> np.ndarray:
    """Noise of RMS 1, its power falling with frequency as 1/f^slope above 50 Hz (0 white, 1 pink, 2 brown)."""
    spectrum = np.fft.rfft(rng.standard_normal(length))
    frequency = np.fft.rfftfreq(length, 1 / SAMPLE_RATE)
    noise = np.fft.irfft(spectrum / np.maximum(frequency, 50.0) ** (slope / 2), length)
    return noise / np.sqrt(np.mean(noise**2))


def _rows(video: Video, take: Take, number: int, path: Path, duration: float, words: str = "") -> list[Row]:
    """A row for each text of the clip; the domain tells their ids apart where there are several."""
    clip = f"{video.id}_{number:04d}"
    several = len(take.cells) > 1
    common = {
        "video_id": video.id,
        "group": video.id,
        "audio_path": path.as_posix(),
        "duration": f"{duration:.3f}",
        "words": words,
        "speaker": take.speaker.name,
        "voice": take.speaker.voice,
        "snr_db": "" if video.snr_db is None else f"{video.snr_db:g}",
        "split_hint": video.split_hint,
    }
    return [
        {"id": f"{clip}_{cells['domain']}" if several else clip, **common, **cells} for cells in take.cells
    ]
