"""Options that several commands share, and their types."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from training.base.errors import UserError
from training.cli.aliases import OneValue
from training.config.profile_names import CHOICES
from training.decoding.ctc_setup import BEAM_WIDTH, SearchOptions
from training.decoding.word_scores import Fusion
from training.models.safeguards import Safeguards


def count(text: str) -> int:
    """A whole number from 1 on."""
    number = int(text) if text.lstrip("-").isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1 (got {text})")
    return number


def add_hardware(parser: argparse.ArgumentParser) -> None:
    """The option that chooses a hardware profile."""
    parser.add_argument(
        "--hardware",
        choices=CHOICES,
        help="hardware profile of configs/profiles, taken whole instead of the configuration's; auto: the one that "
        "suits this machine (also where the configuration names none)",
    )


def hardware_override(args: argparse.Namespace) -> list[str]:
    """``--hardware`` as the override that does the same, for commands that hand overrides on."""
    return [f"profile.name={args.hardware}"] if args.hardware else []


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
        "--model",
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


def bound(text: str) -> float | None:
    """A number, or none."""
    if text.lower() == "none":
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise argparse.ArgumentTypeError(f"must be a number, or none (got {text})")
    return number


def token_ids(text: str) -> tuple[int, ...] | None:
    """Ids with commas between them, none, or the model's own (None)."""
    if text in ("model", "-1"):
        return None
    parts = [] if text.lower() == "none" else text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"must be token ids such as 1,2,7, or none, or model (got {text})")
    return tuple(int(part) for part in parts)


def add_safeguards(parser: argparse.ArgumentParser) -> None:
    """The options of Whisper's safeguards, which `safeguards` reads."""
    default = Safeguards()
    group = parser.add_argument_group("safeguards (Whisper-type models)")
    group.add_argument(
        "--temperatures",
        type=float,
        nargs="+",
        default=None,
        help="tried in turn until a text passes the thresholds; 0 alone: no fallback (default: 0 0.2 0.4 0.6 0.8 1)",
    )
    group.add_argument("--no_fallback", action="store_true", help="the same as --temperatures 0")
    group.add_argument(
        "--compression_ratio_threshold",
        type=bound,
        default=default.compression_ratio,
        help="a text that zlib compresses by more repeats itself; none: not looked at (default: 2.4)",
    )
    group.add_argument(
        "--logprob_threshold",
        type=bound,
        default=default.log_probability,
        help="mean log-probability per token below which a text fails; none: not looked at (default: -1)",
    )
    group.add_argument(
        "--no_speech_threshold",
        type=bound,
        default=default.no_speech,
        help="probability of no speech above which an uncertain text is left out; none: never (default: 0.6)",
    )
    group.add_argument(
        "--keep_repetitions",
        action="store_true",
        help="do not look for runs of equal phrases, and cut none",
    )
    group.add_argument(
        "--no_repeat_ngram_size",
        type=int,
        default=0,
        help="no run of so many tokens may appear twice in a window; 0: no such bound (default)",
    )
    group.add_argument(
        "--suppress_tokens",
        type=token_ids,
        default=None,
        help="ids that are never written, such as 1,2,7; none; default: those of the model's generation_config.json",
    )
    group.add_argument(
        "--initial_prompt",
        default="",
        help="text said to come before each window: names, spelling, style",
    )


def safeguards(args: argparse.Namespace) -> Safeguards | None:
    """The safeguards of a parsed command line; None where nothing but defaults is asked for."""
    if args.no_fallback and args.temperatures not in (None, [0.0]):
        raise UserError("--no_fallback and --temperatures: give one of them")
    temperatures = (0.0,) if args.no_fallback else tuple(args.temperatures or Safeguards().temperatures)
    try:
        found = Safeguards(
            temperatures=temperatures,
            compression_ratio=args.compression_ratio_threshold,
            log_probability=args.logprob_threshold,
            no_speech=args.no_speech_threshold,
            repetition=not args.keep_repetitions,
            no_repeat_ngram=args.no_repeat_ngram_size,
            suppressed=args.suppress_tokens,
            initial_prompt=args.initial_prompt,
        )
    except ValueError as error:
        raise UserError(f"--{error}") from error
    return None if found == Safeguards() else found


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
