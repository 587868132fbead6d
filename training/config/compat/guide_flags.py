"""Options of ``polyvox train`` by the names that the guides give them; each stands for keys of the configuration."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from training.base.errors import UserError
from training.base.nearest import did_you_mean
from training.config import shipped

KEYS = {
    "num_epochs": "training.num_train_epochs",
    "batch_size": "training.batch_size",
    "learning_rate": "training.learning_rate",
    "d_model": "model.d_model",
    "num_train_epochs": "training.num_train_epochs",
    "per_device_train_batch_size": "training.batch_size",
    "grad_accum": "training.gradient_accumulation_steps",
    "warmup_steps": "training.warmup_steps",
    "lr_scheduler_type": "training.lr_scheduler_type",
    "eval_steps": "training.eval_steps",
    "save_steps": "training.save_steps",
    "save_total_limit": "training.save_total_limit",
    "num_workers": "dataloader.num_workers",
    "target_sr": "audio.sample_rate",
    "epochs": "training.num_train_epochs",
    "lr": "training.learning_rate",
    "alignment_weight": "model.alignment_weight",
}
"""Option → the key that its value goes to."""
NAMES = {
    "checkpoint_dir": "output.dir",
    "pretrained_model": "model.pretrained",
    "run_name": "output.experiment_name",
    "base_model": "model.name",
    "checkpoint": "model.name",
    "output": "paths.output_dir",
    "data": "data.librispeech.root",
    "train_split": "data.librispeech.train",
    "val_split": "data.librispeech.dev",
    "timestamps": "data.train",
    "val_timestamps": "data.dev",
}
"""The same for values that are text, whatever they look like (a run may be called 001)."""
SWITCHES = {
    "bf16": "training.bf16=true",
    "gradient_checkpointing": "training.gradient_checkpointing=true",
    "persistent_workers": "training.dataloader_persistent_workers=true",
    "login_wandb": "training.report_to=wandb",
    "wandb": "training.report_to=wandb",
    "compile": "training.torch_compile=true",
}
"""Option without a value → what it sets."""
FOLDERS = {"train": ("train", "train_normal"), "dev": ("val_small", "val_small_normal")}
"""Split → the folders of shards that a guide's data set may have for it."""
NO_PICKLE = (
    "a run's folder is meant, such as outputs/voxlm-2b; a .pt is a pickle, which runs code when it is loaded"
)
WORD_TIMES = ("training.phase=2", "data.librispeech=null")
"""Further overrides of ``--timestamps``: phase 2 learns from word times instead of the corpus."""


def add_to(parser: argparse.ArgumentParser) -> None:
    """Put the options into a command line, each with ``_`` and with ``-``."""
    group = parser.add_argument_group("short names of keys, also with - for _")
    for name, key in {**KEYS, **NAMES}.items():
        group.add_argument(*_spellings(name), metavar="VALUE", help=f"the same as {key}=VALUE")
    for name, override in SWITCHES.items():
        group.add_argument(*_spellings(name), action="store_true", help=f"the same as {override}")
    group.add_argument(
        "--model",
        metavar="NAME",
        help="the same as --config configs/NAME.yaml; --timestamps: also training.phase=2, in place of data.librispeech",
    )
    group.add_argument(
        *_spellings("dataset_root"),
        type=Path,
        metavar="FOLDER",
        help="data.shards.train and .dev: FOLDER/train, train_normal, val_small, val_small_normal, as far as there",
    )
    group.add_argument(
        *_spellings("samples_per_shard"), type=int, metavar="N", help="not needed: samples are counted"
    )
    group.add_argument(
        *_spellings("login_hf"),
        action="store_true",
        help="when the run is finished, score it on its test split and publish it privately on the Hub (HF_TOKEN, or hf auth login)",
    )


def _spellings(name: str) -> list[str]:
    return list(dict.fromkeys([f"--{name}", f"--{name.replace('_', '-')}"]))


def config_file(args: argparse.Namespace) -> Path:
    """The file of ``--config``, or of ``--model``; `UserError` without either, and with both."""
    if args.config is not None and args.model is not None:
        raise UserError(
            f"--model {args.model} stands for --config configs/{args.model}.yaml; leave out one of them"
        )
    if args.config is not None:
        return Path(args.config)
    if args.model is None:
        raise UserError("which configuration? --config FILE (see configs/ and docs/configuration.md)")
    file = shipped.CONFIGS / f"{args.model}.yaml"
    if not shipped.located(file).is_file():
        there = shipped.names()
        hint = (
            did_you_mean(str(args.model), there)
            or f"; {shipped.CONFIGS}/ has {', '.join(there) or 'no configuration'}"
        )
        raise UserError(f"--model {args.model}: there is no {file}{hint}")
    return file


def overrides(args: argparse.Namespace) -> list[str]:
    """What was given, as ``key=value``; `UserError` for a checkpoint that is one file, and for two names of a key with
    different values."""
    _check_names(args)
    if args.checkpoint is not None and args.checkpoint.endswith(".pt"):
        raise UserError(f"--checkpoint {args.checkpoint}: {NO_PICKLE}")
    if args.val_timestamps is not None and args.timestamps is None:
        raise UserError(
            f"--val-timestamps {args.val_timestamps}: goes with --timestamps, those of the training split"
        )
    given = [f"{key}={value}" for name, key in KEYS.items() if (value := getattr(args, name)) is not None]
    given += [
        f"{key}={json.dumps(value, ensure_ascii=False)}"
        for name, key in NAMES.items()
        if (value := getattr(args, name)) is not None
    ]
    if args.warmup_steps is not None:  # in place of a share that the file may set
        given.append("training.warmup_ratio=null")
    given += [override for name, override in SWITCHES.items() if getattr(args, name)]
    given += WORD_TIMES if args.timestamps is not None else ()
    return [*given, *([] if args.dataset_root is None else shards_in(args.dataset_root))]


def _check_names(args: argparse.Namespace) -> None:
    given: dict[str, tuple[str, str]] = {}
    for name, key in {**KEYS, **NAMES}.items():
        if (value := getattr(args, name)) is None:
            continue
        other, earlier = given.setdefault(key, (name, value))
        if earlier != value:
            raise UserError(
                f"--{other} {earlier} and --{name} {value} both stand for {key}; leave out one of them"
            )


def shards_in(root: Path) -> Iterator[str]:
    """``data.shards`` of a folder: the folders that are there, the first of a split where none is.

    A domain that the file gives to a folder that is not there is taken back.
    """
    for split, names in FOLDERS.items():
        there = [name for name in names if (root / name).is_dir()] or [names[0]]
        folders = [str(root / name) for name in there]
        yield f"data.shards.{split}={json.dumps(folders, ensure_ascii=False)}"
        yield from (f"data.shards.domains.{name}=null" for name in names if name not in there)


def notes(args: argparse.Namespace) -> list[str]:
    """Lines to print about options that change nothing."""
    if args.samples_per_shard is None:
        return []
    return [
        f"--samples-per-shard {args.samples_per_shard}: not needed, samples are counted from the archives' headers"
    ]
