"""From a manifest row to encoded features, and the look at every row that comes before training."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from training.base.errors import UserError
from training.base.progress import progress_bar
from training.data.augment import Augment, Moved, in_sequence
from training.data.checks import Rows, check_audio
from training.data.example import Example
from training.data.ledger import Drop, DropLedger
from training.data.lengths import length_problem
from training.data.long_form import WINDOW, LongForm, Part, Practice, placed, practised
from training.data.manifest import TEXT_COLUMNS
from training.data.missing import REASON, is_marker, problem
from training.data.remedies import remedy

Features = dict[str, Any]
Encode = Callable[[Example, np.ndarray], Features]
Check = Callable[[Example], str | None]

STOPPED = (
    "No utterance is skipped or replaced in silence, so this ends here, and does so again with the same data"
)

FIRST_LOOK = 2.0
"""Seconds after which a terminal shows a bar for `validate`."""
_BLOCK = 512


class DataError(UserError):
    """An utterance that passed the check before training and cannot be read now: id, ``file:line``, reason."""


class SpeechDataset(Dataset):
    """``dataset[i]`` loads the sound of row ``i`` and encodes it; picklable, so that spawned workers can hold it.

    ``encode(example, waveform) -> Features`` is the architecture's; ``augment`` and ``long_form`` change what `drawn`
    gives, and nothing else. Clips of ``max_seconds`` and more than that, or shorter than ``min_seconds``, are for `validate`
    to drop: nothing is ever cut. ``keep_markers``: words of `training.data.missing.MARKERS` that are real words here.

    Raises `DataError` for a row whose sound cannot be read, is not as long as stated, or cannot be encoded. No
    row is ever replaced by silence or by another one.
    """

    def __init__(
        self,
        manifest: Rows,
        encode: Encode,
        sample_rate: int,
        *,
        augment: Augment | None = None,
        long_form: LongForm | None = None,
        min_seconds: float = 0.0,
        max_seconds: float = 30.0,
        keep_markers: Collection[str] = (),
    ) -> None:
        self.manifest = manifest
        self.encode = encode
        self.sample_rate = sample_rate
        self.augment = augment
        self.long_form = long_form
        self.min_seconds = min_seconds
        self.max_seconds = max_seconds
        self.keep_markers = keep_markers

    def __len__(self) -> int:
        return len(self.manifest)

    @property
    def durations(self) -> np.ndarray:
        """Stated seconds of each utterance, float32 ``[rows]``."""
        return self.manifest.durations

    def select(self, indices: Sequence[int] | np.ndarray) -> SpeechDataset:
        """The same over the rows ``indices``, in that order."""
        return SpeechDataset(
            self.manifest.select(indices),
            self.encode,
            self.sample_rate,
            augment=self.augment,
            long_form=self.long_form.select(indices) if self.long_form is not None else None,
            min_seconds=self.min_seconds,
            max_seconds=self.max_seconds,
            keep_markers=self.keep_markers,
        )

    def __getitem__(self, index: int) -> Features:
        """The clip as it is."""
        return self._encoded(*self._clip(index))

    def drawn(self, rows: int | tuple[int, ...], epoch: int) -> Features:
        """The clip as this epoch's draws change it; as it is where nothing is to be changed.

        Several rows become one utterance, their transcripts joined by spaces. What cannot be encoded once it is
        changed (sped up, it has fewer frames than its text needs) keeps its own sound.
        """
        rows = (rows,) if isinstance(rows, int) else rows
        waits = self.augment is None or self.augment.waits(epoch)
        practice = self.long_form.drawn(epoch, rows) if self.long_form is not None else Practice()
        if waits and len(rows) == 1 and not any(practice):
            return self[rows[0]]
        clips = [self._clip(row) for row in rows]
        draws: list[Any] = [self.augment and self.augment.generator(epoch, row) for row in rows]
        changed = [
            (waveform, Moved()) if waits else self._changed(one, waveform, draw)
            for (one, waveform), draw in zip(clips, draws, strict=True)
        ]
        try:
            pauses = self.augment.pauses(len(rows), draws[0]) if self.augment is not None else []
            features = self.encode(*self._sample(rows, clips, changed, pauses, practice, epoch))
        except ValueError:
            features = self._encoded(*self._unchanged(rows, clips, practice._replace(cut=False)))
        return features if waits else self.augment.features(features, draws[0])  # type: ignore[union-attr]

    def _sample(
        self,
        rows: tuple[int, ...],
        clips: Sequence[tuple[Example, np.ndarray]],
        changed: Sequence[tuple[np.ndarray, Moved]],
        pauses: Sequence[int],
        practice: Practice,
        epoch: int = 0,
    ) -> tuple[Example, np.ndarray]:
        """One utterance of the changed clips, with the times and the text before that it practises."""
        waveforms = [waveform for waveform, _ in changed]
        example = joined([one for one, _ in clips])
        if any(practice):
            assert self.long_form is not None
            lengths = [len(waveform) + pause for waveform, pause in zip(waveforms, (*pauses, 0), strict=True)]
            starts = np.cumsum([0, *lengths[:-1]]) / self.sample_rate
            parts = [
                Part(one, len(sound) / self.sample_rate, moved, float(start))
                for (one, sound), (_, moved), start in zip(clips, changed, starts, strict=True)
            ]
            if practice.cut:
                waveforms, parts = self._going_on(waveforms, parts, rows[-1], sum(lengths), epoch)
            previous = self.long_form.previous(self.manifest, rows[0]) if practice.previous_text else {}
            example = practised(example, practice, parts, previous)
        # No pause between the last clip and one that is cut.
        return example, in_sequence(waveforms, (*pauses, 0))

    def _going_on(
        self, waveforms: list[np.ndarray], parts: list[Part], last: int, length: int, epoch: int
    ) -> tuple[list[np.ndarray], list[Part]]:
        """The same and the beginning of the clip after row ``last``, as far as there is room behind ``length`` samples."""
        assert self.long_form is not None
        row = int(self.long_form.after[last])
        example, sound = self._clip(row)
        waits = self.augment is None or self.augment.waits(epoch)
        changed, moved = (
            (sound, Moved()) if waits else self._changed(example, sound, self.augment.generator(epoch, row))  # type: ignore[union-attr]
        )
        room = round(min(self.max_seconds, WINDOW) * self.sample_rate) - length
        taken = self.long_form.cut_at(epoch, row, len(changed), room, self.sample_rate)
        part = Part(example, len(sound) / self.sample_rate, moved, length / self.sample_rate, cut=True)
        speaks = max((one.start for ones in placed([part]).values() for one in ones), default=0.0)
        if (length + taken) / self.sample_rate <= speaks:  # silence only: there would be nothing at that time
            return waveforms, parts
        return [*waveforms, changed[:taken]], [*parts, part]

    def _unchanged(
        self, rows: tuple[int, ...], clips: Sequence[tuple[Example, np.ndarray]], practice: Practice
    ) -> tuple[Example, np.ndarray]:
        """The same of the clips' own sounds."""
        waveforms, most = [waveform for _, waveform in clips], getattr(self.encode, "longest", None)
        limit = None if most is None else min(most, self.max_seconds)
        pauses = self.augment.wide_pauses(waveforms, limit) if self.augment is not None else []
        return self._sample(rows, clips, [(waveform, Moved()) for waveform in waveforms], pauses, practice)

    def _changed(self, example: Example, waveform: np.ndarray, draw: Any) -> tuple[np.ndarray, Moved]:
        assert self.augment is not None
        try:
            return self.augment.moved(waveform, draw)
        except ValueError as error:  # a noise or an impulse response that cannot be read
            raise _unusable(example, error) from error

    def _clip(self, index: int) -> tuple[Example, np.ndarray]:
        example = self.manifest[index]
        try:
            waveform = self.manifest.waveform(index, self.sample_rate)
        except (ValueError, OSError) as error:
            raise _unusable(example, error, self._remedy()) from error
        if problem := length_problem(example, len(waveform) / self.sample_rate):
            raise _unusable(example, problem, self._remedy())
        return example, waveform

    def _remedy(self) -> str:
        """A hint how to remove such rows from the data."""
        tasks = getattr(self.encode, "tasks", None) or TEXT_COLUMNS
        texts = [TEXT_COLUMNS[task] for task in tasks]
        return remedy(self.manifest, texts, self.min_seconds, self.max_seconds)

    def _encoded(self, example: Example, waveform: np.ndarray) -> Features:
        try:
            return self.encode(example, waveform)
        except ValueError as error:
            raise _unusable(example, error) from error


def _unusable(example: Example, reason: object, remedy: str = "") -> DataError:
    what = f"{example.source}: utterance {example.id!r}: {reason}"
    return DataError(f"{what}\n{STOPPED}; {remedy}" if remedy else what)


def joined(examples: Sequence[Example]) -> Example:
    """One utterance of several, in that order: names and places of all, what else is known of the first."""
    first = examples[0]
    if len(examples) == 1:
        return first
    return replace(
        first,
        id="+".join(one.id for one in examples),
        source=", ".join(one.source for one in examples),
        duration=sum(one.duration for one in examples),
        texts={task: " ".join(one.texts.get(task, "") for one in examples) for task in first.texts},
        words=(),
        word_languages=(),
    )


def validate(
    dataset: SpeechDataset,
    *,
    workers: int = 0,
    check: Check | None = None,
    encodable: bool = True,
    decode: bool = False,
) -> tuple[np.ndarray, DropLedger]:
    """Look at every row before it is used: ``(indices that can be used, ledger of the others)``.

    Reads headers, in ``workers`` threads: the file is there, is whole, and lasts as long as stated, between
    ``dataset.min_seconds`` and ``dataset.max_seconds``. A text for one of the encoder's tasks is there. ``check(example)`` may name a further
    reason. With ``decode`` every sound is decoded to its last sample, not its header alone. With ``encodable`` the example is put through the encoder's own check of its labels: its method
    ``check(example, seconds)`` where it has one, else a silence of that length is encoded.

    Reasons: ``missing_audio``, ``unreadable_audio``, ``duration_mismatch``, ``too_short``, ``too_long``,
    ``empty_text``, ``missing_text_marker``, ``rejected`` (``check``), ``not_encodable``, and with ``decode`` those of
    `training.data.sound_checks`.
    """
    kept, ledger = [], DropLedger()
    with progress_bar(total=len(dataset), unit="clip", desc="checked", delay=FIRST_LOOK, leave=False) as bar:
        for index, (example, found) in enumerate(_looked_at(dataset, workers, decode)):
            drop = found if isinstance(found, Drop) else _text_drop(dataset, example, found, check, encodable)
            if drop is None:
                kept.append(index)
            else:
                ledger.add(drop.id, drop.reason, drop.detail)
            bar.update()
    return np.array(kept, dtype=np.int64), ledger


def unwritable(dataset: SpeechDataset) -> tuple[int, int]:
    """``(pieces, utterances)``: pieces of text without an id in the model's vocabulary, and the rows that have any.

    Asks the encoder's method ``unwritable(example)``; zeros where it has none (a vocabulary of bytes writes all).
    """
    count = getattr(dataset.encode, "unwritable", None)
    if count is None:
        return 0, 0
    found = [count(dataset.manifest[index]) for index in range(len(dataset))]
    return sum(found), sum(1 for pieces in found if pieces)


def _looked_at(dataset: SpeechDataset, workers: int, decode: bool) -> Iterator[tuple[Example, float | Drop]]:
    """`check_audio` of every row, in order; in threads, because it waits for the disk."""

    def look(index: int) -> tuple[Example, float | Drop]:
        return check_audio(
            dataset.manifest,
            index,
            min_seconds=dataset.min_seconds,
            max_seconds=dataset.max_seconds,
            decode=decode,
        )

    if workers < 2:
        yield from map(look, range(len(dataset)))
        return
    with ThreadPoolExecutor(workers) as pool:
        for block in _blocks(range(len(dataset))):
            yield from pool.map(look, block)


def _blocks(indices: Iterable[int]) -> Iterator[list[int]]:
    iterator = iter(indices)
    while block := list(islice(iterator, _BLOCK)):
        yield block


def _text_drop(
    dataset: SpeechDataset, example: Example, seconds: float, check: Check | None, encodable: bool
) -> Drop | None:
    """Why the texts of a row whose sound is sound cannot be used; None when they can."""
    tasks = getattr(dataset.encode, "tasks", None) or TEXT_COLUMNS
    if not any(task in example.texts for task in tasks):
        columns = [TEXT_COLUMNS[task] for task in tasks]
        lacking = f"no {columns[0]}" if len(columns) == 1 else f"neither {' nor '.join(columns)}"
        return Drop(example.id, "empty_text", f"{example.source}: {lacking}")
    for task in tasks:
        if is_marker(text := example.texts.get(task), dataset.keep_markers):
            told = problem(TEXT_COLUMNS[task], text or "", "data.keep_text_markers: ")
            return Drop(example.id, REASON, f"{example.source}: {told}")
    if check is not None and (refused := check(example)):
        return Drop(example.id, "rejected", f"{example.source}: {refused}")
    try:
        if encodable:
            _try_encoding(dataset, example, seconds)
    except ValueError as error:
        return Drop(example.id, "not_encodable", f"{example.source}: {error}")
    return None


def _try_encoding(dataset: SpeechDataset, example: Example, seconds: float) -> None:
    own_check = getattr(dataset.encode, "check", None)
    if own_check is not None:
        own_check(example, seconds)
    else:
        dataset.encode(example, np.zeros(round(seconds * dataset.sample_rate), dtype=np.float32))
