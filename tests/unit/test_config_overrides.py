"""``key=value``: whatever is written, it is the value that was meant or a message; never a crash."""

from __future__ import annotations

import json
import string
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.base.errors import UserError
from training.config.load import config_from
from training.config.schema import Config
from training.config.source import read_override

KEYS = st.lists(st.text(string.ascii_letters + "_0123456789", min_size=1, max_size=8), min_size=1, max_size=4)
TEXTS = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Z"), exclude_characters="$"), max_size=12
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS.filter(bool), inner, max_size=3),
    max_leaves=6,
)
WRITTEN = st.text(st.sampled_from("abtrue.=:{}[]\"'$#&*!|>-?,1e+ \n\tđ\x00") | st.characters(), max_size=30)


def at(data: Any, keys: list[str]) -> Any:
    for key in keys:
        data = data[key]
    return data


@given(keys=KEYS, value=VALUES)
def test_json_values_arrive_as_they_are(keys: list[str], value: Any) -> None:
    layer = read_override(f"{'.'.join(keys)}={json.dumps(value, ensure_ascii=False)}")
    assert layer.mistakes == []
    found = at(layer.data, keys)
    assert found == value
    assert type(found) is type(value)
    assert {str(place) for place in layer.places.values()} == {"command line"}


@given(text=WRITTEN)
def test_any_text_is_read_or_told(text: str) -> None:
    layer = read_override(text)
    assert bool(layer.data) != bool(layer.mistakes)


@settings(max_examples=60, deadline=None)
@given(
    text=st.sampled_from(["", "training.seed=", "training.freeze=", "paths.splits_dir=", "model="]).flatmap(
        lambda start: WRITTEN.map(start.__add__)
    )
)
def test_any_override_makes_a_configuration_or_a_user_error(text: str) -> None:
    try:
        assert isinstance(config_from({}, [text]), Config)
    except UserError as error:
        assert str(error)


@given(
    rate=st.floats(min_value=1e-12, max_value=10), form=st.sampled_from(["{!r}", "{:e}", "{:g}", "{:.12f}"])
)
@settings(deadline=None, max_examples=50)
def test_numbers_in_every_spelling(rate: float, form: str) -> None:
    text = form.format(rate)
    assert config_from({}, [f"training.learning_rate={text}"]).training.learning_rate == float(text)


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("training.freeze=[encoder, 'model.*.bias']", "freeze", ("encoder", "model.*.bias")),
        ("training.freeze=[]", "freeze", ()),
        ("training.learning_rate=1e-4", "learning_rate", 1e-4),
        ("training.max_steps=-1", "max_steps", -1),
        ("training.fp16=null", "fp16", None),
        ("training.eval_strategy=no", "eval_strategy", "no"),
        ("training.report_to=[tensorboard, wandb]", "report_to", ("tensorboard", "wandb")),
        (" training.seed = 3", "seed", 3),
    ],
)
def test_values_of_every_kind(override: str, key: str, value: Any) -> None:
    base = {"training": {"freeze": ["x", "y"], "fp16": True}}
    assert getattr(config_from(base, [override]).training, key) == value


def test_a_mapping_is_merged_and_the_last_override_wins() -> None:
    base = {"training": {"trainable": "lora", "lora": {"r": 4, "alpha": 8}}}
    lora = config_from(
        base, ["training.lora={r: 2}", "training.lora.dropout=0.5", "training.lora.dropout=0.25"]
    ).training.lora
    assert lora is not None
    assert (lora.r, lora.alpha, lora.dropout) == (2, 8, 0.25)


@pytest.mark.parametrize(
    "text", ["seed", "=3", ".seed=3", "training..seed=3", "training.seed=", "training.seed=[1", ""]
)
def test_what_is_no_override_is_told(text: str) -> None:
    with pytest.raises(UserError, match=r"^command line: "):
        config_from({}, [text])
