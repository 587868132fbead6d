"""CTC from scratch on real speech whose test speakers are unheard: the student's commands, from table to scores.

    python benchmarks/real_speech_ctc.py [--speech DIR] [--corpus speechocean762] [--seeds 1,2,3] [key=value …]

``DIR`` (or the variable ``POLYVOX_SPEECH``) holds one folder per corpus with a ``manifest.tsv`` and its audio; where
there is none the benchmark says so and ends well. Registry, runs and scores go to ``--work``; a seed whose scores are
there is not trained again, whatever the arguments (take another ``--work``). Beside the scores stand those of the most
frequent training sentence as the answer to everything, and the curve on the dev split.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from real_speech import ROOT, corpus, curve, options, polyvox, train

from training.evaluation.normalize import normalizer
from training.evaluation.word_alignment import align_words

REGULARISED = [
    "model.dropout=0.1",
    "augmentation.spec={prob: 0.5, freq_masks: 2, freq_width: 0.1, time_masks: 1, time_width: 0.03}",
    "augmentation.speed={prob: 0.5, low: 0.9, high: 1.1}",
]
"""A few thousand sentences that are read many times, unlike the synthesised ones."""


def prepared(source: Path, work: Path) -> Path:
    """The registry with one frozen version, v1, split by speakers; its manifests are exported beside it."""
    database = work / "registry.db"
    if not database.is_file():
        table = ["--csv_path", str(source / "manifest.tsv"), "--audio_root", str(source)]
        split = ["--auto_split", "--split_strategy", "speaker", "--frames_per_second", "25"]
        polyvox("data", "prepare", *table, *split, "--database", database)
    exported = work / "export"
    if not exported.is_dir():
        version = ["--registry", database, "--version", "v1"]
        polyvox("data", "export", *version, "--output_dir", exported)
    return database


def majority(exported: Path, language: str) -> dict[str, Any]:
    """WER on the test split of the training sentence that is written most often (the first of them in order)."""
    normal = normalizer(language)
    train, test = (
        [normal(row["transcript"]) for row in _rows(exported / f"{n}.csv")] for n in ("train", "test")
    )
    sentence = min(Counter(train).items(), key=lambda item: (-item[1], item[0]))[0]
    return {"sentence": sentence, "wer": align_words(test, [sentence] * len(test)).error_rate().value}


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf8", newline="") as file:
        return list(csv.DictReader(file))


def run(database: Path, work: Path, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Train and score one seed, or read what is there; its scores, by group too, and its curve."""
    outputs, name = work / "outputs", f"seed{seed}"
    report = outputs / "results" / f"{name}_metrics.json"
    if not report.is_file():
        data = [f"data.registry={database}", "data.version=v1", f"model.languages=[{args.language}]"]
        how = [f"training.seed={seed}", f"training.num_train_epochs={args.epochs}"]
        config = ROOT / "configs" / "demo_ctc.yaml"
        train(outputs / name, "--config", config, *data, *how, *REGULARISED, *args.others)
        model = ["--model_dir", outputs / name, "--split", "test"]
        polyvox("evaluate", *model, "--output", outputs / "results", "--name", name)
    scores = json.loads(report.read_text(encoding="utf8"))
    seconds = json.loads((outputs / name / "train_results.json").read_text(encoding="utf8"))["train_seconds"]
    return {
        "seed": seed,
        "scores": scores["scores"],
        "by_domain": scores["by_domain"],
        "nearest_training_sentence": scores["nearest_training_sentence"],
        "train_seconds": seconds,
        "curve": curve(outputs, name),
    }


def show(found: dict[str, Any]) -> None:
    """The scores, the groups and the curve of one seed."""
    lines = [(name, found["scores"][name], "") for name in ("wer", "cer")]
    lines += [("wer", scores["wer"], group) for group, scores in found["by_domain"].items()]
    for name, score, group in lines:
        print(
            f"seed {found['seed']}  {name}  {score['value']:.1f}  [{score['low']:.1f}, {score['high']:.1f}]  {group}"
        )
    print(f"seed {found['seed']}  trained for {found['train_seconds']:.0f} s; dev by epoch: ", end="")
    print(", ".join(f"{point['epoch']:.1f}: {point['wer']:.1f}" for point in found["curve"]))


def main(argv: Sequence[str] | None = None) -> int:
    """0; 0 too where there is no speech; the status of a command that fails."""
    parser = options(__doc__, "speechocean762")
    parser.add_argument("--language", default="en")
    parser.add_argument("--seeds", default="1,2,3", help="comma-separated (1,2,3)")
    parser.add_argument("--epochs", type=float, default=12)
    args = parser.parse_args(argv)
    source = corpus(args.speech, args.corpus)
    if source is None:
        return 0
    work = args.work.resolve() / f"{args.corpus}_ctc"
    work.mkdir(parents=True, exist_ok=True)
    database = prepared(source, work)
    baseline = majority(work / "export", args.language)
    runs = [run(database, work, seed, args) for seed in map(int, args.seeds.split(","))]
    print(f"most frequent training sentence ({baseline['sentence']!r}): WER {baseline['wer']:.1f}")
    for found in runs:
        show(found)
    target = work / "real_speech_ctc.json"
    target.write_text(json.dumps({"majority": baseline, "runs": runs}, indent=2) + "\n", encoding="utf8")
    print(f"written: {target}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
