"""Archives into the folder: what may be written, what is never written, what is finished later."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from librispeech_files import CHAPTERS, archive_of, contents, packed
from shard_assets import Entry, member

from training.base.errors import UserError
from training.data.download.unpack import unpack

SPLIT = "dev-clean"
GOOD = "LibriSpeech/dev-clean/84/121123/84-121123.trans.txt"


def run(archive: Path, root: Path) -> int:
    return unpack(archive, root / "LibriSpeech", SPLIT, lambda count: None)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "dev-clean.tar.gz"
    path.write_bytes(archive_of(SPLIT, tmp_path / "source"))
    return path


def test_everything_lies_where_the_archive_says(archive: Path, tmp_path: Path) -> None:
    counts: list[int] = []
    written = unpack(archive, tmp_path / "out" / "LibriSpeech", SPLIT, counts.append)
    made = contents(tmp_path / "out")
    assert made == contents(tmp_path / "source")
    assert written == len(made) == sum(map(len, CHAPTERS.values())) + len(CHAPTERS) + 1
    assert sum(counts) == sum(map(len, made.values()))


def test_what_is_there_stays_and_the_rest_is_added(archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(archive, out)
    files = sorted(path for path in (out / "LibriSpeech" / SPLIT).rglob("*.flac"))
    kept, gone = files[0], files[1]
    before = kept.stat().st_mtime_ns
    gone.unlink()
    (gone.parent / f".{gone.name}.part").write_bytes(b"what a killed call left")
    (out / "LibriSpeech" / "SPEAKERS.TXT").write_text("those of another archive")
    assert run(archive, out) == 1
    assert contents(out) == {
        **contents(tmp_path / "source"),
        "LibriSpeech/SPEAKERS.TXT": b"those of another archive",
    }
    assert kept.stat().st_mtime_ns == before


def test_a_file_of_another_size_is_not_overwritten(archive: Path, tmp_path: Path) -> None:
    mine = tmp_path / "out" / GOOD
    mine.parent.mkdir(parents=True)
    mine.write_text("my own notes")
    with pytest.raises(
        UserError, match=r"84-121123.trans.txt: is there already with 12 bytes, the archive has"
    ):
        run(archive, tmp_path / "out")
    assert mine.read_text() == "my own notes"


HOSTILE: dict[str, Entry] = {
    "absolute": member("/LibriSpeech/dev-clean/x.flac", b"x"),
    "above": member("LibriSpeech/dev-clean/../../../x.flac", b"x"),
    "above at once": member("../LibriSpeech/dev-clean/x", b"x"),
    "windows": member("LibriSpeech\\..\\..\\x", b"x"),
    "drive": member("C:/LibriSpeech/dev-clean/x", b"x"),
    "beside": member("LibriVox/dev-clean/x.flac", b"x"),
    "alone": member("LibriSpeech", b"x"),
    "other split": member("LibriSpeech/test-clean/1/2/1-2-0000.flac", b"x"),
    "marker": member("LibriSpeech/.dev-clean.complete", b""),
    "hidden": member("LibriSpeech/dev-clean/.ssh/authorized_keys", b"x"),
    "symbolic link": member("LibriSpeech/dev-clean/84", kind=tarfile.SYMTYPE, link="/etc"),
    "inner link": member("LibriSpeech/dev-clean/85", kind=tarfile.SYMTYPE, link="84"),
    "hard link": member("LibriSpeech/dev-clean/x.flac", kind=tarfile.LNKTYPE, link="/etc/passwd"),
    "device": member("LibriSpeech/dev-clean/null", kind=tarfile.CHRTYPE),
    "pipe": member("LibriSpeech/dev-clean/pipe", kind=tarfile.FIFOTYPE),
    "no name": member("LibriSpeech//x", b"x"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_member_ends_it(what: str, tmp_path: Path) -> None:
    archive = tmp_path / "in" / "dev-clean.tar.gz"
    archive.parent.mkdir()
    archive.write_bytes(packed([member(GOOD, b"84-1 A\n"), HOSTILE[what], member(f"{GOOD}.later", b"x")]))
    out = tmp_path / "deep" / "er" / "out"
    with pytest.raises(
        UserError, match=r"dev-clean.tar.gz: is not unpacked further: its member .*take another mirror"
    ):
        run(archive, out)
    there = contents(tmp_path)
    assert set(there) == {"in/dev-clean.tar.gz", f"deep/er/out/{GOOD}"}
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


def test_a_link_that_lies_in_the_folder_is_not_followed(archive: Path, tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (out / "LibriSpeech" / SPLIT).mkdir(parents=True)
    (out / "LibriSpeech" / SPLIT / "174").symlink_to(elsewhere)
    with pytest.raises(UserError, match="outside"):
        run(archive, out)
    assert contents(elsewhere) == {}


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_an_archive_that_ends_too_early(archive: Path, tmp_path: Path, share: float) -> None:
    whole = archive.read_bytes()
    archive.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UserError, match=r"dev-clean.tar.gz: cannot be unpacked: "):
        run(archive, tmp_path / "out")
    there, source = contents(tmp_path / "out"), contents(tmp_path / "source")
    visible = {name for name in there if not name.endswith(".part")}
    assert all(there[name] == source[name] for name in visible)
    archive.write_bytes(whole)
    run(archive, tmp_path / "out")
    assert contents(tmp_path / "out") == source


def test_no_archive_at_all(tmp_path: Path) -> None:
    path = tmp_path / "dev-clean.tar.gz"
    path.write_bytes(b"<html>log in first</html>" * 100)
    with pytest.raises(UserError, match="cannot be unpacked"):
        run(path, tmp_path / "out")
