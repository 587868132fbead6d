"""Exported folders beside their original: seconds of the processor for single clips, one thread, arms in turns.

    OMP_NUM_THREADS=1 python benchmarks/exported_speed.py --model outputs/demo_whisper \\
        --exported out/ct2 --exported out/onnx [--clips 24] [--shortest 1] [--longest 6]

Every arm is `training.decoding.predict.predict` of the same clips of the run's test split, one clip a batch, every task, greedy:
reading of the sound, log-mels, network and text. A ratio is that of one round; the lengths of the clips are spread evenly
between the shortest and the longest. Texts that differ from the original's are counted.
"""

from __future__ import annotations

import os

if not os.environ.get("OMP_NUM_THREADS"):  # read when the engines are imported
    os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import command_line, finish, in_turns, machine, ratio, table, values

from training.api.predicting import open_rows
from training.data.dataset import SpeechDataset
from training.decoding.loading import load_trained
from training.decoding.predict import PromptsOnly, predict
from training.decoding.quiet import quietly

ORIGINAL = "PyTorch"


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = command_line(__doc__)
    parser.add_argument("--model", type=Path, required=True, help="the run that was exported")
    parser.add_argument("--exported", type=Path, action="append", required=True, help="a folder; repeatable")
    parser.add_argument("--manifest", type=Path, help="utterances; without: the run's test split")
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--shortest", type=float, default=1.0, help="seconds")
    parser.add_argument("--longest", type=float, default=6.0, help="seconds")
    return parser.parse_args(argv)


class Arm:
    """One folder and the clips for it; calling it decodes them one by one."""

    def __init__(self, folder: Path, rows: Any) -> None:
        self.speech = load_trained(folder).architecture
        self.rows = rows
        self.texts: list[str] = []

    def __call__(self, number: int) -> dict[str, float]:
        dataset = SpeechDataset(self.rows, PromptsOnly(self.speech.encode), self.speech.sample_rate)
        began, processor = time.perf_counter(), time.process_time()
        found = predict(self.speech, dataset, batch_size=1, with_loss=False)
        figures = {"processor": time.process_time() - processor, "clock": time.perf_counter() - began}
        self.texts = [one.text for one in found.hypotheses]
        return figures


def chosen(options: argparse.Namespace) -> Any:
    """Clips whose lengths are spread evenly between the shortest and the longest."""
    rows, _ = open_rows(load_trained(options.model), options.manifest, "--manifest", "test", None)
    left = np.array(rows.durations, dtype=float)
    found = []
    for wanted in np.linspace(options.shortest, options.longest, options.clips):
        nearest = int(np.abs(left - wanted).argmin())
        found.append(nearest)
        left[nearest] = np.inf
    return rows.select(np.array(found))


def main(argv: Sequence[str] | None = None) -> int:
    """0; the table goes to stdout."""
    options = arguments(argv)
    torch.set_num_threads(1)
    with quietly():
        rows = chosen(options)
        arms = {ORIGINAL: Arm(options.model, rows), **{str(p): Arm(p, rows) for p in options.exported}}
        for arm in arms.values():
            arm(0)  # engines allocate, graphs are optimised
        rounds = in_turns(arms, options.repeats)
    ratios = {name: ratio(rounds, "processor", ORIGINAL, name) for name in arms}
    lines = [
        (
            name,
            f"{values(rounds, name, 'processor'):.2f}",
            f"{values(rounds, name, 'clock'):.2f}",
            f"{ratios[name]:.1f}",
            str(sum(a != b for a, b in zip(arm.texts, arms[ORIGINAL].texts, strict=True))),
        )
        for name, arm in arms.items()
    ]
    print(f"{len(rows)} clips, {float(rows.durations.sum()):.1f} s; load {machine()['load']}")
    print(table(("", "processor, s", "clock, s", "times the original", "other texts"), lines))
    return finish(
        options.output, options, rounds, ratios={name: str(found) for name, found in ratios.items()}
    )


if __name__ == "__main__":
    sys.exit(main())
