"""The demo's own commands on real speech: a corpus with transcripts and translations, models from scratch.

    python benchmarks/real_speech.py [--speech DIR] [--corpus mboshi_french] [--epochs 20] [key=value …]

``DIR`` (or the variable ``POLYVOX_SPEECH``) holds one folder per corpus with a ``manifest.tsv`` and its audio; where
there is none the benchmark says so and ends well. The recordings stay where they are; cleaned manifest, splits,
runs and scores go to ``--work``. The split keeps equal sentences together and shares the few speakers, which the
table says. A second call goes on where the first one stopped.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SCORES = ("loss", "wer", "cer", "bleu", "chrf")
RUNS = ("demo_whisper", "demo_e2e")
REGULARISED = {
    "whisper": ["model.sizes.dropout=0.1", "model.sizes.apply_spec_augment=true"],
    "e2e": [
        "model.sizes.encoder.hidden_dropout=0.1",
        "model.sizes.decoder.dropout=0.1",
        "model.sizes.encoder.mask_time_prob=0.05",
        "model.sizes.encoder.mask_time_length=4",
    ],
}
"""A few thousand sentences that are read many times, unlike the synthesised ones."""


def polyvox(*arguments: object) -> None:
    """One of the project's commands; `SystemExit` with its status where it fails."""
    done = subprocess.run([sys.executable, "-m", "training.cli", *map(str, arguments)], check=False)
    if done.returncode:
        raise SystemExit(done.returncode)


def train(folder: Path, *arguments: object) -> None:
    """`polyvox train` into ``folder``; goes on where it was interrupted, and is silent where it is done."""
    if not (folder / "train_results.json").is_file():
        begun = "--resume" if list(folder.glob("checkpoint-*")) else "--fresh"
        where = [f"paths.output_dir={folder.parent}", f"output.experiment_name={folder.name}"]
        polyvox("train", begun, *arguments, *where)


def corpus(speech: Path | None, name: str) -> Path | None:
    """The corpus' folder; None, with the reason on the screen, where it is absent."""
    if speech is None:
        print("skipped: no real speech here; name its folder with --speech or POLYVOX_SPEECH")
        return None
    if not (speech / name / "manifest.tsv").is_file():
        print(f"skipped: {speech / name / 'manifest.tsv'} is not there")
        return None
    return speech / name


def listed(source: Path, work: Path) -> Path:
    """The corpus' manifest with absolute audio paths, in the folder of this benchmark."""
    target = work / "manifest.tsv"
    work.mkdir(parents=True, exist_ok=True)
    with (source / "manifest.tsv").open(encoding="utf8", newline="") as read:
        rows = list(csv.DictReader(read, delimiter="\t"))
    with target.open("w", encoding="utf8", newline="") as written:
        writer = csv.DictWriter(written, list(rows[0]), delimiter="\t", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({**row, "audio_path": str((source / row["audio_path"]).resolve())})
    return target


def command(manifest: Path, work: Path, epochs: int, others: Sequence[str]) -> list[str]:
    """What ``./run_dev.sh --profile demo --by sentence`` runs, on this manifest."""
    overrides = [
        f"paths.manifest_path={manifest}",
        f"paths.splits_dir={work / 'splits'}",
        f"paths.output_dir={work / 'outputs'}",
        "data.columns={target_language: translation_language}",
        f"training.num_train_epochs={epochs}",
        *(f"{architecture}:{override}" for architecture, own in REGULARISED.items() for override in own),
        *others,
    ]
    pipeline = [sys.executable, "-m", "training.cli", "pipeline", "--stage", "dev", "--profile", "demo"]
    return [*pipeline, "--by", "sentence", "--config", *overrides]


def summary(outputs: Path, run: str) -> dict[str, Any]:
    """Scores, baselines and the curve of one run."""
    report = json.loads((outputs / "results" / f"{run}_metrics.json").read_text(encoding="utf8"))
    return {
        "scores": report["scores"],
        "rows": report["rows"],
        "copying": report["translation"],
        "nearest_training_sentence": report["nearest_training_sentence"],
        "curve": curve(outputs, run),
    }


def curve(outputs: Path, run: str) -> list[dict[str, float]]:
    """Loss and scores on the dev split, by epoch."""
    metrics = outputs / run / "metrics" / f"{run}_metrics.json"
    history = json.loads(metrics.read_text(encoding="utf8"))["history"]
    return [{"epoch": entry["epoch"], **_measured(entry)} for entry in history if "eval_loss" in entry]


def _measured(entry: dict[str, Any]) -> dict[str, float]:
    """The scores, those of domains too (``cer_child``)."""
    scores = {name.removeprefix("eval_"): value for name, value in entry.items() if name.startswith("eval_")}
    return {name: value for name, value in scores.items() if name.partition("_")[0] in SCORES}


def show(run: str, found: dict[str, Any]) -> None:
    """One line a score, and the curve."""
    for name, score in found["scores"].items():
        print(f"{run}  {name:5s} {score['value']:6.1f}  [{score['low']:.1f}, {score['high']:.1f}]")
    show_curve(run, found["curve"])


def show_curve(run: str, points: Sequence[dict[str, float]]) -> None:
    """One line a point."""
    for point in points:
        told = ", ".join(f"{name} {value:.2f}" for name, value in point.items() if name != "epoch")
        print(f"{run}  dev, epoch {point['epoch']:5.1f}: {told}")


def options(description: str | None, corpus: str) -> argparse.ArgumentParser:
    """Where the speech is, where what is made goes, and overrides: the options of every benchmark on real speech."""
    result = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = os.environ.get("POLYVOX_SPEECH")
    result.add_argument("--speech", type=Path, default=Path(default) if default else None)
    result.add_argument("--corpus", default=corpus)
    result.add_argument("--work", type=Path, default=Path("outputs/real_speech"))
    result.add_argument("others", nargs="*", metavar="key=value", help="overrides of the configurations")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status of the pipeline; 0 where there is no speech."""
    parser = options(__doc__, "mboshi_french")
    parser.add_argument("--epochs", type=int, default=20)
    args = parser.parse_args(argv)
    source = corpus(args.speech, args.corpus)
    if source is None:
        return 0
    work = args.work.resolve() / args.corpus
    manifest = work / "manifest.tsv" if (work / "manifest.tsv").is_file() else listed(source, work)
    status = subprocess.run(command(manifest, work, args.epochs, args.others), check=False).returncode
    if status:
        return status
    found = {run: summary(work / "outputs", run) for run in RUNS}
    for run in RUNS:
        show(run, found[run])
    (work / "real_speech.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf8")
    print(f"written: {work / 'real_speech.json'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
