"""What lies behind the sound of a file: another file, a chunk, a tag. It is read, left out, or said; never in silence."""

from __future__ import annotations

import io
import os
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sound_containers import signal

from training.data import audio
from training.data.audio import AudioError, load_audio, load_bytes, probe
from training.data.example import AudioRef
from training.data.sound.ffmpeg import find_ffmpeg

RATE = 16_000
KINDS = {
    "wav": ("WAV", "PCM_16"),
    "aiff": ("AIFF", "PCM_16"),
    "au": ("AU", "PCM_16"),
    "w64": ("W64", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "sphere": ("NIST", "PCM_16"),
    "sphere_ulaw": ("NIST", "ULAW"),
    "voc": ("VOC", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "ogg": ("OGG", "VORBIS"),
}
WITH_FFMPEG = {
    "m4a": ("-c:a", "aac"),
    "webm": ("-c:a", "libopus"),
    "mka": ("-c:a", "flac"),
    "ts": ("-c:a", "aac"),
    "mpg": ("-c:a", "mp2", "-ar", "44100"),
    "aac": ("-c:a", "aac"),
    "amr": ("-c:a", "libopencore_amrnb", "-ar", "8000"),
    "wma": ("-c:a", "wmav2"),
    "avi": ("-c:a", "pcm_s16le"),
    "flv": ("-c:a", "aac", "-ar", "44100"),
    "ac3": ("-c:a", "ac3", "-ar", "44100"),
    "eac3": ("-c:a", "eac3", "-ar", "48000"),
    "wv": ("-c:a", "wavpack"),
}
ffmpeg_only = pytest.mark.skipif(find_ffmpeg() is None, reason="needs ffmpeg")


def written(kind: str, seed: int, frames: int = 9_001) -> bytes:
    form, subtype = KINDS[kind]
    sink = io.BytesIO()
    soundfile.write(sink, signal(seed, frames, 1, RATE), RATE, format=form, subtype=subtype)
    return sink.getvalue()


def loaded(data: bytes) -> np.ndarray:
    return load_bytes(data, AudioRef(path="a"), RATE)


@pytest.fixture(scope="module")
def by_ffmpeg(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("ffmpeg")
    soundfile.write(folder / "a.wav", signal(5, 24_000, 1, RATE), RATE)
    made = {}
    for kind, options in WITH_FFMPEG.items():
        target = folder / f"a.{kind}"
        command = [find_ffmpeg(), "-nostdin", "-y", "-v", "error", "-i", folder / "a.wav", *options, target]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            made[kind] = target.read_bytes()
    return made


@pytest.mark.parametrize("second", KINDS)
@pytest.mark.parametrize("first", [kind for kind in KINDS if kind != "caf"])
def test_a_file_of_any_kind_behind_the_sound_is_read_or_refused(first: str, second: str) -> None:
    one, two = written(first, 1), written(second, 2)
    try:
        found = loaded(one + two)
    except AudioError:
        return
    assert len(found) == len(loaded(one)) + len(loaded(two))


@pytest.mark.parametrize("kind", ["sphere", "sphere_ulaw", "au"])
def test_joined_files_without_chunks_are_read_one_after_the_other(kind: str) -> None:
    one, two = written(kind, 1), written(kind, 2, 5_000)
    assert np.array_equal(loaded(one + two), np.concatenate([loaded(one), loaded(two)]))


@ffmpeg_only
@pytest.mark.parametrize("second", ["wav", "flac", "mp3", "ogg", "m4a", "webm", "ts", "aac"])
@pytest.mark.parametrize("first", [*WITH_FFMPEG, "caf"])
def test_another_kind_behind_a_file_for_ffmpeg_is_refused(
    by_ffmpeg: dict[str, bytes], first: str, second: str
) -> None:
    made = by_ffmpeg | {kind: written(kind, 1) for kind in ("wav", "flac", "mp3", "ogg", "caf")}
    if first not in made or second not in made or first == second:
        pytest.skip("not written by this ffmpeg, or no other kind")
    with pytest.raises(AudioError):
        loaded(made[first] + made[second])


@ffmpeg_only
@pytest.mark.parametrize("zeros", [0, 5, 4000])
@pytest.mark.parametrize("second", WITH_FFMPEG)
@pytest.mark.parametrize("first", ["flac", "mp3", "ogg"])
def test_a_file_for_ffmpeg_behind_another_sound_is_refused(
    by_ffmpeg: dict[str, bytes], first: str, second: str, zeros: int
) -> None:
    if second not in by_ffmpeg:
        pytest.skip("not written by this ffmpeg")
    with pytest.raises(AudioError):
        loaded(written(first, 1) + bytes(zeros) + by_ffmpeg[second])


@ffmpeg_only
@pytest.mark.parametrize("kind", WITH_FFMPEG)
@pytest.mark.parametrize("junk", [bytes(3000), b"TAG" + b"x" * 125], ids=["zeros", "tag"])
def test_zeros_and_tags_behind_the_sound_are_no_other_file(
    by_ffmpeg: dict[str, bytes], kind: str, junk: bytes
) -> None:
    if kind not in by_ffmpeg:
        pytest.skip("not written by this ffmpeg")
    try:
        found = loaded(by_ffmpeg[kind] + junk)
    except AudioError as error:
        assert "another file" not in str(error)
    else:
        assert len(found) == len(loaded(by_ffmpeg[kind]))


@pytest.mark.parametrize("count", [b"70000000000", b"9002"])
def test_a_sphere_that_states_more_than_is_there_is_refused(count: bytes) -> None:
    data = written("sphere", 1)
    header = data[:1024].replace(b"sample_count -i 9001", b"sample_count -i " + count)[:1024]
    with pytest.raises(AudioError, match=r"truncated: the header states .* s of sound"):
        loaded(header + data[1024:])


def test_a_sphere_that_states_less_than_is_there_is_refused_with_both_lengths() -> None:
    data = written("sphere", 1)
    with pytest.raises(AudioError, match=r"states 0\.251 s of sound .* room for 0\.563 s"):
        loaded(data.replace(b"sample_count -i 9001", b"sample_count -i 4012"))


def test_a_sphere_that_leaves_its_number_open_is_counted() -> None:
    data = written("sphere", 1)
    assert len(loaded(data.replace(b"sample_count -i 9001", b"sample_count -i 0000"))) == 9_001


@pytest.mark.parametrize("cut", [2, 9_000])
def test_a_voc_that_is_cut_is_refused(cut: int) -> None:
    with pytest.raises(AudioError, match="truncated"):
        loaded(written("voc", 1)[:-cut])


CHUNKS = {
    "list": b"LIST" + struct.pack("<I", 26) + b"INFOISFT" + struct.pack("<I", 14) + b"Lavf58.76.100\0",
    "id3": b"id3 " + struct.pack("<I", 26) + b"ID3\x03\0\0\0\0\0\x10TIT2" + bytes(12),
    "private": b"xyz " + struct.pack("<I", 5) + b"hello\0",
    "two": b"XMP_" + struct.pack("<I", 4) + b"<x/>" + b"bext" + struct.pack("<I", 602) + b"d" * 602,
}


@pytest.mark.parametrize("stated", [0, 0xFFFFFFFF, 9_000, 18_000])
@pytest.mark.parametrize("chunks", CHUNKS)
def test_chunks_behind_a_wrong_size_are_no_samples(chunks: str, stated: int) -> None:
    data = written("wav", 1)
    lying = data[:40] + struct.pack("<I", stated) + data[44:] + CHUNKS[chunks]
    assert np.array_equal(loaded(lying), loaded(data))


def test_a_chunk_with_any_name_that_fills_the_container_is_no_sample() -> None:
    data = written("wav", 1)
    whole = data + b"\0abc" + struct.pack("<I", 10) + b"q" * 10
    assert len(loaded(whole[:4] + struct.pack("<I", len(whole) - 8) + whole[8:])) == 9_001


def test_a_pipe_and_a_name_that_no_system_takes_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.wav")
    with pytest.raises(AudioError, match="is a pipe"):
        probe(tmp_path / "a.wav")
    for name in ("x" * 300, "a\0b"):
        with pytest.raises(AudioError, match="cannot be read"):
            probe(tmp_path / name)


def test_samples_whose_spectrum_leaves_32_bits_are_refused(tmp_path: Path) -> None:
    for factor, fits in ((32_768.0, True), (1e30, False)):
        soundfile.write(tmp_path / "a.wav", factor * signal(1, 1000, 1, RATE), RATE, subtype="FLOAT")
        if fits:
            assert len(load_audio(AudioRef(path=str(tmp_path / "a.wav")))) == 1000
        else:
            with pytest.raises(audio.InfiniteSamples, match="too large"):
                load_audio(AudioRef(path=str(tmp_path / "a.wav")))


def test_days_of_sound_are_not_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "LONGEST_SECONDS", 0.5)
    (tmp_path / "a.flac").write_bytes(written("flac", 1))
    with pytest.raises(AudioError, match="are not read at once"):
        load_audio(AudioRef(path=str(tmp_path / "a.flac")))
    assert len(load_audio(AudioRef(path=str(tmp_path / "a.flac"), start=0.1, end=0.4))) == 4_800
