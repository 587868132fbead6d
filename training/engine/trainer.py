"""The trainer of all architectures: Hugging Face's, with its own batches, loss normalisation, checkpoints and scores."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, TrainerCallback
from transformers.trainer_utils import rotate_checkpoints

from training.base.errors import UserError
from training.base.progress import progress_bar
from training.data.batch_policy import BatchPolicy
from training.data.sampler import DurationBatchSampler, EpochBatches, Joining, Supervised
from training.data.workers import leave_signals_to_the_run
from training.decoding.predict import Prediction, predict
from training.engine import checkpoint, learning_rates, tracking
from training.engine.averaging import MovingAverage, MovingAverageCallback, save_raw
from training.engine.freezing import short_name
from training.engine.provenance import Provenance
from training.models.architecture import Architecture, DecodeOptions
from training.models.batch import supervised_positions


class NotFiniteError(UserError):
    """The loss of a batch is NaN or infinite; the message names its utterances."""


SHORT_EVALUATION = 2.0
"""Seconds up to which an evaluation shows no bar."""
NO_EPOCH = sys.maxsize
"""An epoch that no run reaches: a run that starts after it takes no step."""


class OneCycle(torch.optim.lr_scheduler.OneCycleLR):
    """A schedule that keeps the number of steps of *this* run when it is restored from a run with another number."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore all values except the shape of the cycle."""
        ours = ("total_steps", "_schedule_phases")
        super().load_state_dict({name: value for name, value in state_dict.items() if name not in ours})


class SpeechTrainer(Seq2SeqTrainer):
    """``Seq2SeqTrainer`` over an `Architecture`.

    - batches come from `DurationBatchSampler` or what ``make_batches`` makes, the same list on every rank;
    - the loss is normalised by the supervised tokens of the whole accumulated batch over all ranks;
    - ``evaluate`` gives the loss and the scores of hypotheses keyed by utterance id, from one encoding;
    - checkpoints hold safetensors and JSON only, and a marker when they are complete;
    - a loss that is not finite stops the run and names the utterances.

    Args:
        architecture: the model and its encoding, collation, loss and decoding.
        args: Hugging Face's arguments.
        train_dataset: encoded utterances, with ``durations`` in seconds.
        eval_dataset: the same of the dev split.
        policy: limits of the batches, in seconds of audio and in utterances.
        score: ``(examples, hypotheses) -> {name: value}``, called by `evaluate`.
        options: of decoding in `evaluate`; default: greedy.
        one_cycle: use the one-cycle schedule of the learning rate.
        joining: which clips become one utterance (augmentation); None: none.
        no_decay: names of parameters without weight decay.
        rates: peak learning rates of parameters that do not have ``args.learning_rate``.
        ema_decay: decay of the moving average of the weights; None: no average.
        make_batches: makes the sampler of batches; default: `DurationBatchSampler`.
        callbacks: added to Hugging Face's.
        model: the module to train where it is not ``architecture.model`` (adapters).
    """

    def __init__(
        self,
        *,
        architecture: Architecture,
        args: Seq2SeqTrainingArguments,
        train_dataset: Any,
        eval_dataset: Any,
        policy: BatchPolicy,
        score: Any,
        options: DecodeOptions | None = None,
        one_cycle: bool = False,
        joining: Joining | None = None,
        no_decay: Collection[str] = (),
        rates: Mapping[str, float] | None = None,
        ema_decay: float | None = None,
        make_batches: Callable[..., DurationBatchSampler] | None = None,
        callbacks: Sequence[TrainerCallback] = (),
        model: torch.nn.Module | None = None,
    ) -> None:
        super().__init__(
            model=model if model is not None else architecture.model,
            args=args,
            data_collator=architecture.train_collate or architecture.collate,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=architecture.processor,
            callbacks=list(callbacks),
        )
        self.architecture = architecture
        self.policy = policy
        self.make_batches = make_batches
        self.score = score
        self.options = options or DecodeOptions()
        self.audio_seconds = 0.0
        self._last_log = (time.perf_counter(), 0.0)
        self._loader: DataLoader[Any] | None = None
        self.last_predictions: list[Prediction] = []
        self.provenance: Provenance | None = None
        """Written with every checkpoint."""
        # Our forward takes num_items_in_batch and divides by it: no further scaling for accumulation.
        self.model_accepts_loss_kwargs = True
        self.loss_is_scaled_for_ga = True
        self.one_cycle, self.joining = one_cycle, joining
        self.no_decay = frozenset(no_decay)
        self.rates = rates or {}
        self.batches: DurationBatchSampler | EpochBatches | None = None
        self.average: MovingAverage | None = None
        if ema_decay is not None:
            self.average = MovingAverage(self.bare_model, ema_decay)
            self.add_callback(MovingAverageCallback(self.average, lambda: self.bare_model))

    @property
    def given_text(self) -> bool:
        """Whether the times of given words are scored, and no text is generated."""
        return self.architecture.aligner is not None and self.architecture.aligner.given_text

    @property
    def bare_model(self) -> torch.nn.Module:
        """The model without the wrapper of distributed training."""
        return self.accelerator.unwrap_model(self.model)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As the base class. It always stops the data workers, and loads the averaged weights at the end where there are any."""
        try:
            output = super().train(*args, **kwargs)
            if self.average is not None and not self._best_is_loaded():
                self.average.copy_to(self.bare_model)
            self.average = None  # checkpoints hold averaged weights already
            return output
        finally:
            iterator = getattr(self._loader, "_iterator", None)
            if iterator is not None and hasattr(iterator, "_shutdown_workers"):
                iterator._shutdown_workers()

    def _best_is_loaded(self) -> bool:
        return bool(self.args.load_best_model_at_end and self.state.best_model_checkpoint)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """As the base class, with the parameters' own learning rates."""
        new = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if new:
            chosen: Any = self.model if model is None else model
            learning_rates.give(optimizer, chosen, self.rates)
        return optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """As the base class, or one cycle (Smith and Topin, 2018): up over the warm-up (three tenths of the
        steps where none is set), down to nothing over the rest, along cosines. The momentum stays."""
        if not self.one_cycle or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        chosen = optimizer if optimizer is not None else self.optimizer
        assert chosen is not None
        warmup = self.args.get_warmup_steps(num_training_steps) / max(1, num_training_steps)
        self._created_lr_scheduler = True
        schedule = OneCycle(
            chosen,
            max_lr=[group["lr"] for group in chosen.param_groups],
            total_steps=num_training_steps + 1,
            pct_start=warmup or 0.3,
            cycle_momentum=False,
        )
        self.lr_scheduler = schedule  # type: ignore[assignment]
        return schedule

    def _init_training_state(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        """As the base class, but a run that has taken all its steps takes no further one."""
        epochs, batches = super()._init_training_state(*args, **kwargs)
        return (NO_EPOCH, 0) if self.state.global_step >= self.state.max_steps else (epochs, batches)

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        """As the base class, without parameters of which only some rows are trained: decay would change all rows."""
        return [
            name for name in super().get_decay_parameter_names(model) if short_name(name) not in self.no_decay
        ]

    # Batches

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The loader of this rank's batches. It is not given to accelerate, which would shard it again."""
        make = self.make_batches or partial(DurationBatchSampler, self.train_dataset.durations)  # type: ignore[union-attr]
        sampler = make(
            **self.policy.bounds(),
            seed=self.args.data_seed if self.args.data_seed is not None else self.args.seed,
            rank=self.args.process_index,
            world=self.args.world_size,
        )
        changed = any(
            getattr(self.train_dataset, kind, None) is not None for kind in ("augment", "long_form")
        )
        self.batches = EpochBatches(sampler, self.joining) if changed or self.policy.full_share else sampler
        workers = self.args.dataloader_num_workers
        self._loader = DataLoader(
            Supervised(self.train_dataset),
            batch_sampler=self.batches,
            collate_fn=self.data_collator,
            num_workers=workers,
            pin_memory=self.args.dataloader_pin_memory and torch.cuda.is_available(),
            persistent_workers=bool(workers) and self.args.dataloader_persistent_workers,
            prefetch_factor=self.args.dataloader_prefetch_factor if workers else None,
            multiprocessing_context=self.args.dataloader_multiprocessing_context if workers else None,
            worker_init_fn=leave_signals_to_the_run,
            # Its own generator, so that starting an iteration does not change the random numbers of dropout.
            generator=torch.Generator().manual_seed(self.args.seed),
        )
        return self._loader

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device) -> Any:
        """As the base class; also counts the seconds of audio (for hours per second)."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.audio_seconds += sum(batch["seconds"] for batch in batches)
        return batches, items

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        """Supervised positions of the accumulated batch over all ranks; the base class counts labels alone."""
        if not batch_samples:
            return None
        items = torch.tensor(sum(map(supervised_positions, batch_samples)))
        if not self.args.average_tokens_across_devices:
            items //= self.args.n_gpu or 1
        elif self.args.world_size > 1:
            items = self.accelerator.gather(items.to(device)).sum()
        if self.args.n_gpu > 1:  # DataParallel gives each GPU of this process a row
            items = items.expand(self.args.n_gpu, 1)
        return items.to(device)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the speed and the use of the GPU to the logs, before they are reported.

        ``audio_hours_per_second`` is the audio of this rank since the last log, in hours per second.
        """
        if "loss" in logs:
            now, (then, before) = time.perf_counter(), self._last_log
            logs["audio_hours_per_second"] = (self.audio_seconds - before) / 3600 / max(now - then, 1e-9)
            self._last_log = (now, self.audio_seconds)
            logs.update(tracking.gpu_use())
        super().log(logs, start_time)

    # Loss

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The loss of the model, divided by the supervised tokens of the accumulated batch over all ranks.

        Args:
            model: the module, perhaps wrapped for distributed training.
            inputs: a batch (see `training.models.batch.Batch`).
            return_outputs: also return the model's output.
            num_items_in_batch: supervised tokens of the accumulated batch over all ranks; None: those of ``inputs``.

        Returns:
            A scalar, or the scalar and the output.
        """
        outputs = self.architecture.loss(inputs, items=num_items_in_batch, model=model)
        loss = outputs.loss
        if num_items_in_batch is not None and self.args.world_size > 1:
            # DDP averages gradients over ranks, while the items were summed over them.
            loss = loss * self.args.world_size
        return (loss, outputs) if return_outputs else loss

    def training_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """One forward and backward pass. Raises `NotFiniteError` for a loss that is NaN or infinite."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        if not torch.isfinite(loss):
            raise NotFiniteError(
                f"the loss is {loss.item()} at step {self.state.global_step + 1}, in a batch of the utterances "
                f"{', '.join(inputs['ids'])}; the last checkpoint is untouched. Look at these clips "
                "(polyvox preprocess --decode measures all), or lower training.learning_rate, or train in bf16 or fp32 "
                "instead of fp16"
            )
        return loss

    # Evaluation

    def evaluate(  # type: ignore[override]
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Loss and scores of a dataset; each utterance counts once for any number of ranks.

        Args:
            eval_dataset: encoded utterances; default: the dev split.
            ignore_keys: not used.
            metric_key_prefix: begins the names of the results.

        Returns:
            ``{prefix}_loss``, ``{prefix}_runtime`` (seconds) and the scores.
        """
        dataset = eval_dataset if eval_dataset is not None else self.eval_dataset
        started = time.perf_counter()
        with self._averaged(), self._evaluation_bar(dataset) as bar:
            result = predict(
                self.architecture,
                dataset,
                model=self.bare_model,
                batch_seconds=self.policy.eval_seconds,
                batch_size=self.policy.eval_batch_size,
                options=self.options,
                given_text=self.given_text,
                rank=self.args.process_index,
                world=self.args.world_size,
                workers=self.args.dataloader_num_workers,
                context=self.args.dataloader_multiprocessing_context,
                autocast=self.compute_loss_context_manager,
                progress=bar.update,
            )
        result = result.gathered(self.args.world_size)
        self.last_predictions = [] if self.given_text else result.predictions
        metrics = {
            "loss": result.loss,
            **self.score([row.example for row in result.predictions], result.hypotheses),
        }
        metrics["runtime"] = time.perf_counter() - started
        metrics = {f"{metric_key_prefix}_{key}": value for key, value in metrics.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _evaluation_bar(self, dataset: Any) -> Any:
        """Seconds of this rank's sound; of several ranks the first shows it."""
        return progress_bar(
            total=float(dataset.durations.sum()) / self.args.world_size,
            unit="s",
            desc="evaluation",
            delay=SHORT_EVALUATION,
            leave=False,
            bar_format="{l_bar}{bar}| {n:.0f}/{total:.0f} s [{elapsed}<{remaining}]",
            shown=self.args.process_index == 0,
        )

    def _averaged(self) -> AbstractContextManager[dict[str, torch.Tensor]]:
        """A context in which the model has the averaged weights, where there is an average; gives the raw weights."""
        return nullcontext({}) if self.average is None else self.average.applied(self.bare_model)

    # Checkpoints

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """As in the base class; of equal scores that with the lower loss is the better one.

        Early in a training many evaluations have the same score (WER 100 %), and the first checkpoint is not the best.
        """
        if super()._determine_best_metric(metrics, trial):
            return True
        name = str(self.args.metric_for_best_model)
        score = metrics.get(name if name.startswith("eval_") else f"eval_{name}")
        loss, step = metrics.get("eval_loss"), self.state.best_global_step
        before = [
            line["eval_loss"]
            for line in self.state.log_history
            if line["step"] == step and "eval_loss" in line
        ]
        if score != self.state.best_metric or loss is None or not before or not loss < before[-1]:
            return False
        self.state.best_global_step = self.state.global_step
        return True

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Weights, configuration and processor; not the pickled arguments that the base class adds."""
        folder = Path(str(output_dir if output_dir is not None else self.args.output_dir))
        if not self.args.should_save:
            return
        folder.mkdir(parents=True, exist_ok=True)
        with self._averaged() as raw:
            self.bare_model.save_pretrained(folder, state_dict=state_dict)  # type: ignore[operator]
        if raw:
            save_raw(raw, folder)
        self.architecture.save_processor(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """As the base class; also restores the moving average and the raw weights."""
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.average is not None:
            self.average.restore(self.bare_model, Path(resume_from_checkpoint))

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """As the base class; marks the new checkpoint as complete before it deletes an older one."""
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        folder = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
        (folder / checkpoint.MARKER).unlink(missing_ok=True)
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            if self.provenance is not None:
                self.provenance.save(folder)
            checkpoint.mark_complete(folder)
            rotate_checkpoints(
                output_dir=str(folder.parent),
                save_total_limit=limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
                use_mtime=True,
            )

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
        elif self.args.should_save:
            checkpoint.save_optimizer(self.optimizer, Path(output_dir))
            assert self.lr_scheduler is not None
            checkpoint.write_json(Path(output_dir) / checkpoint.SCHEDULER, self.lr_scheduler.state_dict())

    def _load_optimizer_and_scheduler(self, folder: str | None) -> None:
        if folder is None:
            return
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_optimizer_and_scheduler(folder)
            return
        checkpoint.load_optimizer(self.optimizer, Path(folder))
        assert self.lr_scheduler is not None
        self.lr_scheduler.load_state_dict(json.loads((Path(folder) / checkpoint.SCHEDULER).read_text("utf8")))

    def _save_scaler(self, output_dir: str) -> None:
        scaler = getattr(self.accelerator, "scaler", None)
        if scaler is not None and self.args.should_save:
            checkpoint.write_json(Path(output_dir) / checkpoint.SCALER, scaler.state_dict())

    def _load_scaler(self, folder: str | None) -> None:
        scaler = getattr(self.accelerator, "scaler", None)
        if folder is not None and scaler is not None and (path := Path(folder) / checkpoint.SCALER).is_file():
            scaler.load_state_dict(json.loads(path.read_text("utf8")))

    def _save_rng_state(self, output_dir: str) -> None:
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        checkpoint.save_rng(Path(output_dir), self.args.process_index)

    def _load_rng_state(self, folder: str | None) -> None:
        if folder is not None:
            checkpoint.load_rng(Path(folder), self.args.process_index)
