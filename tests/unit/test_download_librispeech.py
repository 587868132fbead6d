"""``polyvox download librispeech`` against a server on this machine: loaded, resumed, refused, finished."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import file_server
import pytest
from file_server import FileServer
from librispeech_files import archive_of, contents, md5, tree

from training import cli
from training.base.errors import UserError
from training.data.download import archives
from training.data.download.librispeech import CHECKSUMS, download_librispeech, read_checksums
from training.data.sources.librispeech import load_librispeech

SPLIT, NAME = "dev-clean", "dev-clean.tar.gz"


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return archive_of(SPLIT, tmp_path_factory.mktemp("source"))


@pytest.fixture
def server(content: bytes) -> Iterator[FileServer]:
    with file_server.running() as found:
        found.files[NAME] = content
        yield found


def get(
    output: Path, content: bytes, *mirrors: str, splits: tuple[str, ...] = (SPLIT,), **more: Any
) -> list[str]:
    """Download with the checksum of ``content``; what was said."""
    said: list[str] = []
    download_librispeech(
        output,
        splits,
        mirrors=mirrors,
        checksums={SPLIT: md5(content)},
        report=said.append,
        pause=0,
        **more,
    )
    return said


def check(output: Path, *beside: str) -> None:
    """The split is whole, and nothing lies beside ``LibriSpeech`` but what is named."""
    assert len(load_librispeech(output, [SPLIT])) == 6
    assert {path.name for path in output.iterdir()} == {"LibriSpeech", *beside}
    markers = {path.name for path in (output / "LibriSpeech").glob(".*") if "index" not in path.name}
    assert markers == {".dev-clean.complete"}


def test_loaded_and_unpacked(server: FileServer, content: bytes, tmp_path: Path) -> None:
    said = get(tmp_path / "data", content, server.url)
    assert said == [
        f"dev-clean: {server.url}/{NAME}",
        f"dev-clean: checking {tmp_path / 'data' / NAME}.part (0.00 GB)",
        f"dev-clean: {tmp_path / 'data/LibriSpeech/dev-clean'} is complete; files unpacked: 10",
    ]
    check(tmp_path / "data")
    assert get(tmp_path / "data", content, server.url) == [
        f"dev-clean: {tmp_path / 'data/LibriSpeech/dev-clean'} is there already"
    ]
    assert len(server.asked) == 1


def test_the_archive_can_be_kept(server: FileServer, content: bytes, tmp_path: Path) -> None:
    get(tmp_path, content, server.url, keep_archives=True)
    assert (tmp_path / NAME).read_bytes() == content
    check(tmp_path, NAME)


def test_an_archive_that_is_there_is_used_and_stays(content: bytes, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(content)
    get(tmp_path, content, "http://127.0.0.1:9")
    check(tmp_path, NAME)


def test_a_damaged_archive_is_put_aside_and_loaded_anew(
    server: FileServer, content: bytes, tmp_path: Path
) -> None:
    (tmp_path / NAME).write_bytes(b"half of it")
    (tmp_path / f"{NAME}.damaged").write_bytes(b"an earlier one")
    said = get(tmp_path, content, server.url)
    assert f"kept as {tmp_path / NAME}.damaged2" in said[1]
    assert (tmp_path / f"{NAME}.damaged2").read_bytes() == b"half of it"
    assert (tmp_path / f"{NAME}.damaged").read_bytes() == b"an earlier one"
    check(tmp_path, f"{NAME}.damaged", f"{NAME}.damaged2")


def test_the_next_mirror_is_tried(server: FileServer, content: bytes, tmp_path: Path) -> None:
    server.files[f"broken/{NAME}"] = content[:-1] + b"?"
    mirrors = (f"{server.url}/empty", f"{server.url}/broken/", server.url)
    said = "\n".join(get(tmp_path, content, *mirrors))
    assert f"{server.url}/empty/{NAME}: status 404" in said
    assert f"{server.url}/broken/{NAME}: {NAME}.part is damaged (its MD5 is not {md5(content)})" in said
    check(tmp_path, f"{NAME}.part.damaged")


def test_what_one_mirror_began_another_goes_on_with(
    server: FileServer, content: bytes, tmp_path: Path
) -> None:
    server.cuts, server.statuses = [1000], []
    server.files[f"a/{NAME}"] = content
    real = server.answer
    server.answer = lambda path, wanted: (  # type: ignore[method-assign]
        (403, {}, b"") if path.startswith("/a/") and wanted else real(path, wanted)
    )
    said = get(tmp_path, content, f"{server.url}/a", server.url)
    assert server.asked == [(f"/a/{NAME}", None), (f"/a/{NAME}", "bytes=1000-"), (f"/{NAME}", "bytes=1000-")]
    assert any(line.endswith(f"{server.url}/{NAME}, from 0.00 GB on") for line in said)
    check(tmp_path)


def test_no_mirror_gives_it(server: FileServer, content: bytes, tmp_path: Path) -> None:
    server.files[NAME] = b"<html>log in first</html>"
    with pytest.raises(UserError) as caught:
        get(tmp_path, content, server.url, f"{server.url}/empty")
    told = str(caught.value)
    assert told.startswith(f"{NAME}: no mirror gives it; the same command goes on where it stopped")
    assert f"\n  {server.url}/{NAME}: {NAME}.part is damaged" in told
    assert f"\n  {server.url}/empty/{NAME}: status 404" in told
    assert not (tmp_path / "LibriSpeech").exists()


def test_half_unpacked_is_finished_without_the_network(
    server: FileServer, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.data.download import unpack

    calls = iter(range(100))

    def stopped(*given: Any) -> None:
        if next(calls) == 4:
            raise KeyboardInterrupt
        real(*given)

    real = unpack._write
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(unpack, "_write", stopped)
        get(tmp_path, content, server.url)
    assert len(contents(tmp_path / "LibriSpeech")) == 5
    with pytest.raises(UserError, match="is only half unpacked; get it with polyvox download librispeech"):
        load_librispeech(tmp_path, [SPLIT])
    assert get(tmp_path, content, "http://127.0.0.1:9")[-1].endswith("files unpacked: 6")
    check(tmp_path)


def test_a_split_that_was_unpacked_by_hand(content: bytes, tmp_path: Path) -> None:
    folder = tree(tmp_path)
    assert (
        "was not unpacked by this command: left as it is" in get(tmp_path, content, "http://127.0.0.1:9")[0]
    )
    next(folder.rglob("*.flac")).unlink()
    (tmp_path / NAME).write_bytes(content)
    assert get(tmp_path, content, "http://127.0.0.1:9")[-1].endswith("is complete; files unpacked: 1")
    check(tmp_path, NAME)


def test_a_folder_that_went_is_loaded_again(server: FileServer, content: bytes, tmp_path: Path) -> None:
    import shutil

    get(tmp_path, content, server.url)
    shutil.rmtree(tmp_path / "LibriSpeech" / SPLIT)
    get(tmp_path, content, server.url)
    check(tmp_path)


def test_room_is_looked_for_first(
    server: FileServer, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 2 * len(content) - 1

    monkeypatch.setattr(archives.shutil, "disk_usage", lambda folder: Usage)
    with pytest.raises(UserError, match=r"0.00 GB are needed for the archive and what is in it"):
        get(tmp_path, content, server.url)
    assert not (tmp_path / f"{NAME}.part").exists()
    Usage.free += 1
    get(tmp_path, content, server.url)
    check(tmp_path)


def test_an_archive_of_something_else(server: FileServer, tmp_path: Path) -> None:
    from librispeech_files import packed
    from shard_assets import member

    other = packed([member("LibriSpeech/README.TXT", b"empty")])
    server.files[NAME] = other
    with pytest.raises(UserError, match=r"holds no transcripts in LibriSpeech/dev-clean/"):
        get(tmp_path, other, server.url)


@pytest.mark.parametrize(
    ("splits", "mirror", "told"),
    [
        (
            ("dev_clean",),
            "http://127.0.0.1:9",
            "--splits dev_clean: no checksum is known for it; did you mean dev-clean?",
        ),
        (("zzz",), "http://127.0.0.1:9", "--splits zzz: .*there are dev-clean"),
        ((SPLIT,), "file:///etc", "--mirror file:///etc: give the address of a folder"),
        ((SPLIT,), "openslr.org", "--mirror openslr.org: give the address"),
    ],
)
def test_mistakes(splits: tuple[str, ...], mirror: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=told):
        get(tmp_path, b"", mirror, splits=splits)
    assert list(tmp_path.iterdir()) == []


def test_splits_without_their_folder_are_seen(content: bytes, tmp_path: Path) -> None:
    tree(tmp_path).rename(tmp_path / SPLIT)
    (tmp_path / "LibriSpeech" / "SPEAKERS.TXT").unlink()
    (tmp_path / "LibriSpeech").rmdir()
    with pytest.raises(UserError, match="holds dev-clean without the folder LibriSpeech around them"):
        get(tmp_path, content, "http://127.0.0.1:9")


def test_checksums_as_md5sum_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "md5sum.txt"
    published = "".join(f"{value}  {name}.tar.gz\n" for name, value in CHECKSUMS.items())
    path.write_text(f"{published}\n{'A' * 32} *mini.tar.gz\n{'b' * 32}  README.TXT\n")
    assert read_checksums(path) == {**CHECKSUMS, "mini": "a" * 32}
    path.write_text("dev-clean 42e2\n")
    with pytest.raises(UserError, match=r"md5sum.txt:1: expected <md5>  <name>.tar.gz"):
        read_checksums(path)
    with pytest.raises(UserError, match="no such file"):
        read_checksums(tmp_path / "nowhere.txt")


def test_a_checksum_file_cannot_name_another_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a split is a plain name"):
        download_librispeech(tmp_path, ["../x"], mirrors=["http://127.0.0.1:9"], checksums={"../x": "0" * 32})


def command(server: FileServer, folder: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "training.cli", "download", "librispeech", "--output", str(folder / "data")),
        *("--splits", SPLIT, "--mirror", server.url, "--checksums", str(folder / "md5sum.txt")),
    ]


def environment() -> dict[str, str]:
    return {**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


def test_the_literal_command(server: FileServer, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "md5sum.txt").write_text(f"{md5(content)}  {NAME}\n")
    for asked in (1, 1):
        done = subprocess.run(
            command(server, tmp_path), env=environment(), capture_output=True, text=True, timeout=120
        )
        assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'data/LibriSpeech/dev-clean'}\n"), (
            done.stderr
        )
        assert len(server.asked) == asked
    check(tmp_path / "data")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_command_that_is_stopped_goes_on(
    how: signal.Signals, server: FileServer, content: bytes, tmp_path: Path
) -> None:
    (tmp_path / "md5sum.txt").write_text(f"{md5(content)}  {NAME}\n")
    server.held = True
    with subprocess.Popen(
        command(server, tmp_path),
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts what it puts into the background deaf to SIGINT, and a child inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert server.waiting.wait(60)
        part = tmp_path / "data" / f"{NAME}.part"
        process.send_signal(how)
        _, shown = process.communicate(timeout=60)
    assert process.returncode == (130 if how == signal.SIGINT else -9)
    assert "Traceback" not in shown
    assert content.startswith(part.read_bytes() if part.exists() else b"")
    server.held = False
    server.go.set()
    assert cli.main(command(server, tmp_path)[3:]) == 0
    check(tmp_path / "data")


def test_mistakes_of_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = ["--output", str(tmp_path)]
    assert cli.main(["download", "librispeech", *output, "--splits", "train-clean-10"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: --splits train-clean-10: ") and "did you mean train-clean-100?" in shown
    with pytest.raises(SystemExit, match="2"):
        cli.main(["download", "librispeech", *output])
