"""`polyvox doctor`: each finding and its advice, also on machines that lack nearly everything."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from training import cli
from training.base import hub as network
from training.cli import doctor
from training.doctor import environment, hardware, hub
from training.doctor.finding import Finding

SAID = {
    "version": "2.13.0",
    "threads": 2,
    "cuda_build": None,
    "hip_build": None,
    "cuda": False,
    "mps": False,
    "gpus": [],
}


def process(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_the_command_looks_at_this_machine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert cli.main(["doctor", "--json"]) == 0
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert {
        "Python",
        "packages",
        "requirements",
        "cores",
        "memory",
        "disk, this folder",
        "ffmpeg",
        "model hub",
        "torch",
    } <= set(found)
    assert found["torch"]["state"] == "ok" and found["torch"]["value"].startswith(
        importlib.metadata.version("torch")
    )
    assert "switched off by HF_HUB_OFFLINE" in found["model hub"]["value"]


def test_each_finding_is_printed_with_its_advice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        doctor, "findings", lambda: iter([Finding("a", "fine"), Finding("b", "gone", "problem", "get it")])
    )
    assert cli.main(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "ok      a                  fine\nPROBLEM b                  gone\n" in shown
    assert "→ get it" in shown and "1 of 2 findings keep trainings from working: b" in shown


def test_without_torch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "torch_build", lambda: None)
    (found,) = hardware.torch(process("import time; time.sleep(60)"), gpu_in_driver=False)
    assert found.state == "problem" and "pytorch.org" in found.advice


def test_a_torch_that_cannot_be_imported_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "torch_build", lambda: "2.13.0")
    (found,) = hardware.torch(
        process("raise ImportError('libcudart.so.12: cannot open')"), gpu_in_driver=False
    )
    assert found.state == "problem" and "libcudart.so.12" in found.value and "force-reinstall" in found.advice


@pytest.mark.parametrize(
    ("said", "in_driver", "state", "told"),
    [
        ({}, False, "note", "none"),
        ({}, True, "note", "built for CPUs"),
        ({"cuda_build": "12.8"}, True, "note", "torch cannot use it"),
        ({"mps": True}, False, "ok", "Apple"),
        ({"gpus": [{"name": "A100", "memory": 40 * 2**30, "major": 8}]}, True, "ok", "A100, 40 GiB, bf16"),
        ({"gpus": [{"name": "T4", "memory": 15 * 2**30, "major": 7}]}, True, "ok", "no bf16"),
    ],
)
def test_the_gpu_and_what_to_do_for_it(said: dict[str, Any], in_driver: bool, state: str, told: str) -> None:
    *_, gpu = hardware._devices("2.13.0", {**SAID, **said}, in_driver)
    assert gpu.state == state and told in gpu.value
    assert bool(gpu.advice) == (state == "note" or "Apple" in told)


def test_the_drivers_answer_and_its_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "program", lambda name: None)
    assert hardware.driver().value.startswith("none")
    monkeypatch.setattr(hardware, "program", lambda name: "nvidia-smi")
    for status, out, state in (
        (0, "H100, 81559 MiB, 570.1\n", "ok"),
        (9, "couldn't communicate\nmore", "note"),
    ):
        answer = SimpleNamespace(returncode=status, stdout=out, stderr="")
        monkeypatch.setattr(subprocess, "run", lambda *a, answer=answer, **k: answer)
        found = hardware.driver()
        assert (found.state, found.value) == (state, out.split("\n")[0])


def test_an_old_python_and_missing_packages_are_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    assert environment.python().state == "problem"
    monkeypatch.setattr(environment, "version_of", lambda name: None if name == "torch" else "1.0")
    found = environment.versions()
    assert found.state == "problem" and "torch missing" in found.value


def test_extras_say_what_they_are_for_and_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version
    monkeypatch.setattr(
        environment,
        "version_of",
        lambda name: None if name == "peft" else "0.1" if name == "optuna" else real("numpy"),
    )
    found = {one.name: one for one in environment.extras()}
    assert found["extra lora"].state == "note" and "peft is missing" in found["extra lora"].value
    assert (
        "[lora]'" in found["extra lora"].advice and "training.trainable: lora" in found["extra lora"].advice
    )
    assert "optuna 0.1, wanted >=5" in found["extra tune"].value
    assert "extra dev" not in found


def test_small_machines_are_told_what_that_means(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hardware, "_cpu_quota", lambda: 1.0)
    monkeypatch.setattr(hardware, "_memory_total", lambda: 4 * 2**30)
    monkeypatch.setattr(hardware, "_memory_limit", lambda: None)
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=2**30))
    assert [hardware.cores().state, hardware.memory().state] == ["note", "note"]
    assert [one.state for one in hardware.disk()] == ["note", "note"]
    assert "HF_HOME" in list(hardware.disk())[1].advice


def test_a_hub_that_does_not_answer_costs_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in network.OFFLINE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(network, "SECONDS", 0.3)
    monkeypatch.setattr(network.Knock, "_ask", lambda self: time.sleep(5))
    began = time.monotonic()
    found = hub.hub(hub.start())
    assert time.monotonic() - began < 2
    assert (
        found.state == "note"
        and "not in reach (no answer" in found.value
        and "HF_HUB_OFFLINE=1" in found.advice
    )


def test_a_refused_connection_names_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in network.OFFLINE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "refused" in str(network.Knock().why_not())


def test_weights_are_not_waited_for_where_the_hub_is_away(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    from training.models.common.weights import cache_alone_without_network, cannot_load

    for name in network.OFFLINE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with caplog.at_level("WARNING"), cache_alone_without_network([str(tmp_path)]):
        assert not constants.HF_HUB_OFFLINE and not caplog.messages  # a folder: nothing is asked
    with cache_alone_without_network(["openai/whisper-tiny"]):
        assert constants.HF_HUB_OFFLINE
        said = str(cannot_load("model.name", "openai/whisper-tiny", OSError("no")))
    assert not constants.HF_HUB_OFFLINE
    (line,) = caplog.messages
    assert "http://127.0.0.1:9 is not in reach" in line and str(tmp_path / "hub") in line
    assert "'openai/whisper-tiny' cannot be loaded: it is not in the cache" in said and "hf download" in said
