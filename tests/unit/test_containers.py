"""What a file is, told by its bytes: names prove nothing."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.audio import AudioError, find_ffmpeg, load_audio, load_bytes, probe
from training.data.example import AudioRef
from training.data.sound.containers import _FORMS, HEAD_BYTES, MAGIC, identify, identify_file, unknown

RATE = 16_000
MP3_FRAME = b"\xff\xfb\x90\x64" + bytes(413)  # MPEG 1, layer 3, 128 kbit/s, 44.1 kHz: 417 bytes
ADTS_FRAME = b"\xff\xf1\x60\x40\x02\x1f\xfc" + bytes(9)  # 16 bytes
TAG = b"ID3\x04\x00\x00\x00\x00\x02\x00" + bytes(256)


def written(container: str, subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, RATE).astype(np.float32)
    soundfile.write(file, noise, RATE, format=container, subtype=subtype)
    return file.getvalue()


@pytest.mark.parametrize(
    ("container", "subtype", "name"),
    [
        ("WAV", None, "wav"),
        ("WAVEX", None, "wav"),
        ("RF64", None, "rf64"),
        ("W64", None, "w64"),
        ("FLAC", None, "flac"),
        ("OGG", "VORBIS", "ogg"),
        ("OGG", "OPUS", "ogg"),
        ("MP3", None, "mp3"),
        ("AIFF", None, "aiff"),
        ("AU", None, "au"),
        ("NIST", None, "sphere"),
        ("VOC", None, "voc"),
    ],
)
def test_what_soundfile_writes_is_recognised_and_read_under_any_name(
    tmp_path: Path, container: str, subtype: str | None, name: str
) -> None:
    content = written(container, subtype)
    assert identify(content[:HEAD_BYTES]) == name
    for suffix in (".wav", ".m4a", ".mp3", ""):
        path = tmp_path / f"clip{suffix}"
        path.write_bytes(content)
        assert len(load_audio(AudioRef(path=str(path)))) == RATE
        assert probe(path).frames == RATE


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\x00\x00\x00\x18ftypM4A \x00\x00\x00\x00", "mov"),
        (b"\x00\x00\x00\x08wide\x00\x01\x00\x00mdat", "mov"),
        (b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01", "matroska"),
        (b"#!AMR\n\x3c", "amr"),
        (b"#!AMR-WB\n\x3c", "amr"),
        (b"RIFF\x00\x00\x00\x00AVI LIST", "avi"),
        (b"RIFX\x00\x00\x00\x00WAVEfmt ", "wav"),
        (b"\x47" + bytes(187) + b"\x47" + bytes(187) + b"\x47" + bytes(187), "mpegts"),
        ((bytes(4) + b"\x47" + bytes(187)) * 3, "mpegts"),
        (ADTS_FRAME * 4, "adts"),
        (TAG + ADTS_FRAME * 4, "adts"),
        (MP3_FRAME * 4, "mp3"),
        (MP3_FRAME, "mp3"),
        (TAG + TAG + MP3_FRAME * 4, "mp3"),
        (bytes(700) + MP3_FRAME * 4, "mp3"),
        (TAG + b"fLaC\x00", "flac"),
        (b"OggS" + bytes(22) + b"\x01\x1eSpeex   1.2", "ogg_other"),
        (b"", None),
        (b"\x00" * 400, None),
        (b"\xff" * 400, None),
        (MP3_FRAME[:200] + b"\x00" * 600, None),
        (b"#EXTM3U\n", None),
        (b"ffconcat version 1.0\n", None),
        (TAG + b"#EXTM3U\n", None),
        (b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\n", None),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", None),
    ],
)
def test_first_bytes(head: bytes, name: str | None) -> None:
    assert identify(head) == name


def test_a_tag_that_is_longer_than_the_head_is_passed_over() -> None:
    picture = 300_000
    size = bytes(picture >> shift & 127 for shift in (21, 14, 7, 0))
    handle = io.BytesIO(b"ID3\x04\x00\x00" + size + bytes(picture) + MP3_FRAME * 4)
    assert identify_file(handle) == "mp3"
    assert handle.tell() == 0


@pytest.mark.skipif(find_ffmpeg() is None, reason="no ffmpeg on this machine")
def test_the_broadcast_wave_of_64_bits_is_read() -> None:
    content = b"BW64" + written("RF64")[4:]
    expected = load_bytes(written("WAV"), AudioRef(path="row"))
    np.testing.assert_array_equal(load_bytes(content, AudioRef(path="row")), expected)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=600))
def test_any_bytes_are_named_or_unknown_and_refused_with_a_message(content: bytes) -> None:
    identify(content)
    assert unknown(content)
    with pytest.raises(AudioError, match=r"^row 7: "):
        load_bytes(content, AudioRef(path="row 7"))


@pytest.mark.parametrize("rest", [0, 1, 5, 40])
@pytest.mark.parametrize(
    "start", [*(magic for magic, _ in MAGIC), *(a + bytes(4) + b for a, b in _FORMS), b"OggS"]
)
def test_a_file_that_ends_right_behind_its_mark_is_refused(start: bytes, rest: int) -> None:
    with pytest.raises(AudioError, match=r"^row 7: "):
        load_bytes(start + bytes(rest), AudioRef(path="row 7"))


@pytest.mark.parametrize("name", ["list.m4a", "list.wav", "list.mp3"])
def test_a_text_is_called_a_text(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("#EXTM3U\n녹음.wav\n", encoding="utf-8")
    with pytest.raises(AudioError, match="cannot be decoded: it is a text"):
        load_audio(AudioRef(path=str(path)))


def test_a_wav_that_states_a_tag_length_beyond_the_file_is_refused() -> None:
    with pytest.raises(AudioError, match="no sound format"):
        load_bytes(b"ID3\x04\x00\x00" + struct.pack(">I", 0x7F7F7F7F) + bytes(90), AudioRef(path="tag"))
