"""System files in folders and archives are never data and never a reason to refuse; one line counts them."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from librispeech_files import CHAPTERS, packed, tree
from shard_assets import Entry, archive, member, sample, wav
from speech_files import manifest, sound

from training.base.errors import UserError
from training.base.system_files import is_empty, is_system_file, listed, summary_of
from training.cli import shards as command
from training.cli.transcribe import find_clips
from training.data.augment import _sounds
from training.data.download.unpack import unpack
from training.data.manifest import load_manifest
from training.data.sources.audio_folder import is_audio_folder, load_audio_folder
from training.data.sources.dataset import load_source
from training.data.sources.librispeech import load_librispeech
from training.data.sources.shards.index import INDEX, read_index
from training.data.sources.shards.keys import RULES
from training.data.sources.shards.samples import read_shard
from training.data.sources.shards.source import load_shards
from training.data.sources.shards.write import write_shards
from training.engine.averaging import mean_weights
from training.engine.folder import check_folder

APPLE_DOUBLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        "
SYSTEM_FILES = [
    "._a.wav",
    "sub/._b.flac",
    "__MACOSX/._a.wav",
    "__MACOSX/a.wav",
    ".DS_Store",
    "sub/.DS_Store",
    ".AppleDouble/a.wav",
    ".Trashes/501/a.wav",
    "Thumbs.db",
    "thumbs.db",
    "desktop.ini",
    "Desktop.ini",
    "@eaDir/a.wav",
    "@eaDir/a.wav/SYNOAUDIO.mp3",
    "#recycle/a.wav",
    "$RECYCLE.BIN/a.wav",
    "PaxHeader/a.wav",
    "PaxHeaders.12345/a.wav",
    "PaxHeaders.X/a.wav",
    "a.wav:Zone.Identifier",
]


@pytest.mark.parametrize("name", [*SYSTEM_FILES, "sub\\._a.wav", "./._a.wav"])
def test_a_system_file_is_known_by_its_name(name: str) -> None:
    assert is_system_file(name)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "a.wav",
            "_a.wav",
            "a._b.wav",
            "x/.hidden.wav",
            "Thumbs.db.wav",
            "paxheader.wav",
            "desktop.ini.txt",
        ),
        *("my__MACOSX/a.wav", "MACOSX/a.wav", "eaDir/a.wav", "..wav", "._"),
    ],
)
def test_other_names_are_not(name: str) -> None:
    assert not is_system_file(name)


def test_where_a_folder_lies_says_nothing_of_what_is_in_it(tmp_path: Path) -> None:
    inside = sound(tmp_path / "@eaDir" / "a.wav", 0.2)
    assert not is_system_file(inside)
    assert list(listed(inside.parent, "**/*")) == [inside]


def scatter(folder: Path, names: list[str] = SYSTEM_FILES) -> int:
    """Write system files into a folder, as far as the file system takes the names; their number."""
    before = sum(path.is_file() for path in folder.rglob("*"))
    for name in names:
        path = folder / name
        if path.exists() or any(parent.is_file() for parent in path.parents):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(APPLE_DOUBLE)
    return sum(path.is_file() for path in folder.rglob("*")) - before


def test_a_folder_of_nothing_else_is_empty(tmp_path: Path) -> None:
    assert is_empty(tmp_path)
    scatter(tmp_path, [name for name in SYSTEM_FILES if not name.startswith("sub/")])
    assert is_empty(tmp_path)
    (tmp_path / "a.txt").touch()
    assert not is_empty(tmp_path)


def test_one_line_tells_how_many() -> None:
    assert summary_of([]) is None
    assert summary_of(["b", "a"]) == "2 files are passed over: an operating system has left them (such as a)"
    assert (summary_of(["b"]) or "").startswith("1 file is passed over")


@pytest.mark.parametrize("keys", RULES)
def test_members_of_a_shard(tmp_path: Path, keys: str) -> None:
    """Between the members of a sample, in front of them, in any folder; with the names of sounds and texts."""
    rows: list[Entry] = []
    for key in ("a", "b.1", "b.2"):
        pair = sample(key)
        rows += [one for part in pair for one in (member(f"./._{part.name}", APPLE_DOUBLE), part)]
    rows += [member(name, APPLE_DOUBLE) for name in SYSTEM_FILES]
    rows += [member("._link.wav", kind=tarfile.SYMTYPE, link="x"), member("../._up.wav", APPLE_DOUBLE)]
    table, ledger = read_shard(archive(tmp_path / "s.tar", rows), None, keys)
    assert table.column("id").to_pylist() == ["a", "b.1", "b.2"]
    assert ledger.drops == [] and len(ledger.system_files) == 6 + len(SYSTEM_FILES) + 2


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_an_archive_that_breaks_off_in_a_system_file_is_still_damaged(tmp_path: Path, form: int) -> None:
    path = archive(tmp_path / "s.tar", [*sample("a"), member("._b.wav", APPLE_DOUBLE * 90)], form)
    content = path.read_bytes()
    path.write_bytes(content[: content.index(APPLE_DOUBLE) + 600])
    _, ledger = read_shard(path)
    assert [(drop.id, drop.reason, drop.utterances) for drop in ledger] == [("s.tar", "truncated", 1)]


def test_beside_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "train"
    archive(folder / "s.tar", [*sample("a", domain="x"), member("._a.wav", APPLE_DOUBLE)])
    count = scatter(folder, ["._s.tar", ".DS_Store", "__MACOSX/._s.tar"])
    line = "3 files are passed over"
    assert count == 3
    source = load_shards(folder)
    assert source.ids == ["a"] and not source.refused.drops
    assert any(line in note for note in source.notes)
    assert any(line in note for note in read_index(folder).notes) and (folder / INDEX).is_file()
    assert command.main(["stats", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "train: 1 samples, 0.000 h, 1 shards, none refused" in shown and line in shown


def test_a_folder_of_shards_can_still_be_replaced(tmp_path: Path) -> None:
    rows = [
        {"audio_path": sound(tmp_path / "a.wav", 0.2).name, "duration": 0.2, "transcript": "x", "domain": "x"}
    ]
    source = load_manifest(manifest(tmp_path / "all.tsv", rows))
    write_shards(source, tmp_path / "out")
    scatter(tmp_path / "out", [".DS_Store", "._shard_000000.tar", "Thumbs.db"])
    with pytest.raises(UserError, match="--overwrite"):
        write_shards(source, tmp_path / "out")
    write_shards(source, tmp_path / "out", overwrite=True)
    assert not (tmp_path / "out" / ".DS_Store").exists()
    scatter(tmp_path / "new", [".DS_Store"])
    write_shards(source, tmp_path / "new")


def test_a_folder_of_sounds(tmp_path: Path) -> None:
    sound(tmp_path / "b.wav", 0.2)
    sound(tmp_path / "in" / "c.ogg", 0.3)
    count = scatter(tmp_path)
    for source in (load_source(str(tmp_path)), load_audio_folder(tmp_path, "train")):
        assert source.ids == ["b.wav", "in/c.ogg"]
    (note,) = load_audio_folder(tmp_path, "train").notes
    assert f"{count} files are passed over" in note


def test_a_folder_of_system_files_is_no_folder_of_sounds(tmp_path: Path) -> None:
    scatter(tmp_path, [*SYSTEM_FILES, "._metadata.csv", "__MACOSX/metadata.csv"])
    assert not is_audio_folder(tmp_path)


def test_noises_and_clips_to_transcribe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = sound(tmp_path / "a.wav", 0.2)
    count = scatter(tmp_path)
    assert _sounds("augmentation.noise", tmp_path) == (str(clip),)
    assert find_clips([tmp_path]) == [clip]
    assert f"{count} files are passed over" in capsys.readouterr().err


def test_a_split_of_librispeech(tmp_path: Path) -> None:
    folder = tree(tmp_path)
    expected = load_librispeech(tmp_path, ["dev-clean"])
    assert expected.notes == ()
    chapter = folder / "84" / "121123"
    scatter(
        chapter,
        ["._84-121123-0000.flac", "._84-121123.trans.txt", ".DS_Store", "PaxHeader/84-121123-0000.flac"],
    )
    scatter(folder.parent, ["._dev-clean", ".DS_Store", "@eaDir/x"])
    source = load_librispeech(tmp_path, ["dev-clean"])
    assert source.ids == expected.ids and not source.refused.drops
    assert len(source.notes) == 1 and "3 files are passed over" in source.notes[0]


def test_an_archive_that_is_unpacked(tmp_path: Path) -> None:
    folder = tree(tmp_path / "source")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(tmp_path / "source").as_posix() for path in files]
    rows = [member(name, path.read_bytes()) for name, path in zip(names, files, strict=True)]
    first = names[0].rpartition("/")
    skipped = [
        *(f"{first[0]}/._{first[2]}", "._LibriSpeech", "LibriSpeech/.DS_Store", "__MACOSX/LibriSpeech/._x"),
        *("LibriSpeech/dev-clean/PaxHeaders.7/x.flac", "../._x", "/etc/._x"),
    ]
    path = tmp_path / "dev-clean.tar.gz"
    path.write_bytes(packed([*(member(name, APPLE_DOUBLE) for name in skipped), *rows]))
    found: list[str] = []
    written = unpack(path, tmp_path / "out" / "LibriSpeech", "dev-clean", lambda count: None, found)
    assert written == len(rows) == sum(map(len, CHAPTERS.values())) + len(CHAPTERS)
    assert found == skipped
    there = {one.relative_to(tmp_path / "out").as_posix() for one in (tmp_path / "out").rglob("*.*")}
    assert there == set(names)


def test_a_run_starts_in_a_folder_that_a_file_manager_has_looked_at(tmp_path: Path) -> None:
    scatter(tmp_path, [".DS_Store"])
    check_folder(tmp_path, resume=None, fresh=False)
    (tmp_path / "a.txt").touch()
    with pytest.raises(UserError, match="already holds files"):
        check_folder(tmp_path, resume=None, fresh=False)


def test_weights_are_read_beside_system_files(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"w": torch.ones(2)}, tmp_path / "model.safetensors")
    (tmp_path / "._model.safetensors").write_bytes(APPLE_DOUBLE)
    assert mean_weights([tmp_path])["w"].tolist() == [1.0, 1.0]


def test_a_sound_named_like_a_hidden_file_is_counted(tmp_path: Path) -> None:
    """``.a.wav`` is no file of an operating system: WebDataset has no key for it, so it is one lost utterance."""
    _, ledger = read_shard(archive(tmp_path / "s.tar", [*sample("b"), member(".a.wav", wav())]))
    assert ledger.counts() == {"bad_name": 1}
