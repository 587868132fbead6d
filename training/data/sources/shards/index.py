"""What the shards of a folder hold: read from the tar headers once, kept as an Arrow file beside them."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from training.base.errors import UserError
from training.base.system_files import listed
from training.data.audio import find_ffmpeg
from training.data.cached_table import load_cached, store
from training.data.ledger import DropLedger
from training.data.sources.shards.damage import with_stated
from training.data.sources.shards.keys import FIRST_DOT, taken_apart
from training.data.sources.shards.remarks import remarks
from training.data.sources.shards.samples import Refusals, read_shard

INDEX = ".polyvox_index.arrow"
METADATA = "metadata.json"
SHARD = "__shard__"
"""Internal column: file name of the shard."""
_VERSION = 2


@dataclass(frozen=True)
class Index:
    """The usable samples of a folder (columns of `read_shard` and `SHARD`), what is refused, and what there is to say."""

    folder: Path
    table: pa.Table
    refused: DropLedger
    notes: tuple[str, ...] = ()

    def samples(self) -> dict[str, int]:
        """Usable samples of each shard."""
        names: list[str] = self.table.column(SHARD).to_pylist()
        return {path.name: 0 for path in shard_paths(self.folder)} | dict(Counter(names))


@dataclass(frozen=True)
class Metadata:
    """The values of ``metadata.json``: ``total`` and ``samples`` per shard where they stand there, a domain for all."""

    total: int | None = None
    samples: Mapping[str, int] = dataclasses.field(default_factory=dict)
    domain: str | None = None
    problem: str | None = None


def shard_paths(folder: Path) -> list[Path]:
    """The archives of a folder, in the order of their names. Raises `UserError` where there are none."""
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder of shards; make it with polyvox shards write, or name another"
        )
    found = sorted(path for path in listed(folder, "*.tar") if path.is_file())
    if not found:
        below = sorted(path.parent.name for path in listed(folder, "*/*.tar"))
        hint = f"; its folders {', '.join(dict.fromkeys(below))} do: name them" if below else ""
        raise UserError(f"{folder}: holds no shards (*.tar){hint}")
    return found


def read_index(folder: Path, columns: Mapping[str, str] | None = None, keys: str = FIRST_DOT) -> Index:
    """The index of a folder: the one that is kept there, where it fits the shards' names, sizes and times.

    ``columns`` maps our names to those of the samples' JSON, ``keys`` is the rule by which members make a sample
    (`training.data.sources.shards.keys`). Where nothing can be written beside the shards the index stays in memory. Samples
    whose id came before in the folder are refused (``duplicate_id``).
    """
    key = _key(folder, columns, keys)
    return _kept(folder, key) or _built(folder, key, columns, keys)


def _key(folder: Path, columns: Mapping[str, str] | None, keys: str) -> str:
    """All that the index depends on; with ffmpeg, M4A without a stated duration can be read."""
    files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in shard_paths(folder)]
    return json.dumps([_VERSION, sorted((columns or {}).items()), keys, find_ffmpeg() is not None, files])


def _kept(folder: Path, key: str) -> Index | None:
    found = load_cached(folder / INDEX, key)
    return None if found is None else Index(folder, *found)


def _built(folder: Path, key: str, columns: Mapping[str, str] | None, keys: str) -> Index:
    refused, tables = Refusals(), []
    for path in shard_paths(folder):
        table, ledger = read_shard(path, columns, keys)
        tables.append(table.append_column(SHARD, pa.array([path.name] * len(table), pa.string())))
        refused.extend(ledger)
    list(listed(folder, "*", refused.system_files))  # system files are counted and not read
    table = pa.concat_tables(tables, promote_options="default")
    table, whole = _with_whole_names(table) if keys == FIRST_DOT else (table, [])
    table = _without_duplicates(table, refused)
    notes = remarks(folder, refused, samples=len(table), whole_names=whole)
    store(folder / INDEX, key, table, refused, notes)
    return Index(folder, table, DropLedger(refused.drops), notes)


def _with_whole_names(table: pa.Table) -> tuple[pa.Table, list[str]]:
    """The table with distinct ids for clips that `first_dot` gives one key in different shards, and those ids."""
    ids: list[str] = table.column("id").to_pylist()
    names = zip(table.column("audio_path").to_pylist(), table.column(SHARD).to_pylist(), strict=True)
    stems, clips = list(ids), defaultdict(set)
    for row, (place, shard) in enumerate(names):
        name = taken_apart(place.removeprefix(f"{shard}/"))
        if name is not None and ids[row] in (name.key, name.stem):
            stems[row] = name.stem
            clips[name.key].add(name.stem)
    several = {stem for key, found in clips.items() if len(found) > 1 for stem in found - {key}}
    if not several:
        return table, []
    new = [stem if stem in several else id for id, stem in zip(ids, stems, strict=True)]
    at = table.column_names.index("id")
    return table.set_column(at, "id", pa.array(new, pa.string())), sorted(several)


def _without_duplicates(table: pa.Table, refused: DropLedger) -> pa.Table:
    first: dict[str, str] = {}
    kept = []
    for row, (name, place) in enumerate(
        zip(table.column("id").to_pylist(), table.column("audio_path").to_pylist(), strict=True)
    ):
        if first.setdefault(name, place) == place:
            kept.append(row)
        else:
            refused.add(place.rpartition(".")[0], "duplicate_id", f"{first[name]} has the id {name!r} too")
    return table if len(kept) == len(table) else table.take(kept)


def refused_of(index: Index, metadata: Metadata) -> DropLedger:
    """What is refused of a folder, counted by what ``metadata.json`` says of the shards that have lost bytes."""
    return with_stated(index.refused, index.samples(), metadata.samples)


def read_metadata(folder: Path) -> Metadata:
    """``metadata.json`` as far as it can be understood; what cannot is its ``problem``."""
    try:
        content = json.loads((folder / METADATA).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return Metadata(problem="is missing")
    except (OSError, ValueError, RecursionError) as error:
        return Metadata(problem=f"cannot be read ({error})")
    if not isinstance(content, dict):
        return Metadata(problem="holds no JSON object")
    total, domain, shards = content.get("total_samples"), content.get("domain"), content.get("shards")
    stated = [_stated(one) for one in shards] if isinstance(shards, list) else []
    return Metadata(
        total=total if isinstance(total, int) else None,
        samples=dict(pair for pair in stated if pair is not None),
        domain=domain.strip() or None if isinstance(domain, str) else None,
    )


def _stated(shard: Any) -> tuple[str, int] | None:
    """File name and samples of one entry; the name stands under ``filename`` or ``shard_filename``."""
    if not isinstance(shard, dict):
        return None
    name, samples = shard.get("filename", shard.get("shard_filename")), shard.get("samples")
    return (name, samples) if isinstance(name, str) and isinstance(samples, int) else None


def disagreements(index: Index, metadata: Metadata) -> list[str]:
    """Differences between ``metadata.json`` and the shards. The counts of the shards are used."""
    name, held = index.folder / METADATA, index.samples()
    if metadata.problem is not None:
        return [f"{name} {metadata.problem}: {len(index.table):,} samples counted in {len(held)} shards"]
    found = []
    if metadata.total is not None and metadata.total != len(index.table):
        found.append(f"{name} says {metadata.total:,} samples, the shards hold {len(index.table):,}")
    for shard, stated in metadata.samples.items():
        if shard not in held:
            found.append(f"{name} names {shard}, which is not there")
        elif stated != held[shard]:
            found.append(f"{name} says {stated:,} samples in {shard}, it holds {held[shard]:,}")
    return found


def estimate(folder: Path, samples_per_shard: int) -> int:
    """How many samples there may be, without opening a shard: as ``metadata.json`` says, else so many in each."""
    total = read_metadata(folder).total
    return len(shard_paths(folder)) * samples_per_shard if total is None else total
