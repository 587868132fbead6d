"""Start-up, memory and cost per step as a manifest grows from 10^4 to 10^6 rows; audio per second on two processes.

    python benchmarks/scaling.py [--rows 10000 100000 1000000] [--format tsv] [--repeats 3] [--output scaling.json]
    python benchmarks/scaling.py --rows 10000 --processes 1

Rows: every size runs in a fresh process each time, so that memory left over by one does not hide that of the next.
Start-up is what a training of a CTC model does before its first step: ``load`` the manifest, ``vocabulary`` (a model
from scratch reads all texts), ``sampler``, and the ``first`` list of indices. The check of every row (``validation``:
its file's header and its texts) is left out and given per row, of the first `CHECKED` ones. A ``step`` is what the data of a training step cost: the
sampler's next indices, the rows, their sound out of one long recording, log-mels, the batch; ``epoch`` what the turn
of an epoch takes and holds. ``all in`` is a step with its part of that turn.

Processes: one process with two accumulated batches and two processes (gloo) of one batch each train demo_whisper's
model on the same clips through ``training/scripts/train.py``, one thread each. No ratio is printed unless every epoch
has each row once and both trainings log the same losses in their first steps.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import math
import multiprocessing
import os
import pickle
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import common
import numpy as np
import psutil
import soundfile

from training.base.errors import UserError, exit_on_user_error

ACCESSES, STEPS, CHECKED = 1000, 40, 2000
RATE, LONGEST = 16_000, 15.0
BATCH_SECONDS = 30.0
COMPARED, TOLERANCE = 10, 1e-4
"""Steps whose losses are compared, and the relative difference that summing gradients in another order may make of
them; it grows with every step."""
TEXT = "em làm kênh TikTok của anh mình thì vậy content được nha rồi cái meeting này không biết hả deadline"
RECORDING = "video.wav"
COLUMNS = (
    "id",
    "video_id",
    "audio_path",
    "start",
    "end",
    "duration",
    "transcript",
    "translation",
    "speaker",
    "language",
)


# Made-up corpora


def write(path: Path, rows: int) -> Path:
    """A manifest of ``rows`` made-up utterances of 3 to 14 words, ten columns, and the one recording of them all."""
    rng = random.Random(rows)
    recording = path.parent / RECORDING
    if not recording.exists():
        noise = np.random.default_rng(0).standard_normal(int(RATE * LONGEST))
        soundfile.write(recording, 0.1 * noise, RATE)
    if path.suffix == ".parquet":
        _write_parquet(path, rows, rng)
        return path
    with path.open("w", encoding="utf-8", newline="") as handle:
        if path.suffix != ".jsonl":
            handle.write(_joined(COLUMNS, path.suffix))
        for index in range(rows):
            handle.write(_joined(row(index, rng), path.suffix))
    return path


def row(index: int, rng: random.Random) -> tuple[str, ...]:
    """Cells in the order of `COLUMNS`; some five letters a second, so that all can be aligned."""
    video = index // 200
    spoken = rng.choices(TEXT.split(), k=rng.randint(3, 14))
    seconds = f"{min(LONGEST, 0.3 + len(' '.join(spoken)) * rng.uniform(0.1, 0.2)):.3f}"
    text = " ".join(spoken)
    return (
        f"u{index:07}",
        f"v{video:05}",
        RECORDING,
        "0",
        seconds,
        seconds,
        text,
        text,
        f"s{video % 97:02}",
        "vi",
    )


def _joined(cells: tuple[str, ...], suffix: str) -> str:
    if suffix == ".jsonl":
        return json.dumps(dict(zip(COLUMNS, cells, strict=True)), ensure_ascii=False) + "\n"
    return ("\t" if suffix == ".tsv" else ",").join(cells) + "\n"


def _write_parquet(path: Path, rows: int, rng: random.Random) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    cells = [row(index, rng) for index in range(rows)]
    parquet.write_table(pa.table({name: [c[i] for c in cells] for i, name in enumerate(COLUMNS)}), path)


# Rows


def in_own_process(path: Path, _: int) -> common.Figures:
    """`measure` in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (path,))


def measure(path: Path) -> common.Figures:
    """Everything of one manifest, once; imports and Arrow's pools are warm before, as they are not the manifest's."""
    with tempfile.TemporaryDirectory() as folder:
        once(write(Path(folder, f"warm{path.suffix}"), 100))
    return once(path)


def once(path: Path) -> common.Figures:
    """Start-up of a training on this manifest, its first steps and its next epoch, in seconds and MB."""
    from training.data.dataset import SpeechDataset, unwritable, validate
    from training.data.manifest import load_manifest
    from training.data.sampler import DurationBatchSampler

    found: common.Figures = {"file_mb": path.stat().st_size / 1e6}
    blocks = sys.getallocatedblocks()
    with measured(found, "load"):
        manifest = load_manifest(path)
    found["python_objects"] = sys.getallocatedblocks() - blocks
    with measured(found, "vocabulary"):
        architecture = small_architecture(manifest)
    dataset = SpeechDataset(manifest, architecture.encode, architecture.sample_rate)
    with measured(found, "sampler"):
        sampler = DurationBatchSampler(dataset.durations, max_seconds=BATCH_SECONDS)
    with measured(found, "first"):
        next(iter(sampler))
    found["start_seconds"] = sum(
        found[f"{part}_seconds"] for part in ("load", "vocabulary", "sampler", "first")
    )
    found["step_seconds"] = step_seconds(dataset, sampler, architecture)
    sampler.set_epoch(1)
    with measured(found, "epoch"):
        epoch = iter(sampler)
        first = next(epoch)
    order = np.array([*first, *itertools.chain.from_iterable(epoch)])
    found["whole"] = bool(np.array_equal(np.sort(order), np.arange(len(manifest))))
    found["steps"] = len(sampler)
    found["all_in_seconds"] = found["step_seconds"] + found["epoch_seconds"] / len(sampler)
    found["access_seconds"] = access_seconds(manifest)
    found["pickled_mb"] = len(pickle.dumps(dataset)) / 1e6
    few = dataset.select(np.arange(min(CHECKED, len(manifest))))
    with measured(found, "validation"):
        kept, _ = validate(few)
        unwritable(few)
    found["validation_seconds"] /= len(few)
    found["whole"] &= len(kept) == len(few)
    return found


@contextmanager
def measured(found: common.Figures, name: str) -> Iterator[None]:
    """Add ``name_seconds``, and ``name_mb``: resident memory that is held after it and was not before."""
    gc.collect()
    process = psutil.Process()
    held, started = process.memory_info().rss, time.perf_counter()
    yield
    found[f"{name}_seconds"] = time.perf_counter() - started
    found[f"{name}_mb"] = (process.memory_info().rss - held) / 1e6


def small_architecture(manifest: Any) -> Any:
    """A CTC model of some thousand weights, its vocabulary the characters of the manifest."""
    from training.models.architecture import BuildContext
    from training.models.lookup import load

    module = load("ctc")
    sizes = {"d_model": 16, "num_encoder_layers": 1, "num_heads": 2, "d_ff": 16, "subsampling_channels": 4}
    options = module.Options(encoder="transformer", languages=["vi"], **sizes)
    return module.build(options, BuildContext(texts=manifest.texts))


def step_seconds(dataset: Any, sampler: Any, architecture: Any) -> float:
    """Seconds a batch, in this process, after the first one."""
    from torch.utils.data import DataLoader

    from training.data.sampler import Supervised

    loader = iter(DataLoader(Supervised(dataset), batch_sampler=sampler, collate_fn=architecture.collate))
    next(loader)
    started = time.perf_counter()
    done = sum(1 for _ in itertools.islice(loader, STEPS))
    return (time.perf_counter() - started) / done


def access_seconds(manifest: Any) -> float:
    """Seconds to make an `Example` of a row, anywhere in the manifest."""
    chosen = random.Random(0).choices(range(len(manifest)), k=ACCESSES)
    started = time.perf_counter()
    for index in chosen:
        assert manifest[index].texts
    return (time.perf_counter() - started) / ACCESSES


ROW_COLUMNS = {
    "load s": ("load_seconds", 1, 2),
    "load MB": ("load_mb", 1, 0),
    "vocabulary s": ("vocabulary_seconds", 1, 2),
    "sampler s": ("sampler_seconds", 1, 3),
    "first s": ("first_seconds", 1, 3),
    "start s": ("start_seconds", 1, 2),
    "step ms": ("step_seconds", 1e3, 1),
    "epoch s": ("epoch_seconds", 1, 3),
    "epoch MB": ("epoch_mb", 1, 0),
    "all in ms": ("all_in_seconds", 1e3, 1),
    "access µs": ("access_seconds", 1e6, 0),
    "validation µs": ("validation_seconds", 1e6, 0),
}
"""Figure, factor and decimals by the table's column."""


def row_table(rounds: Sequence[common.Round]) -> str:
    """Medians by size."""
    lines = [
        [
            name,
            *(
                f"{factor * common.values(rounds, name, figure).median:.{places}f}"
                for figure, factor, places in ROW_COLUMNS.values()
            ),
        ]
        for name in rounds[0].arms
    ]
    return common.table(["rows", *ROW_COLUMNS], lines)


# Processes


def train(manifest: Path, epochs: int, ranks: int, number: int) -> common.Figures:
    """One training through the command; seconds without its start-up, and the loss of every step."""
    folder = manifest.parent / f"{ranks}_{number}"
    name = "scaling"
    overrides = [
        f"data.train={manifest}",
        f"data.dev={manifest}",
        f"data.test={manifest}",
        f"paths.output_dir={folder}",
        f"output.experiment_name={name}",
        "training.cpu_threads=1",
        f"training.gradient_accumulation_steps={2 // ranks}",
        f"training.num_train_epochs={epochs}",
        "training.eval_strategy=no",
        "training.load_best_model_at_end=false",
        "training.save_strategy=no",
        "training.logging_steps=1",
        "training.report_to=none",
        "dataloader.num_workers=0",
    ]
    script = str(common.ROOT / "training" / "scripts" / "train.py")
    launcher = (
        ["-m", "torch.distributed.run", f"--nproc_per_node={ranks}", "--standalone"] if ranks > 1 else []
    )
    config = str(common.ROOT / "configs" / "demo_whisper.yaml")
    command = [sys.executable, *launcher, script, "--config", config, *overrides]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(common.ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"the training failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    run = folder / name
    results = json.loads((run / "train_results.json").read_text(encoding="utf8"))
    history = json.loads((run / "metrics" / f"{name}_metrics.json").read_text(encoding="utf8"))["history"]
    seconds = results["train_seconds"]
    return {
        "seconds": seconds,
        "steps": results["steps"],
        "audio_seconds_per_second": epochs * audio_seconds(manifest) / seconds,
        "losses": [entry["loss"] for entry in history if "loss" in entry],
    }


def audio_seconds(manifest: Path) -> float:
    """Seconds of all rows."""
    from training.data.manifest import load_manifest

    return float(load_manifest(manifest).durations.sum())


def difference(one: Sequence[float], two: Sequence[float]) -> float:
    """The largest relative one between two runs' first losses; infinite where a loss is not finite, or the steps are not as many."""
    if not one or len(one) != len(two) or not all(map(math.isfinite, [*one, *two])):
        return math.inf
    return max(abs(a - b) / abs(a) for a, b in zip(one[:COMPARED], two[:COMPARED], strict=True))


def process_table(rounds: Sequence[common.Round]) -> str:
    """Seconds and speed by number of processes."""
    lines = [
        [
            name,
            f"{common.values(rounds, name, 'seconds'):.1f}",
            f"{common.values(rounds, name, 'audio_seconds_per_second'):.1f}",
        ]
        for name in rounds[0].arms
    ]
    return common.table(["processes", "training s", "audio seconds/s"], lines)


# The command


def rows_part(args: argparse.Namespace, folder: Path) -> tuple[list[common.Round], list[str], dict[str, Any]]:
    """Rounds over all sizes, failures, and how the largest compares with the smallest."""
    sizes = sorted(args.rows)
    paths = {rows: write(folder / f"{rows}.{args.format}", rows) for rows in sizes}
    arms = {f"{rows:,}": partial(in_own_process, path) for rows, path in paths.items()}
    rounds = common.in_turns(arms, args.repeats)
    print(f"{row_table(rounds)}\n")
    failures = [
        f"{name} rows: an epoch does not have each row once, or a row was refused"
        for name in arms
        if not all(one.arms[name]["whole"] for one in rounds)
    ]
    if failures or len(sizes) < 2:
        return rounds, failures, {}
    smallest, largest = f"{sizes[0]:,}", f"{sizes[-1]:,}"
    found = {
        name: common.ratio(rounds, f"{name}_seconds", largest, smallest)
        for name in ("step", "all_in", "access")
    }
    told = ", ".join(f"{name.replace('_', ' ')} {spread:.2f}" for name, spread in found.items())
    print(f"{largest} rows against {smallest}: {told}\n")
    return rounds, failures, found


def processes_part(
    args: argparse.Namespace, folder: Path
) -> tuple[list[common.Round], list[str], dict[str, Any]]:
    """Rounds of one and of two processes, failures, and the ratio of their speeds."""
    manifest = write(folder / "train.tsv", args.clips)
    arms = {
        str(ranks): partial(train, manifest, args.epochs, ranks) for ranks in range(1, args.processes + 1)
    }
    rounds = common.in_turns(arms, args.repeats)
    print(process_table(rounds))
    if args.processes < 2:
        return rounds, [], {}
    apart = max(difference(one.arms["1"]["losses"], one.arms["2"]["losses"]) for one in rounds)
    if not apart <= TOLERANCE:
        return rounds, [f"losses of one and two processes differ by {apart:.1e}"], {"loss_difference": apart}
    faster = common.ratio(rounds, "seconds", "1", "2")
    print(f"two processes: {faster:.2f} times the speed of one; losses equal to {apart:.0e}")
    return rounds, [], {"two_processes": faster, "loss_difference": apart}


def main(argv: Sequence[str] | None = None) -> int:
    """1 where a quality gate fails."""
    args = parsed(argv)
    with tempfile.TemporaryDirectory() as name:
        parts = [rows_part(args, Path(name))] if args.rows else []
        parts += [processes_part(args, Path(name))] if args.processes else []
    rounds = [one for part in parts for one in part[0]]
    failures = [failure for part in parts for failure in part[1]]
    results = {key: value for part in parts for key, value in part[2].items()}
    return common.finish(args.output, args, rounds, failures, **results)


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command's options."""
    parser = common.command_line(__doc__)
    parser.add_argument("--rows", type=common.count, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--format", choices=("tsv", "csv", "jsonl", "parquet"), default="tsv")
    parser.add_argument(
        "--processes", type=int, choices=(0, 1, 2), default=2, help="up to so many (2); 0: none"
    )
    parser.add_argument(
        "--clips", type=common.count, default=200, help="of the training of one and two processes (200)"
    )
    parser.add_argument("--epochs", type=common.count, default=2, help="of it (2)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    exit_on_user_error(main)
