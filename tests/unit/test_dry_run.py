"""``--dry_run`` on made-up data: what it says, which status it ends with, and that it leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import whisper_assets

from training.base.errors import UserError
from training.config.load import config_from, load_config
from training.config.schema import Config
from training.data.batch_policy import BatchPolicy
from training.data.manifest import load_manifest
from training.data.sampler import DurationBatchSampler
from training.engine import run as runs
from training.models.architecture import Architecture, BuildContext
from training.planning import duration, memory, trial, wording
from training.planning.dry_run import DOES_NOT_FIT, VALID, dry_run
from training.planning.texts import stand_in_texts

torch.set_num_threads(1)
CPU_WHISPER = Path(__file__).parents[2] / "configs/cpu_whisper.yaml"
ROWS = 12
BIG = {
    "d_model": 256,
    "encoder_layers": 8,
    "encoder_ffn_dim": 1024,
    "decoder_ffn_dim": 1024,
    "vocab_size": 400,
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two splits of short clips."""
    rng = np.random.default_rng(0)
    for split in ("train", "dev"):
        lines = ["id,audio_path,duration,transcript,translation"]
        for i in range(ROWS):
            seconds = 0.5 + 0.25 * i
            name = f"{split}{i}.wav"
            soundfile.write(tmp_path / name, 0.1 * rng.standard_normal(int(16_000 * seconds)), 16_000)
            lines.append(
                f"{split}{i},{name},{seconds},{whisper_assets.TRANSCRIPT},{whisper_assets.TRANSLATION}"
            )
        (tmp_path / f"{split}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(folder: Path, *overrides: str, sizes: dict[str, Any] | None = None) -> Config:
    values = {
        "model": {
            "type": "whisper",
            "sizes": {**whisper_assets.SIZES, **(sizes or {})},
            "max_label_tokens": 64,
        },
        "data": {
            "train": str(folder / "train.csv"),
            "dev": str(folder / "dev.csv"),
            "max_dropped_share": 0.2,
        },
        "training": {"batch_size": 4, "gradient_accumulation_steps": 2, "num_train_epochs": 3},
        "profile": {"device": "cuda", "memory_gb": 4, "name": "small"},
        "dataloader": {"num_workers": 0},
    }
    return config_from(values, overrides, name="trial")


def said(settings: Config) -> tuple[int, list[str]]:
    lines: list[str] = []
    return dry_run(settings, lines.append), lines


def values_of(lines: list[str], name: str) -> list[str]:
    """What stands behind a name in the rows."""
    return [line[17:] for line in lines if line[2:16].strip() == name]


def everything_below(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in sorted(folder.rglob("*"))}


def test_a_valid_run_is_described_and_tried(folder: Path) -> None:
    before = everything_below(folder)
    status, lines = said(config(folder))
    assert status == VALID
    assert everything_below(folder) == before
    assert values_of(lines, "train")[0].startswith(f"{ROWS} utterances, 0.01 h; all read, 0 cannot be used")
    sampler = DurationBatchSampler(
        0.5 + 0.25 * np.arange(ROWS), **BatchPolicy(batch_size=4, full_share=0.02).bounds()
    )
    per_epoch = -(-len(sampler) // 2)
    assert (
        values_of(lines, "schedule")[1] == f"{per_epoch} steps per epoch, {3 * per_epoch} in all (3.0 epochs)"
    )
    step = next(line for line in lines if "one optimiser step" in line)
    loss = float(step.split("loss ")[1].split(",")[0])
    assert 3 < loss < 12
    assert "not checked" not in "\n".join(line for line in lines if "data" in line or "weights" in line)


def test_a_run_of_this_cpu_says_how_long_it_will_take(folder: Path) -> None:
    here = (
        "profile.device=cpu",
        "training.eval_strategy=epoch",
        "training.batch_size=2",
        "model.full_context_share=0",
    )
    _, lines = said(config(folder, *here))
    (told,) = values_of(lines, "duration")
    steps = next(line for line in values_of(lines, "schedule") if "in all" in line)
    assert "9 in all" in steps and "9 steps" in told
    # From random weights hypotheses run on to their longest: they are not timed.
    assert told.startswith("about ") and "3 evaluations not timed" in told
    assert values_of(said(config(folder))[1], "duration")[0].startswith(
        "not timed: the run is planned for cuda"
    )
    _, lines = said(config(folder, *here[:-1], "model.full_context_share=1"))
    assert values_of(lines, "duration")[0].startswith("about "), "also where every clip is padded to 30 s"


@pytest.mark.parametrize(("every", "count"), [("0.4", 3), ("3", 3), ("5", 2), ("20", 1)])
def test_the_evaluation_at_the_end_of_the_run_is_counted(folder: Path, every: str, count: int) -> None:
    """Of nine steps; the trainer scores the last one in any case."""
    settings = config(folder, "training.batch_size=2", f"training.eval_steps={every}")
    assert duration.evaluations(settings, duration.Steps(each=3, total=9)) == count


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("training.max_steps=1",), ["max_steps: 1 ends the run after 50% of an epoch"]),
        (("training.num_train_epochs=0.5",), ["num_train_epochs ends the run after 50% of an epoch"]),
        (("training.warmup_steps=3",), ["warmup_steps: 3 are 50% of the run's 6 steps"]),
        (("training.warmup_steps=0.5",), []),
        (("training.warmup_ratio=0.5",), []),
    ],
)
def test_a_run_below_an_epoch_and_a_long_warm_up_are_warned_of(
    folder: Path, slow_machine: None, overrides: tuple[str, ...], words: list[str]
) -> None:
    warnings = values_of(said(config(folder, *overrides))[1], "warning")
    assert len(warnings) == len(words) and all(map(str.__contains__, warnings, words))


def test_rows_that_name_no_language_are_counted_for_pretrained_weights(folder: Path) -> None:
    rows, named = load_manifest(folder / "train.csv"), SimpleNamespace(weights={"name": "a"}, language="vi")
    assert list(wording.languages(rows, named)) == [
        f"{ROWS} of {ROWS} rows name no language: taken for 'vi' (model.language)"
    ]
    for other in (
        SimpleNamespace(weights={}, language="vi"),
        SimpleNamespace(weights={"name": "a"}, language="auto"),
    ):
        assert list(wording.languages(rows, other)) == []


def test_labels_are_shown_with_their_special_tokens(folder: Path) -> None:
    _, lines = said(config(folder))
    prompt = "<|startoftranscript|><|vi|><|{}|><|notimestamps|>"
    shown = "\n".join(lines)
    assert f"{prompt.format('transcribe')} {whisper_assets.TRANSCRIPT}<|endoftext|>" in shown
    assert f"{prompt.format('translate')} {whisper_assets.TRANSLATION}<|endoftext|>" in shown
    assert f"not supervised: {prompt.format('translate')}" in shown


def test_missing_data_is_said_and_not_an_error(folder: Path) -> None:
    (folder / "train.csv").unlink()
    (folder / "dev.csv").unlink()
    status, lines = said(config(folder))
    assert status == VALID
    assert values_of(lines, "train")[0].startswith(f"missing: {folder / 'train.csv'}")
    assert {"data: train split", "data: dev split"} <= set(values_of(lines, "not checked"))
    assert "one clip of noise" in "\n".join(lines)


def test_dropped_clips_are_counted_and_the_first_is_named(folder: Path) -> None:
    (folder / "train3.wav").unlink()
    status, lines = said(config(folder))
    assert status == VALID
    assert values_of(lines, "train")[0].endswith("1 cannot be used")
    shown = "\n".join(lines)
    assert "1 × missing_audio" in shown
    assert "first: train3: missing_audio" in shown


def test_too_many_dropped_clips_are_the_users_to_mend(folder: Path) -> None:
    for i in range(6):
        (folder / f"train{i}.wav").unlink()
    with pytest.raises(UserError, match="max_dropped_share"):
        said(config(folder))


def test_a_mistake_in_the_manifest_is_named_with_its_line(folder: Path) -> None:
    path = folder / "train.csv"
    path.write_text(
        path.read_text(encoding="utf-8").replace("train2.wav,1.0", "train2.wav,long"), encoding="utf-8"
    )
    with pytest.raises(UserError, match=r"train\.csv:4: duration"):
        said(config(folder))


def test_an_unknown_model_is_a_mistake(folder: Path) -> None:
    values = config(folder).as_dict()
    values["model"] = {"type": "whisper", "name": "nobody/no-such-model"}
    with pytest.raises(UserError, match="nobody/no-such-model"):
        said(config_from(values))


def test_weights_that_are_not_here_are_planned_for_all_the_same(folder: Path) -> None:
    values = config(folder).as_dict()
    values["model"] = {"type": "whisper", "name": "openai/whisper-tiny"}
    status, lines = said(config_from(values))
    assert status == VALID
    assert "37,760,640" in "\n".join(lines)
    assert {"weights", "tokenizer", "one training step"} <= set(values_of(lines, "not checked"))
    assert values_of(lines, "verdict")[0].startswith("fits: ")


def test_the_configuration_for_a_machine_without_a_gpu_keeps_what_deployment_needs(folder: Path) -> None:
    """Its users deploy what it trains; joined clips of up to 30 s fit a batch."""
    table = (folder / "train.csv").read_text(encoding="utf-8").splitlines()
    rows = [f"{table[0]},talk", *(f"{row},a" for row in table[1:])]
    (folder / "train.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    splits = [f"data.{name}={folder / name}.csv" for name in ("train", "dev")]
    settings = load_config(CPU_WHISPER, [*splits, "profile.memory_gb=64"])
    model, join = settings.model, settings.augmentation.join
    assert (model.timestamps, model.previous_text, model.full_context_share) == (0.5, 0.3, 0.1)  # type: ignore[union-attr]
    assert (join.prob, join.most) == (0.5, 30)
    assert settings.training.max_batch_seconds >= 30  # type: ignore[operator]
    status, lines = said(settings)
    assert status == VALID and "10% of the clips in full" in values_of(lines, "model")[0]
    assert f"{ROWS} clips to" in values_of(lines, "joined")[0]


def test_a_mistake_is_not_taken_for_weights_that_are_not_here(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The build by sizes alone would succeed, and the dry run call valid what the run then refuses."""
    values = config(folder).as_dict()
    values["model"] = {"type": "whisper", "name": "openai/whisper-tiny"}
    build = runs.build_architecture

    def refused(settings: Config, context: BuildContext) -> Architecture:
        if not context.meta:
            raise UserError("model.language: no such language")
        return build(settings, context)

    monkeypatch.setattr(runs, "build_architecture", refused)
    with pytest.raises(UserError, match="no such language"):
        said(config_from(values))


def test_a_folder_without_weights_is_a_mistake(folder: Path) -> None:
    (folder / "model").mkdir()
    values = config(folder).as_dict()
    values["model"] = {"type": "whisper", "name": str(folder / "model")}
    with pytest.raises(UserError, match="cannot be loaded"):
        said(config_from(values))


@pytest.mark.parametrize(
    ("share", "words"),
    [(0.0, "trimmed (never in full: not for stock pipelines)"), (0.02, "trimmed (2% of the")],
)
def test_the_context_is_said(folder: Path, share: float, words: str) -> None:
    values = config(folder).as_dict()
    values["model"] |= {"encoder_context": "trimmed", "full_context_share": share}
    assert f"encoder context {words}" in values_of(said(config_from(values))[1], "model")[0]


def too_big(folder: Path) -> Config:
    """Sixty-four clips of 5 s through wide layers: some 3 GiB of activations on a card that has 1.5."""
    for split in ("train", "dev"):
        (folder / f"{split}.csv").unlink(missing_ok=True)
    short = ("audio.max_length_seconds=5", "model.full_context_share=0", "training.eval_strategy=no")
    return config(folder, "training.batch_size=64", "profile.memory_gb=2.2", *short, sizes=BIG)


@pytest.fixture
def slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """One on which no trial is affordable."""
    monkeypatch.setattr(trial, "flops_per_second", lambda: 1e6)


def remedies(lines: list[str]) -> Iterator[list[str]]:
    for text in values_of(lines, "would fit"):
        yield text.split()


def test_what_does_not_fit_is_told_with_changes_that_do_fit(folder: Path, slow_machine: None) -> None:
    settings = too_big(folder)
    status, lines = said(settings)
    assert status == DOES_NOT_FIT
    assert values_of(lines, "verdict")[0].startswith("does not fit: ")
    found = list(remedies(lines))
    assert any("training.gradient_checkpointing=true" in overrides for overrides in found)
    assert any("training.batch_size" in " ".join(overrides) for overrides in found)
    for overrides in found:
        mended = config_from(settings.as_dict(), overrides)
        assert mended != settings
        assert said(mended)[0] == VALID


def test_where_no_single_change_is_enough_several_are_added_up(folder: Path, slow_machine: None) -> None:
    settings = config_from(too_big(folder).as_dict(), ["profile.memory_gb=0.86"])
    status, lines = said(settings)
    assert status == DOES_NOT_FIT
    (overrides,) = remedies(lines)
    assert len(overrides) > 2
    assert said(config_from(settings.as_dict(), overrides))[0] == VALID


def test_where_nothing_helps_that_is_said(folder: Path, slow_machine: None) -> None:
    status, lines = said(config_from(too_big(folder).as_dict(), ["profile.memory_gb=0.705"]))
    assert status == DOES_NOT_FIT
    assert "smaller model" in values_of(lines, "remedy")[0]


def test_a_trial_that_is_too_heavy_is_not_tried(folder: Path, slow_machine: None) -> None:
    status, lines = said(config(folder))
    assert status == VALID
    assert len(values_of(lines, "not tried")) == 2
    assert "more than 60 s" in values_of(lines, "not tried")[0]
    assert "one training step" in values_of(lines, "not checked")


def test_adapters_are_counted(folder: Path) -> None:
    pytest.importorskip("peft")
    status, lines = said(config(folder, "training.trainable=lora"))
    assert status == VALID
    assert any("trainable" in line and "lora" in line for line in lines)


def test_made_up_texts_fill_the_vocabulary(folder: Path) -> None:
    from training.models.whisper.tokenizer import train_whisper_tokenizer

    texts = [text for _, _, text in stand_in_texts(config(folder))]
    tokenizer = train_whisper_tokenizer(texts, 1200, ["vi"])
    assert tokenizer.convert_tokens_to_ids("<|endoftext|>") == 1200


def test_the_hub_is_left_as_it_was(folder: Path) -> None:
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    said(config(folder))
    assert before == constants.HF_HUB_OFFLINE


def test_a_plan_for_this_machine_asks_it_for_its_memory(folder: Path) -> None:
    here = config(folder, "profile.device=cpu", "profile.memory_gb=null")
    assert memory.budget(here) == memory.machine_memory("cpu") > memory.GIB


def test_another_sample_rate_than_the_models_is_refused_as_in_training(folder: Path) -> None:
    with pytest.raises(UserError, match=r"audio\.sample_rate: 8000, but this model takes 16000"):
        said(config(folder, "audio.sample_rate=8000"))


def test_a_larger_batch_is_suggested_where_half_of_the_gpus_memory_stays_free(folder: Path) -> None:
    _, lines = said(config(folder, "profile.memory_gb=24"))
    assert values_of(lines, "larger batch") == [
        "training.batch_size=8 training.gradient_accumulation_steps=1"
    ]
    settings = config(folder)
    free: dict[str, Any] = {"moment": "training step", "moments": {}, "parameters": 1, "trainable": 1}
    for used, device, then, there in (
        (4, "cuda", 9, True),
        (6, "cuda", 9, False),
        (4, "cpu", 9, False),
        (4, "cuda", 11, False),
    ):
        plan = memory.Plan(items={"activations": used}, budget=10, device=device, **free)
        larger = memory.Plan(items={"activations": then}, budget=10, device=device, **free)
        found = memory.larger_batch(settings, plan, lambda _, larger=larger: larger)
        assert (found is not None) is there
