"""Measuring sound block by block; splits of groups; rows of broken tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from training.data import levels
from training.data.example import AudioRef
from training.data.prepare.split import PARTS
from training.data.tables import LINE, read_table
from training.registry.splitting import assign, groups_of, take_dev


def measured(path: Path, samples: np.ndarray, rate: int = 8000) -> levels.Level:
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return levels.measure(AudioRef(path=str(path)))


def test_levels_of_a_known_tone(tmp_path: Path) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 200 * np.arange(8000) / 8000)
    level = measured(tmp_path / "a.wav", np.concatenate([tone, np.zeros(24_000)]))
    assert level.peak_db == pytest.approx(-6.02, abs=0.01)
    assert level.rms_db == pytest.approx(-6.02 - 3.01 - 6.02, abs=0.01)
    assert (level.silent_share, level.clipped_share) == (0.75, 0.0)


def test_clipping_counts_runs_and_not_single_peaks(tmp_path: Path) -> None:
    samples = np.tile(np.array([0.1, -0.2, 1.0, 0.3]), 2000)
    assert measured(tmp_path / "a.wav", samples).clipped_share == 0.0
    samples[100:140] = 1.0
    samples[200:210] = -1.0
    assert measured(tmp_path / "b.wav", samples).clipped_share == pytest.approx(
        (40 + 10) / 8000, abs=4 / 8000
    )


def test_blocks_measure_what_the_whole_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, 8000 * 7) * np.repeat([1, 0, 1, 0, 1, 1, 0], 8000)
    whole = measured(tmp_path / "a.wav", samples)
    monkeypatch.setattr(levels, "BLOCK_SECONDS", 0.5)
    blocks = levels.measure(AudioRef(path=str(tmp_path / "a.wav")))
    for name in ("peak_db", "rms_db", "loudest_db", "clipped_share", "silent_share"):
        assert getattr(blocks, name) == pytest.approx(getattr(whole, name)), name


@given(
    st.lists(
        st.tuples(st.sampled_from(["", "", "", *PARTS]), st.sampled_from("abcdefghij")),
        min_size=1,
        max_size=60,
    ),
    st.integers(0, 5),
)
def test_no_group_is_torn_apart_and_given_splits_stay(rows: list[tuple[str, str]], seed: int) -> None:
    given_parts, groups = [row[0] for row in rows], [row[1] for row in rows]
    seconds = np.linspace(1, 3, len(rows))
    parts = assign(given_parts, seconds, groups, seed=seed)
    assert all(got == want for got, want in zip(parts, given_parts, strict=True) if want)
    assert set(parts) <= set(PARTS)
    for group in set(groups):
        new = {
            part for part, g, want in zip(parts, groups, given_parts, strict=True) if g == group and not want
        }
        fixed = {want for g, want in zip(groups, given_parts, strict=True) if g == group and want}
        assert len(new) <= 1 and (not fixed or new <= fixed)
    assert parts == assign(given_parts, seconds, groups, seed=seed)


def test_shares_are_met_by_duration() -> None:
    seconds = np.random.default_rng(0).uniform(1, 10, 400)
    parts = np.array(assign([""] * 400, seconds, [f"s{i % 80}" for i in range(400)]))
    shares = [seconds[parts == part].sum() / seconds.sum() for part in PARTS]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.01)


def test_dev_is_taken_from_training_alone() -> None:
    parts = ["train"] * 90 + ["test"] * 10
    found = take_dev(parts, np.ones(100), groups_of("random", [], ["x"] * 100, []), 0.1, 1)
    assert found[90:] == ["test"] * 10 and found.count("dev") == 9


def test_broken_rows_are_handed_over_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('a,b\n1,2\n1,2,3\n"x\ny",4\n\n5\n6,7\n', encoding="utf-8")
    broken: list[tuple[int, str]] = []
    table = read_table(path, broken)
    assert table.column("a").to_pylist() == ["1", "x\ny", "6"]
    assert table.column(LINE).to_pylist() == [2, 4, 8]
    assert broken == [(3, "3 cells, the header names 2 columns"), (7, "1 cells, the header names 2 columns")]


def test_broken_json_is_handed_over_with_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": "1"}\n{"a": \n[1]\n{"a": "2"}\n', encoding="utf-8")
    broken: list[tuple[int, str]] = []
    table = read_table(path, broken)
    assert table.column("a").to_pylist() == ["1", "2"] and table.column(LINE).to_pylist() == [1, 4]
    assert [line for line, _ in broken] == [2, 3]
