"""What a command shows at the end: a message where a person can mend it, a traceback where it is our defect."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from training import cli
from training.base.errors import UserError, exit_on_user_error


def leave(main: Callable[[], int | None]) -> int:
    with pytest.raises(SystemExit) as left:
        exit_on_user_error(main)
    assert isinstance(left.value.code, int)
    return left.value.code


def raising(error: BaseException) -> Callable[[], int]:
    def main(argv: object = None) -> int:
        raise error

    return main


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOSPC, errno.EROFS, errno.ENOTDIR, errno.EISDIR])
def test_a_file_that_cannot_be_written_is_one_message(
    number: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    error = OSError(number, os.strerror(number), "outputs/run")
    assert leave(raising(error)) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: outputs/run: ") and os.strerror(number) in shown
    monkeypatch.setattr(cli, "run", lambda name, arguments: raising(error)())
    assert cli.main(["train"]) == 2
    assert capsys.readouterr().err == shown


def test_a_folder_where_a_file_lies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert leave(lambda: (tmp_path / "file/logs").mkdir(parents=True)) == 2
    assert str(tmp_path / "file") in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        OSError("a message of our own"),
        OSError(errno.EBADF, "Bad file descriptor"),
        FileNotFoundError(errno.ENOENT, "No such file", "x"),
        ValueError("not the user's"),
    ],
)
def test_a_defect_keeps_its_traceback(error: Exception) -> None:
    with pytest.raises(type(error)):
        exit_on_user_error(raising(error))


def test_ctrl_c_leaves_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert leave(raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "stopped\n"


class Unreadable(torch.utils.data.Dataset):  # type: ignore[type-arg]
    def __len__(self) -> int:
        return 1

    def __getitem__(self, row: int) -> int:
        raise UserError("train.csv:7: clip.wav cannot be read\n  damaged header")


def test_an_error_from_a_worker_is_shown_as_if_it_were_ours(capsys: pytest.CaptureFixture[str]) -> None:
    assert leave(lambda: len(list(DataLoader(Unreadable(), num_workers=1)))) == 2
    assert capsys.readouterr().err == "error: train.csv:7: clip.wav cannot be read\n  damaged header\n"


def test_a_reader_that_has_had_enough_is_no_error() -> None:
    code = "from training.base.errors import exit_on_user_error\nexit_on_user_error(lambda: print('line\\n' * 200_000))"
    line = f'"{sys.executable}" -c "$CODE" | head -1; exit "${{PIPESTATUS[0]}}"'
    done = subprocess.run(
        ["bash", "-c", line], env={**os.environ, "CODE": code}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (141, "line\n", "")


def test_no_file_beside_a_script_is_imported_in_the_place_of_a_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python puts the folder of a script that is run by its path first: a `compare.py` there would shadow others."""
    package = Path(cli.__file__).parents[1]
    monkeypatch.setattr(sys, "path", [str(package / "scripts"), str(package.parent), str(tmp_path)])
    assert leave(lambda: 0) == 0
    assert sys.path == [str(package.parent), str(tmp_path)]
