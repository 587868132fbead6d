"""``polyvox <command>``: one table over the modules that do the work, each imported when it is called."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from training import __version__
from training.base.errors import USER_ERROR, UserError, status_of
from training.base.nearest import nearest
from training.cli.slow_start import announce

COMMANDS = {
    "doctor": ("training.cli.doctor", "what this machine has, what is missing, what to do about it"),
    "init": ("training.cli.init", "a project folder: configuration, sample table, README"),
    "demo-data": ("training.cli.demo_data", "synthesise a demo corpus with espeak-ng"),
    "segment": (
        "training.cli.segment",
        "cut long recordings by their subtitles or labels: clips and a manifest",
    ),
    "preprocess": ("training.cli.preprocess", "clean an exported manifest"),
    "data": ("training.cli.data", "the data registry: prepare, stats, list, diff, export"),
    "split": ("training.cli.split", "split a manifest into train, dev and test"),
    "shards": (
        "training.cli.shards",
        "WebDataset shards: write a manifest as shards, count what is in them",
    ),
    "download": ("training.cli.download", "a public corpus, resumable and checked: librispeech"),
    "train": ("training.cli.train", "train the model that a configuration describes"),
    "quick-train": (
        "training.cli.quick_train",
        "a VoxLM in one command: data, word times, both phases, scores, export",
    ),
    "tune": ("training.cli.tune", "search for better settings: trials through Optuna, resumable"),
    "evaluate": ("training.cli.evaluate", "score a trained model on a test split"),
    "calibrate": (
        "training.cli.calibrate",
        "calibrate the confidence of a model's words on its dev split",
    ),
    "check-deployment": (
        "training.cli.check_deployment",
        "a Whisper in stock transformers and faster-whisper, short and long, beside ours",
    ),
    "diagnose": ("training.cli.diagnose", "what is probably wrong with a run, and the command to try next"),
    "runs": ("training.cli.runs", "a table of the runs: scores with intervals, steps, time"),
    "compare": ("training.cli.compare", "compare two evaluations on the same utterances"),
    "charts": ("training.cli.charts", "draw the curves and scores of runs, write the report"),
    "export": (
        "training.cli.export",
        "a model for ONNX Runtime, CTranslate2 and others, compared with the original",
    ),
    "publish": ("training.cli.publish", "a finished run to the Hugging Face Hub, with a model card"),
    "transcribe": ("training.cli.transcribe", "recordings of any length to text, subtitles, JSON"),
    "serve": ("training.cli.serve", "OpenAI's transcription API, live speech and a page with a microphone"),
    "lm": ("training.cli.lm", "language models from text: n-grams for beam search, a small causal one"),
    "timestamps": (
        "training.cli.timestamps",
        "times of the words of transcripts, by a Whisper or a CTC model",
    ),
    "completion": ("training.cli.completion", "the Tab key completes commands and options: bash, zsh, tcsh"),
    "pipeline": ("training.cli.pipeline", "all of it: data, both models, scores, charts (see run_dev.sh)"),
}
"""Command → the module whose ``main(argv)`` it is, and what it does."""


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status of the command; 2: the user's mistake."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return 0 if arguments else USER_ERROR
    if arguments[0] == "--version":
        print(f"polyvox {__version__}")
        return 0
    return status_of(lambda: run(arguments[0], arguments[1:]))


def run(name: str, arguments: Sequence[str]) -> int:
    """Import the command's module and call it."""
    if name not in COMMANDS:
        near = nearest(name, COMMANDS)
        hint = f"did you mean {near}?" if near else f"there are {', '.join(COMMANDS)}"
        raise UserError(f"polyvox {name}: no such command; {hint}")
    announce()
    return import_module(COMMANDS[name][0]).main(arguments) or 0


def overview() -> str:
    """What ``polyvox --help`` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: polyvox COMMAND [options]",
            "",
            *lines,
            "",
            "polyvox COMMAND --help lists a command's options.",
        ]
    )
