"""A hardware profile is chosen whole; `auto` looks at the machine; processes are started by the command itself."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from training import cli
from training.api import runs as api
from training.base.errors import UserError
from training.cli import train
from training.config import hardware, shipped
from training.config.blocks import Profile
from training.config.hardware import Machine, contradiction
from training.config.load import load_config
from training.config.profile_names import CHOICES, PROFILES
from training.recipes import ranks

ROOT = Path(__file__).parents[2]
H200 = Machine("NVIDIA H200", 139.8, bf16=True, gpus=2)
T4 = Machine("Tesla T4", 14.6, bf16=False, gpus=1)


def write(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf8")
    return path


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``on(machine)``: this machine is that one."""

    def use(machine: Machine) -> None:
        monkeypatch.setattr(hardware.choose, "__defaults__", (lambda: machine,))

    return use


def test_every_choice_is_a_file_that_says_which_device_it_is() -> None:
    for name in PROFILES:
        config = load_config(ROOT / "configs" / "dev_whisper.yaml", hardware=name)
        assert config.profile.name.replace("-", "_") == name
        assert config.profile.description
        assert config.profile.device == {"cpu": "cpu", "mps": "mps"}.get(name, "cuda")


def test_the_option_takes_the_profile_whole_in_place_of_the_inherited_one() -> None:
    path = ROOT / "configs" / "dev_whisper.yaml"
    inherited, chosen = load_config(path), load_config(path, hardware="h100")
    assert inherited.profile.name == "rtx2050" and inherited.training.gradient_checkpointing
    assert (chosen.profile.name, chosen.profile.precision, chosen.profile.memory_gb) == ("h100", "bf16", 80)
    assert chosen.dataloader.num_workers == 8 and not chosen.training.gradient_checkpointing
    assert chosen.training.batch_size == inherited.training.batch_size  # the file's own keys stay


def test_a_files_own_profile_block_gives_way_to_the_option_and_an_override_does_not() -> None:
    path = ROOT / "configs" / "cpu_whisper.yaml"  # sets profile.precision and memory_gb itself
    assert load_config(path, hardware="h100").profile.precision == "bf16"
    assert load_config(path, ["profile.precision=fp32"], hardware="h100").profile.precision == "fp32"


@pytest.mark.parametrize("name", ["h100", "cuda-8gb", "CUDA_8GB"])
def test_a_name_in_yaml_and_on_the_command_line_does_the_same(name: str, tmp_path: Path) -> None:
    base = "_base_: demo_ctc.yaml\n"
    named = load_config(write(tmp_path, f"{base}profile: {{name: {name}}}\n"))
    asked = load_config(write(tmp_path, base, "other.yaml"), hardware=name.lower().replace("-", "_"))
    overridden = load_config(tmp_path / "other.yaml", [f"profile.name={name}"])
    assert named.profile == asked.profile == overridden.profile
    assert named.dataloader == asked.dataloader == overridden.dataloader


def test_what_stands_beside_the_name_adds_to_the_profile(tmp_path: Path) -> None:
    path = write(tmp_path, "_base_: demo_ctc.yaml\nprofile: {name: a100, memory_gb: 80}\n")
    profile = load_config(path).profile
    assert (profile.name, profile.memory_gb, profile.precision) == ("a100", 80, "bf16")


def test_a_misspelt_name_is_a_mistake_and_a_profile_of_ones_own_is_not(tmp_path: Path) -> None:
    path = write(tmp_path, "_base_: demo_ctc.yaml\n\nprofile:\n  name: h10\n")
    with pytest.raises(
        UserError, match=r"mine\.yaml:4: profile\.name: no profile is called h10; did you mean h100\?"
    ):
        load_config(path)
    own = write(tmp_path, "_base_: demo_ctc.yaml\nprofile: {name: h10, device: cpu, memory_gb: 3}\n")
    assert load_config(own).profile.name == "h10"
    renamed = write(tmp_path, "_base_: demo_ctc.yaml\nprofile: {name: the box under my desk}\n")
    assert load_config(renamed).profile.device == "cpu"


def test_a_runs_own_configuration_stays_as_it_is(tmp_path: Path) -> None:
    config = load_config(
        ROOT / "configs" / "dev_whisper.yaml", ["profile.memory_gb=3", "dataloader.num_workers=1"]
    )
    again = load_config(write(tmp_path, config.to_yaml(), "config.yaml"))
    assert again.as_dict() == config.as_dict()


@pytest.mark.parametrize(
    ("machine", "profile", "precision"),
    [
        (Machine(), "cpu", "fp32"),
        (H200, "h100", "bf16"),
        (T4, "cuda_16gb", "fp16"),
        (Machine(mps=True), "mps", "fp32"),
    ],
)
def test_auto_takes_what_suits_the_machine_and_says_so(
    machine: Machine, profile: str, precision: str, on: Any, caplog: pytest.LogCaptureFixture
) -> None:
    on(machine)
    with caplog.at_level(logging.INFO):
        found = load_config(ROOT / "configs" / "dev_whisper.yaml", hardware="auto").profile
    assert found.name.replace("-", "_") == profile and found.precision == precision
    assert caplog.messages == [f"hardware auto: profile {profile}, because this machine has {machine}"]
    if machine.gpu:
        assert (
            found.memory_gb == pytest.approx(machine.memory_gb, abs=0.1) and machine.gpu in found.description
        )


@pytest.mark.parametrize(
    ("memory", "name"),
    [
        (3.8, "rtx2050"),
        (7.6, "cuda_8gb"),
        (11.0, "cuda_8gb"),
        (15.7, "cuda_16gb"),
        (23.6, "cuda_24gb"),
        (39.4, "a100"),
        (79.1, "h100"),
    ],
)
def test_what_drivers_report_of_a_card_is_its_profile(memory: float, name: str) -> None:
    assert Machine("card", memory, True, gpus=1).profile == name


def test_only_a_configuration_that_says_nothing_of_hardware_is_left_to_the_machine(
    tmp_path: Path, on: Any, caplog: pytest.LogCaptureFixture
) -> None:
    on(H200)
    bare = write(tmp_path, "model: {type: ctc}\n")
    assert api.load_config(bare).profile.name == "h100"
    assert api.load_config(bare, ["profile.device=cpu"]).profile.name == "default"
    assert api.load_config(ROOT / "configs" / "demo_ctc.yaml").profile.name == "cpu"
    flat = write(tmp_path, "d_model: 32\ndevice: cpu\n", "flat.yaml")
    assert api.load_config(flat).profile.device == "cpu"
    assert load_config(bare).profile.name == "default"  # reading alone asks no machine


@pytest.mark.parametrize(
    ("profile", "machine", "said"),
    [
        (
            {"name": "cpu", "device": "cpu"},
            H200,
            "profile cpu trains on the CPU, and this machine has 2 × NVIDIA H200",
        ),
        (
            {"name": "h100", "device": "cuda", "memory_gb": 80},
            T4,
            "profile h100 plans 80 GB, and this machine has Tesla T4",
        ),
        (
            {"name": "rtx2050", "device": "cuda", "memory_gb": 4},
            T4,
            "larger batches would fit; --hardware auto",
        ),
        ({"name": "h100", "device": "cuda", "memory_gb": 80}, Machine("H100", 79.1, True, gpus=1), None),
        ({"name": "cpu", "device": "cpu"}, Machine(), None),
        ({"name": "default"}, H200, None),
    ],
)
def test_a_profile_that_the_machine_contradicts_is_told(
    profile: dict[str, Any], machine: Machine, said: str | None
) -> None:
    found = contradiction(Profile(**profile), machine)
    assert (found is None) if said is None else (found is not None and said in found)


def test_shipped_configurations_are_found_outside_of_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config(Path("configs/demo_ctc.yaml")).output.experiment_name == "demo_ctc"
    installed = tmp_path / "env"
    (installed / shipped.INSTALLED).mkdir(parents=True)
    monkeypatch.setattr(shipped, "CONFIGS", Path("no-checkout"))
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(installed))
    assert shipped.folder() == installed / shipped.INSTALLED


def test_every_shipped_file_is_in_the_wheel() -> None:
    import tomllib

    files = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["tool"]["setuptools"]["data-files"]
    packed = {path for patterns in files.values() for pattern in patterns for path in ROOT.glob(pattern)}
    assert {*(ROOT / "configs").glob("*.yaml"), *(ROOT / "configs" / "profiles").glob("*.yaml")} <= packed


def test_several_processes_need_so_many_gpus(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("training.config.hardware.look", lambda: T4)
    there = f"data.train={ROOT / 'pyproject.toml'}"  # a file, which nobody opens here
    command = ["train", "--config", str(ROOT / "configs" / "dev_whisper.yaml"), there]
    assert cli.main([*command, "--multi_gpu", "4"]) == 2
    assert "--multi_gpu 4: this machine shows 1 GPUs" in capsys.readouterr().err
    asked: list[Any] = []
    monkeypatch.setattr(ranks, "run_ranks", lambda arguments, number: asked.append((arguments, number)) or 0)
    assert cli.main([*command, "--multi_gpu"]) == 0
    assert cli.main([*command, "--hardware", "cpu", "--multi-gpu=3", "--fresh"]) == 0
    assert asked == [(command, 1), ([*command, "--hardware", "cpu", "--fresh"], 3)]


def run_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, processes: int = 2) -> int:
    """`ranks.run_ranks` whose processes run this code instead of polyvox."""
    script = write(tmp_path, code, "rank.py")
    real = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda command, **options: real([sys.executable, str(script)], **options)
    )
    return ranks.run_ranks(["train"], processes)


def test_each_process_gets_its_rank_and_one_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import os, pathlib\nnames = ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT')\n"
        f"pathlib.Path({str(tmp_path)!r}, os.environ['RANK']).write_text(' '.join(os.environ[n] for n in names))\n"
    )
    assert run_ranks(tmp_path, monkeypatch, code) == 0
    first, second = ((tmp_path / rank).read_text().split() for rank in "01")
    assert first[:4] == ["0", "0", "2", "127.0.0.1"] and second[:3] == ["1", "1", "2"]
    assert first[4] == second[4]


def test_a_failure_ends_all_and_its_words_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ranks, "PATIENCE", 0.2)
    code = (
        "import os, sys, time\n"
        "if os.environ['RANK'] == '1':\n    sys.stderr.write('error: rank 1 has no data'); sys.exit(2)\n"
        "time.sleep(60)\n"
    )
    began = time.monotonic()
    assert run_ranks(tmp_path, monkeypatch, code) == 2
    assert time.monotonic() - began < 30
    assert capsys.readouterr().err == "error: rank 1 has no data"


@pytest.mark.skipif(os.name != "posix", reason="signals to processes")
def test_a_signal_reaches_every_process_once_and_is_waited_for(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, signal, sys, time\n"
        f"place = pathlib.Path({str(tmp_path)!r}, 'got' + os.environ['RANK'])\n"
        "def saved(number, frame):\n    time.sleep(0.5)\n    place.write_text(place.read_text() + str(number))\n    sys.exit(128 + number)\n"
        "signal.signal(signal.SIGINT, saved)\nplace.write_text('')\ntime.sleep(60)\n"
    )
    script = write(tmp_path, code, "rank.py")
    parent = write(
        tmp_path,
        "import subprocess, sys\nfrom training.recipes import ranks\nreal = subprocess.Popen\n"
        f"subprocess.Popen = lambda command, **options: real([sys.executable, {str(script)!r}], **options)\n"
        "sys.exit(ranks.run_ranks(['train'], 2))\n",
        "parent.py",
    )
    with subprocess.Popen(
        [sys.executable, str(parent)], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    ) as process:
        deadline = time.monotonic() + 60
        while not all((tmp_path / f"got{rank}").exists() for rank in "01") and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 128 + signal.SIGINT
    assert [(tmp_path / f"got{rank}").read_text() for rank in "01"] == [str(int(signal.SIGINT))] * 2


def test_the_command_that_goes_on_is_the_same_with_resume() -> None:
    given = ["--config", "a b.yaml", "--fresh", "training.max_steps=20"]
    assert train.again(given) == "polyvox train --config 'a b.yaml' training.max_steps=20 --resume"
    assert (
        train.again(["--config", "a.yaml", "--resume", "outputs/a/checkpoint-5"])
        == "polyvox train --config a.yaml --resume"
    )
    assert (
        train.again(["--config", "a.yaml", "--resume", "a.b=3"])
        == "polyvox train --config a.yaml a.b=3 --resume"
    )


def test_the_next_commands_name_folders_that_are_not_the_usual_ones() -> None:
    def commands(folder: str) -> list[str]:
        return train.next_commands(SimpleNamespace(output=SimpleNamespace(dir=Path(folder))))  # type: ignore[arg-type]

    assert commands("outputs/a") == ["polyvox evaluate --model outputs/a", "polyvox charts"]
    assert commands("x/a") == [
        "polyvox evaluate --model x/a --output x/results",
        "polyvox charts --outputs x",
    ]


def test_the_help_and_the_documents_name_every_choice() -> None:
    text = (ROOT / "docs" / "training.md").read_text("utf8")
    assert [name for name in CHOICES if not re.search(rf"`{name}`", text)] == []


def test_every_training_command_hands_the_profile_on_before_other_overrides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from training.cli import pipeline, quick_train, tune
    from training.recipes import resolve

    class Seen(Exception):
        """What would be done is known; nothing more is."""

    seen: list[list[str]] = []

    def see(overrides: Any) -> Any:
        seen.append(list(overrides))
        raise Seen

    monkeypatch.setattr(pipeline, "plan", lambda args, others, say: see(args.config))
    monkeypatch.setattr(tune.studies, "require_optuna", lambda: None)
    monkeypatch.setattr(tune.checks, "tunable", lambda path, overrides: see(overrides))
    monkeypatch.setattr(resolve, "runs_of", lambda asked: see(asked[0][1]))
    for main, words in (
        (pipeline.main, ["--config", "a.b=1"]),
        (tune.main, ["--config", "x.yaml", "a.b=1"]),
        (quick_train.main, ["x.yaml", "a.b=1"]),
    ):
        with pytest.raises(Seen):
            main([*words, "--hardware", "h100"])
    assert seen == [["profile.name=h100", "a.b=1"]] * 3
