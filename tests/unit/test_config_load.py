"""Merging, interpolation, overrides, and mistakes that are told all at once with their places."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from training.base.errors import UserError
from training.config.agreement import REPORTERS
from training.config.load import config_from, load_config, save_resolved
from training.config.schema import Config

REPOSITORY = Path(__file__).parents[2]
SHIPPED = sorted((REPOSITORY / "configs").glob("*.yaml"))


class Options(BaseModel):
    """An architecture for tests of the loader alone."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["whisper", "tiny"] = "tiny"
    name: str | None = None
    layers: int = Field(2, ge=1)


def options(_: str) -> type[BaseModel]:
    return Options


def write(folder: Path, **files: str) -> Path:
    """Files by stem; returns the last."""
    path = folder
    for name, text in files.items():
        path = folder / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
    return path


def load(path: Path, *overrides: str) -> Config:
    return load_config(path, overrides, options=options)


def mistakes(path: Path, *overrides: str) -> list[str]:
    """The lines of the error, without the folder."""
    with pytest.raises(UserError) as caught:
        load(path, *overrides)
    lines = str(caught.value).replace(f"{path.parent}/", "").splitlines()
    return [line.strip() for line in lines if not line.endswith("mistakes in the configuration:")]


# Bases


def test_later_bases_win_and_the_file_over_all(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    write(
        tmp_path / "deep", root="training: {seed: 1, learning_rate: 1, weight_decay: 0.5, max_grad_norm: 9}"
    )
    write(tmp_path, a="_base_: deep/root.yaml\ntraining: {learning_rate: 2, weight_decay: 0.25}")
    path = write(
        tmp_path, b="training: {weight_decay: 0.125}", c="_base_: [a.yaml, b.yaml]\ntraining: {seed: 4}"
    )
    training = load(path).training
    assert (training.seed, training.learning_rate, training.weight_decay, training.max_grad_norm) == (
        4,
        2,
        0.125,
        9,
    )


def test_a_list_replaces_a_list(tmp_path: Path) -> None:
    path = write(tmp_path, a="training: {freeze: [a, b, c]}", b="_base_: a.yaml\ntraining: {freeze: [d]}")
    assert load(path).training.freeze == ("d",)


def test_a_cycle_is_told_with_its_chain(tmp_path: Path) -> None:
    path = write(tmp_path, a="_base_: b.yaml", b="_base_: [c.yaml]", c="training:\n  seed: 1\n_base_: a.yaml")
    (line,) = mistakes(path)
    assert line.startswith("b.yaml:1: _base_: goes in a circle: ")
    assert re.findall(r"(\w)\.yaml", line.partition("circle")[2]) == ["c", "a", "b", "c"]


def test_a_file_below_two_others_is_no_cycle(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        d="training: {seed: 3}",
        b="_base_: d.yaml",
        c="_base_: d.yaml",
        a="_base_: [b.yaml, c.yaml]",
    )
    assert load(path).training.seed == 3


def test_a_missing_base_is_told_where_it_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, a="training:\n  seed: 1\n_base_:\n  - none.yaml\n  - gone.yaml")
    first, second = mistakes(path)
    assert (
        first.startswith("a.yaml:3: _base_: there is no file")
        and "none.yaml" in first
        and "gone.yaml" in second
    )


@pytest.mark.parametrize("base", ["3", "{a: b}", "[1]"])
def test_a_base_that_is_no_path(tmp_path: Path, base: str) -> None:
    assert mistakes(write(tmp_path, a=f"_base_: {base}"))[0].startswith("a.yaml:1: _base_: must be a path")


# Mistakes


def test_all_mistakes_at_once_each_with_its_file_and_line(tmp_path: Path) -> None:
    base = "training:\n  learning_rate: fast\n  save_step: 10\n"
    text = "_base_: base.yaml\nmodel:\n  type: tiny\n  layer: 3\n\ndata:\n  min_seconds: -1\neval_steps: 3\n"
    path = write(tmp_path, base=base, a=text)
    assert mistakes(path, "dataloader.num_worker=2") == [
        "base.yaml:2: training.learning_rate: should be a valid number, unable to parse string as a number (got 'fast')",
        "base.yaml:3: training.save_step: is not a known key; did you mean save_steps?",
        "a.yaml:4: model.layer: is not a known key; did you mean layers?",
        "a.yaml:7: data.min_seconds: should be greater than or equal to 0 (got -1)",
        "a.yaml:8: eval_steps: is not a known key; did you mean training.eval_steps?",
        "command line: dataloader.num_worker: is not a known key; did you mean num_workers?",
    ]


def test_a_contradiction_is_told_beside_a_typo_elsewhere(tmp_path: Path) -> None:
    path = write(tmp_path, a="training:\n  eval_steps: 20\n  save_steps: 30\n  sed: 1\nmodel: {layers: 0}")
    lines = mistakes(path)
    assert lines[0].startswith("a.yaml:3: training.save_steps: must be a multiple of eval_steps (20)")
    assert "a.yaml:4: training.sed: is not a known key; did you mean seed?" in lines
    assert lines[2].startswith("a.yaml:5: model.layers: should be greater than or equal to 1 (got 0)")


def test_no_contradiction_is_made_up_from_a_wrong_value(tmp_path: Path) -> None:
    path = write(tmp_path, a="training: {eval_steps: often, save_steps: 30}")
    assert all(line.startswith("a.yaml:1: training.eval_steps:") for line in mistakes(path))


def test_a_value_in_a_base_that_an_override_breaks_names_the_command_line(tmp_path: Path) -> None:
    path = write(tmp_path, a="training: {seed: 1}")
    assert mistakes(path, "training.seed=x")[0].startswith(
        "command line: training.seed: should be a valid integer"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "training:\n  seed: 1\n  batch_size: 2\n  seed: 2",
            "a.yaml:4: training.seed: is set twice in this file",
        ),
        ("training: {seed: 1}\ntraining: {seed: 2}", "a.yaml:2: training: is set twice in this file"),
        ("training:\n  3: x", "a.yaml:2: training: a key must be text (got '3')"),
        ("training: [", "a.yaml:1: is not valid YAML"),
        ("training:\n\tseed: 1", "a.yaml:2: is not valid YAML"),
        ("- a\n- b", "a.yaml:1: must hold keys and values"),
        ("training: 3", "a.yaml:1: training: should be"),
        ("paths:\n  splits_dir: ${paths.split}", "a.yaml:2: paths.splits_dir: cannot be filled in"),
        ("paths:\n  splits_dir: ${paths.splits_dir}", "a.yaml:2: paths.splits_dir: cannot be filled in"),
        ("paths:\n  splits_dir: ${paths", "a.yaml:2: paths.splits_dir: broken interpolation"),
        ("training:\n  seed: ???", "a.yaml:2: training.seed: must be given a value"),
        ("training: &a\n  lora: *a", "a.yaml:1: training.lora: an alias contains itself"),
        ("model: !!python/object:os.system {}", "a.yaml:1: is not valid YAML"),
        ("training: {learning_rate: .nan}", "a.yaml:1: training.learning_rate: should be a finite number"),
        (
            "training: {eval_strategy: false}",
            "a.yaml:1: training.eval_strategy: should be 'no', 'steps' or 'epoch'",
        ),
        ("data: {dataset: {name: x}}", "a.yaml:1: data.dataset.path: is missing"),
        ("output: {experiment_name: a/b}", "a.yaml:1: output.experiment_name: should match pattern"),
    ],
)
def test_what_is_wrong_with_a_file(tmp_path: Path, text: str, expected: str) -> None:
    assert mistakes(write(tmp_path, a=text))[0].startswith(expected)


def test_an_unreadable_file(tmp_path: Path) -> None:
    assert mistakes(tmp_path / "none.yaml") == ["none.yaml: no such file"]
    (tmp_path / "latin.yaml").write_bytes("# caf\xe9".encode("latin-1"))
    assert mistakes(tmp_path / "latin.yaml") == ["latin.yaml: is not UTF-8 text (byte 5)"]


def test_an_unknown_architecture_names_those_there_are(tmp_path: Path) -> None:
    path = write(tmp_path, a="model:\n  name: x\n  type: wisper")
    with pytest.raises(
        UserError, match=r"a\.yaml:3: model\.type: unknown architecture 'wisper'.*did you mean whisper"
    ):
        load_config(path)


def test_the_nearest_name_of_many(tmp_path: Path) -> None:
    text = "training:\n  optim: adamw_torch_fuse\n  adam_beta_2: 0.9\n  lr_scheduler_type: cosin"
    first, second, third = mistakes(write(tmp_path, a=text))
    assert re.fullmatch(
        r"a.yaml:2: training.optim: should be one of \d+ names \(got 'adamw_torch_fuse'\); did you mean adamw_torch_fused\?",
        first,
    )
    assert second == "a.yaml:3: training.adam_beta_2: is not a known key; did you mean adam_beta2?"
    assert third.endswith("names (got 'cosin'); did you mean cosine?")


@pytest.mark.parametrize(
    ("block", "key"),
    [
        ("{fp16: true, bf16: true}", "fp16"),
        ("{warmup_ratio: 0.1, warmup_steps: 5}", "warmup_ratio"),
        ("{load_best_model_at_end: true, eval_strategy: 'no'}", "load_best_model_at_end"),
        ("{save_strategy: epoch}", "save_strategy"),
        ("{eval_steps: 0.1, save_steps: 50}", "save_steps"),
        ("{early_stopping_patience: 2, eval_strategy: 'no'}", "early_stopping_patience"),
        ("{lora: {r: 4}}", "lora"),
        ("{freeze_encoder: false, freeze_encoder_epochs: 2}", "freeze_encoder_epochs"),
        ("{max_batch_seconds: 10}", "max_batch_seconds"),
    ],
)
def test_contradictions_inside_training(tmp_path: Path, block: str, key: str) -> None:
    (line,) = mistakes(write(tmp_path, a=f"training: {block}"))
    assert line.startswith(f"a.yaml:1: training.{key}: ")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("profile: {device: cpu}\ntraining: {fp16: true}", "training.fp16"),
        ("profile: {device: cpu, precision: fp16}", "profile.precision"),
        ("data: {min_seconds: 40}", "data.min_seconds"),
        ("data: {dev: null}", "training.eval_strategy"),
        ("evaluation: {batch_seconds: 3}", "evaluation.batch_seconds"),
    ],
)
def test_contradictions_between_blocks(tmp_path: Path, text: str, key: str) -> None:
    (line,) = mistakes(write(tmp_path, a=text))
    assert f": {key}: " in line


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("training: {metric_for_best_model: eval_wre}", "metric_for_best_model", "did you mean eval_wer?"),
        ("training: {metric_for_best_model: accuracy}", "metric_for_best_model", "eval_loss, eval_wer"),
        ("training: {metric_for_best_model: cre_child}", "metric_for_best_model", "(eval_wer_<domain>)"),
        ("training: {metric_for_best_model: loss_child}", "metric_for_best_model", "no score is called"),
        ("training: {metric_for_best_model: cer_}", "metric_for_best_model", "no score is called"),
        ("training: {report_to: tensorbord}", "report_to", "did you mean tensorboard?"),
        ("training: {report_to: [none, paper]}", "report_to", "paper"),
    ],
)
def test_names_that_the_trainer_does_not_know(tmp_path: Path, text: str, line: str, said: str) -> None:
    (found,) = mistakes(write(tmp_path, a=text))
    assert found.startswith(f"a.yaml:1: training.{line}: ") and said in found


@pytest.mark.parametrize(
    "metric",
    [
        "wer",
        "eval_cer",
        "loss",
        "eval_loss",
        "eval_bleu",
        "chrf",
        "eval_cer_child",
        "bleu_child",
        "eval_onset_mae",
        None,
    ],
)
@pytest.mark.parametrize("task", ["transcribe", "translate", "both"])
def test_the_best_checkpoint_is_chosen_by_a_score_of_the_models_tasks(metric: str | None, task: str) -> None:
    given = {
        "model": {"type": "whisper", "name": "x", "task": task},
        "training": {"metric_for_best_model": metric},
    }
    scores = {
        "transcribe": ("wer", "cer", "onset_mae"),
        "translate": ("bleu", "chrf"),
        "both": ("wer", "cer", "onset_mae", "bleu", "chrf"),
    }
    name = (metric or "loss").removeprefix("eval_").removesuffix("_child")
    if name in ("loss", *scores[task]):
        assert config_from(given).training.metric_for_best_model == metric
    else:
        with pytest.raises(UserError, match=rf"training\.metric_for_best_model: .*{metric}.*model\.task"):
            config_from(given)


def test_every_curve_that_transformers_can_write_is_known() -> None:
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    assert set(REPORTERS) == {"all", "none", *INTEGRATION_TO_CALLBACK}


# Two places for one key


@pytest.mark.parametrize("block", ["model", "training"])
@pytest.mark.parametrize(
    ("key", "value"),
    [("freeze_encoder", True), ("freeze_feature_encoder", True), ("freeze_encoder_epochs", 2)],
)
def test_freezing_may_stand_in_either_block(tmp_path: Path, block: str, key: str, value: Any) -> None:
    path = write(tmp_path, a=f"{block}:\n  {key}: {str(value).lower()}\n")
    assert getattr(load(path).training, key) == value


def test_freezing_said_twice_must_agree(tmp_path: Path) -> None:
    text = "model:\n  freeze_encoder: true\ntraining:\n  freeze_encoder: {}"
    assert load(write(tmp_path, a=text.replace("{}", "true"))).training.freeze_encoder is True
    (line,) = mistakes(write(tmp_path, a=text.replace("{}", "false")))
    assert line.startswith("a.yaml:2: model.freeze_encoder: is True and training.freeze_encoder is False (")
    assert "a.yaml:4); keep one of them" in line


def test_null_is_no_second_value(tmp_path: Path) -> None:
    resolved = save_resolved(config_from({"model": {"type": "tiny"}}, options=options), tmp_path)
    assert load(resolved, "model.freeze_encoder=true").training.freeze_encoder is True
    assert load(resolved, "training.per_device_train_batch_size=3").training.batch_size == 3
    assert (
        load(resolved, "model.freeze_encoder=null", "training.freeze_encoder=true").training.freeze_encoder
        is True
    )


def test_transformers_names_of_short_names(tmp_path: Path) -> None:
    path = write(tmp_path, a="training: {per_device_train_batch_size: 3, per_device_eval_batch_size: 5}")
    assert (load(path).training.batch_size, load(path).training.eval_batch_size) == (3, 5)
    (line,) = mistakes(path, "training.batch_size=4")
    assert "training.per_device_train_batch_size: is 3 and training.batch_size is 4 (command line)" in line


# Scalars, interpolation, defaults


def test_scalars_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    text = "training: {eval_strategy: no, learning_rate: 1e-4, weight_decay: .5, seed: 0x10}\nmodel: {name: 2024-01-02}"
    config = load(write(tmp_path, a=text))
    training = config.training
    assert (training.eval_strategy, training.learning_rate, training.weight_decay, training.seed) == (
        "no",
        1e-4,
        0.5,
        16,
    )
    assert config.model is not None and config.model.name == "2024-01-02"  # type: ignore[attr-defined]


def test_interpolation_sees_defaults_overrides_and_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CORPUS", "/mnt/corpus")
    path = write(
        tmp_path, a="paths: {data_root: '${oc.env:CORPUS}'}\nprofile: {description: 'seed ${training.seed}'}"
    )
    config = load(path, "training.seed=9", "paths.splits_dir=s")
    assert config.profile.description == "seed 9"
    assert (config.data.dev, config.data.audio_root) == (Path("s/dev.csv"), Path("/mnt/corpus"))


def test_a_block_of_comments_alone_has_its_defaults(tmp_path: Path) -> None:
    assert load(write(tmp_path, a="training:\n  # seed: 1\n")).training.seed == 42


def test_the_experiment_is_named_after_the_file(tmp_path: Path) -> None:
    config = load(write(tmp_path, my_run="paths: {output_dir: o}"))
    assert (config.output.experiment_name, config.output.dir) == ("my_run", Path("o/my_run"))


def test_anchors_and_merge_keys(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        a="data:\n  columns: &c {transcript: sentence}\n  dataset:\n    path: p\n    columns: {<<: *c, id: key}",
    )
    dataset = load(path).data.dataset
    assert dataset is not None and dataset.columns == {"transcript": "sentence", "id": "key"}


def test_splits_of_a_dataset_that_are_left_out_keep_their_names(tmp_path: Path) -> None:
    dataset = load(write(tmp_path, a="data: {dataset: {path: p, split: {dev: 'train[90%:]'}}}")).data.dataset
    assert dataset is not None
    assert dataset.split == {"train": "train", "dev": "train[90%:]", "test": "test"}


def test_a_configuration_travels_to_a_spawned_worker(tmp_path: Path) -> None:
    config = load_config(REPOSITORY / "configs" / "dev_e2e.yaml", ["training.adam_beta2=0.98"])
    assert pickle.loads(pickle.dumps(config)) == config


def test_a_configuration_is_frozen() -> None:
    config = config_from({}, options=options)
    with pytest.raises(ValueError, match="frozen"):
        config.training.seed = 3  # type: ignore[misc]


# What a run keeps


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_configurations_load_and_come_back_from_what_is_saved(path: Path, tmp_path: Path) -> None:
    overrides = ["training.adam_beta2=0.98", "training.freeze=[a, b]", "training.optim=adafactor"]
    if "e2e" in path.stem:
        overrides.append("training.freeze_encoder=true")
    config = load_config(path, overrides)
    again = load_config(save_resolved(config, tmp_path / "run"))
    assert again == config
    assert again.to_yaml() == config.to_yaml()


def test_shipped_runs_have_a_model_and_a_folder_of_their_own() -> None:
    runs = {path.stem: load_config(path) for path in SHIPPED if path.stem != "base"}
    digits = runs.pop("digits_ctc")
    assert digits.output.dir == Path("outputs/digits_ctc") and digits.profile.name == "cpu"
    without_gpu = {name: runs.pop(name) for name in sorted(runs) if name.startswith("cpu_")}
    assert list(without_gpu) == ["cpu_ctc_whisper", "cpu_domain_whisper", "cpu_voxlm", "cpu_whisper"]
    assert {(run.profile.name, run.profile.precision) for run in without_gpu.values()} == {("cpu", "auto")}
    assert {run.training.max_steps for run in without_gpu.values()} == {-1}
    base = runs.pop("demo_domain_base")
    assert base.output.dir == Path("outputs/demo_domain_base") and base.data.domains == ("normal",)
    ears = runs.pop("demo_voxlm_encoder")
    assert ears.output.dir == Path("outputs/demo_voxlm_encoder") and ears.profile.name == "cpu"
    speech_llms = {name: runs.pop(name) for name in sorted(runs) if "voxlm" in name}
    assert list(speech_llms) == ["demo_voxlm", "voxlm-0.5b", "voxlm-2b", "voxlm-9b-global"]
    assert [config.profile.name for config in speech_llms.values()] == [
        "cpu",
        "cuda-8gb",
        "cuda-16gb",
        "cuda-24gb",
    ]
    assert all(config.output.dir == Path("outputs") / name for name, config in speech_llms.items())
    assert sorted(runs) == sorted(
        f"{stage}_{kind}"
        for stage in ("demo", "dev", "prod")
        for kind in ("whisper", "e2e", "ctc", "domain_whisper")
    )
    for name, config in runs.items():
        assert config.output.dir == Path("outputs") / name
        assert config.model is not None and config.model.type == name.split("_", 1)[1]  # type: ignore[attr-defined]
        assert config.profile.name == {"demo": "cpu", "dev": "rtx2050", "prod": "h100"}[name.split("_")[0]]


def test_nothing_is_overwritten_by_another_run(tmp_path: Path) -> None:
    first, second = (config_from({"training": {"seed": seed}}, options=options) for seed in (1, 2))
    target = save_resolved(first, tmp_path)
    before = target.read_bytes()
    with pytest.raises(
        UserError, match=r"config\.yaml: belongs to a run with other settings \(training\.seed\)"
    ):
        save_resolved(second, tmp_path)
    assert target.read_bytes() == before
    save_resolved(second, tmp_path, replace=True)
    assert load(target).training.seed == 2
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_only_what_was_set_of_transformers_own_fields_is_saved() -> None:
    values: dict[str, Any] = config_from({"training": {"adam_beta2": 0.9}}, options=options).as_dict()[
        "training"
    ]
    assert values["adam_beta2"] == 0.9
    assert "adam_beta1" not in values
