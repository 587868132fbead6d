"""A VoxLM by the literal commands: phase 1, phase 2, what each changed, the folder without the run's configuration."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_project
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
import voxlm_assets

pytestmark = pytest.mark.recipe

CONFIG = """
model:
  type: voxlm
  audio_encoder: {folder}/whisper
  llm: {folder}/llm
  encoder_context: trimmed
  max_label_tokens: 128
  aligner: {{width: 16, layers: 1, heads: 2}}
data: {{train: {folder}/train.csv, dev: {folder}/dev.csv, test: {folder}/dev.csv}}
training:
  batch_size: 2
  max_steps: 6
  learning_rate: 1.0e-2
  logging_steps: 2
  eval_steps: 3
  save_steps: 3
  report_to: none
  load_best_model_at_end: false
  phase1: {{trainable: lora, lora: {{r: 2, after_epochs: 0.5}}}}
  phase2: {{max_steps: 4, eval_steps: 2, save_steps: 2}}
dataloader: {{num_workers: 0, pin_memory: false}}
profile: {{device: cpu}}
output: {{dir: {folder}/outputs/tiny}}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A trained phase 1 and what its folder is called."""
    folder = tmp_path_factory.mktemp("voxlm")
    tiny_project.make(folder)
    with_words(folder)
    voxlm_assets.parts(folder)
    config = folder / "tiny.yaml"
    config.write_text(CONFIG.format(folder=folder), encoding="utf8")
    run(config)
    return config


def with_words(folder: Path) -> None:
    """Word times in both manifests: the words one after the other."""
    for name in ("train", "dev"):
        path = folder / f"{name}.csv"
        with path.open(encoding="utf8", newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            said, seconds = row["transcript"].split(), float(row["duration"])
            row["words"] = json.dumps(
                [[w, i * seconds / len(said), (i + 1) * seconds / len(said)] for i, w in enumerate(said)]
            )
        with path.open("w", encoding="utf8", newline="") as file:
            writer = csv.DictWriter(file, [*rows[0]])
            writer.writeheader()
            writer.writerows(rows)


def run(config: Path, *arguments: str, status: int = 0) -> str:
    done = tiny_project.train(config, *arguments)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def history(folder: Path) -> list[dict]:
    (found,) = (folder / "metrics").glob("*_metrics.json")
    return json.loads(found.read_text(encoding="utf8"))["history"]


def test_phase_1_leaves_the_encoder_and_moves_projector_and_language_model(project):
    folder = project.parent
    weights = load_file(folder / "outputs/tiny/model.safetensors")
    encoder = load_file(folder / "whisper/model.safetensors")
    for name, value in weights.items():
        if name.startswith("audio_encoder."):
            assert value.equal(encoder[f"model.encoder.{name.removeprefix('audio_encoder.')}"]), name
    llm = load_file(folder / "llm/model.safetensors")
    moved = {n for n in llm if not llm[n].equal(weights[f"language_model.{n}"])}
    assert moved and all("proj" in name for name in moved)  # adapters, merged into the weights
    assert not any("decoder" in name or "lora" in name for name in weights)


def test_phase_2_leaves_all_of_phase_1_bit_equal(project):
    folder = project.parent
    second = folder / "outputs/second"
    said = run(project, "training.phase=2", f"model.name={folder}/outputs/tiny", f"output.dir={second}")
    assert "onset_mae" in said
    scores = {key for row in history(second) for key in row if key.startswith("eval_")}
    assert "eval_onset_mae" in scores and not scores & {"eval_wer", "eval_cer"}  # the text is given
    assert "→" not in said
    before, after = (load_file(f / "model.safetensors") for f in (folder / "outputs/tiny", second))
    assert {n for n in after if not n.startswith("aligner.")} == set(before)
    assert all(after[name].equal(value) for name, value in before.items())
    code = (
        "import sys, training.models.voxlm.model; from transformers import AutoModel, AutoProcessor; "
        "m, info = AutoModel.from_pretrained(sys.argv[1], output_loading_info=True); "
        "p = AutoProcessor.from_pretrained(sys.argv[1]); "
        "print(type(m).__name__, type(p).__name__, len(info['missing_keys']), len(info['unexpected_keys']))"
    )
    (second / "config.yaml").rename(second / "elsewhere.yaml")
    loaded = subprocess.run(
        [sys.executable, "-c", code, str(second)],
        env=tiny_project.environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert loaded.stdout.split() == ["VoxLM", "VoxLMProcessor", "0", "0"], loaded.stderr


def test_phase_2_without_phase_1_says_what_it_needs(project):
    said = run(project, "training.phase=2", status=2)
    assert "phase: 2 goes on with a model of phase 1" in said
    third = f"output.dir={project.parent}/outputs/third"
    said = run(project, "training.phase=2", "model.name=/nowhere/phase1", third, status=2)
    assert "/nowhere/phase1" in said and "train phase 1 first" in said
    whisper = f"--checkpoint={project.parent}/whisper"
    assert "holds no whole VoxLM (it is a whisper)" in run(
        project, "training.phase=2", whisper, third, status=2
    )


def test_fresh_leaves_the_model_of_phase_1(project):
    folder = project.parent / "outputs/tiny"
    said = run(project, "training.phase=2", f"--checkpoint={folder}", "--fresh", status=2)
    assert "is left alone" in said and (folder / "model.safetensors").is_file()


def test_a_dry_run_of_either_phase(project):
    first = run(project, "--dry_run")
    assert "trainable after 0.5 epochs" in first and "frozen by the architecture: audio_encoder.*" in first
    second = run(project, "--dry_run", "training.phase=2", f"model.name={project.parent}/outputs/tiny")
    assert "frozen by the architecture: language_model.*" in second and "not counted" not in second
