"""A server under load, beside `Transcriber` on the same files: what it loses, how fast it is, what it takes and gives back.

    python benchmarks/serve_load.py --model outputs/demo_ctc --manifest data/splits/test.csv [--points 2 3 4 5 6] [--output F]

Loopback only; the clients are processes of their own (`serve_clients.py`). Points:

2  1, 8 and 32 clients and the offline transcriber by turns, in blocks of ``--block`` requests, ``--requests`` for each number of
   clients: none lost, every text that of the offline transcriber, throughput, latency.
3  Twice the measured capacity for ``--seconds``, with ``--queue 16``: which statuses, how soon the refusals come, how soon health
   answers, latency 5 s later.
4  Memory of the server and its processes, open files and the server's temporary folder, after the first block of point 2 and after the last.
5  100 clients that leave while they send, wait and are computed.
6  SIGTERM with 8 inside; SIGKILL of the model process under load.

Exit status 1 where a request is lost or a text differs.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import soundfile
from common import count, new_file
from serve_clients import request
from served import Server

from training.base.errors import exit_on_user_error
from training.data.audio import load_audio
from training.data.manifest import load_manifest
from training.decoding.quiet import quiet
from training.transcription.transcriber import Transcriber

HERE = Path(__file__).resolve().parent
CLIENTS = (1, 8, 32)
NAME = "served"
Answer = dict[str, Any]


class Load:
    """The files, what the offline transcriber says of them, and what was measured so far."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self.args, self.folder = args, folder
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        rows = load_manifest(args.manifest, audio_root=args.audio_root, need_text=False)
        self.files: list[Path] = []
        for n in range(min(args.clips, len(rows))):
            path = folder / f"{n}.wav"
            soundfile.write(path, load_audio(rows[n].audio, 16_000), 16_000)
            self.files.append(path)
        self.transcriber = Transcriber(args.model, tasks=("transcribe",))
        self.texts = [self.transcriber(file).text for file in self.files]
        self.seconds = [soundfile.info(file).duration for file in self.files]
        self.found: dict[str, Any] = {}

    def server(self, *options: object, name: str = "server") -> Server:
        """A server of the model, ready."""
        os.environ["TMPDIR"] = str(self.temporary)  # the server's own
        return Server({NAME: self.args.model}, *options, log=self.folder / f"{name}.log").wait_ready()

    def clients(self, server: Server, **job: Any) -> subprocess.Popen[str]:
        """Clients that run."""
        process = subprocess.Popen(
            [sys.executable, str(HERE / "serve_clients.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=HERE.parent,
        )
        assert process.stdin is not None
        files = [str(file) for file in self.files]
        json.dump(
            {"host": "127.0.0.1", "port": server.port, "model": NAME, "files": files, **job}, process.stdin
        )
        process.stdin.close()
        return process

    def asked(self, server: Server, **job: Any) -> tuple[float, list[Answer]]:
        """Seconds that the clients took, and the answers."""
        return ended(self.clients(server, **job))

    def wrong(self, answers: Sequence[Answer]) -> int:
        """Answers whose text is not that of the offline transcriber."""
        return sum(one["status"] == 200 and one["text"] != self.texts[one["file"]] for one in answers)


def ended(process: subprocess.Popen[str]) -> tuple[float, list[Answer]]:
    """What clients found."""
    assert process.stdout is not None
    found = json.loads(process.stdout.read())
    process.wait()
    return found["wall"], found["answers"]


def share(values: Sequence[float], part: float) -> float:
    """The value below which ``part`` of the values lie."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))] if values else float("nan")


def statuses(answers: Sequence[Answer]) -> dict[str, int]:
    """How many of each status; 0: no answer."""
    return {str(key): number for key, number in sorted(Counter(one["status"] for one in answers).items())}


def throughput(load: Load) -> None:
    """Points 2 and 4."""
    args = load.args
    walls = dict.fromkeys((0, *CLIENTS), 0.0)
    answers: dict[int, list[Answer]] = {clients: [] for clients in CLIENTS}
    memory: dict[int, dict[str, Any]] = {}
    with load.server() as server:
        blocks = max(1, args.requests // args.block)
        for block in range(blocks):
            first = block * args.block
            chosen = [load.files[(first + n) % len(load.files)] for n in range(args.block)]
            began = time.monotonic()
            load.transcriber.transcribe(chosen)
            walls[0] += time.monotonic() - began
            for clients in CLIENTS:
                wall, found = load.asked(server, clients=clients, requests=args.block, first=first)
                walls[clients] += wall
                answers[clients] += found
            if not block:
                memory[sum(map(len, answers.values()))] = footprint(server)
            print(f"block {block + 1} of {blocks}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
        memory[sum(map(len, answers.values()))] = footprint(server)
        left = sorted(path.name for path in load.temporary.iterdir())
    requests = blocks * args.block
    load.found["throughput"] = [
        {
            "clients": clients,
            "requests": len(found),
            "statuses": statuses(found),
            "wrong_texts": load.wrong(found),
            "requests_per_second": requests / walls[clients],
            "of_offline": walls[0] / walls[clients],
            "p50": share([one["seconds"] for one in found], 0.5),
            "p95": share([one["seconds"] for one in found], 0.95),
            "p95_bound": 1.5 * clients * walls[clients] / requests,
        }
        for clients, found in answers.items()
    ]
    load.found["offline_requests_per_second"] = requests / walls[0]
    load.found["memory"] = {"after": memory, "left_in_the_temporary_folder": left}


def footprint(server: Server) -> dict[str, Any]:
    """Megabytes that each process has (USS: not shared with others), and open files of the server."""
    found = {"server": [server.process.pid]}
    found |= {name: server.children(name) for name in ("model_process", "decode_process")}
    own = {
        name: sum(psutil.Process(pid).memory_full_info().uss for pid in pids) / 1e6
        for name, pids in found.items()
    }
    return {
        "megabytes": sum(own.values()),
        **own,
        "open_files": psutil.Process(server.process.pid).num_fds(),
    }


class Health(threading.Thread):
    """Asks for health every 50 ms, each time on a new connection."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.server, self.seconds, self.failed = server, list[float](), 0
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.05):
            began = time.monotonic()
            try:
                with urllib.request.urlopen(f"{self.server.url}/healthz", timeout=10) as answer:
                    answer.read()
            except OSError:
                self.failed += 1
            self.seconds.append(time.monotonic() - began)


def overload(load: Load) -> None:
    """Point 3."""
    with load.server("--queue", 16) as server:
        wall, warm = load.asked(server, clients=8, requests=4 * len(load.files))
        capacity = len(warm) / wall
        before = [one["seconds"] for one in load.asked(server, clients=1, requests=100)[1]]
        health = Health(server)
        health.start()
        _, answers = load.asked(server, rate=2 * capacity, seconds=load.args.seconds)
        health.ended.set()
        time.sleep(5)
        after = [one["seconds"] for one in load.asked(server, clients=1, requests=100)[1]]
    refused = [one["seconds"] for one in answers if one["status"] == 503]
    load.found["overload"] = {
        "capacity": capacity,
        "rate": 2 * capacity,
        "statuses": statuses(answers),
        "wrong_texts": load.wrong(answers),
        "refused_p95": share(refused, 0.95),
        "health_p99": share(health.seconds, 0.99),
        "health_asked": len(health.seconds),
        "health_failed": health.failed,
        "p50_before": statistics.median(before),
        "p50_5s_later": statistics.median(after),
    }


def gone(load: Load) -> None:
    """Point 5: a third leaves within its upload, the rest while they wait or are computed."""
    with load.server("--queue", 128) as server:
        load.asked(server, clients=8, requests=64)
        wall, found = load.asked(server, clients=32, requests=64)
        before = server.metric("polyvox_windows_total")
        sockets = []
        for n in range(100):
            data = request(load.files[n % len(load.files)], NAME)
            made = socket.create_connection(("127.0.0.1", server.port))
            made.sendall(data[: len(data) // 2] if n % 3 == 0 else data)
            sockets.append(made)
        at = server.metric("polyvox_windows_total")
        for one in sockets:
            one.close()
        left = time.monotonic()
        server.wait(
            lambda: (
                server.metric("polyvox_requests_inside") == 0 and server.metric("polyvox_models_busy") == 0
            ),
            60,
        )
        idle = time.monotonic() - left
        time.sleep(1.0)
        after = server.metric("polyvox_windows_total")
        load.found["gone"] = {
            "sent": 100,
            "whole": 66,
            "computed_before_they_left": at - before,
            "computed_afterwards": after - at,
            "idle_after_seconds": idle,
            "seconds_of_a_batch_of_32_clients": wall / len(found) * 32,
            "clients_gone": server.metric("polyvox_clients_gone_total"),
        }


def killed(load: Load) -> None:
    """Point 6."""
    with load.server(name="killed") as server:
        process = load.clients(server, clients=8, requests=200)
        server.wait(lambda: server.metric("polyvox_models_busy") == 1, 30)
        os.kill(server.children("model_process")[0], signal.SIGKILL)
        _, answers = ended(process)
        ready = server.status("/readyz")
        load.found["model_killed"] = {
            "statuses": statuses(answers),
            "wrong_texts": load.wrong(answers),
            "longest": max(one["seconds"] for one in answers),
            "ready_again": ready == 200,
        }
    with load.server(name="ended") as server:
        process = load.clients(server, clients=8, requests=8)
        server.wait(lambda: server.metric("polyvox_requests_inside") > 0, 30)
        status = server.end()
        _, answers = ended(process)
        load.found["sigterm"] = {
            "statuses": statuses(answers),
            "exit_status": status,
            "wrong_texts": load.wrong(answers),
        }


def failures(found: Mapping[str, Any]) -> list[str]:
    """What must not be."""
    parts = [
        *found.get("throughput", ()),
        *(found[key] for key in ("overload", "model_killed", "sigterm") if key in found),
    ]
    said = [f"{part['wrong_texts']} wrong texts" for part in parts if part["wrong_texts"]]
    for part in parts:
        allowed = {"200", "503"} if part is found.get("overload") else {"200"}
        said += [f"statuses {part['statuses']}"] if set(part["statuses"]) - allowed else []
    return said


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write JSON where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--audio_root", type=Path, default=None)
    parser.add_argument("--points", type=int, nargs="+", choices=(2, 3, 4, 5, 6), default=[2, 3, 4, 5, 6])
    parser.add_argument("--clips", type=count, default=100, help="different files")
    parser.add_argument("--requests", type=count, default=2000, help="for each number of clients")
    parser.add_argument("--block", type=count, default=200)
    parser.add_argument("--seconds", type=count, default=30, help="of overload")
    parser.add_argument("--output", type=new_file, default=None)
    args = parser.parse_args(argv)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # for both, before torch is imported
    quiet()
    with tempfile.TemporaryDirectory(prefix="serve-load-") as folder:
        load = Load(args, Path(folder))
        if {2, 4} & set(args.points):
            throughput(load)
        for point, measure in ((3, overload), (5, gone), (6, killed)):
            if point in args.points:
                measure(load)
    load.found["load_average"] = os.getloadavg()
    load.found["clips"] = {"number": len(load.files), "seconds": sum(load.seconds)}
    text = json.dumps(load.found, indent=2)
    print(text)
    if args.output is not None:
        args.output.write_text(text + "\n", encoding="utf8")
    wrong = failures(load.found)
    for line in wrong:
        print(f"not as it must be: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    exit_on_user_error(main)
