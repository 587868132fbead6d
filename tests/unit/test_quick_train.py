"""quick-train over stand-ins for its commands: which tasks for which configuration, and what is not done again."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from training import cli
from training.base.errors import UserError
from training.cli import quick_train as quick
from training.data.timestamps_manifest import FILE
from training.recipes import tasks
from training.recipes.plan import steps
from training.recipes.recipe import load
from training.recipes.resolve import Resolved, Run, addressed
from training.recipes.rules import Context
from training.recipes.walker import Walker
from training.recipes.word_labels import Label, labels, overrides

# Writes what the real command writes, and a line of its arguments.
STAND_IN = r"""
import json, pathlib, sys, time
name, *args = sys.argv[1:]
if name == "training.cli":
    name, *args = args
with open("calls.txt", "a") as file:
    file.write(json.dumps([name.rsplit(".", 1)[-1], *args]) + "\n")
def value(flag):
    return pathlib.Path(args[args.index(flag) + 1])
def write(path, text=str(time.time_ns())):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf8")
if name == "demo-data":
    write(value("--output") / "manifest.tsv", "demo")
elif name == "split":
    for part in ("train", "dev", "test", "unheard"):
        row = f"id,audio_path,duration,transcript,words\n{part},a.wav,1,hello,\n"
        write(value("--output_dir") / f"{part}.csv", row)
elif name == "download":
    write(value("--output") / "LibriSpeech" / value("--splits") / "x.flac")
elif name == "lm":
    write(value("--output") / "config.json", "{}")
    write(value("--output") / "model.safetensors")
elif name == "timestamps":
    write(value("--output") / value("--split") / "timestamps_manifest.json")
elif name == "train":
    if pathlib.Path("fail").exists() and "training.phase=2" in args:
        sys.exit(3)
    run = value("--config").stem + ("_phase2" if "training.phase=2" in args else "")
    for file in ("config.yaml", "config.json", "train_results.json"):
        write(pathlib.Path("outputs", run, file))
elif name == "calibrate":
    if not pathlib.Path("few").exists():
        write(value("--model_dir") / "calibration.json")
elif name == "evaluate":
    for end in ("_metrics.json", "_predictions.csv"):
        write(value("--output") / (str(value("--name")) + end), '{"scores": {"wer": {"value": 12.5}}}')
elif name == "training.recipes.export":
    for file in ("config.json", "README.txt"):
        write(value("--output") / file)
"""
RECIPE = Path(__file__).parents[2] / "configs/recipes/quick_voxlm.yaml"
LIBRI = {"root": "data", "train": ["train-clean-100"], "dev": ["dev-clean"], "test": ["test-clean"]}
DEMO = [
    *("demo-data --corpus english", "split", "train demo_voxlm_encoder", "lm", "train demo_voxlm"),
    *("train demo_voxlm_phase2", "calibrate", "evaluate demo_voxlm_phase2"),
    "evaluate demo_voxlm_phase2_unheard",
]


class Project:
    """A folder with stand-ins, and calls of quick-train in it."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.data: dict[str, Any] = {}
        self.model: dict[str, Any] = {}
        self.options: dict[str, tuple[str, ...]] = {}
        self.training: dict[str, Any] = {"max_steps": 10}

    def values(self, name: str) -> dict[str, Any]:
        splits = {part: f"data/english_splits/{part}.csv" for part in ("train", "dev", "test")}
        parts = {"audio_encoder": "outputs/demo_voxlm_encoder", "llm": "outputs/demo_voxlm_llm"}
        return {
            "paths": {
                "manifest_path": "data/english/manifest.tsv",
                "splits_dir": "data/english_splits",
                "output_dir": "outputs",
            },
            "data": {**splits, "audio_root": None, "columns": {}, "librispeech": None, **self.data},
            "model": {"type": "voxlm", "instruction": "Transcribe.", **parts, **self.model},
            "training": self.training,
            "output": {"dir": f"outputs/{name}", "experiment_name": name},
        }

    def run_of(self, config: str, *given: str, name: str | None = None, **data: Any) -> Run:
        values = self.values(name or config)
        values["data"] |= data
        return Run(
            config=Path(f"configs/{config}.yaml"),
            overrides=given,
            resolved=Resolved(values=values, text="", checkpoint=None),
        )

    def context(self, *, encoder: bool = True, llm: bool = True, **changes: Any) -> Context:
        phase1 = self.run_of("demo_voxlm")
        found = labels(phase1)
        labelled = {one.part: str(one.manifest) for one in found if one.part != "test"}
        if self.data.get("librispeech"):
            labelled |= {"librispeech": None, "test": None}  # type: ignore[dict-item]
        phase2 = self.run_of("demo_voxlm", "training.phase=2", name="demo_voxlm_phase2", **labelled)
        made = {"encoder": self.run_of("demo_voxlm_encoder")} if encoder else {}
        given = {
            **quick.data_variables(self.values("demo_voxlm"), found),
            **{f"{name}_options": words for name, words in self.options.items()},
            "llm": Path("outputs/demo_voxlm_llm") if llm else None,
            "export": changes.pop("export", None),
        }
        runs = {"phase1": phase1, "phase2": phase2, **made}
        return Context(recipe=load(RECIPE), runs=runs, say=self.said.append, given=given, **changes)

    def run(self, status: int = 0, **changes: Any) -> list[str]:
        """What one call did: each command and what tells it from others of its name."""
        before = len(self.calls())
        context = self.context(**changes)
        walker = Walker(steps(context), context.state, self.said.append, fresh=context.fresh)
        assert walker.call() == status
        return [told(call) for call in self.calls()[before:]]

    def calls(self) -> list[list[str]]:
        path = Path("calls.txt")
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def told(call: list[str]) -> str:
    name, *words = call
    flags = {"evaluate": "--name", "download": "--splits", "timestamps": "--split"}
    if name == "train":
        return f"train {Path(words[1]).stem}{'_phase2' if 'training.phase=2' in words else ''}"
    if name == "demo-data":
        return " ".join([name, *words[words.index("--corpus") :]])
    return f"{name} {words[words.index(flags[name]) + 1]}" if name in flags else name


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    (tmp_path / "stand_in.py").write_text(STAND_IN, encoding="utf8")
    monkeypatch.chdir(tmp_path)
    # -S: stand-ins need no packages, and start faster without them.
    monkeypatch.setattr(
        tasks, "module", lambda name, *rest: (sys.executable, "-S", "stand_in.py", name, *map(str, rest))
    )
    return Project()


ROWS = "id,audio_path,duration,transcript,words\nu1,a.wav,1,hello,\n"


def write(*paths: str, text: str = ROWS) -> None:
    for path in map(Path, paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf8")


def test_the_demo_from_nothing_and_once_only(project: Project) -> None:
    assert project.run() == DEMO
    assert project.run() == []
    titles = [line.split(": ")[0] for line in project.said if line.startswith("[5/7]")]
    assert titles[0] == "[5/7] Phase 2"
    assert "[3/7] Word times: nothing to do" in project.said
    assert project.run(export=Path("best")) == ["export"]
    assert project.run(export=Path("best")) == []


def test_a_failed_phase_is_gone_on_with(project: Project) -> None:
    write("fail")
    assert project.run(status=3) == DEMO[:6]
    Path("fail").unlink()
    assert project.run() == DEMO[5:]


def test_a_model_that_says_too_few_words_is_exported_without_calibration(project: Project) -> None:
    write("few")
    assert project.run(export=Path("best")) == [*DEMO, "export"]
    assert project.run(export=Path("best")) == []
    call = next(call for call in project.calls() if call[0] == "calibrate")
    assert "--if_possible" in call


def test_a_calibration_that_was_written_and_is_gone_is_made_again(project: Project) -> None:
    project.run()
    Path("outputs/demo_voxlm_phase2/calibration.json").unlink()
    assert project.run()[0] == "calibrate"


def test_a_folder_that_the_export_would_refuse_is_said_first(project: Project) -> None:
    """Not after hours of training, and not overwritten by the second call."""
    write("taken/thesis.txt", "a_file")
    for export, why in (
        ("taken", "holds files already"),
        ("a_file", "is a file"),
        ("outputs/demo_voxlm_phase2", "is the folder of a training"),
    ):
        with pytest.raises(UserError, match=f"--export {export}: {why}"):
            quick.check_export(project.context(export=Path(export)))
    project.run(export=Path("best"))
    quick.check_export(project.context(export=Path("best")))


def test_manifests_of_ones_own_are_used_as_they_are(project: Project) -> None:
    write(*(f"data/english_splits/{part}.csv" for part in ("train", "dev", "test")))
    assert project.run() == [one for one in DEMO[2:] if "unheard" not in one]
    assert "the configuration's data are there: nothing to prepare" in project.said


def test_without_data_one_is_asked_for_it(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = {**project.values("x")["paths"], "manifest_path": "data/export/manifest.tsv"}
    values = project.values
    monkeypatch.setattr(project, "values", lambda name: {**values(name), "paths": paths})
    with pytest.raises(UserError, match=r"train\.csv is not there, nor is data/export/manifest\.tsv"):
        project.run()


def test_an_own_export_is_split_and_nothing_is_spoken(project: Project) -> None:
    own = "id\taudio_path\tduration\ttranscript\twords\nu1\ta.wav\t1.0\thello\t[]\n"
    write("data/english/manifest.tsv", text=own)
    assert project.run() == DEMO[1:]
    assert Path("data/english/manifest.tsv").read_text() == own


def test_parts_that_others_have_made_are_used(project: Project) -> None:
    write("outputs/demo_voxlm_encoder/config.json", "outputs/demo_voxlm_llm/config.json")
    assert [one for one in project.run(fresh=True) if one in DEMO[2:4]] == []
    assert "outputs/demo_voxlm_llm: there already, used as it is" in project.said


def test_pretrained_parts_need_nothing(project: Project) -> None:
    assert project.run(encoder=False, llm=False) == [*DEMO[:2], *DEMO[4:]]


def test_another_language_model_is_another_model(project: Project) -> None:
    project.run()
    project.options = {"llm": ("--steps", "20")}
    assert project.run() == DEMO[3:]
    call = next(call for call in reversed(project.calls()) if call[0] == "lm")
    assert call[1:] == [
        *("causal", "--text", "data/english_splits/train.csv", "--output", "outputs/demo_voxlm_llm"),
        *("--instruction", "Transcribe.", "--steps", "20", "--overwrite"),
    ]


def test_fresh_does_everything_again(project: Project) -> None:
    project.run()
    assert project.run(fresh=True) == [f"{DEMO[0]} --force", *DEMO[1:]]


LIBRISPEECH = [
    *("download train-clean-100", "download dev-clean", "download test-clean"),
    *(
        "timestamps train-clean-100",
        "timestamps dev-clean",
        "timestamps test-clean",
    ),
    *("train demo_voxlm", "train demo_voxlm_phase2", "calibrate", "evaluate demo_voxlm"),
    "evaluate demo_voxlm_phase2_labelled_test-clean",
]


def test_librispeech(project: Project) -> None:
    project.data, project.options = {"librispeech": LIBRI}, {"timestamps": ("--model", "small")}
    assert project.run(encoder=False, llm=False) == LIBRISPEECH
    assert project.calls()[3][1:] == [
        *("--data", "data", "--split", "train-clean-100", "--output", "data/timestamps"),
        *("--model", "small", "--fast"),
    ]
    text, times = project.calls()[-2:]
    assert "--test_csv" not in text  # all of the split, not what the teacher heard well
    assert times[times.index("--test_csv") + 1] == f"data/timestamps/test-clean/{FILE}"
    assert project.run(encoder=False, llm=False) == []


def test_another_teacher_begins_anew_and_trains_phase_2_again(project: Project) -> None:
    project.data, project.options = {"librispeech": LIBRI}, {"timestamps": ("--model", "small")}
    project.run(encoder=False, llm=False)
    project.options = {"timestamps": ("--model", "tiny")}
    again = [*LIBRISPEECH[3:6], *LIBRISPEECH[7:9], LIBRISPEECH[10]]
    assert project.run(encoder=False, llm=False) == again
    labelling = [call for call in project.calls() if call[0] == "timestamps"][-1]
    assert labelling[-1] == "--force"


def test_word_times_that_others_have_made_are_used(project: Project) -> None:
    project.data = {"librispeech": LIBRI}
    write(f"data/timestamps/dev-clean/{FILE}")
    made = project.run(encoder=False, llm=False)
    assert "timestamps dev-clean" not in made and "timestamps train-clean-100" in made


def test_labels_of_manifests_without_words(project: Project) -> None:
    write("data/english_splits/train.csv", text="id,audio_path,duration,transcript\nu1,a.wav,1,hello\n")
    write(
        "data/english_splits/dev.csv",
    )
    values, folder = project.values("x"), Path("data/english_splits")
    found = labels(project.run_of("x"))
    assert found == [Label("train", "train", folder / "train.csv", folder / "timestamps")]
    assert overrides(found, values) == [f'data.train="data/english_splits/timestamps/train/{FILE}"']
    project.data = {"audio_root": "sound"}
    with pytest.raises(UserError, match=r"train\.csv has no column words.*data\.audio_root"):
        labels(project.run_of("x"))


@pytest.mark.parametrize(("column", "wanted"), [("", ["train", "dev"]), ("\twords", [])])
def test_labels_of_splits_that_are_still_to_be_made(project: Project, column: str, wanted: list[str]) -> None:
    """Else a first call would train phase 1 and find in phase 2 that no word has its time."""
    export = Path("data/english/manifest.tsv")
    export.parent.mkdir(parents=True)
    cell = "\t" if column else ""
    export.write_text(
        f"id\taudio_path\tduration\ttranscript{column}\nu1\ta.wav\t1\thello{cell}\n", encoding="utf8"
    )
    found = labels(project.run_of("demo_voxlm"))
    assert [one.part for one in found] == wanted
    assert [str(one.data) for one in found] == [f"data/english_splits/{part}.csv" for part in wanted]


def test_labels_of_librispeech(project: Project) -> None:
    project.data = {"librispeech": LIBRI}
    values = project.values("x")
    assert overrides(labels(project.run_of("x")), values) == [
        f'data.train="data/timestamps/train-clean-100/{FILE}"',
        f'data.dev="data/timestamps/dev-clean/{FILE}"',
        *("data.librispeech=null", "data.test=null"),
    ]
    project.data = {"librispeech": {**LIBRI, "train": ["train-clean-100", "train-clean-360"]}}
    with pytest.raises(UserError, match=r"data\.librispeech\.train: .*name one"):
        labels(project.run_of("x"))


# The command line.


def test_who_is_told_what() -> None:
    names = (*quick.COMMANDS, quick.ENCODER)
    assert addressed("llm:steps=3", names) == ("llm", "steps=3")
    assert addressed("a.b=llm:c", names) == (None, "a.b=llm:c")
    told = [(None, "paths.output_dir=o"), (None, "training.seed=1"), ("encoder", "training.seed=2")]
    assert quick.of_encoder(told) == ("paths.output_dir=o", "training.seed=2")
    assert quick.options("timestamps", [("llm", "steps=3")]) == ("--model", "small")
    assert quick.options("timestamps", [("timestamps", "model=tiny")]) == ("--model", "tiny")
    with pytest.raises(UserError, match="llm:steps: must be llm:option=value"):
        quick.options("llm", [("llm", "steps")])


def test_parts_are_made_where_they_lie_among_the_runs(project: Project) -> None:
    values = project.values("x")
    config = Path("configs/demo_voxlm.yaml")
    assert quick.to_be_made(values, "llm") == Path("outputs/demo_voxlm_llm")
    with pytest.raises(
        UserError, match=r"demo_voxlm_encoder is not there, and no configs/demo_voxlm_encoder\.yaml"
    ):
        quick.encoder_config(config, values)
    write("configs/demo_voxlm_encoder.yaml")
    assert quick.encoder_config(config, values) == Path("configs/demo_voxlm_encoder.yaml")
    values["model"]["audio_encoder"] = "openai/whisper-small"
    assert quick.encoder_config(config, values) is None


def test_the_demos_configurations_and_the_plan_of_their_phases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    given = ["configs/demo_voxlm.yaml", "paths.output_dir=elsewhere", "training.seed=7", "--export", "best"]
    asked = quick.plan(quick.parser().parse_intermixed_args(given))
    phase1, phase2, encoder = asked.runs.values()
    assert phase1.resolved.folder == Path("elsewhere/demo_voxlm")
    assert phase2.resolved.folder == Path("elsewhere/demo_voxlm_phase2")
    options = phase2.resolved.values["model"]
    assert (options["phase"], options["name"]) == (2, "elsewhere/demo_voxlm")
    assert encoder.overrides == ("paths.output_dir=elsewhere",)
    assert encoder.resolved.values["paths"]["manifest_path"] == "data/english/manifest.tsv"
    assert (asked.given["llm"], asked.given["export"]) == (Path("elsewhere/demo_voxlm_llm"), Path("best"))


def test_other_architectures_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    assert cli.main(["quick-train", os.fspath(Path("configs/demo_whisper.yaml"))]) == 2
    assert "configs/demo_whisper.yaml: model.type is whisper" in capsys.readouterr().err


def test_the_phase_is_left_to_the_command() -> None:
    with pytest.raises(UserError, match=r"x\.yaml: training\.phase is 2; leave it out"):
        quick._check_model(Path("x.yaml"), {"type": "voxlm", "phase": 2})
