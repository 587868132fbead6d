"""What a ``data:`` block names as its source, asked without opening anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from training.base.errors import UserError
from training.config.blocks import Data
from training.config.load import config_from
from training.data.sources.configured import KINDS
from training.data.sources.source import KEYS, Missing
from training.registry.data_source import RegistrySource

SPLITTER = "polyvox split"
NAMED: dict[str, dict[str, Any]] = {
    "table": {"train": "a/train.csv"},
    "manifest": {"manifest": "a/all.csv"},
    "dataset": {"dataset": {"path": "org/name", "split": {"dev": "validation[:5%]"}}},
    "registry": {"registry": "r.db", "version": "v3"},
    "shards": {"shards": {"train": ["s/one", "s/two"], "dev": ["s/dev"]}},
    "librispeech": {
        "librispeech": {"root": "l", "train": ["train-clean-5", "train-clean-6"], "dev": ["dev-clean"]}
    },
}


def source(name: str) -> Any:
    return Data.model_validate(NAMED[name]).source


def test_every_key_that_names_a_source_has_its_class() -> None:
    assert {*KINDS, RegistrySource.key} == set(KEYS)
    assert {name: source(name).key for name in KEYS} == {name: name for name in KEYS}


@pytest.mark.parametrize(
    ("name", "kind", "told"),
    [
        ("table", "table", "a/train.csv"),
        ("manifest", "table", "a/all.csv"),
        ("dataset", "dataset", "org/name, split train"),
        ("registry", "registry", "r.db, version v3"),
        ("shards", "shards", "s/one, s/two"),
        ("librispeech", "librispeech", "LibriSpeech, train-clean-5, train-clean-6"),
    ],
)
def test_a_source_is_chosen_and_described_by_its_key(name: str, kind: str, told: str) -> None:
    assert (source(name).kind, source(name).describe("train")) == (kind, told)
    assert source(name).database == ("r.db" if name == "registry" else None)


def test_what_is_missing_is_named_with_what_makes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    missing = {name: source(name).missing("train") for name in NAMED}
    assert missing == {
        "table": Missing(Path("a/train.csv"), SPLITTER),
        "manifest": Missing(Path("a/all.csv"), SPLITTER),
        "dataset": None,
        "registry": None,
        "shards": Missing(Path("s/one"), "polyvox shards write"),
        "librispeech": Missing(Path("l/LibriSpeech/train-clean-5"), "polyvox download librispeech"),
    }
    for folder in ("s/one", "s/two", "l/LibriSpeech/train-clean-5", "a"):
        Path(folder).mkdir(parents=True)
    Path("a/all.csv").touch()
    assert source("shards").missing("train") is None and source("manifest").missing("dev") is None
    assert source("librispeech").missing("train") == Missing(
        Path("l/LibriSpeech/train-clean-6"), "polyvox download librispeech"
    )
    assert Data(dev=None).source.missing("dev") == Missing(None, SPLITTER)


def test_settings_of_each_source_that_contradict_each_other_are_found_without_opening_it() -> None:
    without_dev: dict[str, dict[str, Any]] = {
        "data.dev is null": {"dev": None},
        "data.shards.dev is empty": {"shards": {"train": ["s"]}},
        "data.librispeech.dev is empty": {"librispeech": {"train": ["train-clean-5"]}},
    }
    for named, given in without_dev.items():
        (found,) = Data.model_validate(given).source.check(scored=True)
        assert named in found[1]
        assert Data.model_validate(given).source.check(scored=False) == []
    assert source("dataset").check(scored=True) == source("registry").check(scored=True) == []


def test_two_sources_are_refused() -> None:
    data = {**NAMED["registry"], **NAMED["dataset"]}
    model = {"type": "whisper", "name": "x"}
    with pytest.raises(UserError, match=r"data\.registry: data\.dataset is set too; choose one"):
        config_from({"model": model, "data": data})
