"""A `datasets` dataset as a source of utterances: a hub id, local Parquet, an audio folder, a saved dataset.

`datasets` keeps the rows (memory-mapped Arrow); the sound is decoded by `training.data.audio`, never by
torchcodec.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from training.base.errors import UserError
from training.base.system_files import listed
from training.data import audio
from training.data.columns import DATASET_COLUMNS
from training.data.example import Example
from training.data.manifest import Manifest, from_table, with_header_durations
from training.data.sources.audio_folder import METADATA, is_audio_folder, load_audio_folder
from training.data.tables import fingerprint, stringify

_BATCH = 256
_SIZES = 10_000
_ROW = re.compile(r"^row \d+ ?")


def load_source(
    path: str,
    *,
    name: str | None = None,
    split: str = "train",
    columns: Mapping[str, str] | None = None,
    audio_root: Path | None = None,
) -> DatasetSource | Manifest:
    """Open the dataset ``path`` and map its columns (ours → theirs; ``audio_path`` is the audio column).

    ``path`` is a hub id, a ``.parquet`` file, a folder with Parquet files, a folder of audio files (see
    `training.data.sources.audio_folder`), or what ``Dataset.save_to_disk`` wrote; ``name`` is the dataset's configuration. The audio column (``audio`` unless mapped) may be of the type ``Audio`` or hold
    paths, relative to ``audio_root`` or to the dataset's folder. Without a column ``duration`` the length comes
    from every file's header.

    Raises `UserError` for a dataset that cannot be loaded and for the mistakes that `load_manifest` reports.
    """
    if _is_plain_folder(Path(path)):
        return load_audio_folder(Path(path), split, columns)
    data = _load(path, name, split)
    columns = dict(columns or {})
    sound = columns.pop("audio_path", None) or ("audio" if "audio" in data.column_names else "audio_path")
    if sound not in data.column_names:
        raise UserError(
            f"data.dataset: {path} has no audio column {sound!r} (there are: {', '.join(data.column_names)}); name it in "
            "data.dataset.columns.audio_path"
        )
    data = _undecoded(data, sound)
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    label = Path(f"{path}[{split}]")
    table = _table(data, sound, columns, path)
    audio_root = Path(audio_root) if audio_root is not None else folder
    rows = from_table(table, label, audio_root=audio_root, need_duration=False)
    stated = with_header_durations(rows, DatasetSource(rows, data, sound).seconds)
    return DatasetSource(stated, data, sound)


class DatasetSource(Sequence[Example]):
    """The interface of `training.data.manifest.Manifest` over a `datasets` dataset."""

    column_option = DATASET_COLUMNS

    def __init__(self, rows: Manifest, data: Any, sound: str) -> None:
        self.rows = rows
        self.data = data
        self.sound = sound
        self.path = rows.path

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return self.select(range(*index.indices(len(self)))) if isinstance(index, slice) else self.rows[index]

    @property
    def ids(self) -> list[str]:
        """Utterance ids, in the order of the rows."""
        return self.rows.ids

    @property
    def durations(self) -> np.ndarray:
        """Seconds of each utterance, float32 ``[rows]``."""
        return self.rows.durations

    @property
    def column_names(self) -> list[str]:
        """Columns under our names."""
        return self.rows.column_names

    def column(self, name: str) -> list[Any]:
        """All cells of a column; None where it has no value."""
        return self.rows.column(name)

    def texts(self) -> Iterator[tuple[str, str | None, str]]:
        """``(task, language, text)`` of every text that is there."""
        return self.rows.texts()

    def take_channel(self, channel: int) -> None:
        """Take this channel of the sound of every row that names none (column ``channel``)."""
        self.rows.take_channel(channel)

    def select(self, indices: Sequence[int] | np.ndarray) -> DatasetSource:
        """The rows ``indices``, in that order."""
        return DatasetSource(self.rows.select(indices), self.data.select(indices), self.sound)

    def waveform(self, index: int, sample_rate: int) -> np.ndarray:
        """The sound of row ``index``, from its bytes where the dataset holds them. Raises `audio.AudioError`."""
        ref, data = self.rows[index].audio, self._bytes(index)
        return (
            audio.load_audio(ref, sample_rate) if data is None else audio.load_bytes(data, ref, sample_rate)
        )

    def blocks(self, index: int) -> Iterator[tuple[np.ndarray, int]]:
        """The same at its own rate, piece by piece. Raises `audio.AudioError`."""
        ref, data = self.rows[index].audio, self._bytes(index)
        return audio.stream(ref) if data is None else iter([audio.block_of_bytes(data, ref)])

    def seconds(self, index: int) -> float:
        """The real length of row ``index`` by its header. Raises `audio.AudioError`."""
        ref, data = self.rows[index].audio, self._bytes(index)
        info = audio.probe(ref.path) if data is None else audio.probe_bytes(data, ref.path)
        return audio.segment_duration(ref, info)

    @property
    def table(self) -> pa.Table:
        """The rows without their sound, under our names."""
        return self.rows.table

    def sound_marks(self) -> list[str]:
        """A mark of the audio of each row: name and size in bytes, without the number of the row."""
        sizes = self._sizes()
        if sizes is None:
            return self.rows.sound_marks()
        names = self.rows.table.column("audio_path").to_pylist()
        return [f"{_ROW.sub('', name)} {size}" for name, size in zip(names, sizes, strict=True)]

    def _sizes(self) -> list[int] | None:
        """Bytes of each sound inside the dataset; None where it holds paths. Reads no sound."""
        import datasets

        if not isinstance(self.data.features[self.sound], datasets.Audio):
            return None
        sizes: list[int] = []
        for batch in self.data.select_columns(self.sound).with_format("arrow").iter(batch_size=_SIZES):
            content = pc.struct_field(batch.column(self.sound), "bytes")
            sizes += pc.fill_null(pc.binary_length(content), -1).to_pylist()
        return sizes if any(size >= 0 for size in sizes) else None

    def sha256(self) -> str:
        """A fingerprint of the rows: texts, times and paths."""
        return fingerprint(self.rows.table)

    def _bytes(self, index: int) -> bytes | None:
        cell = self.data[int(index)][self.sound]
        return cell.get("bytes") if isinstance(cell, dict) else None


def _is_plain_folder(folder: Path) -> bool:
    """An audio folder: not what `datasets` has saved, and no Parquet dataset."""
    if not folder.is_dir() or _is_saved(folder) or _holds_parquet(folder):
        return False
    return is_audio_folder(folder)


def _is_saved(folder: Path) -> bool:
    return (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()


def _holds_parquet(folder: Path) -> bool:
    return any(
        path.name not in METADATA
        for pattern in ("*.parquet", "*/*.parquet")
        for path in listed(folder, pattern)
    )


def _load(path: str, name: str | None, split: str) -> Any:
    import datasets

    try:
        if _is_saved(Path(path)):
            saved = datasets.load_from_disk(path)
            return saved[split] if isinstance(saved, datasets.DatasetDict) else saved
        return datasets.load_dataset(**_arguments(Path(path), path), name=name, split=split)
    except (
        FileNotFoundError,
        ConnectionError,
        ValueError,
        KeyError,
        datasets.exceptions.DatasetsError,
    ) as error:
        raise UserError(
            f"data.dataset: {path} (split {split!r}) cannot be loaded: {error.__cause__ or error}"
        ) from error


def _arguments(local: Path, path: str) -> dict[str, Any]:
    """How `datasets.load_dataset` is to be called for a hub id, a Parquet file or a folder."""
    if local.is_file():
        if local.suffix != ".parquet":
            raise UserError(
                f"data.dataset: {path}: a file must be Parquet; give a TSV, CSV or JSONL to data.train instead"
            )
        return {"path": "parquet", "data_files": {"train": path}}
    if not local.is_dir():
        return {"path": path}
    if _holds_parquet(local):
        return {"path": path}
    raise UserError(f"data.dataset: {path}: the folder holds neither Parquet nor audio files")


def _undecoded(data: Any, sound: str) -> Any:
    import datasets

    if isinstance(data.features[sound], datasets.Audio):
        return data.cast_column(sound, datasets.Audio(decode=False))
    return data


def _table(data: Any, sound: str, columns: Mapping[str, str], path: str) -> pa.Table:
    """The columns beside the sound as strings under our names, and a path (or a name) for each sound."""
    import datasets

    for ours, theirs in columns.items():
        if theirs not in data.column_names:
            raise UserError(
                f"data.dataset.columns.{ours}: {path} has no column {theirs!r} (there are: {', '.join(data.column_names)})"
            )
    names = {theirs: ours for ours, theirs in columns.items()}
    kept = [c for c in data.column_names if c != sound and (c in names or c not in columns)]
    cells = {names.get(c, c): _cells(data, c, datasets.ClassLabel) for c in kept}
    cells["audio_path"] = pa.chunked_array([pa.array(_paths(data, sound), pa.string())])
    return stringify(pa.table(cells))


def _cells(data: Any, column: str, class_label: Any) -> pa.ChunkedArray:
    feature = data.features[column]
    if isinstance(feature, class_label):
        return pa.chunked_array([pa.array([None if i is None else feature.int2str(i) for i in data[column]])])
    return data.select_columns(column).with_format("arrow")[:].column(column)


def _paths(data: Any, sound: str) -> list[str]:
    """Where each sound lies; bytes inside the dataset get the row's number, because names in it need not differ."""
    result: list[str] = []
    for batch in data.select_columns(sound).iter(batch_size=_BATCH):
        for cell in batch[sound]:
            inside = isinstance(cell, dict) and cell.get("bytes") is not None
            path = (cell.get("path") if isinstance(cell, dict) else cell) or ""
            result.append(f"row {len(result)}{f' ({path})' if path else ''}" if inside else path)
    return result
