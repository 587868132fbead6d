"""Runs in the registry: figures, predictions, a registry that does not answer, the command line around them."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from registry_files import corpus, imported, opened
from sqlalchemy import select

from training.base.errors import Lines, UserError, handled
from training.cli import data as command
from training.config.agreement import contradictions
from training.config.schema import Config
from training.data.example import TRANSCRIBE, Hypothesis
from training.data.manifest import load_manifest
from training.engine import registry_callback
from training.engine.run import open_split
from training.registry import recording
from training.registry.schema import EpochMetric, Prediction
from training.registry.source import load_version
from training.registry.store import open_registry
from training.registry.views import get_dataset_statistics

HISTORY = [
    {"step": 5, "epoch": 0.5, "loss": 3.0, "grad_norm": float("nan")},
    {"step": 10, "epoch": 1.0, "eval_loss": 2.0, "eval_wer": 40.0},
    {"step": 20, "epoch": 2.0, "eval_loss": 1.5, "eval_wer": 25.0},
]


def config(folder: Path, **data: Any) -> Config:
    values = {"registry": str(folder / "registry.db"), **data}
    return Config.model_validate(
        {"data": values, "output": {"dir": folder / "run", "experiment_name": "try"}}
    )


def state(history: list[dict[str, Any]]) -> Any:
    return SimpleNamespace(
        is_world_process_zero=True,
        log_history=history,
        global_step=20,
        epoch=2.0,
        best_metric=25.0,
        best_model_checkpoint=None,
    )


def figures(source: Path) -> dict[tuple[int, str], float]:
    with opened(source) as registry, registry.read() as connection:
        return {(m.step, m.name): m.value for m in connection.execute(select(EpochMetric.__table__))}


def train(folder: Path, said: list[str], stopped: bool = False) -> registry_callback.RegistryCallback:
    callback = registry_callback.RegistryCallback(config(folder), lambda: stopped)
    with handled(Lines(lambda record, text: said.append(text))):
        callback.on_train_begin(None, state([]), None)  # type: ignore[arg-type]
        callback.on_evaluate(None, state(HISTORY[:2]), None)  # type: ignore[arg-type]
        callback.on_train_end(None, state(HISTORY), None)  # type: ignore[arg-type]
    return callback


def test_run_writes_its_figures_once(tmp_path: Path) -> None:
    source, said = corpus(tmp_path), []
    imported(source)
    train(tmp_path, said)
    train(tmp_path, said)  # resumed: the same run
    assert not said
    assert figures(source) == {
        (5, "loss"): 3.0,
        (10, "eval_loss"): 2.0,
        (10, "eval_wer"): 40.0,
        (20, "eval_loss"): 1.5,
        (20, "eval_wer"): 25.0,
    }
    with opened(source) as registry:
        (run,) = recording.runs(registry)
    assert (run["name"], run["version"], run["status"], run["best_wer"], run["step"]) == (
        "try",
        "v1",
        "finished",
        25.0,
        20,
    )


def test_stopped_run_says_so(tmp_path: Path) -> None:
    source = corpus(tmp_path)
    imported(source)
    train(tmp_path, [], stopped=True)
    with opened(source) as registry:
        assert recording.runs(registry)[0]["status"] == "stopped"


def test_locked_registry_stops_no_training_and_is_filled_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, said = corpus(tmp_path), []
    imported(source)
    monkeypatch.setattr(
        registry_callback, "open_registry", lambda where: open_registry(where, busy_seconds=0.05)
    )
    holder = sqlite3.connect(tmp_path / "registry.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    train(tmp_path, said)
    holder.execute("ROLLBACK")
    holder.close()
    assert len(said) == 1 and "write lock" in said[0] and "polyvox data record" in said[0]
    assert figures(source) == {}
    run = tmp_path / "run"
    (run / "metrics").mkdir(parents=True)
    (run / "metrics" / "try_metrics.json").write_text(
        json.dumps({"experiment": "try", "history": HISTORY[:1] + HISTORY[1:]})
    )
    (run / "config.yaml").write_text(config(tmp_path).to_yaml(), encoding="utf-8")
    assert command.main(["record", "--registry", str(tmp_path / "registry.db"), str(run)]) == 0
    assert figures(source)[20, "eval_wer"] == 25.0


def test_predictions_are_kept_beside_their_transcripts(tmp_path: Path) -> None:
    source = corpus(tmp_path)
    imported(source)
    train(tmp_path, [])
    examples = list(load_version(str(tmp_path / "registry.db"), "v1", "test"))
    with opened(source) as registry:
        for text in ("first", "second"):  # scored anew: the later one counts
            said = [Hypothesis(id=e.id, task=TRANSCRIBE, text=text, confidence=0.5) for e in examples]
            assert recording.store_predictions(registry, tmp_path / "run", "test", examples, said) == len(
                examples
            )
        assert recording.store_predictions(registry, tmp_path / "elsewhere", "test", examples, said) == 0
        with registry.read() as connection:
            rows = connection.execute(select(Prediction.__table__)).all()
    assert [row.hypothesis for row in rows] == ["second"] * len(examples)
    assert {row.utterance: row.reference for row in rows} == {e.id: e.texts[TRANSCRIBE] for e in examples}
    assert all(row.transcript_id for row in rows)


def test_training_reads_the_version_that_the_configuration_names(tmp_path: Path) -> None:
    source = corpus(tmp_path)
    imported(source)
    train_rows = open_split(config(tmp_path), "train")
    expected = load_version(str(tmp_path / "registry.db"), "v1", "train")
    assert [e.id for e in train_rows] == [e.id for e in expected] and len(train_rows) > 6
    with pytest.raises(UserError, match=r"data.version: v7: .*there are: v1"):
        open_split(config(tmp_path, version="v7"), "train")


def test_registry_and_dataset_contradict_each_other(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data.registry: data.dataset is set too"):
        contradictions(config(tmp_path, dataset={"path": "x"}))


def test_export_gives_the_version_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = corpus(tmp_path)
    imported(source)
    database, folder = str(tmp_path / "registry.db"), tmp_path / "out"
    arguments = ["export", "--registry", database, "--version", "v1", "--output_dir", str(folder)]
    assert command.main(arguments) == command.main(arguments) == 0
    for part in ("train", "dev", "test"):
        stored, written = (
            load_version(database, "v1", part),
            load_manifest(folder / f"{part}.csv", check_files=True),
        )
        assert [(e.id, e.texts, e.speaker, e.duration) for e in stored] == [
            (e.id, e.texts, e.speaker, e.duration) for e in written
        ]
    (folder / "dev.csv").write_text("mine")
    with pytest.raises(UserError, match="already there"):
        command.main(arguments)


def test_views_for_people_and_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = corpus(tmp_path)
    imported(source)
    source.write_text("\n".join(source.read_text().replace("two one", "two uno").splitlines()[:-1]) + "\n")
    imported(source)
    database = ["--registry", str(tmp_path / "registry.db")]
    assert command.main(["stats", *database, "--version", "v1", "--json"]) == 0
    (figures,) = json.loads(capsys.readouterr().out)
    assert sum(part["utterances"] for part in figures["parts"].values()) == 12
    assert sum(part["files"] for part in figures["parts"].values()) == 12
    assert figures["overlap"]["train/test"]["sentences"]["shared"] == 0
    command.main(["diff", *database, "v1", "v2"])
    said = capsys.readouterr().out
    assert "1 removed\n  raw/11.wav" in said and "1 changed\n  raw/1.wav: 'two one' → 'two uno'" in said
    command.main(["list", *database])
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["name", "v1", "v2"]
    command.main(["list", *database, "--runs"])
    assert capsys.readouterr().out == "none\n"


def test_counts_of_a_version_have_the_names_of_the_guide(tmp_path: Path) -> None:
    source = corpus(tmp_path, rows=24)
    imported(source)
    found = get_dataset_statistics("v1", tmp_path / "registry.db")
    names = {"train": "train", "dev": "val", "test": "test"}
    assert {part: found[f"{name}_files"] for part, name in names.items()} == {
        part: figures["files"] for part, figures in found["parts"].items()
    }
    assert sum(found[f"{name}_files"] for name in names.values()) == 24
    assert sum(found[f"{name}_hours"] for name in names.values()) == pytest.approx(24 / 3600, rel=0.01)
    with pytest.raises(UserError, match="v2"):
        get_dataset_statistics("v2", tmp_path / "registry.db")
    with pytest.raises(UserError, match=r"none\.db"):
        get_dataset_statistics("v1", tmp_path / "none.db")
