"""What a measurement of Whisper trainings needs: clips, a folder of random weights, arms in processes of their own."""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import Figures, count
from stock_recipe import TASKS

from training.base.errors import UserError
from training.models.common.sizes import SIZES

HERE = Path(__file__).resolve().parent
WHISPERS = [name for name in SIZES if "whisper" in name]
COLUMNS = ("audio_path", "duration", "transcript", "translation", "language")
LONGEST = 30.0
"""Seconds that a Whisper hears: stock would cut what is longer, we leave it out."""


@dataclass(frozen=True)
class Clips:
    """Rows of a manifest for training and as many as wanted beside them, and the folder of their audio."""

    root: Path
    train: Path
    held_out: Path
    seconds: float
    """Of the training clips."""
    count: int


def step_rows(text: str) -> int:
    """Rows of a step: every clip is one for either task."""
    found = count(text)
    if found % 2:
        raise argparse.ArgumentTypeError(f"{found} rows are no whole clips for two tasks")
    return found


def choose_clips(
    work: Path, count: int, held_out: int, *, shortest: float = 2.0, longest: float = 10.0
) -> Clips:
    """``count`` clips of ``shortest`` to ``longest`` seconds with both texts, and others to look at afterwards.

    From ``mboshi_french`` below ``POLYVOX_SPEECH`` (real speech) where that is set, else from a demo corpus made for it.
    """
    manifest = _corpus(work)
    rows = [row for row in whole_files(manifest) if shortest <= float(row["duration"]) <= longest]
    if len(rows) < count + held_out:
        raise UserError(
            f"{manifest}: {len(rows)} clips of {shortest:g}-{longest:g} s, {count + held_out} are wanted"
        )
    rows = rows[:: len(rows) // (count + held_out)]
    train, others = rows[:count], rows[count : count + held_out]
    return Clips(
        root=manifest.parent,
        train=write_rows(work / "train.tsv", train),
        held_out=write_rows(work / "held_out.tsv", others),
        seconds=sum(float(row["duration"]) for row in train),
        count=count,
    )


def whole_files(manifest: Path, audio_root: Path | None = None, language: str = "vi") -> list[dict[str, str]]:
    """Rows of a manifest with both texts whose clip is a file of its own; ``language`` where they name none."""
    from training.data.manifest import load_manifest

    return [
        {
            "audio_path": str(Path(one.audio.path).resolve()),
            "duration": f"{one.duration:.3f}",
            "transcript": one.texts["transcribe"],
            "translation": one.texts["translate"],
            "language": one.language or language,
        }
        for one in load_manifest(manifest, audio_root=audio_root)
        if len(one.texts) == 2 and one.audio.end is None
    ]


def spread_clips(manifest: Path, audio_root: Path | None, language: str, wanted: int, path: Path) -> Path:
    """``wanted`` whole files with both texts, from all over a split, as a manifest at ``path``."""
    rows = [row for row in whole_files(manifest, audio_root, language) if float(row["duration"]) <= LONGEST]
    if len(rows) < wanted:
        raise UserError(
            f"{manifest}: {len(rows)} clips with both texts, none above {LONGEST:g} s; {wanted} are wanted"
        )
    return write_rows(path, rows[:: len(rows) // wanted][:wanted])


def references(manifest: Path) -> dict[str, list[str]]:
    """The texts of both tasks, in the manifest's order."""
    with manifest.open(encoding="utf8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return {task: [row[column] for row in rows] for task, column in TASKS.items()}


def _corpus(work: Path) -> Path:
    speech = os.environ.get("POLYVOX_SPEECH")
    if speech:
        return Path(speech).resolve() / "mboshi_french" / "manifest.tsv"
    folder = work / "demo"
    if not (folder / "manifest.tsv").is_file():
        from training.synthetic.demo import make_demo

        make_demo(folder, minutes=60)
    return folder / "manifest.tsv"


def write_rows(path: Path, rows: Sequence[dict[str, str]]) -> Path:
    """A manifest of ``rows`` at ``path``."""
    with path.open("w", encoding="utf8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter="\t", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


def make_model(folder: Path, clips: Clips, sizes: Mapping[str, Any], seed: int = 0) -> Path:
    """Random weights of the ``sizes`` of a WhisperConfig, as stock transformers saves them.

    The tokenizer is trained on the clips' texts (no hub is asked), the embedding has as many rows as ``sizes`` say.
    """
    import torch
    from transformers import WhisperForConditionalGeneration

    from training.models.architecture import BuildContext
    from training.models.lookup import load

    if (folder / "config.json").is_file():
        return folder
    config = {k: v for k, v in sizes.items() if not k.endswith("token_id")}
    vocabulary = config.pop("vocab_size")
    module = load("whisper")
    with clips.train.open(encoding="utf8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    texts = [
        (task, row["language"], row[column])
        for row in rows
        for task, column in (("transcribe", "transcript"), ("translate", "translation"))
    ]
    torch.manual_seed(seed)
    options = module.Options(
        sizes={**config, "dropout": 0.0, "vocab_size": 1000}, language=rows[0]["language"]
    )
    architecture = module.build(options, BuildContext(texts=lambda: iter(texts), seed=seed))
    architecture.model.resize_token_embeddings(vocabulary, mean_resizing=False)
    stock = WhisperForConditionalGeneration(architecture.model.config)
    stock.load_state_dict(architecture.model.state_dict())
    stock.generation_config = architecture.model.generation_config
    stock.save_pretrained(folder)
    architecture.processor.save_pretrained(folder)
    return folder


def flags(options: Mapping[str, object]) -> list[object]:
    """``--name value`` for each of them."""
    return [part for name, value in options.items() for part in (f"--{name}", value)]


def run(script: str, work: Path, *options: object) -> Figures:
    """One arm from nothing in a fresh process with caches of its own; what its clock wrote, and ``work``'s bytes go."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    report = work.with_suffix(".json")
    environment = {
        **os.environ,
        "HF_HOME": str(work / "hub"),
        "HF_HUB_OFFLINE": "1",
        # What `polyvox train` sets before torch is imported, in every arm alike.
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_WAIT_POLICY": "PASSIVE",
        "TMPDIR": str(work),
        "PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, str(HERE / script), "--work", str(work), "--report", str(report)]
    done = subprocess.run(
        [*command, *map(str, options)], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise UserError(f"{script} ended with status {done.returncode}:\n{done.stderr[-3000:]}")
    shutil.rmtree(work)
    found: dict[str, Any] = json.loads(report.read_text(encoding="utf8"))
    return found
