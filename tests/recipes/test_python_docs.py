"""The Python of docs/python.md and of the notebook runs as it is printed."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import tiny_project
import tone_project

from training.cli import prepare_data

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "first_model.ipynb"
pytestmark = pytest.mark.recipe


def blocks() -> str:
    """The Python blocks of the document, one after another."""
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf8")
    return "\n".join(re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S))


def cells(kind: str = "code") -> list[dict[str, Any]]:
    """The cells of the notebook."""
    content = json.loads(NOTEBOOK.read_text(encoding="utf8"))
    return [cell for cell in content["cells"] if cell["cell_type"] == kind]


def executed(code: str, folder: Path) -> str:
    """What a program in this folder prints; it must succeed."""
    environment = {**tiny_project.environment(), "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf8",
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A folder with what the document names: a configuration, two recordings, a registry."""
    for folder in ("configs", "data"):
        (tmp_path / folder).mkdir()
    tone_project.make(tmp_path).rename(tmp_path / "configs" / "demo_ctc.yaml")
    sound, _ = soundfile.read(tmp_path / "test0.wav")
    soundfile.write(tmp_path / "talk.mp3", np.tile(sound, 2), 16000)
    shutil.copy(tmp_path / "test1.wav", tmp_path / "reply.wav")
    with (tmp_path / "test.csv").open(encoding="utf8", newline="") as file:
        rows = list(csv.DictReader(file))[:12]
    with (tmp_path / "table.csv").open("w", encoding="utf8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_path", "transcript", "speaker_id", "split"])
        writer.writerows(
            [row["audio_path"], row["transcript"], row["speaker"], ("train", "val", "test")[n % 3]]
            for n, row in enumerate(rows)
        )
    database = tmp_path / "data" / "registry.db"
    assert prepare_data.main(["--csv_path", str(tmp_path / "table.csv"), "--database", str(database)]) == 0
    return tmp_path


def test_the_python_of_the_document_runs(corpus: Path) -> None:
    printed = executed(blocks(), corpus)
    assert "already holds files" in printed
    assert printed.splitlines()[0].startswith(str(corpus / "run"))
    assert "\n4 4 4\n" in printed
    assert {path.name for path in (corpus / "outputs" / "results").iterdir()} == {
        "run_dev_metrics.json",
        "run_dev_predictions.csv",
    }


def test_the_notebook_trains_a_model_that_recognises(tmp_path: Path) -> None:
    code = ["".join(cell["source"]) for cell in cells()]
    shown = "\nprint(repr(scores)); print('heard:', transcript.text)"
    printed = executed("\n\n".join(code) + shown, tmp_path)
    assert "heard: sol mi do do ti" in printed
    assert float(re.search(r"Scores\(wer ([\d.]+)", printed)[1]) < 20  # type: ignore[index]
    short = "\n\n".join(code).replace("_steps: 200", "_steps: 20").replace("_steps: 100", "_steps: 10")
    assert "step     20/20" in executed(short, tmp_path)  # a notebook is executed more than once


def test_the_notebook_is_kept_without_outputs() -> None:
    content = json.loads(NOTEBOOK.read_text(encoding="utf8"))
    assert content["nbformat"] == 4
    assert [cell["id"] for cell in cells() if cell["outputs"] or cell["execution_count"] is not None] == []
    names = [cell["id"] for cell in content["cells"]]
    assert len(names) == len(set(names))
    prose = "".join("".join(cell["source"]) for cell in cells("markdown"))
    links = re.findall(r"\]\(([^)#\s]+)\)", prose)
    assert [one for one in links if not (NOTEBOOK.parent / one).exists()] == []
