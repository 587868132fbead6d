"""What a header states and what lies in the file: all of it is read, or the file is refused; never a silent difference."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.sound_containers import (
    LOSSLESS,
    MP3,
    UNKNOWN,
    Made,
    flac_with_total,
    made,
    replaced,
    size_fields,
    with_chunk,
    with_size,
)
from training.data import audio
from training.data.audio import AudioError, load_audio, load_bytes, probe, probe_bytes, stream
from training.data.example import AudioRef
from training.data.sound.downmix import choose, mono
from training.data.sound.layout import find

RATE = 16_000
LOSSY = (*MP3, "vorbis", "opus")
ID3V1 = b"TAG" + b"Title".ljust(125, b"\0")
ID3V2 = b"ID3\x04\0\0\0\0\x02\0" + bytes(256)
CHUNK = b"LIST" + struct.pack("<I", 4) + b"INFO"
APE = (
    b"APETAGEX" + struct.pack("<IIII", 2000, 50, 1, 0xA0000000) + bytes(8)
    + struct.pack("<II", 5, 0) + b"Title\0hello"[:10].ljust(10, b"\0")
    + b"APETAGEX" + struct.pack("<IIII", 2000, 50, 1, 0x80000000) + bytes(8)
)  # fmt: skip
TEXT = b"a line of text that somebody appended to the file\n" * 3
REF = AudioRef(path="sound")


def expected(samples: np.ndarray) -> np.ndarray:
    return mono(samples, choose([samples]))


def same(found: np.ndarray, wanted: np.ndarray, kind: str, rate: int) -> bool:
    """Lossless: sample for sample; MP3, Vorbis and Opus: as long to 60 ms, and alike."""
    if kind not in LOSSY:
        return np.array_equal(found, wanted)
    if abs(len(found) - len(wanted)) > max(0.06 * rate, 530):
        return False
    length = min(len(found), len(wanted))
    shift = 529 if kind == "mp3bare" else 0  # the decoder's own delay, which nothing in such a file tells
    a, b = found[: length - shift], wanted[shift:length]
    return len(a) < 4000 or np.corrcoef(a[500:-500], b[500:-500])[0, 1] > 0.9


def refused_or_whole(data: bytes, wanted: np.ndarray | None, kind: str, rate: int) -> str:
    """Load and probe agree on ``wanted``, or both refuse with a message. Returns that message, "" where it is read."""
    try:
        found = load_bytes(data, REF, rate)
    except AudioError as error:
        assert str(error).startswith("sound: ") and len(str(error)) > 20
        assert "9223372036854775807" not in str(error)
        return str(error)
    assert wanted is not None, "one of two files that differ was read alone"
    assert same(found, wanted, kind, rate)
    assert probe_bytes(data, "sound").frames == len(found)
    return ""


# -- generated files ---------------------------------------------------------------------------------------------------


@st.composite
def files(draw: st.DrawFn) -> Made:
    kind = draw(st.sampled_from([*LOSSLESS, *LOSSY]))
    rates = [8000, 11_025, 16_000, 22_050, 44_100, 48_000]
    if kind not in LOSSY:
        rates += [7350, 12_345, 37_800]
    rate = draw(st.sampled_from([8000, 16_000, 24_000, 48_000] if kind == "opus" else rates))
    channels = draw(st.integers(1, 2 if kind in MP3 else 3))
    frames = draw(st.sampled_from([1, 50, 1000, 4999, 5000, rate // 2, rate]))
    return made(
        kind,
        draw(st.integers(0, 1000)),
        max(frames, 8000 if kind == "mp3bare" else 200 if kind in LOSSY else 1),
        channels,
        rate,
    )


def lies(one: Made, draw: st.DrawFn) -> bytes:
    """The file with one number of its header wrong."""
    count, block = len(one.samples), one.samples.shape[1]
    if one.kind.startswith("flac"):
        return flac_with_total(one.data, draw(st.sampled_from([0, 1, count // 2, count + 1, (1 << 36) - 1])))
    fields = size_fields(one)
    if not fields:
        return one.data
    changes: list[Callable[[int], int]] = [
        lambda size: size // 2,
        lambda size: size // 4 * 2,
        lambda size: 1,
        lambda size: size - 8 * block,
        lambda size: size + 24,
        lambda size: 2 * size,
        lambda size: 1 << 64,
        *(lambda size, value=value: value for value in UNKNOWN),
    ]
    return with_size(one, draw(st.sampled_from(sorted(fields))), draw(st.sampled_from(changes)))


@settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_generated_files_are_read_whole_or_refused(data: st.DataObject) -> None:
    one = data.draw(files())
    wanted = expected(one.samples)
    what = data.draw(
        st.sampled_from(["as it is", "tag", "junk", "other file", "lie", "lie", "cut", "joined"])
    )
    content, tags = one.data, [ID3V1, APE, bytes(3), bytes(5000)]
    if what == "as it is":
        assert refused_or_whole(content, wanted, one.kind, one.rate) == ""
    elif what == "tag":
        tags += [] if one.kind.startswith("au") else [ID3V2]
        content += data.draw(st.sampled_from(tags))
        assert refused_or_whole(content, wanted, one.kind, one.rate) == ""
    elif what == "junk":
        content += data.draw(st.sampled_from([TEXT, b"\n", data.draw(st.binary(min_size=40, max_size=400))]))
        refused_or_whole(content, wanted, one.kind, one.rate)
    elif what == "other file":
        other = made(
            data.draw(st.sampled_from(["wav16", "flac16", "mp3cbr", "vorbis", "aiff16"])), 5, 3000, 1, 32_000
        )
        assert refused_or_whole(content + other.data, None, one.kind, one.rate)
    elif what == "lie":
        refused_or_whole(lies(one, data.draw), wanted, one.kind, one.rate)
    elif what == "cut":
        cut = data.draw(st.integers(1, len(content) - 1))
        if one.kind != "mp3bare":  # which states nothing, and may be cut between two frames
            refused_or_whole(content[:cut], wanted, one.kind, one.rate)
    else:
        more = made(one.kind, 7, 3000, one.samples.shape[1], one.rate)
        content += data.draw(st.sampled_from([b"", ID3V1, ID3V2])) + more.data
        both = expected(np.concatenate([one.samples, more.samples]))
        refused_or_whole(content, both, one.kind, one.rate)


# -- joined files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["wav16", "wav24", "w64", "rf64", "aiff16", "au16", "flac16", *MP3, "vorbis", "opus"]
)
@pytest.mark.parametrize("between", [b"", ID3V1, ID3V2], ids=["", "id3v1", "id3v2"])
def test_joined_files_are_read_one_after_the_other(tmp_path: Path, kind: str, between: bytes) -> None:
    one, two = made(kind, 1, 3 * RATE, 1, RATE), made(kind, 2, 3 * RATE, 1, RATE)
    path = tmp_path / "joined.bin"
    path.write_bytes(one.data + between + two.data)
    whole = load_audio(AudioRef(path=str(path)))
    assert same(whole, np.concatenate([one.samples, two.samples])[:, 0], kind, RATE)
    assert probe(path).frames == len(whole)
    np.testing.assert_array_equal(load_bytes(path.read_bytes(), REF), whole)
    blocks = [block for block, _ in stream(AudioRef(path=str(path)), 0.7)]
    np.testing.assert_allclose(np.concatenate(blocks)[:, 0], whole, atol=1e-4)
    for start, end in [(3.5, 4.5), (2.5, 3.5), (5.0, None)]:
        part = load_audio(AudioRef(path=str(path), start=start, end=end))
        cut = whole[round(start * RATE) : None if end is None else round(end * RATE)]
        np.testing.assert_allclose(
            part, cut, atol=2e-3 if kind == "opus" else 1e-4
        )  # Opus: it predicts from what came before


def test_three_files_of_equal_length_are_three(tmp_path: Path) -> None:
    for kind in ("flac16", "vorbis", "mp3vbr", "wav16"):
        one = made(kind, 1, RATE, 1, RATE)
        assert len(load_bytes(3 * one.data, REF)) == 3 * RATE


@pytest.mark.parametrize("kind", ["wav16", "flac16", "mp3cbr", "vorbis", "aiff16"])
def test_joined_files_that_differ_are_refused_with_both_lengths(kind: str) -> None:
    one, two = made(kind, 1, 2 * RATE, 1, RATE), made(kind, 2, 22_050, 2, 22_050)
    message = refused_or_whole(one.data + two.data, None, kind, RATE)
    assert "2.0" in message and "1.0" in message and "22050 Hz" in message


def test_an_mp3_without_a_stated_length_behind_one_with_it_is_read() -> None:
    one, two = made("mp3vbr", 1, 2 * RATE, 1, RATE), made("mp3bare", 2, 2 * RATE, 1, RATE)
    assert len(load_bytes(one.data + two.data, REF)) / RATE == pytest.approx(4.0, abs=0.07)
    assert len(load_bytes(two.data + one.data, REF)) / RATE == pytest.approx(4.0, abs=0.07)


def test_a_sound_in_the_middle_of_a_chain_that_lacks_its_end_is_refused() -> None:
    one, two = made("vorbis", 1, 2 * RATE, 1, RATE), made("vorbis", 2, 2 * RATE, 1, RATE)
    with pytest.raises(
        AudioError, match=r"truncated: the Ogg stream \(sound 1 of 2 in the file\) has no last page"
    ):
        load_bytes(one.data[: one.data.rindex(b"OggS")] + two.data, REF)


# -- sizes in headers --------------------------------------------------------------------------------------------------

SIZED = ["wav8", "wav16", "wav24", "wavfloat", "wavmulaw", "rf64", "w64", "aiff16", "aiff24", "au16"]


@pytest.mark.parametrize("kind", [*SIZED, "wavex", "aifffloat"])
@pytest.mark.parametrize("value", UNKNOWN)
def test_a_size_that_stands_for_unknown_is_counted(kind: str, value: int) -> None:
    one = made(kind, 4, 5000, 2, RATE)
    for data in (with_size(one, "data", lambda _: value), with_all_sizes(one, value)):
        assert refused_or_whole(data, expected(one.samples), kind, RATE) == ""


def with_all_sizes(one: Made, value: int) -> bytes:
    """What a writer leaves that could not go back: none of its sizes is known."""
    for name in size_fields(one):
        if name != "comm":
            one = Made(one.kind, with_size(one, name, lambda _: value), one.samples, one.rate)
    return one.data


@pytest.mark.parametrize("kind", [name for name in SIZED if name != "au16"])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_samples_after_the_stated_end_are_read(kind: str, channels: int) -> None:
    one = made(kind, 4, 5000, channels, RATE)
    for change in (lambda size: size // 2, lambda size: size // 8 * 4, lambda size: size - 4 * channels):
        assert refused_or_whole(with_size(one, "data", change), expected(one.samples), kind, RATE) == ""


@pytest.mark.parametrize("value", [0, 1000, 0xFFFFFFFF])
@pytest.mark.parametrize("name", [b"LIST", b"id3 ", b"bext", b"cue "])
def test_chunks_behind_the_samples_are_no_samples(value: int, name: bytes) -> None:
    one = made("wav16", 1, 5000, 1, RATE)
    data = with_chunk(one.data, name)
    assert refused_or_whole(data, one.samples[:, 0], "wav16", RATE) == ""
    assert (
        refused_or_whole(replaced(data, 40, struct.pack("<I", value)), one.samples[:, 0], "wav16", RATE) == ""
    )
    assert refused_or_whole(data + ID3V1, one.samples[:, 0], "wav16", RATE) == ""


def test_a_header_that_agrees_with_itself_is_asked_about() -> None:
    """Both sizes are old: the rest may be sound or anything else."""
    one = made("wav16", 1, 2 * RATE, 1, RATE)
    data = replaced(replaced(one.data, 4, struct.pack("<I", 36 + 2 * RATE)), 40, struct.pack("<I", 2 * RATE))
    with pytest.raises(AudioError, match=r"states 1\.000 s of sound.*32000 bytes follow.*room for 2\.000 s"):
        load_bytes(data, REF)
    au = made("au16", 1, 2 * RATE, 1, RATE)
    with pytest.raises(AudioError, match=r"states 1\.000 s of sound.*room for 2\.000 s"):
        load_bytes(with_size(au, "data", lambda size: size // 2), REF)


@pytest.mark.parametrize("kind", ["wav16", "rf64", "w64", "aiff16", "au16", "flac16", "mp3vbr"])
def test_less_sound_than_stated_is_said_in_seconds(tmp_path: Path, kind: str) -> None:
    one = made(kind, 1, 4 * RATE, 1, RATE)
    path = tmp_path / "cut.bin"
    path.write_bytes(one.data[: len(one.data) // 2])
    for attempt in (lambda: probe(path), lambda: load_audio(AudioRef(path=str(path)))):
        with pytest.raises(
            AudioError, match=r"cut\.bin: truncated: the header states 4\.\d+ s of sound.*, [12]\.\d+ s"
        ):
            attempt()


def test_a_large_size_is_no_unknown_one() -> None:
    """A file of three gigabytes of which a second arrived."""
    one = made("wav16", 1, RATE, 1, RATE)
    with pytest.raises(AudioError, match=r"states 93750\.000 s of sound.*1\.000 s"):
        load_bytes(with_size(one, "data", lambda _: 3_000_000_000), REF)


def test_a_second_chunk_of_samples_is_refused() -> None:
    one = made("wav16", 1, RATE, 1, RATE)
    data = one.data + b"data" + struct.pack("<I", 200) + bytes(range(200))
    with pytest.raises(AudioError, match="second chunk of sound"):
        load_bytes(replaced(data, 4, struct.pack("<I", len(data) - 8)), REF)


def test_a_sphere_file_is_compared_with_its_number_of_samples() -> None:
    sink = io.BytesIO()
    soundfile.write(sink, made("wav16", 1, RATE, 2, RATE).samples, RATE, format="NIST", subtype="PCM_16")
    data = sink.getvalue()
    wanted, _ = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    assert b"sample_count -i 16000" in data[:1024]
    assert refused_or_whole(data, expected(wanted), "sphere", RATE) == ""
    assert refused_or_whole(data + bytes(100), expected(wanted), "sphere", RATE) == ""
    message = refused_or_whole(data[: len(data) // 2], None, "sphere", RATE)
    assert "truncated: the header states 1.000 s" in message
    old = data.replace(b"sample_count -i 16000", b"sample_count -i 8000 ")
    assert "states 0.500 s" in refused_or_whole(old, None, "sphere", RATE)


# -- FLAC --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["flac16", "flac24"])
@pytest.mark.parametrize("frames", [10, 4096, 4097, 3 * RATE])
@pytest.mark.parametrize("total", [0, (1 << 36) - 1, 7])
def test_a_flac_whose_total_is_open_or_too_small_is_counted(
    tmp_path: Path, kind: str, frames: int, total: int
) -> None:
    one = made(kind, 3, frames, 2, RATE)
    path = tmp_path / "open.flac"
    path.write_bytes(flac_with_total(one.data, total))
    wanted = expected(one.samples)
    assert probe(path) == audio.AudioInfo(frames / RATE, RATE, 2, frames)
    np.testing.assert_array_equal(load_audio(AudioRef(path=str(path))), wanted)
    np.testing.assert_array_equal(
        np.concatenate([b for b, _ in stream(AudioRef(path=str(path)), 0.3)]), one.samples
    )
    if frames > RATE:
        part = load_audio(AudioRef(path=str(path), start=2.5, end=2.75))
        np.testing.assert_array_equal(part, wanted[round(2.5 * RATE) : round(2.75 * RATE)])


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9, 0.99])
def test_a_cut_flac_with_an_open_total_is_no_number_of_nineteen_digits(share: float) -> None:
    one = made("flac16", 3, 3 * RATE, 1, RATE)
    data = flac_with_total(one.data, 0)
    with pytest.raises(AudioError, match=r"truncated|no samples|decoded") as caught:
        probe_bytes(data[: round(share * len(data))], "sound")
    assert "9223372036854775807" not in str(caught.value)


# -- MP3 ---------------------------------------------------------------------------------------------------------------


def test_an_mp3_of_variable_rate_without_a_stated_length_is_counted() -> None:
    """Its length is no function of its size: a loud half and a silent one."""
    sink = io.BytesIO()
    noise = np.random.default_rng(0).normal(0, 0.2, 4 * RATE)
    noise[: 2 * RATE] = 0.0
    soundfile.write(sink, noise, RATE, format="MP3", bitrate_mode="VARIABLE", compression_level=0.2)
    data = sink.getvalue()
    at = max(data.find(b"Xing"), data.find(b"Info"))
    data = replaced(data, at, b"none")
    assert len(load_bytes(data, REF)) / RATE == pytest.approx(4.0, abs=0.15)


def test_a_first_frame_that_states_too_few_frames_is_put_right() -> None:
    one = made("mp3cbr", 1, 4 * RATE, 1, RATE)
    for change in (lambda frames: frames // 2, lambda frames: 0, lambda frames: 0xFFFFFFFF):
        data = with_size(one, "frames", change)
        assert same(load_bytes(data, REF), one.samples[:, 0], "mp3cbr", RATE)
    with pytest.raises(AudioError, match=r"truncated: the header states 8\.\d+ s"):
        load_bytes(with_size(one, "frames", lambda frames: 2 * frames), REF)


# -- cost --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["wav16", "flac16", "vorbis", "mp3vbr"])
def test_a_file_is_looked_through_once_for_all_its_stretches(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sound.bin"
    path.write_bytes(made(kind, 1, 3 * RATE, 1, RATE).data)
    looked = []
    monkeypatch.setattr(find, "_find", lambda *args, to=find._find: looked.append(1) or to(*args))
    probe(path)
    for start in (0.0, 1.0, 2.0):
        load_audio(AudioRef(path=str(path), start=start, end=start + 0.5))
    assert looked == [1]


@pytest.mark.parametrize(
    "kind", ["wav16", "flac16", "vorbis", "opus", "mp3vbr", "rf64", "w64", "aiff16", "au16"]
)
def test_a_file_without_fault_is_given_to_the_decoder_as_it_is(kind: str) -> None:
    one = made(kind, 4, RATE, 1, RATE)
    name = {"mp3vbr": "mp3", "opus": "ogg", "vorbis": "ogg"}.get(kind, kind.rstrip("0123456789") or kind)
    name = {"w": "w64", "rf": "rf64"}.get(name, name)
    (section,) = find.sections(io.BytesIO(one.data), name)
    assert section.pieces == ((0, len(one.data)),) or kind == "au16"
