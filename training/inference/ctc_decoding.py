"""From the frames of a CTC model to words with times and confidence: best path, or beam search."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from training.data.example import SpokenWord
from training.inference.ctc_vocabulary import CtcVocabulary, collapse
from training.inference.prefix_beam import Beam, Pruning, WordScorer, prefix_beam_search


@dataclass(frozen=True)
class Decoded:
    """What was said. ``confidence``: geometric mean of its words' confidences; None where there are none."""

    text: str
    words: tuple[SpokenWord, ...]
    confidence: float | None
    ids: tuple[int, ...]
    alternatives: tuple[Beam, ...] = ()


@dataclass(frozen=True)
class Aligned:
    """Where a label stands: its first frame, the frame after its last, its highest log probability there."""

    start: int
    stop: int
    peak: float


@dataclass(frozen=True)
class CtcDecoder:
    """``log_probs [frames, vocabulary] -> Decoded``: the best path, or a beam search where ``pruning`` is given.

    ``search`` takes the place of the own beam search: ``log_probs -> beams``, best first.
    Times and confidence come from the frames alone: from the best alignment of what was decoded, whatever a
    language model or hot words had to do with it. Times count from the clip's own start, ``edge_seconds`` into the
    frames.
    """

    vocabulary: CtcVocabulary
    seconds_per_frame: float
    pruning: Pruning | None = None
    scorer: WordScorer | None = None
    search: Callable[[np.ndarray], list[Beam]] | None = None
    edge_seconds: float = 0.0

    def __call__(self, log_probs: np.ndarray) -> Decoded:
        beams: Sequence[Beam] = ()
        if self.search is not None:
            beams = self.search(log_probs)
            ids = feasible(beams, len(log_probs))
        elif self.pruning is None:
            ids = tuple(greedy(log_probs, self.vocabulary.blank))
        else:
            beams = prefix_beam_search(log_probs, self.vocabulary, self.pruning, self.scorer)
            ids = feasible(beams, len(log_probs))
        return self.describe(log_probs, ids, tuple(beams))

    def describe(self, log_probs: np.ndarray, ids: tuple[int, ...], beams: tuple[Beam, ...] = ()) -> Decoded:
        """Text, words and confidence of labels that were found in some way."""
        places = align(log_probs, ids, self.vocabulary.blank)
        seconds = len(log_probs) * self.seconds_per_frame - 2 * self.edge_seconds
        words = tuple(
            self._word(text, [places[i] for i in at], seconds) for text, at in self.vocabulary.words(ids)
        )
        text = " ".join(word.text for word in words)
        return Decoded(text, words, mean_confidence(words), ids, beams)

    def _word(self, text: str, places: Sequence[Aligned], seconds: float) -> SpokenWord:
        start, end = (
            min(max(frame * self.seconds_per_frame - self.edge_seconds, 0.0), seconds)
            for frame in (places[0].start, places[-1].stop)
        )
        return SpokenWord(
            text=text,
            start=start,
            end=end,
            confidence=math.exp(sum(place.peak for place in places) / len(places)),
        )


def greedy(log_probs: np.ndarray, blank: int) -> list[int]:
    """The labels of the single best path."""
    return collapse(log_probs.argmax(axis=-1).tolist(), blank)


def feasible(beams: Sequence[Beam], frames: int) -> tuple[int, ...]:
    """The best beam's labels; none where there is no sound at all."""
    return beams[0].ids if beams and frames else ()


def mean_confidence(words: Sequence[SpokenWord]) -> float | None:
    """Geometric mean of the words' confidences."""
    if not words:
        return None
    return math.exp(sum(math.log(max(word.confidence, 1e-30)) for word in words) / len(words))


def align(log_probs: np.ndarray, ids: Sequence[int], blank: int) -> list[Aligned]:
    """The best path (Viterbi) that spells ``ids``: one place per label.

    log_probs is float ``[frames, vocabulary]``. Raises ``ValueError`` where the frames are too few.
    """
    if not len(ids):
        return []
    states = np.full(2 * len(ids) + 1, blank, dtype=np.int64)
    states[1::2] = ids
    path = _viterbi(log_probs, states, blank)
    return [
        _place(log_probs, path, state, int(i)) for state, i in zip(range(1, len(states), 2), ids, strict=True)
    ]


def _viterbi(log_probs: np.ndarray, states: np.ndarray, blank: int) -> np.ndarray:
    """State of every frame on the best path through ``blank, label, blank, label, …, blank``."""
    skips = np.zeros(len(states), dtype=bool)  # a label may follow another one directly unless they are equal
    skips[3::2] = states[3::2] != states[1:-2:2]
    emissions = log_probs[:, states].astype(np.float64)
    scores = np.full(len(states), -np.inf)
    scores[:2] = emissions[0, :2]
    steps = np.zeros((len(emissions), len(states)), dtype=np.int8)
    moves = np.full((3, len(states)), -np.inf)
    for frame in range(1, len(emissions)):
        moves[0] = scores
        moves[1, 1:] = scores[:-1]
        moves[2, 2:] = np.where(skips[2:], scores[:-2], -np.inf)
        steps[frame] = moves.argmax(axis=0)
        scores = moves.max(axis=0) + emissions[frame]
    state = len(states) - 1 if scores[-1] >= scores[-2] else len(states) - 2
    if not np.isfinite(scores[state]):
        raise ValueError(f"{len(states) // 2} labels cannot be aligned with {len(emissions)} frames")
    path = np.empty(len(emissions), dtype=np.int64)
    for frame in range(len(emissions) - 1, -1, -1):
        path[frame] = state
        state -= int(steps[frame, state])
    return path


def _place(log_probs: np.ndarray, path: np.ndarray, state: int, token: int) -> Aligned:
    start, stop = (int(i) for i in np.searchsorted(path, [state, state + 1]))
    return Aligned(start, stop, float(log_probs[start:stop, token].max()))
