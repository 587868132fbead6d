"""The pipeline over stand-ins for its commands: real processes, real signals, real state; only the work is fake."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from training.base.errors import UserError
from training.cli import pipeline as command
from training.cli.pipeline import overrides_for
from training.recipes import machine, plan, tasks, walker
from training.recipes.attempt import decide
from training.recipes.machine import Machine, choose, is_demo, weights_in_reach
from training.recipes.process import Stopped, run
from training.recipes.recipe import load
from training.recipes.resolve import Resolved, Run
from training.recipes.rules import Context
from training.recipes.state import State, fingerprint
from training.recipes.walker import Walker
from training.recipes.weights import of_scores, of_weights

DEMO_HEADER = "id\tvideo_id\taudio_path\ttranscript\tword_languages\tkind\tvoice\tsnr_db\tsplit_hint\n"
DEMO = DEMO_HEADER + "demo01_0001\tdemo01\ta.wav\txin chào\tvi vi\tvi\tvi+f2\t\t\n"

# Writes what the real command writes, and a line of its arguments. A file `hang` makes training wait for SIGTERM.
STAND_IN = r"""
import json, pathlib, signal, sys, time
name, *args = sys.argv[1:]
with open("calls.txt", "a") as file:
    file.write(json.dumps([name, *args]) + "\n")
if "-m" in args:  # under a launcher
    name, *args = args[args.index("-m") + 1 :]
name, *args = args
def value(flag):
    return pathlib.Path(args[args.index(flag) + 1])
def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf8")
if name == "demo-data":
    write(value("--output") / "manifest.tsv", pathlib.Path("demo.tsv").read_text(encoding="utf8"))
elif name == "preprocess":
    write(value("--output"), value("--input").read_text(encoding="utf8"))
elif name == "split":
    for part in ("train", "dev", "test", "unheard"):
        write(value("--output_dir") / f"{part}.csv", part + value("--manifest").read_text(encoding="utf8"))
elif name == "train" and "--dry_run" not in args:
    folder = pathlib.Path("outputs", value("--config").stem)
    write(folder / "config.yaml", "resolved")
    if pathlib.Path("fail").exists():
        sys.exit(3)
    if pathlib.Path("hang").exists():
        def stop(number, frame):
            write(folder / "checkpoint-7/complete.json", "{}")
            sys.exit(143)
        signal.signal(signal.SIGTERM, stop)
        write(folder / "started", "")
        time.sleep(60)
    write(folder / "train_results.json", str(time.time_ns()))
elif name == "evaluate":
    scores = {"scores": {"wer": {"value": 12.5, "low": 11, "high": 14}}}
    write(value("--output") / (str(value("--name")) + "_metrics.json"), json.dumps(scores))
    write(value("--output") / (str(value("--name")) + "_predictions.csv"), "")
elif name == "check-deployment":
    write(value("--output") / f"{pathlib.Path(args[0]).name}_deployment.json", str(time.time_ns()))
elif name == "charts":
    write(value("--charts") / "report.html", "<html>")
"""
TRAIN, EVALUATE = "train", "evaluate"
RECIPES = Path(__file__).parents[2] / "configs/recipes"
NAME = ".pipeline.json"
PROD: dict[str, Any] = {"recipe": "prod", "given": {"synthesise": True}}


class House:
    """A project folder with stand-ins, and calls of the pipeline in it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.manifest = folder / "data/export/manifest.tsv"
        self.said: list[str] = []
        self.options: dict[str, Any] = {"training": {"max_steps": 10}}

    def resolved(self, name: str) -> Resolved:
        outputs = Path("outputs")
        folder = outputs / name
        splits = {part: f"data/splits/{part}.csv" for part in ("train", "dev", "test")}
        values = {
            "paths": {
                "manifest_path": "data/export/manifest.tsv",
                "splits_dir": "data/splits",
                "output_dir": "outputs",
            },
            "data": {**splits, "dataset": None, "audio_root": ".", "columns": {}},
            "audio": {"max_length_seconds": 30},
            "output": {"dir": str(folder), "experiment_name": name},
            **self.options,
        }
        whole = folder / "checkpoint-7"
        return Resolved(values=values, text="resolved", checkpoint=whole if whole.exists() else None)

    def context(self, recipe: str = "demo", **changes: Any) -> Context:
        runs = {
            name: Run(
                config=Path(f"configs/demo_{name}.yaml"), overrides=(), resolved=self.resolved(f"demo_{name}")
            )
            for name in ("whisper", "e2e")
        }
        loaded = load(RECIPES / f"{recipe}.yaml")
        return Context(**{"recipe": loaded, "runs": runs, "say": self.said.append} | changes)

    def pipeline(self, recipe: str = "demo", **changes: Any) -> Walker:
        context = self.context(recipe, **changes)
        if context.fresh:
            context.state.redo_all()
        return command.walker_of(context)

    def run(self, recipe: str = "demo", **changes: Any) -> list[list[str]]:
        """The commands that one call of the pipeline ran."""
        before = len(self.calls())
        assert self.pipeline(recipe, **changes).run() == 0
        return self.calls()[before:]

    def calls(self) -> list[list[str]]:
        """Each command's name and arguments; under a launcher, the launcher's module first."""
        path = self.folder / "calls.txt"
        calls = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [call[1:] if call[0] == "training.cli" else call for call in calls]


def names(calls: list[list[str]]) -> list[str]:
    return [call[0] for call in calls]


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    folder = tmp_path / "a project"
    folder.mkdir()
    (folder / "stand_in.py").write_text(STAND_IN, encoding="utf8")
    (folder / "demo.tsv").write_text(DEMO, encoding="utf8")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(
        tasks, "module", lambda name, *rest: (sys.executable, "stand_in.py", name, *map(str, rest))
    )
    return House(folder)


def test_first_call_does_everything_in_order(house: House) -> None:
    made = house.run()
    assert names(made) == [
        *("demo-data", "preprocess", "split", "train", "train"),
        *["evaluate"] * 4,
        "charts",
    ]
    evaluated = [call[call.index("--name") + 1] for call in made if call[0] == EVALUATE]
    assert evaluated == ["demo_whisper", "demo_whisper_unheard", "demo_e2e", "demo_e2e_unheard"]
    announced = [line for line in house.said if line.startswith("[")]
    assert announced[::2] == [
        "[2/6] Prepare data",
        "[3/6] Train Whisper",
        "[4/6] Train E2E",
        "[5/6] Evaluate on the test split",
        "[6/6] Charts and report",
    ]


def test_second_call_does_nothing(house: House) -> None:
    house.run()
    assert house.run() == []
    assert sum("nothing to do" in line for line in house.said) == 5


def test_closing_names_durations_scores_and_places(house: House) -> None:
    pipeline = house.pipeline()
    assert pipeline.run() == 0
    places = {"report": house.context().scope().text("{charts}/report.html")}
    text = pipeline.closing(62.0, places, ["  [1/6] Install dependencies         1:23"])
    assert "Done in 1:02" in text and "[1/6] Install dependencies         1:23" in text
    assert "  [2/6] Prepare data                 0:0" in text
    assert "demo_e2e_unheard: wer 12.5 [11.0, 14.0]" in text
    assert "outputs/charts/report.html" in text.replace("\\", "/")


def test_the_whole_time_holds_the_installation(
    house: House, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (house.folder / "polyvox.json").write_text(json.dumps({"last_seconds": 3600.0}), encoding="utf8")
    monkeypatch.setattr(sys, "prefix", str(house.folder))
    monkeypatch.setattr(command, "plan", lambda *_: house.context(say=walker.say))
    assert command.main(["--installed"]) == 0
    said = capsys.readouterr().out
    assert "[1/6] Install dependencies: 1:00:00\n" in said
    assert re.search(r"^Done in 1:0[0-9]:[0-9]{2}$", said, re.MULTILINE), said


@pytest.mark.parametrize(
    ("path", "again"),
    [
        ("data/splits/unheard.csv", ["evaluate"] * 2 + ["charts"]),
        ("data/splits/test.csv", ["evaluate"] * 2 + ["charts"]),
        ("data/splits/dev.csv", ["train"] * 2 + ["evaluate"] * 4 + ["charts"]),
    ],
)
def test_what_reads_a_changed_file_is_done_again(house: House, path: str, again: list[str]) -> None:
    house.run()
    (house.folder / path).write_text("changed", encoding="utf8")
    made = names(house.run())
    # The stand-in's scores do not change, so the charts have to be redrawn only where a training changed.
    assert [name for name in made if name != "charts"] == [n for n in again if n != "charts"]
    assert ("charts" in made) == ("train" in again)


def test_an_output_that_is_gone_is_made_again(house: House) -> None:
    house.run()
    (house.folder / "outputs/charts/report.html").unlink()
    assert names(house.run()) == ["charts"]


def test_existence_alone_is_not_enough(house: House) -> None:
    """A file with the name of an output, from elsewhere, does not make the step finished."""
    house.manifest.parent.mkdir(parents=True)
    house.manifest.write_text("id\taudio_path\n1\tx.wav\n", encoding="utf8")
    (house.manifest.parent / "manifest_clean.tsv").write_text("from elsewhere", encoding="utf8")
    assert "preprocess" in names(house.run())


def test_other_settings_keep_the_old_model(house: House) -> None:
    house.run()
    old = (house.folder / "outputs/demo_whisper/train_results.json").read_text()
    house.options = {"training": {"max_steps": 20}}
    made = house.run()
    trained = [call for call in made if call[0] == TRAIN]
    assert len(trained) == 2 and all("--fresh" not in call for call in trained)
    assert (house.folder / "outputs/old/demo_whisper-1/train_results.json").read_text() == old


@pytest.mark.parametrize(
    ("changed", "again"),
    [
        ({"dataloader": {"num_workers": 4}}, []),
        ({"profile": {"name": "other", "memory_gb": 8}}, []),
        ({"training": {"max_steps": 10, "report_to": "none", "save_total_limit": 1}}, []),
        ({"evaluation": {"num_beams": 5, "resamples": 10}}, ["evaluate"] * 4),
        ({"training": {"max_steps": 11}}, ["train"] * 2 + ["evaluate"] * 4 + ["charts"]),
        ({"evaluation": {"max_utterances": 9}}, ["train"] * 2 + ["evaluate"] * 4 + ["charts"]),
        ({"model": {"type": "x"}}, ["train"] * 2 + ["evaluate"] * 4 + ["charts"]),
    ],
)
def test_only_what_changes_the_weights_trains_again(
    house: House, changed: dict[str, Any], again: list[str]
) -> None:
    house.run()
    house.options = {"training": {"max_steps": 10}} | changed
    made = house.run()
    assert names(made) == again
    if changed == {"evaluation": {"num_beams": 5, "resamples": 10}}:
        # The run's own config.yaml still has the old settings: the evaluation is told the new ones.
        told = made[0][made[0].index("--evaluation") + 1 :]
        assert told == ["num_beams=5", "resamples=10"]


def test_an_interrupted_run_goes_on_with_other_workers(house: House) -> None:
    (house.folder / "fail").touch()
    assert house.pipeline().run() == 3
    (house.folder / "fail").unlink()
    whole = house.folder / "outputs/demo_whisper/checkpoint-7/complete.json"
    whole.parent.mkdir()
    whole.write_text("{}")
    house.options |= {"dataloader": {"num_workers": 0}}
    assert next(call for call in house.run() if call[0] == TRAIN)[-1] == "--resume"


def test_fresh_does_everything_again(house: House) -> None:
    house.run()
    made = house.run(fresh=True)
    assert len(made) == 10
    assert all(call[-1] == "--fresh" for call in made if call[0] == TRAIN)
    assert "--force" in made[0]
    assert house.run() == []


def test_fresh_holds_over_an_interruption(house: House) -> None:
    house.run()
    (house.folder / "fail").touch()
    assert house.pipeline(fresh=True).run() == 3
    (house.folder / "fail").unlink()
    made = [call for call in house.run() if call[0] == TRAIN]
    assert len(made) == 2  # the second model too, although its inputs are those of the first call


def test_what_was_recorded_before_there_were_recipes_counts(house: House) -> None:
    """Hashes of what earlier versions have recorded: nothing is synthesised, cleaned, trained or scored again."""
    house.run()
    splits, results = Path("data/splits"), Path("outputs/demo_whisper/train_results.json")
    values = house.resolved("demo_whisper").values
    expected = {
        "synthesise": fingerprint({"minutes": None}),
        "clean": fingerprint(
            ("--audio_root", ".", "--max_duration", "30"), [Path("data/export/manifest.tsv")]
        ),
        "split": fingerprint((), [Path("data/export/manifest_clean.tsv")]),
        "train demo_whisper": fingerprint(of_weights(values), [splits / "train.csv", splits / "dev.csv"]),
        "evaluate demo_whisper": fingerprint(of_scores(values), [results, splits / "test.csv"]),
        "evaluate demo_whisper_unheard": fingerprint(of_scores(values), [results, splits / "unheard.csv"]),
    }
    tasks = json.loads(Path("outputs", NAME).read_text(encoding="utf8"))["tasks"]
    assert {key: tasks[key]["inputs"] for key in expected} == expected


def test_a_failed_step_stops_the_pipeline(house: House) -> None:
    (house.folder / "fail").touch()
    assert house.pipeline().run() == 3
    assert "[3/6] Train Whisper failed with status 3" in house.said
    assert names(house.calls())[-1] == "train"


def test_a_step_that_writes_nothing_is_not_taken_for_done(house: House) -> None:
    (house.folder / "stand_in.py").write_text("", encoding="utf8")
    with pytest.raises(RuntimeError, match=r"did not write .*manifest\.tsv"):
        house.pipeline().run()


def test_own_manifest_is_never_replaced(house: House) -> None:
    house.manifest.parent.mkdir(parents=True)
    house.manifest.write_text("id\taudio_path\n1\tx.wav\n", encoding="utf8")
    made = house.run(fresh=True)
    assert "demo-data" not in names(made)
    assert house.manifest.read_text(encoding="utf8").startswith("id\taudio_path\n1")


@pytest.mark.parametrize("clips", [["video_demo01"], ["video_demo01", "video_77"], [".replaced"]])
def test_the_demos_clips_without_their_manifest_are_replaced(house: House, clips: list[str]) -> None:
    """`rm manifest.tsv`, or a call that was killed while it put the corpus in its place."""
    house.run()
    house.manifest.unlink()
    for name in clips:
        (house.manifest.parent / name).mkdir()
    made = house.run()
    assert names(made)[0] == "demo-data"
    assert ("--force" in made[0]) == (clips != [".replaced"])


def test_an_edited_demo_manifest_is_kept(house: House) -> None:
    house.run()
    edited = DEMO.replace("xin chào", "chào xin")
    house.manifest.write_text(edited, encoding="utf8")
    assert "demo-data" not in names(house.run(fresh=True))
    assert house.manifest.read_text(encoding="utf8") == edited


def test_without_demo_a_manifest_is_asked_for(house: House) -> None:
    with pytest.raises(UserError, match=r"manifest\.tsv is not there.*--profile demo"):
        house.pipeline("dev").run()


def test_accelerate_gets_the_other_options(house: House) -> None:
    context = house.context("prod", launcher=("--num_processes", "2"))
    (task,) = plan.tasks_of(context, 1)
    words = list(task.command[2:])
    assert words[:5] == ["accelerate.commands.accelerate_cli", "launch", "--num_processes", "2", "-m"]
    assert words[5:] == ["training.cli", TRAIN, "--config", str(context.runs["whisper"].config)]


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.mark.skipif(os.name != "posix", reason="signals of a POSIX system")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_next_call_goes_on(house: House, number: signal.Signals) -> None:
    (house.folder / "hang").touch()
    driver = house.folder / "driver.py"
    driver.write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\nfrom test_pipeline import House, tasks, sys as s\n"
        "tasks.module = lambda name, *rest: (s.executable, 'stand_in.py', name, *map(str, rest))\n"
        "from training.recipes.process import Stopped\n"
        "try:\n    House(Path('.')).pipeline().run()\n"
        "except Stopped as stopped:\n    sys.exit(128 + stopped.number)\n",
        encoding="utf8",
    )
    process = subprocess.Popen([sys.executable, str(driver)], cwd=house.folder)
    until((house.folder / "outputs/demo_whisper/started").exists)
    process.send_signal(number)
    assert process.wait(20) == 128 + number
    (house.folder / "hang").unlink()
    made = house.run()
    assert made[0][0] == TRAIN and made[0][-1] == "--resume"
    assert names(made).count("train") == 2 and "preprocess" not in names(made)


@pytest.mark.skipif(os.name != "posix", reason="signals of a POSIX system")
def test_a_signal_reaches_the_task_once_and_none_of_its_workers(tmp_path: Path) -> None:
    """Sent to the whole group, Ctrl-C would end the workers that training reads from while it saves."""
    worker = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: open('worker', 'w').close()); "
    )
    worker += "signal.signal(signal.SIGINT, signal.getsignal(signal.SIGTERM)); time.sleep(5)"
    task = (
        "import os, signal, subprocess, sys, time\n"
        f"os.chdir({str(tmp_path)!r})\n"
        "count = 0\n"
        "def stop(*_):\n    global count\n    count += 1\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        f"w = subprocess.Popen([sys.executable, '-c', {worker!r}])\n"
        "time.sleep(0.5); open('ready', 'w').close()\n"
        "end = time.monotonic() + 1\n"
        "while time.monotonic() < end: time.sleep(0.05)\n"
        "w.kill(); sys.exit(10 + count)\n"
    )
    driver = (
        "from training.recipes.process import run; import sys\n"
        f"ended = run([sys.executable, '-c', {task!r}], started=lambda pid: None)\n"
        "print(ended.status, ended.signal)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", driver], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    until((tmp_path / "ready").exists)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does on Ctrl-C
    assert process.communicate(timeout=20)[0].split() == ["11", str(int(signal.SIGINT))]
    assert not (tmp_path / "worker").exists()


@pytest.mark.skipif(os.name != "posix", reason="signals of a POSIX system")
def test_under_a_launcher_the_training_gets_the_signal(tmp_path: Path) -> None:
    """`accelerate launch` would die of it before the training has saved."""
    training = (
        "import signal, sys, time\n"
        "def stop(*_):\n    time.sleep(0.3); open('saved', 'w').close(); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, stop); open('ready', 'w').close(); time.sleep(20)\n"
    )
    launcher = f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', {training!r}]))"
    driver = (
        "from training.recipes.process import run; import sys\n"
        f"ended = run([sys.executable, '-c', {launcher!r}], launcher=True, started=lambda pid: None)\n"
        "print(ended.status, ended.signal)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-c", driver], stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=environment
    )
    until((tmp_path / "ready").exists)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=20)[0].split() == ["143", str(int(signal.SIGTERM))]
    assert (tmp_path / "saved").exists()


def test_a_task_stopped_by_somebody_else(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"
    monkeypatch.setattr(tasks, "module", lambda name, *rest: (sys.executable, "-c", code))
    with pytest.raises(Stopped) as stopped:
        house.pipeline().run()
    assert stopped.value.number == signal.SIGTERM


def test_a_second_call_beside_a_running_task_is_refused(tmp_path: Path) -> None:
    state = State(tmp_path / NAME)
    state.begin("train demo_whisper", "hash")
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
    try:
        state.process(sleeper.pid)
        with pytest.raises(UserError, match=f"still runs as process {sleeper.pid}"):
            State(tmp_path / NAME).refuse_second()
    finally:
        sleeper.kill()
        sleeper.wait()
    State(tmp_path / NAME).refuse_second()


def test_the_status_of_the_process_is_handed_back() -> None:
    seen: list[int] = []
    ended = run([sys.executable, "-c", "raise SystemExit(7)"], started=seen.append)
    assert (ended.status, ended.signal, len(seen)) == (7, None, 1)


def test_configurations_are_resolved_in_one_other_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    recipe = load(RECIPES / "demo.yaml")
    whisper, e2e = command.resolved_runs(
        recipe,
        [f"paths.output_dir={tmp_path}", "e2e:training.max_steps=7", "paths.splits_dir=elsewhere"],
    ).values()
    assert whisper.resolved.folder == tmp_path / "demo_whisper"
    assert whisper.resolved.checkpoint is None
    assert (
        e2e.resolved.values["training"]["max_steps"] == 7 != whisper.resolved.values["training"]["max_steps"]
    )
    assert e2e.resolved.values["data"]["test"] == "elsewhere/test.csv"
    with pytest.raises(UserError, match=r"max_stepps.*max_steps"):
        command.resolved_runs(recipe, ["training.max_stepps=7"])


@pytest.fixture
def faster_whisper(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Whether the package seems to be installed."""
    found = importlib.util.find_spec

    def seem(installed: bool) -> None:
        monkeypatch.setattr(
            importlib.util,
            "find_spec",
            lambda name, *more: (
                (object() if installed else None) if name == "faster_whisper" else found(name, *more)
            ),
        )

    return seem


def test_without_a_gpu_the_run_is_timed_before_it_starts_and_once(
    house: House, faster_whisper: Callable[[bool], None]
) -> None:
    faster_whisper(True)
    runs = {"whisper": house.context().runs["whisper"]}
    calls = house.run("cpu", runs=runs, given={"synthesise": True})
    prepared = ["demo-data", "preprocess", "split"]
    assert names(calls) == [*prepared, TRAIN, TRAIN, EVALUATE, EVALUATE, "check-deployment", "charts"]
    assert calls[3][-2:] == ["--dry_run", "--download"] and "--dry_run" not in calls[4]
    assert "--report_only" in calls[-2], "a gap is reported and does not end the call"
    assert house.run("cpu", runs=runs, given={"synthesise": True}) == []


def test_without_faster_whisper_a_line_says_that_deployment_is_not_checked(
    house: House, faster_whisper: Callable[[bool], None]
) -> None:
    runs = {"whisper": house.context().runs["whisper"]}
    faster_whisper(False)
    assert "check-deployment" not in names(house.run("cpu", runs=runs, given={"synthesise": True}))
    assert any(line.startswith("faster-whisper is not installed: ") for line in house.said)
    faster_whisper(True)
    assert names(house.run("cpu", runs=runs, given={"synthesise": True})) == ["check-deployment", "charts"]


# What a training step finds in its folder.


def start_of(house: House, record: dict[str, Any] | None, *, fresh: bool = False) -> tuple[str, ...]:
    return decide(house.resolved("demo_e2e"), record, "hash", fresh=fresh, say=house.said.append).flags


def record(**changes: Any) -> dict[str, Any]:
    return {"inputs": "hash", "since": 0.0, "finished": False} | changes


def make(*paths: str) -> None:
    for path in paths:
        Path("outputs/demo_e2e", path).parent.mkdir(parents=True, exist_ok=True)
        Path("outputs/demo_e2e", path).write_text("resolved")


def test_an_empty_folder_is_started_in(house: House) -> None:
    assert start_of(house, None) == ()
    Path("outputs/demo_e2e").mkdir(parents=True)
    assert start_of(house, record()) == ()


def test_an_interrupted_run_with_a_checkpoint_goes_on(house: House) -> None:
    make("config.yaml", "checkpoint-7/complete.json")
    assert start_of(house, record()) == ("--resume",)
    assert start_of(house, None) == ("--resume",)  # begun by hand, same configuration


def test_an_interrupted_run_without_a_checkpoint_starts_over(house: House) -> None:
    make("config.yaml", "logs/events")
    assert start_of(house, record()) == ("--fresh",)


def test_a_checkpoint_older_than_the_attempt_is_not_gone_on_with(house: House) -> None:
    make("config.yaml", "checkpoint-7/complete.json")
    assert start_of(house, record(since=time.time() + 100)) == ()
    assert Path("outputs/old/demo_e2e-1/checkpoint-7").is_dir()


def test_a_run_that_ended_unrecorded_is_done(house: House) -> None:
    make("config.yaml", "train_results.json")
    assert decide(house.resolved("demo_e2e"), record(), "hash", fresh=False, say=print).done


def test_a_strangers_folder_is_left_alone(house: House) -> None:
    make("thesis.txt")
    with pytest.raises(UserError, match="has not made"):
        start_of(house, None)
    assert Path("outputs/demo_e2e/thesis.txt").exists()


def test_each_move_aside_finds_a_free_name(house: House) -> None:
    for number in (1, 2):
        make("train_results.json")
        assert start_of(house, record(inputs="other")) == ()
        assert Path(f"outputs/old/demo_e2e-{number}/train_results.json").exists()


# The choice of the profile.


@pytest.mark.parametrize(
    ("found", "profile", "words"),
    [
        (Machine(None, None, False), "demo", ["no CUDA GPU", "no pretrained weights", "synthesised corpus"]),
        (
            Machine(None, None, True),
            "demo",
            ["no CUDA GPU", "from scratch, trained on data/export/manifest.tsv"],
        ),
        (
            Machine(None, "pretrained weights cached", True),
            "cpu",
            ["no CUDA GPU", "weights cached", "a pretrained Whisper fine-tuned on data/export/manifest.tsv"],
        ),
        (Machine(None, "pretrained weights cached", False), "demo", ["synthesised corpus"]),
        (Machine("RTX 2050", None, True), "demo", ["RTX 2050", "no pretrained weights in reach"]),
        (Machine("RTX 2050", "model hub in reach", False), "demo", ["RTX 2050", "synthesised corpus"]),
        (
            Machine("RTX 2050", "model hub in reach", True),
            "dev",
            ["RTX 2050", "model hub in reach", "fine-tuned"],
        ),
    ],
)
def test_choice_of_the_profile(found: Machine, profile: str, words: list[str]) -> None:
    choice = choose(found, Path("data/export/manifest.tsv"))
    assert choice.profile == profile
    assert "\n" not in choice.line and all(word in choice.line.replace("\\", "/") for word in words)


def test_the_demo_corpus_is_known_by_its_content(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.tsv"
    assert not is_demo(manifest)
    manifest.write_text(DEMO, encoding="utf8")
    assert is_demo(manifest)
    manifest.write_text(DEMO + DEMO.splitlines()[1].replace("demo01", "lecture7") + "\n", encoding="utf8")
    assert not is_demo(manifest)
    manifest.write_text("id\tvideo_id\ndemo01\tdemo01\n", encoding="utf8")
    assert not is_demo(manifest)


def test_weights_in_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in machine.OFFLINE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    asked: list[str] = []

    def online(name: str) -> bool:
        asked.append(name)
        return True

    names = ["openai/whisper-tiny", "facebook/wav2vec2-base"]
    assert weights_in_reach(names, cached=lambda name: True, online=online) == "pretrained weights cached"
    assert not asked
    assert weights_in_reach(names, cached=lambda name: "tiny" in name, online=online) == "model hub in reach"
    assert asked == ["facebook/wav2vec2-base"]
    assert weights_in_reach(names, cached=lambda name: False, online=lambda name: False) is None
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert weights_in_reach(names, cached=lambda name: False, online=online) is None


def test_a_name_server_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(machine.urllib.request, "urlopen", lambda *args, **kwargs: time.sleep(5))
    began = time.monotonic()
    assert not machine.answers("openai/whisper-tiny")
    assert time.monotonic() - began < 3


def test_the_models_that_the_dev_profile_names() -> None:
    root = Path(__file__).parents[2] / "configs"
    found = machine.pretrained_names([(root / "dev_whisper.yaml", ()), (root / "dev_e2e.yaml", ())])
    assert found == ["openai/whisper-tiny", "facebook/wav2vec2-base", "facebook/mbart-large-50"]
    own = ("training.seed=2", "model.name=/weights/of my own")
    assert machine.pretrained_names([(root / "cpu_whisper.yaml", own)]) == ["/weights/of my own"]


# The command line.


def test_overrides_for_one_model_or_both() -> None:
    given = [
        "training.max_steps=5",
        "whisper:training.batch_size=2",
        "e2e:model.ctc_weight=0",
        "a.b=whisper:c",
    ]
    names = ("whisper", "e2e")
    assert overrides_for("whisper", given, names) == (given[0], "training.batch_size=2", given[3])
    assert overrides_for("e2e", given, names) == (given[0], "model.ctc_weight=0", given[3])


def test_an_unknown_option_is_a_mistake_in_the_dev_stage() -> None:
    with pytest.raises(UserError, match="--num_processes"):
        command.main(["--num_processes", "2"])


def test_prod_has_no_profile() -> None:
    with pytest.raises(UserError, match="--stage prod"):
        command.main(["--stage", "prod", "--profile", "demo"])


def test_a_damaged_state_is_explained(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("{")
    with pytest.raises(UserError, match="remove it"):
        State(tmp_path / NAME)


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0:00"), (59.6, "1:00"), (3723, "1:02:03")])
def test_clock(seconds: float, text: str) -> None:
    assert walker.clock(seconds) == text


def test_machines_after_the_first_wait_for_the_data_and_train_as_the_first_does(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.run(**PROD)
    leader = State(Path("outputs") / NAME)
    key = "train demo_whisper"
    leader.record(key).update(inputs="of this call")  # type: ignore[union-attr]
    leader.save()
    waits: list[float] = []

    def first_machine_starts(seconds: float) -> None:
        waits.append(seconds)
        leader.begin(key, "of this call", flags=["--resume"])
        leader.process(os.getpid())

    monkeypatch.setattr(walker.time, "sleep", first_machine_starts)
    made = house.run(**PROD, rank=1)
    assert waits == [walker.POLL_SECONDS]
    assert [(call[0], call[-1]) for call in made] == [("accelerate.commands.accelerate_cli", "--resume")]
    assert "waiting for machine 0: train demo_whisper" in house.said


def test_machines_after_the_first_end_when_it_fails(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    leader = State(Path("outputs") / NAME)
    leader.open_call()
    monkeypatch.setattr(walker.time, "sleep", lambda seconds: leader.close_call(3))
    assert house.pipeline(**PROD, rank=1).run() == 3
    assert house.said[-2].startswith("machine 0 ended with status 3 before ")
    assert not house.calls()


def test_machines_after_the_first_do_not_take_an_earlier_call_for_a_fresh_one(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started before the first machine, which then has yet to void what it finished earlier."""
    house.run(**PROD)
    leader = State(Path("outputs") / NAME)
    key = "train demo_whisper"
    waits: list[float] = []

    def first_machine_starts(seconds: float) -> None:
        waits.append(seconds)
        leader.redo_all()
        leader.open_call()
        leader.begin(key, "of this call", flags=["--overwrite"])
        leader.process(os.getpid())

    monkeypatch.setattr(walker.time, "sleep", first_machine_starts)
    context = house.context("prod", rank=1, fresh=True)
    follower = command.walker_of(context)
    task = next(task for task in plan.tasks_of(context, 1) if task.key == key)
    before = len(house.calls())
    assert follower._follow(task) == (0, None)
    assert waits == [walker.POLL_SECONDS]
    assert [call[-1] for call in house.calls()[before:]] == ["--overwrite"]
