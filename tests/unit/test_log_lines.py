"""What a person sees: lines on the right stream, bars where somebody looks."""

from __future__ import annotations

import io
import logging
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from training.base.errors import LOGGER, LogFile, handled, shown
from training.base.progress import ProgressLines, in_notebook, progress_bar, watched

MODULE = logging.getLogger("training.engine.fit")


def test_lines_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    with shown():
        MODULE.info("100 % of it")
        MODULE.warning("warning: look")
        MODULE.debug("never")
    MODULE.info("nobody listens any more")
    assert capsys.readouterr() == ("100 % of it\nwarning: look\n", "")
    assert LOGGER.handlers == [] and LOGGER.level == logging.NOTSET


def test_warnings_may_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with shown(warnings_apart=True):
        MODULE.info("a line")
        MODULE.warning("a warning")
    assert capsys.readouterr() == ("a line\n", "a warning\n")


def test_of_several_ranks_the_first_speaks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    with shown():
        MODULE.warning("the same from every rank")
    assert capsys.readouterr() == ("", "")


def test_a_reader_that_is_gone_ends_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with shown(), pytest.raises(BrokenPipeError):
        monkeypatch.setattr(sys, "stdout", Closed())
        MODULE.info("a line")


def test_a_file_gets_the_lines(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "run.log"
    for line in ("one", "two"):
        with handled(LogFile(path)):
            MODULE.info(line)
    assert path.read_text(encoding="utf8") == "one\ntwo\n"


def test_a_file_that_is_held_back_is_not_there_before_it_may_be(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "run" / "run.log", held=True)
    with handled(log):
        MODULE.info("one")
        assert not log.path.parent.exists()
        log.write_waiting()
        MODULE.info("two")
    assert log.path.read_text(encoding="utf8") == "one\ntwo\n"


def test_a_bar_shows_nothing_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    assert not watched()
    with progress_bar(total=3, unit="s") as bar:
        bar.update(3)
    assert capsys.readouterr() == ("", "")


def test_a_long_work_says_how_far_it_is_where_nobody_watches(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    lines = ProgressLines(400, "clip", "checked", first=5.0, clock=lambda: now[0])
    for second in range(1, 101):
        now[0] = float(second)
        lines.update(4)
    assert capsys.readouterr() == (
        "",
        "checked: 20 of 400 clips, 5%, about 2 min left\n"
        "checked: 140 of 400 clips, 35%, about 1 min left\n"
        "checked: 260 of 400 clips, 65%, about 35 s left\n"
        "checked: 380 of 400 clips, 95%, about 5 s left\n",
    )
    monkeypatch.setenv("RANK", "1")
    now[0] = 200.0
    lines.update(4)
    assert capsys.readouterr() == ("", "")


def test_what_another_rank_does_is_not_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for terminal in (False, True):
        monkeypatch.setattr(sys.stderr, "isatty", lambda told=terminal: told, raising=False)
        with progress_bar(total=3, unit="s", first=0.0, shown=False) as bar:
            bar.update(1)
        assert capsys.readouterr() == ("", "")


def test_a_work_of_hours_says_it_less_often_and_one_without_an_end_what_is_done() -> None:
    now = [0.0]
    lines = ProgressLines(None, "B", clock=lambda: now[0])
    now[0] = 36_000.0
    lines.update(5 * 2**20)
    assert lines.next == 36_000 + 1800
    assert lines.line(90.0) == "5 MiB after 2 min"
    lines.reset(100 * 2**20)
    lines.update(90 * 2**20)
    lines.initial = lines.n
    now[0] += 10.0
    lines.update(5 * 2**20)
    assert lines.line(10.0) == "95 of 100 MiB, 95%, about 10 s left", "the speed is that of the last 5 MiB"
    with lines as bar:
        bar.set_postfix_str("loss 1")
        with bar.external_write_mode():
            pass


@pytest.mark.parametrize(("settings", "notebook"), [({"IPKernelApp": {}}, True), ({}, False), (None, False)])
def test_a_notebook_is_known_by_its_kernel(
    settings: dict[str, object] | None, notebook: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """IPython in a terminal, and IPython that was imported by something else, are none."""
    shell = None if settings is None else SimpleNamespace(config=settings)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))  # type: ignore[arg-type]
    assert in_notebook() is notebook
    assert watched() is notebook


def test_a_notebook_has_a_bar_without_ipywidgets_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    shell = SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))  # type: ignore[arg-type]
    monkeypatch.delitem(sys.modules, "tqdm.auto", raising=False)
    monkeypatch.delitem(sys.modules, "tqdm.autonotebook", raising=False)
    with progress_bar(total=3, unit="s", desc="audio") as bar:
        bar.update(3)
    assert "audio: 100%" in capsys.readouterr().err
    assert list(recwarn) == []
