"""Decodes the frames of a CTC model into words with times and confidence: best path or beam search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from training.data.example import SpokenWord, mean_confidence
from training.decoding.ctc_vocabulary import CtcVocabulary, collapse
from training.decoding.prefix_beam import Beam, Pruning, WordScorer, prefix_beam_search
from training.decoding.viterbi import Aligned, align, confidence
from training.models.abilities import CtcFrames
from training.models.architecture import Decoded, DecodeOptions, SpeechModel


@dataclass(frozen=True)
class CtcDecoder:
    """``log_probs [frames, vocabulary] -> Decoded``: the best path, or a beam search where ``pruning`` is given.

    Times and confidence come from the best alignment of the decoded labels to the frames; a language model and hot
    words change the labels only. Times are seconds from the start of the clip.

    vocabulary: texts of the labels and the blank. seconds_per_frame: audio of one frame, in seconds.
    pruning: of the beam search; None: best path. scorer: language model and hot words of the beam search.
    search: another beam search to use instead, ``log_probs -> beams``, best first.
    edge_seconds: silence before and after the clip that the frames contain.
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
        """Text, words and confidence of decoded labels.

        Args:
            log_probs: float32 ``[frames, vocabulary]``.
            ids: the labels, without blanks and repetitions.
            beams: the beams of the search, best first, stored as alternatives.
        """
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
    """Labels of the best path of log_probs float32 ``[frames, vocabulary]``, without blanks and repetitions."""
    return collapse(log_probs.argmax(axis=-1).tolist(), blank)


def feasible(beams: Sequence[Beam], frames: int) -> tuple[int, ...]:
    """Labels of the best beam; none where there are no frames."""
    return beams[0].ids if beams and frames else ()


def with_frame_decoder(architecture: SpeechModel, options: DecodeOptions) -> DecodeOptions:
    """The options, with a frame decoder where a model with a CTC output has none yet."""
    frames = architecture.frames
    if frames is None or options.frames is not None:
        return options
    return replace(options, frames=frame_decoder(frames, options.beam_width))


def frame_decoder(frames: CtcFrames, width: int) -> CtcDecoder:
    """A decoder that takes the most probable label of each frame; with a ``width`` above 1, a beam search."""
    vocabulary = CtcVocabulary(tuple(frames.tokens), frames.blank)
    pruning = Pruning(width) if width > 1 else None
    return CtcDecoder(vocabulary, frames.seconds_per_frame, pruning, edge_seconds=frames.edge_seconds)
