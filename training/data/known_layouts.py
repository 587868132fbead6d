"""Tables of other projects that are read as they are: NeMo's JSONL, Common Voice's TSV, Kaldi's data folders."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from training.base.errors import UserError
from training.data.cells import renamed
from training.data.json_tables import json_value
from training.data.tables import LINE, MAX_PROBLEMS, raise_problems

COMMON_VOICE = {"path": "audio_path", "sentence": "transcript", "client_id": "speaker", "locale": "language"}
NEMO = {"audio_filepath": "audio_path", "text": "transcript", "lang": "language"}
"""Their column → ours."""
CLIPS = "clips"
"""Folder beside a table of Common Voice that holds its sound."""


def as_ours(table: pa.Table, path: Path) -> pa.Table:
    """The table under our column names, where its columns are those of NeMo or Common Voice; else the table as it is.

    NeMo: ``offset`` and ``duration`` become ``start`` and ``end``. Common Voice: sound is looked up in ``clips`` beside the table.
    A line on stderr says what was recognised.

    Args:
        table: all cells strings, see `training.data.tables.read_table`.
        path: of its file.
    """
    names = set(table.column_names)
    if "audio_path" in names or "transcript" in names:
        return table
    if {"audio_filepath", "duration", "text"} <= names:
        return _told(_with_stretches(_renamed(table, NEMO)), path, "NeMo")
    if {"client_id", "path", "sentence"} <= names:
        return _told(_in_clips(_renamed(table, COMMON_VOICE), path.parent), path, "Common Voice")
    return table


def is_nemo(path: Path) -> bool:
    """Whether a ``.json`` file is a table of NeMo: one object a line, the first with ``audio_filepath``."""
    try:
        with path.open(encoding="utf-8-sig") as handle:
            first = json_value(handle.readline(1 << 20))
    except (OSError, ValueError):
        return False
    return isinstance(first, dict) and "audio_filepath" in first


def _told(table: pa.Table, path: Path, whose: str) -> pa.Table:
    print(f"{path}: read as a table of {whose}", file=sys.stderr)
    return table


def _renamed(table: pa.Table, ours: Mapping[str, str]) -> pa.Table:
    """Under our names, as far as they are free."""
    taken = {theirs: name for theirs, name in ours.items() if name not in table.column_names}
    return renamed(table, table.column_names, lambda name: taken.get(name, name))


def _with_stretches(table: pa.Table) -> pa.Table:
    if "offset" not in table.column_names or {"start", "end"} & set(table.column_names):
        return table
    starts, ends = [], []
    for offset, duration in zip(
        table.column("offset").to_pylist(), table.column("duration").to_pylist(), strict=True
    ):
        starts.append(offset)
        ends.append(_sum(offset, duration))
    return table.append_column("start", pa.array(starts, pa.string())).append_column(
        "end", pa.array(ends, pa.string())
    )


def _sum(offset: str | None, duration: str | None) -> str | None:
    """None where one is missing or no number: the checks of a manifest name such cells."""
    try:
        return f"{float(offset or '') + float(duration or ''):.6f}"
    except ValueError:
        return None


def _in_clips(table: pa.Table, folder: Path) -> pa.Table:
    cells = table.column("audio_path").to_pylist()
    first = next((cell for cell in cells if cell), None)
    if first is None or (folder / first).exists() or not (folder / CLIPS).is_dir():
        return table
    moved = pa.array([f"{CLIPS}/{cell}" if cell else cell for cell in cells], pa.string())
    return table.set_column(table.column_names.index("audio_path"), "audio_path", moved)


def is_kaldi(folder: Path) -> bool:
    """Whether a folder is a data folder of Kaldi: it holds ``wav.scp`` and ``text``."""
    return (folder / "wav.scp").is_file() and (folder / "text").is_file()


def read_kaldi(folder: Path) -> pa.Table:
    """A data folder of Kaldi as a table of strings with our column names, and `LINE`, the line in ``text``.

    Read are ``text``, ``wav.scp``, and where they are there ``segments``, ``utt2spk``, ``utt2lang`` and ``utt2dur``. Paths in
    ``wav.scp`` start from the working directory, as Kaldi's do, or from the folder.

    Args:
        folder: see `is_kaldi`.

    Raises:
        UserError: a line of ``wav.scp`` is a command (commands in data are never run), or names and lines do not fit together.
    """
    sounds = _sounds(folder)
    segments = dict(_pairs(folder / "segments"))
    speakers, languages, durations = (
        dict(_pairs(folder / name)) for name in ("utt2spk", "utt2lang", "utt2dur")
    )
    rows: dict[str, list[str | None]] = {
        name: [] for name in ("id", "audio_path", "start", "end", "video_id")
    }
    rows |= {name: [] for name in ("duration", "transcript", "speaker", "language")}
    problems = []
    for number, (name, text) in enumerate(_pairs(folder / "text"), 1):
        recording, start, end = _stretch(segments.get(name), name)
        if recording not in sounds or (segments and name not in segments):
            where = "segments" if segments and name not in segments else "wav.scp"
            problems.append(f"{folder / 'text'}:{number}: {name}: is not in {folder / where}")
            continue
        cells: list[str | None] = [name, sounds[recording], start, end, recording if segments else None]
        cells += [durations.get(name), text, speakers.get(name), languages.get(name)]
        for column, cell in zip(rows.values(), cells, strict=True):
            column.append(cell)
    raise_problems(problems[:MAX_PROBLEMS], more=len(problems) - MAX_PROBLEMS)
    columns = {name: pa.array(cells, pa.string()) for name, cells in rows.items() if any(cells)}
    print(f"{folder}: read as a data folder of Kaldi", file=sys.stderr)
    return pa.table({**columns, LINE: pa.array(range(1, len(rows["id"]) + 1), pa.int32())})


def _stretch(cells: str | None, name: str) -> tuple[str, str | None, str | None]:
    recording, start, end = (*(cells or name).split(), None, None)[:3]
    return str(recording), start, end


def _sounds(folder: Path) -> dict[str, str]:
    found = {}
    for number, (name, place) in enumerate(_pairs(folder / "wav.scp"), 1):
        if place.rstrip().endswith("|"):
            raise UserError(
                f"{folder / 'wav.scp'}:{number}: is a command, and commands in data are not run; write the sound to files, "
                f"and their paths into wav.scp: {place[:80]}"
            )
        found[name] = (
            place if (folder / place).exists() or not Path(place).exists() else str(Path(place).absolute())
        )
    return found


def _pairs(path: Path) -> Iterator[tuple[str, str]]:
    """First word and rest of each line; nothing where there is no file."""
    if not path.is_file():
        return
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 ({error}); convert it with iconv") from error
    for line in lines:
        name, _, rest = line.strip().partition(" ")
        if "\t" in name:
            name, _, rest = line.strip().partition("\t")
        if name:
            yield name, rest.strip()
