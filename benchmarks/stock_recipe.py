"""Whisper fine-tuned on two tasks with transformers and datasets alone: the other side of the measurements.

    python benchmarks/stock_recipe.py --model FOLDER --manifest train.tsv --work DIR --steps 20 [--best] …

Written as the libraries' documentation and its audio course teach it: every clip becomes a row per task, ``map`` turns
rows into log-mels of 30 s in the cache on disk, a collator pads the labels, `Seq2SeqTrainer` draws random batches.
``--best`` (arm B) adds the flags that the documentation recommends for speed: features by several processes, rows of like
label length together, data workers, fused AdamW; scaled-dot-product attention is stock's default in either. Nothing here comes from this
library but `Clock`, which only looks on. As everywhere in the documentation the labels hold the prompt (language, task) and the
loss counts it; ours does not, so that the losses while training differ a little and those on held-out clips do not.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import librosa
import torch
from clock import Clock
from transformers import (
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    WhisperForConditionalGeneration,
    WhisperProcessor,
)
from transformers.models.whisper.modeling_whisper import shift_tokens_right
from transformers.trainer_callback import PrinterCallback

TASKS = {"transcribe": "transcript", "translate": "translation"}
RATE = 16_000
PROMPT = 3
"""Language, task, and that there are no timestamps."""


@dataclass
class DataCollatorSpeechSeq2SeqWithPadding:
    """Log-mels are of one length already; labels are filled up with what the loss ignores."""

    processor: WhisperProcessor
    start_id: int

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        batch = self.processor.feature_extractor.pad(
            [{"input_features": one["input_features"]} for one in features], return_tensors="pt"
        )
        labels = self.processor.tokenizer.pad(
            [{"input_ids": one["labels"]} for one in features], return_tensors="pt"
        )
        ids = labels["input_ids"].masked_fill(labels.attention_mask.ne(1), -100)
        if (ids[:, 0] == self.start_id).all():  # the model puts it in front itself
            ids = ids[:, 1:]
        batch["labels"] = ids
        return batch


def rows_of(manifest: Path) -> datasets.Dataset:
    """Every clip once for either task."""
    table = datasets.load_dataset("csv", data_files=str(manifest), delimiter="\t", split="train")
    doubled = [
        table.map(lambda row, task=task, column=column: {"task": task, "text": row[column]})
        for task, column in TASKS.items()
    ]
    return datasets.concatenate_datasets(doubled)


def features_of(
    rows: datasets.Dataset, processor: WhisperProcessor, root: Path, processes: int | None = None
) -> datasets.Dataset:
    """Log-mels of 30 s and labels, in the cache of datasets; made by so many processes."""
    tokenizer = processor.tokenizer

    def prepare(row: dict[str, Any]) -> dict[str, Any]:
        if processes is not None:
            torch.set_num_threads(1)  # each has a core; and torch's threads do not outlive a fork
        sound, _ = librosa.load(root / row["audio_path"], sr=RATE)
        prompt = ["<|startoftranscript|>", f"<|{row['language']}|>", f"<|{row['task']}|>", "<|notimestamps|>"]
        ids = tokenizer(f" {row['text']}", add_special_tokens=False).input_ids
        labels = [*tokenizer.convert_tokens_to_ids(prompt), *ids, tokenizer.eos_token_id]
        log_mel = processor.feature_extractor(sound, sampling_rate=RATE).input_features[0]
        return {"input_features": log_mel, "labels": labels, "length": len(labels)}

    return rows.map(prepare, remove_columns=rows.column_names, num_proc=processes)


def processes(args: argparse.Namespace) -> int | None:
    """That make features: with ``--best`` one for each core."""
    return os.cpu_count() if args.best else None


def arguments(args: argparse.Namespace) -> Seq2SeqTrainingArguments:
    """Of arm A, or with ``--best`` of arm B."""
    best: dict[str, Any] = {}
    if args.best:
        best = {
            "train_sampling_strategy": "group_by_length",
            "dataloader_num_workers": args.workers,
            "dataloader_pin_memory": args.device == "cuda",
            "optim": "adamw_torch_fused",
        }
    return Seq2SeqTrainingArguments(
        output_dir=str(args.work / "run"),
        per_device_train_batch_size=args.batch,
        learning_rate=args.learning_rate,
        warmup_steps=math.ceil(args.warmup_ratio * args.steps),
        max_steps=args.steps,
        use_cpu=args.device == "cpu",
        bf16=args.precision == "bf16",
        fp16=args.precision == "fp16",
        save_strategy="no",
        logging_steps=args.steps,
        report_to="none",
        disable_tqdm=True,
        seed=args.seed,
        **best,
    )


def held_out_loss(model: Any, collate: Any, features: datasets.Dataset, args: argparse.Namespace) -> float:
    """Mean loss of a token of the texts and their ends, teacher forced; the prompt is given, not said."""
    model.eval()
    total, count = 0.0, 0
    for first in range(0, len(features), args.batch):
        batch = collate([features[i] for i in range(first, min(first + args.batch, len(features)))])
        labels = batch["labels"].to(model.device)
        inputs = shift_tokens_right(labels, model.config.pad_token_id, model.config.decoder_start_token_id)
        labels[:, :PROMPT] = -100
        tokens = int(labels.ne(-100).sum())
        with torch.no_grad():
            output = model(
                input_features=batch["input_features"].to(model.device),
                decoder_input_ids=inputs,
                labels=labels,
            )
        total += float(output.loss) * tokens
        count += tokens
    return total / count


def main() -> None:
    """Prepare, train, look at the held-out rows, write the clock."""
    args = parser().parse_args()
    clock = Clock([args.work], marks=args.marks)
    processor = WhisperProcessor.from_pretrained(args.model)
    model = WhisperForConditionalGeneration.from_pretrained(args.model, dtype=torch.float32)
    features = features_of(rows_of(args.manifest), processor, args.root, processes(args))
    collate = DataCollatorSpeechSeq2SeqWithPadding(processor, model.config.decoder_start_token_id)
    trainer = Seq2SeqTrainer(
        model=model,
        args=arguments(args),
        train_dataset=features,
        data_collator=collate,
        processing_class=processor,
        callbacks=[clock],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    loss = None
    if args.held_out:
        loss = held_out_loss(model, collate, features_of(rows_of(args.held_out), processor, args.root), args)
    if args.keep:
        model.save_pretrained(args.keep)
        processor.save_pretrained(args.keep)
    clock.write(args.report, held_out_loss=loss)


def parser() -> argparse.ArgumentParser:
    """The command line, which `our_recipe` has too."""
    result = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("--model", type=Path, required=True, help="folder of the weights to begin with")
    result.add_argument("--manifest", type=Path, required=True, help="tab-separated, one row per clip")
    result.add_argument("--held_out", type=Path, help="the same, for the loss after training")
    result.add_argument("--root", type=Path, required=True, help="what audio_path is relative to")
    result.add_argument("--work", type=Path, required=True, help="folder for all that is written")
    result.add_argument("--report", type=Path, required=True, help="JSON of the clock")
    result.add_argument("--keep", type=Path, help="folder for the trained model (else it is not kept)")
    result.add_argument("--steps", type=int, default=20)
    result.add_argument("--marks", type=int, nargs="*", default=[], help="steps at which bytes are counted")
    result.add_argument("--batch", type=int, default=8, help="rows (clips × tasks) of a step")
    result.add_argument("--best", action="store_true", help="stock's flags for speed")
    result.add_argument("--workers", type=int, default=1)
    result.add_argument("--learning_rate", type=float, default=1e-3)
    result.add_argument("--warmup_ratio", type=float, default=0.1)
    result.add_argument("--seed", type=int, default=0)
    result.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    result.add_argument("--precision", choices=("fp32", "fp16", "bf16"), default="fp32")
    result.add_argument("--full_share", type=float, default=0.0, help="ours: share of clips at 30 s")
    return result


if __name__ == "__main__":
    main()
