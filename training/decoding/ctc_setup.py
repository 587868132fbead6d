"""The decoder that a user's options describe, for a model with a CTC output.

Imports nothing heavy: command lines have its options and their defaults.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.base.errors import UserError
from training.base.files import sha256
from training.decoding.ngram.arpa import NgramModel, read_arpa
from training.decoding.word_scores import Fusion, HotWords, Together, parse_hot_words

if TYPE_CHECKING:
    from training.decoding.ctc_decoding import CtcDecoder
    from training.decoding.ctc_vocabulary import CtcVocabulary
    from training.decoding.spelling_fit import Fit
    from training.models.architecture import DecodeOptions, SpeechModel

BEAM_WIDTH = 10
"""Width where a language model or hot words ask for a beam search and no width is given."""


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """A user's options of the search for the best text. `resolved` makes the `DecodeOptions` of a model of them.

    ``beam_width`` None: that of the run (`of_run`), or `BEAM_WIDTH` with ``lm`` or ``hot_words``. The others need a model
    with a CTC output.

    ``accept_lm``: go on with a language model, or hot words, that the model cannot spell (see `fit_language_model`).
    """

    beam_width: int | None = None
    lm: Path | None = None
    lm_weight: float = Fusion.alpha
    word_bonus: float = Fusion.beta
    unknown_penalty: float = Fusion.unknown
    hot_words: tuple[str, ...] = ()
    search: str = "own"
    accept_lm: bool = False

    @property
    def width(self) -> int:
        if self.beam_width is not None and self.beam_width < 1:
            raise UserError(f"--beam_width {self.beam_width}: at least 1")
        if self.beam_width == 1 and (self.lm or self.hot_words):
            raise UserError("--beam_width 1 is the best path, which asks no language model; give 2 or more")
        return self.beam_width or (BEAM_WIDTH if self.lm or self.hot_words else 1)

    def of_run(self, beams: int | None) -> SearchOptions:
        """The same with the beam width that the run's scores have (``evaluation.num_beams``), unless another is asked for.

        Args:
            beams: of the run; None for a model without one, which is decoded greedily.
        """
        if beams is None or self.beam_width is not None or self.lm or self.hot_words:
            return self
        return replace(self, beam_width=beams)

    def resolved(self, architecture: SpeechModel, max_new_tokens: int | None = None) -> DecodeOptions:
        """The options as the model takes them; `UserError` where one needs a CTC output and there is none."""
        from training.models.architecture import DecodeOptions

        return DecodeOptions(
            beam_width=self.width, max_new_tokens=max_new_tokens, frames=self.decoder(architecture)
        )

    def decoder(self, architecture: SpeechModel) -> CtcDecoder | None:
        """The decoder of the frames; None for a model without a CTC output, `UserError` where an option needs one."""
        from training.decoding.ctc_decoding import frame_decoder

        frames = architecture.frames
        if frames is None:
            if self.lm or self.hot_words:
                raise UserError("--lm and --hot_words need a model with a CTC output; this one has none")
            return None
        plain = frame_decoder(frames, self.width)
        if self.search == "flashlight":
            return replace(plain, search=self._lexicon(plain.vocabulary))
        return replace(plain, scorer=self._scorer(plain.vocabulary))

    def _lexicon(self, vocabulary: CtcVocabulary) -> Any:
        from training.decoding.flashlight_beam import LexiconSearch
        from training.decoding.prefix_beam import Pruning

        if self.lm is None or self.hot_words:
            raise UserError("--search flashlight reads a language model (--lm) and takes no --hot_words")
        _, fit = self._language_model(self.lm, vocabulary)
        return LexiconSearch(
            self.lm, vocabulary, Pruning(self.width), self.lm_weight, self.word_bonus, fit.spelled
        )

    def _scorer(self, vocabulary: CtcVocabulary) -> Any:
        from training.decoding.spelling_fit import fit_hot_words, folded

        parts: list[Any] = []
        if self.lm is not None:
            model, fit = self._language_model(self.lm, vocabulary)
            parts.append(Fusion(folded(model, fit), self.lm_weight, self.word_bonus, self.unknown_penalty))
        if self.hot_words:
            weights, notes = fit_hot_words(parse_hot_words(self.hot_words), vocabulary, accept=self.accept_lm)
            _say(notes)
            parts.append(HotWords(weights))
        return None if not parts else parts[0] if len(parts) == 1 else Together(tuple(parts))

    def _language_model(self, path: Path, vocabulary: CtcVocabulary) -> tuple[NgramModel, Fit]:
        """The file's model, and how its words are spelled; `UserError` where the model can spell too few of them."""
        from training.decoding.spelling_fit import fit_language_model

        model = read_arpa(path)
        fit = fit_language_model(model, vocabulary, path, accept=self.accept_lm)
        _say(fit.notes)
        return model, fit

    def identity(self, architecture: SpeechModel) -> dict[str, Any]:
        """The options that change the recognised words: calibration of confidence is valid for equal options only."""
        found: dict[str, Any] = {"beam_width": self.width}
        if architecture.frames is not None:
            found["search"] = self.search
        if self.lm is not None:
            found |= {"lm_sha256": sha256(self.lm), "lm_weight": self.lm_weight}
            found |= {"word_bonus": self.word_bonus, "unknown_penalty": self.unknown_penalty}
        return found | ({"hot_words": list(self.hot_words)} if self.hot_words else {})

    def as_dict(self) -> dict[str, Any]:
        """For the record of an evaluation."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**values, "beam_width": self.width, "lm": str(self.lm) if self.lm else None}


def _say(notes: Iterable[str]) -> None:
    for note in notes:
        print(note, file=sys.stderr)
