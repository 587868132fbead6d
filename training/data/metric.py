"""The scores of texts and words: one table that training, evaluation, reports and model cards read.

How a score is computed is in `training.evaluation.metrics` (``STATISTICS``) and `training.evaluation.word_times`.
"""

from __future__ import annotations

from dataclasses import dataclass

from training.data.example import TRANSCRIBE, TRANSLATE


@dataclass(frozen=True)
class Metric:
    """A score.

    Attributes:
        name: its key in files; behind ``eval_`` that of the trainer's logs.
        label: its printed name.
        task: task of the texts that it is of.
        higher_is_better: its direction.
        target: the value that the guides want to be passed, in percent; None without one.
        corpus: whether it is taken of texts, in percent, with a bootstrap interval; False: of times, in milliseconds.
        optional: whether some evaluations lack it although the task is scored; then no checkpoint is chosen by it unless
            the dev rows have it.
    """

    name: str
    label: str
    task: str
    higher_is_better: bool
    target: float | None = None
    corpus: bool = True
    optional: bool = False

    @property
    def logged(self) -> str:
        """Its name in the trainer's logs."""
        return f"{LOGGED}{self.name}"

    @property
    def wanted(self) -> str:
        """The target as it is written: ``< 15``."""
        return f"{'>' if self.higher_is_better else '<'} {self.target:g}"

    def reached(self, value: float | None) -> bool:
        """Whether ``value`` passes the target; False where it is undefined."""
        if value is None or self.target is None:
            return False
        return value > self.target if self.higher_is_better else value < self.target


LOGGED = "eval_"
"""What the trainer puts before the scores of an evaluation."""
LOSS = "loss"
"""The trainer's own score of an evaluation; lower is better."""

WER = Metric("wer", "WER", TRANSCRIBE, higher_is_better=False, target=15.0)
CER = Metric("cer", "CER", TRANSCRIBE, higher_is_better=False, target=10.0)
CER_SPACES = Metric("cer_spaces", "CER with spaces", TRANSCRIBE, higher_is_better=False, optional=True)
ONSET_MAE = Metric(
    "onset_mae", "onset error", TRANSCRIBE, higher_is_better=False, corpus=False, optional=True
)
BLEU = Metric("bleu", "BLEU", TRANSLATE, higher_is_better=True, target=25.0)
CHRF = Metric("chrf", "chrF", TRANSLATE, higher_is_better=True, target=50.0)

METRICS = {one.name: one for one in (WER, CER, CER_SPACES, ONSET_MAE, BLEU, CHRF)}
"""Every score by its name, in the order in which scores are listed."""
LABELS = {name: one.label for name, one in METRICS.items() if one.corpus}
"""Score of texts → its printed name."""
DOMAIN_METRIC = CER
"""The score by which domains are compared: the swap test and the verdict on an adapted model."""


def of_task(task: str) -> tuple[Metric, ...]:
    """The scores that every evaluation of the task has, its main score first."""
    return tuple(one for one in METRICS.values() if one.task == task and not one.optional)


def main_metric(task: str) -> Metric:
    """The score that checkpoints are chosen by where the configuration names none; of ``both`` tasks, the transcripts'."""
    return of_task(TRANSLATE if task == TRANSLATE else TRANSCRIBE)[0]


def higher_is_better(logged: str) -> bool:
    """The direction of a score by its name in the trainer's logs, also of one domain (``eval_cer_child``)."""
    name = base_score(logged)
    return METRICS[name].higher_is_better if name in METRICS else name != LOSS


def base_score(logged: str) -> str:
    """``cer`` for ``eval_cer``, ``cer`` and the score of one domain, ``eval_cer_child``."""
    name = logged.removeprefix(LOGGED)
    return name if name == ONSET_MAE.name else name.partition("_")[0]
