"""From the frames of a CTC model to words with times and confidence: best path, or beam search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from training.data.example import SpokenWord, mean_confidence
from training.decoding.ctc_vocabulary import CtcVocabulary, collapse
from training.decoding.prefix_beam import Beam, Pruning, WordScorer, prefix_beam_search
from training.decoding.viterbi import Aligned, align, confidence
from training.models.architecture import Architecture, CtcFrames, Decoded, DecodeOptions


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
        return Decoded(text, words, mean_confidence(words), tuple(ids), beams)

    def _word(self, text: str, places: Sequence[Aligned], seconds: float) -> SpokenWord:
        start, end = (
            min(max(frame * self.seconds_per_frame - self.edge_seconds, 0.0), seconds)
            for frame in (places[0].start, places[-1].stop)
        )
        return SpokenWord(text=text, start=start, end=end, confidence=confidence(places))


def greedy(log_probs: np.ndarray, blank: int) -> list[int]:
    """The labels of the single best path."""
    return collapse(log_probs.argmax(axis=-1).tolist(), blank)


def feasible(beams: Sequence[Beam], frames: int) -> tuple[int, ...]:
    """The best beam's labels; none where there is no sound at all."""
    return beams[0].ids if beams and frames else ()


def with_frame_decoder(architecture: Architecture, options: DecodeOptions) -> DecodeOptions:
    """The options with what reads the frames of a model with a CTC output, where they name nothing."""
    frames = architecture.frames
    if frames is None or options.frames is not None:
        return options
    return replace(options, frames=frame_decoder(frames, options.beam_width))


def frame_decoder(frames: CtcFrames, width: int) -> CtcDecoder:
    """The decoder that follows the likeliest label of each frame; with a ``width`` above 1, a beam search."""
    vocabulary = CtcVocabulary(tuple(frames.tokens), frames.blank)
    pruning = Pruning(width) if width > 1 else None
    return CtcDecoder(vocabulary, frames.seconds_per_frame, pruning, edge_seconds=frames.edge_seconds)
