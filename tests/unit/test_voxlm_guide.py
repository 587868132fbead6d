"""Guide 000: its printed configuration loads as it stands, each key and each flag of its two training scripts has an effect."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from training import cli
from training.base.errors import UserError
from training.cli import train
from training.config.arguments import training_arguments
from training.config.compat import guide_flags
from training.config.load import load_config
from training.config.schema import Config

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "fixtures"
GUIDE = FIXTURES / "guide_000_voxlm.yaml"
SCRIPTS = ("train.py ", "train_with_timestamps.py ")
PHASE_2 = ("training.phase=2", "model.name=outputs/voxlm-2b")


def look(config: Config, path: str) -> Any:
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
    return value


# key of the guide: (ours, what the guide's value makes of it, another value, what that makes of it), in its phase
KEYS: dict[str, tuple[str, Any, str, Any, int]] = {
    "model.name": ("output.experiment_name", "voxlm-2b", "mine", "mine", 1),
    "model.audio_encoder": ("model.audio_encoder", "openai/whisper-small", "a/b", "a/b", 1),
    "model.llm_model": ("model.llm", "Qwen/Qwen2-1.5B", "a/b", "a/b", 1),
    "model.use_lora": ("training.trainable", "lora", "false", "all", 1),
    "model.lora_r": ("training.lora.r", 16, "8", 8, 1),
    "training.phase1.epochs": ("training.num_train_epochs", 10, "3", 3, 1),
    "training.phase1.batch_size": ("training.batch_size", 8, "4", 4, 1),
    "training.phase1.learning_rate": ("training.learning_rate", 1e-4, "1e-3", 1e-3, 1),
    "training.phase2.epochs": ("training.num_train_epochs", 5, "3", 3, 2),
    "training.phase2.batch_size": ("training.batch_size", 16, "4", 4, 2),
    "training.phase2.learning_rate": ("training.learning_rate", 5e-5, "1e-3", 1e-3, 2),
    "data.data_dir": ("data.librispeech.root", Path("data"), "/mnt", Path("/mnt"), 1),
    "data.train_split": ("data.librispeech.train", ("train-clean-100",), "[a, b]", ("a", "b"), 1),
    "data.val_split": ("data.librispeech.dev", ("dev-clean",), "c", ("c",), 1),
}


def leaves(block: dict[str, Any], path: str = "") -> list[str]:
    found: list[str] = []
    for name, value in block.items():
        found += leaves(value, f"{path}{name}.") if isinstance(value, dict) else [f"{path}{name}"]
    return found


def of_phase(file: Path, phase: int) -> Config:
    return load_config(file, PHASE_2 if phase == 2 else ())


def test_the_table_lists_every_key_of_the_guides_file() -> None:
    assert sorted(KEYS) == sorted(leaves(yaml.safe_load(GUIDE.read_text(encoding="utf-8"))))


@pytest.mark.parametrize("key", KEYS)
def test_a_key_has_its_effect_and_another_value_another(key: str, tmp_path: Path) -> None:
    ours, wanted, other, then, phase = KEYS[key]
    assert look(of_phase(GUIDE, phase), ours) == wanted
    content = yaml.safe_load(GUIDE.read_text(encoding="utf-8"))
    *above, last = key.split(".")
    block = content
    for name in above:
        block = block[name]
    block[last] = yaml.safe_load(other) if last != "learning_rate" else float(other)
    file = tmp_path / "changed.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    assert then != wanted and look(of_phase(file, phase), ours) == then


def test_the_guides_file_is_a_voxlm_in_both_phases() -> None:
    first, second = of_phase(GUIDE, 1), of_phase(GUIDE, 2)
    models: list[Any] = [first.model, second.model]
    assert [type(model).__module__ for model in models] == ["training.models.voxlm.config"] * 2
    assert [model.phase for model in models] == [1, 2]
    assert (first.training.trainable, second.training.trainable) == ("lora", "all")
    assert models[1].name == "outputs/voxlm-2b"
    assert (first.output.dir, second.output.dir) == (
        Path("outputs/voxlm-2b"),
        Path("outputs/voxlm-2b_phase2"),
    )


def test_a_base_and_a_later_value_keep_their_ranks(tmp_path: Path) -> None:
    base = tmp_path / "base.yaml"
    base.write_text("training: {batch_size: 2, max_grad_norm: 5.0}\n", encoding="utf-8")
    file = tmp_path / "mine.yaml"
    file.write_text(f"_base_: base.yaml\n{GUIDE.read_text(encoding='utf-8')}", encoding="utf-8")
    assert load_config(file).training.batch_size == 8
    changed = load_config(file, ["training.batch_size=3", "model.llm=a/b"])
    assert (changed.training.batch_size, changed.training.max_grad_norm) == (3, 5.0)
    assert look(changed, "model.llm") == "a/b"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "use_lora: true",
            "use_lora: maybe",
            r"mine.yaml:5: model.use_lora: must be true or false \(got 'maybe'\)",
        ),
        (
            "use_lora: true",
            "llm: other",
            r"mine.yaml:4: model.llm_model: is 'Qwen/Qwen2-1.5B' and model.llm is 'other'",
        ),
        ('name: "voxlm-2b"', "type: whisper", r"model.llm_model: is 'voxlm' and model.type is 'whisper'"),
    ],
)
def test_a_mistake_is_named_with_its_line(old: str, new: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(GUIDE.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        load_config(file)


FLAGS: dict[str, tuple[list[str], str, Any]] = {
    "--model": (["voxlm-2b"], "model.llm", "Qwen/Qwen2-1.5B"),
    "--data": (["corpora"], "data.librispeech.root", Path("corpora")),
    "--output": (["checkpoints"], "output.dir", Path("checkpoints/voxlm-2b")),
    "--epochs": (["3"], "training.num_train_epochs", 3),
    "--batch-size": (["5"], "training.batch_size", 5),
    "--lr": (["1e-3"], "training.learning_rate", 1e-3),
    "--grad-accum": (["7"], "training.gradient_accumulation_steps", 7),
    "--train-split": (["train-clean-360"], "data.librispeech.train", ("train-clean-360",)),
    "--val-split": (["dev-other"], "data.librispeech.dev", ("dev-other",)),
    "--wandb": ([], "training.report_to", "wandb"),
    "--num-workers": (["3"], "dataloader.num_workers", 3),
    "--compile": ([], "training.torch_compile", True),
    "--checkpoint": (["outputs/voxlm-2b"], "model.name", "outputs/voxlm-2b"),
    "--timestamps": (["t.json", "--checkpoint", "outputs/voxlm-2b"], "data.train", Path("t.json")),
    "--val-timestamps": (
        ["v.json", "--timestamps", "t.json", "--checkpoint", "outputs/voxlm-2b"],
        "data.dev",
        Path("v.json"),
    ),
    "--alignment-weight": (["0.5"], "model.alignment_weight", 0.5),
}
"""Flag → what follows it, a key, and what then stands there."""


def resolved(*arguments: str) -> Config:
    args = train.parser().parse_intermixed_args(list(arguments))
    return load_config(guide_flags.config_file(args), [*guide_flags.overrides(args), *args.overrides])


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_the_table_lists_every_flag_of_both_scripts() -> None:
    names = json.loads((FIXTURES / "guide_names.json").read_text(encoding="utf-8"))["000"]
    flags = {
        name.removeprefix(script)
        for name in names["Commands and flags"]
        for script in SCRIPTS
        if name.startswith(script)
    }
    assert flags == set(FLAGS)


@pytest.mark.parametrize("flag", FLAGS)
def test_a_flag_has_its_effect(flag: str, here: None) -> None:
    value, key, then = FLAGS[flag]
    if flag != "--model":
        assert (
            getattr(
                look(resolved("--model", "voxlm-2b"), key.rpartition(".")[0]), key.rpartition(".")[2], None
            )
            != then
        )
        assert look(resolved("--model", "voxlm-2b", flag, *value), key) == then
    else:
        assert look(resolved(flag, *value), key) == then


def test_the_guides_first_command(here: None) -> None:
    line = (
        "--model voxlm-2b --data ./data --output ./checkpoints --epochs 10 --batch-size 8 --lr 1e-4 "
        "--train-split train-clean-100 --val-split dev-clean"
    )
    config = resolved(*line.split())
    given = training_arguments(config)
    assert (given["num_train_epochs"], given["per_device_train_batch_size"], given["learning_rate"]) == (
        10,
        8,
        1e-4,
    )
    assert (look(config, "model.phase"), config.output.dir) == (1, Path("checkpoints/voxlm-2b"))


def test_the_guides_second_command_is_phase_2_on_word_times(here: None) -> None:
    line = (
        "--model voxlm-2b --checkpoint checkpoints/voxlm-2b --output ./checkpoints --epochs 5 --batch-size 16 --lr 5e-5 "
        "--timestamps data/timestamps/train-clean-100/timestamps_manifest.json "
        "--val-timestamps data/timestamps/dev-clean/timestamps_manifest.json"
    )
    config = resolved(*line.split())
    assert (look(config, "model.phase"), look(config, "model.name")) == (2, "checkpoints/voxlm-2b")
    assert config.output.dir == Path("checkpoints/voxlm-2b_phase2")
    assert config.data.librispeech is None
    assert config.data.train == Path("data/timestamps/train-clean-100/timestamps_manifest.json")
    assert config.data.dev == Path("data/timestamps/dev-clean/timestamps_manifest.json")
    given = training_arguments(config)
    assert (given["num_train_epochs"], given["per_device_train_batch_size"], given["learning_rate"]) == (
        5,
        16,
        5e-5,
    )


def test_a_key_after_the_flags_decides(here: None) -> None:
    assert (
        look(resolved("--model", "voxlm-2b", "--timestamps", "t.json", "training.phase=1"), "model.phase")
        == 1
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "which configuration? --config FILE"),
        (
            ["--model", "voxlm-3b"],
            "--model voxlm-3b: there is no configs/voxlm-3b.yaml; did you mean voxlm-2b?",
        ),
        (
            ["--model", "voxlm-2b", "--config", "configs/voxlm-2b.yaml"],
            "--model voxlm-2b stands for --config configs/voxlm-2b.yaml; leave out one of them",
        ),
        (
            ["--model", "voxlm-2b", "--checkpoint", "checkpoints/voxlm-2b/best.pt"],
            "--checkpoint checkpoints/voxlm-2b/best.pt: a run's folder is meant",
        ),
        (
            ["--model", "voxlm-2b", "--val-timestamps", "v.json"],
            "--val-timestamps v.json: goes with --timestamps, those of the training split",
        ),
    ],
)
def test_a_mistake_is_answered(
    arguments: list[str], message: str, here: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", *arguments]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"error: {message}") and not said.out


def test_the_file_to_copy_is_a_whole_run_of_both_phases(tmp_path: Path) -> None:
    configs = tmp_path / "configs"
    shutil.copytree(ROOT / "configs", configs)
    file = shutil.copy(configs / "custom.yaml.example", configs / "my-model.yaml")
    first, second = of_phase(file, 1), of_phase(file, 2)
    assert [look(config, "model.phase") for config in (first, second)] == [1, 2]
    assert (first.output.dir, second.output.dir) == (
        Path("outputs/my-model"),
        Path("outputs/my-model_phase2"),
    )
    assert (first.training.trainable, second.training.trainable) == ("lora", "all")
