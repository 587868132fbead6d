"""The order over shards: every sample exactly once over ranks and workers, near-sequential, balanced, repeatable."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_assets import RATE, folder
from torch.utils.data import DataLoader

from training.base.errors import UserError
from training.data.dataset import SpeechDataset
from training.data.example import Example
from training.data.sampler import DurationBatchSampler, EpochBatches, Supervised
from training.data.sources.shards.order import ShardBatchSampler
from training.data.sources.shards.source import load_shards

corpora = st.lists(st.lists(st.floats(0.1, 30), max_size=15), min_size=1, max_size=9).filter(
    lambda shards: sum(map(len, shards)) >= 4
)
bounds = st.tuples(st.sampled_from([None, 10.0, 60.0]), st.integers(1, 9))


def laid_out(corpus: list[list[float]]) -> tuple[list[float], list[int]]:
    return [s for shard in corpus for s in shard], [i for i, shard in enumerate(corpus) for _ in shard]


def per_rank(world: int, epoch: int, *args: Any, **options: Any) -> list[list[list[int]]]:
    found = []
    for rank in range(world):
        sampler = ShardBatchSampler(*args, rank=rank, world=world, **options)
        sampler.set_epoch(epoch)
        found.append(list(sampler))
        assert len(found[-1]) == len(sampler)
    return found


@given(
    corpora,
    bounds,
    st.integers(1, 4),
    st.integers(0, 3),
    st.sampled_from([1, 5, 5000]),
    st.sampled_from([0.0, 0.2]),
)
@settings(max_examples=80, deadline=None)
def test_every_sample_once_per_epoch_over_all_ranks(corpus, bound, world, epoch, buffer, share):
    seconds, shards = laid_out(corpus)
    options = {"max_seconds": bound[0], "batch_size": bound[1], "shuffle_buffer": buffer, "full_share": share}
    flat = [i for rank in per_rank(world, epoch, seconds, shards, **options) for batch in rank for i in batch]
    assert sorted(i for i in flat if i >= 0) == list(range(len(seconds)))
    assert sum(i < 0 for i in flat) < world


@given(corpora, bounds)
@settings(max_examples=60, deadline=None)
def test_batches_are_as_many_as_without_shards_and_hold_as_much(corpus, bound):
    seconds, shards = laid_out(corpus)
    options = {"max_seconds": bound[0], "batch_size": bound[1]}
    sampler, plain = ShardBatchSampler(seconds, shards, **options), DurationBatchSampler(seconds, **options)
    assert len(sampler) == len(plain) == len(sampler.batches())
    for batch in sampler:
        assert len(batch) <= bound[1]
        if bound[0] is not None and len(batch) > 1:
            assert len(batch) * max(seconds[i] for i in batch) <= bound[0] + 1e-6


factors = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.sampled_from([0.25, 0.5, 1, 1.7, 2, 3]))


@given(corpora, factors, st.integers(1, 3), st.data())
@settings(max_examples=80, deadline=None)
def test_balance_repeats_exactly_and_as_often_in_every_epoch(corpus, balance, world, data):
    seconds, shards = laid_out(corpus)
    domains = data.draw(st.lists(st.sampled_from("abc"), min_size=len(seconds), max_size=len(seconds)))
    balance = {name: factor for name, factor in balance.items() if name in domains}
    wanted = {name: count * balance.get(name, 1) for name, count in Counter(domains).items()}
    options = {"batch_size": 3, "domains": domains, "balance": balance}
    if sum(int(n + 0.5) for n in wanted.values()) == 0:
        with pytest.raises(UserError, match=r"data\.shards\.balance: so few samples"):
            ShardBatchSampler(seconds, shards, **options)
        return
    lengths = set()
    for epoch in range(4):
        ranks = per_rank(world, epoch, seconds, shards, **options)
        lengths |= {len(rank) for rank in ranks}
        times = Counter(i for rank in ranks for batch in rank for i in batch if i >= 0)
        for i, domain in enumerate(domains):
            assert times[i] in {int(balance.get(domain, 1)), -int(-balance.get(domain, 1) // 1)}
        for name, count in wanted.items():
            assert sum(times[i] for i, domain in enumerate(domains) if domain == name) == int(count + 0.5)
    assert len(lengths) == 1
    assert sum(times.values()) == ShardBatchSampler(seconds, shards, **options).samples()


def test_epochs_differ_and_repeat():
    sampler = ShardBatchSampler(np.linspace(1, 10, 60), np.arange(60) // 10, batch_size=4, seed=3)
    first = list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != first
    sampler.set_epoch(0)
    assert list(sampler) == first
    other = ShardBatchSampler(np.linspace(1, 10, 60), np.arange(60) // 10, batch_size=4, seed=4)
    assert list(other) != first


@pytest.mark.parametrize(("buffer", "most"), [(1, 1), (200, 4), (1000, 12)])
def test_few_shards_are_read_at_a_time(buffer, most):
    """A stretch of the stream touches as many shards as its length and the buffer span, and one at either end."""
    shards = np.arange(10_000) // 100
    sampler = ShardBatchSampler(np.ones(10_000), shards, batch_size=8, shuffle_buffer=buffer)
    stream = sampler.stream(np.random.default_rng(1))
    assert sorted(stream.tolist()) == list(range(10_000))
    at_once = [len(set(shards[stream[at : at + 50]].tolist())) for at in range(0, 10_000, 100)]
    assert max(at_once) <= most
    order = list(dict.fromkeys(shards[stream].tolist()))
    assert order != sorted(order)


def test_a_sample_moves_by_the_buffer_at_most():
    sampler = ShardBatchSampler(np.ones(5000), np.zeros(5000, int), batch_size=8, shuffle_buffer=300)
    stream = sampler.stream(np.random.default_rng(0))
    moved = np.abs(stream - np.arange(5000))
    assert moved.max() <= 300
    assert moved.mean() > 50


def test_repeats_of_a_sample_lie_apart():
    """Three passes over a shard are three places in the epoch, not three neighbours."""
    sampler = ShardBatchSampler(
        np.ones(2000), np.arange(2000) // 100, batch_size=8, shuffle_buffer=100,
        domains=["x"] * 2000, balance={"x": 3},
    )  # fmt: skip
    stream = sampler.stream(np.random.default_rng(0))
    gaps = [np.diff(np.flatnonzero(stream == i)).mean() for i in range(0, 2000, 50)]
    assert np.median(gaps) > 500


def test_fractions_are_drawn_anew_for_every_epoch():
    options = {"batch_size": 4, "domains": ["x"] * 100, "balance": {"x": 0.5}}
    sampler = ShardBatchSampler(np.linspace(1, 3, 100), np.arange(100) // 20, **options)
    drawn = []
    for epoch in range(6):
        sampler.set_epoch(epoch)
        drawn.append({i for batch in sampler for i in batch})
        assert len(drawn[-1]) == 50
    assert set().union(*drawn) > drawn[0] and len(set().union(*drawn)) > 90


def test_a_domain_that_nobody_has_cannot_be_balanced():
    with pytest.raises(
        UserError, match=r"no sample .* has the domain 'dyslexik' \(there are: dyslexic, normal\)"
    ):
        ShardBatchSampler(
            [1.0, 2.0], [0, 0], batch_size=1, domains=["normal", "dyslexic"], balance={"dyslexik": 2}
        )


def encode(example: Example, waveform: np.ndarray) -> dict[str, Any]:
    return {"id": example.id, "labels": {"transcribe": [1, 2, 3]}, "prompt": {"transcribe": 1}}


def names(features: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(one["id"], len(one["labels"]["transcribe"])) for one in features]


@pytest.mark.parametrize(("world", "workers", "shards"), [(2, 3, 2), (3, 2, 7), (1, 4, 1)])
def test_real_loaders_give_every_sample_once_over_ranks_and_workers(
    tmp_path: Path, world: int, workers: int, shards: int
) -> None:
    """Also with more workers than shards; fillers carry no labels beyond the prompt."""
    sizes = {f"shard_{i:06}": 7 + i for i in range(shards)}
    source = load_shards(folder(tmp_path, sizes, domain="a"))
    data = Supervised(SpeechDataset(source, encode, RATE))
    seen = []
    for rank in range(world):
        sampler = ShardBatchSampler.of(source, batch_size=3, shuffle_buffer=6, rank=rank, world=world)
        loader = DataLoader(data, batch_sampler=sampler, num_workers=workers, collate_fn=names)
        seen += [one for batch in loader for one in batch]
    assert sorted(name for name, labels in seen if labels == 3) == sorted(source.ids)
    assert len(seen) - len(source) == sum(labels == 1 for _, labels in seen) < world


def test_skipping_batches_goes_on_at_the_next_sample_with_augmentation_too(tmp_path: Path) -> None:
    """What the Trainer does on resume: the batches that were had are skipped by their number."""
    source = load_shards(folder(tmp_path, {"shard_000000": 9, "shard_000001": 8}, domain="a"))
    options = {"batch_size": 2, "shuffle_buffer": 5, "balance": {"a": 1.5}}
    whole, again = (EpochBatches(ShardBatchSampler.of(source, **options)) for _ in range(2))
    for one in (whole, again):
        one.set_epoch(2)
    assert list(again)[5:] == list(whole)[5:] and all(epoch == 2 for batch in whole for _, epoch in batch)
