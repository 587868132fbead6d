"""Options that several commands share, and their types."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from training.cli.aliases import OneValue
from training.decoding.ctc_setup import BEAM_WIDTH, SearchOptions
from training.decoding.word_scores import Fusion


def count(text: str) -> int:
    """A whole number from 1 on."""
    number = int(text) if text.lstrip("-").isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1 (got {text})")
    return number


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of decoding, which `from_arguments` reads."""
    group = parser.add_argument_group("beam search")
    group.add_argument(
        "--beam_width",
        "--num_beams",
        action=OneValue,
        type=count,
        default=None,
        help="hypotheses kept; 1: the best path; default: those of the run's scores (evaluation.num_beams)",
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
    group.add_argument(
        "--accept_lm",
        action="store_true",
        help="go on although the model can spell less than 90 %% of --lm by probability, or not all --hot_words",
    )


def add_model(parser: argparse.ArgumentParser, what: str, *, required: bool = True) -> None:
    """Add the options of the model and of the data. ``what``: help text on the folders that are accepted."""
    parser.add_argument(
        "--model_dir",
        "--model_path",
        dest="model_dir",
        action=OneValue,
        type=Path,
        required=required,
        help=what,
    )
    parser.add_argument(
        "--audio_root", type=Path, default=None, help="folder that relative audio paths start from"
    )
    parser.add_argument(
        "--batch_seconds", type=float, default=None, help="audio per batch; default: the run's"
    )


def add_columns(parser: argparse.ArgumentParser) -> None:
    """The option that maps the columns of a manifest."""
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="OURS=THEIRS",
        help="the manifest's name of one of our columns, such as transcript=text; may be repeated",
    )


def add_domain(parser: argparse.ArgumentParser) -> None:
    """Which population speaks, for models that are told (``model.type: domain_whisper``)."""
    parser.add_argument(
        "--domain",
        default=None,
        help="domain_whisper: one of its domains for all utterances; auto: the predicted one; none: no token; swap: another "
        "than their own",
    )


def to_arguments(args: argparse.Namespace) -> list[str]:
    """The command line that `from_arguments` reads the same options from."""
    options = from_arguments(args)
    given = [f"--beam_width={options.beam_width}"] if options.beam_width is not None else []
    given += [f"--lm={options.lm}"] if options.lm is not None else []
    given += [f"--{name}={getattr(options, name)}" for name in ("lm_weight", "word_bonus", "unknown_penalty")]
    given += [f"--search={options.search}", *(["--accept_lm"] if options.accept_lm else [])]
    return [*given, *(["--hot_words", *options.hot_words] if options.hot_words else [])]


def from_arguments(args: argparse.Namespace) -> SearchOptions:
    """The options of a parsed command line."""
    width = args.beam_width or (BEAM_WIDTH if args.use_beam_search else None)
    hot_words: Sequence[str] = args.hot_words
    return SearchOptions(
        beam_width=width,
        lm=args.lm,
        lm_weight=args.lm_weight,
        word_bonus=args.word_bonus,
        unknown_penalty=args.unknown_penalty,
        hot_words=tuple(hot_words),
        search=args.search,
        accept_lm=args.accept_lm,
    )
