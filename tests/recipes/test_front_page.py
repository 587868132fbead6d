"""The first way in of the README, word for word, with a tiny Whisper in the place of the pretrained one."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny_project

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
import whisper_assets

pytestmark = [pytest.mark.recipe, pytest.mark.slow]

TINY = (
    *("model.name=start", "model.timestamps=0", "training.max_steps=2", "training.eval_strategy=no"),
    *("training.load_best_model_at_end=false", "training.save_strategy=no", "training.max_batch_seconds=20"),
    *("evaluation.max_new_tokens=8", "evaluation.resamples=50", "evaluation.silence_probes=false"),
    *("audio.max_length_seconds=10", "dataloader.num_workers=0"),
)


def commands() -> list[str]:
    """The first block of commands under "Three ways in"."""
    page = (tiny_project.ROOT / "README.md").read_text(encoding="utf8")
    block = re.search(r"## Three ways in.*?```bash\n(.*?)```", page, flags=re.S)
    assert block is not None
    return [line for line in block[1].splitlines() if line.startswith("polyvox ")]


def project(folder: Path) -> None:
    """A table with three columns, a recording, and a folder of weights as stock transformers leaves one."""
    rng = np.random.default_rng(0)
    lines = ["audio_path\ttranscript\tlanguage"]
    for number in range(12):
        soundfile.write(folder / f"{number}.wav", 0.1 * rng.standard_normal(16_000), 16_000)
        lines.append(f"{number}.wav\t{tiny_project.SENTENCES[number % 9]} {number}\tvi")
    (folder / "clips.tsv").write_text("\n".join(lines) + "\n", encoding="utf8")
    soundfile.write(folder / "talk.mp3", 0.1 * rng.standard_normal(48_000), 16_000)
    start = whisper_assets.tiny()
    start.save(folder / "start", start.model)
    config = json.loads((folder / "start/config.json").read_text(encoding="utf8"))
    del config["polyvox"]
    (folder / "start/config.json").write_text(json.dumps(config), encoding="utf8")


def test_a_table_becomes_a_model_that_is_scored_and_used(tmp_path: Path) -> None:
    project(tmp_path)
    said = []
    for command in commands():
        words = shlex.split(command, comments=True)[1:]
        done = tiny_project.polyvox(*words, *(TINY if words[0] == "train" else ()), cwd=tmp_path)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        said.append(done.stdout)
    kept, parts, plan, trained, scored, subtitles = said
    assert "12 of 12 utterances kept" in kept and "split by sentence" in parts
    assert "result         valid" in plan and "outputs/cpu_whisper: 2 steps" in trained
    assert "start weights (start, untouched" in scored and "change since" in scored
    assert subtitles == "" or re.search(r"\d\d:\d\d:\d\d,\d{3} --> ", subtitles)
    metrics = json.loads((tmp_path / "outputs/results/cpu_whisper_metrics.json").read_text(encoding="utf8"))
    assert metrics["start"]["name"] == "start" and metrics["rows"]["transcribe"] > 0
