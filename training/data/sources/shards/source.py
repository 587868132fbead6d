"""Folders of shards as one source of utterances, with the interface of every manifest."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from training.base.errors import UserError
from training.data import audio
from training.data.example import Example
from training.data.ledger import DropLedger
from training.data.manifest import Manifest, from_table
from training.data.sources.shards.folders import folder_domain
from training.data.sources.shards.index import (
    SHARD,
    Index,
    Metadata,
    disagreements,
    read_index,
    read_metadata,
    refused_of,
)
from training.data.sources.shards.keys import FIRST_DOT
from training.data.sources.shards.open_files import forget, read_stretch
from training.data.sources.shards.samples import OFFSET, SIZE
from training.data.tables import LINE, fingerprint

INTERNAL = (LINE, SHARD, OFFSET, SIZE)


class ShardSource(Manifest):
    """The samples of shards. The table says where each sound lies; workers open the archives they read from.

    ``refused`` lists what of the shards cannot be used, ``notes`` what there is to say of them; both belong to the
    whole source and are empty in a selection of it.
    """

    remedy = (
        "clean the manifest with polyvox preprocess --decode, and write the shards anew from what it keeps"
    )

    def __init__(self, table: pa.Table, path: Path, audio_root: Path | None = None) -> None:
        super().__init__(table, path, audio_root)
        self.refused = DropLedger()
        self.notes: tuple[str, ...] = ()

    @property
    def column_names(self) -> list[str]:
        """Fields of the samples under our names."""
        return [name for name in self.table.column_names if name not in INTERNAL]

    @property
    def shard_numbers(self) -> np.ndarray:
        """Which shard each row lies in, int32 ``[rows]``, counted from 0."""
        return self.table.column(SHARD).combine_chunks().indices.to_numpy()

    def resolve(self, audio_path: str) -> str:
        """The name of a sound in messages: its shard's path, a slash, its own."""
        return audio_path

    def select(self, indices: Sequence[int] | np.ndarray) -> ShardSource:
        """The rows ``indices``, in that order."""
        return ShardSource(super().select(indices).table, self.path)

    def waveform(self, index: int, sample_rate: int) -> np.ndarray:
        """The sound of row ``index``. Raises `audio.AudioError`."""
        return audio.load_bytes(self._bytes(index), self[index].audio, sample_rate)

    def blocks(self, index: int) -> Iterator[tuple[np.ndarray, int]]:
        """The same in one piece, at its own rate. Raises `audio.AudioError`."""
        yield audio.block_of_bytes(self._bytes(index), self[index].audio)

    def seconds(self, index: int) -> float:
        """The real length of row ``index`` by its header. Raises `audio.AudioError`."""
        return audio.probe_bytes(self._bytes(index), self._cell("audio_path", index)).duration

    def sound_marks(self) -> list[str]:
        """The name of each sound inside its shard, and its size in bytes; where the shards lie does not count."""
        columns = (self.table.column(name).to_pylist() for name in ("audio_path", SHARD, SIZE))
        return [f"{place.removeprefix(shard)} {size}" for place, shard, size in zip(*columns, strict=True)]

    def sha256(self) -> str:
        """A fingerprint of the rows: texts, times, and where in which shard each sound lies."""
        return fingerprint(self.table.combine_chunks())

    @property
    def _columns(self) -> dict[str, pa.ChunkedArray]:
        return {**super()._columns, SHARD: self.table.column(SHARD)}

    def _example(self, row: Mapping[str, Any]) -> Example:
        return dataclasses.replace(super()._example(row), source=f"{row[SHARD]}:{row[LINE]}")

    def _cell(self, name: str, index: int) -> Any:
        return self.table.column(name)[index].as_py()

    def _bytes(self, index: int) -> bytes:
        name, shard, size = (self._cell(column, index) for column in ("audio_path", SHARD, SIZE))
        try:
            data = read_stretch(shard, self._cell(OFFSET, index), size)
        except FileNotFoundError as error:
            raise audio.AudioError(shard, "no such file") from error
        except OSError as error:
            raise audio.AudioError(shard, f"cannot be read: {error.strerror}") from error
        if len(data) < size:
            raise audio.AudioError(name, f"truncated: {len(data)} of its {size} bytes are in the shard")
        return data


def load_shards(
    folders: Path | Sequence[Path],
    *,
    domains: Mapping[str, str] | None = None,
    default_domain: str | None = None,
    columns: Mapping[str, str] | None = None,
    keys: str = FIRST_DOT,
) -> ShardSource:
    """The shards of one folder or of several that make one split.

    The domain of a sample is that of its JSON, else what ``domains`` says for its folder (`folder_domain`), else the
    ``domain`` of the folder's ``metadata.json``, else ``default_domain`` (counted in the notes). It is never taken
    from the folder's name. ``columns``: our name → the name in the JSON. ``keys``: the rule by which members make a
    sample (`training.data.sources.shards.keys`). Ids that several folders use get the folder's name in front.

    Raises `UserError` for a folder without shards or without usable samples, and for samples without a domain.
    """
    forget()
    paths = [folders] if isinstance(folders, Path) else list(folders)
    if twice := [path for path, count in Counter(path.resolve() for path in paths).items() if count > 1]:
        raise UserError(f"data.shards: {twice[0]} is named twice")
    indices = [read_index(path, columns, keys) for path in paths]
    metadata = [read_metadata(path) for path in paths]
    notes = [note for pair in zip(indices, metadata, strict=True) for note in disagreements(*pair)]
    notes += [note for index in indices for note in index.notes]
    _check_usable(indices, metadata)
    tables = [
        _placed(index, _stated_domain(index, about, domains))
        for index, about in zip(indices, metadata, strict=True)
    ]
    table = pa.concat_tables(_distinct(tables, paths, notes), promote_options="default").unify_dictionaries()
    table = _with_domains(table, default_domain, notes)
    rows = from_table(table, Path(", ".join(map(str, paths))), check_words=False)
    source = ShardSource(rows.table, rows.path)
    source.notes = tuple(notes)
    source.refused.extend(_refused(indices, metadata))
    return source


def _refused(indices: Sequence[Index], metadata: Sequence[Metadata]) -> DropLedger:
    return DropLedger([drop for pair in zip(indices, metadata, strict=True) for drop in refused_of(*pair)])


def _check_usable(indices: Sequence[Index], metadata: Sequence[Metadata]) -> None:
    """`UserError` where no folder holds a sample that can be used: what there is to say of them, and the ledger."""
    if any(len(index.table) for index in indices):
        return
    named = ", ".join(str(index.folder) for index in indices)
    lines = [f"{named}: no sample can be used", _refused(indices, metadata).summary()]
    raise UserError("\n".join([*lines, *(note for index in indices for note in index.notes)]))


def _stated_domain(index: Index, metadata: Metadata, domains: Mapping[str, str] | None) -> str | None:
    return folder_domain(index.folder, domains or {}) or metadata.domain


def _placed(index: Index, domain: str | None) -> pa.Table:
    """The index with paths in place of file names, and the folder's domain where a sample has none of its own."""
    table, folder = index.table, index.folder
    shards = table.column(SHARD).combine_chunks().dictionary_encode()
    where = pa.array([str(folder / name) for name in shards.dictionary.to_pylist()], pa.string())
    paths = pc.binary_join_element_wise(pa.scalar(f"{folder}/"), table.column("audio_path"), "")
    own = table.column("domain") if "domain" in table.column_names else pa.nulls(len(table), pa.string())
    own = pc.if_else(
        pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(own)), 0), pa.scalar(None, pa.string()), own
    )
    values = {
        SHARD: pa.DictionaryArray.from_arrays(shards.indices, where),
        "audio_path": paths,
        "domain": own if domain is None else pc.fill_null(own, domain),
    }
    return pa.table({**{name: table.column(name) for name in table.column_names}, **values})


def _distinct(tables: list[pa.Table], paths: Sequence[Path], notes: list[str]) -> list[pa.Table]:
    """The tables with ids that differ between folders."""
    counts = Counter(name for table in tables for name in table.column("id").to_pylist())
    if all(count == 1 for count in counts.values()):
        return tables
    short = len({path.name for path in paths}) == len(paths)
    notes.append("ids repeat from folder to folder: each has its folder's name in front")
    return [
        table.set_column(
            table.column_names.index("id"),
            "id",
            pc.binary_join_element_wise(f"{path.name if short else path}", table.column("id"), "/"),
        )
        for table, path in zip(tables, paths, strict=True)
    ]


def _with_domains(table: pa.Table, default: str | None, notes: list[str]) -> pa.Table:
    column = table.column("domain")
    if not column.null_count:
        return table
    if default is None:
        first = table.column("audio_path").filter(pc.is_null(column))[0].as_py().rpartition(".")[0]
        raise UserError(
            f"{first}: this sample has no domain, nor have {column.null_count - 1:,} others: neither in its JSON nor for "
            "its folder in metadata.json; name the folder's in data.shards.domains, or set data.shards.default_domain"
        )
    notes.append(
        f"{column.null_count:,} samples have no domain and get data.shards.default_domain, {default!r}"
    )
    at = table.column_names.index("domain")
    return table.set_column(at, "domain", pc.fill_null(column, default))
