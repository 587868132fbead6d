"""Are files joined to ten minutes transcribed as their parts are? Words apart, for each way of cutting.

    python benchmarks/stitching.py --model outputs/demo_ctc --manifest data/splits/test.csv [--pauses 0 0.6]

Clips are drawn at random, joined with a pause (of the faint noise that recordings have) between them, and
transcribed twice: each on its own, and all as one file. "Apart" is the word edit distance between the two, per word
of the parts; the word error rate of either against the references stands beside it, as a lost word may be a wrong one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from common import new_file

from training.cli.options import add_options, from_arguments
from training.data.audio import load_audio
from training.data.example import TRANSCRIBE
from training.data.manifest import load_manifest
from training.decoding.loading import load_trained
from training.decoding.quiet import quiet
from training.evaluation.normalize import normalizer
from training.evaluation.word_alignment import align_words
from training.transcription.transcriber import Transcriber

RATE = 16_000
FLOOR = 1e-4
"""Standard deviation of the noise in the pauses: -80 dB."""


def main() -> int:
    """Measure every detector at every pause, print a table, write JSON where asked."""
    args = _arguments()
    quiet()
    trained = load_trained(args.model)
    examples = _chosen(args)
    language = args.language or examples[0].language
    print(
        f"{'pause':>6} {'detector':>9} {'windows':>8} {'joins':>6} {'apart %':>8} {'WER parts':>10} {'joined':>7} {'s':>6}"
    )
    results = []
    with tempfile.TemporaryDirectory() as folder:
        parts = [_write(Path(folder, f"{n}.wav"), load_audio(e.audio, RATE)) for n, e in enumerate(examples)]
        for pause in args.pauses:
            whole = _write(Path(folder, f"whole{pause}.wav"), _joined(parts, pause))
            for detector in args.detectors:
                transcriber = Transcriber(
                    trained,
                    tasks=(TRANSCRIBE,),
                    language=language,
                    options=from_arguments(args),
                    longest=args.longest,
                    pause=args.pause,
                    pad=args.pad,
                    pack=args.pack,
                    always_cut=args.cut_parts,
                    detector=detector,
                )
                found = _measure(transcriber, parts, whole, [e.texts[TRANSCRIBE] for e in examples], language)
                results.append({"pause": pause, "detector": detector, **found})
                print(
                    f"{pause:>6g} {detector:>9} {found['windows']:>8} {found['joins']:>6} {found['apart']:>8.2f} "
                    f"{found['wer_parts']:>10.2f} {found['wer_joined']:>7.2f} {found['seconds']:>6.1f}"
                )
    if args.output:
        content = {
            "clips": len(examples),
            "load": os.getloadavg()[0],
            "arguments": sys.argv[1:],
            "results": results,
        }
        args.output.write_text(json.dumps(content, indent=2) + "\n", encoding="utf8")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=600.0, help="length of the joined file (600)")
    parser.add_argument("--pauses", type=float, nargs="+", default=[0.0, 0.6], help="seconds between clips")
    parser.add_argument("--detectors", nargs="+", default=["energy", "silero"])
    parser.add_argument(
        "--longest", type=float, default=None, help="seconds of a window: short windows give more joins"
    )
    parser.add_argument("--pause", type=float, default=0.7, help="silence that always parts (0.7)")
    parser.add_argument("--pad", type=float, default=0.1, help="silence kept around speech (0.1)")
    parser.add_argument("--pack", type=float, default=None)
    parser.add_argument("--cut_parts", action="store_true", help="cut the parts too, as the joined file is")
    parser.add_argument("--language", default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=new_file)
    add_options(parser)
    return parser.parse_args()


def _chosen(args: argparse.Namespace) -> list[Any]:
    """Clips of the manifest in random order, until they last long enough."""
    manifest = load_manifest(args.manifest)
    order = list(range(len(manifest)))
    random.Random(args.seed).shuffle(order)
    chosen, seconds = [], 0.0
    for index in order:
        example = manifest[index]
        if seconds >= args.seconds:
            break
        if TRANSCRIBE in example.texts:
            chosen.append(example)
            seconds += example.duration
    return chosen


def _joined(parts: Sequence[Path], pause: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    pieces = []
    for part in parts:
        pieces += [soundfile.read(part, dtype="float32")[0], FLOOR * rng.standard_normal(round(pause * RATE))]
    return np.concatenate(pieces).astype(np.float32)


def _write(path: Path, samples: np.ndarray) -> Path:
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    return path


def _measure(
    transcriber: Transcriber,
    parts: Sequence[Path],
    whole: Path,
    references: Sequence[str],
    language: str | None,
) -> dict[str, Any]:
    normal = normalizer(language)
    apart = " ".join(normal(one.text) for one in transcriber.transcribe(parts)).strip()
    started = time.perf_counter()
    recording = transcriber.plan(whole)
    joined = normal(transcriber.finish([recording])[0].text)
    seconds = time.perf_counter() - started
    written = " ".join(map(normal, references))
    return {
        "windows": len(recording.windows),
        "joins": sum(window.stitch_at is not None for window in recording.windows),
        "words": len(apart.split()),
        "apart": _rate(apart, joined),
        "wer_parts": _rate(written, apart),
        "wer_joined": _rate(written, joined),
        "seconds": seconds,
        "rtf": seconds / recording.seconds,
    }


def _rate(reference: str, hypothesis: str) -> float:
    return align_words([reference], [hypothesis]).error_rate().value


if __name__ == "__main__":
    sys.exit(main())
