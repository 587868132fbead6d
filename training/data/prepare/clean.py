"""Clean a manifest.

Texts are cleaned (`training.data.text`), rows that cannot be used are left out. Every one of them stands in the
ledger ``<output>_dropped.tsv`` beside the output, with its reason. Clips that are too long are dropped, never cut:
their text would stay whole.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from math import inf
from pathlib import Path
from typing import Any, get_args

from training.base.errors import UserError
from training.base.files import DerivedFiles, rebase, writable
from training.data.checks import check_audio
from training.data.column_names import guess
from training.data.columns import COMMAND, no_column
from training.data.control_marks import SEGMENTS, WORDS, MarkTally, time_cells, time_columns, unmarked
from training.data.decode_pool import DecodePool, will_decode
from training.data.example import Example
from training.data.korean_text import Dual, KoreanRules, Numerals, clean_korean, has_two_transcripts
from training.data.ledger import Drop, DropLedger
from training.data.lengths import length_drop
from training.data.levels import Level
from training.data.manifest import TEXT_COLUMNS, Manifest, load_manifest
from training.data.missing import KEEP, REASON, is_marker, problem
from training.data.sound_checks import DECODE_BELOW, channel_note, decoded_drop
from training.data.tables import row_writer
from training.data.text import clean_transcript

_BLOCK = 2048
_WITHOUT = {
    "transcript": "the rows have translations only",
    "translation": "the rows have transcripts only, which is enough to train transcription",
}
"""What a manifest without one of `TEXT_COLUMNS` is good for."""
_KOREAN = re.compile(r"ko(r|rean)?([-_].*)?", re.IGNORECASE)


def _add_sound_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--skip_audio_check", action="store_true", help="do not open the audio files")
    parser.add_argument(
        "--decode",
        action="store_true",
        default=None,
        help="decode every clip to its last sample and leave out what has NaN or infinite samples, silence under a "
        f"text, or damage that no header shows (default below {DECODE_BELOW:,} clips)",
    )
    parser.add_argument(
        "--no_decode", "--no-decode", dest="decode", action="store_false", help="read headers only"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=min(4, os.cpu_count() or 1),
        help="processes that decode, threads that read headers",
    )


def _add_korean_arguments(parser: argparse.ArgumentParser) -> None:
    korean = parser.add_argument_group("Korean transcripts")
    korean.add_argument(
        "--korean",
        action="store_true",
        help="jamo and widths made one, marks of AI-Hub (b/ n/ 아/ 그+ 그*) taken out, in rows whose language is ko or "
        "not given",
    )
    korean.add_argument(
        "--dual",
        choices=get_args(Dual),
        help="which of two transcripts in (30%%)/(삼십 퍼센트) stays; without it such rows are dropped",
    )
    korean.add_argument(
        "--numerals",
        choices=get_args(Numerals),
        default="keep",
        help="read: digits are spelt out (3개: 세개, 30분: 삼십분); keep (default)",
    )


def ledger_path(output: Path) -> Path:
    """Where the ledger of ``output`` is written."""
    return output.with_name(f"{output.stem}_dropped.tsv")


def _is_korean(language: str | None) -> bool:
    return _KOREAN.fullmatch(language or "ko") is not None


def _look_for_korean(manifest: Manifest) -> None:
    """`UserError` where all rows name other languages, so that ``--korean`` would change nothing."""
    if "language" not in manifest.column_names:
        return
    named = set(manifest.column("language"))
    if not any(map(_is_korean, named)):
        raise UserError(
            f"--korean: no row of {manifest.path} is Korean (language: {', '.join(sorted(filter(None, named)))}); Korean "
            "is ko there, or leave --korean out"
        )


def _look_for_texts(source: Path, names: Sequence[str]) -> None:
    """A line on stderr where there is no transcript or no translation, with the column that may be it."""
    for name in TEXT_COLUMNS.values():
        if name not in names and guess(name, names):
            print(f"{source}: {no_column(name, names, COMMAND)}", file=sys.stderr)
        elif name not in names:
            print(f"{source}: no column {name!r}; {_WITHOUT[name]}", file=sys.stderr)


def preprocess(
    source: Path,
    output: Path,
    *,
    min_duration: float = 0.5,
    max_duration: float = 30.0,
    audio_root: Path | None = None,
    require: Sequence[str] | None = None,
    columns: Mapping[str, str] | None = None,
    check_files: bool = True,
    decode: bool | None = None,
    workers: int = 1,
    force: bool = False,
    korean: KoreanRules | None = None,
    keep_markers: Sequence[str] = (),
    report: Callable[[str], object] = lambda text: None,
    progress: Callable[[int, int], object] = lambda rows, total: None,
) -> tuple[int, DropLedger]:
    """Clean ``source`` into ``output``; returns the number of rows read and the ledger of those left out.

    Further columns are kept; audio paths are rewritten relative to the output's folder. ``korean``: how Korean
    transcripts are cleaned beyond that. A duration that is missing, or ``N/A`` and the like, is the file's own; with
    ``check_files`` false it must be there. Texts that are only a word for "no value" (`training.data.missing`) are
    dropped unless ``keep_markers`` names that word. ``decode``: every clip to its last sample, by ``workers``
    processes; None: where there are fewer than `DECODE_BELOW`. ``report`` is told which; ``progress`` how many rows
    more of how many were looked at. Reasons: ``missing_text_marker``, ``empty_transcript``, ``empty_translation``,
    ``dual_transcript``, ``control_mark`` (see `training.data.control_marks`), ``too_short``, ``too_long``, ``word_languages`` (tags that do not line up with the cleaned
    words), and those of `training.data.sound_checks`.

    Raises `UserError` for a manifest that cannot be read, for an output that somebody else made, and when
    nothing is left.
    """
    manifest = _opened(source, output, audio_root, require, columns, need_duration=not check_files)
    if korean is not None:
        _look_for_korean(manifest)
    decode = will_decode(len(manifest), decode, check_files, report)
    rules = _Rules(
        manifest,
        _required(manifest, require),
        min_duration,
        max_duration,
        check_files,
        max(1, workers) if decode else 0,
        workers,
        korean,
        keep_markers,
    )
    record = output.with_name(f"{output.stem}_preprocess.json")
    with DerivedFiles(record, [output, ledger_path(output)], force=force) as files:
        ledger = _write_kept(files, output, manifest, rules, progress)
        _require_some(source, len(manifest), ledger)
        if line := rules.marks.line(f"in the columns {SEGMENTS} and {WORDS}"):
            print(line)
        with files.open(ledger_path(output)) as handle:
            ledger.write_to(handle)
        rules.tell_emptied(source)
        files.publish(_record(source, manifest, rules, ledger))
    return len(manifest), ledger


def _require_some(source: Path, total: int, ledger: DropLedger) -> None:
    if len(ledger) == total:
        raise UserError(f"{source}: none of its {total:,} utterances can be used\n{ledger.summary()}")


def _opened(
    source: Path,
    output: Path,
    audio_root: Path | None,
    require: Sequence[str] | None,
    columns: Mapping[str, str] | None,
    *,
    need_duration: bool,
) -> Manifest:
    """The manifest, once it is certain that the output can be written."""
    if output.suffix not in (".tsv", ".csv", ".jsonl"):
        raise UserError(f"--output {output}: a manifest is written as .tsv, .csv or .jsonl")
    if output.resolve() == source.resolve():
        raise UserError(f"--output {output}: is the input; the export is kept as it is, name another file")
    writable(output.parent, "--output")
    manifest = load_manifest(
        source,
        audio_root=audio_root,
        columns=columns,
        require=require or (),
        check_words=False,
        need_duration=need_duration,
        need_text=True,
        option=COMMAND,
    )
    _look_for_texts(source, manifest.column_names)
    return manifest


def _record(source: Path, manifest: Manifest, rules: _Rules, ledger: DropLedger) -> dict[str, Any]:
    """What was done, for the file beside the output."""
    return {
        "made_by": "preprocess_manifest",
        "input": source.as_posix(),
        "input_sha256": manifest.sha256(),
        "min_duration": rules.min_duration,
        "max_duration": rules.max_duration,
        "decoded": bool(rules.decoders),
        "korean": rules.korean and asdict(rules.korean),
        "keep_text_markers": list(rules.keep_markers),
        "utterances": len(manifest),
        "dropped": ledger.counts(),
        "control_marks": dict(rules.marks.counts),
    }


def _write_kept(
    files: DerivedFiles,
    output: Path,
    manifest: Manifest,
    rules: _Rules,
    progress: Callable[[int, int], object],
) -> DropLedger:
    """The rows that stay go into ``output``, the others into the ledger."""
    ledger = DropLedger()
    with files.open(output) as handle:
        texts = manifest.column("transcript") if "transcript" in manifest.column_names else ()
        added = [name for name in time_columns(texts) if name not in manifest.column_names]
        write = row_writer(handle, output.suffix, [*manifest.column_names, *added])
        for row, drop in rules.rows():
            if drop is None:
                write({**row, "audio_path": _path(manifest, row["audio_path"], output.parent)})
            else:
                ledger.add(drop.id, drop.reason, drop.detail)
            progress(1, len(manifest))
    ledger.notes = rules.notes
    return ledger


def _required(manifest: Manifest, require: Sequence[str] | None) -> list[str]:
    texts = list(TEXT_COLUMNS.values())
    if require is None:
        return [name for name in texts if name in manifest.column_names]
    unknown = [name for name in require if name not in texts]
    if unknown:
        raise UserError(f"--require {unknown[0]}: choose from {', '.join(texts)}")
    return list(require)


def _path(manifest: Manifest, cell: str, folder: Path) -> str:
    return cell if Path(cell).is_absolute() else rebase(manifest.resolve(cell), folder)


class _Rules:
    """Which rows stay. Cheap rules come first: a file is opened only for a row that would stay otherwise."""

    def __init__(
        self,
        manifest: Manifest,
        require: Sequence[str],
        min_duration: float,
        max_duration: float,
        check_files: bool,
        decoders: int,
        workers: int,
        korean: KoreanRules | None,
        keep_markers: Sequence[str],
    ) -> None:
        self.manifest = manifest
        self.require = require
        self.min_duration = min_duration
        self.max_duration = max_duration
        self.check_files = check_files
        self.decoders = decoders
        self.workers = workers
        self.korean = korean
        self.notes: list[Drop] = []
        self.keep_markers = keep_markers
        self.emptied: list[str] = []
        self.marks = MarkTally()

    def rows(self) -> Iterator[tuple[dict[str, Any], Drop | None]]:
        """Every row with its texts cleaned, and why it is left out (None: it stays)."""
        with ThreadPoolExecutor(max(1, self.workers)) as pool, DecodePool(self.decoders) as decoders:
            for start in range(0, len(self.manifest), _BLOCK):
                block = self.manifest.table.slice(start, _BLOCK).to_pylist()
                judged = pool.map(self._judge, range(start, start + len(block)), block)
                yield from self._decoded(start, list(judged), decoders) if self.decoders else judged

    def _decoded(
        self, start: int, judged: Sequence[tuple[dict[str, Any], Drop | None]], decoders: DecodePool
    ) -> Iterator[tuple[dict[str, Any], Drop | None]]:
        """The same rows; those that stay by their headers are decoded. The first is row ``start``."""
        examples = {n: self.manifest[start + n] for n, (_, drop) in enumerate(judged) if drop is None}
        levels = decoders.levels([example.audio for example in examples.values()])
        for n, (row, drop) in enumerate(judged):
            if n in examples:
                level = next(levels)
                texts = [row.get(name) or "" for name in TEXT_COLUMNS.values()]
                drop = decoded_drop(
                    examples[n],
                    level,
                    texts,
                    min_seconds=self.min_duration,
                    max_seconds=self.max_duration,
                )
                if drop is None and (note := channel_note(examples[n], level)):
                    self.notes.append(note)
                if examples[n].duration is None and isinstance(level, Level):
                    row["duration"] = level.seconds
            yield row, drop

    def _judge(self, index: int, row: dict[str, Any]) -> tuple[dict[str, Any], Drop | None]:
        example = self.manifest[index]
        korean = self.korean if _is_korean(example.language) and "transcript" in row else None
        cleaners = {} if korean is None else {"transcript": lambda text: clean_korean(text, korean)}
        found = {
            name: unmarked(
                row[name] or "", name, example.duration or inf, cleaners.get(name, clean_transcript)
            )
            for name in TEXT_COLUMNS.values()
            if name in row
        }
        self.marks.add(found)
        if korean is not None and korean.dual is None and has_two_transcripts(found["transcript"].text):
            detail = f"{example.source}: (…)/(…) is said once and written twice; choose with --dual"
            return row, Drop(example.id, "dual_transcript", detail)
        if fault := next((one.fault for one in found.values() if one.fault), None):
            return row, Drop(example.id, "control_mark", f"{example.source}: {fault}")
        texts = {name: one.text for name, one in found.items()}
        row = {**row, **texts, **(time_cells(found["transcript"], row) if "transcript" in found else {})}
        drop = self._marker_drop(example, row) or self._text_drop(example, row)
        return row, drop or self._sound_drop(example, row, index)

    def _marker_drop(self, example: Example, row: dict[str, Any]) -> Drop | None:
        """For a text that is only a word for "no value"; where the text is not required, the cell is emptied."""
        for name in TEXT_COLUMNS.values():
            if not is_marker(row.get(name), self.keep_markers):
                continue
            if name in self.require:
                return Drop(example.id, REASON, f"{example.source}: {problem(name, row[name], f'{KEEP} ')}")
            row[name] = ""
            self.emptied.append(name)
        return None

    def tell_emptied(self, source: Path) -> None:
        """A line for each column in which cells were emptied."""
        for name in dict.fromkeys(self.emptied):
            count = self.emptied.count(name)
            print(
                f"{source}: {name}: {count:,} cells that only say nan, None or the like are left empty",
                file=sys.stderr,
            )

    def _text_drop(self, example: Example, row: Mapping[str, Any]) -> Drop | None:
        for name in self.require:
            if not row[name]:
                return Drop(example.id, f"empty_{name}", f"{example.source}: nothing left after cleaning")
        tags, words = len(example.word_languages), len((row.get("transcript") or "").split())
        if tags and tags != words:
            detail = f"{example.source}: {tags} tags for {words} words of the cleaned transcript"
            return Drop(example.id, "word_languages", detail)
        return None

    def _sound_drop(self, example: Example, row: dict[str, Any], index: int) -> Drop | None:
        stated = None
        if example.duration is not None:
            stated = length_drop(example, example.duration, self.min_duration, self.max_duration)
        if stated or not self.check_files:
            return stated
        found = check_audio(
            self.manifest, index, min_seconds=self.min_duration, max_seconds=self.max_duration
        )[1]
        if isinstance(found, Drop):
            return found
        if not stated:
            row["duration"] = found
        return None
