"""Share of padded frames in an epoch: random batches and length grouping as usual, against duration buckets.

    python benchmarks/padding.py [MANIFEST …] [--speech DIR] [--buckets 16 32 64] [--output padding.json]

Every corpus is cut into batches as every configuration has them, ``--repeats`` epochs of each arm. ``padded``: random
batches, filled up to Whisper's 30 s; ``random``: to their longest clip; ``grouped``: to their longest clip, indices
from transformers' own ``LengthGroupedSampler``; ``ours``: `DurationBatchSampler` with the configuration's bounds. The
usual arms have the configuration's ``batch_size``, and where it names seconds alone our mean number of clips.

Frames are counted from the stated durations as encoders and collators count them, 100 a second: of a clip for Whisper
with the 40 ms of silence that it always gets, for CTC without edge silences, which training leaves out. Padding is what
a row holds beyond its own clip, up to the longest of the batch. What Whisper's collator adds on purpose to all rows
alike, the margin and the share of batches in full context, stands in a column of its own. Changes of speed and joined
clips (augmentation) are not counted.

Corpora: the manifests named; those under ``--speech`` (or the variable ``POLYVOX_SPEECH``); the demo corpus, spoken
anew (half a minute) unless ``--no_demo`` is given. No ratio is printed unless every arm gives each clip once an epoch.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from torch.utils.data import BatchSampler, RandomSampler
from transformers import WhisperFeatureExtractor
from transformers.trainer_pt_utils import LengthGroupedSampler

from training.base.errors import UserError, exit_on_user_error
from training.config.load import load_config
from training.config.schema import Config
from training.data.manifest import load_manifest
from training.data.sampler import DurationBatchSampler
from training.models.common.log_mels import FRAMES_PER_SECOND, MAX_FRAMES, Context, count_frames
from training.planning import worst_case
from training.synthetic.demo import make_demo

CONFIGS = ("demo_whisper", "demo_ctc", "digits_ctc", "dev_whisper", "prod_whisper")
WANTED = 0.05
"""Largest share of padding that a shipped configuration should have."""


@dataclass(frozen=True)
class Corpus:
    """The clips of a corpus that a configuration takes: stated seconds and log-mel frames of each."""

    name: str
    seconds: np.ndarray
    frames: np.ndarray


def frames_of(config: Config, seconds: np.ndarray) -> np.ndarray:
    """Log-mel frames of clips of such lengths as the configuration's encoder makes them, int64 ``[clips]``."""
    samples = np.round(seconds * config.audio.sample_rate).astype(np.int64)
    if is_whisper(config):
        extractor = WhisperFeatureExtractor()
        return np.array([count_frames(extractor, int(n)) for n in samples], dtype=np.int64)
    hop = getattr(config.model, "hop_length", None) or config.audio.sample_rate // FRAMES_PER_SECOND
    return samples // hop


def is_whisper(config: Config) -> bool:
    """Whether batches go to Whisper's encoder, which knows margins and full contexts."""
    model = config.model
    return hasattr(model, "encoder_context") and getattr(model, "encoder", "whisper") == "whisper"


def context_of(config: Config) -> Context | None:
    """How Whisper's collator lengthens training batches; None for other encoders."""
    if not is_whisper(config):
        return None
    model: Any = config.model
    # CTC on Whisper's encoder: null is trimmed, and no batch is in full.
    share = getattr(model, "full_context_share", 0.0)
    return Context(model.encoder_context or "trimmed", model.context_margin_seconds, share)


def taken(name: str, seconds: np.ndarray, config: Config) -> Corpus:
    """The clips that are no longer than the configuration allows."""
    kept = seconds[seconds <= config.audio.max_length_seconds]
    return Corpus(name, kept, frames_of(config, kept))


# Batches


def ours(corpus: Corpus, config: Config, epoch: int, **options: Any) -> list[list[int]]:
    """The batches of the configuration's own sampler."""
    sampler = DurationBatchSampler(corpus.seconds, **worst_case.bounds(config), **options)
    return sampler.batches(epoch)


def usual_size(corpus: Corpus, config: Config) -> int:
    """Clips in a batch of the usual arms."""
    if config.training.batch_size:
        return config.training.batch_size
    return max(1, round(len(corpus.seconds) / len(ours(corpus, config, 0))))


def random_batches(corpus: Corpus, config: Config, epoch: int) -> list[list[int]]:
    """Clips in any order."""
    order = RandomSampler(range(len(corpus.seconds)), generator=torch.Generator().manual_seed(epoch))  # type: ignore[arg-type]
    return list(BatchSampler(order, usual_size(corpus, config), drop_last=False))


def grouped_batches(corpus: Corpus, config: Config, epoch: int) -> list[list[int]]:
    """``train_sampling_strategy="group_by_length"``."""
    size, generator = usual_size(corpus, config), torch.Generator().manual_seed(epoch)
    order = LengthGroupedSampler(size, lengths=corpus.frames.tolist(), generator=generator)
    return list(BatchSampler(order, size, drop_last=False))


# Frames


def counted(
    corpus: Corpus, batches: Sequence[list[int]], fill: int | None = None, context: Context | None = None
) -> common.Figures:
    """Frames of an epoch: of the clips, of rows as long as the longest of their batch, and as the collator makes them.

    ``fill``: every row has so many frames instead. ``whole``: each clip came once.
    """
    rows = [(len(batch), fill or int(corpus.frames[batch].max())) for batch in batches]
    filled = sum(count * longest for count, longest in rows)
    collated = sum(
        len(batch) * collated_frames(corpus, batch, context, longest)
        for batch, (_, longest) in zip(batches, rows, strict=True)
    )
    clips = int(corpus.frames.sum())
    return {
        "batches": len(batches),
        "frames": filled,
        "padding": 1 - clips / filled,
        "collated": 1 - clips / collated,
        "whole": sorted(i for batch in batches for i in batch) == list(range(len(corpus.frames))),
    }


def collated_frames(corpus: Corpus, batch: list[int], context: Context | None, longest: int) -> int:
    """Frames of a row of the batch, counted by Whisper's collator where there is a ``context``."""
    if context is None:
        return longest
    features = [{"id": str(i), "input_features": np.empty((0, corpus.frames[i]))} for i in batch]
    return context.frames(features)


def arms(corpus: Corpus, config: Config) -> dict[str, Callable[[int], common.Figures]]:
    """What gives an epoch's frames, by arm."""
    usual = {"random": random_batches, "grouped": grouped_batches}
    found: dict[str, Callable[[int], common.Figures]] = {
        name: lambda epoch, make=make: counted(corpus, make(corpus, config, epoch))
        for name, make in usual.items()
    }
    if is_whisper(config):
        found["padded"] = lambda epoch: counted(corpus, random_batches(corpus, config, epoch), MAX_FRAMES)
    context = context_of(config)
    found["ours"] = lambda epoch: counted(corpus, ours(corpus, config, epoch), context=context)
    return found


def more_buckets(corpus: Corpus, config: Config, buckets: Sequence[int]) -> list[dict[str, Any]]:
    """Padding and batches of an epoch with other numbers of buckets, and how many buckets there then are."""
    found = []
    for count in buckets:
        sampler = DurationBatchSampler(corpus.seconds, **worst_case.bounds(config), buckets=count)
        figures = counted(corpus, sampler.batches(0))
        found.append(
            {"asked": count, "buckets": len(sampler.buckets)}
            | {name: figures[name] for name in ("padding", "batches")}
        )
    return found


# Corpora


def corpora(args: argparse.Namespace) -> Iterator[tuple[str, np.ndarray]]:
    """Name and seconds of the clips of every corpus that is asked for and there; their texts need not be clean."""
    for path in (*map(Path, args.manifests), *real_manifests(args.speech)):
        yield path.resolve().parent.name, load_manifest(path, check_words=False).durations
    if args.demo:
        with tempfile.TemporaryDirectory() as folder:
            made = make_demo(Path(folder) / "demo", minutes=args.minutes)
            yield "demo", load_manifest(made.manifest, check_words=False).durations


def real_manifests(speech: Path | None) -> list[Path]:
    """One manifest per folder; none, with a word on stderr, where there is no real speech."""
    found = sorted(speech.glob("*/manifest.tsv")) if speech is not None else []
    if not found:
        print("no real speech: name its folder with --speech or POLYVOX_SPEECH", file=sys.stderr)
    return found


# Results


def measure(corpus: Corpus, config: Config, name: str, args: argparse.Namespace) -> dict[str, Any]:
    """All epochs of all arms of one corpus under one configuration."""
    rounds = common.in_turns(arms(corpus, config), args.repeats)
    failures = [
        f"{corpus.name}, {name}: {arm} does not give every clip once"
        for arm in rounds[0].arms
        if not all(one.arms[arm]["whole"] for one in rounds)
    ]
    return {
        "corpus": corpus.name,
        "config": name,
        "clips": len(corpus.seconds),
        "rounds": rounds,
        "failures": failures,
        "buckets": more_buckets(corpus, config, args.buckets),
    }


def cells(found: dict[str, Any]) -> list[str]:
    """A line of the table: padding by arm, what the collator makes of ours, and how many more frames random batches have."""
    rounds = found["rounds"]
    shares = [
        f"{common.values(rounds, arm, 'padding').median:.1%}" if arm in rounds[0].arms else "-"
        for arm in ("padded", "random", "grouped", "ours")
    ]
    collated = f"{common.values(rounds, 'ours', 'collated').median:.1%}"
    saved = "-" if found["failures"] else f"{common.ratio(rounds, 'frames', 'random', 'ours').median:.2f}"
    return [f"{found['corpus']}, {found['config']}", f"{found['clips']:,}", *shares, collated, saved]


def main(argv: Sequence[str] | None = None) -> int:
    """1 where an arm loses or repeats clips."""
    args = parsed(argv)
    configs = {name: load_config(common.ROOT / "configs" / f"{name}.yaml") for name in args.configs}
    found = []
    for corpus, seconds in corpora(args):
        for name, config in configs.items():
            clips = taken(corpus, seconds, config)
            if len(clips.seconds):
                found.append(measure(clips, config, name, args))
    if not found:
        raise UserError("nothing to measure: name manifests or --speech, or leave --no_demo out")
    head = (
        "corpus, configuration",
        "clips",
        "padded",
        "random",
        "grouped",
        "ours",
        "with margin",
        "random/ours",
    )
    print(f"{common.table(head, [cells(one) for one in found])}\n")
    show_buckets(found)
    above = [one for one in found if common.values(one["rounds"], "ours", "padding").median > WANTED]
    print(
        f"ours above {WANTED:.0%}: {', '.join(' '.join((o['corpus'], o['config'])) for o in above) or 'none'}"
    )
    failures = [failure for one in found for failure in one["failures"]]
    return common.finish(args.output, args, labelled(found), failures, results=summaries(found))


def show_buckets(found: Sequence[dict[str, Any]]) -> None:
    """The second table: padding, buckets that the corpus is worth and batches of an epoch, by buckets asked for."""
    if not found[0]["buckets"]:
        return
    rows = [
        [f"{one['corpus']}, {one['config']}"]
        + [f"{b['padding']:.1%} ({b['buckets']}; {b['batches']})" for b in one["buckets"]]
        for one in found
    ]
    head = ["padding (buckets; batches)", *(f"{b['asked']} asked for" for b in found[0]["buckets"])]
    print(f"{common.table(head, rows)}\n")


def labelled(found: Sequence[dict[str, Any]]) -> list[common.Round]:
    """All rounds, arms named after corpus and configuration."""
    return [
        replace(one, arms={f"{f['corpus']}, {f['config']}, {arm}": v for arm, v in one.arms.items()})
        for f in found
        for one in f["rounds"]
    ]


def summaries(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the JSON says of each corpus and configuration beside the rounds."""
    return [{name: one[name] for name in ("corpus", "config", "clips", "buckets")} for one in found]


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command's options."""
    parser = common.command_line(__doc__)
    speech = os.environ.get("POLYVOX_SPEECH")
    parser.add_argument("manifests", nargs="*", metavar="MANIFEST")
    parser.add_argument("--speech", type=Path, default=Path(speech) if speech else None)
    parser.add_argument("--no_demo", dest="demo", action="store_false", help="do not speak the demo corpus")
    parser.add_argument("--minutes", type=float, help="of the demo corpus (its own length)")
    parser.add_argument("--configs", nargs="+", default=CONFIGS, choices=CONFIGS, metavar="NAME")
    parser.add_argument(
        "--buckets", type=common.count, nargs="*", default=[16, 32, 64], help="numbers to try (16 32 64)"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    exit_on_user_error(main)
