"""The installer: when there is nothing to do, which torch, and what it refuses. pip itself is not called."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Any, ClassVar

import pytest

from training.base.errors import UserError
from training.scripts import environment
from training.scripts.environment import CPU_INDEX, Wanted

HEAVY = ["nvidia-cublas", "nvidia-cudnn-cu13", "triton"]


class FakePip:
    """Stands in for `environment.Pip`: notes what would be installed."""

    calls: ClassVar[list[list[str]]] = []
    works = True
    torch_there = False
    heavy: ClassVar[list[str]] = []

    def __init__(self, python: Path, log: Path, say: Any):
        self.say = say

    def install(self, arguments: list[str], what: str) -> bool:
        self.calls.append(list(arguments))
        return self.works

    def has(self, name: str, version: str) -> bool:
        return self.torch_there

    def accelerator_packages(self, requirement: str) -> list[str]:
        return self.heavy


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> type[FakePip]:
    fake = type("Pip", (FakePip,), {"calls": []})
    monkeypatch.setattr(environment, "Pip", fake)
    monkeypatch.setattr(environment, "has_nvidia_gpu", lambda: False)

    def make_venv(folder: Path, say: Any) -> None:
        python = environment.python_of(folder)
        python.parent.mkdir(parents=True, exist_ok=True)
        python.touch()

    monkeypatch.setattr(environment, "make_venv", make_venv)
    monkeypatch.setattr(sys, "stdin", None)
    return fake


def wanted(tmp_path: Path, **changes: Any) -> Wanted:
    values: dict[str, Any] = {
        "venv": tmp_path / "a venv",
        "extras": frozenset({"demo", "lora"}),
        "torch_index": None,
        "assume_yes": False,
    }
    return Wanted(**values | changes)


def prepare(want: Wanted) -> tuple[int, list[str]]:
    said: list[str] = []
    return environment.prepare(want, said.append), said


def torch_call(pip: type[FakePip]) -> list[str]:
    return next(call for call in pip.calls if any(word.startswith("torch==") for word in call))


def test_second_call_does_nothing(tmp_path: Path, pip: type[FakePip]) -> None:
    assert prepare(wanted(tmp_path))[0] == 0
    assert len(pip.calls) == 3  # pip, torch, the rest
    status, said = prepare(wanted(tmp_path))
    assert (status, len(pip.calls)) == (0, 3)
    assert "up to date" in said[-1]


@pytest.mark.parametrize("change", ["extras", "inputs", "index", "python"])
def test_a_change_is_installed(tmp_path: Path, pip: type[FakePip], monkeypatch: Any, change: str) -> None:
    prepare(wanted(tmp_path))
    later = wanted(tmp_path)
    if change == "extras":
        later = wanted(tmp_path, extras=frozenset({"dev"}))
    elif change == "index":
        later = wanted(tmp_path, torch_index="https://index.example/cu")
    elif change == "inputs":
        monkeypatch.setattr(environment, "fingerprint", lambda: "other constraints")
    else:
        environment.python_of(later.venv).unlink()
    assert prepare(later)[0] == 0
    assert len(pip.calls) == 6


def test_extras_installed_earlier_count(tmp_path: Path, pip: type[FakePip]) -> None:
    prepare(wanted(tmp_path, extras=frozenset({"demo", "lora", "dev"})))
    prepare(wanted(tmp_path))
    assert len(pip.calls) == 3


def test_a_failed_installation_leaves_no_stamp(tmp_path: Path, pip: type[FakePip]) -> None:
    pip.works = False
    assert prepare(wanted(tmp_path))[0] == 1
    pip.works = True
    prepare(wanted(tmp_path))
    assert len(pip.calls) == 1 + 3


def test_torch_comes_from_the_named_index(tmp_path: Path, pip: type[FakePip]) -> None:
    pip.heavy = HEAVY  # nobody is asked: the index was named
    assert prepare(wanted(tmp_path, torch_index="https://index.example/cu"))[0] == 0
    call = torch_call(pip)
    assert call[call.index("--index-url") + 1] == "https://index.example/cu"
    assert "--no-deps" in call


def test_a_light_build_is_taken_without_a_question(tmp_path: Path, pip: type[FakePip]) -> None:
    assert prepare(wanted(tmp_path))[0] == 0
    assert "--index-url" not in torch_call(pip)


def test_cuda_packages_without_a_gpu_are_refused_where_nobody_answers(
    tmp_path: Path, pip: type[FakePip]
) -> None:
    pip.heavy = HEAVY
    with pytest.raises(UserError, match="TORCH_INDEX_URL"):
        prepare(wanted(tmp_path))
    assert not any("torch==" in word for call in pip.calls for word in call)


def test_yes_takes_the_cpu_build(tmp_path: Path, pip: type[FakePip]) -> None:
    pip.heavy = HEAVY
    assert prepare(wanted(tmp_path, assume_yes=True))[0] == 0
    assert CPU_INDEX in torch_call(pip)


def test_with_a_gpu_the_cuda_build_is_taken(
    tmp_path: Path, pip: type[FakePip], monkeypatch: pytest.MonkeyPatch
) -> None:
    pip.heavy = HEAVY
    monkeypatch.setattr(environment, "has_nvidia_gpu", lambda: True)
    assert prepare(wanted(tmp_path))[0] == 0
    assert "--index-url" not in torch_call(pip)


def test_torch_that_is_there_is_kept(tmp_path: Path, pip: type[FakePip]) -> None:
    pip.heavy, pip.torch_there = HEAVY, True
    assert prepare(wanted(tmp_path))[0] == 0
    assert not any("torch==" in word for call in pip.calls for word in call)


@pytest.mark.parametrize(("answer", "index"), [("y", CPU_INDEX), ("Yes", CPU_INDEX), ("", None), ("n", None)])
def test_the_person_at_the_terminal_is_asked(
    monkeypatch: pytest.MonkeyPatch, answer: str, index: str | None
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(sys, "stdin", type("Terminal", (), {"isatty": lambda self: True})())
    monkeypatch.setattr("builtins.input", lambda question: asked.append(question) or answer)
    if index:
        assert environment.choose_index(HEAVY, "2.13.0", assume_yes=False) == index
    else:
        with pytest.raises(UserError, match="TORCH_INDEX_URL"):
            environment.choose_index(HEAVY, "2.13.0", assume_yes=False)
    assert "nvidia-cublas" in asked[0]


@pytest.mark.parametrize("version", [(3, 10), (3, 14), (2, 7)])
def test_unsupported_python(version: tuple[int, int]) -> None:
    with pytest.raises(UserError, match=r"3\.11 to 3\.13"):
        environment.check_python(version, "python")


def test_supported_pythons_are_those_of_the_project() -> None:
    text = (environment.ROOT / "pyproject.toml").read_text(encoding="utf8")
    shell = (environment.ROOT / "training/scripts/environment.sh").read_text(encoding="utf8")
    batch = (environment.ROOT / "training/scripts/environment.bat").read_text(encoding="utf8")
    first, last = environment.SUPPORTED
    assert f'requires-python = ">=3.{first[1]},<3.{last[1] + 1}"' in text
    assert all(f"{first} <= sys.version_info[:2] <= {last}" in script for script in (shell, batch))


def test_a_folder_that_is_no_environment_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="POLYVOX_VENV"):
        environment.make_venv(tmp_path, lambda text: None)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_every_dependency_is_pinned() -> None:
    pins = {name.lower() for name in environment.pinned(environment.ROOT / "constraints.txt")}
    project = tomllib.loads((environment.ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]
    # wandb is left to whoever wants it; see the head of constraints.txt.
    extras = [
        line for name, lines in project["optional-dependencies"].items() if name != "wandb" for line in lines
    ]
    names = {re.split("[<>=[]", line)[0].lower() for line in project["dependencies"] + extras} - {"polyvox"}
    assert names and names <= pins


def test_an_active_environment_is_mentioned_and_left_alone(
    tmp_path: Path, pip: type[FakePip], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path / "other"))
    _, said = prepare(wanted(tmp_path))
    assert str(tmp_path / "other") in said[0] and "POLYVOX_VENV" in said[0]


SECRET_INDEX = "https://user:s3cret-token@index.example/simple"


def test_the_stamp_and_the_messages_hold_no_password_of_the_index(
    tmp_path: Path, pip: type[FakePip], monkeypatch: Any
) -> None:
    want = wanted(tmp_path, torch_index=SECRET_INDEX)
    assert prepare(want)[0] == 0
    call = torch_call(pip)
    assert call[call.index("--index-url") + 1] == SECRET_INDEX
    assert "s3cret" not in (want.venv / environment.STAMP).read_text() + repr(want)
    assert prepare(want)[0] == 0 and len(pip.calls) == 3  # the same index: nothing to do
    assert prepare(wanted(tmp_path, torch_index=SECRET_INDEX.replace("s3cret", "n3w")))[0] == 0
    assert len(pip.calls) == 6  # another password is another index
    pip.works = False
    monkeypatch.setattr(environment, "pinned", lambda path: {"pip": "1", "torch": "2"})
    said: list[str] = []
    environment.install_torch(pip(tmp_path, tmp_path, said.append), "2", want)  # type: ignore[arg-type]
    assert "s3cret" not in " ".join(said) and "index.example" in " ".join(said)


def test_pips_log_and_words_hold_no_password_of_an_index(tmp_path: Path) -> None:
    stand_in = tmp_path / "python"
    stand_in.write_text(f"#!/bin/sh\necho Looking in indexes: {SECRET_INDEX}\nexit 1\n")
    stand_in.chmod(0o755)
    said: list[str] = []
    real = environment.Pip(stand_in, tmp_path / environment.LOG, said.append)
    assert not real.install(["--index-url", SECRET_INDEX, "torch"], "torch")
    written = (tmp_path / environment.LOG).read_text() + "\n".join(said)
    assert "s3cret" not in written and "user" not in written
    assert written.count("https://***@index.example/simple") == 3
    with pytest.raises(UserError) as refused:
        environment.Pip(stand_in, tmp_path / environment.LOG, said.append).accelerator_packages("torch==2")
    assert "s3cret" not in str(refused.value)


def test_an_old_stamp_with_a_password_is_cleaned(tmp_path: Path, pip: type[FakePip]) -> None:
    prepare(wanted(tmp_path))
    stamp = environment.read_stamp(wanted(tmp_path).venv)
    environment.write_stamp(wanted(tmp_path).venv, stamp | {"torch_index": SECRET_INDEX})
    prepare(wanted(tmp_path))
    assert "s3cret" not in (wanted(tmp_path).venv / environment.STAMP).read_text()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://index.example/cu", "https://index.example/cu"),
        ("see https://a:b@h/x, http://tok@h2/y", "see https://***@h/x, http://***@h2/y"),
        ("https://a:p@ss@h/x", "https://***@h/x"),
        ("name@host.example", "name@host.example"),
        ("https://h/a@b", "https://h/a@b"),
    ],
)
def test_credentials_are_taken_out_of_addresses(text: str, shown: str) -> None:
    assert environment.without_credentials(text) == shown
