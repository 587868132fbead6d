"""How long manifests of 10^4 to 10^6 rows take to load, how much memory they hold, how fast rows are read.

    python benchmarks/manifest_rows.py [--rows 10000 100000 1000000] [--format tsv] [--output result.json]

Every size runs in a process of its own, so that memory left over by one does not hide that of the next.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import pickle
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

ACCESSES = 1000
TEXT = "em làm kênh TikTok của anh mình thì vậy content được nha rồi cái meeting này không biết hả deadline"
COLUMNS = ("id", "video_id", "audio_path", "duration", "transcript", "translation", "speaker", "language")


def main() -> int:
    """Measure every size, print a table, write JSON where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--format", choices=("tsv", "csv", "jsonl", "parquet"), default="tsv")
    parser.add_argument("--repeats", type=int, default=3, help="loads per size; the median counts (3)")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    print(
        f"{'rows':>10} {'file MB':>9} {'load s':>8} {'RSS +MB':>9} {'Python +MB':>11} {'access µs':>10} {'sent MB':>8}"
    )
    results = []
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"manifest.{arguments.format}")
            write(path, rows)
            results.append(in_own_process(path, rows, arguments.repeats))
        r = results[-1]
        print(
            f"{rows:>10,} {r['file_mb']:>9.1f} {r['load_seconds']:>8.2f} {r['rss_mb']:>9.1f} "
            f"{r['python_objects_mb']:>11.1f} {r['access_us']:>10.1f} {r['pickled_mb']:>8.3f}"
        )
    if arguments.output:
        content = {
            "format": arguments.format,
            "python": sys.version.split()[0],
            "load": os.getloadavg()[0],
            "sizes": results,
        }
        arguments.output.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0


def in_own_process(path: Path, rows: int, repeats: int) -> dict[str, Any]:
    """`measure` in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (path, rows, repeats))


def measure(path: Path, rows: int, repeats: int) -> dict[str, Any]:
    """Load ``repeats`` times (memory: the first), then read random rows."""
    from training.data.manifest import load_manifest

    warm = path.with_name(f"warm{path.suffix}")  # imports and Arrow's pools are not the manifest's
    write(warm, 100)
    load_manifest(warm)[0]
    process = psutil.Process()
    gc.collect()
    rss, blocks = process.memory_info().rss, sys.getallocatedblocks()
    seconds = []
    for repeat in range(repeats):
        started = time.perf_counter()
        manifest = load_manifest(path)
        seconds.append(time.perf_counter() - started)
        if repeat == 0:
            gc.collect()
            held = process.memory_info().rss - rss
            objects = sys.getallocatedblocks() - blocks
    assert len(manifest) == rows
    chosen = [random.Random(0).randrange(rows) for _ in range(ACCESSES)]
    started = time.perf_counter()
    for index in chosen:
        assert manifest[index].texts
    access = (time.perf_counter() - started) / ACCESSES
    return {
        "rows": rows,
        "file_mb": path.stat().st_size / 1e6,
        "load_seconds": statistics.median(seconds),
        "load_seconds_all": seconds,
        "rss_mb": held / 1e6,
        "arrow_mb": manifest.table.nbytes / 1e6,
        "python_objects": objects,
        "python_objects_mb": objects * 64 / 1e6,  # a small object's block is 64 bytes or so
        "access_us": access * 1e6,
        "pickled_mb": len(pickle.dumps(manifest)) / 1e6,
    }


def write(path: Path, rows: int) -> None:
    """A manifest of ``rows`` made-up utterances of 3 to 14 words, eight columns."""
    rng = random.Random(rows)
    if path.suffix == ".parquet":
        _write_parquet(path, rows, rng)
        return
    with path.open("w", encoding="utf-8", newline="") as handle:
        if path.suffix != ".jsonl":
            handle.write(_joined(COLUMNS, path.suffix))
        for index in range(rows):
            handle.write(_joined(row(index, rng), path.suffix))


def row(index: int, rng: random.Random) -> tuple[str, ...]:
    """Cells in the order of `COLUMNS`."""
    video = index // 200
    words = TEXT.split()
    text = " ".join(rng.choices(words, k=rng.randint(3, 14)))
    duration = f"{rng.uniform(0.6, 15):.3f}"
    audio = f"video_{video:05}/segment_{index:07}.wav"
    return f"u{index:07}", f"v{video:05}", audio, duration, text, text, f"s{video % 97:02}", "vi"


def _joined(cells: tuple[str, ...], suffix: str) -> str:
    if suffix == ".jsonl":
        return json.dumps(dict(zip(COLUMNS, cells, strict=True)), ensure_ascii=False) + "\n"
    return ("\t" if suffix == ".tsv" else ",").join(cells) + "\n"


def _write_parquet(path: Path, rows: int, rng: random.Random) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    cells = [row(index, rng) for index in range(rows)]
    parquet.write_table(pa.table({name: [c[i] for c in cells] for i, name in enumerate(COLUMNS)}), path)


if __name__ == "__main__":
    sys.exit(main())
