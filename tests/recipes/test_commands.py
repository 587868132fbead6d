"""The commands as they are typed, in processes of their own, one after the other in an empty folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

pytestmark = pytest.mark.recipe

ROOT = Path(__file__).parents[2]
TINY = [
    *(
        "training.max_steps=4",
        "training.eval_steps=4",
        "training.save_steps=4",
        "training.max_batch_seconds=30",
    ),
    *("evaluation.max_utterances=4", "evaluation.max_new_tokens=8", "evaluation.resamples=100"),
    *("evaluation.silence_probes=false", "dataloader.num_workers=0"),
]
posix = pytest.mark.skipif(os.name != "posix", reason="shell scripts of a POSIX system")


def call(*command: object, cwd: Path, expect: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run, with what it said in the failure message."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == expect, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


def python(*arguments: object, cwd: Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """``python …`` of the environment that the tests run in."""
    return call(sys.executable, *arguments, cwd=cwd, expect=expect)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute of the demo corpus, cleaned and split, in a path with a space."""
    folder = tmp_path_factory.mktemp("a project")
    python("-m", "training.cli", "demo-data", "--minutes", 2, cwd=folder)
    manifest = ("--input", "data/export/manifest.tsv", "--output", "data/export/manifest_clean.tsv")
    python(ROOT / "training/data/preprocess_manifest.py", *manifest, cwd=folder)
    split = ("--manifest", "data/export/manifest_clean.tsv", "--output_dir", "data/splits")
    python(ROOT / "training/data/split_data.py", *split, cwd=folder)
    return folder


@pytest.mark.slow
def test_from_demo_data_to_charts(folder: Path) -> None:
    config = ROOT / "configs/demo_whisper.yaml"
    python(ROOT / "training/scripts/train.py", "--config", config, *TINY, cwd=folder)
    run = folder / "outputs/demo_whisper"
    assert json.loads((run / "train_results.json").read_text())["steps"] == 4
    evaluate = ("--model_dir", "outputs/demo_whisper", "--model_type", "whisper")
    test_csv = ("--test_csv", "data/splits/test.csv", "--output", "outputs/results")
    shown = python(ROOT / "training/scripts/run_evaluation.py", *evaluate, *test_csv, cwd=folder).stdout
    assert "WER" in shown
    scores = json.loads((folder / "outputs/results/demo_whisper_metrics.json").read_text())["scores"]
    assert all(scores[name]["value"] >= 0 for name in ("wer", "cer", "bleu", "chrf"))
    python(ROOT / "training/scripts/export_charts.py", cwd=folder)
    for name in ("training_loss", "wer_comparison", "bleu_comparison"):
        assert (folder / f"outputs/charts/{name}.png").read_bytes().startswith(b"\x89PNG")
    assert (
        (folder / "outputs/charts/report.html")
        .read_text(encoding="utf8")
        .lstrip()
        .lower()
        .startswith("<!doctype")
    )


def test_the_splits_hold_every_utterance_once(folder: Path) -> None:
    parts = [folder / f"data/splits/{name}.csv" for name in ("train", "dev", "test", "unheard")]
    rows = [line for part in parts for line in part.read_text(encoding="utf8").splitlines()[1:]]
    cleaned = (folder / "data/export/manifest_clean.tsv").read_text(encoding="utf8").splitlines()[1:]
    assert len(rows) == len(set(rows)) == len(cleaned)


@pytest.mark.parametrize(
    "path",
    [
        *(
            "scripts/train.py",
            "scripts/run_evaluation.py",
            "scripts/export_charts.py",
            "scripts/transcribe.py",
        ),
        *("scripts/compare.py", "data/preprocess_manifest.py", "data/split_data.py", "data/demo.py"),
    ],
)
def test_scripts_run_by_their_path(path: str, tmp_path: Path) -> None:
    """Their folders are not importable: a script called `evaluate.py` would shadow the library."""
    assert "usage:" in python(ROOT / "training" / path, "--help", cwd=tmp_path).stdout


def test_polyvox_is_installed() -> None:
    (entry,) = entry_points(group="console_scripts", name="polyvox")
    assert entry.load() is __import__("training.cli", fromlist=["main"]).main


def test_a_mistake_in_an_override_ends_the_pipeline_before_it_begins(tmp_path: Path) -> None:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    command = ("-m", "training.cli", "pipeline", "--profile", "demo", "--config", "training.max_stepps=3")
    done = python(*command, cwd=tmp_path, expect=2)
    assert "max_stepps" in done.stderr and "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["configs"]


@posix
@pytest.mark.parametrize(
    "script", ["run_dev.sh", "run_prod.sh", "training/scripts/environment.sh", ".ci/run"]
)
def test_shell_scripts_parse(script: str) -> None:
    call("bash", "-n", ROOT / script, cwd=ROOT)


@posix
@pytest.mark.parametrize("script", ["run_dev.sh", "run_prod.sh"])
def test_help_needs_no_environment(script: str, tmp_path: Path) -> None:
    shown = call(ROOT / script, "--help", cwd=tmp_path, POLYVOX_VENV=str(tmp_path / "venv")).stdout
    assert "TORCH_INDEX_URL" in shown and "--fresh" in shown
    assert not (tmp_path / "venv").exists()


@posix
def test_make_help_lists_the_targets() -> None:
    shown = call("make", cwd=ROOT).stdout
    assert all(f"make {target}" in shown for target in ("test", "lint", "help", "demo"))


@posix
def test_no_supported_python_is_said(tmp_path: Path) -> None:
    """From any folder, in a path with a space, with nothing but an old Python on PATH."""
    project, tools = tmp_path / "a project", tmp_path / "bin"
    tools.mkdir()
    for tool in ("bash", "dirname", "env"):
        (tools / tool).symlink_to(shutil.which(tool) or tool)
    (tools / "python3").write_text("#!/bin/bash\nexit 1\n")
    (tools / "python3").chmod(0o755)
    (project / "training/scripts").mkdir(parents=True)
    for name in ("run_dev.sh", "training/scripts/environment.sh"):
        shutil.copy(ROOT / name, project / name)
    bare = {"PATH": str(tools), "POLYVOX_VENV": "", "POLYVOX_PYTHON": ""}
    done = call(project / "run_dev.sh", cwd=tmp_path, expect=2, **bare)
    assert "no Python 3.11, 3.12 or 3.13" in done.stderr


@posix
def test_run_dev_hands_the_pipeline_its_options(tmp_path: Path) -> None:
    """With a stand-in for Python: what the shell part calls, and that options keep their spaces."""
    project = tmp_path / "a project"
    (project / "training/scripts").mkdir(parents=True)
    (project / "venv/bin").mkdir(parents=True)
    for name in ("run_dev.sh", "run_prod.sh", "training/scripts/environment.sh"):
        shutil.copy(ROOT / name, project / name)
    stand_in = project / "venv/bin/python"
    stand_in.write_text('#!/bin/bash\nprintf "<%s>" "$@" >> calls; echo >> calls\n')
    stand_in.chmod(0o755)
    venv = str(project / "venv")
    call(project / "run_dev.sh", "--yes", "--config", "output.dir=a b", cwd=tmp_path, POLYVOX_VENV=venv)
    call(project / "run_prod.sh", "--num_processes", 2, cwd=tmp_path, POLYVOX_VENV=venv)
    install, pipeline, _, prod = (project / "calls").read_text().splitlines()
    assert install.startswith("<-m><training.scripts.environment><--extras><demo,lora><--title>")
    assert install.endswith("<--yes>")
    assert pipeline == (
        "<-m><training.cli><pipeline><--stage><dev><--installed><--yes><--config><output.dir=a b>"
    )
    assert prod == "<-m><training.cli><pipeline><--stage><prod><--installed><--num_processes><2>"
