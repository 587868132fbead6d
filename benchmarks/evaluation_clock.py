"""When a CTC training reached which CER: a callback that stands still while the model is evaluated."""

from __future__ import annotations

import hashlib
import time
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class EvaluationClock(TrainerCallback):
    """Seconds since `start` without those of evaluation, and the CER at each evaluation; ends the run at ``target``.

    The clock stands from the end of a step that is evaluated to the end of its evaluation, in every arm alike.
    """

    def __init__(self, target: float) -> None:
        self.target = target
        self.abandoned = False
        """Whether the target is reached; our trainer then writes no final model."""
        self.prepared = 0.0
        """Seconds before the first step."""
        self.curve: list[dict[str, float]] = []
        self.weights = ""
        """Digest of those that training begins with."""
        self._counted, self._since = 0.0, 0.0

    def start(self) -> None:
        """Go, or go on."""
        self._since = time.perf_counter()

    def stop(self) -> float:
        """Stand still; the seconds so far."""
        self._counted += time.perf_counter() - self._since
        return self._counted

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.prepared = self.stop()
        self.weights = digest(kwargs["model"])
        self.start()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if control.should_evaluate:
            self.stop()

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float],
        **kwargs: Any,
    ) -> None:
        cer = metrics["eval_cer"]
        self.curve.append({"step": state.global_step, "seconds": self._counted, "cer": cer})
        self.abandoned = cer <= self.target
        control.should_training_stop |= self.abandoned
        self.start()


def digest(model: Any) -> str:
    """Of all weights, in order."""
    found = hashlib.sha256()
    for value in model.state_dict().values():
        found.update(value.numpy().tobytes())
    return found.hexdigest()[:16]
