"""A run: from a checked configuration to a trained model in a folder of its own."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.base.errors import UserError
from training.config.agreement import precision
from training.config.arguments import best_metric, training_arguments
from training.config.schema import Config
from training.data.amounts import cells
from training.data.augment import Augment, make_augment
from training.data.control_marks import warn
from training.data.dataset import SpeechDataset, unwritable, validate
from training.data.ledger import DropLedger
from training.data.missing import checked, is_marker
from training.data.sound.channel import parse_channel
from training.data.sources.source import Split
from training.data.tasks import check_tasks
from training.engine import arithmetic, long_form
from training.engine.freezing import optimizer_name
from training.engine.selection import check_metric
from training.engine.spoken_language import with_language
from training.models.architecture import Architecture, BuildContext
from training.models.common.weights import cache_alone_without_network
from training.models.lookup import load

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything that `fit` needs; made by `build`."""

    config: Config
    architecture: Architecture
    train: SpeechDataset
    dev: SpeechDataset | None
    dropped: dict[str, DropLedger]
    callbacks: tuple[Any, ...] = ()
    """More of the trainer's callbacks, behind those of every run."""

    @property
    def folder(self) -> Path:
        """Checkpoints, logs, results and the final model of this run."""
        return self.config.output.dir


def open_split(config: Config, split: Split) -> Any:
    """The manifest of ``train``, ``dev`` or ``test``; None where the configuration names none."""
    rows, domains = config.data.source.open(split), config.data.domains
    if rows is not None and (channel := parse_channel(config.audio.channel)) is not None:
        rows.take_channel(channel)
    return rows if rows is None or domains is None or split == "test" else _of_domains(rows, domains, split)


def _of_domains(rows: Any, domains: Collection[str], split: Split) -> Any:
    """The rows of these domains; `UserError` for one that no row has."""
    there = cells(rows, "domain")
    if absent := sorted(set(domains) - set(there)):
        known = ", ".join(sorted({name for name in there if name})) or "none"
        raise UserError(
            f"data.domains: no row of {split} is of the domain {absent[0]!r} (there are: {known})"
        )
    return rows.select([index for index, domain in enumerate(there) if domain in domains])


def build(config: Config, *, source: Path | None = None, resume: bool = False) -> Run:
    """Read the data, build the model, drop what cannot be used and say what that was.

    ``source``: checkpoint whose weights are taken. ``resume``: the run in ``output.dir`` goes on. Raises `UserError` when more than ``data.max_dropped_share`` of a split cannot be used.
    """
    check_device(config)
    train = open_split(config, "train")
    if train is None:
        raise UserError("data.train: nothing to train on")
    config = with_language(config, train, resume=resume)
    dev = open_split(config, "dev") if config.training.eval_strategy != "no" else None
    context = BuildContext(
        texts=lambda: trained_texts(train, config.data.keep_text_markers),
        source=source,
        seed=config.training.seed,
    )
    architecture = build_architecture(config, context)
    check_sample_rate(config, architecture)
    augment = augment_for(config, architecture)
    for note in architecture.notes:
        logger.info(note)
    datasets, dropped = {}, {}
    for name, manifest in (("train", train), ("dev", dev)):
        if manifest is not None:
            check_tasks(manifest, architecture.tasks, f"data.{name}", every=name == "train")
            datasets[name], dropped[name] = usable(config, architecture, manifest, name)
    datasets["train"].augment = augment
    datasets["train"].long_form = long_form.draws(config, architecture, datasets["train"].manifest)
    limit = config.evaluation.max_utterances
    if "dev" in datasets and limit is not None and len(datasets["dev"]) > limit:
        datasets["dev"] = datasets["dev"].select(_spread(len(datasets["dev"]), limit))
    if "dev" in datasets:
        timed = architecture.aligner is not None
        check_metric(best_metric(config), datasets["dev"].manifest, architecture.tasks, timed=timed)
    return Run(
        config=config,
        architecture=architecture,
        train=datasets["train"],
        dev=datasets.get("dev"),
        dropped=dropped,
    )


def check_sample_rate(config: Config, architecture: Architecture) -> None:
    """`UserError` where the sample rate of the audio is not that of the model."""
    if config.audio.sample_rate != architecture.sample_rate:
        raise UserError(
            f"audio.sample_rate: {config.audio.sample_rate}, but this model takes {architecture.sample_rate} samples a second"
        )


def augment_for(config: Config, architecture: Architecture) -> Augment | None:
    """The changes of the training clips; `UserError` for those that cannot be with this model or without a folder."""
    return make_augment(
        config.augmentation,
        sample_rate=architecture.sample_rate,
        seed=config.training.seed,
        spectrogram=architecture.spectrogram,
        joinable=architecture.frames is not None or architecture.long_form is not None,
    )


def learning_part(config: Config, architecture: Architecture) -> tuple[Any, Any]:
    """The model to train and the plan of what of it learns. What unfreezes later is not frozen here."""
    from training.engine import freezing as trainable

    settings = config.training
    if settings.gradient_checkpointing and not architecture.model.supports_gradient_checkpointing:
        raise UserError(
            f"training.gradient_checkpointing: {type(architecture.model).__name__} does not support it; set it to "
            "false, or set supports_gradient_checkpointing in that class and make its layers "
            "transformers' GradientCheckpointingLayer"
        )
    return trainable.apply(
        architecture,
        mode=settings.trainable,
        freeze=settings.freeze,
        freeze_encoder=bool(settings.freeze_encoder),
        freeze_feature_encoder=bool(settings.freeze_feature_encoder),
        freeze_encoder_epochs=settings.freeze_encoder_epochs or 0,
        lora=settings.lora,
        rates=settings.learning_rates,
    )


def build_architecture(config: Config, context: BuildContext) -> Architecture:
    """The architecture that ``model.type`` names, seeded, its loss smoothed as ``training.label_smoothing_factor`` says."""
    from transformers import set_seed

    assert config.model is not None
    set_seed(context.seed)
    with cache_alone_without_network([] if context.meta else config.model.weights.values()):
        built: Architecture = load(config.model.type).build(config.model, context)  # type: ignore[attr-defined]
    built.model.label_smoothing = config.training.label_smoothing_factor  # type: ignore[assignment]
    return built


def usable(
    config: Config, architecture: Architecture, manifest: Any, name: str
) -> tuple[SpeechDataset, DropLedger]:
    """The dataset of a split less what cannot be trained on, and the ledger of what that was."""
    encode = architecture.train_encode if name == "train" else None
    dataset = SpeechDataset(
        manifest,
        encode or architecture.encode,
        architecture.sample_rate,
        min_seconds=config.data.min_seconds,
        max_seconds=config.audio.max_length_seconds,
        keep_markers=checked(config.data.keep_text_markers, "data.keep_text_markers"),
    )
    for note in getattr(manifest, "notes", ()):
        logger.info(f"{name}: {note}")
    kept, found = validate(dataset, workers=config.dataloader.num_workers)
    ledger = DropLedger([*getattr(manifest, "refused", ()), *found])
    total = len(manifest) + len(ledger) - len(found)
    if ledger.drops:
        logger.warning(f"{name}: {len(ledger)} of {total} utterances cannot be used\n{ledger.summary()}")
    ledger.check_share(total, config.data.max_dropped_share)
    if not len(kept):
        raise UserError(f"data.{name}: none of {len(manifest)} utterances can be used; see the list above")
    chosen = (
        dataset if len(kept) == len(dataset) else dataset.select(kept)
    )  # a selection is a copy of the table
    pieces, rows = unwritable(chosen)
    if pieces:
        logger.warning(
            f"{name}: {pieces} pieces of text in {rows} utterances are not in the model's vocabulary; they read as "
            "unknown, and no hypothesis can contain them"
        )
    warn((text for _, _, text in manifest.texts()), lambda line: logger.warning(f"{name}: {line}"))
    return chosen, ledger


def check_device(config: Config) -> None:
    """`UserError` where this machine lacks the profile's device."""
    import torch

    profile = config.profile
    if profile.device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            f"profile.device: cuda (profile {profile.name}), but this machine shows no GPU; use --hardware cpu, or auto; "
            "polyvox doctor says what is missing"
        )
    if profile.device == "mps" and not torch.backends.mps.is_available():
        raise UserError("profile.device: mps, but this machine shows no Apple GPU; use --hardware auto")


def arguments(run: Run) -> Any:
    """`Seq2SeqTrainingArguments` of the run on this machine."""
    import torch
    from transformers import Seq2SeqTrainingArguments

    values = training_arguments(run.config)
    values |= _arithmetic(run.config)
    if not torch.cuda.is_available():
        values |= {"fp16": False}
    device = "cuda" if torch.cuda.is_available() and run.config.profile.device != "cpu" else "cpu"
    _check_bf16(values)
    if "optim" in values:
        values["optim"] = optimizer_name(str(values["optim"]), device)
    values["label_smoothing_factor"] = 0.0  # the model's own loss smooths
    values["logging_nan_inf_filter"] = False  # a loss that is not finite stops the run instead
    if run.dev is None:
        values |= {"eval_strategy": "no", "load_best_model_at_end": False}
    try:
        return Seq2SeqTrainingArguments(**values)
    except (ValueError, ImportError) as error:
        raise UserError(f"training: transformers refuses these settings: {error}") from error


def _arithmetic(config: Config) -> dict[str, bool]:
    """What ``profile.precision: auto`` means here, said in a line; nothing for any other value."""
    if precision(config) != arithmetic.AUTO:
        return {}
    chosen = arithmetic.choice(config)
    logger.info(f"profile.precision: {chosen}")
    return {
        "use_cpu": arithmetic.device(config) == "cpu",
        **{name: chosen.precision == name for name in ("fp16", "bf16")},
    }


def _check_bf16(values: Mapping[str, Any]) -> None:
    """`UserError` where bf16 is asked for on a machine that has no GPU for it."""
    from transformers.utils import is_torch_bf16_gpu_available

    if values["bf16"] and not values["use_cpu"] and not is_torch_bf16_gpu_available():
        raise UserError(
            "profile.precision: bf16 (or training.bf16), but this machine shows no GPU that computes in it; use "
            f"profile.precision=fp32, fp16 on an older GPU, or profile.device=cpu, where bf16 works{_bf16_on_cpu()}"
        )


def _bf16_on_cpu() -> str:
    found = arithmetic.fast_bf16_on_cpu()
    if found is None:
        return " but is slow on this processor, which has neither AVX512-BF16 nor AMX"
    return f" and is faster than fp32 on this processor ({found})"


def trained_texts(manifest: Any, keep: Collection[str]) -> Iterator[tuple[str, str | None, str]]:
    """The texts that are trained on: no vocabulary is made of rows that the ledger takes."""
    return (text for text in manifest.texts() if not is_marker(text[-1], keep))


def _spread(total: int, wanted: int) -> list[int]:
    """``wanted`` indices spread evenly over a split, so that every video has its part."""
    return [i * total // wanted for i in range(wanted)]
