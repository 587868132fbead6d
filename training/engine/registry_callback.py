"""A training run writes itself into the registry: a callback of the Trainer that never stops a training."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from training.base.errors import UserError
from training.registry import recording
from training.registry.store import Registry, open_registry

if TYPE_CHECKING:
    from training.config.schema import Config

logger = logging.getLogger(__name__)


class RegistryCallback(TrainerCallback):
    """The run, and after every evaluation and epoch all its figures. A failure to write is reported once.

    Nothing is lost then: the figures are in the run's folder too, and ``polyvox data record`` stores them later.
    """

    def __init__(self, config: Config, stopped: Callable[[], bool]) -> None:
        self.config, self.stopped = config, stopped
        self.run_id: int | None = None
        self.complained = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            self._try(self._start)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            self._try(lambda registry: self._store(registry, state))

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            self._try(lambda registry: self._store(registry, state))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            self._try(lambda registry: self._finish(registry, state))

    def _start(self, registry: Registry) -> None:
        self.run_id = recording.start_run(
            registry,
            self.config.output.dir,
            name=self.config.output.experiment_name,
            version=self.config.data.version,
            config=self.config.to_yaml(),
        )

    def _store(self, registry: Registry, state: TrainerState) -> None:
        if self.run_id is None:
            self._start(registry)
        assert self.run_id is not None
        recording.store_metrics(registry, self.run_id, state.log_history)

    def _finish(self, registry: Registry, state: TrainerState) -> None:
        self._store(registry, state)
        assert self.run_id is not None
        status = recording.STOPPED if self.stopped() else recording.FINISHED
        results = {
            "steps": state.global_step,
            "epochs": state.epoch,
            "best_metric": state.best_metric,
            "best_checkpoint": state.best_model_checkpoint,
        }
        recording.finish_run(registry, self.run_id, status=status, results=results)

    def _try(self, act: Callable[[Registry], None]) -> None:
        database = self.config.data.source.database
        assert database is not None
        try:
            with open_registry(database) as registry:
                act(registry)
        except UserError as error:
            if not self.complained:
                self.complained = True
                logger.warning(
                    f"warning: the registry does not take this run's figures: {error}; they are in the run's folder, and "
                    f"polyvox data record {self.config.output.dir} stores them later"
                )
