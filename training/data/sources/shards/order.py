"""The order of an epoch over shards: shard after shard, shuffled within reach, in batches of like length."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from training.base.errors import UserError
from training.data.sampler import DurationBatchSampler, FullContextBatch
from training.data.sources.shards.source import ShardSource


class ShardBatchSampler(DurationBatchSampler):
    """`DurationBatchSampler` whose samples come almost in the order in which they lie on the disk.

    Each epoch permutes the shards, then moves every sample by at most ``shuffle_buffer`` places, as a buffer of so
    many samples does that gives out a random one: no more shards are read at a time than such a buffer spans. The
    samples then go to the buckets of their durations, and each bucket that holds a batch gives it out. Buckets hold
    as many samples in every epoch, so the number of batches is always the same.

    ``balance`` maps a domain to how often an epoch has each of its samples: 3 is three times; 2.5 is twice, and
    once more for half of them, drawn anew for every epoch. Domains that it does not name count 1, and without it
    every sample comes once. Everything is drawn from the seed and the epoch, alike on all ranks.
    """

    def __init__(
        self,
        durations: Sequence[float] | np.ndarray,
        shards: Sequence[int] | np.ndarray,
        *,
        domains: Sequence[str | None] = (),
        balance: Mapping[str, float] | None = None,
        shuffle_buffer: int = 5000,
        **options: Any,
    ) -> None:
        super().__init__(durations, **options)
        self.shards = np.asarray(shards, dtype=np.int64)
        self.shuffle_buffer = shuffle_buffer
        self.bucket_of = np.empty(len(self.durations), dtype=np.int64)
        for number, bucket in enumerate(self.buckets):
            self.bucket_of[bucket] = number
        self.whole, self.parts = _shares(self.bucket_of, domains, balance or {})
        if not len(self):
            raise UserError("data.shards.balance: so few samples are left that an epoch has none")

    @classmethod
    def of(cls, rows: ShardSource, **options: Any) -> ShardBatchSampler:
        """The sampler over a source's shards and domains."""
        return cls(rows.durations, rows.shard_numbers, domains=rows.column("domain"), **options)

    def stream(self, rng: np.random.Generator) -> np.ndarray:
        """The epoch's samples in the order in which they are read, int64 ``[samples]``.

        A sample that comes several times comes with as many passes over its shard, which lie anywhere in the epoch.
        """
        repeats = self.whole.copy()
        for members, count in self.parts:
            repeats[rng.choice(members, count, replace=False)] += 1
        passes = [np.flatnonzero(repeats > turn) for turn in range(int(repeats.max()))]
        rows, count = np.concatenate(passes), int(self.shards.max()) + 1
        turns = np.repeat(np.arange(len(passes)), [len(one) for one in passes])
        places = rng.permutation(len(passes) * count)[turns * count + self.shards[rows]]
        rows = rows[np.argsort(places, kind="stable")]
        delay = self.shuffle_buffer * rng.random(len(rows))
        return rows[np.argsort(np.arange(len(rows)) + delay, kind="stable")]

    def drawn(self, rng: np.random.Generator) -> list[list[int]]:
        """The epoch's batches, each where its last sample stands in the stream."""
        stream = self.stream(rng)
        buckets = self.bucket_of[stream]
        apart = self.full_counts(np.bincount(buckets, minlength=len(self.buckets)))
        found: list[tuple[int, list[int]]] = []
        full: list[int] = []
        for number, bucket in enumerate(self.buckets):
            places, rows = np.flatnonzero(buckets == number), self.rows_in(bucket)
            if apart[number]:
                chosen = rng.choice(places, apart[number], replace=False)
                full += chosen.tolist()
                places = np.setdiff1d(places, chosen)
            cuts = (places[i : i + rows] for i in range(0, len(places), rows))
            found += [(int(cut[-1]), stream[cut].tolist()) for cut in cuts]
        found += [
            (batch[-1], FullContextBatch(stream[batch].tolist())) for batch in self.full_batches(sorted(full))
        ]
        return [batch for _, batch in sorted(found, key=itemgetter(0))]

    def samples(self) -> int:
        """How many samples an epoch has, repeats included."""
        return int(self.whole.sum()) + sum(count for _, count in self.parts)

    def __len__(self) -> int:
        counts = np.bincount(self.bucket_of, weights=self.whole, minlength=len(self.buckets)).astype(int)
        for members, count in self.parts:
            counts[self.bucket_of[members[0]]] += count
        return -(-self.count(counts.tolist()) // self.world)


Parts = list[tuple[np.ndarray, int]]


def _shares(
    bucket_of: np.ndarray, domains: Sequence[str | None], balance: Mapping[str, float]
) -> tuple[np.ndarray, Parts]:
    """How often each sample comes at least, int64 ``[samples]``, and of which of them how many come once more.

    The latter per domain and bucket, so that every epoch has the same number of samples in each bucket.
    """
    whole = np.ones(len(bucket_of), dtype=np.int64)
    if not balance:
        return whole, []
    names = np.array([name or "" for name in domains])
    if unknown := sorted(set(balance) - set(names)):
        raise UserError(
            f"data.shards.balance: no sample of the training split has the domain {unknown[0]!r} (there are: "
            f"{', '.join(sorted(set(names)))})"
        )
    parts: Parts = []
    for domain, factor in balance.items():
        rows = np.flatnonzero(names == domain)
        whole[rows] = math.floor(factor)
        counts = np.bincount(bucket_of[rows])
        shares = _apportioned(counts, factor - math.floor(factor))
        parts += [
            (rows[bucket_of[rows] == bucket], int(share)) for bucket, share in enumerate(shares) if share
        ]
    return whole, parts


def _apportioned(counts: np.ndarray, share: float) -> np.ndarray:
    """``share`` (below 1) of the sum of ``counts``, rounded, as whole numbers in their proportion."""
    exact = counts * share
    result = np.floor(exact).astype(np.int64)
    missing = math.floor(counts.sum() * share + 0.5) - int(result.sum())
    result[np.argsort(result - exact, kind="stable")[:missing]] += 1
    return result
