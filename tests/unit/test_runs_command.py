"""`polyvox runs`, `polyvox init`, `polyvox completion`, and tables on terminals and elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from diagnosis_runs import good

from training import cli
from training.base import terminal
from training.cli import completion
from training.config.load import load_config
from training.evaluation.run_overview import overview

ROOT = Path(__file__).parents[2]


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """Two runs with a score file, a third without, and a folder that is no run."""
    good()["perfect"].write(tmp_path, "b_best")
    good()["middling"].write(tmp_path, "a_middling")
    alone = good()["good"].write(tmp_path, "c_alone")
    for file in (tmp_path / "results").glob("c_alone_*"):
        file.unlink()
    (alone / "train_results.json").write_text(
        json.dumps({"steps": 200, "train_seconds": 90.0, "parameters": 100, "trainable_parameters": 60}),
        "utf8",
    )
    (tmp_path / "notes").mkdir()
    return tmp_path


def table(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line.split("  ")[0].strip() for line in capsys.readouterr().out.split("\n\n")[0].splitlines()[1:]]


def test_the_table_has_scores_with_intervals_steps_and_time(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["runs", str(outputs), "--sort", "name"]) == 0
    head, *lines = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert head.split() == ["run", "model", "state", "steps", "minutes", "scored", "on", "WER", "CER"]
    assert [line.split()[0] for line in lines] == ["a_middling", "b_best", "c_alone"]
    assert "unfinished, step 200" in lines[0] and "test" in lines[0] and " [" in lines[0]
    assert "0.0 [0.0, 0.0]" in lines[1]
    assert "finished" in lines[2] and "1.5" in lines[2] and "dev" in lines[2] and "[" not in lines[2]


def test_it_is_sorted_by_any_score_the_best_first(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option, names in {
        "wer": ["b_best", "c_alone", "a_middling"],
        "time": ["c_alone", "a_middling", "b_best"],
    }.items():
        assert cli.main(["runs", str(outputs), "--sort", option]) == 0
        assert table(capsys) == names
    assert cli.main(["runs", str(outputs), "--sort", "wer", "--reverse"]) == 0
    assert table(capsys)[0] == "a_middling"


def test_json_has_every_figure(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["runs", str(outputs), "--sort", "name", "--json"]) == 0
    first, second, third = json.loads(capsys.readouterr().out)
    assert second["scores"]["wer"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert (first["scored_on"], third["scored_on"], third["trainable_parameters"]) == ("test", "dev", 60)


def test_one_run_and_a_results_folder_of_its_own(outputs: Path) -> None:
    (line,) = overview(outputs / "b_best")
    assert line.scored_on == "test"
    assert [one.scored_on for one in overview(outputs, outputs / "elsewhere")] == ["dev"] * 3


def test_where_there_is_nothing_it_says_what_makes_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["runs", str(tmp_path)]) == 2
    assert "no runs in it; polyvox train" in capsys.readouterr().err
    (tmp_path / "outputs").mkdir()
    assert cli.main(["runs", str(tmp_path / "outptus")]) == 2
    assert f"did you mean {tmp_path / 'outputs'}?" in capsys.readouterr().err


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, None])
def test_tables_are_plain_where_nobody_wants_colour(
    variables: dict[str, str] | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: variables is not None, raising=False)
    for name, value in (variables or {}).items():
        monkeypatch.setenv(name, value)
    terminal.show_table(["name", "n"], [["a", "10"], ["long", "2"]], right=(1,))
    assert capsys.readouterr().out == "name   n\na     10\nlong   2\n"
    assert terminal.coloured("x", "green") == "x"
    assert terminal.marked("warning: x") == "warning: x"


def test_tables_on_a_terminal_are_drawn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal.show_table(["name"], [["[a]"]])
    shown = capsys.readouterr().out
    assert "│" in shown and "[a]" in shown  # what looks like markup is text
    assert terminal.coloured("x", "green") == "\x1b[32mx\x1b[0m"
    assert terminal.marked("warning: x: y") == "\x1b[33mwarning:\x1b[0m x: y"
    assert terminal.marked("WER: 3") == "WER: 3"
    monkeypatch.setitem(sys.modules, "rich.console", None)
    terminal.show_table(["name"], [["a"]])
    assert capsys.readouterr().out == "name\na\n"


def test_scores_are_a_table_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from eval_assets import corpus

    from training.evaluation.evaluate import evaluate

    scored = evaluate(*corpus(12), meta={"model_dir": "a"}, resamples=50, with_targets=True)
    assert scored.summary().startswith("WER   ")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "│" not in scored.summary(), "the log file's text stays plain"
    drawn = scored.summary(drawn=True)
    assert "95 % interval" in drawn and "│ WER " in drawn and "< 15: " in drawn
    assert len(scored.summary().splitlines()) + 4 == len(drawn.splitlines())  # frame and head
    monkeypatch.setenv("NO_COLOR", "1")
    assert "│" not in scored.summary(drawn=True)


def test_the_dry_run_and_diagnoses_are_coloured_on_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from training.diagnosis.told import drawn
    from training.planning.screen import Rows

    told = ["diagnosis of a on test:", "  loops", "    seen  3 %", "    $ polyvox runs"]

    def show() -> str:
        rows = Rows(print)
        rows.title("memory")
        rows.row("warning", "look")
        rows.row("verdict", "fits", "green")
        print("\n".join(drawn(told)))
        return capsys.readouterr().out

    plain = "\n".join(["", "memory", "  warning        look", "  verdict        fits", *told, ""])
    assert show() == plain
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    shown = show()
    assert "\x1b[1mmemory\x1b[0m" in shown and "\x1b[33mwarning       \x1b[0m look" in shown
    assert "\x1b[32mfits\x1b[0m" in shown and "\x1b[33m  loops\x1b[0m" in shown
    kept: list[str] = []
    Rows(kept.append).title("memory")
    assert kept == ["\nmemory"], "whoever takes the lines gets them plain"
    monkeypatch.setenv("NO_COLOR", "1")
    assert show() == plain


@pytest.mark.parametrize("kind", ["whisper", "ctc"])
def test_a_new_project_resolves_and_its_table_reads(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        cli.main(["init", "speech", "--kind", kind, "--language", "ko" if kind == "whisper" else "en"]) == 0
    )
    assert "polyvox train --config config.yaml --dry_run" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path / "speech")
    config = load_config("config.yaml")
    assert config.output.experiment_name == "speech" and config.profile.name in ("cpu", "cuda-8gb", "h100")
    assert config.data.manifest == Path("data/manifest.csv")
    assert len(config.data.source.open("train")) == 4 and len(config.data.source.open("test")) == 1
    model: Any = config.model
    assert model.language == "ko" if kind == "whisper" else model.languages == ("en",)
    assert "polyvox evaluate --model outputs/speech" in Path("README.md").read_text("utf8")


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "README.md").write_text("mine", "utf8")
    assert cli.main(["init", str(tmp_path)]) == 2
    assert "README.md is there already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_a_new_project_can_be_looked_at_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["init", "p", "--kind", "ctc", "--hardware", "cpu"]) == 0
    monkeypatch.chdir(tmp_path / "p")
    assert (
        cli.main(["train", "--config", "config.yaml", "--dry_run", "model.d_model=32", "model.d_ff=64"]) == 0
    )
    assert "result         valid" in capsys.readouterr().out


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_a_script_for_the_shell_knows_every_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab")
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in cli.COMMANDS) and "dry_run" in script


def test_bash_completes_commands_options_and_choices(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("shtab")
    import shutil

    if shutil.which("bash") is None:
        pytest.skip("no bash")
    cli.main(["completion", "bash"])
    (tmp_path / "c.bash").write_text(capsys.readouterr().out, "utf8")
    for words, found in {
        "tra": "train transcribe",
        "train --hardw": "--hardware",
        "train --hardware a1": "a100",
    }.items():
        typed = ["polyvox", *words.split()]
        code = f"source {tmp_path}/c.bash; COMP_WORDS=({' '.join(typed)}); COMP_CWORD={len(typed) - 1}; _shtab_polyvox; echo ${{COMPREPLY[@]}}"
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.split() == found.split()
