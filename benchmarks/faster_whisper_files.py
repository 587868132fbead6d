"""Long files through ``polyvox transcribe`` and through faster-whisper: character errors and real-time factor, side by side.

    python benchmarks/faster_whisper_files.py --model WHISPER --manifest …/pansori_tedxkr/manifest.tsv \
        --groups D35qys8YZpo MJ0_NG4dsCY … --language ko [--longest 15] [--defaults] [--output FILE]

Clips of one recording (column ``group`` or ``talk``) are joined in order, with a pause between them, to files of about
``--seconds`` (`training.evaluation.joined_files`). Each is transcribed by both, one after the other, with as many threads.
faster-whisper gets the same weights,
converted by CTranslate2 in a temporary folder: float32. Without ``--defaults`` both are greedy: one beam, temperature 0, no
fallback. With it both fall back as they do unasked (one beam still). The difference of the error rates has a paired interval
(`training.evaluation.intervals`), recordings drawn where there are at least five, else files. Needs the extra ``deploy``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import count, new_file

from training.data.columns import column_names
from training.data.example import TRANSCRIBE, Example
from training.data.manifest import load_manifest
from training.decoding.quiet import quiet
from training.evaluation.intervals import paired, units_of
from training.evaluation.joined_files import plan_files, write_files
from training.evaluation.metrics import transcript_statistics
from training.evaluation.rows import make_row
from training.models.safeguards import Safeguards
from training.transcription.stock_pipelines import convert
from training.transcription.transcriber import Transcriber

Arm = Callable[[Path], str]


def main() -> int:
    """Transcribe each file with both arms in turn, print a table and the paired difference, write JSON where asked."""
    args = _arguments()
    quiet()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as name:
        files = _joined(args, Path(name))
        arms: dict[str, Arm] = {"polyvox": _ours(args), "faster-whisper": _theirs(args, Path(name))}
        rows = [_row(example, arms) for example in files]
    report = _report(files, rows)
    print(json.dumps({key: value for key, value in report.items() if key != "rows"}, indent=2))
    if args.output:
        content = {"arguments": sys.argv[1:], "load": os.getloadavg(), **report}
        args.output.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf8")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--model", type=Path, required=True, help="a stock Whisper's folder, or a tuned one's"
    )
    parser.add_argument("--manifest", type=Path, required=True, help="clips in the order of their recordings")
    parser.add_argument("--column", action="append", default=[], metavar="OURS=THEIRS")
    parser.add_argument("--groups", nargs="+", required=True, help="recordings that files are made of")
    parser.add_argument("--language", default=None, help="of both; default: what each finds out itself")
    parser.add_argument("--seconds", type=float, default=110.0, help="length of a file (110)")
    parser.add_argument("--pause", type=float, default=0.3, help="seconds between clips (0.3)")
    parser.add_argument("--files", type=count, default=1, help="of each recording (1)")
    parser.add_argument("--longest", type=float, default=None, help="longest window of polyvox in seconds")
    parser.add_argument("--pack", type=float, default=None, help="as of polyvox transcribe")
    parser.add_argument("--threads", type=count, default=1)
    parser.add_argument("--defaults", action="store_true", help="both with their fallback")
    parser.add_argument("--output", type=new_file)
    return parser.parse_args()


def _joined(args: argparse.Namespace, folder: Path) -> list[Example]:
    """Files of clips of one recording each, in order, and their texts."""
    rows = load_manifest(args.manifest, columns=column_names(args.column))
    plans = plan_files(rows, seconds=args.seconds, files=None, pause=args.pause)
    wanted = [[plan for plan in plans if plan.recording == group][: args.files] for group in args.groups]
    if missing := [group for group, found in zip(args.groups, wanted, strict=True) if not found]:
        raise SystemExit(f"--groups {missing[0]}: no such recording, or too short for a file")
    return write_files(rows, [plan for found in wanted for plan in found], folder, pause=args.pause)


def _ours(args: argparse.Namespace) -> Arm:
    transcriber = Transcriber(
        args.model,
        tasks=(TRANSCRIBE,),
        language=args.language,
        longest=args.longest,
        pack=args.pack,
        safeguards=None if args.defaults else Safeguards(temperatures=(0.0,)),
    )
    return lambda path: transcriber(path).text


def _theirs(args: argparse.Namespace, folder: Path) -> Arm:
    from faster_whisper import WhisperModel

    converted = str(convert(args.model, folder))
    model = WhisperModel(converted, device="cpu", compute_type="float32", cpu_threads=args.threads)
    temperature = {} if args.defaults else {"temperature": 0.0}

    def transcribe(path: Path) -> str:
        segments, _ = model.transcribe(str(path), language=args.language, beam_size=1, **temperature)
        return " ".join(segment.text.strip() for segment in segments)

    return transcribe


def _row(example: Example, arms: dict[str, Arm]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "file": example.id,
        "seconds": example.duration,
        "reference": example.texts[TRANSCRIBE],
    }
    for name, arm in arms.items():
        started = time.perf_counter()
        text = arm(Path(example.audio.path))
        row[name] = {"text": text, "wall": time.perf_counter() - started}
    print(f"{example.id}: " + ", ".join(f"{name} {row[name]['wall']:.1f} s" for name in arms), flush=True)
    return row


def _report(files: list[Example], rows: list[dict[str, Any]]) -> dict[str, Any]:
    names = ("polyvox", "faster-whisper")
    cer = {}
    for name in names:
        made = [
            make_row(example, TRANSCRIBE, example.texts[TRANSCRIBE], row[name]["text"])
            for example, row in zip(files, rows, strict=True)
        ]
        cer[name] = transcript_statistics(made)["cer"]
    for n, row in enumerate(rows):
        for name in names:
            row[name]["cer"] = cer[name].subset([n]).value
    audio = sum(example.duration for example in files)
    walls = {name: sum(row[name]["wall"] for row in rows) for name in names}
    difference = paired(cer[names[0]], cer[names[1]], units_of(files), resamples=2000)
    return {
        "files": len(files),
        "seconds": audio,
        "cer": {name: cer[name].value for name in names},
        "difference": difference.to_json(),
        "rtf": {name: walls[name] / audio for name in names},
        "rtf_ratio": walls[names[0]] / walls[names[1]],
        "rows": rows,
    }


if __name__ == "__main__":
    sys.exit(main())
