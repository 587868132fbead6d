"""Speakers in real time on a server's socket, beside `Transcriber` on the same sound.

    python benchmarks/serve_live.py --model outputs/demo_ctc --manifest data/splits/test.csv [--speakers 8] [--clips 6] [--output F]

Each speaker plays some clips with pauses of ``--pause`` seconds between them, 100 ms at a time, as a microphone would. Times are
those of the speaker's clock: first partial: from the moment at which the speech begins in the sound to the first words; final:
from the moment at which the pause has lasted long enough to end a window to its final words. Exit status 1 where a delta is taken
back: the final text of a window must be what its deltas said.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import soundfile
import websockets
from common import count, new_file
from serve_load import share
from served import Server

from training.base.errors import exit_on_user_error
from training.data.audio import load_audio
from training.data.manifest import load_manifest
from training.decoding.quiet import quiet
from training.evaluation.normalize import normalizer
from training.serving.live import PAD, PAUSE
from training.transcription.transcriber import Transcriber

RATE = 16_000
CHUNK = 0.1
NAME = "live"
_EVENT = "conversation.item.input_audio_transcription."


class Speaker:
    """One socket and what came over it."""

    def __init__(self, samples: np.ndarray) -> None:
        self.samples = (np.clip(samples, -1, 1) * 32767).astype("<i2")
        self.events: list[tuple[float, dict[str, Any]]] = []
        self.began = 0.0

    async def speak(self, url: str) -> None:
        """Play everything, in real time."""
        async with websockets.connect(url) as socket:
            audio = {
                "input": {"format": {"type": "audio/pcm", "rate": RATE}, "transcription": {"model": NAME}}
            }
            await socket.send(json.dumps({"type": "session.update", "session": {"audio": audio}}))
            while json.loads(await socket.recv())["type"] != "session.updated":
                pass
            listening = asyncio.create_task(self._listen(socket))
            self.began = time.monotonic()
            size = round(CHUNK * RATE)
            for number, at in enumerate(range(0, len(self.samples), size)):
                await asyncio.sleep(max(0.0, self.began + (number + 1) * CHUNK - time.monotonic()))
                await socket.send(self.samples[at : at + size].tobytes())
            await socket.send(json.dumps({"type": "input_audio_buffer.commit"}))
            await asyncio.sleep(3)
            listening.cancel()

    async def _listen(self, socket: Any) -> None:
        async for message in socket:
            self.events.append((time.monotonic() - self.began, json.loads(message)))

    def windows(self) -> list[dict[str, Any]]:
        """Of each window: ``first`` and ``final`` delays, ``text``, ``deltas``."""
        found: dict[str, dict[str, Any]] = {}
        for at, event in self.events:
            one = found.setdefault(event.get("item_id", ""), {"deltas": ""})
            kind = event["type"]
            if kind == "input_audio_buffer.speech_started":
                one["start"] = event["audio_start_ms"] / 1000
            elif kind == "input_audio_buffer.speech_stopped":
                one["end"] = event["audio_end_ms"] / 1000 - PAD + PAUSE
            elif kind == f"{_EVENT}delta" or (kind == "polyvox.partial" and event["text"]):
                one.setdefault("first", at - one["start"])
                one["deltas"] += event.get("delta", "")
            elif kind == f"{_EVENT}completed" and "end" in one:  # else nobody spoke before the last commit
                one["final"], one["text"] = at - one["end"], event["transcript"]
        return [one for one in found.values() if "text" in one]


def sounds(args: argparse.Namespace) -> tuple[list[np.ndarray], list[str]]:
    """What each speaker says: samples at `RATE`, and the reference text."""
    rows = load_manifest(args.manifest, audio_root=args.audio_root, need_text=True)
    draw = np.random.default_rng(0)
    chosen = draw.permutation(len(rows))[: args.speakers * args.clips].reshape(args.speakers, -1)
    found, texts = [], []
    for numbers in chosen.tolist():
        parts = [np.zeros(RATE, np.float32)]
        for number in numbers:
            parts += [load_audio(rows[number].audio, RATE), np.zeros(round(args.pause * RATE), np.float32)]
        sound = np.concatenate(parts)
        found.append(sound + 1e-4 * draw.standard_normal(len(sound)).astype(np.float32))
        texts.append(" ".join(rows[number].texts["transcribe"] for number in numbers))
    return found, texts


async def together(speakers: Sequence[Speaker], url: str) -> None:
    """All of them at once."""
    await asyncio.gather(*(speaker.speak(url) for speaker in speakers))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write JSON where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--audio_root", type=Path, default=None)
    parser.add_argument("--speakers", type=count, default=8)
    parser.add_argument("--clips", type=count, default=6, help="for each speaker")
    parser.add_argument("--pause", type=float, default=1.5)
    parser.add_argument("--output", type=new_file, default=None)
    args = parser.parse_args(argv)
    quiet()
    played, references = sounds(args)
    transcriber = Transcriber(args.model, tasks=("transcribe",))
    with tempfile.TemporaryDirectory(prefix="serve-live-") as folder:
        offline = []
        for number, sound in enumerate(played):
            path = Path(folder, f"{number}.wav")
            soundfile.write(path, sound, RATE)
            offline.append(transcriber(path).text)
        speakers = [Speaker(sound) for sound in played]
        with Server({NAME: args.model}, log=Path(folder, "log")).wait_ready() as server:
            asyncio.run(together(speakers, f"ws://127.0.0.1:{server.port}/v1/realtime"))
    windows = [speaker.windows() for speaker in speakers]
    every = [one for found in windows for one in found]
    clean = normalizer(transcriber.architecture.languages[0])
    live = [" ".join(one["text"] for one in found) for found in windows]
    wer = {
        name: 100 * jiwer.wer([clean(text) for text in references], [clean(text) for text in texts])
        for name, texts in (("live", live), ("offline", offline))
    }
    taken_back = sum(one["text"] != one["deltas"] for one in every)
    result = {
        "speakers": len(speakers),
        "windows": len(every),
        "first_partial_p95": share([one["first"] for one in every if "first" in one], 0.95),
        "first_partial_p50": share([one["first"] for one in every if "first" in one], 0.5),
        "final_p95": share([one["final"] for one in every], 0.95),
        "final_worst": max((one["final"] for one in every), default=float("nan")),
        "wer": wer,
        "deltas_taken_back": taken_back,
        "load_average": os.getloadavg(),
    }
    print(json.dumps(result, indent=2))
    if args.output is not None:
        args.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf8")
    if taken_back:
        print(f"not as it must be: {taken_back} windows whose deltas are not their text", file=sys.stderr)
    return 1 if taken_back else 0


if __name__ == "__main__":
    exit_on_user_error(main)
