"""Archives that lie, break off and point elsewhere: everything is refused by name, the rest is read."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_assets import Entry, archive, member, sample, sidecar, wav

from training.data.sources.shards.archive import Member, Refused, read_members
from training.data.sources.shards.samples import read_shard


def ids_and_reasons(path: Path) -> tuple[list[str], list[tuple[str, str]]]:
    table, ledger = read_shard(path)
    return table.column("id").to_pylist(), [(drop.id, drop.reason) for drop in ledger]


def good(*keys: str) -> list[Entry]:
    return [one for key in keys for one in sample(key)]


def test_a_shard_of_whole_samples(tmp_path: Path) -> None:
    path = archive(tmp_path / "s.tar", [member("clips", kind=tarfile.DIRTYPE), *good("clips/a", "./clips/b")])
    table, ledger = read_shard(path)
    assert not len(ledger)
    assert table.column("id").to_pylist() == ["clips/a", "clips/b"]
    assert table.column("audio_path").to_pylist() == ["s.tar/clips/a.wav", "s.tar/clips/b.wav"]
    content = path.read_bytes()
    places = zip(table.column("__offset__").to_pylist(), table.column("__size__").to_pylist(), strict=True)
    assert [content[at : at + size] for at, size in places] == [wav(0.5, 7), wav(0.5, 9)]


@pytest.mark.parametrize(
    "name", ["/etc/a.wav", "../a.wav", "in/../../a.wav", "..\\a.wav", "C:\\a.wav", "C:a.wav"]
)
def test_names_that_leave_the_folder(tmp_path: Path, name: str) -> None:
    path = archive(tmp_path / "s.tar", [*good("a"), member(name, wav()), *good("b")])
    ids, reasons = ids_and_reasons(path)
    assert ids == ["a", "b"]
    assert [reason for _, reason in reasons] == ["unsafe_name"]


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_links_devices_and_pipes(tmp_path: Path, kind: bytes) -> None:
    rows = [
        *good("a"),
        member("x.wav", kind=kind, link="/etc/passwd"),
        member("x.json", sidecar(transcript="x")),
        *good("b"),
    ]
    assert ids_and_reasons(archive(tmp_path / "s.tar", rows)) == (["a", "b"], [("s.tar/x", "not_a_file")])


def test_a_sparse_member(tmp_path: Path) -> None:
    info = member("x.wav", wav())
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.name": "x.wav"}
    path = archive(tmp_path / "s.tar", [info, *good("b")])
    assert ids_and_reasons(path) == (["b"], [("s.tar/x", "not_a_file")])


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_foreign_names_in_every_format(tmp_path: Path, form: int) -> None:
    key = "clips/" + "d" * 60 + "/" + "k" * 80 if form == tarfile.USTAR_FORMAT else "한국어/" + "k" * 180
    path = archive(tmp_path / "s.tar", good(key, "b"), form)
    assert ids_and_reasons(path) == ([key, "b"], [])


def test_a_damaged_header_costs_its_sample_only(tmp_path: Path) -> None:
    """`tarfile` itself stops here and says nothing."""
    path = archive(tmp_path / "s.tar", good("a", "b", "c"))
    content = bytearray(path.read_bytes())
    at = content.index(b"b.wav")
    content[at : at + 5] = b"q.wav"
    path.write_bytes(content)
    with tarfile.open(path) as tar:
        assert tar.getnames() == ["a.wav", "a.json"]
    ids, reasons = ids_and_reasons(path)
    assert ids == ["a", "c"]
    assert reasons == [("s.tar", "broken_member"), ("s.tar/b", "no_audio")]


def test_an_archive_that_breaks_off(tmp_path: Path) -> None:
    path = archive(tmp_path / "s.tar", good("a", "b"))
    content = path.read_bytes()
    sound = content.index(b"b.wav") + 512
    path.write_bytes(content[: sound + 100])
    assert ids_and_reasons(path) == (["a"], [("s.tar/b", "truncated")])
    path.write_bytes(content[: sound - 512])  # between two samples: only the end mark tells
    assert ids_and_reasons(path) == (["a"], [("s.tar", "truncated")])
    path.write_bytes(content[: sound - 200])
    assert ids_and_reasons(path)[0] == ["a"]
    path.write_bytes(b"")
    assert ids_and_reasons(path) == ([], [("s.tar", "truncated")])


def test_archives_joined_with_cat_are_read_to_the_end(tmp_path: Path) -> None:
    parts = [archive(tmp_path / f"{key}.tar", good(key)).read_bytes() for key in "ab"]
    path = tmp_path / "both.tar"
    path.write_bytes(b"".join(parts))
    assert ids_and_reasons(path) == (["a", "b"], [])


def test_samples_that_do_not_hang_together(tmp_path: Path) -> None:
    rows = [
        *good("a"),
        member("mute.json", sidecar(transcript="x", duration=1)),
        member("wordless.wav", wav()),
        *[*good("b"), member("b.flac", wav())],
        *good("c", "a"),
        *[*good("d")[:1], *good("d")],
        member("README", b"hello"),
        member(".hidden.wav", wav()),
        *good("e"),
    ]
    ids, reasons = ids_and_reasons(archive(tmp_path / "s.tar", rows))
    assert ids == ["a", "c", "e"]
    assert sorted(reasons) == [
        ("s.tar/.hidden.wav", "bad_name"),
        ("s.tar/README", "bad_name"),
        ("s.tar/a", "duplicate_key"),
        ("s.tar/b", "several_audio"),
        ("s.tar/d", "duplicate_member"),
        ("s.tar/mute", "no_audio"),
        ("s.tar/wordless", "empty_text"),
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[1, 2]",
        b"\xff\xfe",
        b'{"transcript": "\\ud800"}',
        b"[" * 100_000,
        b'{"transcript": "x", "duration": "long"}',
        b'{"transcript": "x", "duration": -1}',
        b'{"transcript": "x", "duration": Infinity}',
        b'{"transcript": "one two", "word_languages": "vi"}',
        b'{"transcript": "' + b"x" * (1 << 20) + b'"}',
    ],
)
def test_sidecars_that_cannot_be_read(tmp_path: Path, content: bytes) -> None:
    rows = [*good("a"), member("b.wav", wav()), member("b.json", content), *good("c")]
    assert ids_and_reasons(archive(tmp_path / "s.tar", rows)) == (["a", "c"], [("s.tar/b", "bad_sidecar")])


def test_a_sidecar_cannot_say_where_its_sound_lies(tmp_path: Path) -> None:
    rows = sample("a", audio_path="/etc/passwd", start=3, end=4, __offset__="0")
    table, _ = read_shard(archive(tmp_path / "s.tar", rows))
    assert table.column("audio_path").to_pylist() == ["s.tar/a.wav"]
    assert table.column("__offset__").to_pylist() == [512]
    assert not {"start", "end"} & set(table.column_names)


def test_texts_from_txt_and_lengths_from_headers(tmp_path: Path) -> None:
    rows = [
        member("a.wav", wav(0.75)),
        member("a.txt", "안녕\n".encode()),
        member("b.flac", b"fLaC no more"),
        member("b.txt", b"x"),
        member("c.wav", wav()),
        member("c.txt", b"plain"),
        member("c.json", sidecar(transcript="of the JSON")),
    ]
    table, ledger = read_shard(archive(tmp_path / "s.tar", rows))
    assert table.select(["id", "transcript", "duration"]).to_pylist() == [
        {"id": "a", "transcript": "안녕", "duration": "0.75"},
        {"id": "c", "transcript": "of the JSON", "duration": "0.5"},
    ]
    assert [(drop.id, drop.reason) for drop in ledger] == [("s.tar/b", "unreadable_audio")]


WHOLE = 6


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return archive(tmp_path_factory.mktemp("a") / "s.tar", good(*"abcdef")).read_bytes()


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_any_damage_leaves_members_inside_the_file_and_takes_few_samples(
    intact: bytes, data: st.DataObject
) -> None:
    """Any byte changed costs one sample at most; any cut costs what is behind it; nothing raises."""
    content = bytearray(intact)
    at = data.draw(st.integers(0, len(content) - 1))
    if cut := data.draw(st.booleans()):
        content = content[:at]
    else:
        content[at] = data.draw(st.integers(0, 255))
    found = list(read_members(io.BytesIO(bytes(content))))
    members = [one for one in found if isinstance(one, Member)]
    assert all(one.offset >= 0 and one.offset + one.size <= len(content) for one in members)
    refused = [one for one in found if isinstance(one, Refused)]
    if cut:
        assert refused or at >= len(intact) - 10240
    else:
        assert len(members) >= 2 * WHOLE - 1


@given(st.binary(max_size=4000))
@settings(max_examples=60, deadline=None)
def test_bytes_that_are_no_archive(content: bytes) -> None:
    assert not [one for one in read_members(io.BytesIO(content)) if isinstance(one, Member)]
