"""Containers that only ffmpeg reads: the samples are those that were written, at the places where they were written.

Every file here is made by ffmpeg from known samples. Lossless codecs must give them exactly, lossy ones within 60 ms
of the encoder's stated delay; a file that cannot be had so is refused with a message.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from training.data import audio
from training.data.audio import AudioError, load_audio, load_bytes, probe, stream
from training.data.example import AudioRef
from training.data.sound import decoded, ffmpeg
from training.data.sound.containers import identify

EXAMPLES = 150
"""Generated files; each costs three to five starts of ffmpeg, 0.2 to 0.4 s in all."""
NEAR = 0.06
"""Seconds by which lossy sound may lie beside its place."""
HOP = 0.005
PROGRAM = ffmpeg.find_ffmpeg()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no ffmpeg on this machine")


@dataclass(frozen=True)
class Kind:
    """How ffmpeg writes it. ``delay``: samples at the decoded rate that come before the first one written, because
    the container has no place for the encoder's delay. ``open_end``: a cut between two frames leaves no trace."""

    suffix: str
    options: tuple[str, ...]
    rates: tuple[int, ...]
    channels: tuple[int, ...] = (1, 2)
    exact: bool = False
    delay: int = 0
    open_end: bool = False
    decoded_rate: int | None = None


AAC = (8000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
ANY = (8000, 11_024, 16_000, 22_051, 44_100, 48_000, 96_000)
LIVE = ("-c:a", "libopus", "-f", "webm", "-live", "1")
KINDS = {
    "m4a": Kind("m4a", ("-c:a", "aac"), AAC),
    "m4a index first": Kind("m4a", ("-c:a", "aac", "-movflags", "+faststart"), AAC),
    "alac": Kind("m4a", ("-c:a", "alac"), AAC, (1, 2), exact=True),
    "mp4 with picture": Kind("mp4", ("-c:a", "aac", "-c:v", "mpeg4"), AAC),
    "fragments": Kind(
        "mp4",
        ("-c:a", "aac", "-movflags", "+empty_moov", "-frag_duration", "500000"),
        AAC,
        delay=1024,
        open_end=True,
    ),
    "webm": Kind("webm", ("-c:a", "libopus"), (8000, 16_000, 48_000), decoded_rate=48_000),
    "webm of a browser": Kind("webm", LIVE, (16_000, 48_000), open_end=True, decoded_rate=48_000),
    "mkv pcm": Kind("mkv", ("-c:a", "pcm_s16le"), ANY, (1, 2, 6), exact=True),
    "mkv flac": Kind("mkv", ("-c:a", "flac"), ANY, (1, 2, 6), exact=True),
    "mkv with picture": Kind("mkv", ("-c:a", "pcm_s16le", "-c:v", "mpeg4"), ANY, exact=True),
    "ts": Kind("ts", ("-c:a", "aac"), AAC, delay=1024, open_end=True),
    "adts": Kind("aac", ("-c:a", "aac"), AAC, delay=1024, open_end=True),
    "amr": Kind("amr", ("-c:a", "libopencore_amrnb"), (8000,), (1,), open_end=True),
    "caf": Kind("caf", ("-c:a", "pcm_s16be"), ANY, exact=True),
    "avi": Kind("avi", ("-c:a", "pcm_s16le", "-c:v", "mpeg4"), AAC, exact=True),
    "wavpack": Kind("wv", ("-c:a", "wavpack"), ANY, exact=True),
}


def _encoders() -> set[str]:
    """Names of the encoders that this ffmpeg was built with: distributions leave some out (Debian's has none for AMR)."""
    if PROGRAM is None:
        return set()
    listed = subprocess.run(
        [PROGRAM, "-hide_banner", "-encoders"], capture_output=True, text=True, check=True
    )
    return {
        line.split()[1] for line in listed.stdout.splitlines() if line.startswith(" A") and "=" not in line
    }


ENCODERS = _encoders()
WRITABLE = sorted(name for name, kind in KINDS.items() if kind.options[1] in ENCODERS)


def writable(*names: str) -> list[Any]:
    """Parameters of a test; the containers that this ffmpeg cannot write are skipped."""
    missing = pytest.mark.skip(reason="this ffmpeg has no encoder for it")
    return [pytest.param(name, marks=[] if name in WRITABLE else [missing]) for name in names]


def speech_like(seconds: float, rate: int, channels: int, seed: int = 0) -> np.ndarray:
    """int16 ``[time, channels]``: a voice-like hum in syllables of changing level and length, so that any stretch
    differs from any other, whatever a speech codec does to its waveform."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    borders = np.cumsum(random.uniform(0.06, 0.25, int(seconds / 0.06) + 2))
    levels = np.exp(
        np.cumsum(random.choice([-1, 1], len(borders) + 1) * random.uniform(1.0, 2.0, len(borders) + 1))
    )
    levels = np.exp(np.mod(np.log(levels), 3.0) - 3.0)
    level = levels[np.searchsorted(borders, time)]
    hum = sum(np.sin(2 * np.pi * 140 * n * time + n) / n for n in range(1, 8))
    mono = np.asarray(level * hum)
    mono *= 0.7 / max(1e-9, float(np.abs(mono).max(initial=0)))
    scale = np.linspace(1.0, 0.7, channels)
    return np.round(mono[:, None] * scale * 32_000).astype(np.int16)


def write(
    path: Path, kind: Kind, samples: np.ndarray, rate: int, *, offset: float = 0, picture: float = 0
) -> None:
    """By a pipe, as programs do that call ffmpeg."""
    given = ["-f", "s16le", "-ar", str(rate), "-ac", str(samples.shape[1])]
    late = ["-itsoffset", f"{offset:.3f}"] if offset else []
    shown: list[str] = []
    if "-c:v" in kind.options:
        shown = [
            "-f",
            "lavfi",
            "-i",
            f"color=c=black:s=32x32:r=10:d={picture:.2f}",
            "-map",
            "1:v",
            "-map",
            "0:a",
        ]
    command = [
        PROGRAM or "",
        "-nostdin",
        "-v",
        "error",
        "-y",
        *late,
        *given,
        "-i",
        "pipe:0",
        *shown,
        *kind.options,
    ]
    target = ["pipe:1"] if kind.options == LIVE else [str(path)]
    done = subprocess.run([*command, *target], input=samples.tobytes(), capture_output=True, check=True)
    if kind.options == LIVE:
        path.write_bytes(done.stdout)


def mean_of(samples: np.ndarray) -> np.ndarray:
    return samples.astype(np.float32).mean(axis=1) / 32_768


def envelope(samples: np.ndarray, rate: int) -> np.ndarray:
    """Level in decibels above a floor, each `HOP` over five of them (some periods of the hum)."""
    borders = np.round(np.arange(0, len(samples) / rate - 5 * HOP, HOP) * rate).astype(int)
    energy = np.concatenate([[0.0], np.cumsum(np.square(samples.astype(np.float64)))])
    width = round(5 * HOP * rate)
    return 10 * np.log10((energy[borders + width] - energy[borders]) / width + 1e-5)


def shift_of(found: np.ndarray, found_rate: int, expected: np.ndarray, rate: int) -> float:
    """Seconds by which ``found`` lies behind ``expected``, by their levels; asserts that they are the same sound."""
    first, second = envelope(found, found_rate), envelope(expected, rate)
    best = (-2.0, 0)
    for lag in range(-60, 61):
        a, b = first[max(0, lag) :], second[max(0, -lag) :]
        length = min(len(a), len(b))
        if length < 0.6 * len(second):
            continue
        best = max(best, (float(np.corrcoef(a[:length], b[:length])[0, 1]), lag))
    assert best[0] > 0.8, f"other sound: correlation {best[0]:.2f}"
    return best[1] * HOP


def require_same(found: np.ndarray, found_rate: int, expected: np.ndarray, rate: int, kind: Kind) -> None:
    if kind.exact:
        np.testing.assert_array_equal(found, expected)
        return
    delay = kind.delay / found_rate
    assert abs(shift_of(found, found_rate, expected, rate) - delay) <= NEAR
    frame = 2048 / found_rate  # the last frame is filled up
    assert -NEAR <= len(found) / found_rate - delay - len(expected) / rate <= NEAR + frame


def late_delay(kind: Kind, offset: float) -> int:
    """``kind.delay`` of a track that begins ``offset`` seconds late.

    Before 6.0 (where it has no protocol for descriptors) ffmpeg writes MP4 files whose edit list counts the encoder's delay of a
    late AAC track as sound: the file says so itself, whoever reads it.
    """
    old = PROGRAM is not None and not ffmpeg._knows_fd(PROGRAM)
    return 1024 if old and offset and kind.suffix in ("m4a", "mp4") and not kind.exact else kind.delay


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    decoded._kept.clear()


def load(path: Path, kind: Kind, rate: int, start: float = 0.0, end: float | None = None) -> np.ndarray:
    """At the file's own rate."""
    return load_audio(AudioRef(path=str(path), start=start, end=end), kind.decoded_rate or rate)


@pytest.mark.parametrize("name", writable(*KINDS))
def test_each_container_gives_what_was_written(tmp_path: Path, name: str) -> None:
    kind = KINDS[name]
    rate = kind.rates[len(kind.rates) // 2]
    samples = speech_like(3.0, rate, kind.channels[-1])
    path = tmp_path / f"clip.{kind.suffix}"
    write(path, kind, samples, rate, picture=4.1)
    whole = load(path, kind, rate)
    own = kind.decoded_rate or rate
    require_same(whole, own, mean_of(samples), rate, kind)
    info = probe(path)
    assert (info.frames, info.sample_rate, info.duration) == (len(whole), own, len(whole) / own)
    blocks = np.concatenate([block.mean(axis=1) for block, _ in stream(AudioRef(path=str(path)), 0.7)])
    np.testing.assert_array_equal(blocks, whole)
    disguised = path.rename(tmp_path / "clip.wav")
    np.testing.assert_array_equal(load(disguised, kind, rate), whole)
    np.testing.assert_array_equal(load_bytes(disguised.read_bytes(), AudioRef(path="row"), own), whole)


@st.composite
def files(draw: st.DrawFn) -> tuple[str, int, int, float, float, float, str, float]:
    """Kind, rate, channels, seconds, start offset, picture's further seconds, damage, where."""
    name = draw(st.sampled_from(WRITABLE))
    kind = KINDS[name]
    return (
        name,
        draw(st.sampled_from(kind.rates)),
        draw(st.sampled_from(kind.channels)),
        draw(st.floats(0.8, 4.0)),
        draw(st.sampled_from([0.0, 0.0, 0.2, 0.417, 3.0])),
        draw(st.floats(-0.3, 1.5)),
        draw(
            st.sampled_from(
                ["none", "none", "cut", "appended zeros", "appended noise", "appended tag", "appended text"]
            )
        ),
        draw(st.floats(0.05, 0.99)),
    )


def damaged(content: bytes, damage: str, where: float) -> bytes:
    """The file as a transfer that broke off leaves it, or with bytes behind its end."""
    rest = {
        "appended zeros": bytes(round(3000 * where)),
        "appended noise": np.random.default_rng(round(1e6 * where)).bytes(round(3000 * where)),
        "appended tag": b"TAG" + b"title".ljust(125, b"\x00"),
        "appended text": b"some log line\n" * round(1 + 100 * where),
    }
    return content[: int(len(content) * where)] if damage == "cut" else content + rest.get(damage, b"")


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files())
def test_generated_files_are_read_as_written_or_refused(
    folder: Path, file: tuple[str, int, int, float, float, float, str, float]
) -> None:
    name, rate, channels, seconds, offset, further, damage, where = file
    kind = replace(KINDS[name], delay=late_delay(KINDS[name], offset))
    samples = speech_like(seconds, rate, channels, seed=round(1000 * seconds))
    path = folder / f"clip.{kind.suffix}"
    write(path, kind, samples, rate, offset=offset, picture=max(0.2, seconds + further))
    path.write_bytes(damaged(path.read_bytes(), damage, where))
    own = kind.decoded_rate or rate
    try:
        whole = load(path, kind, rate)
    except AudioError as refused:
        assert damage != "none", refused
        assert str(path) in str(refused)
        return
    expected = mean_of(samples)
    if damage == "cut":
        assert kind.open_end or name == "avi", "a cut that can be known was not reported"
        expected = expected[: max(1, round((len(whole) - kind.delay) / own * rate))]
    if len(expected) > 0.5 * rate:
        require_same(whole, own, expected, rate, kind)
    assert probe(path).frames == len(whole)
    start = round(where * 0.8 * len(whole)) / own
    end = min(start + 0.5, len(whole) / own)
    part = load(path, kind, rate, start, end)
    np.testing.assert_array_equal(part, whole[round(start * own) : round(end * own)])


@pytest.mark.parametrize("offset", [0.0, 0.2, 0.4, 1.4])
@pytest.mark.parametrize("name", ["mkv pcm", "ts", "mp4 with picture"])
def test_the_first_sample_is_time_zero_whatever_time_stamp_it_bears(
    tmp_path: Path, name: str, offset: float
) -> None:
    kind, rate = KINDS[name], 16_000
    samples = speech_like(4.0, rate, 1)
    plain, late = (tmp_path / f"{word}.{kind.suffix}" for word in ("plain", "late"))
    write(plain, kind, samples, rate, picture=5.0)
    write(late, kind, samples, rate, offset=offset, picture=5.0)
    delay = late_delay(kind, offset) - kind.delay
    for start, end in ((0.0, None), (1.0, 2.5), (2.5, None)):
        shifted = (start + delay / rate, None if end is None else end + delay / rate)
        np.testing.assert_array_equal(load(late, kind, rate, *shifted), load(plain, kind, rate, start, end))
    assert probe(late).frames == probe(plain).frames + delay


# Trap 10.
@pytest.mark.parametrize(
    "name", ["webm of a browser", "m4a", "m4a index first", "mkv pcm", "caf", "fragments"]
)
def test_a_recording_that_is_cut_is_reported(tmp_path: Path, name: str) -> None:
    kind, rate = KINDS[name], 16_000
    path = tmp_path / f"clip.{kind.suffix}"
    write(path, kind, speech_like(4.0, rate, 1), rate)
    content = path.read_bytes()
    for size in (len(content) // 3, len(content) // 2 + 1, len(content) - 11):
        path.write_bytes(content[:size])
        for attempt in (
            lambda: load(path, kind, rate),
            lambda: load(path, kind, rate, 0.0, 0.3),
            lambda: probe(path),
        ):
            with pytest.raises(AudioError, match=r"clip\.\w+: "):
                attempt()


@pytest.mark.parametrize(
    "name", writable("m4a", "webm", "webm of a browser", "mkv pcm", "caf", "amr", "fragments")
)
def test_a_second_file_behind_the_first_is_refused(tmp_path: Path, name: str) -> None:
    """Where ffmpeg would read the first one only, or the second with the first one's codec."""
    kind, rate = KINDS[name], KINDS[name].rates[0]
    path = tmp_path / f"clip.{kind.suffix}"
    write(path, kind, speech_like(2.0, rate, 1), rate)
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(AudioError, match=r"clip\.\w+: "):
        load(path, kind, rate)


@pytest.mark.parametrize("name", ["adts", "ts"])
def test_joined_streams_are_read_to_their_end(tmp_path: Path, name: str) -> None:
    kind, rate = KINDS[name], 16_000
    path = tmp_path / f"clip.{kind.suffix}"
    write(path, kind, speech_like(2.0, rate, 1), rate)
    once = len(load(path, kind, rate))
    path.write_bytes(path.read_bytes() * 2)
    assert len(load(path, kind, rate)) == 2 * once


@pytest.mark.parametrize("name", ["m4a", "m4a index first", "webm", "mkv pcm", "caf", "ts", "adts"])
def test_a_text_behind_the_sound_is_no_harm(tmp_path: Path, name: str) -> None:
    kind, rate = KINDS[name], KINDS[name].rates[0]
    path = tmp_path / f"clip.{kind.suffix}"
    write(path, kind, speech_like(2.0, rate, 1), rate)
    whole = load(path, kind, rate)
    path.write_bytes(path.read_bytes() + b"some log line\n" * 20)
    np.testing.assert_array_equal(load(path, kind, rate), whole)


@pytest.mark.parametrize("damage", ["cut", "appended zeros", "appended tag", "twice"])
@pytest.mark.parametrize("name", writable("amr", "wavpack", "caf", "m4a"))
def test_bytes_and_files_are_judged_alike(tmp_path: Path, name: str, damage: str) -> None:
    kind, rate = KINDS[name], KINDS[name].rates[0]
    path = tmp_path / f"clip.{kind.suffix}"
    write(path, kind, speech_like(2.0, rate, 1), rate)
    content = path.read_bytes()
    path.write_bytes(content * 2 if damage == "twice" else damaged(content, damage, 0.9))
    ref = AudioRef(path=str(path))
    outcomes = []
    for attempt in (lambda: load_audio(ref), lambda: load_bytes(path.read_bytes(), ref)):
        try:
            outcomes.append(f"{len(attempt())} samples")
        except AudioError as refused:
            outcomes.append(str(refused))
    assert outcomes[0] == outcomes[1]


def test_a_picture_without_sound_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    command = [PROGRAM or "", "-nostdin", "-v", "error", "-f", "lavfi", "-i", "color=s=32x32:d=1", str(path)]
    subprocess.run(command, check=True)
    for attempt in (lambda: load_audio(AudioRef(path=str(path))), lambda: probe(path)):
        with pytest.raises(AudioError, match=r"clip\.mp4: .*there is no sound in it"):
            attempt()


def test_a_stretch_beyond_the_sound_is_refused_though_the_picture_goes_on(tmp_path: Path) -> None:
    kind = KINDS["mp4 with picture"]
    path = tmp_path / "clip.mp4"
    write(path, kind, speech_like(2.0, 16_000, 1), 16_000, picture=6.0)
    with pytest.raises(AudioError, match="past the end"):
        load(path, kind, 16_000, 1.0, 4.0)


def test_stretches_of_a_recording_cost_one_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, rate, calls = KINDS["m4a"], 16_000, []
    path = tmp_path / "clip.m4a"
    write(path, kind, speech_like(4.0, rate, 1), rate)
    decode = ffmpeg.decode
    monkeypatch.setattr(ffmpeg, "decode", lambda source: calls.append(source.name) or decode(source))
    for start in (0.0, 2.0, 1.0):
        load(path, kind, rate, start, start + 1)
    assert len(calls) == 1
    write(path, kind, speech_like(3.0, rate, 1, seed=5), rate)  # another content under the same name
    assert probe(path).duration == pytest.approx(3.0, abs=NEAR)


@pytest.mark.parametrize("memory", [1000, 100_000])
@pytest.mark.parametrize("disk", [0, 200_000, 2**30])
def test_long_sound_is_the_same_from_memory_disk_and_decoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: int, disk: int
) -> None:
    kind, rate = KINDS["mkv pcm"], 16_000
    samples = speech_like(4.0, rate, 2)
    path = tmp_path / "clip.mkv"
    write(path, kind, samples, rate)
    monkeypatch.setattr(decoded, "MEMORY_BYTES", memory)
    monkeypatch.setattr(decoded, "KEPT_ON_DISK", disk)
    monkeypatch.setattr(ffmpeg, "_BLOCK_BYTES", 10_000)
    for start, end in ((0.0, None), (1.3, 1.9), (0.0, 0.1), (3.9, None)):
        part = mean_of(samples)[round(start * rate) : None if end is None else round(end * rate)]
        np.testing.assert_array_equal(load(path, kind, rate, start, end), part)


def test_a_fork_reads_what_its_parent_has_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import multiprocessing

    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("processes are not forked here")
    kind, rate = KINDS["mkv pcm"], 16_000
    samples = speech_like(2.0, rate, 1)
    path = tmp_path / "clip.mkv"
    write(path, kind, samples, rate)
    monkeypatch.setattr(decoded, "MEMORY_BYTES", 1000)
    load(path, kind, rate)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        refs = [AudioRef(path=str(path), start=start, end=start + 0.5) for start in (0.0, 0.5, 1.0, 1.5)]
        parts = pool.starmap(load_audio, [(ref, rate) for ref in refs])
    np.testing.assert_array_equal(np.concatenate(parts), mean_of(samples))


def test_variable_rate_mp3_that_states_no_length_is_read_whole(tmp_path: Path) -> None:
    rate = 16_000
    kind = Kind("mp3", ("-c:a", "libmp3lame", "-q:a", "5", "-write_xing", "0"), (rate,), delay=1105)
    samples = speech_like(8.0, rate, 1)
    path = tmp_path / "clip.mp3"
    write(path, kind, samples, rate)
    whole = load(path, kind, rate)
    require_same(whole, rate, mean_of(samples), rate, kind)
    assert probe(path).frames == len(whole)
    np.testing.assert_allclose(load(path, kind, rate, 3.0, 4.0), whole[3 * rate : 4 * rate], atol=1e-4)


@pytest.mark.parametrize("name", writable(*KINDS))
def test_what_ffmpeg_writes_is_recognised(tmp_path: Path, name: str) -> None:
    kind = KINDS[name]
    path = tmp_path / f"clip.{kind.suffix}"
    write(path, kind, speech_like(1.0, kind.rates[0], 1), kind.rates[0], picture=1.0)
    assert identify(path.read_bytes()[:16_384]) in ffmpeg.DEMUXERS
    assert audio.needs_ffmpeg(path)
