"""A small training on utterances in memory, for tests of the trainer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Seq2SeqTrainingArguments, set_seed
from whisper_assets import TRANSCRIPT, TRANSLATION, example, noise, tiny

from training.data.batch_policy import BatchPolicy
from training.engine.trainer import SpeechTrainer
from training.evaluation.quick_scores import corpus_scores

LENGTHS = (0.6, 0.9, 1.1, 1.4, 1.6, 0.7, 1.2)


class InMemory(torch.utils.data.Dataset[Any]):
    """Encoded noise with texts of different lengths; what the trainer asks of a dataset."""

    def __init__(self, architecture: Any, lengths: tuple[float, ...] = LENGTHS) -> None:
        words = TRANSCRIPT.split()
        self.manifest = [
            example(f"u{i}", n, transcribe=" ".join(words[: 2 + i % 7]), translate=TRANSLATION)
            for i, n in enumerate(lengths)
        ]
        self.durations = np.array(lengths, dtype=np.float32)
        self.rows = [architecture.encode(row, noise(row.duration, i)) for i, row in enumerate(self.manifest)]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return self.rows[row]

    def drawn(self, row: int, epoch: int) -> dict[str, Any]:
        """The same in every epoch."""
        return self[row]


def make_trainer(
    folder: Path,
    *,
    batch_size: int = 2,
    accumulation: int = 1,
    steps: int = 4,
    dropout: float = 0.0,
    context: str = "full",
    lengths: tuple[float, ...] = LENGTHS,
    callbacks: tuple[Any, ...] = (),
    architecture: Any = None,
    options: dict[str, Any] | None = None,
    domains: tuple[str, ...] = (),
    **arguments: Any,
) -> SpeechTrainer:
    """Deterministic on CPU; records its losses in ``state.log_history``. ``options``: further ones of the trainer;
    ``domains``: of the rows, by turns."""
    set_seed(1)
    architecture = architecture or tiny(
        encoder_context=context, full_context_share=0.0, sizes={"dropout": dropout}
    )
    args = Seq2SeqTrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        max_steps=steps,
        learning_rate=1e-3,
        report_to=[],
        use_cpu=True,
        remove_unused_columns=False,
        disable_tqdm=True,
        **{"save_strategy": "no", "eval_strategy": "no", "logging_steps": 1, "seed": 1, **arguments},
    )
    dataset = InMemory(architecture, lengths)
    if domains:
        dataset.manifest = [
            replace(row, domain=domains[n % len(domains)]) for n, row in enumerate(dataset.manifest)
        ]
    return SpeechTrainer(
        architecture=architecture,
        args=args,
        train_dataset=dataset,
        eval_dataset=dataset,
        policy=BatchPolicy(batch_size=batch_size, eval_seconds=4.0),
        score=corpus_scores,
        callbacks=callbacks,
        **(options or {}),
    )


def losses(trainer: SpeechTrainer) -> list[float]:
    """Logged losses, step by step."""
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


def weights(trainer: SpeechTrainer) -> dict[str, torch.Tensor]:
    """Copies of all parameters."""
    return {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
