"""`data.librispeech` in a configuration: what it accepts, what contradicts it, a dry run on it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from librispeech_files import TEXTS, tree

from training.base.errors import UserError
from training.config.load import config_from
from training.engine.run import open_split

CONFIG = """
model: {{type: ctc, encoder: transformer, languages: [en], subsampling: 2, subsampling_channels: 8, d_model: 16,
        num_encoder_layers: 1, num_heads: 2, d_ff: 32, n_mels: 16, dropout: 0.0}}
data:
  librispeech: {{root: {root}, train: [train-clean-5], dev: [dev-clean], test: [test-clean]}}
training: {{batch_size: 2, max_steps: 2, logging_steps: 1, eval_strategy: steps, eval_steps: 2, save_steps: 2,
           report_to: none}}
dataloader: {{num_workers: 0, pin_memory: false}}
profile: {{device: cpu}}
output: {{dir: {root}/run, experiment_name: tiny}}
"""


def config(libri: dict[str, Any] | None, evaluated: str = "no", **data: Any) -> Any:
    return config_from({"training": {"eval_strategy": evaluated}, "data": {"librispeech": libri, **data}})


def test_one_split_or_several(tmp_path: Path) -> None:
    tree(tmp_path, "dev-clean")
    tree(tmp_path, "train-clean-5", {"19/198": TEXTS})
    tree(tmp_path, "train-clean-6", {"26/495": TEXTS[:1]})
    made = config({"root": str(tmp_path), "train": ["train-clean-5", "train-clean-6"], "dev": "dev-clean"})
    assert made.data.source.kind == "librispeech"
    assert len(open_split(made, "train")) == 4
    assert len(open_split(made, "dev")) == 6
    assert open_split(made, "test") is None
    assert config_from(made.as_dict()).data.librispeech == made.data.librispeech
    assert made.data.source.describe("train") == "LibriSpeech, train-clean-5, train-clean-6"


@pytest.mark.parametrize(
    ("libri", "data", "said"),
    [
        ({"train": []}, {}, "data.librispeech.train"),
        ({"dev": "b"}, {}, "data.librispeech.train"),
        ({"train": "a", "nothing": 1}, {}, "data.librispeech.nothing"),
        ({"train": "a"}, {"manifest": "m.csv"}, "data.manifest: data.librispeech is set too; choose one"),
        (
            {"train": ["a", "b"], "test": "b"},
            {},
            "data.librispeech.test: b is one of data.librispeech.train too",
        ),
        (
            {"train": "a", "dev": "b", "test": "b"},
            {},
            "data.librispeech.test: b is one of data.librispeech.dev too",
        ),
    ],
)
def test_what_cannot_be_meant(libri: dict[str, Any], data: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        config(libri, **data)


def test_a_dev_split_is_needed_where_it_is_scored() -> None:
    with pytest.raises(UserError, match=r"no dev split to score \(data.librispeech.dev is empty\)"):
        config({"train": "a"}, evaluated="epoch")
    assert config({"train": "a", "dev": "b"}, evaluated="epoch", dev=None).data.librispeech.dev == ("b",)


def polyvox(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "training.cli", *arguments]
    limited = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=limited)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A configuration beside three splits, one of which lacks a sound."""
    tree(tmp_path, "train-clean-5", {f"{speaker}/{speaker}": TEXTS for speaker in range(20, 40)}, seconds=1.5)
    (tmp_path / "LibriSpeech/train-clean-5/20/20/20-20-0001.flac").unlink()
    tree(tmp_path, "dev-clean", seconds=1.5)
    tree(tmp_path, "test-clean", {"61/70968": TEXTS}, seconds=1.5)
    config = tmp_path / "tiny.yaml"
    config.write_text(CONFIG.format(root=tmp_path), encoding="utf-8")
    return config


@pytest.mark.recipe
def test_a_run_on_it(project: Path) -> None:
    root = project.parent
    dry = polyvox("train", "--config", str(project), "--dry_run")
    assert dry.returncode == 0, dry.stdout + dry.stderr
    assert "train          59 utterances" in dry.stdout and "1 × missing_audio" in dry.stdout
    done = polyvox("train", "--config", str(project))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "train: 1 of 60 utterances cannot be used" in done.stdout
    assert "20-20-0001\tmissing_audio" in (root / "run/dropped_train.tsv").read_text()
    scored = polyvox(
        *("evaluate", "--model_dir", str(root / "run"), "--output", str(root / "results")),
        *("--evaluation", "silence_probes=false"),
    )
    assert scored.returncode == 0, scored.stdout + scored.stderr
    predictions = next((root / "results").glob("*_predictions.csv")).read_text()
    assert all(text.lower() in predictions for text in TEXTS)


@pytest.mark.recipe
def test_a_split_that_is_not_there(project: Path) -> None:
    dry = polyvox("train", "--config", str(project), "--dry_run", "data.librispeech.train=[train-clean-100]")
    wanted = project.parent / "LibriSpeech/train-clean-100"
    assert f"missing: {wanted} (make it with polyvox download librispeech, or name another)" in dry.stdout
    run = polyvox("train", "--config", str(project), "data.librispeech.train=[train-clean-100]")
    assert run.returncode == 2
    assert f"error: {wanted}: no such folder (splits that are there: dev-clean, test-clean" in run.stderr
    assert f"polyvox download librispeech --output {project.parent} --splits train-clean-100" in run.stderr
