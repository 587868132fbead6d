"""The decoder that a user's options describe, for a model with a CTC output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.errors import UserError
from training.inference.ctc_decoding import CtcDecoder
from training.inference.ctc_vocabulary import CtcVocabulary
from training.inference.prefix_beam import Pruning
from training.inference.word_scores import Fusion, HotWords, Together, parse_hot_words

if TYPE_CHECKING:
    import argparse

    from training.models import Bundle

BEAM_WIDTH = 10
"""Width where a language model or hot words ask for a beam search and no width is given."""


@dataclass(frozen=True, kw_only=True)
class DecoderOptions:
    """How the frames are read. ``beam_width`` None: 1 (the best path), or `BEAM_WIDTH` with ``lm`` or ``hot_words``."""

    beam_width: int | None = None
    lm: Path | None = None
    lm_weight: float = Fusion.alpha
    word_bonus: float = Fusion.beta
    unknown_penalty: float = Fusion.unknown
    hot_words: tuple[str, ...] = ()
    search: str = "own"

    @property
    def width(self) -> int:
        if self.beam_width is not None and self.beam_width < 1:
            raise UserError(f"--beam_width {self.beam_width}: at least 1")
        if self.beam_width == 1 and (self.lm or self.hot_words):
            raise UserError("--beam_width 1 is the best path, which asks no language model; give 2 or more")
        return self.beam_width or (BEAM_WIDTH if self.lm or self.hot_words else 1)

    def decoder(self, bundle: Bundle) -> CtcDecoder | None:
        """None for a model without a CTC output; `UserError` where an option needs one."""
        if bundle.ctc is None:
            if self.lm or self.hot_words:
                raise UserError("--lm and --hot_words need a model with a CTC output; this one has none")
            return None
        vocabulary = CtcVocabulary(tuple(bundle.ctc.tokens), bundle.ctc.blank)
        seconds = bundle.ctc.seconds_per_frame
        if self.search == "flashlight":
            return CtcDecoder(vocabulary, seconds, search=self._lexicon(vocabulary))
        pruning = Pruning(self.width) if self.width > 1 else None
        return CtcDecoder(vocabulary, seconds, pruning, self._scorer())

    def _lexicon(self, vocabulary: CtcVocabulary) -> Any:
        from training.inference.flashlight_beam import LexiconSearch

        if self.lm is None or self.hot_words:
            raise UserError("--search flashlight reads a language model (--lm) and takes no --hot_words")
        return LexiconSearch(self.lm, vocabulary, Pruning(self.width), self.lm_weight, self.word_bonus)

    def _scorer(self) -> Any:
        parts: list[Any] = []
        if self.lm is not None:
            from training.lm.arpa import read_arpa

            parts.append(Fusion(read_arpa(self.lm), self.lm_weight, self.word_bonus, self.unknown_penalty))
        if self.hot_words:
            parts.append(HotWords(parse_hot_words(self.hot_words)))
        return None if not parts else parts[0] if len(parts) == 1 else Together(tuple(parts))

    def as_dict(self) -> dict[str, Any]:
        """For the record of an evaluation."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**values, "beam_width": self.width, "lm": str(self.lm) if self.lm else None}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The command-line options that `from_arguments` reads."""
    group = parser.add_argument_group("beam search")
    group.add_argument(
        "--beam_width", "--num_beams", type=int, default=None, help="hypotheses kept; 1: the best path"
    )
    group.add_argument(
        "--use_beam_search", action="store_true", help=f"the same as --beam_width {BEAM_WIDTH}"
    )
    group.add_argument(
        "--lm", type=Path, default=None, help="n-gram model (ARPA) of polyvox lm train; CTC only"
    )
    group.add_argument("--lm_weight", type=float, default=Fusion.alpha, help=f"default: {Fusion.alpha}")
    group.add_argument(
        "--word_bonus",
        type=float,
        default=Fusion.beta,
        help=f"for each word, with --lm; default: {Fusion.beta}",
    )
    group.add_argument(
        "--unknown_penalty",
        type=float,
        default=Fusion.unknown,
        help=f"for a word that the model has not seen; default: {Fusion.unknown}",
    )
    group.add_argument(
        "--search",
        choices=("own", "flashlight"),
        default="own",
        help="flashlight (extra beam): fast, says only words of --lm; own (default): spells any word",
    )
    group.add_argument(
        "--hot_words",
        nargs="+",
        default=(),
        help="words or phrases that are likely here, WORD[:WEIGHT] or @FILE",
    )


def to_arguments(args: argparse.Namespace) -> list[str]:
    """The command line that `from_arguments` reads the same options from."""
    options = from_arguments(args)
    given = [f"--beam_width={options.beam_width}"] if options.beam_width is not None else []
    given += [f"--lm={options.lm}"] if options.lm is not None else []
    given += [f"--{name}={getattr(options, name)}" for name in ("lm_weight", "word_bonus", "unknown_penalty")]
    given.append(f"--search={options.search}")
    return [*given, *(["--hot_words", *options.hot_words] if options.hot_words else [])]


def from_arguments(args: argparse.Namespace) -> DecoderOptions:
    """The options of a parsed command line."""
    width = args.beam_width or (BEAM_WIDTH if args.use_beam_search else None)
    hot_words: Sequence[str] = args.hot_words
    return DecoderOptions(
        beam_width=width,
        lm=args.lm,
        lm_weight=args.lm_weight,
        word_bonus=args.word_bonus,
        unknown_penalty=args.unknown_penalty,
        hot_words=tuple(hot_words),
        search=args.search,
    )
