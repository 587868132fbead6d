"""What a server stands: too many requests, clients that leave, processes that are killed, its own end."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
import serving_assets
from serving_assets import Server, error_of

from training.serving.keys import add_key
from training.transcription.transcriber import Transcriber

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the server needs Linux")
QUEUE = 8
ROUTE = "/v1/audio/transcriptions"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("survival")


@pytest.fixture(scope="module")
def models(folder: Path) -> dict[str, Path]:
    return serving_assets.models(folder)


@pytest.fixture(scope="module")
def keys(folder: Path) -> dict[str, str]:
    """Two keys; the second one is for two requests a minute, one at a time."""
    path = folder / "keys.json"
    tokens = {name: add_key(path, name) for name in ("anna", "binh")}
    text = path.read_text(encoding="utf8")
    path.write_text(
        text.replace('"name": "binh"', '"name": "binh", "per_minute": 2, "concurrent": 1'), "utf8"
    )
    return tokens


@pytest.fixture(scope="module")
def server(folder: Path, models: dict[str, Path], keys: dict[str, str]) -> Iterator[Server]:
    options = (
        "--queue",
        QUEUE,
        "--max_mb",
        2,
        "--keys",
        folder / "keys.json",
        "--strict",
        "--batch_seconds",
        20,
    )
    with Server(models, *options, log=folder / "log.txt") as running:
        running.key = keys["anna"]
        yield running.wait_ready()


@pytest.fixture(scope="module")
def short(folder: Path) -> Path:
    return serving_assets.clip(folder / "short.wav", 1.2)


@pytest.fixture(scope="module")
def long(folder: Path) -> Path:
    """The Whisper takes seconds for it."""
    return serving_assets.clip(folder / "long.ogg", 60)


def post(server: Server, file: Path, key: str | None = None, **fields: Any) -> httpx2.Response:
    headers = {"Authorization": f"Bearer {server.key if key is None else key}"}
    with file.open("rb") as opened:
        return httpx2.post(
            server.url + ROUTE, data=fields, files={"file": opened}, headers=headers, timeout=120
        )


def half_sent(server: Server, length: int = 100_000, body: bytes = b"") -> socket.socket:
    """A request whose headers have arrived, and of its body what is given."""
    made = socket.create_connection(("127.0.0.1", server.port))
    made.sendall(
        f"POST {ROUTE} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.key}\r\nContent-Length: {length}\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n\r\n".encode()
        + body
    )
    made.settimeout(10)
    return made


def inside(server: Server) -> float:
    return server.metric("polyvox_requests_inside")


def test_who_has_no_key_gets_nothing_but_health(server: Server, short: Path) -> None:
    assert server.status("/healthz") == server.status("/readyz") == 200
    for path in ("/v1/models", "/metrics"):
        assert httpx2.get(server.url + path).status_code == 401
    for key in ("-", "wrong", server.key[:-1]):
        answer = post(server, short, key)
        assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
        assert error_of(answer.content)["type"] == "authentication_error"
    assert httpx2.get(f"{server.url}/v1/models?key={server.key}").status_code == 401
    assert post(server, short).status_code == 200


def test_a_keys_limits(server: Server, short: Path, keys: dict[str, str]) -> None:
    answers = [post(server, short, keys["binh"]) for _ in range(3)]
    assert [one.status_code for one in answers] == [200, 200, 429]
    assert 1 <= int(answers[2].headers["retry-after"]) <= 60
    assert error_of(answers[2].content)["type"] == "rate_limit_error"
    assert post(server, short).status_code == 200  # nobody else's


def test_strict_refuses_what_has_no_effect(server: Server, short: Path) -> None:
    answer = post(server, short, prompt="names")
    assert answer.status_code == 400 and error_of(answer.content)["param"] == "prompt"


def test_who_does_not_fit_is_told_on_the_headers(server: Server) -> None:
    waiting = [half_sent(server) for _ in range(QUEUE)]
    server.wait(lambda: inside(server) == QUEUE, 20)
    began = time.monotonic()
    refused = half_sent(server)
    answer = refused.recv(4096)
    assert b" 503 " in answer and b"retry-after" in answer.lower() and time.monotonic() - began < 2
    assert server.status("/healthz") == 200
    for one in (*waiting, refused):
        one.close()
    server.wait(lambda: inside(server) == 0, 20)


def test_too_large_on_the_headers_and_while_it_arrives(server: Server) -> None:
    stated = half_sent(server, 30_000_000)
    assert b" 413 " in stated.recv(4096)
    stated.close()
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'

    def parts() -> Iterator[bytes]:
        yield head
        for _ in range(100):
            yield bytes(100_000)

    answer = httpx2.post(
        server.url + ROUTE,
        content=parts(),
        headers={
            "Content-Type": "multipart/form-data; boundary=x",
            "Authorization": f"Bearer {server.key}",
        },
    )
    assert answer.status_code == 413 and "2 MB" in error_of(answer.content)["message"]


def test_what_only_ffmpeg_reads_names_the_option(server: Server, folder: Path) -> None:
    (folder / "a.webm").write_bytes(b"\x1a\x45\xdf\xa3" + bytes(100))
    answer = post(server, folder / "a.webm")
    assert answer.status_code == 415 and "--ffmpeg" in error_of(answer.content)["message"]


def test_a_gone_client_is_not_computed_any_further(server: Server, long: Path) -> None:
    before = server.metric("polyvox_clients_gone_total")
    for _ in range(4):
        with pytest.raises(httpx2.ReadTimeout), long.open("rb") as file:
            httpx2.post(
                server.url + ROUTE,
                data={"model": "whisper"},
                files={"file": file},
                headers={"Authorization": f"Bearer {server.key}"},
                timeout=httpx2.Timeout(30, read=1.0),
            )
    server.wait(lambda: server.metric("polyvox_clients_gone_total") == before + 4, 20)
    assert inside(server) == 0 == server.metric("polyvox_windows_waiting")
    server.wait(lambda: server.metric("polyvox_models_busy") == 0, 30)  # the batch in hand
    windows = server.metric("polyvox_windows_total")
    time.sleep(0.5)
    assert server.metric("polyvox_windows_total") == windows


def test_a_gone_listener_of_a_stream_is_not_computed_any_further(server: Server, long: Path) -> None:
    before = server.metric("polyvox_clients_gone_total")
    with (
        long.open("rb") as file,
        httpx2.stream(
            "POST",
            server.url + ROUTE,
            data={"model": "whisper", "stream": "true"},
            files={"file": file},
            headers={"Authorization": f"Bearer {server.key}"},
            timeout=60,
        ) as answer,
    ):
        assert "transcript.text.delta" in next(answer.iter_lines())
    server.wait(lambda: server.metric("polyvox_clients_gone_total") == before + 1, 20)
    server.wait(lambda: inside(server) == 0, 20)


def test_a_killed_model_process_loses_nothing(
    server: Server, models: dict[str, Path], short: Path, long: Path
) -> None:
    expected = Transcriber(models["ctc"])(short).text
    (model,) = server.children("model_process")
    with ThreadPoolExecutor(5) as pool:
        answers = [pool.submit(post, server, long, model="whisper")]
        server.wait(lambda: server.metric("polyvox_models_busy") == 1, 30)
        answers += [pool.submit(post, server, short) for _ in range(4)]
        os.kill(model, signal.SIGKILL)
        found = [one.result() for one in answers]
    assert [one.status_code for one in found] == [200] * 5
    assert {one.json()["text"] for one in found[1:]} == {expected}
    assert server.status("/readyz") == 200 and server.children("model_process") != [model]


def test_killed_decoders_are_started_again(server: Server, short: Path) -> None:
    for pid in server.children("decode_process"):
        os.kill(pid, signal.SIGKILL)
    assert [post(server, short).status_code for _ in range(3)] == [200] * 3


def test_the_log_has_no_key(server: Server, keys: dict[str, str]) -> None:
    log = server.log.read_text(encoding="utf8")
    assert not any(text in log for text in (*keys.values(), *keys, "Traceback"))


def test_sigterm_lets_those_inside_end_and_the_status_is_0(server: Server, short: Path, long: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(post, server, long if n == 0 else short, model="whisper") for n in range(8)]
        server.wait(lambda: inside(server) == 8, 30)
        stop = threading.Thread(target=server.end)
        stop.start()
        found = [one.result() for one in answers]
        stop.join()
    assert [one.status_code for one in found] == [200] * 8
    assert server.process.returncode == 0
    assert not re.search(r"Traceback|Error", server.log.read_text(encoding="utf8"))
