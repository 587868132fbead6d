"""The process that decodes uploads: nothing else, with limits on memory, time and files, and no model in it.

It gets an upload as an open file in memory, says how long it is and how it is cut, and hands out the windows one after
another (the first one with that answer), each as mono samples at the model's rate. Whatever an upload does to it, the server
only has to start another one.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.base.errors import UserError
from training.data.audio import SOUNDFILE_CONTAINERS, AudioError, load_in_order, probe
from training.data.example import AudioRef
from training.data.sound import decoded
from training.data.sound.containers import HEAD_BYTES, identify_file, unknown
from training.data.sound.downmix import CANCELLED
from training.data.sound.ffmpeg import DEMUXERS
from training.data.workers import follow
from training.serving import messages
from training.serving.errors import traced
from training.transcription.planning import Planner
from training.transcription.windows import Cutting

MEMORY = 3 * 2**30
"""Bytes of address space: the libraries take one gigabyte of it, seconds of sound the rest."""
SECONDS = 120
"""Of computing for one answer: an hour of sound takes a few."""
KEPT = 16 * 2**20
"""Bytes of decoded sound that are kept of a file that only ffmpeg reads (1 minute and 27 seconds of 48 kHz mono); longer ones
are decoded while they are read."""
NAME = "file"
"""What messages call an upload: its own name is nobody's business here."""


class Refused(Exception):
    """An upload that is not decoded: the HTTP status, the reason, and a word for programs."""

    def __init__(self, status: int, reason: str, code: str) -> None:
        super().__init__(reason)
        self.status, self.reason, self.code = status, reason, code


class NotOpen(Exception):
    """An upload that this process does not have: it was given to one that has ended."""


@dataclass
class Sound:
    """An upload that is being read. file: its descriptor. left: how many windows are still to come. windows: those."""

    file: int
    left: int
    windows: Iterator[tuple[np.ndarray, int | None]]

    def close(self) -> None:
        """Forget it."""
        with contextlib.suppress(AudioError, ValueError):
            self.windows.close()  # type: ignore[attr-defined]
        os.close(self.file)


class Sounds:
    """The uploads that are open, by number."""

    def __init__(self) -> None:
        self.open: dict[int, Sound] = {}

    def answer(self, asked: Mapping[str, Any], files: list[int]) -> tuple[dict[str, Any], list[Any]]:
        """The answer to a message, and the samples that go with it."""
        number = asked["number"]
        if asked["do"] == "close":
            self._close(number)
            return {}, []
        told: dict[str, Any] = {}
        if asked["do"] == "open":
            told = self._opened(number, asked, files[0])
            if not self.open[number].left:
                self._close(number)
                return told, []
        return self._next(number, told)

    def _next(self, number: int, told: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
        """The next window; the upload is closed with its last one."""
        sound = self.open.get(number)
        if sound is None:
            raise NotOpen
        try:
            samples, channel = next(sound.windows)
        except BaseException:
            self._close(number)
            raise
        sound.left -= 1
        if not sound.left:
            self._close(number)
        note = {} if channel is None else {"note": f"{CANCELLED} channel {channel}, which is used"}
        return {**told, "samples": len(samples), **note}, [samples]

    def _close(self, number: int) -> None:
        if (sound := self.open.pop(number, None)) is not None:
            sound.close()

    def _opened(self, number: int, asked: Mapping[str, Any], file: int) -> dict[str, Any]:
        path = f"/proc/self/fd/{file}"
        try:
            _require_readable(path, ffmpeg=asked["ffmpeg"])
            seconds = probe(path).duration
            if seconds > asked["max_seconds"]:
                raise Refused(
                    413,
                    f"{seconds:.0f} s of sound; this server takes {asked['max_seconds']:g} s at most",
                    "audio_too_long",
                )
            planner = Planner(Cutting(**asked["cutting"]), looks=asked["looks"])
            windows = planner.plan(path).windows
        except BaseException:
            os.close(file)
            raise
        whole = [(one.start == 0.0 and one.end >= seconds) for one in windows]
        refs = [
            AudioRef(path=path, start=one.start, end=None if all_ else one.end)
            for one, all_ in zip(windows, whole, strict=True)
        ]
        refs = refs[asked["first"] :]
        self.open[number] = Sound(file, len(refs), load_in_order(refs, asked["sample_rate"]))
        return {
            "seconds": seconds,
            "windows": [[one.start, one.end, one.stitch_at, one.steady] for one in windows],
        }


def _require_readable(path: str, *, ffmpeg: bool) -> None:
    with open(path, "rb") as handle:  # noqa: PTH123
        container = identify_file(handle)
        head = handle.read(HEAD_BYTES)
    if not head:
        raise Refused(400, "the file is empty (0 bytes)", "empty_audio")
    if container in SOUNDFILE_CONTAINERS:
        return
    if container not in DEMUXERS:
        raise Refused(415, f"the file cannot be decoded: {unknown(head)}", "unknown_format")
    if not ffmpeg:
        raise Refused(
            415,
            f"the file is {container}, which only ffmpeg decodes, and this server does not run it (polyvox serve --ffmpeg): "
            "convert it to WAV, FLAC, OGG or MP3",
            "unsupported_format",
        )


def _limit() -> None:
    """For the whole life of the process. (Time is limited for each answer.)"""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _limit_time() -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = used.ru_utime + used.ru_stime + children.ru_utime + children.ru_stime
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(spent) + SECONDS, most))


def _reason(error: Exception, path: str) -> str:
    return str(error).replace(path, NAME)


def serve(end: socket.socket) -> None:
    """Answer messages until the server goes."""
    decoded.MEMORY_BYTES, decoded.KEPT_IN_MEMORY = KEPT, 2 * KEPT
    sounds = Sounds()
    while True:
        try:
            asked, _, files = messages.receive(end)
        except EOFError:
            return
        _limit_time()
        path = f"/proc/self/fd/{files[0]}" if files else ""
        if not path and asked["number"] in sounds.open:
            path = f"/proc/self/fd/{sounds.open[asked['number']].file}"
        payload: list[Any] = []
        try:
            answer, payload = sounds.answer(asked, files)
        except NotOpen:
            answer = {"lost": True}
        except Refused as error:
            answer = {"error": [error.status, error.reason, error.code]}
        except MemoryError:
            answer = {"error": [400, "the file needs too much memory to be decoded", "audio_too_large"]}
        except (AudioError, UserError) as error:
            answer = {"error": [400, f"{_reason(error, path)}", "broken_audio"]}
        except Exception as error:  # the server logs it: no file may grow here, its log neither
            answer = {
                "error": [400, "the file could not be decoded: the decoder broke", "undecodable_audio"],
                "fault": traced(error),
            }
        messages.send(end, answer, payload)


def main() -> None:
    """The server's end of the socket is the first argument."""
    follow(os.getppid())
    os.nice(5)  # whoever asks for the server's health is answered first
    with socket.socket(fileno=int(sys.argv[1])) as end:
        import soundfile  # noqa: F401 # before there is a limit: the libraries are loaded once
        import soxr  # noqa: F401

        _limit()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            serve(end)


if __name__ == "__main__":
    main()
