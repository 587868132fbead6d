"""Which parameters learn, told by real optimiser steps on the real architectures in miniature."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from fnmatch import fnmatchcase
from typing import Any

import e2e_tiny
import pytest
import torch
import whisper_assets
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed

from training.base.errors import UserError
from training.engine import freezing as trainable
from training.models.architecture import Architecture, BuildContext, ParameterGroups
from training.models.batch import model_inputs
from training.models.lookup import load

Names = set[str]
needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")

# Not used in a forward pass without SpecAugment; a key's bias shifts all scores alike.
WITHOUT_GRADIENT = ("encoder.masked_spec_embed", "*k_proj.bias")


def with_groups(architecture: Architecture, groups: ParameterGroups) -> Architecture:
    """The same architecture with other parameter groups."""

    class Changed(type(architecture)):
        def parameter_groups(self):
            return groups

    return Changed(**{one.name: getattr(architecture, one.name) for one in fields(architecture)})


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    set_seed(3)
    yield
    torch.set_num_threads(before)


def whisper() -> tuple[Architecture, dict[str, Any]]:
    architecture = whisper_assets.tiny()
    return architecture, model_inputs(architecture.collate(whisper_assets.features(architecture, (0.5, 0.8))))


def e2e() -> tuple[Architecture, dict[str, Any]]:
    architecture = e2e_tiny.tiny()
    return architecture, model_inputs(e2e_tiny.batch(architecture, (0.6, 0.5)))


BOTH = pytest.mark.parametrize("make", [whisper, e2e])


def changed_by_two_steps(model: torch.nn.Module, batch: dict[str, Any]) -> tuple[Names, Names]:
    """Short names of parameters that two steps of AdamW changed, and of those that they left bit-equal."""
    parameters = {trainable.short_name(name): p for name, p in model.named_parameters()}
    before = {name: p.detach().clone() for name, p in parameters.items()}
    optimizer = torch.optim.AdamW([p for p in parameters.values() if p.requires_grad], lr=1e-2)
    model.train()
    for _ in range(2):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    changed = {name for name, p in parameters.items() if not torch.equal(p, before[name])}
    return changed, set(parameters) - changed


def matching(names: Names, *patterns: str) -> Names:
    return {name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)}


def assert_learns(
    architecture: Architecture, batch: dict[str, Any], expected: Callable[[Names], Names], **how: Any
) -> None:
    """Exactly the expected parameters change; those that get no gradient in any case are left out."""
    model, plan = trainable.apply(architecture, **how)
    changed, same = changed_by_two_steps(model, batch)
    names = changed | same
    assert changed - matching(names, *WITHOUT_GRADIENT) == expected(names) - matching(
        names, *WITHOUT_GRADIENT
    )
    frozen = {name for group in plan.frozen.values() for name in group}
    assert frozen == {trainable.short_name(n) for n, p in model.named_parameters() if not p.requires_grad}


@BOTH
def test_all_learns_everything_but_what_the_architecture_keeps(make):
    architecture, batch = make()
    assert_learns(
        architecture, batch, lambda names: names - matching(names, *architecture.parameter_groups().frozen)
    )


@BOTH
def test_lna_learns_layer_norms_and_attention_only(make):
    architecture, batch = make()
    assert_learns(
        architecture,
        batch,
        lambda names: matching(names, *architecture.parameter_groups().patterns["lna"]),
        mode="lna",
    )
    model = architecture.model
    assert not any(
        p.requires_grad for n, p in model.named_parameters() if ".fc1." in n or "embed_tokens" in n
    )


@needs_peft
@BOTH
def test_lora_learns_adapters_and_what_no_pretraining_has_seen(make):
    architecture, batch = make()
    learnt = (".lora_", ".modules_to_save.")
    assert_learns(
        architecture,
        batch,
        lambda names: {n for n in names if any(part in n for part in learnt)},
        mode="lora",
    )


@needs_peft
@pytest.mark.parametrize("mode", ["lna", "lora"])
@pytest.mark.parametrize("architecture", ["whisper", "e2e"])
def test_a_new_ctc_head_learns_whatever_is_frozen(architecture, mode):
    assets = {"whisper": whisper_assets, "e2e": e2e_tiny}[architecture]
    architecture = assets.tiny(ctc_weight=0.3)
    rows = (
        architecture.collate(whisper_assets.features(architecture, (0.9, 1.2)))
        if architecture == "whisper"
        else None
    )
    batch = model_inputs(rows or e2e_tiny.batch(architecture, (0.9, 1.2)))
    model, _ = trainable.apply(architecture, mode=mode)
    changed, _ = changed_by_two_steps(model, batch)
    assert any("ctc_head" in name and name.endswith("weight") for name in changed), sorted(changed)


@BOTH
def test_frozen_encoder(make):
    architecture, batch = make()
    encoder = architecture.parameter_groups().patterns["encoder"]
    assert_learns(architecture, batch, lambda names: names - matching(names, *encoder), freeze_encoder=True)


@BOTH
def test_frozen_feature_encoder(make):
    architecture, batch = make()
    front = (
        *architecture.parameter_groups().patterns["feature_encoder"],
        *architecture.parameter_groups().frozen,
    )
    assert_learns(
        architecture, batch, lambda names: names - matching(names, *front), freeze_feature_encoder=True
    )


def test_freeze_takes_patterns_and_groups():
    architecture, batch = whisper()
    frozen = ("model.encoder.layers.0.*", "model.decoder.*", *architecture.parameter_groups().frozen)
    freeze = ("model.encoder.layers.0.*", "decoder")
    assert_learns(architecture, batch, lambda names: names - matching(names, *frozen), freeze=freeze)


def test_freezing_goes_before_lna():
    architecture, batch = whisper()
    expected = lambda names: matching(names, "model.decoder.*layer_norm*", "model.decoder.*_attn*")  # noqa: E731
    assert_learns(architecture, batch, expected, mode="lna", freeze_encoder=True)


@needs_peft
def test_no_adapters_where_the_weight_is_frozen_by_name():
    architecture, batch = whisper()
    expected = lambda names: {n for n in names if ".lora_" in n and "decoder" in n and "fc1" not in n}  # noqa: E731
    assert_learns(architecture, batch, expected, mode="lora", freeze=["*.fc1.*"], freeze_encoder=True)


def test_a_shared_parameter_is_found_under_its_other_name():
    architecture, _ = whisper()
    model, plan = trainable.apply(architecture, freeze=["proj_out.weight"])
    assert plan.frozen["training.freeze: proj_out.weight"] == ("model.decoder.embed_tokens.weight",)
    assert not model.get_output_embeddings().weight.requires_grad


@pytest.mark.parametrize(
    "pattern", ["model.encodr.*", "model.encoder", "MODEL.ENCODER.*", "encoders", "lora"]
)
def test_a_pattern_that_matches_nothing_is_the_users_mistake(pattern):
    architecture, _ = whisper()
    with pytest.raises(UserError) as error:
        trainable.apply(architecture, freeze=["model.decoder.*", pattern])
    message = str(error.value)
    assert message.startswith(f"training.freeze: {pattern!r} matches no parameter")
    near = message.split("nearest are ")[1].split(". Patterns")[0].split(", ")
    assert len(near) == 3 and set(near) <= dict(architecture.model.named_parameters()).keys()
    assert "groups: decoder, encoder, feature_encoder, lna" in message


@pytest.mark.parametrize(
    ("how", "group", "key"),
    [
        ({"freeze_encoder": True}, "encoder", "training.freeze_encoder"),
        ({"freeze_encoder_epochs": 1.0}, "encoder", "training.freeze_encoder_epochs"),
        ({"freeze_feature_encoder": True}, "feature_encoder", "training.freeze_feature_encoder"),
        ({"mode": "lna"}, "lna", "training.trainable: lna"),
    ],
)
def test_a_group_that_the_architecture_has_not(how, group, key):
    architecture, _ = whisper()
    groups = architecture.parameter_groups()
    known = {k: v for k, v in groups.patterns.items() if k != group}
    architecture = with_groups(architecture, replace(groups, patterns=known))
    with pytest.raises(UserError, match=f"{key}: this architecture has no {group} group"):
        trainable.apply(architecture, **how)


def test_nothing_left_to_train():
    with pytest.raises(UserError, match=r"nothing is left to train.*training\.freeze: \*"):
        trainable.apply(whisper()[0], freeze=["*"])
    with pytest.raises(UserError, match="nothing learns in the first 2 epochs"):
        trainable.apply(whisper()[0], freeze=["decoder"], freeze_encoder_epochs=2)


# Thawing


class Record(TrainerCallback):
    """What a step changed, and which optimiser states there were after it."""

    def __init__(self, plan: trainable.TrainablePlan, thaw_at: int) -> None:
        self.plan, self.thaw_at = plan, thaw_at
        self.steps: list[tuple[Names, dict[str, int]]] = []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.count = trainable.freeze_for_now(model, self.plan)

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        if state.global_step == self.thaw_at:
            assert trainable.unfreeze(model, self.plan) == self.count
        self.before = {n: p.detach().clone() for n, p in model.named_parameters()}

    def on_step_end(self, args, state, control, model=None, optimizer=None, **kwargs):
        named = {trainable.short_name(n): (p, self.before[n]) for n, p in model.named_parameters()}
        changed = {n for n, (p, before) in named.items() if not torch.equal(p, before)}
        states = getattr(optimizer, "optimizer", optimizer).state
        counts = {n: int(states[p]["step"]) for n, (p, _) in named.items() if p in states}
        self.steps.append((changed, counts))


def train(
    architecture: Architecture, model: Any, plan: trainable.TrainablePlan, folder: Any, thaw_at: int
) -> Record:
    record = Record(plan, thaw_at)
    args = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=2,
        max_steps=4,
        learning_rate=1e-2,
        weight_decay=0.1,  # would move a frozen parameter that the optimiser does not skip
        lr_scheduler_type="constant",
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        remove_unused_columns=False,
        disable_tqdm=True,
    )
    rows = whisper_assets.features(architecture, (0.5,) * 8)
    collate = lambda rows: model_inputs(architecture.collate(rows))  # noqa: E731
    Trainer(model=model, args=args, train_dataset=rows, data_collator=collate, callbacks=[record]).train()
    return record


@pytest.mark.parametrize(
    "mode", ["all", "lna", pytest.param("lora", marks=needs_peft)], ids=["all", "lna", "lora"]
)
def test_the_encoder_unfreezes_and_its_optimiser_state_starts_then(mode, tmp_path):
    architecture, _ = whisper()
    model, plan = trainable.apply(architecture, mode=mode, freeze_encoder=True, freeze_encoder_epochs=0.5)
    encoder = set(plan.unfreeze)
    assert encoder and all(name.startswith("model.encoder.") for name in encoder)
    record = train(architecture, model, plan, tmp_path, thaw_at=2)
    for step, (changed, counts) in enumerate(record.steps):
        assert changed - encoder, "the decoder learns from the start"
        if step < 2:
            assert not changed & encoder and not counts.keys() & encoder
        else:
            assert encoder - changed <= matching(encoder, *WITHOUT_GRADIENT)
            assert {counts[name] for name in encoder} == {step - 1}
    assert not {name for group in plan.frozen.values() for name in group} & set().union(
        *(changed for changed, _ in record.steps)
    )


def test_what_is_frozen_for_good_does_not_unfreeze():
    architecture, _ = whisper()
    model, plan = trainable.apply(architecture, freeze_feature_encoder=True, freeze_encoder_epochs=1)
    assert plan.unfreeze and not matching(
        set(plan.unfreeze),
        *architecture.parameter_groups().patterns["feature_encoder"],
        *architecture.parameter_groups().frozen,
    )
    trainable.freeze_for_now(model, plan)
    trainable.unfreeze(model, plan)
    conv = dict(model.named_parameters())["model.encoder.conv1.weight"]
    assert not conv.requires_grad


def test_unfreezing_reaches_the_model_inside_wrappers():
    architecture, _ = whisper()
    model, plan = trainable.apply(architecture, freeze_encoder_epochs=1)
    wrapped = torch.nn.ModuleDict({"module": model})
    count = trainable.freeze_for_now(wrapped, plan)
    encoder = {n: p for n, p in model.named_parameters() if n in plan.unfreeze}
    assert count == sum(p.numel() for p in encoder.values()) > 0
    assert not any(p.requires_grad for p in encoder.values())
    assert trainable.unfreeze(model, plan) == count
    assert all(p.requires_grad for p in encoder.values())


# Adapters


# Trap 5.
@needs_peft
@BOTH
def test_embeddings_stay_tied_with_adapters_and_after_merging(make):
    architecture, batch = make()
    base = architecture.model
    model, _ = trainable.apply(architecture, mode="lora")
    changed_by_two_steps(model, batch)
    model.eval()
    with torch.no_grad():
        learned = model(**batch).loss
    inside = base.get_output_embeddings() or base.decoder.get_output_embeddings()
    embedding = (
        base.get_decoder().get_input_embeddings() if make is whisper else base.decoder.get_input_embeddings()
    )
    assert inside.weight is embedding.weight
    merged = trainable.merge(model)
    assert type(merged) is type(base) and not [n for n, _ in merged.named_parameters() if "lora" in n]
    assert inside.weight is embedding.weight
    with torch.no_grad():
        torch.testing.assert_close(merged.eval()(**batch).loss, learned)


@needs_peft
def test_a_merged_model_is_saved_as_if_there_had_been_no_adapters(tmp_path):
    architecture, batch = whisper()
    plain = set(architecture.model.state_dict())
    model, _ = trainable.apply(architecture, mode="lora")
    changed_by_two_steps(model, batch)
    merged = trainable.merge(model)
    assert set(merged.state_dict()) == plain
    merged.save_pretrained(tmp_path)
    again = type(merged).from_pretrained(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(**batch).loss, merged.eval()(**batch).loss)


# Trap 27.
@needs_peft
def test_no_task_type_puts_arguments_into_the_forward():
    from peft import PeftModel

    architecture, batch = whisper()
    model, _ = trainable.apply(architecture, mode="lora")
    assert type(model) is PeftModel and model.peft_config["default"].task_type is None
    seen: dict[str, Any] = {}
    architecture.model.register_forward_pre_hook(lambda m, a, kwargs: seen.update(kwargs), with_kwargs=True)
    model(**batch)
    assert set(seen) == set(batch)


@needs_peft
def test_modules_without_pretrained_weights_can_learn_beside_adapters():
    architecture, batch = e2e()
    groups = architecture.parameter_groups()
    saved = replace(groups, patterns={**groups.patterns, "lora_save": ("enc_to_dec_proj",)})
    assert "enc_to_dec_proj.weight" in dict(architecture.model.named_parameters())
    model, _ = trainable.apply(with_groups(architecture, saved), mode="lora")
    changed, _ = changed_by_two_steps(model, batch)
    learned = {name for name in changed if ".lora_" not in name}
    assert {trainable.plain_name(name) for name in learned} == {
        "enc_to_dec_proj.weight",
        "enc_to_dec_proj.bias",
    }
    weight = model.enc_to_dec_proj.modules_to_save["default"].weight.detach().clone()
    torch.testing.assert_close(trainable.merge(model).enc_to_dec_proj.weight, weight)


def test_merging_a_model_without_adapters_leaves_it_alone():
    architecture, _ = whisper()
    assert trainable.merge(architecture.model) is architecture.model


@needs_peft
def test_lora_options_reach_the_adapters():
    architecture, _ = whisper()
    model, _ = trainable.apply(
        architecture, mode="lora", lora=trainable.LoraDefaults(r=3, alpha=12.0, dropout=0.25)
    )
    layer = model.model.model.encoder.layers[0].self_attn.q_proj
    assert layer.lora_A["default"].weight.shape[0] == 3
    assert layer.scaling["default"] == 4.0 and layer.lora_dropout["default"].p == 0.25


def test_lora_without_peft_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"\.\[lora\]"):
        trainable.apply(whisper()[0], mode="lora")


# The table


@BOTH
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"mode": "lna"},
        {"freeze": ("*.fc1.*", "*layers.0.*"), "freeze_feature_encoder": True},
        {"freeze_encoder": True},
        {"freeze_encoder_epochs": 2},
        {"mode": "lna", "freeze_encoder_epochs": 2, "freeze_feature_encoder": True},
        pytest.param({"mode": "lora", "freeze": ("decoder",)}, marks=needs_peft),
    ],
)
def test_the_table_adds_up(make, how):
    architecture, _ = make()
    model, plan = trainable.apply(architecture, **how)
    total, *rows = trainable.table(model, plan)
    parameters = list(model.parameters())
    assert total == trainable.Row("total", len(parameters), sum(p.numel() for p in parameters))
    assert sum(row.parameters for row in rows) == total.parameters
    assert sum(row.tensors for row in rows) == total.tensors
    learning = sum(row.parameters for row in rows if row.what.startswith("trainable"))
    assert learning == sum(p.numel() for p in parameters if p.requires_grad)
    trainable.freeze_for_now(model, plan)
    assert trainable.table(model, plan) == [total, *rows], (
        "the table says what the run does, whenever it is asked"
    )


def test_the_tables_text():
    architecture, _ = whisper()
    model, plan = trainable.apply(architecture, freeze=["*.fc1.*"], freeze_encoder_epochs=1.5)
    text = trainable.format_table(trainable.table(model, plan))
    head, total, now, later, kept, fc1 = text.splitlines()
    assert head.split() == ["tensors", "parameters", "share"]
    numbers = {n: p.numel() for n, p in model.named_parameters()}
    assert total.split() == ["total", str(len(numbers)), f"{sum(numbers.values()):,}", "100.0%"]
    assert now.startswith("trainable ") and later.startswith("trainable after 1.5 epochs")
    assert kept.startswith("frozen by the architecture: model.encoder.embed_positions.weight")
    size = sum(value for name, value in numbers.items() if ".fc1." in name)
    assert fc1.startswith("frozen by training.freeze: *.fc1.*") and f"{size:,}" in fc1.split()


@pytest.mark.parametrize("mode", ["all", "lna", pytest.param("lora", marks=needs_peft)])
def test_works_on_the_meta_device(mode):
    module = load("whisper")
    context = BuildContext(texts=lambda: iter(whisper_assets.TEXTS), meta=True)
    options = module.Options(sizes=whisper_assets.SIZES, max_label_tokens=64)
    model, plan = trainable.apply(module.build(options, context), mode=mode)
    real, same_plan = trainable.apply(whisper()[0], mode=mode)
    assert all(p.is_meta for p in model.parameters())
    assert trainable.table(model, plan) == trainable.table(real, same_plan)


# 8-bit Adam


@pytest.mark.parametrize("name", ["adamw_torch", "adamw_torch_fused", "adafactor", "adamw_torch_8bit"])
def test_other_optimisers_run_anywhere(name):
    assert trainable.optimizer_name(name, "cpu") == name


@pytest.mark.parametrize(
    "name", ["adamw_8bit", "adamw_bnb_8bit", "paged_adamw_8bit", "rmsprop_bnb", "lion_8bit"]
)
def test_bitsandbytes_needs_its_package_and_cuda(name, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    with pytest.raises(UserError, match=r"training\.optim: .*\.\[bnb\]"):
        trainable.optimizer_name(name, "cuda")
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: object())
    with pytest.raises(UserError, match="CUDA"):
        trainable.optimizer_name(name, torch.device("cpu"))
    assert trainable.optimizer_name(name, "cuda") == name
