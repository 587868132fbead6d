"""What a command's ``--help`` imports, and the benchmark that times it."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from training.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
HEAVY = (
    "torch",
    "transformers",
    "datasets",
    "accelerate",
    "librosa",
    "scipy",
    "matplotlib",
    "pandas",
    "sklearn",
    "evaluate",
    "optuna",
)
"""Packages that take longer to import than all of polyvox."""
IMPORTED = f"""
import sys
from training.cli import main
try:
    status = main(sys.argv[1:])
except SystemExit as left:
    status = left.code
assert not status, status
print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_imports_nothing_heavy(command: str | None) -> None:
    arguments = [command, "--help"] if command else ["--help"]
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED, *arguments], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")
    assert done.stderr.splitlines()[-1] == "[]"


def test_the_package_is_imported_at_once_and_without_torch() -> None:
    """Each name is imported at its first use. Seconds are the processor's: other processes may be at work."""
    code = f"""
import sys, time
begun = time.process_time()
import polyvox, training
print(time.process_time() - begun < 0.5, [name for name in {HEAVY} if name in sys.modules])
print(callable(training.evaluate), "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout.splitlines() == ["True []", "True False"], done.stderr


@pytest.mark.parametrize("package", ["polyvox", "training.cli"])
def test_the_package_can_be_executed(package: str) -> None:
    command = [sys.executable, "-m", package, "runs", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0 and done.stdout.startswith("usage: polyvox runs"), done.stderr


def test_the_benchmark_times_a_command_and_names_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    startup: Any = importlib.import_module("startup")
    common: Any = importlib.import_module("common")
    arms = {
        "--help": lambda _: startup.measure(["--help"], tmp_path, 0),
        "none --dry_run": lambda _: startup.measure(
            ["train", "--config", "none.yaml", "--dry_run"], tmp_path, 0
        ),
    }
    rounds = common.in_turns(arms, 1)
    quick = rounds[0].arms["--help"]
    assert quick["failure"] is None and quick["processor_seconds"] > 0 and quick["peak_mib"] > 1
    (failure,) = [one for one in startup.failures(rounds) if one.startswith("none --dry_run")]
    assert "exit status 2: error: " in failure and "none.yaml" in failure
    slow = common.Round({"--help": {**quick, "seconds": 1.5}}, (0.0, 0.0, 0.0))
    assert startup.failures([slow]) == ["--help: 1.5 s, the limit is 1 s"]
    assert startup.limit("demo_e2e --dry_run, data") == 10.0
    assert list(tmp_path.iterdir()) == []
