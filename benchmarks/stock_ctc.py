"""CTC from scratch as the libraries' documentation has it: `datasets.map` to log-mels, a padding collator, `Trainer`.

What decides the result is the configuration's: the module with the same first weights, vocabulary, log-mels,
utterances, passes over them, clips per step, peak learning rate, warm-up, betas, weight decay. What has no stock flag
is not here: augmentation, the loss half way up the encoder, moving average, one cycle, silence around the clips, batches
by duration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import soundfile
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from training.config.arguments import DEFAULT_BATCH, training_arguments
from training.data.example import TRANSCRIBE, Example, Hypothesis
from training.engine.run import Run
from training.evaluation.quick_scores import corpus_scores
from training.models.common.targets import IGNORED
from training.models.ctc.build import collapsed
from training.models.ctc.config import Options
from training.models.ctc.model import BLANK_ID
from training.models.ctc.processor import log_mel_extractor

if TYPE_CHECKING:
    from evaluation_clock import EvaluationClock

OURS_TOO = (
    "learning_rate",
    "adam_beta1",
    "adam_beta2",
    "weight_decay",
    "max_grad_norm",
    "warmup_steps",
    "num_train_epochs",
    "max_steps",
    "eval_strategy",
    "eval_steps",
    "save_strategy",
    "save_steps",
    "save_total_limit",
    "logging_steps",
    "seed",
    "use_cpu",
    "label_names",
    "remove_unused_columns",
)
"""`TrainingArguments` that are those of the configuration."""


@dataclass(frozen=True)
class Recipe:
    """What a person chooses; ``threads`` of torch and data ``workers`` are two cores in every recipe."""

    sampling: str
    schedule: str
    threads: int
    workers: int
    map_processes: int | None
    row_format: str | None


TUTORIAL = Recipe("random", "linear", threads=2, workers=0, map_processes=None, row_format=None)
"""The libraries' defaults."""
BEST_FLAGS = Recipe("group_by_length", "cosine", threads=1, workers=1, map_processes=2, row_format="numpy")
"""Their flags for speed, and the schedule nearest to one cycle. Models as small as these are faster on one thread with a
worker than on two threads."""


class InOrder(Trainer):
    """Predicts the dev rows in their own order, whatever the batches of training are."""

    def _get_eval_sampler(self, eval_dataset: Any) -> SequentialSampler:
        return SequentialSampler(eval_dataset)


def train(run: Run, recipe: Recipe, clock: EvaluationClock, *, stock_log_mels: bool = False) -> None:
    """From the list of audio files to the end of the schedule, or to what stops ``clock``; writes into `Run.folder`.

    ``stock_log_mels``: normalised by band, as transformers' extractor has them, in the place of the configuration's.
    """
    datasets.disable_progress_bars()
    run.architecture.model.middle_weight = 0.0
    extractor = log_mels(run.config.model, stock_log_mels)
    run.folder.mkdir(parents=True, exist_ok=True)
    dev = mapped(run, "dev", extractor, recipe)  # a part of evaluation, which is not on the clock
    clock.start()
    trainer = InOrder(
        model=run.architecture.model,
        args=TrainingArguments(**arguments(run, recipe)),
        data_collator=collate,
        train_dataset=mapped(run, "train", extractor, recipe),
        eval_dataset=dev,
        compute_loss_func=ctc_mean,
        preprocess_logits_for_metrics=best_paths,
        compute_metrics=lambda found: scores(run, found.predictions),
        callbacks=[clock],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()


def log_mels(options: Options, stock: bool) -> Any:
    """The configuration's feature extractor without silence around the clips."""
    norm = "bands" if stock else options.feature_norm
    return log_mel_extractor(options.sample_rate, options.n_mels, options.n_fft, options.hop_length, norm)


def mapped(run: Run, split: str, extractor: Any, recipe: Recipe) -> datasets.Dataset:
    """``input_features`` ``[frames, mels]``, ``labels`` and ``length`` of every row, in an Arrow file."""
    rows = [{"audio": one.audio.path, "text": one.texts[TRANSCRIBE]} for one in examples(run, split)]
    columns = datasets.Features(
        input_features=datasets.Array2D((None, extractor.feature_size), "float32"),
        labels=datasets.Sequence(datasets.Value("int64")),
        length=datasets.Value("int64"),
    )
    found = datasets.Dataset.from_list(rows).map(
        prepared,
        fn_kwargs={"extractor": extractor, "tokenizer": run.architecture.processor.tokenizer},
        remove_columns=["audio", "text"],
        features=columns,
        cache_file_name=str(run.folder / f"{split}.arrow"),
        num_proc=recipe.map_processes,
    )
    return found.with_format(recipe.row_format)


def examples(run: Run, split: str) -> list[Example]:
    """The rows that our run uses, in order."""
    manifest = getattr(run, split).manifest
    return [manifest[i] for i in range(len(manifest))]


def prepared(row: Mapping[str, str], extractor: Any, tokenizer: Any) -> dict[str, Any]:
    """One audio file and its text."""
    samples, rate = soundfile.read(row["audio"], dtype="float32")
    sound = extractor(samples, sampling_rate=rate, return_tensors="np")
    frames = int(sound["attention_mask"][0].sum())
    features = sound["input_features"][0][:frames]
    return {"input_features": features, "labels": tokenizer.encode(row["text"]), "length": frames}


def collate(rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """Padded to the longest of the batch."""
    sounds = [torch.tensor(row["input_features"], dtype=torch.float32) for row in rows]
    lengths = torch.tensor([len(sound) for sound in sounds])
    features = pad_sequence(sounds, batch_first=True)
    labels = [torch.tensor(row["labels"], dtype=torch.long) for row in rows]
    return {
        "input_features": features,
        "attention_mask": (torch.arange(features.shape[1]) < lengths[:, None]).long(),
        "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED),
    }


def clips_per_step(run: Run) -> int:
    """As many as our batches hold on average."""
    settings = run.config.training
    size = settings.batch_size or (None if settings.max_batch_seconds else DEFAULT_BATCH)
    batches = run.config.data.source.batches(run.train.manifest)(
        max_seconds=settings.max_batch_seconds, batch_size=size
    )
    return round(len(run.train) / len(batches))


def arguments(run: Run, recipe: Recipe) -> dict[str, Any]:
    """Keyword arguments for `TrainingArguments`."""
    values = training_arguments(run.config)
    rows = clips_per_step(run)
    return {
        **{name: values[name] for name in OURS_TOO if name in values},
        "output_dir": str(run.folder),
        "report_to": "none",
        "disable_tqdm": True,
        "per_device_train_batch_size": rows,
        "per_device_eval_batch_size": rows,
        "lr_scheduler_type": recipe.schedule,
        "train_sampling_strategy": recipe.sampling,
        "length_column_name": "length",
        "dataloader_num_workers": recipe.workers,
        "dataloader_persistent_workers": recipe.workers > 0,
        "dataloader_prefetch_factor": 2 if recipe.workers else None,
        "dataloader_pin_memory": False,
    }


def ctc_mean(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
    """Each clip's loss by its number of labels, and the mean of them: ``ctc_loss_reduction="mean"``."""
    known = labels != IGNORED
    log_probs = outputs.logits.float().log_softmax(dim=-1).transpose(0, 1)
    lengths = known.sum(dim=-1)
    return torch.nn.functional.ctc_loss(
        log_probs, labels[known], outputs.lengths, lengths, blank=BLANK_ID, reduction="mean"
    )


def best_paths(logits: tuple[torch.Tensor, ...], labels: torch.Tensor) -> torch.Tensor:
    """The likeliest label of each frame ``[batch, frames]``, blanks behind the last real one."""
    values, lengths = logits[:2]
    real = torch.arange(values.shape[1], device=values.device) < lengths[:, None]
    return values.argmax(dim=-1).masked_fill(~real, BLANK_ID)


def scores(run: Run, paths: np.ndarray) -> dict[str, float]:
    """What our trainer reports of the same hypotheses; paths ``[rows, frames]`` filled up with `IGNORED`."""
    dev = examples(run, "dev")
    filled = torch.from_numpy(np.where(paths == IGNORED, BLANK_ID, paths))
    said = [run.architecture.text(collapsed(path).tolist()) for path in filled]
    return corpus_scores(
        dev, [Hypothesis(id=one.id, task=TRANSCRIBE, text=text) for one, text in zip(dev, said, strict=True)]
    )
