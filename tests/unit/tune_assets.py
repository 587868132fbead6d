"""A configuration to be tuned, and a stand-in for the training of a trial."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

CONFIG = """
model: {{type: ctc, encoder: transformer, d_model: 16, num_encoder_layers: 2, num_heads: 2, d_ff: 32, dropout: 0.1}}
data: {{train: {folder}/train.csv, dev: {folder}/dev.csv, test: {folder}/missing.csv}}
training: {{batch_size: 2, max_steps: 30, learning_rate: 1.0e-3, eval_steps: 10, report_to: none}}
output: {{dir: {folder}/run, experiment_name: tiny}}
"""


def config(folder: Path) -> Path:
    """Written into the folder with two manifests of one row."""
    for name in ("train", "dev"):
        rows = "id,audio_path,duration,transcript\nu,u.wav,1.0,one two\n"
        (folder / f"{name}.csv").write_text(rows, encoding="utf8")
    path = folder / "tiny.yaml"
    path.write_text(CONFIG.format(folder=folder), encoding="utf8")
    return path


def fake_training(
    score: Callable[[Any, int], float], steps: int = 30, every: int = 10
) -> Callable[..., None]:
    """As `training.tuning.trials.train`, with ``score(config, step)`` for the metric and a file for the weights."""
    from training.base.errors import LOGGER
    from training.engine.fit import Abandoned

    def train(config: Any, watch: Any) -> None:
        LOGGER.info("a line of the run")
        config.output.dir.mkdir(parents=True)
        (config.output.dir / "checkpoint-10").mkdir()
        (config.output.dir / "model.safetensors").write_bytes(b"weights")
        (config.output.dir / "config.yaml").write_text(config.to_yaml(), encoding="utf8")
        control: Any = SimpleNamespace(should_training_stop=False)
        for step in range(every, steps + 1, every):
            state: Any = SimpleNamespace(global_step=step, max_steps=steps)
            watch.on_evaluate(None, state, control, metrics={watch.metric: score(config, step)})
            if control.should_training_stop:
                break
        watch.on_train_end(None, state, control)
        if watch.abandoned:
            raise Abandoned

    return train
