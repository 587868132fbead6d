"""The search for the largest batch is right, and runs for real on a CPU with a model of seconds."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    "model.name=null",
    "model.sizes={vocab_size: 300, d_model: 64, encoder_layers: 2, decoder_layers: 2, encoder_attention_heads: 2, "
    "decoder_attention_heads: 2, encoder_ffn_dim: 256, decoder_ffn_dim: 256}",
    "model.full_context_share=0",
    "model.timestamps=0",
    "model.previous_text=0",
    "audio.max_length_seconds=1",
]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("memory")


@pytest.mark.parametrize("largest", [0, 1, 2, 3, 5, 8, 63, 100])
def test_bisection_finds_the_largest_that_fits(bench: Any, largest: int) -> None:
    tried: list[int] = []
    assert bench.most(lambda n: tried.append(n) or n <= largest, limit=100) == largest
    assert len(tried) == len(set(tried)) and max(tried) <= 100


def searched(bench: Any, output: Path, cap: str, *options: str) -> dict[str, Any]:
    command = ["--device", "cpu", "--sizes", "whisper-tiny", "--caps", cap, "--output", str(output), *options]
    assert bench.main([*command, "--", *TINY]) == 0
    found = json.loads(output.read_text(encoding="utf8"))
    return {name.rpartition(", ")[-1]: one for name, one in found["rounds"][-1]["arms"].items()}


def test_the_largest_batch_of_a_small_model_and_its_plan(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        bench, "in_own_process", lambda option, what: bench.largest(bench.parsed_search(what))
    )
    found = searched(bench, tmp_path / "memory.json", "0.016", "--modes", "all", "lora")
    assert all(one["rows"] > 1 for one in found.values())
    for one in found.values():
        assert one["measured"]["allocated"] <= 0.016 * bench.GIB
        assert max(map(abs, bench.misses(one).values())) < 0.1


def test_larger_models_than_one_that_does_not_fit_are_not_tried(
    bench: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried: list[str] = []

    def nothing_fits(option: str, what: str) -> dict[str, int]:
        tried.append(json.loads(what)["size"])
        return {"rows": 0}

    monkeypatch.setattr(bench, "in_own_process", nothing_fits)
    assert bench.main(["--device", "cuda", "--caps", "4", "8", "--modes", "all"]) == 0
    assert tried == ["whisper-tiny"] * 2
    assert "whisper-tiny does not fit" in capsys.readouterr().out


def test_a_plan_that_misses_is_named(
    bench: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {
        "rows": 3,
        "measured": {"allocated": 100, "reserved": 120},
        "planned": {"allocated": 100, "reserved": 90},
    }
    monkeypatch.setattr(bench, "in_own_process", lambda option, what: found)
    options = ["--caps", "4", "--modes", "lora", "--sizes", "whisper-base"]
    assert bench.main(["--device", "cuda", *options]) == 0
    printed = capsys.readouterr().out
    assert "off by more than 10%: 4 GB, whisper-base, lora" in printed and "-25.0%" in printed


def test_without_a_gpu_it_says_so(
    bench: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case = {"planned": 11 * bench.MIB, "measured": 10 * bench.MIB}
    monkeypatch.setattr(bench, "has_gpu", lambda: False)
    monkeypatch.setattr(bench, "in_own_process", lambda option, what: {"tensors": case, "resident": case})
    assert bench.main([]) == 0
    printed = capsys.readouterr().out
    assert "not measured: no GPU" in printed and "+10.0%" in printed
    assert all(name in printed for name in bench.CASES)
