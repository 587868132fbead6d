"""Words with times and confidence by their literal commands: train, calibrate, evaluate, inference."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_project
import tone_project

pytestmark = pytest.mark.recipe
SCRIPTS = tiny_project.ROOT / "training" / "scripts"


def run(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPTS / script), *map(str, arguments)],
        env=tiny_project.environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tones")
    done = tiny_project.train(tone_project.make(folder))
    assert done.returncode == 0, done.stderr
    return folder


def evaluated(project: Path, *arguments: str | Path) -> tuple[dict, str]:
    done = run(
        "run_evaluation.py", "--model_dir", project / "run", "--output", project / "results", *arguments
    )
    assert done.returncode == 0, done.stderr
    return json.loads((project / "results" / "run_metrics.json").read_text(encoding="utf8")), done.stdout


def teacher(project: Path) -> Path:
    """The gold times of every second utterance, 10 ms late."""
    with (project / "test.csv").open(encoding="utf8", newline="") as file:
        rows = list(csv.DictReader(file))[::2]
    samples = [
        {
            "id": row["id"],
            "words": [
                {"word": w, "start": a + 0.01, "end": b + 0.01} for w, a, b in json.loads(row["words"])
            ],
        }
        for row in rows
    ]
    path = project / "timestamps_manifest.json"
    path.write_text(json.dumps({"version": 1, "samples": samples}), encoding="utf8")
    return path


def test_train_calibrate_evaluate_and_use(project: Path) -> None:
    """The tones are words: their times are near, calibrating does not hurt, and what is written is what is used."""
    before, lines = evaluated(project, "--teacher", teacher(project))
    assert before["scores"]["wer"]["value"] < 60
    assert (
        "word times, own text, model" in lines
        and "word times, reference text given, teacher's labels" in lines
    )
    times = before["word_times"]
    assert times["own"]["model"]["start"]["mean_absolute_error"]["value"] < 80
    assert times["own"]["model"]["even_over_model"]["value"] > 2
    assert set(times["own"]["model"]["groups"]) == {
        "domain even",
        "domain odd",
        "speakers that are not in training",
    }
    taught = times["given"]["teacher"]
    assert taught["utterances"] == 30 and taught["start"]["bias"]["value"] == pytest.approx(10, abs=0.01)
    assert taught["f1"]["20"]["value"] == 100
    aligned = times["given"]["model"]  # by forced alignment
    assert aligned["start"]["mean_absolute_error"]["value"] < 80 and aligned["even_over_model"]["value"] > 2
    assert before["confidence"]["note"].startswith(
        "confidence is the model's own: the folder has no calibration"
    )

    done = run("calibrate.py", "--model_dir", project / "run")
    assert done.returncode == 0, done.stderr
    assert "cross-validated" in done.stdout and "chosen" in done.stdout
    stored = json.loads((project / "run" / "calibration.json").read_text(encoding="utf8"))
    assert (
        stored["decoding"] == {"beam_width": 1, "search": "own"} and stored["fitted"]["manifest"] == "dev.csv"
    )

    after, lines = evaluated(project)
    assert "confidence is calibrated" in lines
    assert after["confidence"]["raw"]["ece"] == before["confidence"]["ece"]
    assert after["confidence"]["brier"]["value"] < after["confidence"]["raw"]["brier"]["value"] + 0.02
    other, lines = evaluated(project, "--beam_width", "4")
    assert "beam_width 1 instead of 4" in lines and "raw" not in other["confidence"]

    done = run("inference.py", "--checkpoint", project / "run", "--audio", project / "test0.wav")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["text"] == " ".join(word["word"] for word in found["words"])
    for name in ("textgrid", "ctm", "srt", "vtt"):
        shown = run(
            "inference.py",
            "--checkpoint",
            project / "run",
            "--audio",
            project / "test0.wav",
            "--format",
            name,
        )
        assert shown.returncode == 0 and all(word["word"] in shown.stdout for word in found["words"])
    charts = run(
        "export_charts.py",
        "--results",
        project / "results",
        "--outputs",
        project,
        "--charts",
        project / "charts",
    )
    assert charts.returncode == 0, charts.stderr
    page = (project / "charts" / "report.html").read_text(encoding="utf8")
    assert "Share of right words by confidence, run" in page


def test_what_cannot_be_calibrated_is_said(project: Path, tmp_path: Path) -> None:
    lines = (project / "dev.csv").read_text(encoding="utf8").splitlines()[:4]
    few = project / "few.csv"
    few.write_text("\n".join(lines) + "\n", encoding="utf8")
    done = run("calibrate.py", "--model_dir", project / "run", "--manifest", few)
    assert done.returncode == 2 and "few.csv" in done.stderr and "at least 50" in done.stderr
    done = tiny_project.train(tiny_project.make(tmp_path), "training.max_steps=1")
    assert done.returncode == 0, done.stderr
    done = run("calibrate.py", "--model_dir", tmp_path / "run")
    assert done.returncode == 2 and "tells no confidence of words" in done.stderr
    assert "Traceback" not in done.stderr
