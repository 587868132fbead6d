"""The command of guide 002, as it is typed, on a small data set of shards: without network and without weights."""

from __future__ import annotations

import csv
import subprocess
from pathlib import Path

import pytest
import tiny_project

from training.data.manifest import load_manifest
from training.data.sources.shards.write import write_shards

pytestmark = pytest.mark.recipe
PROD = tiny_project.ROOT / "configs" / "prod_domain_whisper.yaml"
BASIC = "--num-train-epochs 100 --run-name my_experiment"
ADVANCED = (
    "--base-model openai/whisper-tiny --run-name advanced_experiment --learning-rate 1e-4 --num-train-epochs 200 "
    "--per-device-train-batch-size 8 --grad-accum 4 --warmup-steps 2000 --eval-steps 1000 --save-steps 1000 --bf16 "
    "--num-workers 24 --persistent-workers --gradient_checkpointing --samples-per-shard 1000"
)


@pytest.fixture(scope="module")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine clips in `train`, two in `val_small`, none of which says its domain; their texts in Korean letters."""
    folder = tmp_path_factory.mktemp("guide")
    tiny_project.make(folder)
    for split, name in (("train", "train"), ("dev", "val_small")):
        source = folder / f"{split}.csv"
        _without_translation(source)
        write_shards(load_manifest(source), folder / "data set" / name, samples_per_shard=4)
    return folder / "data set"


def _without_translation(path: Path) -> None:
    with path.open(encoding="utf8", newline="") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", encoding="utf8", newline="") as file:
        writer = csv.DictWriter(
            file, [name for name in rows[0] if name != "translation"], extrasaction="ignore"
        )
        writer.writeheader()
        writer.writerows({**row, "transcript": "오늘은 날씨가 좋네요"} for row in rows)


def dry_run(data_set: Path, arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    line = tiny_project.command(PROD, "--dataset-root", str(data_set), *arguments.split(), "--dry_run")
    environment = {**tiny_project.environment(), "HF_HOME": str(cwd / "hub")}
    return subprocess.run(line, capture_output=True, text=True, timeout=300, cwd=cwd, env=environment)


def test_the_advanced_command(data_set: Path, tmp_path: Path) -> None:
    done = dry_run(data_set, ADVANCED, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("--samples-per-shard 1000: not needed, samples are counted")
    assert "run advanced_experiment" in done.stdout
    assert "domain_whisper, openai/whisper-tiny, task transcribe, language ko" in done.stdout
    assert "learning rate 0.0001, cosine, warm-up 2000 steps" in done.stdout
    assert "train          9 utterances" in done.stdout and "dev            2 utterances" in done.stdout
    assert "2 of 51,865 rows of model.decoder.embed_tokens.weight" in done.stdout
    assert "fits: " in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_data_set_that_is_not_there(tmp_path: Path) -> None:
    line = tiny_project.command(PROD, "--dataset-root", str(tmp_path / "gone"), *BASIC.split())
    done = subprocess.run(
        line, capture_output=True, text=True, timeout=300, cwd=tmp_path, env=tiny_project.environment()
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"{tmp_path}/gone/train" in done.stderr
