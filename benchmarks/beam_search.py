"""Greedy, own beam search, language model, flashlight: error rate and speed on the same frames of a CTC model.

    python benchmarks/beam_search.py --model outputs/demo_ctc --split dev --lm lm.arpa [--utterances 200]

The frames are computed once. Each row is compared with greedy by paired bootstrap (`training.evaluation.intervals`).
Choose weights on dev; the test split is for `polyvox evaluate`, once.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import new_file

from training.data.dataset import SpeechDataset
from training.data.example import TRANSCRIBE, Example
from training.decoding.ctc_setup import SearchOptions
from training.decoding.flashlight_beam import installed
from training.decoding.loading import Trained, load_trained
from training.decoding.predict import PromptsOnly
from training.decoding.quiet import quiet
from training.engine.run import open_split
from training.evaluation.intervals import paired, units_of
from training.evaluation.metrics import transcript_statistics
from training.evaluation.rows import make_row


def main() -> int:
    """Measure every way of decoding, print a table, write JSON where asked."""
    args = _arguments()
    quiet()
    trained = load_trained(args.model)
    if trained.architecture.frames is None:
        raise SystemExit(f"{args.model}: no CTC output")
    examples, frames = frames_of(trained, args.split, args.utterances)
    seconds = sum(example.duration for example in examples)
    print(f"{len(examples)} utterances, {seconds:.0f} s, load {os.getloadavg()[0]:.1f}")
    print(f"{'decoding':40} {'WER':>6} {'− greedy':>9} {'interval':>18} {'RTF':>7}")
    results: list[dict[str, Any]] = []
    greedy = None
    for name, options in _ways(args):
        decoder = options.decoder(trained.architecture)
        assert decoder is not None
        started = time.perf_counter()
        texts = [decoder(one).text for one in frames]
        rtf = (time.perf_counter() - started) / seconds
        statistic = _wer(examples, texts)
        greedy = greedy or statistic
        gap = paired(statistic, greedy, units_of(examples)).to_json()
        results.append({"decoding": name, "wer": statistic.value, "difference": gap, "rtf": rtf})
        bounds = f"[{gap['low']:.2f}, {gap['high']:.2f}]"
        print(f"{name:40} {statistic.value:>6.2f} {gap['value']:>9.2f} {bounds:>18} {rtf:>7.4f}")
    if args.output:
        content = {
            "model": args.model.name,
            "split": args.split,
            "load": os.getloadavg()[0],
            "results": results,
        }
        args.output.write_text(json.dumps(content, indent=2) + "\n", encoding="utf8")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--split", choices=("dev", "test", "train"), default="dev")
    parser.add_argument("--lm", type=Path, default=None)
    parser.add_argument("--utterances", type=int, default=None)
    parser.add_argument("--widths", type=int, nargs="+", default=[10, 30])
    parser.add_argument("--lm_weights", type=float, nargs="+", default=[0.3, 0.6, 0.9])
    parser.add_argument("--word_bonuses", type=float, nargs="+", default=[0.0, 1.0])
    parser.add_argument("--unknown_penalties", type=float, nargs="+", default=[-6.0])
    parser.add_argument("--output", type=new_file)
    return parser.parse_args()


def _ways(args: argparse.Namespace) -> list[tuple[str, SearchOptions]]:
    ways = [("greedy", SearchOptions(beam_width=1))]
    ways += [(f"beam {width}", SearchOptions(beam_width=width)) for width in args.widths]
    for weight in args.lm_weights if args.lm else ():
        for bonus in args.word_bonuses:
            common: dict[str, Any] = {"lm": args.lm, "lm_weight": weight, "word_bonus": bonus}
            for width in args.widths:
                for unknown in args.unknown_penalties:
                    options = SearchOptions(beam_width=width, unknown_penalty=unknown, **common)
                    ways.append((f"beam {width} lm {weight:g} bonus {bonus:g} unknown {unknown:g}", options))
                if installed():
                    options = SearchOptions(beam_width=width, search="flashlight", **common)
                    ways.append((f"flashlight {width} lm {weight:g} bonus {bonus:g}", options))
    return ways


@torch.no_grad()
def frames_of(trained: Trained, split: Any, most: int | None) -> tuple[list[Example], list[np.ndarray]]:
    """Utterances of a split with a transcript, and the log probabilities of their frames."""
    assert trained.config is not None and trained.architecture.frames is not None
    manifest = open_split(trained.config, split)
    dataset = SpeechDataset(
        manifest, PromptsOnly(trained.architecture.encode), trained.architecture.sample_rate
    )
    rows = [i for i in range(len(manifest)) if TRANSCRIBE in manifest[i].texts][:most]
    frames: list[np.ndarray] = []
    for start in range(0, len(rows), 16):
        batch = trained.architecture.collate([dataset[i] for i in rows[start : start + 16]])
        frames += trained.architecture.frames.log_probs(trained.architecture.model, batch)
    return [manifest[i] for i in rows], frames


def _wer(examples: Sequence[Example], texts: Sequence[str]) -> Any:
    rows = [
        make_row(example, TRANSCRIBE, example.texts[TRANSCRIBE], text)
        for example, text in zip(examples, texts, strict=True)
    ]
    return transcript_statistics(rows)["wer"]


if __name__ == "__main__":
    sys.exit(main())
