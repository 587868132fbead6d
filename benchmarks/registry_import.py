"""How fast a registry takes in distinct one-second recordings, and how much memory that needs.

    python benchmarks/registry_import.py [--files 5000] [--database URL] [--workers 2] [--output result.json]

Makes the files, imports them in a process of its own (rate, peak memory), imports them again (nothing may be added),
and reads the version back as training does. Without ``--database`` a SQLite file beside the recordings is used; a
database that is given must be empty.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import soundfile
from common import new_file

RATE = 16_000
SPEAKERS = 97
WORDS = [
    "một",
    "hai",
    "ba",
    "bốn",
    "năm",
    "sáu",
    "bảy",
    "tám",
    "chín",
    "mười",
    "meeting",
    "deadline",
    "email",
    "report",
    "team",
]
_POLL = 0.05


def main() -> int:
    """Measure, print, write JSON where asked; 1 when a figure is not as it must be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--files", type=int, default=5_000)
    parser.add_argument("--database", help="SQLAlchemy URL of an empty database (default: a SQLite file)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where the recordings are made (a temporary folder)")
    parser.add_argument("--output", type=new_file)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        table = make(Path(folder), arguments.files)
        database = arguments.database or str(Path(folder, "registry.db"))
        result = measure(table, database, arguments.files, arguments.workers)
    shown = {**result, "database": database.split(":")[0] if "://" in database else "sqlite"}
    print(json.dumps(shown, indent=2))
    if arguments.output:
        arguments.output.write_text(json.dumps(shown, indent=2) + "\n", encoding="utf-8")
    right = result["stored"] == arguments.files and result["added_again"] == 0
    return 0 if right else 1


def make(folder: Path, files: int) -> Path:
    """``files`` recordings of one second (noise, and the number in its first samples), and their table."""
    noise = np.random.default_rng(0).integers(-8000, 8000, RATE).astype("<i2")
    buffer = io.BytesIO()
    soundfile.write(buffer, noise, RATE, format="WAV", subtype="PCM_16")
    content = buffer.getvalue()
    head, tail = content[: -2 * RATE], content[-2 * RATE + 4 :]
    table = folder / "metadata.csv"
    with table.open("w", encoding="utf-8") as handle:
        handle.write("file_path,transcript,duration,speaker_id\n")
        for i in range(files):
            path = Path("audio", f"{i // 1000:04}", f"{i:07}.wav")
            if i % 1000 == 0:
                (folder / path).parent.mkdir(parents=True)
            (folder / path).write_bytes(head + i.to_bytes(4, "little") + tail)
            text = " ".join(WORDS[(i // 15**n) % 15] for n in range(3))
            handle.write(f"{path.as_posix()},{text},1.0,s{i % SPEAKERS:03}\n")
    return table


def measure(table: Path, database: str, files: int, workers: int) -> dict[str, Any]:
    """Import, import again, read back."""
    seconds, memory = run(table, database, workers)
    again, _ = run(table, database, workers)
    added, stored, load = read_back(database)
    size = sum(path.stat().st_size for path in table.parent.glob("registry.db*"))
    return {
        "files": files,
        "stored": stored,
        "added_again": added - stored,
        "import_seconds": round(seconds, 2),
        "files_per_second": round(files / seconds, 1),
        "peak_rss_mb": round(memory / 2**20, 1),
        "again_seconds": round(again, 2),
        "load_split_seconds": round(load, 2),
        "database_mb": round(size / 2**20, 1),
        "workers": workers,
        "load_average": round(os.getloadavg()[0], 2),
        "python": sys.version.split()[0],
    }


def run(table: Path, database: str, workers: int) -> tuple[float, float]:
    """Wall seconds and peak resident bytes of one import."""
    options = ["--csv_path", str(table), "--database", database, "--auto_split", "--workers", str(workers)]
    command = [sys.executable, "-m", "training.cli.prepare_data", *options]
    started, peak = time.perf_counter(), 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                peak = max(peak, watched.memory_info().rss)
            except psutil.NoSuchProcess:
                break
            time.sleep(_POLL)
        seconds = time.perf_counter() - started
        assert process.stdout is not None
        said = process.stdout.read()
    if process.returncode:
        raise SystemExit(f"the import failed:\n{said}")
    return seconds, peak


def read_back(database: str) -> tuple[int, int, float]:
    """Recordings in the database, utterances of v1, and the seconds that reading its training split took."""
    from sqlalchemy import func, select

    from training.registry.schema import AudioFile, VersionItem
    from training.registry.source import load_version
    from training.registry.store import open_registry

    with open_registry(database) as registry, registry.read() as connection:
        files = connection.execute(select(func.count(AudioFile.id))).scalar_one()
        items = connection.execute(select(func.count(VersionItem.transcript_id))).scalar_one()
    started = time.perf_counter()
    assert len(load_version(database, "v1", "train"))
    return files, items, time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
