"""The section of an evaluation on word times: of a model, of a teacher, and of words spread evenly over the clip."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from training.data.example import TRANSCRIBE, Example, Hypothesis, SpokenWord
from training.evaluation.rows import text_language
from training.evaluation.statistic import percent
from training.evaluation.word_matches import match_words
from training.evaluation.word_times import (
    TOLERANCES,
    Draws,
    error_ratio,
    onset_error,
    score_times,
    spoken_words,
    timing,
)
from training.transcription.transcript import spread

RULES = {
    "given": (
        "times of the reference's own words: the text is given, nothing is recognised; an utterance whose given words "
        "are not those of the timed reference is left out"
    ),
    "own": (
        "times of the words that the model recognised itself; errors over the words that the alignment of the WER "
        "matches, F1 over all words"
    ),
}
FIGURES_RULE = (
    "errors in milliseconds, hypothesis minus reference; within: share of the matched words whose start (or end) is so near; "
    "f1: a word is right where it is matched and start and end are both so near; iou: shared stretch over both stretches "
    "together, mean of the matched words; not_monotone: words that end before they start, or start or end before the word "
    "before them does; even: the words spread over the clip by their letters; even_over_model: mean onset error of even "
    "over that of the model; 95 % bootstrap"
)
Words = Mapping[str, Sequence[SpokenWord]]


def word_times_section(
    examples: Sequence[Example],
    own: Sequence[Hypothesis],
    given: Sequence[Hypothesis] | None = None,
    teacher: Words | None = None,
    *,
    train_speakers: Iterable[str] | None = None,
    resamples: int,
    seed: int,
) -> dict[str, Any] | None:
    """Scores of both modes of `RULES`; None where no reference has times, or there is nothing to score.

    own: hypotheses of the model's own text. given: hypotheses whose text is the reference's, None for a model that
    cannot. teacher: labels of the reference words, by utterance. train_speakers: speakers of the training split.
    """
    timed = [example for example in examples if example.words]
    trained = None if train_speakers is None else set(train_speakers)
    ours = spoken_words(own)
    modes: dict[str, dict[str, Words]] = {
        "given": _present(model=None if given is None else spoken_words(given), teacher=teacher),
        "own": _present(model=ours or None),
    }
    found = {
        mode: _mode(mode, timed, systems, trained, resamples, seed)
        for mode, systems in modes.items()
        if timed and systems
    }
    return {"rule": FIGURES_RULE, **found} if found else None


def _present(**systems: Words | None) -> dict[str, Words]:
    return {name: words for name, words in systems.items() if words is not None}


def _mode(
    mode: str,
    examples: Sequence[Example],
    systems: Mapping[str, Words],
    trained: set[str] | None,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Each system on the utterances that it has words of, evenly spread ones on the same."""
    section: dict[str, Any] = {"mode": mode, "rule": RULES[mode]}
    for name, words in systems.items():
        # A teacher has labels of some utterances; of a model, an utterance without words has missed them all.
        rows = [example for example in examples if name == "model" or words.get(example.id)]
        kept = [example for example in rows if mode == "own" or _same(example, words.get(example.id, ()))]
        hypotheses = [words.get(example.id, ()) for example in kept]
        even = [_even(mode, example, spoken) for example, spoken in zip(kept, hypotheses, strict=True)]
        draws = Draws.over(kept, resamples, seed)
        times, baseline = timing(kept, hypotheses), timing(kept, even)
        section[name] = {
            **score_times(times, draws),
            "left_out": len(rows) - len(kept),
            "without_times": sum(not spoken for spoken in hypotheses),
            "even_over_model": error_ratio(baseline, times, draws),
            **({"groups": _groups(kept, hypotheses, trained, resamples, seed)} if name == "model" else {}),
        }
        if "even" not in section:
            section["even"] = score_times(baseline, draws)
    return section


def _same(example: Example, words: Sequence[SpokenWord]) -> bool:
    """Whether the given words are those of the timed reference; where there are none, nothing contradicts it."""
    found = match_words(
        [[word.text for word in example.words]],
        [[word.text for word in words]],
        [text_language(example, TRANSCRIBE)],
    )[0]
    return not words or len(found.pairs) == len(found.references) == len(found.hypotheses)


def _even(mode: str, example: Example, hypothesis: Sequence[SpokenWord]) -> Sequence[SpokenWord]:
    words: Sequence[Any] = example.words if mode == "given" else hypothesis
    return spread(" ".join(word.text for word in words), 0.0, example.duration)


def _groups(
    examples: Sequence[Example],
    hypotheses: Sequence[Sequence[SpokenWord]],
    trained: set[str] | None,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """The main figures of the speakers of the training split, of all other speakers, and of each domain."""
    groups: dict[str, list[int]] = {}
    for place, example in enumerate(examples):
        for name in _names(example, trained):
            groups.setdefault(name, []).append(place)
    scores = {}
    for name, places in sorted(groups.items()):
        rows = [examples[place] for place in places]
        times, draws = (
            timing(rows, [hypotheses[place] for place in places]),
            Draws.over(rows, resamples, seed),
        )
        near = times.within(TOLERANCES[1], "start").astype("int64")
        scores[name] = {
            "utterances": len(rows),
            "matched_words": len(times.row),
            "start_mean_absolute_error": draws.interval(onset_error(times)),
            f"start_within_{TOLERANCES[1]}": draws.interval(times.mean(near, percent)),
        }
    return scores


def _names(example: Example, trained: set[str] | None) -> Iterator[str]:
    if trained is not None and example.speaker:
        yield f"speakers {'that are' if example.speaker in trained else 'that are not'} in training"
    if example.domain:
        yield f"domain {example.domain}"
