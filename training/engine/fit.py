"""The training of a `Run`: trainer, callbacks, final model, results."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import EarlyStoppingCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from training.base.errors import UserError, first_rank
from training.config.arguments import DEFAULT_BATCH, batch_policy, decode_options, environment
from training.config.hardware import contradiction, look
from training.config.load import save_resolved
from training.config.schema import Config
from training.data.amounts import amounts
from training.data.sampler import Joining
from training.engine import (
    averaging,
    callbacks,
    checkpoint,
    epoch_summary,
    long_form,
    opening,
    provenance,
    schedule,
    tracking,
)
from training.engine import freezing as trainable
from training.engine import run as runs
from training.engine.folder import (
    OF_VALUE,
    check_folder,
    claim_folder,
    dropped_file,
    own_files,
    vain_start_removed,
    write_results,
)
from training.engine.provenance import Provenance
from training.engine.run import Run
from training.engine.trainer import SpeechTrainer
from training.engine.versions import commit, versions
from training.evaluation.quick_scores import corpus_scores, given_scores
from training.models.architecture import Architecture
from training.models.common.attention import use_products

if TYPE_CHECKING:
    from training.engine.run import Run

logger = logging.getLogger(__name__)


class Stopped(Exception):
    """The run was asked to stop by a signal, has saved, and can be resumed."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by signal {number}")
        self.number = number


class Abandoned(Exception):
    """One of `Run.callbacks` has ended the run before its time (its ``abandoned`` is true): no model is written."""


def make_trainer(run: Run) -> tuple[SpeechTrainer, Any]:
    """The trainer of a run and the plan of what it trains."""
    config = run.config
    settings = config.training
    model, plan = runs.learning_part(config, run.architecture)
    arguments = runs.arguments(run)
    if settings.fp16 and not arguments.fp16:
        logger.warning("training.fp16: there is no GPU here, training goes on in fp32")
    if arguments.bf16 and arguments.device.type == "cpu":
        use_products(run.architecture.model)
    given = run.architecture.aligner is not None and run.architecture.aligner.given_text
    trainer = SpeechTrainer(
        architecture=run.architecture,
        model=model,
        args=arguments,
        train_dataset=run.train,
        eval_dataset=run.dev,
        policy=batch_policy(config),
        score=given_scores if given else corpus_scores,
        options=decode_options(config),
        one_cycle=settings.lr_scheduler_type == "onecycle",
        joining=joining(config, run.architecture) if run.architecture.frames is not None else None,
        no_decay=plan.rows,
        rates=plan.rates,
        ema_decay=settings.ema_decay,
        make_batches=config.data.source.batches(
            run.train.manifest,
            long_form.neighbours_to_join(config, run.architecture, run.train.manifest),
        ),
    )
    return trainer, plan


def joining(config: Config, architecture: Architecture) -> Joining | None:
    """Which clips of a batch become one utterance in a CTC model; None where ``augmentation.join`` is off."""
    settings = config.augmentation.join
    if not (config.augmentation.enabled and settings.prob):
        return None
    return Joining(
        settings.prob,
        settings.most,
        min(config.audio.max_length_seconds, architecture.encode.longest or math.inf),
        config.training.seed,
        settings.after_epochs,
    )


def add_callbacks(trainer: SpeechTrainer, run: Run, plan: Any) -> callbacks.StopSignalCallback:
    """The callbacks of every run, in the order in which they see the logs."""
    settings = run.config.training
    for default in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(default)
    signals = callbacks.StopSignalCallback()
    harder = run.config.augmentation.starting_later
    metrics = run.folder / "metrics" / f"{run.config.output.experiment_name}_metrics.json"
    lines = callbacks.LoggingCallback()
    chosen: list[Any] = [
        epoch_summary.EpochSummaryCallback(lines.say),
        lines,
        callbacks.MetricsSaveCallback(metrics, run.config.output.experiment_name),
        callbacks.ConvergenceMonitorCallback(anew=tuple(harder.values())),
        callbacks.HypothesisCallback(lambda: trainer.last_predictions),
        signals,
        tracking.TrackingCallback(run.config, trainable.table(trainer.bare_model, plan)),
    ]
    if run.config.data.source.database is not None:
        from training.engine.registry_callback import RegistryCallback

        chosen.append(RegistryCallback(run.config, lambda: signals.received is not None))
    chosen += [callbacks.AugmentationStartCallback(key, epochs) for key, epochs in harder.items()]
    if plan.unfreeze:
        model = trainer.bare_model
        chosen.append(
            callbacks.EncoderUnfreezeCallback(
                plan.unfreeze_epochs,
                freeze=lambda: trainable.freeze_for_now(model, plan),
                unfreeze=lambda: trainable.unfreeze(model, plan),
            )
        )
    if settings.early_stopping_patience and run.dev is not None:
        chosen.append(EarlyStoppingCallback(settings.early_stopping_patience))
    for callback in (*chosen, *run.callbacks):
        trainer.add_callback(callback)
    return signals


@dataclass(frozen=True)
class Ready:
    """A trainer whose device, batches, optimiser and schedule are known to work; made by `prepare`, before anything is
    written."""

    trainer: SpeechTrainer
    plan: Any
    signals: callbacks.StopSignalCallback
    provenance: Provenance


def prepare(run: Run, *, resume: Path | None, accept_changed_data: bool) -> Ready:
    """All that can go wrong before the first step, tried; writes nothing.

    Raises `UserError` for settings that this machine or this data cannot be trained with, and for data that are not
    those that ``resume`` was trained on (unless ``accept_changed_data``).
    """
    if run.config.training.cpu_threads:
        torch.set_num_threads(run.config.training.cpu_threads)
    if told := contradiction(run.config.profile, look()):
        logger.warning(f"warning: {told}")
    found = provenance.continued(run, resume, accept_changed_data=accept_changed_data)
    trainer, plan = make_trainer(run)
    signals = add_callbacks(trainer, run, plan)
    steps = schedule.check(trainer)
    trainer.provenance = provenance.on_devices(found, trainer.args, resume)
    for line in opening.lines(run, trainer.bare_model, plan, trainer.provenance.devices, steps):
        logger.info(line)
    return Ready(trainer, plan, signals, trainer.provenance)


def train(run: Run, ready: Ready, *, resume: Path | None) -> dict[str, Any]:
    """Train to the end of the schedule; write the final model and `training.engine.folder.RESULTS`."""
    with tracking.closed_at_the_end(run.config):
        return _train(run, ready, resume)


def _train(run: Run, ready: Ready, resume: Path | None) -> dict[str, Any]:
    trainer, plan, signals = ready.trainer, ready.plan, ready.signals
    started = time.perf_counter()
    try:
        output = trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    except torch.OutOfMemoryError as error:
        raise UserError(_too_large(run.config, error)) from error
    finally:
        signals.restore()
    if signals.received is not None:
        raise Stopped(signals.received)
    if any(getattr(callback, "abandoned", False) for callback in run.callbacks):
        raise Abandoned
    seconds = time.perf_counter() - started
    average_last(run, trainer)
    _, learning = trainable.counts(trainable.table(trainer.bare_model, plan))
    export(run, trainer)
    results = {
        "train_loss": output.training_loss,
        "steps": output.global_step,
        "epochs": trainer.state.epoch,
        "train_seconds": seconds,
        "audio_seconds_per_second": trainer.audio_seconds / seconds,
        "best_metric": trainer.state.best_metric,
        "best_checkpoint": trainer.state.best_model_checkpoint,
        "parameters": sum(p.numel() for p in run.architecture.model.parameters()),
        "trainable_parameters": learning,
        "cpu_threads": torch.get_num_threads(),
        "devices": ready.provenance.devices,
        "data_changes": ready.provenance.data_changes,
        "utterances": len(run.train),
        "data": amounts_of(run),
        "longest_seconds": trainer.batches.longest(math.ceil(trainer.state.epoch or 0))
        if trainer.batches
        else None,
        "resumed_from": str(resume) if resume else None,
        "commit": commit(),
        "versions": versions(),
    }
    if trainer.args.should_save:
        write_results(run.folder, results)
    return results


def _too_large(config: Config, error: Exception) -> str:
    """What to do where the GPU has not enough memory for a batch."""
    training = config.training
    name, value = (
        ("max_batch_seconds", training.max_batch_seconds)
        if training.max_batch_seconds
        else ("batch_size", training.batch_size or DEFAULT_BATCH)
    )
    smaller = (
        max(value / 2, config.audio.max_length_seconds) if name == "max_batch_seconds" else max(1, value // 2)
    )
    reason = str(error).partition(". ")[0]
    return (
        f"training.{name}: a batch ({value:g}) does not fit the GPU's memory ({reason}). Half of it has the same effect with "
        f"twice the accumulation: training.{name}={smaller:g} "
        f"training.gradient_accumulation_steps={2 * training.gradient_accumulation_steps} (--resume goes on from the last "
        "checkpoint); polyvox train --dry_run names more settings that fit"
    )


def amounts_of(run: Run) -> dict[str, dict[str, Any]]:
    """Amounts of training data and of the data that checkpoints were chosen on."""
    splits = {"train": run.train, "dev": run.dev}
    return {name: amounts(rows.manifest) for name, rows in splits.items() if rows is not None}


def average_last(run: Run, trainer: SpeechTrainer) -> None:
    """The mean of the newest checkpoints instead of the best one, where the dev split says that it is no worse."""
    wanted, best = run.config.training.average_checkpoints, trainer.state.best_metric
    folders = [path for path in checkpoint.checkpoints(run.folder) if not checkpoint.why_incomplete(path)]
    if not wanted or best is None or len(folders) < 2:
        return
    metric = str(trainer.args.metric_for_best_model)
    stays, found = averaging.keep_better(
        trainer.bare_model,
        folders[:wanted],
        lambda: trainer.evaluate()[metric],
        best,
        greater_is_better=bool(trainer.args.greater_is_better),
    )
    logger.info(
        f"the mean of the last {len(folders[:wanted])} checkpoints has {metric} {found:.4f}, the best one {best:.4f}: "
        f"{'the mean' if stays else 'the best one'} is kept"
    )


def export(run: Run, trainer: SpeechTrainer) -> None:
    """The final model in the run's folder, as stock transformers loads it: adapters merged, processor included."""
    if not trainer.args.should_save:
        return
    run.architecture.save(run.folder, trainable.merge(trainer.accelerator.unwrap_model(trainer.model)))


def fit(
    run: Run,
    *,
    resume: Path | None = None,
    fresh: bool = False,
    accept_changed_data: bool = False,
    claimed: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Train, keep the best model, write the run's folder; returns what `RESULTS` holds.

    ``resume`` is a whole checkpoint of this run; it goes on with other data only where ``accept_changed_data`` is set. A
    folder that already holds a run is a `UserError` unless ``fresh``, which removes that run's own files first. The
    folder is claimed (``claimed`` is called then) when device, optimiser and schedule are known to work; a start that
    fails behind that, before there is a checkpoint or a logged step, takes what it has written with it.
    """

    check_folder(run.folder, resume=resume, fresh=fresh)
    os.environ.update(environment(run.config))
    own = own_files(run) if resume is None and first_rank() else []
    with vain_start_removed(run.folder, own, of_value=OF_VALUE) as start:
        ready = prepare(run, resume=resume, accept_changed_data=accept_changed_data)
        claim_folder(run.folder, resume=resume, fresh=fresh)
        start.claimed = True
        claimed()
        if first_rank():
            save_resolved(run.config, run.folder, replace=resume is not None)
            for name, ledger in run.dropped.items():
                ledger.write(run.folder / dropped_file(name))
        return train(run, ready, resume=resume)
