"""Clients of a server, in a process of their own: some that ask one request after another, or a fixed rate of requests.

    python benchmarks/serve_clients.py < job.json

The job: ``host``, ``port``, ``model``, ``files`` (asked in turn), and either ``clients`` and ``requests`` or ``rate`` (requests in
a second) and ``seconds``. Written to standard output: ``wall`` seconds, and for each request its ``file`` (a number), ``status``,
``seconds`` and ``text``. Plain sockets: a client library would take more of the machine than the server.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

BOUNDARY = "polyvox-clients"
LOST = 0
"""The status of a request that got no answer."""


def request(file: Path, model: str) -> bytes:
    """A whole request, headers and body."""
    body = b"".join(
        [
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="model"\r\n\r\n{model}\r\n'.encode(),
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'.encode(),
            file.read_bytes(),
            f"\r\n--{BOUNDARY}--\r\n".encode(),
        ]
    )
    head = (
        "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> tuple[int, bytes]:
    """Send a request on an open connection; status and body of the answer."""
    writer.write(data)
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    length = next(
        int(line.split(":")[1]) for line in head.split("\r\n") if line.lower().startswith("content-length:")
    )
    return int(head.split()[1]), await reader.readexactly(length)


async def timed(reader: Any, writer: Any, job: dict[str, Any], number: int) -> dict[str, Any]:
    """One request and what came of it."""
    began = time.monotonic()
    try:
        status, body = await ask(reader, writer, job["bodies"][number % len(job["bodies"])])
    except (OSError, asyncio.IncompleteReadError, StopIteration) as error:
        status, body = LOST, type(error).__name__.encode()
    text = json.loads(body)["text"] if status == 200 else body.decode("utf8", "replace")
    return {
        "file": number % len(job["bodies"]),
        "status": status,
        "seconds": time.monotonic() - began,
        "text": text,
    }


async def closed(job: dict[str, Any]) -> list[dict[str, Any]]:
    """``clients`` connections; each asks again as soon as it has its answer."""
    numbers = iter(range(job["requests"]))
    found: list[dict[str, Any]] = []

    async def client() -> None:
        streams = await asyncio.open_connection(job["host"], job["port"])
        for number in numbers:
            found.append(await timed(*streams, job, number + job.get("first", 0)))
            if found[-1]["status"] != 200:
                streams[1].close()
                streams = await asyncio.open_connection(job["host"], job["port"])
        streams[1].close()

    await asyncio.gather(*(client() for _ in range(job["clients"])))
    return found


async def at_rate(job: dict[str, Any]) -> list[dict[str, Any]]:
    """``rate`` new connections a second, whatever the server says."""

    async def client(number: int) -> dict[str, Any]:
        began = time.monotonic()
        try:
            streams = await asyncio.open_connection(job["host"], job["port"])
        except OSError as error:
            return {
                "file": 0,
                "status": LOST,
                "seconds": time.monotonic() - began,
                "text": type(error).__name__,
            }
        try:
            return await timed(*streams, job, number)
        finally:
            streams[1].close()

    began, tasks = time.monotonic(), []
    for number in range(round(job["rate"] * job["seconds"])):
        await asyncio.sleep(max(0.0, began + number / job["rate"] - time.monotonic()))
        tasks.append(asyncio.create_task(client(number)))
    return list(await asyncio.gather(*tasks))


def main() -> None:
    """Do the job of standard input."""
    job = json.load(sys.stdin)
    job["bodies"] = [request(Path(file), job["model"]) for file in job["files"]]
    began = time.monotonic()
    found = asyncio.run(at_rate(job) if "rate" in job else closed(job))
    json.dump({"wall": time.monotonic() - began, "answers": found}, sys.stdout)


if __name__ == "__main__":
    main()
