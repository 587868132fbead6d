"""References and hypotheses brought together, by utterance id and task and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from training.data.example import TASKS, TRANSLATE, Example, Hypothesis
from training.evaluation.normalize import Normalizer, collapse, normalizer, primary_language


@dataclass(frozen=True)
class Row:
    """One reference and what the model made of it. ``language`` is the language of the text."""

    example: Example
    task: str
    language: str
    raw_reference: str
    raw_hypothesis: str
    reference: str
    hypothesis: str
    seconds: float = 0.0

    @property
    def normalizer(self) -> Normalizer:
        return normalizer(self.language)

    @property
    def reference_words(self) -> list[str]:
        return self.reference.split()

    @property
    def hypothesis_words(self) -> list[str]:
        return self.hypothesis.split()


def text_language(example: Example, task: str) -> str:
    """The language that a text of the task is in: the target language of a translation, else the speech's."""
    code = example.target_language if task == TRANSLATE else None
    return primary_language(code or example.language)


def make_row(example: Example, task: str, reference: str, hypothesis: str, seconds: float = 0.0) -> Row:
    language = text_language(example, task)
    normal = normalizer(language)
    return Row(
        example=example,
        task=task,
        language=language,
        raw_reference=collapse(reference),
        raw_hypothesis=collapse(hypothesis),
        reference=normal(reference),
        hypothesis=normal(hypothesis),
        seconds=seconds,
    )


def join(examples: Sequence[Example], hypotheses: Sequence[Hypothesis]) -> dict[str, list[Row]]:
    """Rows by task, in the order of ``examples``.

    A task is scored when there is a hypothesis for it; then each example that has a text for it must have
    exactly one. Hypotheses for a task that their example has no text for are left out (nothing to compare
    with). Raises ``ValueError`` that names ids for missing, doubled or unknown ones.
    """
    by_id = _by_id(examples)
    spoken = _by_key(hypotheses, by_id)
    rows: dict[str, list[Row]] = {}
    for task in TASKS:
        if not any(key[1] == task for key in spoken):
            continue
        wanted = [example for example in examples if task in example.texts]
        _refuse("no hypothesis for", [f"{e.id} ({task})" for e in wanted if (e.id, task) not in spoken])
        found = [(example, spoken[example.id, task]) for example in wanted]
        rows[task] = [make_row(e, task, e.texts[task], h.text, h.seconds) for e, h in found]
    if not any(rows.values()):
        raise ValueError("nothing to score: no hypothesis has a reference")
    return {task: found for task, found in rows.items() if found}


def _by_id(examples: Sequence[Example]) -> Mapping[str, Example]:
    counts = Counter(example.id for example in examples)
    _refuse("utterance id used twice:", [name for name, count in counts.items() if count > 1])
    return {example.id: example for example in examples}


def _by_key(
    hypotheses: Iterable[Hypothesis], examples: Mapping[str, Example]
) -> dict[tuple[str, str], Hypothesis]:
    spoken: dict[tuple[str, str], Hypothesis] = {}
    for hypothesis in hypotheses:
        key = (hypothesis.id, hypothesis.task)
        if hypothesis.id not in examples or hypothesis.task not in TASKS:
            _refuse("hypothesis for an unknown utterance or task:", [f"{hypothesis.id} ({hypothesis.task})"])
        if key in spoken:
            _refuse("two hypotheses for", [f"{hypothesis.id} ({hypothesis.task})"])
        spoken[key] = hypothesis
    return spoken


def _refuse(what: str, ids: Sequence[str]) -> None:
    if ids:
        more = f" and {len(ids) - 5} more" if len(ids) > 5 else ""
        raise ValueError(f"{what} {', '.join(ids[:5])}{more}")
