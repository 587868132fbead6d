"""Which members of a shard are one sample: names with dots, merged keys, and how many utterances a refusal stands for."""

from __future__ import annotations

import io
import re
import tempfile
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_assets import Entry, archive, member, sample, sidecar, wav
from speech_files import manifest, sound

from training.base.errors import UserError
from training.config.load import config_from
from training.data.manifest import load_manifest
from training.data.sources.shards.index import INDEX, read_index
from training.data.sources.shards.keys import FIRST_DOT, RULES, SUFFIX
from training.data.sources.shards.samples import read_shard
from training.data.sources.shards.source import load_shards
from training.data.sources.shards.write import write_shards
from training.engine.run import open_split

CONVENTION = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")
"""How the library webdataset takes a name apart: key and extension."""


def shard(folder: Path, *members: Entry, name: str = "s.tar") -> Path:
    return archive(folder / name, members)


def clips(*keys: str, suffix: str = "wav") -> list[Entry]:
    return [one for key in keys for one in sample(key, 0.1, suffix)]


def read(path: Path, keys: str = FIRST_DOT, **columns: str) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Ids with their transcripts, and what was refused."""
    table, ledger = read_shard(path, columns, keys)
    found = dict(zip(table.column("id").to_pylist(), texts(table), strict=True))
    assert len(found) == len(table)
    return found, [(drop.id.partition("/")[2], drop.reason) for drop in ledger]


def texts(table: Any) -> list[str]:
    return table.column("transcript").to_pylist() if "transcript" in table.column_names else []


@pytest.mark.parametrize("keys", RULES)
def test_sixty_clips_with_a_dot_in_their_names_are_sixty_samples(tmp_path: Path, keys: str) -> None:
    names = [f"{talk}_{i:04}" for talk in ("clip", "ep1.5") for i in range(60)]
    found, refused = read(shard(tmp_path, *clips(*names)), keys)
    assert found == {name: f"text {name}" for name in names}
    assert refused == []


def test_one_clip_goes_by_the_key_of_webdataset_or_by_its_whole_name(tmp_path: Path) -> None:
    path = shard(tmp_path, *clips("v1.0/ep1.5_0000", "plain"))
    assert list(read(path)[0]) == ["v1.0/ep1", "plain"]
    assert list(read(path, SUFFIX)[0]) == ["v1.0/ep1.5_0000", "plain"]


def test_clips_of_one_key_in_several_shards_of_a_folder_are_all_kept(tmp_path: Path) -> None:
    for i in range(4):
        shard(tmp_path, *clips(f"ep1.5_{i:04}"), name=f"{i}.tar")
    shard(tmp_path, *clips("ep1"), name="9.tar")
    index = read_index(tmp_path)
    assert index.table.column("id").to_pylist() == [*(f"ep1.5_{i:04}" for i in range(4)), "ep1"]
    assert not len(index.refused)
    assert "4 samples would share keys" in index.notes[0] and "ep1.5_0000" in index.notes[0]


MEMBERS = [
    (["a.b.c_1", "a.b.c_2"], ["a.b.c_1", "a.b.c_2"]),
    (["ep1.5_0000.seg", "ep1.5_0001.seg"], ["ep1.5_0000.seg", "ep1.5_0001.seg"]),
    (["a", "a.b", "a.b.c"], ["a", "a.b", "a.b.c"]),
    (["x.y/a.1", "x.y/a.2", "x.z/a.1"], ["x.y/a.1", "x.y/a.2", "x.z/a"]),
    (["a..1", "a..2"], ["a..1", "a..2"]),
]


@pytest.mark.parametrize(("stems", "ids"), MEMBERS)
def test_keys_with_several_dots(tmp_path: Path, stems: list[str], ids: list[str]) -> None:
    path = shard(tmp_path, *clips(*stems))
    assert read(path) == ({key: f"text {stem}" for key, stem in zip(ids, stems, strict=True)}, [])
    assert read(path, SUFFIX) == ({stem: f"text {stem}" for stem in stems}, [])


@pytest.mark.parametrize("keys", RULES)
def test_suffixes_in_capitals(tmp_path: Path, keys: str) -> None:
    rows = [
        *(member("a.1.WAV", wav()), member("a.1.JSON", sidecar(transcript="one"))),
        *(member("a.2.Flac", wav()), member("a.2.Txt", b"two")),
    ]
    table, ledger = read_shard(shard(tmp_path, *rows), None, keys)
    assert table.column("transcript").to_pylist() == ["one", "two"] and not len(ledger)
    assert table.column("audio_path").to_pylist() == ["s.tar/a.1.WAV", "s.tar/a.2.Flac"]


@pytest.mark.parametrize("keys", RULES)
def test_other_members_of_a_clip_are_not_its_text(tmp_path: Path, keys: str) -> None:
    """``a.seg.json`` is a list of segments, and no samples of its own."""
    more = [member("a.seg.json", b"[1, 2]"), member("a.license.txt", b"CC"), member("a.mel.npy", b"x")]
    assert read(shard(tmp_path, *clips("a"), *more), keys) == ({"a": "text a"}, [])
    found, refused = read(shard(tmp_path, clips("a")[0], *more), keys)
    assert (found, refused) == ({}, [("a", "empty_text")])


def test_a_text_with_a_shorter_name_than_its_sound(tmp_path: Path) -> None:
    rows = [
        *(member("a.seg.wav", wav()), member("a.json", sidecar(transcript="one"))),
        *(member("b.1.seg.wav", wav()), member("b.1.json", sidecar(transcript="b1"))),
        *(member("b.2.seg.wav", wav()), member("b.2.json", sidecar(transcript="b2"))),
    ]
    assert read(shard(tmp_path, *rows)) == ({"a": "one", "b.1": "b1", "b.2": "b2"}, [])


def test_a_text_that_may_belong_to_several_sounds_is_refused_with_each_of_them(tmp_path: Path) -> None:
    rows = [member(f"ep1.mic{i}.wav", wav()) for i in range(5)]
    path = shard(tmp_path, *rows, member("ep1.json", sidecar(transcript="x")), *clips("b"))
    table, ledger = read_shard(path)
    assert table.column("id").to_pylist() == ["b"]
    assert len(ledger) == 5 and ledger.counts() == {"several_audio": 5}
    first = next(iter(ledger))
    assert first.id == "s.tar/ep1.mic0" and "ep1.json is one text for 5 sounds" in first.detail


def test_a_text_of_a_whole_recording_beside_its_clips_is_no_utterance(tmp_path: Path) -> None:
    path = shard(
        tmp_path, member("ep1.json", sidecar(title="x")), member("ep1.jpg", b""), *clips("ep1.1", "ep1.2")
    )
    assert read(path) == ({"ep1.1": "text ep1.1", "ep1.2": "text ep1.2"}, [])


@pytest.mark.parametrize("keys", RULES)
@pytest.mark.parametrize("lost", ["wav", "json"])
def test_a_group_of_clips_that_lack_a_member_counts_as_many_as_it_holds(
    tmp_path: Path, keys: str, lost: str
) -> None:
    rows = [one for one in clips(*(f"ep1.5_{i:04}" for i in range(60))) if not one.name.endswith(lost)]
    table, ledger = read_shard(shard(tmp_path, *rows, *clips("a")), None, keys)
    assert table.column("id").to_pylist() == ["a"]
    assert len(ledger) == 60 == len(list(ledger))


@pytest.mark.parametrize("keys", RULES)
def test_sounds_of_a_format_that_is_not_read_count_too(tmp_path: Path, keys: str) -> None:
    _, ledger = read_shard(
        shard(tmp_path, *clips(*(f"ep1.5_{i}" for i in range(9)), suffix="ape")), None, keys
    )
    assert ledger.counts() == {"no_audio": 9}


@pytest.mark.parametrize("keys", RULES)
def test_members_of_a_sample_need_not_be_neighbours(tmp_path: Path, keys: str) -> None:
    """Archives that are sorted by kind: sixty clips are sixty, not 120 refusals."""
    rows = sorted(
        clips(*(f"ep1.5_{i:02}" for i in range(30)), *"ab"), key=lambda one: one.name.rpartition(".")[2]
    )
    found, refused = read(shard(tmp_path, *rows), keys)
    assert len(found) == 32 and refused == []


def test_copies_of_a_sample_count_once_each(tmp_path: Path) -> None:
    path = shard(tmp_path, *clips("a", "b", "a", "c", "a"))
    assert read(path) == ({key: f"text {key}" for key in "abc"}, [("a", "duplicate_key")] * 2)
    _, ledger = read_shard(shard(tmp_path, *clips("a", "a", "a", "b")))
    assert ledger.counts() == {"duplicate_member": 3}


def test_a_sound_in_two_formats_is_one_utterance(tmp_path: Path) -> None:
    _, ledger = read_shard(shard(tmp_path, *clips("a"), member("a.flac", wav()), *clips("b")))
    assert [(drop.id, drop.reason, drop.utterances) for drop in ledger] == [("s.tar/a", "several_audio", 1)]


def test_a_member_that_is_no_sound_and_has_no_key_is_told_and_is_no_utterance(tmp_path: Path) -> None:
    path = shard(
        tmp_path, member("README", b"x"), member("LICENSE", b"x"), member(".a.wav", wav()), *clips("b")
    )
    _, ledger = read_shard(path)
    assert {drop.id: drop.utterances for drop in ledger} == {
        "s.tar/README": 0,
        "s.tar/LICENSE": 0,
        "s.tar/.a.wav": 1,
    }
    assert len(ledger) == 1


def damaged(path: Path, *names: bytes) -> Path:
    """The shard with the headers of these members broken."""
    content = bytearray(path.read_bytes())
    for name in names:
        content[content.index(name)] ^= 0xFF
    path.write_bytes(content)
    return path


def test_a_broken_member_counts_with_its_sample_once(tmp_path: Path) -> None:
    _, ledger = read_shard(damaged(shard(tmp_path, *clips("a", "b", "c")), b"b.wav"))
    assert [(drop.id, drop.utterances) for drop in ledger] == [("s.tar", 0), ("s.tar/b", 1)]


def test_a_broken_stretch_counts_as_many_samples_as_fit_into_it(tmp_path: Path) -> None:
    names = [f"c{i:02}" for i in range(30)]
    broken = [f"{name}.{kind}".encode() for name in names[5:15] for kind in ("wav", "json")]
    _, ledger = read_shard(damaged(shard(tmp_path, *clips(*names)), *broken))
    assert [drop.reason for drop in ledger] == ["broken_member"] and 9 <= len(ledger) <= 12
    assert "about" in next(iter(ledger)).detail


def cut(path: Path, before: bytes) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: content.index(before) + 100])


@pytest.mark.parametrize("place", [b"c10.wav", b"c10.json"])
def test_an_archive_that_breaks_off_has_lost_what_its_metadata_says(tmp_path: Path, place: bytes) -> None:
    names = [f"c{i:02}" for i in range(30)]
    cut(shard(tmp_path, *clips(*names)), place)
    assert len(load_shards(tmp_path, default_domain="x").refused) == 1
    stated = b'{"total_samples": 30, "shards": [{"filename": "s.tar", "samples": 30}]}'
    (tmp_path / "metadata.json").write_bytes(stated)
    source = load_shards(tmp_path, default_domain="x")
    assert (len(source), len(source.refused)) == (10, 20)
    with pytest.raises(UserError, match=r"20 of 30 utterances \(66\.7%\)"):
        source.refused.check_share(len(source) + len(source.refused), 0.02)


def test_metadata_is_not_believed_of_a_whole_shard(tmp_path: Path) -> None:
    shard(tmp_path, *clips("a", "b"))
    (tmp_path / "metadata.json").write_bytes(b'{"shards": [{"filename": "s.tar", "samples": 9}]}')
    assert not len(load_shards(tmp_path, default_domain="x").refused)


def test_the_share_that_stops_a_run_is_one_of_utterances(tmp_path: Path) -> None:
    rows = [one for one in clips(*(f"ep1.5_{i:04}" for i in range(60))) if one.name.endswith("wav")]
    shard(tmp_path, *rows, *clips(*(f"clip_{i:04}" for i in range(60))))
    source = load_shards(tmp_path, default_domain="x")
    with pytest.raises(UserError, match=r"60 of 120 utterances \(50\.0%\)"):
        source.refused.check_share(len(source) + len(source.refused), 0.02)


def test_the_index_is_made_anew_when_the_rule_changes(tmp_path: Path) -> None:
    shard(tmp_path, *clips("a.1"))
    for keys, id in ((FIRST_DOT, "a"), (SUFFIX, "a.1"), (FIRST_DOT, "a")):
        assert read_index(tmp_path, keys=keys).table.column("id").to_pylist() == [id]
        assert (tmp_path / INDEX).is_file()
        assert load_shards(tmp_path, keys=keys, default_domain="x").ids == [id]


def test_the_rule_is_a_key_of_the_configuration(tmp_path: Path) -> None:
    shard(tmp_path, *clips("a.1"))
    for keys, id in (({}, "a"), ({"keys": "suffix"}, "a.1")):
        shards = {"train": str(tmp_path), "default_domain": "x", **keys}
        config = config_from({"training": {"eval_strategy": "no"}, "data": {"shards": shards}})
        assert open_split(config, "train").ids == [id]
    with pytest.raises(UserError, match=r"data\.shards\.keys"):
        config_from({"data": {"shards": {"train": "a", "keys": "last_dot"}}})


def test_what_is_written_is_read_alike_by_both_rules_and_by_webdataset(tmp_path: Path) -> None:
    rows = [
        {
            "id": f"ep1.5_{i}.wav",
            "audio_path": sound(tmp_path / f"ep1.5_{i}.wav", 0.2, 16_000, i).name,
            "duration": 0.2,
            "transcript": f"câu {i}",
            "domain": "x",
        }
        for i in range(5)
    ]
    write_shards(load_manifest(manifest(tmp_path / "all.tsv", rows)), tmp_path / "train", samples_per_shard=2)
    sources = [load_shards(tmp_path / "train", keys=keys) for keys in RULES]
    assert sources[0].table.equals(sources[1].table)
    assert sources[0].ids == [row["id"] for row in rows] and not len(sources[0].refused)
    for place in sources[0].table.column("audio_path").to_pylist():
        match = CONVENTION.match(place)
        assert match is not None and match[2] == "wav"


# -- properties ------------------------------------------------------------------------------------------------

WORD = st.text("ab1_-", min_size=1, max_size=3)
STEM = st.builds(
    lambda folders, words: "".join(f"{one}/" for one in folders) + ".".join(words),
    st.lists(st.sampled_from(["d", "v1.0", "x.y"]), max_size=2),
    st.lists(WORD, min_size=1, max_size=4),
)
KINDS = st.tuples(st.sampled_from(["wav", "WAV", "flac", "mp3"]), st.sampled_from(["json", "JSON", "txt"]))


def named(stem: str, number: int, kinds: tuple[str, str]) -> tuple[Entry, Entry]:
    """Sound and text of a clip; both say its number."""
    text = (
        sidecar(transcript=f"clip {number}", duration=1) if kinds[1] != "txt" else f"clip {number}".encode()
    )
    seconds = sidecar(transcript=f"clip {number}", duration=1) if kinds[1] != "txt" else text
    return member(f"{stem}.{kinds[0]}", SOUND + bytes([number])), member(f"{stem}.{kinds[1]}", seconds)


def _sound() -> bytes:
    sink = io.BytesIO()
    soundfile.write(sink, np.zeros(160, np.int16), 16_000, format="WAV", subtype="PCM_16")
    return sink.getvalue()


SOUND = _sound()
CLIPS = st.lists(st.tuples(STEM, KINDS), min_size=1, max_size=12, unique_by=lambda one: one[0])


@given(CLIPS, st.sampled_from(RULES), st.booleans(), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_every_clip_comes_once_with_its_own_sound_and_text(
    rows: list[tuple[str, tuple[str, str]]], keys: str, sorted_by_kind: bool, random: Any
) -> None:
    """Whatever the names: as many samples as clips, and none with the text of another."""
    pairs = [named(stem, number, kinds) for number, (stem, kinds) in enumerate(rows)]
    members = [one for pair in pairs for one in pair]
    if sorted_by_kind:
        random.shuffle(members)
    with tempfile.TemporaryDirectory() as folder:
        path = archive(Path(folder) / "s.tar", members)
        table, ledger = read_shard(path, None, keys)
        content = path.read_bytes()
    assert [tuple(drop.id for drop in ledger), len(table)] == [(), len(rows)]
    assert len(set(table.column("id").to_pylist())) == len(rows)
    for row in table.to_pylist():
        number = content[row["__offset__"] + row["__size__"] - 1]
        assert row["transcript"] == f"clip {number}"
        assert row["audio_path"] == f"s.tar/{pairs[number][0].name}"


@given(CLIPS, st.sampled_from(RULES), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_every_clip_has_an_id_of_its_own_in_any_number_of_shards(
    rows: list[tuple[str, tuple[str, str]]], keys: str, shards: int
) -> None:
    pairs = [named(stem, number, kinds) for number, (stem, kinds) in enumerate(rows)]
    with tempfile.TemporaryDirectory() as folder:
        for i in range(shards):
            archive(Path(folder) / f"{i}.tar", [one for pair in pairs[i::shards] for one in pair])
        index = read_index(Path(folder), keys=keys)
    assert len(index.table) == len(rows) and not len(index.refused)


@given(CLIPS)
@settings(max_examples=80, deadline=None)
def test_where_each_key_has_one_clip_it_is_the_key_of_webdataset(
    rows: list[tuple[str, tuple[str, str]]],
) -> None:
    members = [one for number, (stem, kinds) in enumerate(rows) for one in named(stem, number, kinds)]
    matches = [CONVENTION.match(one.name) for one in members]
    expected = [match[1] for match in matches if match is not None]
    with tempfile.TemporaryDirectory() as folder:
        table, _ = read_shard(archive(Path(folder) / "s.tar", members))
    counts = Counter(expected)
    single = [key for key in expected[::2] if counts[key] == 2]
    assert [id for id in table.column("id").to_pylist() if counts.get(id) == 2] == single


TALKS = st.lists(st.sampled_from(["", "sound", "text"]), min_size=1, max_size=20)


@given(TALKS, st.sampled_from(["ep1.5_{}", "clip_{}", "d.x/a.b.c_{}", "ep1.{}.seg"]), st.sampled_from(RULES))
@settings(max_examples=80, deadline=None)
def test_samples_and_refusals_are_together_the_clips_that_were_written(
    lacks: list[str], pattern: str, keys: str
) -> None:
    """Each clip may lack its sound or its text: it is one utterance of the ledger then."""
    members = []
    for number, lack in enumerate(lacks):
        pair = named(pattern.format(f"{number:03}"), number, ("wav", "json"))
        members += [one for one, kind in zip(pair, ("sound", "text"), strict=True) if kind != lack]
    with tempfile.TemporaryDirectory() as folder:
        table, ledger = read_shard(archive(Path(folder) / "s.tar", members), None, keys)
    assert len(table) == lacks.count("")
    assert ledger.counts() == Counter(
        "no_audio" if lack == "sound" else "empty_text" for lack in lacks if lack
    )


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("sound", "text"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_a_sound_and_its_text_may_write_accents_otherwise(
    tmp_path: Path, rule: str, sound: str, text: str
) -> None:
    members = []
    for name in ("một.1", "một.2", "b/é"):
        members += [
            member(unicodedata.normalize(sound, f"{name}.wav"), wav()),
            member(unicodedata.normalize(text, f"{name}.json"), sidecar(transcript=name)),
        ]
    table, ledger = read_shard(archive(tmp_path / "s.tar", members), keys=rule)
    assert not len(ledger)
    assert table.column("transcript").to_pylist() == ["một.1", "một.2", "b/é"]
    assert table.column("id").to_pylist() == ["một.1", "một.2", "b/é"]
