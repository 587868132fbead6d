"""Look at what a run of the demo left behind: scores, predictions, charts, report."""

from __future__ import annotations

import csv
import json
import math
import re
import sys
from pathlib import Path

RUNS = ("demo_whisper", "demo_e2e")
SCORES = ("wer", "cer", "bleu", "chrf")


def main(outputs: Path) -> None:
    """Raise `AssertionError` with what is wrong."""
    for run in RUNS:
        check_training(outputs / run)
        for name in (run, f"{run}_unheard"):
            check_scores(outputs / "results", name)
    check_charts(outputs / "charts")
    print(f"{outputs}: scores, predictions, charts and report are as they should be")


def check_training(folder: Path) -> None:
    """A finished run, in safetensors alone."""
    assert json.loads((folder / "train_results.json").read_text(encoding="utf8"))["steps"] > 0, folder
    assert list(folder.glob("*.safetensors")), f"{folder}: no model"
    pickles = [path for path in folder.rglob("*") if path.suffix in (".bin", ".pt", ".pth", ".pkl")]
    assert not pickles, f"pickles in the run's folder: {pickles}"


def check_scores(results: Path, name: str) -> None:
    """Finite scores with intervals around them, and every prediction beside its reference."""
    scores = json.loads((results / f"{name}_metrics.json").read_text(encoding="utf8"))["scores"]
    for metric in SCORES:
        score = scores[metric]
        assert math.isfinite(score["value"]), f"{name}: {metric} is {score['value']}"
        assert score["low"] <= score["value"] <= score["high"], f"{name}: {metric} {score}"
    with (results / f"{name}_predictions.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows, f"{name}: no predictions"


def check_charts(charts: Path) -> None:
    """Pictures that are pictures, and a report that needs nothing beside it."""
    for name in ("training_loss", "wer_comparison", "bleu_comparison"):
        picture = (charts / f"{name}.png").read_bytes()
        assert picture.startswith(b"\x89PNG") and len(picture) > 2000, name
    report = (charts / "report.html").read_text(encoding="utf8")
    sources = re.findall(r"""(?:\bsrc|<link[^>]*\bhref)\s*=\s*["']([^"']*)""", report)
    outside = [source for source in sources if not source.startswith("data:")]
    assert not outside, f"report.html needs {outside[:3]}"
    assert len(sources) >= 3, "report.html has no pictures"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
