"""Files that make a media program read other files or call addresses: they are refused, and nothing is opened."""

from __future__ import annotations

import itertools
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from training.data.audio import AudioError, load_audio, load_bytes, probe, stream
from training.data.example import AudioRef
from training.data.sound import ffmpeg

RATE = 16_000
NAMES = ["clip.m4a", "clip.mp4", "clip.wav", "clip.webm", "clip.ts", "clip.mp3", "clip"]
pytestmark = pytest.mark.skipif(ffmpeg.find_ffmpeg() is None, reason="no ffmpeg on this machine")


class Listener:
    """Accepts on the loopback address and counts who calls."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.calls = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.calls += 1
            connection.close()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.close()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A recording that none of the files below may give away."""
    path = tmp_path / "secret.wav"
    soundfile.write(path, np.random.default_rng(1).uniform(-0.5, 0.5, RATE), RATE)
    return path


def scripts(secret: Path, port: int) -> dict[str, str]:
    """Texts that ffmpeg takes for orders, by what they are."""
    web = f"http://127.0.0.1:{port}/a.ts"
    hls = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{}\n#EXT-X-ENDLIST\n"
    mpd = (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT9S">'
        '<Period><AdaptationSet mimeType="audio/mp4"><Representation id="1" bandwidth="1">'
        "<BaseURL>{}</BaseURL></Representation></AdaptationSet></Period></MPD>"
    )
    return {
        "hls file": hls.format(f"file://{secret}"),
        "hls bare path": hls.format(secret),
        "hls passwd": hls.format("file:///etc/passwd"),
        "hls web": hls.format(web),
        "hls key": hls.format("#EXT-X-KEY:METHOD=AES-128,URI=" + f'"{web}"\n{secret}'),
        "hls concat": hls.format(f"concat:{web}|file:///etc/passwd"),
        "hls subfile": hls.format(f"subfile,,start,0,end,0,,:{secret}"),
        "hls behind a mark": "\ufeff" + hls.format(web),
        "concat file": f"ffconcat version 1.0\nfile '{secret}'\n",
        "concat web": f"ffconcat version 1.0\nfile '{web}'\n",
        "dash web": mpd.format(web),
        "dash file": mpd.format(f"file://{secret}"),
        "sdp": f"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\n",
        "rtsp": f"RTSP://127.0.0.1:{port}/x\n",
        "asx": f'<ASX version="3"><Entry><Ref href="{web}"/></Entry></ASX>',
        "tag before hls": "ID3\x04\x00\x00\x00\x00\x00\x00" + hls.format(web),
    }


def attempts(path: Path) -> list:
    """All ways to a file's sound."""
    ref = AudioRef(path=str(path))
    return [
        lambda: load_audio(ref),
        lambda: load_bytes(path.read_bytes(), ref),
        lambda: probe(path),
        lambda: list(stream(ref)),
    ]


def ffmpeg_writes(source: Path, target: Path, *options: str) -> None:
    program = ffmpeg.find_ffmpeg() or ""
    command = [program, "-nostdin", "-v", "error", "-y", "-i", str(source), *options, str(target)]
    subprocess.run(command, check=True)


@pytest.mark.parametrize("name", NAMES)
def test_playlists_and_scripts_are_refused_and_nothing_is_called(
    tmp_path: Path, name: str, secret: Path, listener: Listener
) -> None:
    path = tmp_path / name
    for what, text in scripts(secret, listener.port).items():
        path.write_text(text, encoding="utf-8")
        for attempt in attempts(path):
            with pytest.raises(AudioError, match="cannot be decoded") as refused:
                attempt()
            assert str(path) in str(refused.value), what
    assert listener.calls == 0


@pytest.mark.parametrize("demuxer", ["hls", "concat", "sdp", "dash"])
def test_even_a_demuxer_that_opens_files_reaches_none(
    tmp_path: Path, demuxer: str, secret: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second line of defence: the protocols, should a demuxer ever open what a file names."""
    monkeypatch.setitem(ffmpeg.DEMUXERS, "mov", demuxer)
    for text in scripts(secret, listener.port).values():
        path = tmp_path / "clip.m4a"
        path.write_text(text, encoding="utf-8")
        with path.open("rb") as handle, pytest.raises(AudioError):
            list(ffmpeg.decode(ffmpeg.Source(handle, "mov", str(path))))
    assert listener.calls == 0


@pytest.mark.parametrize("container", sorted(ffmpeg.DEMUXERS))
def test_a_playlist_is_no_sound_for_any_of_the_demuxers(
    tmp_path: Path, container: str, secret: Path, listener: Listener
) -> None:
    """Should the look at the bytes be deceived: the demuxer is forced, so that ffmpeg cannot take another."""
    path = tmp_path / "clip"
    texts = scripts(secret, listener.port)
    for what in ("hls web", "concat file"):
        path.write_text(texts[what] * 40, encoding="utf-8")
        with path.open("rb") as handle, pytest.raises(AudioError):
            list(ffmpeg.decode(ffmpeg.Source(handle, container, str(path))))
    assert listener.calls == 0


def chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\x00" * (len(content) % 2)


def avi_with_subtitles(playlist: str) -> bytes:
    """An AVI whose subtitle track holds a playlist: ffmpeg once opened that with any demuxer (CVE-2017-9993)."""
    header = struct.pack("<14I", 40_000, 0, 0, 0, 4, 0, 2, 0, 32, 32, 0, 0, 0, 0)
    sound = chunk(
        b"strh", b"auds" + struct.pack("<I4H8I", 0, 0, 0, 0, 0, 2, 32_000, 0, 8000, 8000, 0, 2, 0)[:52]
    )
    sound += chunk(b"strf", struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16))
    texts = chunk(b"strh", b"txts" + struct.pack("<I4H8I", 0, 0, 0, 0, 0, 1, 1, 0, 1, 8000, 0, 0, 0)[:52])
    texts += chunk(b"strf", b"")
    lists = chunk(b"avih", header) + chunk(b"LIST", b"strl" + sound) + chunk(b"LIST", b"strl" + texts)
    title = "a".encode("utf-16-le")
    subtitle = b"GAB2\x00\x02\x00" + struct.pack("<I", len(title)) + title + b"\x04\x00"
    subtitle += struct.pack("<I", len(playlist)) + playlist.encode()
    samples = np.random.default_rng(0).integers(-9000, 9000, RATE).astype("<i2").tobytes()
    movie = b"movi" + chunk(b"01tx", subtitle) + chunk(b"00wb", samples)
    return chunk(b"RIFF", b"AVI " + chunk(b"LIST", b"hdrl" + lists) + chunk(b"LIST", movie))


def test_a_playlist_in_the_subtitles_of_an_avi_calls_nobody(
    tmp_path: Path, secret: Path, listener: Listener
) -> None:
    for what, text in scripts(secret, listener.port).items():
        if not what.startswith("hls"):
            continue
        path = tmp_path / "clip.avi"
        path.write_bytes(avi_with_subtitles(text))
        try:
            samples = load_audio(AudioRef(path=str(path)))
        except AudioError as refused:
            assert str(path) in str(refused)
        else:
            expected = np.random.default_rng(0).integers(-9000, 9000, RATE).astype(np.int16) / 32768
            np.testing.assert_allclose(samples, expected, atol=1e-4)
    assert listener.calls == 0


def test_a_playlist_as_the_samples_of_a_wav_is_samples(
    tmp_path: Path, secret: Path, listener: Listener
) -> None:
    text = (scripts(secret, listener.port)["hls web"] * 2).encode()
    text += b" " * (len(text) % 2)
    for suffix in (".wav", ".m4a"):
        path = tmp_path / f"clip{suffix}"
        soundfile.write(path, np.frombuffer(text, "<i2"), RATE, format="WAV", subtype="PCM_16")
        samples = load_audio(AudioRef(path=str(path)))
        np.testing.assert_array_equal(np.round(samples * 32768), np.frombuffer(text, "<i2"))
    assert listener.calls == 0


@pytest.mark.skipif(os.name != "posix", reason="such a name is not possible there")
def test_a_path_that_looks_like_a_protocol_is_a_path(
    tmp_path: Path, secret: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "made.mkv"
    ffmpeg_writes(secret, made)
    monkeypatch.chdir(tmp_path)
    for name in ("concat:secret.wav|x.mkv", "pipe:0", "-i", "file:x.mkv", "http:127.0.0.1.mkv"):
        Path(name).write_bytes(made.read_bytes())
        # Before 6.0 ffmpeg leaves the filling of the last frame in.
        assert 0 <= len(load_audio(AudioRef(path=name))) - RATE <= 1024
    assert listener.calls == 0


def test_no_more_sound_than_the_limit_is_read(
    tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "clip.mkv"
    ffmpeg_writes(secret, path)
    monkeypatch.setattr(ffmpeg, "LONGEST_SECONDS", 0.5)
    with pytest.raises(AudioError, match=r"clip\.mkv: holds more than .* hours of sound: cut it"):
        load_audio(AudioRef(path=str(path)))


def test_no_more_bytes_than_the_limit_are_read(
    tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "clip.mkv"
    ffmpeg_writes(secret, path)
    monkeypatch.setattr(ffmpeg, "LARGEST_BYTES", 2 * RATE)
    with pytest.raises(
        AudioError, match=r"clip\.mkv: holds more than .* of decoded sound \(16000 Hz, 1 channels\)"
    ):
        load_audio(AudioRef(path=str(path)))


@pytest.mark.skipif(os.name != "posix", reason="the program is a shell script")
def test_a_decoder_that_gives_nothing_is_stopped(
    tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, program = tmp_path / "clip.mkv", tmp_path / "ffmpeg"
    ffmpeg_writes(secret, path)
    program.write_text("#!/bin/sh\nexec sleep 30\n")
    program.chmod(0o755)
    monkeypatch.setattr(ffmpeg, "find_ffmpeg", lambda: str(program))
    monkeypatch.setattr(ffmpeg, "_knows_fd", lambda program: True)
    monkeypatch.setattr(ffmpeg, "STALL_SECONDS", 0.5)
    with pytest.raises(AudioError, match=r"clip\.mkv: ffmpeg gave no sound for 0\.5 s and was stopped"):
        load_audio(AudioRef(path=str(path)))


def test_without_the_protocol_for_descriptors_only_files_may_be_opened(
    tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ffmpeg before 6.0."""
    path = tmp_path / "clip.m4a"
    ffmpeg_writes(secret, path, "-c:a", "alac")
    expected = load_audio(AudioRef(path=str(path)))
    moved = path.rename(tmp_path / "other.m4a")
    monkeypatch.setattr(ffmpeg, "_knows_fd", lambda program: False)
    np.testing.assert_array_equal(load_bytes(moved.read_bytes() + b"\x00", AudioRef(path="row")), expected)


def test_the_command_names_one_demuxer_and_one_protocol() -> None:
    for demuxer in ffmpeg.DEMUXERS.values():
        command = ffmpeg._command("ffmpeg", demuxer, ("fd", "fd:"))
        before = command[: command.index("-i")]
        given = dict(itertools.pairwise(before))
        assert (given["-f"], given["-format_whitelist"], given["-protocol_whitelist"]) == (
            demuxer,
            demuxer,
            "fd",
        )
        assert "-nostdin" in before
    assert "-enable_drefs" in ffmpeg._command("ffmpeg", "mov", ("fd", "fd:"))
    assert not {"hls", "concat", "sdp", "dash", "imf", "image2", "rtsp"} & set(ffmpeg.DEMUXERS.values())
