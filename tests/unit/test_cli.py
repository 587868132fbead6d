"""The `polyvox` table: every command is there, nothing heavy is imported to list them, mistakes are explained."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from training import cli


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in cli.COMMANDS)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_usage_of_a_command_names_it_as_it_was_called(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main([name, "--help"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: polyvox {name} ")


def test_help_imports_nothing_heavy_and_is_quick() -> None:
    code = (
        "import sys; from training.cli import main; main(['--help']); "
        "print([m for m in ('torch', 'transformers', 'numpy', 'librosa', 'matplotlib') if m in sys.modules])"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert time.monotonic() - began < 5  # 0.1 s on an idle machine


def test_no_command_is_a_mistake_and_shows_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert "demo-data" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("typed", "hint"), [("trian", "did you mean train?"), ("zzz", "there are doctor, init, demo-data")]
)
def test_unknown_command(typed: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([typed]) == 2
    assert hint in capsys.readouterr().err


def test_a_users_mistake_is_one_message_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["split", "--manifest", "nowhere.tsv"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and "nowhere.tsv" in captured.err
    assert "Traceback" not in captured.err


def test_status_of_the_command_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        sys.modules, "fake_command", type("M", (), {"main": staticmethod(lambda argv: len(argv))})
    )
    monkeypatch.setitem(cli.COMMANDS, "fake", ("fake_command", ""))
    assert cli.main(["fake", "a", "b", "c"]) == 3
    assert cli.main(["fake"]) == 0


def test_ctrl_c_leaves_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(argv: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "fake_command", type("M", (), {"main": staticmethod(interrupted)}))
    monkeypatch.setitem(cli.COMMANDS, "fake", ("fake_command", ""))
    assert cli.main(["fake"]) == 130
    assert capsys.readouterr().err == "stopped\n"


def test_curves_for_a_tool_that_is_not_installed_are_refused_before_anything_is_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import integrations

    monkeypatch.setattr(integrations, "get_available_reporting_integrations", lambda: ["tensorboard"])
    there = f"data.train={__file__}"  # is looked for, not read
    command = [
        "train",
        "--config",
        "configs/demo_whisper.yaml",
        "training.report_to=[tensorboard,wandb]",
        there,
    ]
    for dry in ([], ["--dry_run"]):
        assert cli.main([*command, *dry]) == 2
        shown = capsys.readouterr().err
        assert "training.report_to: wandb is not installed" in shown and "pip install" in shown
