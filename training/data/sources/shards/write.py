"""Shards from a manifest: a folder of archives that is complete, or not there."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from training.base.errors import UserError
from training.base.files import writable
from training.base.progress import progress_bar
from training.base.system_files import listed
from training.data import audio
from training.data.checks import check_audio
from training.data.example import AudioRef, Example
from training.data.ledger import Drop, DropLedger
from training.data.manifest import Manifest
from training.data.sound_checks import DECODE_BELOW, error_drop
from training.data.sources.shards.index import INDEX, METADATA

DROPPED = "dropped.tsv"
COPIED = frozenset({".wav", ".mp3", ".flac", ".m4a"})
"""Formats that a sample holds as they are; sound of any other, and a stretch of a file, becomes FLAC."""
_PLACE = ("id", "audio_path", "start", "end", "channel", "duration", "split", "split_hint", "words")


@dataclass
class Tally:
    """Samples and seconds, of a folder or of a domain in it."""

    samples: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """One sample more."""
        self.samples += 1
        self.seconds += seconds


@dataclass
class Written:
    """What a call has written: shards with their numbers of samples, domains, and what was left out."""

    shards: dict[str, int] = field(default_factory=dict)
    total: Tally = field(default_factory=Tally)
    domains: dict[str, Tally] = field(default_factory=dict)
    dropped: DropLedger = field(default_factory=DropLedger)

    def note(self, shard: str, domain: str | None, seconds: float) -> None:
        """One sample more in ``shard``."""
        self.shards[shard] = self.shards.get(shard, 0) + 1
        self.total.add(seconds)
        if domain:
            self.domains.setdefault(domain, Tally()).add(seconds)

    def metadata(self) -> dict[str, Any]:
        """The content of ``metadata.json``."""
        domains = {
            name: {"samples": one.samples, "hours": _hours(one)} for name, one in sorted(self.domains.items())
        }
        shards = [{"filename": name, "samples": count} for name, count in self.shards.items()]
        return {
            "total_samples": self.total.samples,
            "total_hours": _hours(self.total),
            "domains": domains,
            "shards": shards,
        }


def _hours(tally: Tally) -> float:
    return round(tally.seconds / 3600, 6)


def write_shards(
    manifest: Manifest, output: Path, *, samples_per_shard: int = 1000, overwrite: bool = False
) -> Written:
    """Write the folder ``output``: ``shard_000000.tar``, …, ``metadata.json``, and `DROPPED` where rows are left out.

    The key of a sample is its row's number; its JSON holds the id and all columns but those that say where the sound
    lay, and the real duration. Rows whose sound cannot be read whole, or that have no text, are left out. The folder
    takes its place when it is complete; a call that is killed leaves one with a dot in front, without
    ``metadata.json``.

    Raises `UserError` for a folder that is there, unless it holds nothing but shards and ``overwrite`` is set, and
    where no row can be used.
    """
    _refuse(output, overwrite)
    with _folder_for(output) as part:
        written = _fill(part, manifest, samples_per_shard)
        if not written.total.samples:
            raise UserError(f"{manifest.path}: no row can be written\n{written.dropped.summary()}")
        if len(written.dropped):
            written.dropped.write(part / DROPPED)
        content = json.dumps(written.metadata(), ensure_ascii=False, indent=2)
        (part / METADATA).write_text(content + "\n", encoding="utf-8")
        _publish(part, output)
    return written


def _refuse(output: Path, overwrite: bool) -> None:
    if not output.exists():
        return
    if not output.is_dir():
        raise UserError(f"--output: {output} is a file; name a folder")
    there = [path.name for path in listed(output)]
    ours = (METADATA, DROPPED, INDEX)
    foreign = [name for name in there if name not in ours and not Path(name).match("shard_*.tar")]
    if foreign:
        raise UserError(f"--output: {output} holds other files, such as {foreign[0]}; name another folder")
    if there and not overwrite:
        raise UserError(
            f"--output: {output} holds shards already; --overwrite replaces them, or name another"
        )


@contextmanager
def _folder_for(output: Path) -> Iterator[Path]:
    """A folder beside ``output`` to fill; removed where it has not been moved away."""
    writable(output.parent, "--output")
    holder = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}.", suffix=".part"))
    part = holder / output.name  # in a folder of its own, because mkdtemp makes private ones
    part.mkdir()
    try:
        yield part
    finally:
        shutil.rmtree(holder)


def _publish(part: Path, output: Path) -> None:
    if output.exists():
        output.rename(part.with_name("replaced"))
    part.rename(output)


def _fill(folder: Path, manifest: Manifest, samples_per_shard: int) -> Written:
    written = Written()
    archive: tarfile.TarFile | None = None
    try:
        for row, example, seconds, (suffix, sound) in _usable(manifest, written.dropped):
            number, inside = divmod(written.total.samples, samples_per_shard)
            name = f"shard_{number:06}.tar"
            if inside == 0:
                if archive is not None:
                    archive.close()
                archive = tarfile.open(folder / name, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
            assert archive is not None
            record = json.dumps(_record(manifest, row, example, seconds), ensure_ascii=False)
            _add(archive, f"{row:09}{suffix}", sound)
            _add(archive, f"{row:09}.json", record.encode())
            written.note(name, example.domain, seconds)
    finally:
        if archive is not None:
            archive.close()
    return written


def _usable(
    manifest: Manifest, dropped: DropLedger
) -> Iterator[tuple[int, Example, float, tuple[str, bytes]]]:
    """Rows with their real length and their sound (`_sound`); the others go into the ledger."""
    decode = len(manifest) < DECODE_BELOW
    with progress_bar(total=len(manifest), unit="row", desc="written") as bar:
        for row in range(len(manifest)):
            bar.update()
            example, found = check_audio(
                manifest, row, min_seconds=0.0, max_seconds=float("inf"), decode=decode, notes=dropped.notes
            )
            if not isinstance(found, Drop) and not example.texts:
                found = Drop(
                    example.id, "empty_text", f"{example.source}: neither transcript nor translation"
                )
            if isinstance(found, Drop):
                dropped.drops.append(found)
                continue
            try:
                sound = _sound(example.audio)
            except audio.AudioError as error:  # where nothing was decoded before
                dropped.drops.append(error_drop(example, error))
            else:
                yield row, example, found, sound


def _record(manifest: Manifest, row: int, example: Example, seconds: float) -> dict[str, Any]:
    """The sample's JSON: the cells that hold something, as they stand in the manifest."""
    cells = {name: manifest.table.column(name)[row].as_py() for name in manifest.column_names}
    record = {"id": example.id, "duration": round(seconds, 6)}
    record |= {name: cell for name, cell in cells.items() if name not in _PLACE and cell not in (None, "")}
    if example.words:
        record["words"] = [[word.text, word.start, word.end] for word in example.words]
    return record


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # without times and owners: the same manifest gives the same bytes
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _sound(ref: AudioRef) -> tuple[str, bytes]:
    """Suffix and bytes of a sample's sound."""
    path = Path(ref.path)
    if path.suffix.lower() in COPIED and _is_whole(ref):
        return path.suffix.lower(), path.read_bytes()
    return ".flac", _flac(ref)


def _is_whole(ref: AudioRef) -> bool:
    if ref.start > 0:
        return False
    if ref.end is None and ref.channel is None:
        return True
    info = audio.probe(ref.path)
    return (ref.end is None or ref.end >= info.duration) and (ref.channel is None or info.channels == 1)


def _flac(ref: AudioRef) -> bytes:
    """The stretch with 16 bits a sample, at its own rate, all channels or the one that is asked for; sound of 16 bits stays what it is."""
    import soundfile

    sink, blocks = io.BytesIO(), audio.stream(ref)
    first, rate = next(blocks)
    with soundfile.SoundFile(sink, "w", rate, first.shape[1], format="FLAC", subtype="PCM_16") as file:
        file.write(_whole_numbers(first))
        for block, _ in blocks:
            file.write(_whole_numbers(block))
    return sink.getvalue()


def _whole_numbers(block: np.ndarray) -> np.ndarray:
    """float32 to int16; libsndfile's own way back is off by one step of the last bit."""
    return np.clip(np.rint(block * 32768.0), -32768, 32767).astype(np.int16)
