"""The drop ledger: which utterances are left out, and why. Nothing leaves the data without an entry.

All numbers are of utterances: `len`, the counts per reason, and the share that stops a run.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from training.base.errors import UserError
from training.base.files import atomic_text


@dataclass(frozen=True, slots=True)
class Drop:
    """An utterance that was left out. ``reason`` is a short name to count, ``detail`` explains it.

    ``utterances`` says how many it stands for: nearly always one. A stretch of an archive that cannot be read may
    stand for many; 0 is for what is no utterance, or is counted in another entry.
    """

    id: str
    reason: str
    detail: str = ""
    utterances: int = 1


@dataclass
class DropLedger:
    """Entries in the order in which they came."""

    drops: list[Drop] = field(default_factory=list)
    notes: list[Drop] = field(default_factory=list)
    """Utterances that stay, and what had to be done for it: they are counted in `summary` alone."""

    def add(self, id: str, reason: str, detail: str = "", utterances: int = 1) -> None:
        """Note that the utterance ``id`` is left out."""
        self.drops.append(Drop(id, reason, detail, utterances))

    def extend(self, other: DropLedger) -> None:
        """Take over the entries of another ledger."""
        self.drops.extend(other.drops)
        self.notes.extend(other.notes)

    def __len__(self) -> int:
        """Utterances that are left out; the entries themselves are ``drops``."""
        return sum(drop.utterances for drop in self.drops)

    def __iter__(self) -> Iterator[Drop]:
        return iter(self.drops)

    def counts(self) -> dict[str, int]:
        """Utterances per reason, the most frequent first."""
        found: Counter[str] = Counter()
        for drop in self.drops:
            found[drop.reason] += drop.utterances
        return dict(found.most_common())

    def write(self, path: Path) -> None:
        """Write a TSV with the columns ``id``, ``reason``, ``detail`` (white space inside a cell becomes a space)."""
        with atomic_text(path) as handle:
            self.write_to(handle)

    def write_to(self, handle: TextIO) -> None:
        """`write` into an open file."""
        handle.write("id\treason\tdetail\n")
        for drop in self.drops:
            cells = (" ".join(cell.split()) for cell in (drop.id, drop.reason, drop.detail))
            handle.write("\t".join(cells) + "\n")

    def summary(self) -> str:
        """A table for the screen: utterances per reason and one example of each."""
        if not self.drops:
            return "\n".join(["nothing dropped", *self.remarks()])
        first = {drop.reason: drop for drop in reversed(self.drops)}
        width = max(len(reason) for reason in first)
        lines = [f"{'reason':<{width}}  {'dropped':>8}  for example"]
        for reason, count in self.counts().items():
            example = " ".join(f"{first[reason].id}: {first[reason].detail}".split())
            lines.append(f"{reason:<{width}}  {count:>8,}  {_short(example)}".rstrip(": "))
        return "\n".join([*lines, f"{'total':<{width}}  {len(self):>8,}", *self.remarks()])

    def remarks(self) -> list[str]:
        """A line for each kind of note: how many utterances stay with it, and one of them."""
        first = {note.reason: note for note in reversed(self.notes)}
        counts = Counter(note.reason for note in self.notes)
        return [
            f"{count:,} {'clip' if count == 1 else 'clips'} kept, {reason}: for example {first[reason].id}: "
            f"{' '.join(first[reason].detail.split())}"
            for reason, count in counts.most_common()
        ]

    def exceeds(self, total: int, max_share: float) -> bool:
        """Whether more than ``max_share`` (0 to 1) of ``total`` utterances were dropped."""
        return len(self) > allowed(total, max_share)

    def check_share(self, total: int, max_share: float) -> None:
        """`UserError` when more than ``max_share`` (0 to 1) of ``total`` utterances were dropped."""
        if not self.exceeds(total, max_share):
            return
        raise UserError(
            f"data.max_dropped_share: {len(self):,} of {total:,} utterances ({len(self) / total:.1%}) cannot be used, "
            f"more than the {max_share:.1%} ({allowed(total, max_share):,}) that are allowed; mend the data or raise the "
            f"key.\n{self.summary()}"
        )


def _short(example: str, most: int = 240) -> str:
    return example if len(example) <= most else f"{example[: most - 1]}…"


def allowed(total: int, max_share: float) -> int:
    """The number of ``total`` utterances that may be dropped: 29 of 100 at a share of 0.29, which is less in floating point."""
    return math.floor(max_share * total + 1e-6)
