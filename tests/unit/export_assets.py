"""Tiny models in folders and utterances of noise for them, to export and to compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import soundfile
import torch
from whisper_assets import SIZES, TEXTS, TRANSCRIPT, TRANSLATION, noise

from training.models.architecture import BuildContext
from training.models.lookup import load

SECONDS = (0.8, 1.0, 1.3, 1.7, 2.2, 2.5)


def utterances(folder: Path, *columns: str) -> Path:
    """A manifest of noise with both texts; ``columns``: ``name=value`` of every row."""
    names, values = zip(*(column.split("=") for column in columns), strict=True) if columns else ((), ())
    lines = ["\t".join(("id", "audio_path", "duration", "transcript", "translation", "language", *names))]
    for n, seconds in enumerate(SECONDS):
        soundfile.write(folder / f"u{n}.wav", noise(seconds, n), 16_000)
        lines.append("\t".join((f"u{n}", f"u{n}.wav", str(seconds), TRANSCRIPT, TRANSLATION, "vi", *values)))
    path = folder / "manifest.tsv"
    path.write_text("\n".join(lines) + "\n", encoding="utf8")
    return path


def saved(folder: Path, name: str, **options: Any) -> Path:
    """A model of the architecture ``name`` with random weights, large enough that its outputs differ, in a folder."""
    chosen = load(name)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        options = {"sizes": {**SIZES, "init_std": 0.3}, "max_label_tokens": 64, "language": "vi", **options}
        made = chosen.build(chosen.Options(**options), BuildContext(texts=lambda: iter(TEXTS)))
        made.save(folder, made.model)
    return folder
