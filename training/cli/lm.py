"""``polyvox lm``: language models from text or from the transcripts of a manifest: n-grams for beam search, and a small
causal one for a speech language model from scratch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from training.base.errors import UserError
from training.base.files import writable
from training.base.nearest import path_hint
from training.cli.command_line import Parser

SIZES = {
    "vocab_size": "tokens of the tokenizer that is trained with it (default: 600)",
    "hidden_size": "width (default: 128)",
    "layers": "layers (default: 3)",
    "heads": "heads of attention (default: 4)",
    "steps": "steps of training (default: 500)",
    "batch_size": "sentences in a step (default: 32)",
    "seed": "seed of weights and batches (default: 42)",
}
"""Whole-numbered options of ``polyvox lm causal`` and what they are."""
TABLES = (".tsv", ".csv", ".jsonl", ".parquet")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = Parser(prog="polyvox lm", description=__doc__)
    commands = result.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="estimate a model (modified Kneser–Ney), write an ARPA file")
    train.add_argument("--output", type=Path, required=True, help="the ARPA file; .arpa or .arpa.gz")
    train.add_argument("--order", type=int, default=3, help="longest n-grams (default: 3)")
    train.add_argument("--overwrite", action="store_true", help="replace the output file")
    score = commands.add_parser("score", help="perplexity and unknown words of a text")
    score.add_argument("--lm", type=Path, required=True, help="an ARPA file")
    causal = commands.add_parser(
        "causal", help="train a small transformer for model.llm of a VoxLM from scratch"
    )
    causal.add_argument("--output", type=Path, required=True, help="folder of the model and its tokenizer")
    causal.add_argument("--overwrite", action="store_true", help="replace the folder's model")
    causal.add_argument("--instruction", default="Transcribe the speech.", help="as model.instruction")
    for name, what in SIZES.items():
        causal.add_argument(f"--{name}", type=int, help=what)
    causal.add_argument("--learning_rate", type=float, help="peak learning rate (default: 0.003)")
    for command in (train, score, causal):
        command.add_argument(
            "--text",
            type=Path,
            nargs="+",
            required=True,
            help=f"texts, one sentence a line (also .gz), or manifests ({', '.join(TABLES)}), whose transcripts count",
        )
    for command in (train, score):
        command.add_argument(
            "--spelling",
            choices=("audible", "as_written"),
            default="audible",
            help="audible (default): letters, digits and marks in lower case, as CTC models write",
        )
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the three."""
    args = parser().parse_args(argv)
    return {"train": _train, "score": _score, "causal": _causal}[args.command](args)


def _causal(args: argparse.Namespace) -> int:
    from training.models.voxlm import causal_lm as causal

    if (args.output / "config.json").exists() and not args.overwrite:
        raise UserError(f"{args.output} holds a model; --overwrite replaces it")
    texts = [text for text in _texts(args) if text.strip()]
    if not texts:
        raise UserError("--text: no sentences in it")
    given = {name: value for name in (*SIZES, "learning_rate") if (value := getattr(args, name)) is not None}
    if bad := [name for name, value in given.items() if not value >= 0 or (value == 0 and name != "seed")]:
        raise UserError(f"--{bad[0]} {given[bad[0]]}: more than 0")
    sizes = causal.Sizes(**{name: given.pop(name) for name in list(given) if hasattr(causal.Sizes, name)})
    if sizes.hidden_size % (2 * sizes.heads):
        raise UserError(
            f"--hidden_size {sizes.hidden_size}: must be a multiple of twice the heads ({sizes.heads})"
        )
    writable(args.output, "--output")
    found = causal.train(texts, args.output, sizes=sizes, instruction=args.instruction, **given)
    print(
        f"{args.output}: {found['parameters']:,} parameters from {found['sentences']:,} sentences, loss {found['loss']:.3f}"
    )
    return 0


def _train(args: argparse.Namespace) -> int:
    from training.decoding.ngram.arpa import write_arpa
    from training.decoding.ngram.kneser_ney import estimate

    if not 1 <= args.order <= 6:
        raise UserError(f"--order {args.order}: give 1 to 6")
    if args.output.exists() and not args.overwrite:
        raise UserError(f"{args.output} exists; --overwrite replaces it")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    found = estimate(_sentences(args), args.order)
    write_arpa(found.model, args.output)
    for note in found.notes:
        print(note)
    print(f"written: {args.output}")
    return 0


def _score(args: argparse.Namespace) -> int:
    from training.decoding.ngram.arpa import read_arpa

    model = read_arpa(args.lm)
    texts = list(_sentences(args))
    words = [word for sentence in texts for word in sentence]
    if not words:
        raise UserError("--text: no words in it")
    unknown = sum(word not in model for word in words)
    print(f"perplexity {model.perplexity(texts):.2f} over {len(words):,} words in {len(texts):,} sentences")
    print(f"unknown words: {unknown:,} ({100 * unknown / len(words):.2f} %)")
    return 0


def _sentences(args: argparse.Namespace) -> Iterator[list[str]]:
    from training.decoding.ngram.text import SPELLINGS, sentences

    return sentences(_texts(args), SPELLINGS[args.spelling])


def _texts(args: argparse.Namespace) -> Iterator[str]:
    from training.data.control_marks import watched

    lines = chain.from_iterable(map(_lines, args.text))
    return watched(lines, lambda line: print(f"--text: {line}", file=sys.stderr))


def _lines(path: Path) -> Iterable[str]:
    from training.data.example import TRANSCRIBE
    from training.decoding.ngram.text import read_lines

    if not path.is_file():
        raise UserError(f"--text: {path}: no such file{path_hint(path)}")
    if path.suffix not in TABLES:
        return read_lines(path)
    from training.data.manifest import load_manifest
    from training.data.missing import is_marker

    rows = load_manifest(
        path, require=("transcript",), need_duration=False, option="polyvox preprocess … --column "
    )
    texts = [text for task, _, text in rows.texts() if task == TRANSCRIBE]
    kept = [text for text in texts if not is_marker(text)]
    if len(kept) < len(texts):
        count = len(texts) - len(kept)
        print(
            f"--text: {path}: {count:,} texts that only say nan, None or the like are left out",
            file=sys.stderr,
        )
    return kept
