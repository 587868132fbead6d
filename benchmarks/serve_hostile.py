"""A server and what nobody means well with: damaged uploads, bombs, lies in headers, silent sockets, slow bodies.

    python benchmarks/serve_hostile.py --model outputs/demo_ctc [--uploads 1000] [--sockets 1000] [--output F]

Loopback only. Every kind of sound that libsndfile writes is damaged at random places and sent; then come a FLAC of 10 hours of
silence, headers that claim too much, playlists, sounds of many channels. Meanwhile ``--sockets`` connections say nothing and 8
bodies come a byte at a time. Prints the statuses and the resident memory of all processes, the uploads in memory included. Exit
status 1 where anything is answered with 5xx other than 503 or not at all, where the log has a traceback, or where the memory
passes that of the idle server + (queue + decoders) × max_mb + 300 MB.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import socket
import struct
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import psutil
import soundfile
from common import count, new_file
from served import Server

from training.base.errors import exit_on_user_error

RATE = 16_000
FORMATS = (
    *(("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")),
    *(("AIFF", "PCM_16"), ("AU", "PCM_16"), ("W64", "PCM_16"), ("RF64", "PCM_16")),
)
QUEUE, DECODERS, MAX_MB = 16, 2, 25
TEXTS = (
    b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n",
    b"ffconcat version 1.0\nfile /etc/passwd\n",
    b"<MPD><BaseURL>file:///etc/passwd</BaseURL></MPD>",
    b"RIFF",
    b"",
)


def sound(kind: tuple[str, str], seconds: float, channels: int = 1, rate: int = RATE) -> bytes:
    """A file of noise."""
    draw = np.random.default_rng(0)
    file = io.BytesIO()
    samples = 0.1 * draw.standard_normal((round(seconds * rate), channels))
    soundfile.write(file, samples, rate, format=kind[0], subtype=kind[1])
    return file.getvalue()


def silence(hours: float) -> bytes:
    """A small FLAC of much silence."""
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", RATE, 1, "PCM_16", format="FLAC", compression_level=1.0) as made:
        block = np.zeros(100 * RATE, np.int16)
        for _ in range(round(36 * hours)):
            made.write(block)
    return file.getvalue()


def damaged(number: int) -> Iterator[bytes]:
    """Files that are wrong in a few places, most of them at their beginning, or cut."""
    draw = np.random.default_rng(1)
    whole = [sound(kind, 0.4) for kind in FORMATS]
    values = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\x80\0\0\0")
    for n in range(number):
        data = bytearray(whole[n % len(whole)])
        for _ in range(int(draw.integers(1, 5))):
            at = int(draw.integers(0, min(len(data), 100 if draw.random() < 0.7 else len(data))))
            noise = (
                values[int(draw.integers(4))] if draw.random() < 0.5 else draw.bytes(int(draw.integers(1, 9)))
            )
            data[at : at + len(noise)] = noise
        yield bytes(data[: int(draw.integers(0, len(data)))] if draw.random() < 0.2 else data)


def bombs() -> Iterator[bytes]:
    """Much sound in few bytes, and headers that claim it."""
    yield silence(10)
    flac = bytearray(sound(("FLAC", "PCM_16"), 1))
    flac[21] |= 0x0F
    flac[22:26] = b"\xff\xff\xff\xff"
    yield bytes(flac)
    wav = bytearray(sound(("WAV", "PCM_16"), 1))
    for claim in (0xFFFFFFFF, 0x7FFFFFFF, 0x80000000):
        wav[40:44] = struct.pack("<I", claim)
        yield bytes(wav)
    wav[22:24], wav[32:34] = struct.pack("<H", 0xFFFF), struct.pack("<H", 0xFFFF)
    yield bytes(wav)
    wav[24:28] = struct.pack("<I", 0xFFFFFFFF)
    yield bytes(wav)
    yield sound(("WAV", "PCM_16"), 1, channels=200, rate=48_000)
    yield sound(("WAV", "PCM_U8"), 6, channels=20, rate=192_000)
    yield b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + bytes(1000)
    yield from TEXTS


class Memory(threading.Thread):
    """The largest resident memory of a server's processes and of the uploads that it holds, megabytes."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.server, self.most, self.ended = server, 0.0, threading.Event()

    def now(self) -> float:
        """At this moment."""
        pids = (self.server.process.pid, *self.server.children())
        found = sum(psutil.Process(pid).memory_info().rss for pid in pids if psutil.pid_exists(pid))
        for file in Path(f"/proc/{self.server.process.pid}/fd").iterdir():
            try:
                found += file.stat().st_size if "memfd" in str(file.readlink()) else 0
            except OSError:
                continue  # closed meanwhile
        return found / 1e6

    def run(self) -> None:
        while not self.ended.wait(0.05):
            try:
                self.most = max(self.most, self.now())
            except (psutil.Error, OSError):
                continue  # a process that was started again


def quiet_sockets(server: Server, number: int) -> list[socket.socket]:
    """Connections that say nothing."""
    return [socket.create_connection(("127.0.0.1", server.port)) for _ in range(number)]


def slow_bodies(server: Server, ended: threading.Event) -> None:
    """Bodies that come a byte at a time."""
    head = (
        b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n"
        b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
    )
    slow = quiet_sockets(server, 4)
    for one in slow:
        one.sendall(head)
    while not ended.wait(0.2):
        for one in slow:
            try:
                one.sendall(b"-")
            except OSError:
                continue
    for one in slow:
        one.close()


def ask(server: Server, data: bytes) -> int:
    """Send an upload, again where the server is full; the status."""
    for _ in range(100):
        answer = httpx2.post(
            f"{server.url}/v1/audio/transcriptions", files={"file": ("x", data)}, timeout=150
        )
        if answer.status_code != 503:
            break
        time.sleep(0.2)
    return answer.status_code


def attack(server: Server, uploads: int, sockets: int) -> dict[str, Any]:
    """Send everything; the statuses, that of a good upload afterwards, and the memory."""
    good, hard = sound(("WAV", "PCM_16"), 2), list(bombs())
    statuses = [ask(server, good) for _ in range(20)]
    memory = Memory(server)
    idle = memory.now()
    memory.start()
    silent = quiet_sockets(server, sockets)
    ended = threading.Event()
    dripping = [threading.Thread(target=slow_bodies, args=(server, ended), daemon=True) for _ in range(2)]
    for one in dripping:
        one.start()
    with ThreadPoolExecutor(8) as pool:
        sent = [*hard, *damaged(uploads), bytes(26_000_000), *hard]
        statuses += pool.map(partial(ask, server), sent)
    ended.set()
    for one in dripping:
        one.join()
    for silent_one in silent:
        silent_one.close()
    last = ask(server, good)
    memory.ended.set()
    bound = idle + (QUEUE + DECODERS) * MAX_MB + 300
    return {
        "statuses": {str(status): number for status, number in sorted(Counter([*statuses, last]).items())},
        "last_good": last,
        "megabytes": {"idle": idle, "most": memory.most, "bound": bound, "afterwards": memory.now()},
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Send everything, print, write JSON where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--uploads", type=count, default=1000)
    parser.add_argument("--sockets", type=count, default=1000)
    parser.add_argument("--output", type=new_file, default=None)
    args = parser.parse_args(argv)
    options = ("--queue", QUEUE, "--decoders", DECODERS, "--max_mb", MAX_MB)
    with tempfile.TemporaryDirectory(prefix="serve-hostile-") as folder:
        log = Path(folder, "log")
        with Server({"m": args.model}, *options, log=log).wait_ready() as server:
            result = attack(server, args.uploads, args.sockets)
        text = log.read_text(encoding="utf8")
    result |= {"tracebacks": text.count("Traceback"), "load_average": os.getloadavg()}
    print(json.dumps(result, indent=2))
    if args.output is not None:
        args.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf8")
    wrong = any(int(status) >= 500 for status in result["statuses"]) or result["tracebacks"]
    if wrong or result["last_good"] != 200 or result["megabytes"]["most"] > result["megabytes"]["bound"]:
        print(f"not as it must be: {text[-3000:]}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    exit_on_user_error(main)
