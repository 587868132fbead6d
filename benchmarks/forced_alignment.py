"""Word times of a CTC model trained on real speech, against the times that its corpus comes with.

    python benchmarks/forced_alignment.py [--speech DIR] [--corpus mboshi_french] [--epochs 8] [key=value …]

``DIR`` (or the variable ``POLYVOX_SPEECH``) holds one folder per corpus with a ``manifest.tsv`` and its audio; where
there is none the benchmark says so and ends well. The corpus' column ``words`` is the reference (silver: forced
alignments of another system). Splits, run and times go to ``--work``; what is there is not made again. The split keeps
equal sentences together and shares the few speakers. The words of the test split are aligned as they are written;
beside the model stand words of equal length spread over the clip.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from real_speech import corpus, options

from training.data.example import Example, Word
from training.data.manifest import load_manifest
from training.data.timestamps_manifest import FILE

ROOT = Path(__file__).resolve().parents[1]
TOLERANCES = (20, 50, 100, 200)
"""Milliseconds."""
Times = Sequence[Word]


def script(name: str, *arguments: str) -> None:
    """One of the project's commands; `SystemExit` with its status where it fails."""
    done = subprocess.run([sys.executable, str(ROOT / "training" / name), *arguments], check=False)
    if done.returncode:
        raise SystemExit(done.returncode)


def trained(splits: Path, work: Path, args: argparse.Namespace) -> Path:
    """The folder of the run; trained here unless it is there."""
    run = work / "run"
    if not (run / "train_results.json").is_file():
        data = [f"data.{name}={splits / f'{name}.csv'}" for name in ("train", "dev", "test")]
        where = [
            f"output.dir={run}",
            "output.experiment_name=ctc",
            f"model.languages={json.dumps(args.languages)}",
        ]
        epochs = [f"training.num_train_epochs={args.epochs}"]
        begun = ["--resume"] if list(run.glob("checkpoint-*")) else []
        config = ["--config", str(ROOT / "configs" / "demo_ctc.yaml")]
        script("scripts/train.py", *config, *begun, *data, *where, *epochs, *args.others)
    return run


def aligned(splits: Path, run: Path, work: Path, max_wer: str) -> Path:
    """The manifest of the test split's words with their times."""
    rows = ["--data", str(splits / "test.csv"), "--split", "test", "--output", str(work / "times")]
    script("scripts/generate_timestamps.py", *rows, "--model", str(run), "--max-wer", max_wer)
    return work / "times" / "test" / FILE


def spread(example: Example) -> list[Word]:
    """The utterance's words, each as long as the others."""
    texts = [word.text for word in example.words]
    bounds = np.linspace(0, example.duration, len(texts) + 1).tolist()
    return [Word(text=text, start=bounds[i], end=bounds[i + 1]) for i, text in enumerate(texts)]


def scores(pairs: Iterable[tuple[Times, Times]]) -> dict[str, dict[str, float]]:
    """Errors of starts and ends in milliseconds, over all words: (reference, found) of each utterance."""
    rows = [
        (found.start - word.start, found.end - word.end)
        for reference, words in pairs
        for word, found in zip(reference, words, strict=True)
    ]
    errors = 1000 * np.array(rows)
    return {side: _score(errors[:, i]) for i, side in enumerate(("start", "end"))}


def _score(errors: np.ndarray) -> dict[str, float]:
    size = np.abs(errors)
    within = {f"within_{n}": 100 * float((size <= n).mean()) for n in TOLERANCES}
    return {
        "words": len(errors),
        "mean": float(size.mean()),
        "median": float(np.median(size)),
        "bias": float(errors.mean()),
        **within,
    }


def compared(splits: Path, manifest: Path) -> dict[str, dict[str, dict[str, float]]]:
    """The model's and the spread words' scores on the utterances that the model has times for, by speaker too."""
    reference = {example.id: example for example in load_manifest(splits / "test.csv")}
    found = {example.id: example for example in load_manifest(manifest)}
    rows = [(reference[name], example) for name, example in found.items()]
    result = {
        "aligned": scores((known.words, example.words) for known, example in rows),
        "spread": scores((known.words, spread(known)) for known, _ in rows),
    }
    for speaker in sorted({known.speaker or "" for known, _ in rows}):
        theirs = [row for row in rows if (row[0].speaker or "") == speaker]
        result[f"aligned, {speaker}"] = scores((known.words, example.words) for known, example in theirs)
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """0; 0 too where there is no speech; the status of a command that fails."""
    parser = options(__doc__, "mboshi_french")
    parser.add_argument("--epochs", type=float, default=8)
    parser.add_argument(
        "--languages", nargs="*", default=[], help="whose letters the vocabulary holds besides the texts'"
    )
    parser.add_argument(
        "--max-wer",
        dest="max_wer",
        default="99",
        help="drop utterances with a larger word error rate (99: keep all)",
    )
    args = parser.parse_args(argv)
    source = corpus(args.speech, args.corpus)
    if source is None:
        return 0
    work = args.work.resolve() / f"{args.corpus}_alignment"
    splits = work / "splits"
    if not (splits / "splits.json").is_file():
        table = ["--manifest", str(source / "manifest.tsv"), "--output_dir", str(splits)]
        script("data/split_data.py", *table, "--by", "sentence")
    run = trained(splits, work, args)
    result = compared(splits, aligned(splits, run, work, args.max_wer))
    for name, sides in result.items():
        for side, found in sides.items():
            print(f"{name:20} {side:5}  " + "  ".join(f"{key} {value:.1f}" for key, value in found.items()))
    target = work / "forced_alignment.json"
    target.write_text(json.dumps(result, indent=2) + "\n", encoding="utf8")
    print(f"written: {target}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
