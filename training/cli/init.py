"""``polyvox init``: a project folder: configuration, sample table with sounds, README.

The sample is tones, not speech: every command of the README runs with it at once, and no model learns anything from it.
Put your own recordings and your own rows in its place.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

from training.base.errors import UserError
from training.cli.command_line import Parser
from training.cli.options import add_hardware

KINDS = {
    "whisper": ("cpu_whisper.yaml", "fine-tunes a pretrained Whisper (openai/whisper-base)"),
    "ctc": ("demo_ctc.yaml", "trains a small CTC model from scratch; no pretrained weights are needed"),
}
"""Kind of project → the shipped configuration that it builds on, and what it does."""
ROWS = (
    *(("train", f"example {word}", "a") for word in ("one", "two", "three", "four")),
    ("dev", "example five", "b"),
    ("test", "example six", "c"),
)
"""Split, transcript and speaker of the sample's rows."""
RATE, SECONDS = 16_000, 1.5
CONFIG = """\
# {purpose}. All keys: docs/configuration.md of polyvox.
# `{base}` comes with polyvox; a file of that name beside this one would be read instead.
_base_: {base}

profile:
  name: {hardware}  # auto, or one of cpu, rtx2050, cuda_8gb, cuda_16gb, cuda_24gb, a100, h100, mps

data:
  manifest: data/manifest.csv  # its column split says train, dev or test
{model}
output:
  experiment_name: {name}
"""
README = """\
# {name}

Made by `polyvox init`: {purpose}.

1. Put your recordings into `data/audio/` (WAV, FLAC, MP3, …), and a row for each into `data/manifest.csv`: `id`,
   `audio_path` (from the table's folder), `transcript`, `split` (train, dev or test), and, where you know them, `speaker`
   and `language` (ISO 639: en, vi, ko). Keep each speaker in one split. The rows that are there are tones; remove them.
2. Look before you train: does it fit, how long will it take?

       polyvox train --config config.yaml --dry_run

3. Train, score, look:

       polyvox train --config config.yaml
       polyvox evaluate --model outputs/{name}
       polyvox runs
       polyvox charts

4. Use it:

       polyvox transcribe data/audio --model outputs/{name}

Something is wrong? `polyvox doctor` looks at this machine, `polyvox diagnose outputs/{name}` at the run.
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = Parser(
        prog="polyvox init", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("folder", type=Path, help="the project's folder; made where it is not there")
    kinds = "; ".join(f"{name}: {what}" for name, (_, what) in KINDS.items())
    result.add_argument("--kind", choices=KINDS, default="whisper", help=f"{kinds} (default: whisper)")
    result.add_argument(
        "--language",
        metavar="CODE",
        help="what is spoken (ISO 639); default: what the letters of the texts show",
    )
    add_hardware(result)
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Write the files; status 2 where one of them is there already."""
    args = parser().parse_args(argv)
    folder: Path = args.folder
    base, purpose = KINDS[args.kind]
    name = folder.resolve().name
    texts = {
        "config.yaml": CONFIG.format(
            purpose=purpose[0].upper() + purpose[1:],
            base=base,
            hardware=args.hardware or "auto",
            model=_model(args.kind, args.language),
            name=name,
        ),
        "README.md": README.format(name=name, purpose=purpose),
        ".gitignore": "outputs/\n",
    }
    _check_free(folder, [*texts, "data/manifest.csv"])
    _write_sample(folder / "data")
    for file, text in texts.items():
        (folder / file).write_text(text, encoding="utf8")
    print(f"{folder}: config.yaml, data/manifest.csv with {len(ROWS)} sample rows, README.md")
    print("next:")
    print(f"  cd {folder}")
    print("  polyvox train --config config.yaml --dry_run")
    return 0


def _model(kind: str, language: str | None) -> str:
    """The ``model:`` block of the configuration, where there is something to say."""
    if language is None:
        return ""
    return f"\nmodel:\n  {f'languages: [{language}]' if kind == 'ctc' else f'language: {language}'}\n"


def _check_free(folder: Path, files: Sequence[str]) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; give the name of a folder")
    there = [name for name in files if (folder / name).exists()]
    if there:
        raise UserError(
            f"{folder / there[0]} is there already, and nothing is overwritten; give another folder"
        )


def _write_sample(folder: Path) -> None:
    """Tones with rising pitch, and the table that names them."""
    import numpy as np
    import soundfile

    (folder / "audio").mkdir(parents=True, exist_ok=True)
    time = np.arange(int(RATE * SECONDS)) / RATE
    with (folder / "manifest.csv").open("w", encoding="utf8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "audio_path", "duration", "transcript", "speaker", "split"])
        for number, (split, text, speaker) in enumerate(ROWS, start=1):
            path = f"audio/example_{number}.wav"
            soundfile.write(folder / path, 0.1 * np.sin(2 * np.pi * (200 + 40 * number) * time), RATE)
            writer.writerow([f"example_{number}", path, SECONDS, text, speaker, split])
