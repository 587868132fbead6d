"""From a table of recordings to a frozen version in the registry: read, check, split, freeze, account for every row."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from training.base.errors import UserError
from training.base.files import DerivedFiles
from training.data.ledger import DropLedger
from training.data.manifest import Manifest
from training.data.prepare.split import PARTS, part_name
from training.data.tables import LINE
from training.registry import DEFAULT, versions
from training.registry.checks import Rules
from training.registry.extending import BaseRow, merge
from training.registry.importing import Conversion, Imported, Kept, import_rows
from training.registry.rows import Metadata, read_metadata
from training.registry.splitting import assign, groups_of, take_dev
from training.registry.store import Registry, open_registry
from training.registry.views import describe


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What `prepare` is asked to do."""

    table: Path
    database: str = DEFAULT
    version: str | None = None
    extend: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    audio_root: Path | None = None
    rules: Rules = field(default_factory=Rules)
    conversion: Conversion | None = None
    auto_split: bool = False
    strategy: str = "speaker"
    ratios: tuple[float, float, float] = (0.8, 0.1, 0.1)
    dev_share: float = 0.0
    seed: int = 42
    dry_run: bool = False
    workers: int = min(4, os.cpu_count() or 1)

    def as_options(self) -> dict[str, Any]:
        """What a version's content depends on beside its rows."""
        rules = {name: getattr(self.rules, name) for name in self.rules.__dataclass_fields__}
        chosen = {"auto_split": self.auto_split, "strategy": self.strategy, "ratios": list(self.ratios)}
        return {**rules, **chosen, "dev_share": self.dev_share, "seed": self.seed, "extend": self.extend}


@dataclass(frozen=True)
class Prepared:
    """What `prepare` did. ``version`` is None after a dry run; ``described`` holds `views.describe`."""

    total: int
    imported: Imported
    ledger: DropLedger
    described: Mapping[str, Any]
    version: versions.Frozen | None
    note: str = ""


def prepare(
    settings: Settings, progress: Callable[[int, int], object] = lambda done, total: None
) -> Prepared:
    """Run the whole way. A row that cannot be used stands in the ledger; only what is wrong with the whole is raised.

    Raises `UserError` for a table that cannot be read, for splits that are not there, for a database that cannot be
    written, and when no row can be used.
    """
    metadata = read_metadata(settings.table, columns=settings.columns, audio_root=settings.audio_root)
    ledger = DropLedger(list(metadata.broken))
    manifest = _with_known_parts(metadata.manifest, ledger, settings)
    if settings.strategy == "speaker" and _splits(settings):
        groups_of("speaker", _cells(manifest, "speaker"), _cells(manifest, "transcript"), _sources(manifest))
    if settings.dry_run:
        return _carry_out(None, manifest, metadata, ledger, settings, progress)
    with open_registry(settings.database, create=True) as registry:
        return _carry_out(registry, manifest, metadata, ledger, settings, progress)


def _carry_out(
    registry: Registry | None,
    manifest: Manifest,
    metadata: Metadata,
    ledger: DropLedger,
    settings: Settings,
    progress: Callable[[int, int], object],
) -> Prepared:
    base = _base(registry, settings)
    imported = import_rows(
        registry,
        manifest,
        settings.rules,
        conversion=settings.conversion,
        workers=settings.workers,
        progress=lambda rows: progress(rows, len(manifest)),
    )
    ledger.extend(imported.ledger)
    if not imported.kept and not base:
        raise UserError(_nothing_left(settings, metadata.total, ledger))
    rows = merge(registry, base, _new_rows(manifest, imported.kept, settings), ledger)
    rows = _with_parts(rows, settings)
    described = describe(
        [row.split for row in rows],
        np.array([row.seconds for row in rows]),
        files=[row.stretch_of for row in rows],
        speakers=[row.speaker for row in rows],
        groups=[row.group for row in rows],
        texts=[row.text for row in rows],
    )
    frozen = _freeze(registry, rows, manifest, settings) if registry is not None else None
    return Prepared(metadata.total, imported, ledger, described, frozen, metadata.note)


def _nothing_left(settings: Settings, total: int, ledger: DropLedger) -> str:
    message = f"{settings.table}: none of its {total:,} rows can be used\n{ledger.summary()}"
    if settings.dry_run:
        return message
    (path,) = write_ledgers(settings, settings.table.stem, ledger, DropLedger())
    return f"{message}\neach of them with its reason: {path}"


def _splits(settings: Settings) -> bool:
    return settings.auto_split or settings.dev_share > 0


def _base(registry: Registry | None, settings: Settings) -> list[BaseRow]:
    if settings.extend is None:
        return []
    if registry is not None:
        return [BaseRow.stored(row) for row in versions.rows(registry, settings.extend, key="--extend")]
    with open_registry(settings.database) as opened:
        return [BaseRow.stored(row) for row in versions.rows(opened, settings.extend, key="--extend")]


def _with_known_parts(manifest: Manifest, ledger: DropLedger, settings: Settings) -> Manifest:
    """Rows whose split is one of ours, or none where rows without one are split here."""
    names = [part_name(cell) for cell in _cells(manifest, "split")]
    if not settings.auto_split and not any(names):
        raise UserError(
            f"{settings.table}:1: no row names its split; add --auto_split (by {settings.strategy}: --split_strategy), or "
            "fill a column 'split' with train, val, test"
        )
    good, ids = [], manifest.table.column("id")
    for row, name in enumerate(names):
        if name in PARTS or (not name and settings.auto_split):
            good.append(row)
            continue
        reason = "bad_split" if name else "no_split"
        detail = (
            f"split: {name!r} is none of {', '.join(PARTS)}" if name else "no split; --auto_split gives one"
        )
        ledger.add(str(ids[row]), reason, f"{manifest.path}:{manifest.line(row)}: {detail}")
    return manifest if len(good) == len(names) else manifest.select(good)


def _sources(manifest: Manifest) -> list[str]:
    return [f"{manifest.path}:{line}" for line in manifest.table.column(LINE).to_pylist()]


def _cells(manifest: Manifest, name: str) -> list[Any]:
    if name == "group" and not {"group", "video_id"} & set(manifest.column_names):
        return [None] * len(manifest)
    if name != "group" and name not in manifest.column_names:
        return [None] * len(manifest)
    return manifest.column(name)


def _new_rows(manifest: Manifest, kept: Sequence[Kept], settings: Settings) -> list[BaseRow]:
    chosen = manifest.select([k.index for k in kept])
    cells = {name: _cells(chosen, name) for name in ("id", "split", "speaker", "group", "transcript")}
    sources = _sources(chosen)
    return [
        BaseRow(
            transcript_id=k.transcript_id,
            fingerprint=k.fingerprint,
            utterance=cells["id"][i],
            split=part_name(cells["split"][i]),
            seconds=k.seconds,
            speaker=cells["speaker"][i],
            group=cells["group"][i],
            text=cells["transcript"][i] or "",
            stretch_of=k.content_hash,
            source=sources[i],
        )
        for i, k in enumerate(kept)
    ]


def _with_parts(rows: Sequence[BaseRow], settings: Settings) -> list[BaseRow]:
    """Every row with a split: its own, that of the version it extends, or a new one."""
    if not _splits(settings):
        return list(rows)
    groups = groups_of(
        settings.strategy,
        [row.speaker for row in rows],
        [row.text for row in rows],
        [row.source for row in rows],
    )
    seconds = np.array([row.seconds for row in rows])
    parts = [row.split for row in rows]
    if not all(parts):
        parts = assign(parts, seconds, groups, ratios=settings.ratios, seed=settings.seed)
    if settings.dev_share > 0 and "dev" not in parts:
        parts = take_dev(parts, seconds, groups, settings.dev_share, settings.seed)
    return [row.moved_to(part) for row, part in zip(rows, parts, strict=True)]


def _freeze(
    registry: Registry, rows: Sequence[BaseRow], manifest: Manifest, settings: Settings
) -> versions.Frozen:
    return versions.freeze(
        registry,
        [row.item() for row in rows],
        name=settings.version,
        source=str(settings.table),
        source_hash=manifest.sha256(),
        options=settings.as_options(),
    )


def write_ledgers(settings: Settings, name: str, ledger: DropLedger, notes: DropLedger) -> list[Path]:
    """``<name>_dropped.tsv`` and ``<name>_notes.tsv`` beside the database (or in the output folder); paths written.

    Raises `UserError` for files that somebody else made, and when they cannot be written.
    """
    folder = settings.conversion.folder if settings.conversion is not None else _database_folder(settings)
    texts = {folder / f"{name}_dropped.tsv": ledger, folder / f"{name}_notes.tsv": notes}
    written = {path: entries for path, entries in texts.items() if len(entries)}
    try:
        with DerivedFiles(folder / f"{name}_prepare.json", written) as files:
            for path, entries in written.items():
                with files.open(path) as handle:
                    entries.write_to(handle)
            files.publish(
                {"made_by": "prepare_data", "table": str(settings.table), "dropped": ledger.counts()}
            )
    except OSError as error:
        raise UserError(f"{folder}: the ledger cannot be written: {error.strerror}") from error
    return list(written)


def _database_folder(settings: Settings) -> Path:
    return settings.table.parent if "://" in settings.database else Path(settings.database).parent
