"""Start-up and steps of a small manifest are really made, and runs that differ get no ratio."""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from training.data.manifest import load_manifest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def scaling(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("scaling")


@pytest.mark.parametrize("suffix", ["tsv", "jsonl", "parquet"])
def test_all_formats_hold_the_same_rows(scaling: Any, tmp_path: Path, suffix: str) -> None:
    rows = list(load_manifest(scaling.write(tmp_path / f"m.{suffix}", 40)))
    assert [one.id for one in rows] == [f"u{i:07}" for i in range(40)]
    assert all(0.3 < one.duration <= scaling.LONGEST for one in rows)
    assert {one.audio.path for one in rows} == {str(tmp_path / scaling.RECORDING)}


def test_start_up_steps_and_the_turn_of_an_epoch(scaling: Any, tmp_path: Path) -> None:
    found = scaling.once(scaling.write(tmp_path / "m.tsv", 60))
    assert found["whole"] and found["steps"] > 3
    figures = [figure for figure, _, _ in scaling.ROW_COLUMNS.values()]
    assert all(found[figure] > 0 for figure in figures if figure.endswith("_seconds"))
    assert found["all_in_seconds"] > found["step_seconds"]


def test_sizes_are_compared_round_by_round(
    scaling: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = {figure: 1.0 for figure, _, _ in scaling.ROW_COLUMNS.values()}
    monkeypatch.setattr(
        scaling,
        "in_own_process",
        lambda path, number: {**figures, "access_seconds": number + 1.0, "whole": True},
    )
    output = tmp_path / "scaling.json"
    options = ["--processes", "0", "--repeats", "2", "--output", str(output)]
    assert scaling.main(["--rows", "30", "10", *options]) == 0
    assert "30 rows against 10: step 1.00 [1.00, 1.00]" in capsys.readouterr().out
    assert json.loads(output.read_text(encoding="utf8"))["access"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    monkeypatch.setattr(scaling, "in_own_process", lambda path, number: {**figures, "whole": False})
    assert scaling.main(["--rows", "30", "10", "--processes", "0", "--repeats", "1"]) == 1


def processes(
    scaling: Any, monkeypatch: pytest.MonkeyPatch, folder: Path, losses: dict[int, list[float]]
) -> Any:
    monkeypatch.setattr(
        scaling,
        "train",
        lambda manifest, epochs, ranks, number: {
            "seconds": 2.0 / ranks,
            "audio_seconds_per_second": 1.0,
            "losses": losses[ranks],
        },
    )
    args = argparse.Namespace(clips=4, epochs=1, processes=2, repeats=1)
    return scaling.processes_part(args, folder)


def test_two_processes_are_compared_where_they_learn_the_same(
    scaling: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, failures, results = processes(scaling, monkeypatch, tmp_path, {1: [2.0, 1.0], 2: [2.0, 1.00001]})
    assert not failures and results["two_processes"].median == pytest.approx(2.0)
    for other in ([2.0, 1.1], [2.0], [2.0, float("nan")]):
        _, failures, results = processes(scaling, monkeypatch, tmp_path, {1: [2.0, 1.0], 2: other})
        assert failures and "two_processes" not in results
