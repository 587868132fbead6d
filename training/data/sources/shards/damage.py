"""How many utterances are lost where bytes of an archive are lost. Each is counted once."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from training.data.ledger import Drop, DropLedger
from training.data.sources.shards.archive import DAMAGE, Refused


class Lost(NamedTuple):
    """Bytes without a name: how many members with a key came before them, and what they were."""

    place: int
    what: Refused


def account(
    lost: Sequence[Lost],
    ledger: DropLedger,
    incomplete: Collection[int],
    *,
    bytes_per_sample: float,
    shard: str,
) -> None:
    """Put the stretches of a shard in front of its ledger, with their numbers of utterances.

    A stretch is as many samples as its bytes make on average. Incomplete samples beside it (``incomplete``: places
    of their members) are in the ledger already, so they are taken off; without any it is at least one.
    """
    drops = []
    for place, what in lost:
        beside = len({place - 1, place} & set(incomplete))
        likely = round(what.size / bytes_per_sample) if bytes_per_sample else 0
        count = max(likely - beside, 0 if beside else 1)
        about = f"; about {count:,} utterances by their size" if count > 1 else ""
        drops.append(Drop(shard, what.reason, what.detail + about, count))
    ledger.drops[:0] = drops


def with_stated(ledger: DropLedger, held: Mapping[str, int], stated: Mapping[str, int]) -> DropLedger:
    """The ledger of a folder, in which damaged shards have lost as many utterances as ``stated`` says of them.

    ``held`` are the usable samples of each shard. The stated number of samples of a shard without damage is not used.
    """
    damaged = {drop.id.partition("/")[0] for drop in ledger if drop.reason in DAMAGE}
    drops = list(ledger)
    for shard in sorted(damaged & stated.keys() & held.keys()):
        named = sum(drop.utterances for drop in drops if drop.id.startswith(f"{shard}/"))
        missing = max(0, stated[shard] - held[shard] - named)
        drops = _assigned(drops, shard, missing, stated[shard])
    return DropLedger(drops)


def _assigned(drops: Sequence[Drop], shard: str, missing: int, stated: int) -> list[Drop]:
    """The first stretch of the shard stands for all that is missing, its others for nothing."""
    nameless_lost = f"{missing:,} of the {stated:,} samples that metadata.json states are lost without a name"
    nameless = [index for index, drop in enumerate(drops) if drop.id == shard]
    found = list(drops)
    for index in nameless:
        count = missing if index == nameless[0] else 0
        detail = f"{drops[index].detail.partition('; about')[0]}; {nameless_lost}"
        found[index] = dataclasses.replace(drops[index], utterances=count, detail=detail)
    return found if nameless or not missing else [*found, Drop(shard, "truncated", nameless_lost, missing)]
