"""W&B and TensorBoard get the configuration, the parameter counts and the GPU's use; how much was trained on is kept."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from training.config.load import config_from
from training.data.amounts import amounts
from training.data.manifest import load_manifest
from training.engine import freezing as trainable
from training.engine import tracking

ROWS = [
    trainable.Row("total", 9, 1000),
    trainable.Row("trainable", 2, 100),
    trainable.Row("trainable after 2 epochs", 3, 300),
    trainable.Row("frozen by training.freeze: x", 3, 500),
    trainable.Row("trainable: 2 of 10 rows of e", 1, 20),
    trainable.Row("frozen: the other rows of e", 0, 80),
]


def test_counts_of_a_table() -> None:
    assert trainable.counts(ROWS) == (1000, 420)


def test_tensorboard_gets_configuration_and_counts(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = config_from({"output": {"dir": str(tmp_path / "run")}, "training": {"learning_rate": 3e-4}})
    args, state = (
        SimpleNamespace(report_to=["tensorboard"]),
        SimpleNamespace(is_world_process_zero=True, global_step=0),
    )
    tracking.TrackingCallback(config, ROWS).on_train_begin(args, state, None)
    events = EventAccumulator(str(tmp_path / "run" / "logs"))
    events.Reload()
    assert [one.value for one in events.Scalars("parameters/total")] == [1000.0]
    assert [one.value for one in events.Scalars("parameters/trainable")] == [420.0]
    texts = {
        name: events.Tensors(f"{name}/text_summary")[0].tensor_proto.string_val[0].decode()
        for name in ("config", "parameters")
    }
    assert (
        texts["config"] == tracking.indented(config.to_yaml()) and "learning_rate: 0.0003" in texts["config"]
    )
    assert "trainable after 2 epochs" in texts["parameters"]


@pytest.mark.parametrize(("first", "reports"), [(False, ["tensorboard"]), (True, [])])
def test_other_ranks_and_runs_without_reporters_write_nothing(
    tmp_path: Path, first: bool, reports: list[str]
) -> None:
    config = config_from({"output": {"dir": str(tmp_path / "run")}})
    state = SimpleNamespace(is_world_process_zero=first, global_step=0)
    tracking.TrackingCallback(config, ROWS).on_train_begin(SimpleNamespace(report_to=reports), state, None)
    assert list(tmp_path.iterdir()) == []


class NVMLError_NotSupported(Exception):
    """As pynvml's own, which is not installed here."""


def test_gpu_use(monkeypatch: pytest.MonkeyPatch) -> None:
    assert torch.cuda.is_available() or tracking.gpu_use() == {}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * 2**29)
    monkeypatch.setattr(torch.cuda, "utilization", lambda: 87)
    assert tracking.gpu_use() == {"gpu_peak_memory_gib": 1.5, "gpu_utilisation_percent": 87.0}
    for error in (ModuleNotFoundError(), RuntimeError(), NVMLError_NotSupported()):
        monkeypatch.setattr(torch.cuda, "utilization", lambda error=error: (_ for _ in ()).throw(error))
        assert tracking.gpu_use() == {"gpu_peak_memory_gib": 1.5}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_gpu_use_of_a_real_one() -> None:
    held = torch.zeros(2**28, device="cuda")
    assert tracking.gpu_use()["gpu_peak_memory_gib"] >= held.nbytes / 2**30


def test_amounts_by_domain(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    lines = ["a,1800,ko,a", "b,900,ko,", "c,3600,,b", "d,1800,en,a"]
    path.write_text("\n".join(["audio_path,duration,language,domain", *lines]) + "\n", encoding="utf8")
    assert amounts(load_manifest(path)) == {
        "utterances": 4,
        "hours": 2.25,
        "languages": ["en", "ko"],
        "domains": {"a": {"utterances": 2, "hours": 1.0}, "b": {"utterances": 1, "hours": 1.0}},
    }
    path.write_text("audio_path,duration\na,1800\n", encoding="utf8")
    assert amounts(load_manifest(path)) == {"utterances": 1, "hours": 0.5, "languages": [], "domains": {}}
