"""The commands of `docs/serving.md` that start a server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from tiny_project import ROOT, environment

sys.path.insert(0, str(ROOT / "tests" / "unit"))
import ctc_assets
import speech_files

pytestmark = [
    pytest.mark.recipe,
    pytest.mark.skipif(sys.platform != "linux", reason="the server needs Linux"),
]


def uvicorn(folder: Path, port: int, **variables: str) -> subprocess.Popen[str]:
    """``uvicorn training.serving.app:app`` in a folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "training.serving.app:app", "--port", str(port)],
        env={**environment(), "PYTHONPATH": os.fspath(ROOT), **variables},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10) as answer:
            return answer.status == 200
    except (OSError, urllib.error.HTTPError):
        return False


def test_uvicorn_serves_the_model_of_the_environment(tmp_path: Path) -> None:
    model = ctc_assets.saved(ctc_assets.tiny(ctc_assets.CONVOLUTIONS), tmp_path / "model")
    clip, port = speech_files.sound(tmp_path / "clip.wav", 1.0), free_port()
    process = uvicorn(tmp_path, port, POLYVOX_MODEL=str(model))
    try:
        until = time.monotonic() + 120
        while not ready(port):
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.2)
        asked = ["curl", "-sf", "-F", f"file=@{clip}", f"http://127.0.0.1:{port}/v1/audio/transcriptions"]
        assert subprocess.run(asked, capture_output=True, text=True, check=True).stdout.startswith(
            '{"text": "'
        )
    finally:
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[0]
    assert "Traceback" not in said


def test_uvicorn_without_a_model_says_what_to_do(tmp_path: Path) -> None:
    process = uvicorn(tmp_path, free_port())
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 3 and "no finished run in it; name a model: POLYVOX_MODEL=FOLDER" in said
    assert "Traceback" not in said
