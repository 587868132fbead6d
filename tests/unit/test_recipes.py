"""Recipes: YAML files of steps. Small shell commands, real processes, real records."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from training import cli
from training.recipes import recipe
from training.recipes.placeholders import Scope
from training.recipes.recipe import load

ROOT = Path(__file__).parents[2]
RECIPE = """\
variables:
  results: "{folder}/results"
  folder: out put
steps:
  - title: Copy
    command: python work.py copy words.txt "{folder}/copied.txt"
    inputs: [words.txt]
    outputs: ["{folder}/copied.txt"]
  - title: Count
    tasks:
      - key: count
        command: [python work.py copy, "{folder}/copied.txt", "{results}/count.txt"]
        inputs: ["{folder}/copied.txt"]
        outputs: ["{results}/count.txt"]
places:
  count: "{results}/count.txt"
"""
WORK = """\
import pathlib, shutil, sys, time
print("WORK", *sys.argv[1:], flush=True)
with open("calls.txt", "a") as file:
    file.write(" ".join(sys.argv[2:]) + "\\n")
if pathlib.Path("fail").exists():
    sys.exit(7)
if pathlib.Path("hang").exists():
    pathlib.Path("started").touch()
    time.sleep(60)
target = pathlib.Path(sys.argv[3])
target.parent.mkdir(parents=True, exist_ok=True)
shutil.copy(sys.argv[2], target)
"""
pytestmark = pytest.mark.usefixtures("folder")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("work.py").write_text(WORK, encoding="utf8")
    Path("words.txt").write_text("one two\n", encoding="utf8")
    Path("my.yaml").write_text(RECIPE, encoding="utf8")
    return tmp_path


def walk(*options: str, status: int = 0) -> int:
    """One call; how many commands it ran."""
    before = calls()
    assert cli.main(["pipeline", "--recipe", "my.yaml", *options]) == status
    return calls() - before


def calls() -> int:
    path = Path("calls.txt")
    return len(path.read_text().splitlines()) if path.exists() else 0


def mistakes(text: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What is said of a recipe that is refused, before anything is done."""
    Path("my.yaml").write_text(text, encoding="utf8")
    assert walk(status=2) == 0
    return capsys.readouterr().err


def test_the_steps_are_done_once_with_titles_and_places(capsys: pytest.CaptureFixture[str]) -> None:
    assert walk() == 2
    said = capsys.readouterr().out
    assert "[1/2] Copy\n" in said and "[2/2] Count: 0:0" in said
    assert "Done in 0:0" in said and "  count    out put/results/count.txt" in said
    assert Path("out put/results/count.txt").read_text() == "one two\n"
    assert walk() == 0
    assert "[1/2] Copy: nothing to do (0:00 when it was done)" in capsys.readouterr().out
    assert Path("outputs/.recipe_my.json").is_file()


@pytest.mark.parametrize(("path", "again"), [("words.txt", 2), ("out put/copied.txt", 1), ("calls.txt", 0)])
def test_what_reads_a_changed_file_is_done_again(path: str, again: int) -> None:
    walk()
    Path(path).write_text("other\n", encoding="utf8")
    assert walk() == again


def test_a_changed_file_in_a_folder_is_a_changed_input() -> None:
    Path("many").mkdir()
    Path("my.yaml").write_text(RECIPE.replace("inputs: [words.txt]", "inputs: [words.txt, many]"))
    assert walk() == 2
    assert walk() == 0
    Path("many/new.txt").write_text("new")
    assert walk() == 1  # the copy is equal to the one before: nothing after it is done again


def test_an_output_that_is_gone_is_made_again() -> None:
    walk()
    Path("out put/results/count.txt").unlink()
    assert walk() == 1


def test_another_command_is_done_again() -> None:
    walk()
    Path("my.yaml").write_text(RECIPE.replace('results: "{folder}/results"', 'results: "{folder}/other"'))
    assert walk() == 1
    assert Path("out put/other/count.txt").is_file()


def test_fresh_does_everything_again() -> None:
    walk()
    assert walk("--fresh") == 2
    assert walk() == 0


@pytest.mark.skipif(os.name != "posix", reason="there is no sh")
def test_a_shell_of_a_step_finds_the_python_of_this_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.defpath)
    Path("my.yaml").write_text(
        "steps:\n  - title: Shell\n    command: sh -c 'command -v python > found.txt'\n    outputs: [found.txt]\n"
    )
    walk()
    assert Path(Path("found.txt").read_text().strip()).parent == Path(sys.executable).parent


def test_a_failed_step_gives_its_status_and_is_gone_on_with(capsys: pytest.CaptureFixture[str]) -> None:
    Path("fail").touch()
    assert walk(status=7) == 1
    assert "[1/2] Copy failed with status 7" in capsys.readouterr().out
    Path("fail").unlink()
    assert walk() == 2


@pytest.mark.skipif(os.name != "posix", reason="signals of a POSIX system")
def test_ctrl_c_stops_and_the_next_call_goes_on() -> None:
    Path("hang").touch()
    call = [sys.executable, "-m", "training.cli", "pipeline", "--recipe", "my.yaml"]
    process = subprocess.Popen(call, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE)
    end = time.monotonic() + 20
    while not Path("started").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=20)[0].decode()
    assert process.returncode == 130 and "stopped in 'Copy'; the same command goes on from there" in said
    Path("hang").unlink()
    assert walk() == 2


def test_words_that_a_second_attempt_needs() -> None:
    command = "python -c \"import sys; open('told.txt', 'w').write(' '.join(sys.argv[1:]))\" first"
    step = (
        f"steps:\n  - title: One\n    command: {command}\n    inputs: [words.txt]\n    outputs: [told.txt]\n"
    )
    Path("my.yaml").write_text(f"{step}    again: --force\n", encoding="utf8")
    walk()
    assert Path("told.txt").read_text() == "first"
    Path("words.txt").write_text("changed")
    walk()
    assert Path("told.txt").read_text() == "first --force"


def test_a_task_for_each_item_and_those_that_are_left_out() -> None:
    text = """\
variables: {names: [a, b], nobody: null, folder: made}
steps:
  - title: Each
    each: "{names}"
    tasks:
      - {key: "copy {item}", command: "python work.py copy words.txt {folder}/{item}", outputs: ["{folder}/{item}"]}
      - {key: "not {item}", when: "{nobody}", command: "python work.py copy words.txt {folder}/not_{item}"}
      - {key: "also {item}", unless: "{nobody}", command: "python work.py copy words.txt {folder}/also_{item}"}
  - title: Not counted
    only_if: "{nobody}"
    command: python work.py copy words.txt never
"""
    Path("my.yaml").write_text(text, encoding="utf8")
    assert walk() == 4
    assert sorted(path.name for path in Path("made").iterdir()) == ["a", "also_a", "also_b", "b"]


def test_a_base_whose_variables_are_replaced() -> None:
    Path("my.yaml").rename("base.yaml")
    Path("my.yaml").write_text("_base_: base.yaml\nvariables: {folder: elsewhere}\n")
    assert walk() == 2
    assert Path("elsewhere/results/count.txt").is_file()
    assert [step.title for step in load(Path("my.yaml")).spec.steps] == ["Copy", "Count"]


def test_values_keep_their_spaces_and_other_braces_stay() -> None:
    scope = Scope(
        {"paths": {"manifest": "my data/a.tsv"}, "columns": {"text": "said", "id": "no"}},
        {"x": "{n}", "n": 3},
    )
    assert scope.words("go {paths.manifest.parent}/{paths.manifest.stem}.txt '{x}'") == [
        "go",
        "my data/a.txt",
        "3",
    ]
    assert scope.words(["go", ["--column", "{columns}"]]) == [
        "go",
        *("--column", "text=said", "--column", "id=no"),
    ]
    assert scope.words("awk '{print $1}{{x}}'") == ["awk", "{print $1}{x}"]


# Mistakes: all of them are said, with file and line, before anything is done.


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("    inputs: [words.txt]", "    input: [words.txt]", "my.yaml:7: steps.0.input: is not a known key"),
        ("    tasks:", "    outputs: [x]\n    tasks:", "my.yaml:10: steps.1.outputs: stands beside tasks"),
        (
            "      - key: count\n        command: ",
            "      - key: count\n        inputs: ",
            "my.yaml:13: steps.1.tasks.0.inputs: is set twice",
        ),
        (
            "inputs: [words.txt]",
            'inputs: ["{folderr}"]',
            "my.yaml:7: steps.0.inputs.0: unknown placeholder {folderr}",
        ),
        (
            '{results}/count.txt"]\n        inputs',
            '{paths.x}/c"]\n        inputs',
            "my.yaml:12: steps.1.tasks.0.command.2",
        ),
        (
            "key: count",
            "key: Copy",
            "my.yaml:11: steps.1.tasks.0.key: 'Copy' is the key of the task at my.yaml:5 too",
        ),
        (
            "key: count",
            "key: count\n        rule: magic",
            "my.yaml:12: steps.1.tasks.0.rule: there is no rule 'magic'",
        ),
        (
            "key: count",
            "key: count\n        run: model",
            "my.yaml:12: steps.1.tasks.0.run: there is no run 'model'",
        ),
        ("folder: out put", "folder: null", "my.yaml:5: steps.0: {folder} has no value (null)"),
        (
            'count: "{results}',
            'count: "{result}',
            "my.yaml:16: places.count: unknown placeholder {result} (did you mean",
        ),
        ("command: python work.py copy words.txt", "command: python 'work.py", "my.yaml:5: steps.0: "),
        ("steps:\n", "steps:\n  - 3\n", "my.yaml:5: steps.0: "),
        ("variables:", "  - variables:", "my.yaml:"),
    ],
)
def test_a_mistake_is_said_with_its_line(
    old: str, new: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert old in RECIPE
    assert said in mistakes(RECIPE.replace(old, new, 1), capsys)


def test_all_mistakes_are_said_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    said = mistakes(
        RECIPE.replace("words.txt]", "{a.b}.txt, {c}.txt]")
        .replace("[{a", "['{a")
        .replace("t, {c}.txt]", "t', '{c}']"),
        capsys,
    )
    assert "2 mistakes in the recipe:" in said and "{a.b}" in said and "{c}" in said


@pytest.mark.parametrize("text", ["", "steps: []\n", "variables: {a: 1}\n", "- a\n", "steps: [{title: x}]\n"])
def test_a_recipe_without_commands_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "my.yaml" in mistakes(text, capsys)


def test_a_recipe_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pipeline", "--recipe", "none.yaml"]) == 2
    assert "none.yaml: no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (
            "python -c pass",
            "Copy ended well but did not write out put/copied.txt; mend the command or its outputs",
        ),
        ("no-such-program", "my.yaml:5: no-such-program: No such file or directory"),
    ],
)
def test_a_command_that_does_not_do_its_work(
    command: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    old = 'python work.py copy words.txt "{folder}/copied.txt"'
    Path("my.yaml").write_text(RECIPE.replace(old, command))
    walk(status=2)
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--profile", "demo"), "leave out --stage and --profile"),
        (("--by", "video"), "--by: my.yaml has no variable by"),
        (("--num_processes", "2"), "unknown option --num_processes"),
        (("--config", "a=b"), "--config a=b: my.yaml has no configuration in runs"),
    ],
)
def test_options_that_the_recipe_has_no_use_for(
    options: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert walk(*options, status=2) == 0
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs/recipes").glob("*.yaml")), ids=lambda path: path.stem
)
def test_our_recipes_are_well_formed(path: Path) -> None:
    assert load(path).spec.steps


def test_our_recipes_are_found_from_an_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wheel puts them below the environment's ``share``; no checkout is around it, nor in the working directory."""
    data = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["tool"]["setuptools"][
        "data-files"
    ]
    assert data["share/polyvox/recipes"] == ["configs/recipes/*.yaml"]
    installed = tmp_path / "environment/share/polyvox/recipes/quick_voxlm.yaml"
    installed.parent.mkdir(parents=True)
    installed.touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recipe, "__file__", str(tmp_path / "environment/lib/training/recipes/recipe.py"))
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path / "environment"))
    assert recipe.ours("quick_voxlm") == installed
