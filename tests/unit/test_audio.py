"""Decoding: formats, rates, stretches, and sounds that must not become silence."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from training.data import audio
from training.data.audio import (
    AudioError,
    find_ffmpeg,
    load_audio,
    load_bytes,
    load_in_order,
    probe,
    segment_duration,
)
from training.data.example import AudioRef
from training.data.sound import decoded, ffmpeg

RATE = 16_000
FORMATS = ["wav", "flac", "ogg", "mp3"]
ERROR = {"wav": 1e-4, "flac": 1e-4, "ogg": 0.05, "mp3": 0.05}


def tone(seconds: float, rate: int = RATE, hertz: float = 440.0) -> np.ndarray:
    """A tone that grows louder, so that every moment differs from every other."""
    time = np.arange(round(seconds * rate)) / rate
    return (np.linspace(0.05, 0.8, len(time)) * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def saved(folder: Path, suffix: str, samples: np.ndarray, rate: int = RATE) -> Path:
    path = folder / f"sound.{suffix}"
    soundfile.write(path, samples, rate)
    return path


@pytest.mark.parametrize("suffix", FORMATS)
def test_formats_come_as_float32_mono(tmp_path: Path, suffix: str) -> None:
    path = saved(tmp_path, suffix, tone(2.0))
    samples = load_audio(AudioRef(path=str(path)))
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert samples.flags["C_CONTIGUOUS"]
    assert len(samples) == 2 * RATE
    np.testing.assert_allclose(samples, tone(2.0), atol=ERROR[suffix])


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_stretch_is_the_same_as_a_cut_of_the_whole(tmp_path: Path, suffix: str) -> None:
    path = saved(tmp_path, suffix, tone(4.0))
    whole = load_audio(AudioRef(path=str(path)))
    for start, end in [(0.0, 1.0), (0.31, 0.5), (1.25, 2.5), (3.9, None)]:
        part = load_audio(AudioRef(path=str(path), start=start, end=end))
        cut = whole[round(start * RATE) : round((end or 4.0) * RATE)]
        np.testing.assert_allclose(part, cut, atol=1e-6)


def test_a_stretch_is_read_without_decoding_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, "wav", tone(20.0))
    asked = []
    read = soundfile.SoundFile.read

    def spy(self: soundfile.SoundFile, frames: int = -1, **options: object) -> np.ndarray:
        asked.append((self.tell(), frames))
        return read(self, frames, **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", spy)
    load_audio(AudioRef(path=str(path), start=15.0, end=15.5))
    assert asked == [(15 * RATE, RATE // 2)]


def test_stereo_is_averaged(tmp_path: Path) -> None:
    left, right = tone(1.0), tone(1.0, hertz=700)
    path = saved(tmp_path, "wav", np.stack([left, right], axis=1))
    np.testing.assert_allclose(load_audio(AudioRef(path=str(path))), (left + right) / 2, atol=1e-4)
    assert probe(path) == audio.AudioInfo(1.0, RATE, 2, RATE)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_other_rates_are_resampled(tmp_path: Path, rate: int) -> None:
    path = saved(tmp_path, "wav", tone(2.0, rate), rate)
    samples = load_audio(AudioRef(path=str(path), start=0.5, end=1.5))
    assert len(samples) == RATE
    np.testing.assert_allclose(
        samples[1000:-1000], tone(2.0)[RATE // 2 : RATE // 2 + RATE][1000:-1000], atol=0.02
    )


def test_probe_decodes_next_to_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, "flac", tone(3.5, 8000), 8000)
    asked = []
    monkeypatch.setattr(
        soundfile.SoundFile, "read", lambda self, frames=-1, **_: asked.append(frames) or [0.0]
    )
    info = probe(path)
    assert asked == [1]  # whether the last sample of a FLAC is there
    assert (info.duration, info.sample_rate, info.channels, info.frames) == (3.5, 8000, 1, 28_000)
    assert segment_duration(AudioRef(path=str(path), start=1.0), info) == 2.5


# Trap 10.
@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_truncated_file_is_an_error_never_silence(tmp_path: Path, suffix: str, share: float) -> None:
    path = saved(tmp_path, suffix, tone(4.0))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(AudioError, match=r"sound\.\w+: (truncated|cannot be decoded)"):
        load_audio(AudioRef(path=str(path)))


# Trap 10.
@pytest.mark.parametrize("suffix", FORMATS)
def test_the_header_check_tells_truncated_files(tmp_path: Path, suffix: str) -> None:
    path = saved(tmp_path, suffix, tone(4.0))
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(AudioError, match="truncated"):
        probe(path)


def test_an_mp3_that_states_no_length_is_read(tmp_path: Path) -> None:
    path = tmp_path / "bare.mp3"  # constant rate of the lowest quality: libsndfile writes no Info frame
    soundfile.write(path, tone(2.0, 22_050), 22_050, bitrate_mode="CONSTANT", compression_level=0.99)
    assert b"Info" not in path.read_bytes()[:400]
    assert abs(len(load_audio(AudioRef(path=str(path)), 22_050)) / 22_050 - 2.0) < 0.1
    part = load_audio(AudioRef(path=str(path), start=0.5, end=1.5), 22_050)
    assert len(part) == 22_050


def test_an_mp3_with_a_tag_in_front_is_read(tmp_path: Path) -> None:
    path = saved(tmp_path, "mp3", tone(2.0))
    tag = b"ID3\x04\x00\x00\x00\x00\x02\x00" + b"\x00" * 256
    path.write_bytes(tag + path.read_bytes())
    assert len(load_audio(AudioRef(path=str(path)))) == 2 * RATE
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(AudioError, match="truncated: the header states"):
        probe(path)


def test_a_wav_of_a_pipe_states_no_size_and_is_read(tmp_path: Path) -> None:
    path = saved(tmp_path, "wav", tone(1.0))
    content = bytearray(path.read_bytes())
    at = content.index(b"data")
    content[at + 4 : at + 8] = struct.pack("<I", 0xFFFFFFFF)
    path.write_bytes(content)
    assert len(load_audio(AudioRef(path=str(path)))) == RATE


# Trap 10.
@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("absent.wav", None, "no such file"),
        ("zero.wav", b"", "empty"),
        ("noise.wav", b"this is no sound at all" * 20, "cannot be decoded"),
        ("noise.flac", b"\x00" * 400, "cannot be decoded"),
        ("noise.mp3", b"\x00" * 400, "cannot be decoded"),
        ("noise.ogg", b"OggS" + b"\x00" * 400, "truncated"),
    ],
)
def test_broken_files_are_errors_with_their_reason(
    tmp_path: Path, name: str, content: bytes | None, reason: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    for attempt in (lambda: load_audio(AudioRef(path=str(path))), lambda: probe(path)):
        with pytest.raises(AudioError, match=rf"{name}.*{reason}"):
            attempt()


# Trap 10.
def test_a_file_without_samples_is_an_error(tmp_path: Path) -> None:
    path = saved(tmp_path, "wav", tone(0.0))
    for attempt in (lambda: load_audio(AudioRef(path=str(path))), lambda: probe(path)):
        with pytest.raises(AudioError, match="holds no samples"):
            attempt()


# Trap 10.
def test_a_sample_that_is_no_number_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "nan.wav"
    samples = tone(0.5)
    samples[7] = np.nan
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match="no numbers"):
        load_audio(AudioRef(path=str(path)))


# Trap 11.
@pytest.mark.parametrize(
    ("start", "end", "reason"),
    [
        (0.0, 2.2, "past the end"),
        (2.0, None, "no stretch of sound"),
        (3.0, 4.0, "past the end"),
        (1.0, 1.0, "no stretch"),
        (1.5, 0.5, "no stretch"),
        (-1.0, 1.0, "no stretch"),
        (float("nan"), 1.0, "no stretch"),
        (1.0, 1.00001, "no sample"),
    ],
)
def test_a_stretch_outside_the_file_is_an_error(
    tmp_path: Path, start: float, end: float | None, reason: str
) -> None:
    path = saved(tmp_path, "wav", tone(2.0))
    with pytest.raises(AudioError, match=reason):
        load_audio(AudioRef(path=str(path), start=start, end=end))


def test_a_rounded_end_is_taken_as_the_end(tmp_path: Path) -> None:
    path = saved(tmp_path, "wav", tone(2.0))
    assert len(load_audio(AudioRef(path=str(path), start=1.0, end=2.04))) == RATE


def test_bytes_are_read_like_files(tmp_path: Path) -> None:
    path = saved(tmp_path, "flac", tone(2.0))
    ref = AudioRef(path="row 3", start=0.5, end=1.0)
    np.testing.assert_array_equal(
        load_bytes(path.read_bytes(), ref), load_audio(AudioRef(path=str(path), start=0.5, end=1.0))
    )
    with pytest.raises(AudioError, match="row 3: "):
        load_bytes(b"no sound", ref)


def test_an_error_survives_the_way_back_from_a_worker() -> None:
    import pickle

    error = AudioError("a.wav", "truncated")
    assert str(pickle.loads(pickle.dumps(error))) == str(error) == "a.wav: truncated"
    assert isinstance(error, ValueError)


def test_without_ffmpeg_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "clip.m4a"
    path.write_bytes(b"\x00\x00\x00\x18ftypM4A " + b"\x00" * 100)
    monkeypatch.setattr(ffmpeg, "find_ffmpeg", lambda: None)
    for attempt in (lambda: load_audio(AudioRef(path=str(path))), lambda: probe(path)):
        with pytest.raises(AudioError, match=r"clip\.m4a: \.m4a needs ffmpeg.*install it"):
            attempt()


@pytest.fixture
def m4a(tmp_path: Path) -> Path:
    program = audio.find_ffmpeg()
    if program is None:
        pytest.skip("no ffmpeg on this machine (nor the package imageio-ffmpeg)")
    samples = np.stack([tone(3.0, 44_100), tone(3.0, 44_100)], axis=1)
    source, path = saved(tmp_path, "wav", samples, 44_100), tmp_path / "clip.m4a"
    subprocess.run([program, "-v", "error", "-i", str(source), str(path)], check=True)
    return path


def test_m4a_goes_through_ffmpeg(m4a: Path) -> None:
    info = probe(m4a)
    assert (info.sample_rate, info.channels) == (44_100, 2)
    assert info.duration == pytest.approx(3.0, abs=0.1)
    whole = load_audio(AudioRef(path=str(m4a)))
    assert abs(len(whole) / RATE - 3.0) < 0.1
    part = load_audio(AudioRef(path=str(m4a), start=1.0, end=2.0))
    assert len(part) == RATE
    np.testing.assert_allclose(part[500:-500], tone(3.0)[RATE : 2 * RATE][500:-500], atol=0.05)


# Trap 10.
def test_a_truncated_m4a_is_an_error(m4a: Path) -> None:
    front = m4a.with_name("front.m4a")  # its index comes first, so that a cut file can still be opened
    subprocess.run(
        [
            audio.find_ffmpeg() or "",
            "-v",
            "error",
            "-i",
            str(m4a),
            "-c",
            "copy",
            "-movflags",
            "+faststart",
            str(front),
        ],
        check=True,
    )
    for path in (m4a, front):
        path.write_bytes(path.read_bytes()[:12_000])
        with pytest.raises(AudioError):
            load_audio(AudioRef(path=str(path)))


# Trap 25.
def test_sound_is_decoded_without_torchcodec(tmp_path: Path) -> None:
    """A fresh interpreter decodes every format and has neither torch, torchcodec nor librosa in it."""
    paths = [str(saved(tmp_path, suffix, tone(1.0, 8000), 8000)) for suffix in FORMATS]
    code = (
        "import sys; from training.data.audio import load_audio; from training.data.example import AudioRef\n"
        f"for path in {paths!r}: assert len(load_audio(AudioRef(path=path))) == 16000\n"
        "print([name for name in ('torch', 'torchcodec', 'librosa', 'pandas') if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(find_ffmpeg() is None, reason="no ffmpeg")
@pytest.mark.parametrize("kept", [0, 1 << 30])
def test_stretches_in_their_order_are_those_that_are_read_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    wav = saved(tmp_path, ".wav", np.random.default_rng(0).uniform(-0.3, 0.3, 20 * RATE).astype(np.float32))
    m4a = tmp_path / "a.m4a"
    subprocess.run([str(find_ffmpeg()), "-v", "error", "-i", wav, m4a], check=True)
    places = [(0.0, 3.0), (2.5, 4.0), (4.0, 4.5), (11.0, 15.0), (14.0, None)]
    for path in (wav, m4a):
        refs = [AudioRef(path=str(path), start=start, end=end) for start, end in places]
        expected = [load_audio(ref, 8_000) for ref in refs]
        monkeypatch.setattr(decoded, "MEMORY_BYTES", kept)
        monkeypatch.setattr(decoded, "KEPT_ON_DISK", kept)
        decoded._kept.clear()
        found = [samples for samples, _ in load_in_order(refs, 8_000)]
        assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))
    assert list(load_in_order([])) == []
