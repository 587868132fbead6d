"""Samples per second from shards and from single files, over ranks and workers; every sample exactly once per epoch.

    python benchmarks/shards_stream.py [--samples 100000] [--shards 100] [--ranks 2] [--workers 3] [--output result.json]

The same WAV bytes lie in both. Rounds are interleaved: shards, files, shards, files, …; each rank is a process of its
own with its own data workers. What is timed is what training does: look the row up, decode it, put it into a batch.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from common import new_file
from torch.utils.data import DataLoader

from training.data.dataset import SpeechDataset
from training.data.manifest import load_manifest
from training.data.sampler import DurationBatchSampler, Supervised
from training.data.sources.shards.order import ShardBatchSampler
from training.data.sources.shards.source import load_shards
from training.data.sources.shards.write import write_shards

RATE = 16_000
FOLDER_FILES = 1000
"""Files in one folder: no file system is slowed by folders of 100,000."""


def main() -> int:
    """Make the corpus, read it in turns, print what was found, write JSON where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--shards", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=0.25, help="length of a clip")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--workers", type=int, default=3, help="data workers of each rank")
    parser.add_argument("--rounds", type=int, default=2, help="epochs of each kind (2)")
    parser.add_argument("--folder", type=Path, help="where the corpus is made for the time (the system's)")
    parser.add_argument("--output", type=new_file)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        result = measure(Path(name), arguments)
    print(json.dumps(result, indent=2))
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Rates of both kinds, and whether each epoch had every sample once."""
    table = make_files(folder / "files", arguments.samples, arguments.seconds)
    started = time.perf_counter()
    per_shard = -(-arguments.samples // arguments.shards)
    written = write_shards(load_manifest(table), folder / "shards", samples_per_shard=per_shard)
    writing = time.perf_counter() - started
    indexing = [timed_index(folder / "shards") for _ in range(2)]
    rates: dict[str, list[float]] = {"shards": [], "files": []}
    for epoch in range(arguments.rounds):
        for kind, found in rates.items():
            found.append(one_epoch(kind, folder, epoch, arguments))
    medians = {kind: statistics.median(found) for kind, found in rates.items()}
    return {
        "samples": arguments.samples,
        "shards": len(written.shards),
        "seconds_of_a_clip": arguments.seconds,
        "ranks": arguments.ranks,
        "workers_of_each": arguments.workers,
        "every_sample_exactly_once": True,  # `one_epoch` ends the program otherwise
        "samples_per_second": {kind: [round(rate) for rate in found] for kind, found in rates.items()},
        "shards_against_files": round(medians["shards"] / medians["files"], 3),
        "write_seconds": round(writing, 1),
        "index_seconds": round(indexing[0], 2),
        "kept_index_seconds": round(indexing[1], 2),
        "load_average": round(os.getloadavg()[0], 2),
        "python": sys.version.split()[0],
    }


def make_files(folder: Path, samples: int, seconds: float) -> Path:
    """WAVs of noise that differ, and their manifest."""
    noise = np.random.default_rng(0).integers(-9000, 9000, round(seconds * RATE)).astype(np.int16)
    sink = io.BytesIO()
    soundfile.write(sink, noise, RATE, format="WAV", subtype="PCM_16")
    content = sink.getvalue()
    table = folder / "manifest.tsv"
    folder.mkdir()
    with table.open("w", encoding="utf-8") as handle:
        handle.write("id\taudio_path\tduration\ttranscript\tdomain\n")
        for i in range(samples):
            path = Path(f"{i // FOLDER_FILES:04}", f"{i:07}.wav")
            if i % FOLDER_FILES == 0:
                (folder / path).parent.mkdir()
            (folder / path).write_bytes(content[:-4] + i.to_bytes(4, "little"))
            handle.write(f"u{i}\t{path}\t{seconds}\tword {i}\t{'ab'[i % 2]}\n")
    return table


def timed_index(folder: Path) -> float:
    started = time.perf_counter()
    load_shards(folder)
    return time.perf_counter() - started


def one_epoch(kind: str, folder: Path, epoch: int, arguments: argparse.Namespace) -> float:
    """Samples per second of all ranks together; ends the program where a sample is missing or comes twice."""
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    ranks = [
        context.Process(target=read, args=(results, kind, folder, epoch, rank, arguments))
        for rank in range(arguments.ranks)
    ]
    for process in ranks:
        process.start()
    parts = [results.get() for _ in ranks]
    for process in ranks:
        process.join()
    times = Counter(i for ids, _ in parts for i in ids)
    if len(times) != arguments.samples or set(times.values()) != {1}:
        raise SystemExit(f"{kind}, epoch {epoch}: {len(times)} samples, times {Counter(times.values())}")
    return arguments.samples / max(seconds for _, seconds in parts)


def read(results: Any, kind: str, folder: Path, epoch: int, rank: int, arguments: argparse.Namespace) -> None:
    """One rank's share of an epoch: puts the ids that it was given and the seconds that it took."""
    options: dict[str, Any] = {"batch_size": 32, "rank": rank, "world": arguments.ranks}
    sampler: DurationBatchSampler
    if kind == "shards":
        source = load_shards(folder / "shards")
        sampler, rows = ShardBatchSampler.of(source, **options), source
    else:
        rows = load_manifest(folder / "files" / "manifest.tsv")
        sampler = DurationBatchSampler(rows.durations, **options)
    sampler.set_epoch(epoch)
    dataset = Supervised(SpeechDataset(rows, encode, RATE))
    loader = DataLoader(
        dataset, batch_sampler=sampler, num_workers=arguments.workers, collate_fn=collate, prefetch_factor=4
    )
    started = time.perf_counter()
    ids = [i for batch in loader for i in batch]
    results.put((ids, time.perf_counter() - started))


def encode(example: Any, waveform: np.ndarray) -> dict[str, Any]:
    """The sound's sum, so that it is touched; a filler has no labels beyond its empty prompt."""
    return {"id": example.id, "sum": float(waveform.sum()), "labels": {"t": [1]}, "prompt": {"t": 0}}


def collate(rows: list[dict[str, Any]]) -> list[str]:
    """Ids of what is supervised: fillers repeat a sample and teach nothing."""
    return [row["id"] for row in rows if row["labels"]["t"]]


if __name__ == "__main__":
    sys.exit(main())
