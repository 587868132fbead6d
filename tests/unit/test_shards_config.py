"""`data.shards` in a configuration: what it accepts, what contradicts it, which sampler and source come of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from shard_assets import folder

from training.base.errors import UserError
from training.config.load import config_from
from training.data.sampler import DurationBatchSampler
from training.data.sources.shards.order import ShardBatchSampler
from training.engine.run import open_split


def config(shards: dict[str, Any] | None, evaluated: str = "no", **data: Any) -> Any:
    return config_from({"training": {"eval_strategy": evaluated}, "data": {"shards": shards, **data}})


def test_one_folder_or_several(tmp_path: Path) -> None:
    for name in ("train", "train_normal", "val_small"):
        folder(tmp_path / name, {"shard_000000": 3}, domain=None if name == "train" else "normal")
    both = [str(tmp_path / "train"), str(tmp_path / "train_normal")]
    made = config(
        {
            "train": both,
            "dev": str(tmp_path / "val_small"),
            "domains": {"train": "dyslexic"},
            "balance": {"dyslexic": 2},
        }
    )
    train = open_split(made, "train")
    assert train.column("domain") == ["dyslexic"] * 3 + ["normal"] * 3
    assert len(open_split(made, "dev")) == 3
    assert open_split(made, "test") is None
    sampler = made.data.source.batches(train)(batch_size=2)
    assert isinstance(sampler, ShardBatchSampler)
    assert (sampler.samples(), sampler.shuffle_buffer) == (9, 5000)
    assert type(config(None, train="x.csv").data.source.batches(train)(batch_size=2)) is DurationBatchSampler


def test_the_resolved_configuration_says_the_same() -> None:
    made = config(
        {"train": "a/train", "domains": {"train": "x"}, "default_domain": "y", "balance": {"x": 1.5}}
    )
    assert config_from(made.as_dict()).data.shards == made.data.shards
    assert made.data.shards.train == (Path("a/train"),)


@pytest.mark.parametrize(
    ("shards", "data", "said"),
    [
        ({"train": []}, {}, "data.shards.train"),
        ({"dev": "b"}, {}, "data.shards.train"),
        ({"train": "a", "balance": {"x": 0}}, {}, "data.shards.balance.x"),
        ({"train": "a", "shuffle_buffer": 0}, {}, "data.shards.shuffle_buffer"),
        ({"train": "a"}, {"registry": "r.db"}, "data.registry: data.shards is set too; choose one of them"),
        ({"train": "a"}, {"manifest": "m.csv"}, "data.manifest: data.shards is set too; choose one of them"),
        (
            {"train": "r/train", "test": "r/val", "domains": {"trian": "x"}},
            {},
            r"data.shards.domains.trian: no folder of data.shards is called so \(there are: train, val\)",
        ),
    ],
)
def test_what_cannot_be_meant(shards: dict[str, Any], data: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        config(shards, **data)


def test_a_dev_split_is_needed_where_it_is_scored() -> None:
    with pytest.raises(UserError, match=r"no dev split to score \(data.shards.dev is empty\)"):
        config({"train": "a"}, evaluated="epoch")
    assert config({"train": "a", "dev": "b"}, evaluated="epoch", dev=None).data.shards.dev == (Path("b"),)
