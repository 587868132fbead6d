"""Batches by total duration, drawn from duration buckets, the same for every rank, resumable."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from typing import Any

import numpy as np
from torch.utils.data import Dataset, Sampler

from training.data.batch_policy import FULL_CONTEXT

ALIKE = 16
"""Batches of a bucket that are cut out of one stretch of clips sorted by length."""


class FullContextBatch(list[Any]):
    """A batch whose clips are padded to the model's whole context, however long they are."""


class DurationBatchSampler(Sampler[list[int]]):
    """Lists of indices whose clips are of similar length.

    Utterances are sorted into ``buckets`` of equal count by duration (NeMo's and lhotse's bucketing). In
    each bucket a batch takes as many clips as fit ``max_seconds`` when each is as long as the bucket's
    longest, and at most ``batch_size``, of which at least one must be given. So the number of batches is the same in
    every epoch, which a learning-rate schedule needs. Inside a bucket the shuffled clips are sorted by length stretch by
    stretch, as transformers groups by length over a whole corpus: a batch pads little, and what shares it changes from
    epoch to epoch.

    Each rank takes every ``world``-th batch of one list that all ranks draw alike from ``seed`` and the
    epoch. Where the list does not divide, ranks that would run dry get a filler: a batch of one index below
    zero, which `Supervised` turns into a clip without labels. So no utterance is left out or counted twice,
    and the losses are those of one process.

    A ``full_share`` of the clips of each bucket, drawn anew for every epoch, comes in batches of their own, of
    ``full_rows`` clips of any length: `FullContextBatch`, which is padded to the model's whole context.
    """

    def __init__(
        self,
        durations: Sequence[float] | np.ndarray,
        *,
        max_seconds: float | None = None,
        batch_size: int | None = None,
        full_share: float = 0.0,
        full_rows: int = 1,
        buckets: int = 8,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if max_seconds is None and batch_size is None:
            raise ValueError("give max_seconds, batch_size or both")
        self.durations = np.asarray(durations, dtype=np.float64)
        if len(self.durations) < world:
            raise ValueError(f"{len(self.durations)} utterances cannot feed {world} processes")
        self.max_seconds, self.batch_size = max_seconds, batch_size
        self.full_share, self.full_rows = full_share, full_rows
        self.seed, self.rank, self.world = seed, rank, world
        self.epoch = 0
        order = np.argsort(self.durations, kind="stable")
        # Each bucket ends in a smaller batch: a corpus of few batches is not worth many buckets.
        worthwhile = len(order) // (4 * self.rows_in(order[len(order) // 2 :][:1]))
        self.buckets = np.array_split(order, max(1, min(buckets, worthwhile)))

    @property
    def batch_sampler(self) -> DurationBatchSampler:
        """Itself: transformers looks for ``set_epoch`` one level down, where accelerate would have wrapped it."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration gives."""
        self.epoch = epoch

    def rows_in(self, bucket: np.ndarray) -> int:
        """Clips in one batch of this bucket, at least one."""
        limits = [len(self.durations)] if self.batch_size is None else [self.batch_size]
        if self.max_seconds is not None:
            limits.append(int(self.max_seconds / max(self.durations[bucket[-1]], 1e-3)))
        return max(1, min(limits))

    def shapes(self) -> list[tuple[int, float, float]]:
        """Of each bucket: clips in a batch, seconds of its longest and of its shortest clip."""
        ends = [(float(self.durations[one[-1]]), float(self.durations[one[0]])) for one in self.buckets]
        return [(self.rows_in(bucket), *pair) for bucket, pair in zip(self.buckets, ends, strict=True)]

    def batches(self, epoch: int | None = None) -> list[list[int]]:
        """The batches of all ranks, in order; of the epoch that is set, unless another is named."""
        batches = self.drawn(np.random.default_rng([self.seed, self.epoch if epoch is None else epoch]))
        missing = -len(batches) % self.world
        return batches + [[filler(int(self.buckets[0][0]))]] * missing

    def drawn(self, rng: np.random.Generator) -> list[list[int]]:
        """The epoch's batches as ``rng`` draws them."""
        batches: list[list[int]] = []
        full: list[int] = []
        for bucket, apart in zip(self.buckets, self.full_counts(map(len, self.buckets)), strict=True):
            rows = self.rows_in(bucket)
            drawn = rng.permutation(bucket)
            full += drawn[:apart].tolist()
            shuffled = self._alike(drawn[apart:], rows).tolist()
            batches += [shuffled[i : i + rows] for i in range(0, len(shuffled), rows)]
        if full:
            batches += self.full_batches([full[i] for i in rng.permutation(len(full))])
        return [batches[i] for i in rng.permutation(len(batches))]

    def full_counts(self, counts: Iterable[int]) -> list[int]:
        """How many of so many clips of each bucket are padded to the whole context: the same in every epoch."""
        upto = np.cumsum([0, *counts])
        apart = np.floor(upto * self.full_share + 0.5).astype(np.int64)
        if self.full_share and not apart[-1]:
            apart[-1] = 1  # of the last bucket, whose clips are the longest
        return np.diff(apart).tolist()

    def full_batches(self, clips: Sequence[int]) -> list[list[int]]:
        """These clips in batches that are padded to the whole context."""
        return [FullContextBatch(clips[i : i + self.full_rows]) for i in range(0, len(clips), self.full_rows)]

    def count(self, counts: Sequence[int]) -> int:
        """Batches of an epoch in which each bucket has so many clips."""
        apart = self.full_counts(counts)
        kept = zip(counts, apart, map(self.rows_in, self.buckets), strict=True)
        return sum(-(-(clips - full) // rows) for clips, full, rows in kept) + -(
            -sum(apart) // self.full_rows
        )

    def _alike(self, shuffled: np.ndarray, rows: int) -> np.ndarray:
        """Sorted by length within stretches of `ALIKE` batches, of a quarter of the bucket where it has few."""
        stretch = rows * max(1, min(ALIKE, -(-len(shuffled) // rows) // 4))
        return shuffled[np.lexsort((self.durations[shuffled], np.arange(len(shuffled)) // stretch))]

    def longest(self, epochs: int = 1) -> float:
        """Seconds of the longest utterance, whatever the epochs."""
        return float(self.durations.max())

    def __iter__(self) -> Iterator[list[int]]:
        yield from self.batches()[self.rank :: self.world]

    def __len__(self) -> int:
        return -(-self.count([len(bucket) for bucket in self.buckets]) // self.world)


EPOCHS_LOOKED_AT = 3
"""Number of epochs from which the length of joined utterances is estimated."""


@dataclass(frozen=True)
class Joining:
    """Which clips of a batch become one utterance: in ``prob`` of the batches two to ``most`` each, together no
    longer than ``longest`` seconds, from epoch ``after`` on. The batch is as long as before, in fewer rows."""

    prob: float
    most: int
    longest: float
    seed: int
    after: int = 0

    def groups(self, batch: list[int], seconds: np.ndarray, epoch: int) -> list[int | tuple[int, ...]]:
        """The batch with joined clips as tuples; drawn alike whatever rank asks. ``seconds``: of all clips."""
        draw = np.random.default_rng([self.seed, epoch, *np.abs(batch).tolist()])
        if epoch < self.after or draw.random() >= self.prob or min(batch) < 0:
            return list(batch)
        size = min(int(draw.integers(2, self.most + 1)), int(self.longest / max(seconds[batch].max(), 1e-3)))
        if size < 2:
            return list(batch)
        return [tuple(batch[i : i + size]) for i in range(0, len(batch), size)]


@dataclass(frozen=True, kw_only=True)
class Neighbours(Joining):
    """Which clips become one utterance where only neighbours of one recording can be joined.

    Each sequence is cut into runs, of which a share of ``prob`` is joined: so that is the share of the clips. A run is
    at most ``most`` clips, ``most_tokens`` label tokens and a length that is drawn between half of ``longest`` and all of
    it.

    sequences: rows that follow each other. tokens: label tokens of each row, int64 ``[rows]``. pause: the longest silence
    behind a clip, in seconds. stretch: the factor by which clips may become longer, edges: seconds that may be added to
    each (augmentation). cut: a joined sample may go on into the next clip, up to ``longest``.
    """

    sequences: Sequence[Sequence[int]]
    tokens: np.ndarray
    most_tokens: int
    pause: float = 0.0
    stretch: float = 1.0
    edges: float = 0.0
    cut: bool = False

    def units(self, seconds: np.ndarray, number: int) -> list[int | tuple[int, ...]]:
        """One way to cut all rows into single clips and joined ones; ``number`` chooses which.

        Args:
            seconds: of all clips.
            number: draws the cuts.

        Returns:
            Rows, and tuples of rows that are one utterance; each row once.
        """
        draw = np.random.default_rng([self.seed, number])
        costs = (np.asarray(seconds) * self.stretch + self.edges + self.pause).tolist()
        tokens = self.tokens.tolist()
        found: list[int | tuple[int, ...]] = []
        for sequence in self.sequences:
            for run in self._runs(sequence, costs, tokens, draw):
                joined = len(run) > 1 and draw.random() < self.prob
                found += [tuple(run)] if joined else run
        return found

    def _runs(
        self, sequence: Sequence[int], costs: list[float], tokens: list[int], draw: np.random.Generator
    ) -> Iterator[list[int]]:
        """Neighbours that may become one utterance."""
        run: list[int] = []
        room = written = 0.0
        for row in sequence:
            fits = costs[row] <= room and written + tokens[row] <= self.most_tokens
            if run and (not fits or len(run) == self.most):
                yield run
                run = []
            if not run:  # no pause behind the last clip
                room, written = draw.uniform(self.longest / 2, self.longest) + self.pause, 0
            run.append(row)
            room, written = room - costs[row], written + tokens[row]
        if run:
            yield run


CUTS = 4
"""Number of ways in which the recordings are cut; epochs take them in turn."""


class NeighbourBatches(DurationBatchSampler):
    """Batches of single clips and of `Neighbours` that are joined, with the interface of `DurationBatchSampler`.

    A joined utterance is a tuple of rows, and counts as one clip of that length. Epochs take `CUTS` ways of cutting the
    recordings in turn. They differ in the number of batches, which a learning-rate schedule needs to be constant: the
    largest number counts, and in the other epochs the batches of most clips are parted. Each row comes once in every
    epoch.
    """

    def __init__(
        self, durations: Sequence[float] | np.ndarray, *, joining: Neighbours, **options: Any
    ) -> None:
        super().__init__(durations, **options)
        self.joining = joining
        self.after = {one: other for sequence in joining.sequences for one, other in pairwise(sequence)}
        self.units = [joining.units(self.durations, number) for number in range(CUTS)]
        lengths = [np.array([self._length(unit) for unit in units]) for units in self.units]
        # Joined, the clips may be fewer than the processes; batches are parted before they are shared out.
        alone = {**options, "rank": 0, "world": 1}
        self.parts = [DurationBatchSampler(found, **alone) for found in lengths]
        self.total = max(part.count([len(bucket) for bucket in part.buckets]) for part in self.parts)

    def _length(self, unit: int | tuple[int, ...]) -> float:
        if isinstance(unit, int):
            return float(self.durations[unit])
        pauses = (len(unit) - 1) * self.joining.pause
        own = float(self.durations[list(unit)].sum()) + pauses
        if not self.joining.cut or unit[-1] not in self.after:
            return own
        return max(own, min(self.joining.longest, own + float(self.durations[self.after[unit[-1]]])))

    def shapes(self) -> list[tuple[int, float, float]]:
        return [shape for part in self.parts for shape in part.shapes()]

    def batches(self, epoch: int | None = None) -> Any:
        """The batches of all ranks; a joined utterance is a tuple of rows."""
        epoch = self.epoch if epoch is None else epoch
        units, part = self.units[epoch % CUTS], self.parts[epoch % CUTS]
        drawn = part.drawn(np.random.default_rng([self.seed, epoch]))
        found = parted([_like(batch, [units[i] for i in batch]) for batch in drawn], self.total)
        return found + [[filler(int(self.buckets[0][0]))]] * (-len(found) % self.world)

    def longest(self, epochs: int = 1) -> float:
        """Seconds of the longest utterance of so many epochs."""
        return max(part.longest() for part in self.parts[: max(1, epochs)])

    def longest_labels(self) -> int:
        """Label tokens of the utterance that has most."""
        tokens = self.joining.tokens
        return max(
            int(tokens[list(u) if isinstance(u, tuple) else [u]].sum()) for us in self.units for u in us
        )

    def __len__(self) -> int:
        return -(-self.total // self.world)


def parted(batches: list[list[Any]], wanted: int) -> list[list[Any]]:
    """The batches, parted in two until there are ``wanted``: those of most utterances first, then of most clips."""
    serial = count()
    heap = [(*_size(batch), place, next(serial), batch) for place, batch in enumerate(batches)]
    heapq.heapify(heap)
    while len(heap) < wanted:
        *_, place, _, batch = heapq.heappop(heap)
        for half in _halves(batch):
            heapq.heappush(heap, (*_size(half), place, next(serial), half))
    return [batch for *_, batch in sorted(heap, key=lambda entry: entry[2:4])]


def _size(batch: list[Any]) -> tuple[int, int]:
    return -len(batch), -sum(len(unit) if isinstance(unit, tuple) else 1 for unit in batch)


def _halves(batch: list[Any]) -> tuple[list[Any], list[Any]]:
    """Half of the utterances each; of one joined utterance half of its clips each."""
    if len(batch) > 1:
        return _like(batch, batch[: len(batch) // 2]), _like(batch, batch[len(batch) // 2 :])
    first, second = (
        [one if len(one) > 1 else one[0]]
        for one in (batch[0][: len(batch[0]) // 2], batch[0][len(batch[0]) // 2 :])
    )
    return _like(batch, first), _like(batch, second)


def _like(batch: list[Any], utterances: list[Any]) -> list[Any]:
    """These utterances as a batch that is padded as ``batch`` is."""
    return FullContextBatch(utterances) if isinstance(batch, FullContextBatch) else utterances


class EpochBatches(Sampler[list[tuple[Any, ...]]]):
    """The batches of a `DurationBatchSampler` with the epoch beside each index: ``(index, epoch)``; with
    ``joining`` beside several indices, ``((index, …), epoch)``, whose clips become one utterance. Those of a
    `FullContextBatch` have a third part, True.

    Workers that outlive an epoch hold a copy of the dataset; so the epoch that augmentation draws from reaches
    them with the index.
    """

    def __init__(self, sampler: DurationBatchSampler, joining: Joining | None = None) -> None:
        self.sampler = sampler
        self.joining = joining

    @property
    def batch_sampler(self) -> EpochBatches:
        """Itself, see `DurationBatchSampler.batch_sampler`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration gives."""
        self.sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[list[tuple[Any, ...]]]:
        epoch = self.sampler.epoch
        for batch in self.sampler:
            marked = (True,) if isinstance(batch, FullContextBatch) else ()
            yield [(rows, epoch, *marked) for rows in self._joined(batch, epoch)]

    def _joined(self, batch: list[int], epoch: int) -> list[int | tuple[int, ...]]:
        return self.joining.groups(batch, self.sampler.durations, epoch) if self.joining else list(batch)

    def longest(self, epochs: int = 1) -> float:
        """Seconds of the longest utterance, joined ones of some of so many epochs among them."""
        joining, looked = self.joining, range(0)
        if joining is not None:
            looked = range(joining.after, min(epochs, joining.after + EPOCHS_LOOKED_AT))
        return max([self.sampler.longest(), *(self._longest_joined(epoch) for epoch in looked)])

    def _longest_joined(self, epoch: int) -> float:
        assert self.joining is not None
        batches, seconds = self.sampler.batches(epoch), self.sampler.durations
        groups = (group for batch in batches for group in self.joining.groups(batch, seconds, epoch))
        return max(
            (float(seconds[list(group)].sum()) for group in groups if isinstance(group, tuple)), default=0.0
        )

    def __len__(self) -> int:
        return len(self.sampler)


def filler(index: int) -> int:
    """The number that stands for "this clip, without its labels"; its own inverse."""
    return -1 - index


class Supervised(Dataset[Any]):
    """A dataset of encoded examples that understands `filler` indices and those of `EpochBatches`."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, item: int | tuple[Any, ...]) -> dict[str, Any]:
        index, epoch, *full = item if isinstance(item, tuple) else (item, None)
        if isinstance(index, tuple) or index >= 0:
            features = self.dataset[index] if epoch is None else self.dataset.drawn(index, epoch)
            return {**features, FULL_CONTEXT: True} if full else features
        features = dict(self.dataset[filler(index)])
        features["labels"] = {
            task: ids[: features["prompt"][task]] for task, ids in features["labels"].items()
        }
        features.pop("ctc_labels", None)
        return features
