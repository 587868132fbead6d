"""Connections under uvicorn with a small application in the place of the models: who may hold one, and for how long."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from serving_fakes import LIVE, abilities, app_of
from websockets.sync.client import connect

from training.serving import protocols
from training.serving.protocols import Protocol, Socket

ROUTE = "/v1/audio/transcriptions"
HEAD, LINGER = 1.0, 0.4


class Running:
    """A server in a thread whose models are `abilities`, without a process. state: its `State`."""

    def __init__(self, folder: Path) -> None:
        self.app = app_of(folder, abilities(cutting=LIVE), max_mb=1)
        self.state = self.app.state.server
        self.state.dispatcher.start = self._started
        self.state.dispatcher.devices[0].ready.set()
        config = uvicorn.Config(
            self.app, http=Protocol, ws=Socket, log_config=None, ws_ping_interval=0.3, ws_ping_timeout=0.3
        )
        self.server = uvicorn.Server(config)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=lambda: self.server.run([self.listener]))

    async def _started(self) -> None:
        pass

    def __enter__(self) -> Running:
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join()

    def open(self, head: str = "", length: int = 100) -> socket.socket:
        """A connection that has sent the head of an upload, or what is given."""
        made = socket.create_connection(("127.0.0.1", self.port))
        made.settimeout(10)
        made.sendall(
            head.encode()
            or f"POST {ROUTE} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n"
            "Content-Type: multipart/form-data; boundary=x\r\n\r\n".encode()
        )
        return made


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    monkeypatch.setattr(protocols, "HEAD_SECONDS", HEAD)
    monkeypatch.setattr(protocols, "LINGER_SECONDS", LINGER)
    with Running(tmp_path) as made:
        yield made


def answer_of(made: socket.socket) -> bytes:
    found = b""
    while b"\r\n\r\n" not in found or not found.rstrip().endswith(b"}"):
        found += made.recv(4096)
    return found


def seconds_held(made: socket.socket, drip: bytes) -> float:
    """How long the connection lets a client go on that sends a little again and again."""
    began = time.monotonic()
    while time.monotonic() - began < 8:
        try:
            made.sendall(drip)
        except OSError:
            break
        time.sleep(0.05)
    made.close()
    return time.monotonic() - began


def test_who_is_refused_cannot_hold_the_connection(running: Running) -> None:
    made = running.open(length=30_000_000)
    assert b" 413 " in answer_of(made)
    assert LINGER - 0.2 < seconds_held(made, b"x") < LINGER + 2


def test_who_sends_all_after_a_refusal_may_ask_again_on_the_connection(running: Running) -> None:
    made = running.open("POST /v1/nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345")
    assert b" 404 " in answer_of(made)
    made.sendall(b"67890GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b" 200 " in answer_of(made)
    time.sleep(LINGER + 0.2)
    made.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b" 200 " in answer_of(made)
    made.close()


def test_who_does_not_read_the_answer_cannot_hold_a_place(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocols, "WRITE_SECONDS", 0.5)
    ended = threading.Event()

    async def transcribe(asked: Any, upload: Any, since: float, on_segment: Any) -> None:
        try:
            for _ in range(30):
                on_segment(SimpleNamespace(texts={"transcribe": 1_000_000 * "x"}))
            await asyncio.sleep(30)
        finally:
            ended.set()

    running.state.dispatcher.transcribe = transcribe
    field = '--x\r\nContent-Disposition: form-data; name="{}"{}\r\n\r\n{}\r\n'
    form = field.format("stream", "", "true") + field.format("file", '; filename="a"', "sound") + "--x--\r\n"
    made = running.open(length=len(form))
    made.sendall(form.encode())
    assert ended.wait(8)
    made.close()
    until = time.monotonic() + 5
    while running.state.occupancy.inside and time.monotonic() < until:
        time.sleep(0.02)
    assert running.state.occupancy.inside == 0


def test_a_head_that_never_ends_cannot_hold_the_connection(running: Running) -> None:
    first = running.open("GET /healthz HTTP/1.1\r\nX: ")
    later = running.open("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b" 200 " in answer_of(later)
    later.sendall(b"GET /healthz HTTP/1.1\r\nX: ")
    assert seconds_held(first, b"x") < HEAD + 2
    assert seconds_held(later, b"x") < HEAD + 2


def test_while_models_load_an_upload_is_refused_on_its_headers(running: Running) -> None:
    running.state.dispatcher.abilities = {}
    for route in (ROUTE, "/v1/audio/translations", "/v1/corrections"):
        made = running.open(
            f"POST {route} HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n"
            "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
        )
        answer = answer_of(made)
        assert b" 503 " in answer and b"retry-after" in answer.lower() and b'"loading"' in answer
        made.close()


def test_health_is_told_to_who_asks_for_the_headers_alone(running: Running) -> None:
    made = running.open("HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    found = made.recv(4096)
    assert b" 200 " in found and found.endswith(b"\r\n\r\n")
    for path in ("/readyz", "/", "/page/page.js"):
        made.sendall(f"HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert b" 200 " in made.recv(4096)
    made.close()


def test_a_live_socket_outlives_the_times_of_requests_and_pings(running: Running) -> None:
    with connect(f"ws://127.0.0.1:{running.port}/v1/realtime") as live:
        assert json.loads(live.recv())["type"] == "session.created"
        time.sleep(HEAD + 0.5)
        live.send(json.dumps({"type": "input_audio_buffer.clear"}))
        assert json.loads(live.recv(timeout=5))["type"] == "input_audio_buffer.cleared"


def test_thousands_of_chunks_in_one_read_are_read_in_turns(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns, read = list[int](), Protocol._read

    def counted(self: Protocol) -> None:
        before = len(self._unread)
        read(self)
        turns.append(before - len(self._unread))

    monkeypatch.setattr(Protocol, "_read", counted)
    monkeypatch.setattr(protocols, "TURN_SECONDS", 0.0005)
    body = b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n' + b"a" * 20_000 + b"\r\n--x--\r\n"
    chunks = b"".join(b"1\r\n" + bytes([one]) + b"\r\n" for one in body)
    head = (
        f"POST {ROUTE} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
    )
    made = running.open(head)
    made.sendall(chunks + b"0\r\n\r\n")
    answer = answer_of(made)
    assert b" 422 " in answer and b"file: is missing" in answer
    assert sum(turns) == len(head) + len(chunks) + 5 and max(turns) < len(chunks) / 4
    made.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 2)  # the connection goes on
    assert b" 200 " in answer_of(made)
    made.close()


def test_a_socket_whose_head_is_long(running: Running) -> None:
    with connect(
        f"ws://127.0.0.1:{running.port}/v1/realtime", additional_headers={"X-Long": "x" * 4_000}
    ) as live:
        assert json.loads(live.recv(timeout=5))["type"] == "session.created"
        live.send(json.dumps({"type": "input_audio_buffer.clear"}))
        assert json.loads(live.recv(timeout=5))["type"] == "input_audio_buffer.cleared"


def frames(count: int, end: bytes) -> bytes:
    """Masked frames of one sample each, then one of text."""
    return b"\x82\x82\0\0\0\0\1\2" * count + bytes([0x81, 0x80 | len(end)]) + bytes(4) + end


def test_thousands_of_frames_in_one_read_are_heard_in_order_and_in_turns(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns, read = list[int](), Socket._read

    def counted(self: Socket) -> None:
        before = len(self._unread)
        read(self)
        turns.append(before - len(self._unread))

    monkeypatch.setattr(Socket, "_read", counted)
    monkeypatch.setattr("training.serving.live_input.AHEAD", 1e9)
    with connect(f"ws://127.0.0.1:{running.port}/v1/realtime", compression=None) as live:
        live.recv()
        turns.clear()
        live.socket.sendall(frames(6_000, b'{"type":"input_audio_buffer.clear"}'))
        assert json.loads(live.recv(timeout=20))["type"] == "input_audio_buffer.cleared"
        assert sum(turns) > 48_000 and max(turns) < 16_384
        live.socket.sendall(frames(10, b'{"type":"input_audio_buffer.commit"}'))
        assert json.loads(live.recv(timeout=5))["type"] == "input_audio_buffer.committed"


def test_a_socket_whose_sound_waits_is_not_taken_for_dead(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.serving.live_input.AHEAD", 0.1)
    with connect(f"ws://127.0.0.1:{running.port}/v1/realtime") as live:
        for _ in range(2):
            live.send(bytes(48_000 * 3))  # 3 s of silence at 24 kHz, for which the server takes 1.5 s
        live.send(json.dumps({"type": "input_audio_buffer.clear"}))
        began = time.monotonic()
        while json.loads(live.recv(timeout=20))["type"] != "input_audio_buffer.cleared":
            pass
        assert 2 < time.monotonic() - began < 6
