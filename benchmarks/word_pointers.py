"""Designs of the aligner on made-up utterances with exact word times: error of starts and ends in frames.

    PYTHONPATH=tests/unit python benchmarks/word_pointers.py [--steps 300] [--seeds 3] [--only TEXT …]

Every design sees the same utterances (tests/unit/spoken_phones.py) and is scored on unseen ones. One line each: mean
absolute error of starts and ends with the spread over the seeds, signed error of starts, starts within one
frame, seconds of training. The first line is the words spread evenly over the clip.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from spoken_phones import FRAME_SECONDS, Language, Spoken, aligner, errors, train

from training.models.voxlm.aligner import WordAligner

SHIPPED: Mapping[str, Any] = {"layers": 2, "ctc_weight": 0.3, "sharpness": 1.0, "distance": True}
DESIGNS: Mapping[str, Mapping[str, Any]] = {
    "shipped": {},
    "no CTC": {"ctc_weight": 0.0},
    "CTC weight 1": {"ctc_weight": 1.0},
    "no layers": {"layers": 0},
    "1 layer": {"layers": 1},
    "no distance": {"distance": False},
    "sharpness 0.8": {"sharpness": 0.8},
    "sharpness 0.5": {"sharpness": 0.5},
}
"""What each changes of the shipped one."""


def main() -> int:
    """Train and score every design, print a table."""
    args = _arguments()
    torch.set_num_threads(1)
    print(f"{args.steps} steps of 16 clips, noise {args.noise}, load {os.getloadavg()[0]:.1f}")
    print(f"{'design':16} {'|start|':>14} {'|end|':>14} {'start':>7} {'within 1':>9} {'seconds':>8}")
    _line("spread evenly", [(_evenly(_unseen(seed, args.noise)), 0.0) for seed in range(args.seeds)])
    for name, changes in DESIGNS.items():
        if not args.only or any(part in name for part in args.only):
            runs = [_run({**SHIPPED, **changes}, seed, args) for seed in range(args.seeds)]
            _line(name, runs)
    return 0


def _run(design: Mapping[str, Any], seed: int, args: argparse.Namespace) -> tuple[np.ndarray, float]:
    model = aligner(layers=design["layers"], seed=seed)
    if not design["distance"]:
        _without_distance(model)
    losses = {name: design[name] for name in ("ctc_weight", "sharpness")}
    started = time.perf_counter()
    train(model, Language(seed, args.noise), args.steps, **losses)
    seconds = time.perf_counter() - started
    return errors(model, _unseen(seed, args.noise)), seconds


def _without_distance(model: WordAligner) -> None:
    torch.nn.init.zeros_(model.distance.weight)
    model.distance.requires_grad_(False)


def _unseen(seed: int, noise: float) -> Spoken:
    """The same language, spoken by another draw."""
    language = Language(seed, noise)
    language.rng = np.random.default_rng(1000 + seed)
    return language.speak(128)


def _evenly(spoken: Spoken) -> np.ndarray:
    """Errors in frames of words of equal length that fill the clip."""
    found = []
    for i in range(len(spoken.frames)):
        frames, words = int(spoken.frame_lengths[i]), int(spoken.word_lengths[i])
        edges = np.linspace(0, frames, words + 1)
        wanted = torch.stack((spoken.starts[i, :words], spoken.ends[i, :words]), dim=1).numpy()
        found.append(np.stack((edges[:-1], edges[1:]), axis=1) - wanted / FRAME_SECONDS)
    return np.concatenate(found)


def _line(name: str, runs: list[tuple[np.ndarray, float]]) -> None:
    absolute = np.array([np.abs(found).mean(axis=0) for found, _ in runs])
    (start, end), (start_spread, end_spread) = absolute.mean(axis=0), absolute.std(axis=0)
    bias = np.mean([found[:, 0].mean() for found, _ in runs])
    within = np.mean([(np.abs(found[:, 0]) <= 1).mean() for found, _ in runs])
    seconds = np.mean([seconds for _, seconds in runs])
    print(
        f"{name:16} {start:>6.2f} ± {start_spread:<5.2f} {end:>6.2f} ± {end_spread:<5.2f} {bias:>+7.2f} "
        f"{within:>8.0%} {seconds:>8.0f}",
        flush=True,
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--noise", type=float, default=0.4, help="deviation; a phone's vector has 1")
    parser.add_argument(
        "--only", nargs="*", default=[], metavar="TEXT", help="designs with this in their name"
    )
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
