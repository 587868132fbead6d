"""The texts of `--search`: what they mean, which are refused, and what is drawn from them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.base.errors import UserError
from training.tuning import space
from training.tuning.space import Choice, Range, parse, parse_one

KEYS = st.from_regex(r"[a-z_]{1,8}(\.[a-z_]{1,8}){0,2}", fullmatch=True)
FINITE = st.floats(-1e9, 1e9, allow_nan=False).map(lambda number: number + 0.0)
WORDS = st.from_regex(r"[a-zA-Z_][a-zA-Z_0-9]{0,6}", fullmatch=True)
ATOMS = st.one_of(WORDS, st.integers(-99, 99).map(str), st.just("null"), st.just("[a, b]"), st.just("'x,y'"))


@st.composite
def ranges(draw: st.DrawFn) -> Range:
    log = draw(st.booleans())
    if draw(st.booleans()):
        low = draw(st.integers(1 if log else -1000, 1000))
        step = None if log else draw(st.none() | st.integers(1, 50))
        high = low + draw(st.integers(1, 40)) * (step or 1)
        return Range(draw(KEYS), low, high, step, log, whole=True)
    low, high = sorted(draw(st.tuples(FINITE, FINITE).filter(lambda two: two[0] != two[1])))
    if log:
        low, high = sorted((abs(low) + 1e-6, abs(high) + 1e-6))
    if low == high:
        high = low * 2
    return Range(draw(KEYS), low, high, None, log)


choices = st.builds(
    Choice, KEYS, st.lists(ATOMS, min_size=2, max_size=5, unique=True).map(tuple).filter(lambda t: t)
)


@settings(deadline=None)
@given(st.one_of(ranges(), choices))
def test_what_is_written_reads_as_the_same(one: space.Dimension) -> None:
    assert parse_one(str(one)) == one


@settings(deadline=None)
@given(st.text(max_size=30), KEYS)
def test_any_text_is_understood_or_refused_in_words(text: str, key: str) -> None:
    for whole in (text, f"{key}={text}", f"{key}=log:{text}", f"{key}=choice:{text}", f"{key}=1:{text}"):
        with contextlib.suppress(UserError):
            parse([whole])


@settings(deadline=None)
@given(st.one_of(ranges(), choices), st.integers(0, 2**32 - 1))
def test_what_is_drawn_lies_in_the_range_and_is_held_by_it(one: space.Dimension, seed: int) -> None:
    optuna = pytest.importorskip("optuna", reason="the extra tune is not installed")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    value = study.ask({one.key: one.distribution()}).params[one.key]
    if isinstance(one, Choice):
        assert value in one.texts
    else:
        assert one.low <= value <= one.high
        assert isinstance(value, int) == one.whole
    assert one.override(value).startswith(f"{one.key}=")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("training.learning_rate=log:1e-4:3e-3", Range("training.learning_rate", 1e-4, 3e-3, log=True)),
        ("model.dropout=0:0.3", Range("model.dropout", 0.0, 0.3)),
        ("model.num_encoder_layers=2:6", Range("model.num_encoder_layers", 2, 6, whole=True)),
        ("model.d_model=64:256:32", Range("model.d_model", 64, 256, 32, whole=True)),
        ("model.dropout=0:0.3:0.1", Range("model.dropout", 0.0, 0.3, 0.1)),
        ("training.batch_size=choice:8, 16,32", Choice("training.batch_size", ("8", "16", "32"))),
        ("training.freeze=choice:[encoder, decoder],[]", Choice("training.freeze", ("[encoder, decoder]", "[]"))),
    ],
)  # fmt: skip
def test_examples(text: str, found: space.Dimension) -> None:
    assert parse_one(text) == found


@pytest.mark.parametrize("text", ["training.max_steps=30", "data.registry=sqlite:///x.db", "model.name=C:/x"])
def test_any_other_value_is_for_every_trial(text: str) -> None:
    assert parse([text]) == ([], [text])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("training.learning_rate", "expected KEY="),
        ("=1:2", "expected KEY="),
        ("a..b=1:2", "expected KEY="),
        ("a.b=2:1", "2 is not below 1"),
        ("a.b=1:1", "1 is not below 1"),
        ("a.b=0:x", "'x' is not a number"),
        ("a.b=1:inf", "'inf' is not a number"),
        ("a.b=log:0:1", "has no logarithm"),
        ("a.b=log:1e-4", "expected KEY="),
        ("a.b=log:1:8:2", "expected KEY="),
        ("a.b=1:2:3:4", "expected KEY="),
        ("a.b=0:1:0.3", "steps of 0.3 do not lead from 0 to 1"),
        ("a.b=0:1:0", "steps of 0 do not lead"),
        ("a.b=choice:8", "two values or more"),
        ("a.b=choice:8,,9", "none empty"),
        ("a.b=choice:8,8", "is there twice"),
        ("a.b=choice:[8,9", "two values or more"),
        ("a.b=choice:8,]9", "is not valid YAML"),
    ],
)
def test_a_mistake_is_told(text: str, said: str) -> None:
    with pytest.raises(UserError, match=r"^--search ") as caught:
        parse([text])
    assert said in str(caught.value) and text in str(caught.value)


def test_a_key_is_searched_once() -> None:
    with pytest.raises(UserError, match=r"a\.b is searched twice"):
        parse(["a.b=1:2", "a.b=choice:1,2"])


def test_whole_ends_mean_fractions_where_the_configuration_has_one() -> None:
    dimensions, _ = parse(["a.x=0:1", "a.y=0:1", "a.z=0:1"])
    found = space.fractions_where_the_key_has_them(dimensions, {"a": {"x": 0.0, "y": 3, "z": None}})
    assert [one.whole for one in found] == [False, True, True]


def test_the_configurations_own_values_are_held_or_not() -> None:
    dimensions, _ = parse(["a.x=0.0:0.3:0.1", "a.y=1:8", "a.z=choice:null,[b]"])
    own = {"x": 0.2, "y": 8, "z": ["b"]}
    assert space.holding(dimensions, {"a": own}) == {"a.x": 0.2, "a.y": 8, "a.z": "[b]"}
    for key, other in (("x", 0.25), ("x", 0.4), ("x", True), ("y", 9), ("y", None), ("z", ["c"])):
        assert space.holding(dimensions, {"a": {**own, key: other}}) is None
