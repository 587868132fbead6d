"""What a browser's recorder and a phone write is transcribed, whatever the file is called."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest
from tone_recogniser import WORDS, recogniser, speak, write

from training.cli import transcribe
from training.data.sound import ffmpeg

PROGRAM = ffmpeg.find_ffmpeg()
BROWSER = ("-c:a", "libopus", "-b:a", "64k", "-f", "webm", "-live", "1")
PHONE = ("-c:a", "aac", "-b:a", "96k", "-ar", "44100", "-f", "mp4")
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no ffmpeg on this machine")


@pytest.fixture(autouse=True)
def tones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "training.transcription.transcriber.load_trained", lambda folder: recogniser(ctc=True)
    )


@pytest.mark.parametrize(
    ("name", "options"), [("a.webm", BROWSER), ("a.mp4", PHONE), ("a.wav", BROWSER), ("a.mp3", PHONE)]
)
@pytest.mark.parametrize("count", [3, 120])
def test_recordings_of_browsers_and_phones_are_transcribed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, options: tuple[str, ...], count: int
) -> None:
    ids = random.Random(3).choices(range(24), k=count)
    plain = write(tmp_path / "plain.wav", speak(ids))
    folder = tmp_path / "recordings"
    folder.mkdir()
    # By a pipe where the format allows: then neither a duration nor an index is written, as in a browser.
    target = ["pipe:1"] if options is BROWSER else ["-y", str(folder / name)]
    command = [PROGRAM or "", "-nostdin", "-v", "error", "-i", str(plain), *options, *target]
    done = subprocess.run(command, capture_output=True, check=True)
    if options is BROWSER:
        (folder / name).write_bytes(done.stdout)
    assert transcribe.main([str(folder), "--model", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert printed == f"{folder / name}\ttranscribe\t{' '.join(WORDS[k] for k in ids)}\n"
