"""Beam search over a lexicon with a KenLM model, in compiled code: flashlight-text (the extra ``beam``).

Its vocabulary is closed: only words of the language model can be recognised. Scores are weighted as `Fusion` weights
them. The own search (`training.decoding.prefix_beam`) spells any word and takes hot words, and is slower.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from training.base.errors import UserError
from training.decoding.ctc_vocabulary import CtcVocabulary, collapse
from training.decoding.ngram.arpa import read_arpa
from training.decoding.ngram.counts import UNK
from training.decoding.prefix_beam import Beam, Pruning

CLOSED = -1e9


def installed() -> bool:
    """Whether the extra is there."""
    try:
        import flashlight.lib.text.decoder  # noqa: F401
    except ImportError:
        return False
    return True


@dataclass(frozen=True)
class LexiconSearch:
    """``log_probs [frames, vocabulary] -> beams``, best first. ``model``: an ARPA file. ``words``: those of its words
    that the search may say, and how each is spelled; None: all that the vocabulary can spell, as they are.

    Raises `UserError` where the extra is missing, and for a vocabulary of pieces: how a word is cut into them is the
    tokenizer's secret.
    """

    model: Path
    vocabulary: CtcVocabulary
    pruning: Pruning
    alpha: float
    beta: float
    words: Mapping[str, str] | None = None
    _decoder: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not installed():
            raise UserError(
                "--search flashlight needs its package: pip install 'polyvox[beam]', or take --search own"
            )
        if self.vocabulary.delimiter_id is None:
            raise UserError("--search flashlight needs a vocabulary of characters; take --search own")
        object.__setattr__(self, "_decoder", self._build(self.vocabulary.delimiter_id))

    def _build(self, delimiter: int) -> Any:
        from flashlight.lib.text.decoder import (
            CriterionType,
            LexiconDecoder,
            LexiconDecoderOptions,
            SmearingMode,
            Trie,
        )
        from flashlight.lib.text.decoder.kenlm import KenLM
        from flashlight.lib.text.dictionary import Dictionary

        spelled = self._lexicon()
        words = list(spelled)
        names = Dictionary()
        for word in (*words, UNK):
            names.add_entry(word)
        kenlm = KenLM(str(self.model), names)
        trie, start = Trie(len(self.vocabulary.tokens), delimiter), kenlm.start(False)
        for word in words:
            index = names.get_index(word)
            trie.insert([*spelled[word], delimiter], index, kenlm.score(start, index)[1])
        trie.smear(SmearingMode.MAX)
        # It adds natural logs of the frames to log10 of the model; the weight makes them one.
        options = LexiconDecoderOptions(
            beam_size=self.pruning.width,
            beam_size_token=len(self.vocabulary.tokens),
            beam_threshold=min(self.pruning.gap, 1e6),
            lm_weight=self.alpha * float(np.log(10)),
            word_score=self.beta,
            unk_score=CLOSED,
            sil_score=0.0,
            log_add=True,
            criterion_type=CriterionType.CTC,
        )
        unknown = names.get_index(UNK)
        return LexiconDecoder(options, trie, kenlm, delimiter, self.vocabulary.blank, unknown, [], False)

    def _lexicon(self) -> dict[str, list[int]]:
        """Words of the file and the ids that spell them."""
        forms = self.words
        if forms is None:
            forms = {word: word for word in read_arpa(self.model).words()}
        spelled = {word: self._spelled(form) for word, form in forms.items()}
        if not any(spelled.values()):
            raise UserError(
                f"--search flashlight says only words of --lm, and the model can spell none of {self.model}"
            )
        return {word: ids for word, ids in spelled.items() if ids}

    def _spelled(self, word: str) -> list[int]:
        """Ids of its letters; empty where the vocabulary lacks one of them."""
        place = {letter: i for i, letter in enumerate(self.vocabulary.letters) if letter}
        ids = [place.get(letter) for letter in word]
        return [i for i in ids if i is not None] if None not in ids else []

    def __call__(self, log_probs: np.ndarray) -> list[Beam]:
        """Beams; ``frames`` of each is the score less what its words added, so an approximation."""
        if not len(log_probs):
            return []
        delimiter = self.vocabulary.delimiter_id
        assert delimiter is not None
        # A word counts when the delimiter ends it: one more frame says so after the last.
        ending = np.full((1, log_probs.shape[1]), CLOSED, dtype=np.float32)
        ending[0, delimiter] = 0.0
        emissions = np.ascontiguousarray(np.concatenate([log_probs, ending]), dtype=np.float32)
        found = self._decoder.decode(emissions.ctypes.data, *emissions.shape)
        return [
            Beam(self._labels(one.tokens, len(log_probs)), float(one.emittingModelScore), float(one.score))
            for one in found
        ]

    def _labels(self, tokens: list[int], frames: int) -> tuple[int, ...]:
        """Labels of a path; without the outer marks that flashlight adds and the delimiters at the ends."""
        ids = collapse([i for i in tokens[1 : frames + 1] if i >= 0], self.vocabulary.blank)
        while ids and ids[-1] == self.vocabulary.delimiter_id:
            ids.pop()
        return tuple(ids)
