"""Every shipped configuration, dry-run without network and without data, as it is typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from training.config.load import load_config
from training.planning.dry_run import VALID, dry_run

pytestmark = pytest.mark.recipe
ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted(path for path in (ROOT / "configs").glob("*.yaml") if path.stem != "base")
LITERAL = ("dev_whisper", "dev_e2e")
STARTS_FROM = {"demo_domain_whisper": "demo_domain_base"}
"""Configuration → the one whose finished run it takes its weights from."""

OF_PARTS = ("demo_voxlm",)
"""Made of parts that are trained first; `test_voxlm_runs` has dry runs of such a model."""


def command(config: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HOME": str(folder / "hub")}
    line = [
        sys.executable,
        str(ROOT / "training/scripts/train.py"),
        "--config",
        str(ROOT / config),
        *arguments,
    ]
    return subprocess.run(line, capture_output=True, text=True, cwd=folder, env=environment, check=False)


@pytest.mark.parametrize("name", LITERAL)
def test_the_literal_command(name: str, tmp_path: Path) -> None:
    done = command(f"configs/{name}.yaml", "--dry_run", folder=tmp_path)
    assert done.returncode == VALID, done.stderr
    assert "fits: " in done.stdout
    assert "not checked    weights" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_is_named_with_its_place(tmp_path: Path) -> None:
    done = command("configs/dev_whisper.yaml", "--dry_run", "training.lerning_rate=1e-4", folder=tmp_path)
    assert done.returncode == 2
    assert "command line: training.lerning_rate" in done.stderr
    (tmp_path / "broken.yaml").write_text(
        f"_base_: {ROOT}/configs/dev_whisper.yaml\n\ntraining:\n  batch_sise: 4\n"
    )
    done = command(str(tmp_path / "broken.yaml"), "--dry_run", folder=tmp_path)
    assert done.returncode == 2
    assert "broken.yaml:4: training.batch_sise" in done.stderr


def test_a_card_that_is_too_small(tmp_path: Path) -> None:
    # The weights of 318 M parameters alone take 1.2 GiB.
    done = command("configs/dev_e2e.yaml", "--dry_run", "profile.memory_gb=1.5", folder=tmp_path)
    assert done.returncode == 3, done.stderr
    assert "does not fit" in done.stdout


def from_scratch(path: Path) -> list[str]:
    """Overrides that give a configuration which starts from another one's run the sizes of that run."""
    if path.stem not in STARTS_FROM:
        return []
    base: Any = load_config(path.with_stem(STARTS_FROM[path.stem])).model
    return ["model.name=null", f"model.sizes={json.dumps(base.sizes)}"]


def test_a_run_to_start_from_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = command("configs/demo_domain_whisper.yaml", "--dry_run", folder=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "model.name: 'outputs/demo_domain_base' is neither in reach" in done.stderr


@pytest.mark.parametrize(
    "path", [p for p in SHIPPED if p.stem not in (*LITERAL, *OF_PARTS)], ids=lambda p: p.stem
)
def test_every_shipped_configuration(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines: list[str] = []
    assert dry_run(load_config(path, from_scratch(path)), lines.append) == VALID
    assert any("fits: " in line for line in lines)
    assert list(tmp_path.iterdir()) == []
