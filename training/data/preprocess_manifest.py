"""Clean a manifest: ``python training/data/preprocess_manifest.py --input … --output …``.

Texts are cleaned (`training.data.text`), rows that cannot be used are left out. Every one of them stands in the
ledger ``<output>_dropped.tsv`` beside the output, with its reason. Clips that are too long are dropped, never cut:
their text would stay whole.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from difflib import get_close_matches
from math import inf
from pathlib import Path
from typing import Any, get_args

from training.data.checks import check_audio
from training.data.columns import column_names
from training.data.control_marks import SEGMENTS, WORDS, MarkTally, time_cells, time_columns, unmarked
from training.data.derived import DerivedFiles, rebase
from training.data.example import Example
from training.data.korean_text import Dual, KoreanRules, Numerals, clean_korean, has_two_transcripts
from training.data.ledger import Drop, DropLedger
from training.data.manifest import TEXT_COLUMNS, Manifest, load_manifest
from training.data.tables import row_writer
from training.data.text import clean_transcript
from training.errors import UserError, exit_on_user_error
from training.folders import writable

_BLOCK = 2048
_KOREAN = re.compile(r"ko(r|rean)?([-_].*)?", re.IGNORECASE)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--input", type=Path, required=True, help="manifest: TSV, CSV, JSONL or Parquet")
    parser.add_argument("--output", type=Path, required=True, help="cleaned manifest: .tsv, .csv or .jsonl")
    parser.add_argument(
        "--min_duration", type=float, default=0.5, help="seconds; shorter clips are dropped (0.5)"
    )
    parser.add_argument(
        "--max_duration", type=float, default=30.0, help="seconds; longer clips are dropped (30)"
    )
    parser.add_argument(
        "--audio_root", type=Path, help="folder of relative audio paths (otherwise the manifest's own)"
    )
    parser.add_argument(
        "--require",
        help="texts that a row must have, separated by commas (default: transcript and translation, as far as the "
        "manifest has these columns)",
    )
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="OURS=THEIRS",
        help="the manifest's name of one of our columns; may be repeated",
    )
    parser.add_argument("--skip_audio_check", action="store_true", help="do not open the audio files")
    parser.add_argument(
        "--workers", type=int, default=min(4, os.cpu_count() or 1), help="threads that read headers"
    )
    parser.add_argument(
        "--force", action="store_true", help="overwrite an output that this command has not made"
    )
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


def main(argv: Sequence[str] | None = None) -> int:
    """Clean, write, print the summary; 0 when something is left."""
    description = (__doc__ or "").split("\n\n")[1]
    parser = argparse.ArgumentParser(prog="polyvox preprocess", description=description, allow_abbrev=False)
    add_arguments(parser)
    arguments = parser.parse_args(argv)
    total, ledger = preprocess(
        arguments.input,
        arguments.output,
        min_duration=arguments.min_duration,
        max_duration=arguments.max_duration,
        audio_root=arguments.audio_root,
        require=[name.strip() for name in arguments.require.split(",")] if arguments.require else None,
        columns=column_names(arguments.column),
        check_files=not arguments.skip_audio_check,
        workers=arguments.workers,
        force=arguments.force,
        korean=_korean(arguments),
    )
    print(f"{arguments.output}: {total - len(ledger):,} of {total:,} utterances kept")
    print(ledger.summary())
    if len(ledger):
        print(f"each of them with its reason: {ledger_path(arguments.output)}")
    return 0


def ledger_path(output: Path) -> Path:
    """Where the ledger of ``output`` is written."""
    return output.with_name(f"{output.stem}_dropped.tsv")


def _korean(arguments: argparse.Namespace) -> KoreanRules | None:
    if arguments.korean:
        return KoreanRules(dual=arguments.dual, numerals=arguments.numerals)
    for name, given in (("--dual", arguments.dual), ("--numerals", arguments.numerals == "read")):
        if given:
            raise UserError(f"{name}: is for Korean transcripts; say --korean as well")
    return None


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
    """`UserError` where there is neither transcript nor translation; a line where one of them may be misspelt."""
    texts = TEXT_COLUMNS.values()
    others = [name for name in names if name not in texts]
    hints = []
    for name in (text for text in texts if text not in names):
        near = get_close_matches(name, others, n=1, cutoff=0.75)  # duration is no translation
        hints.append(
            f"no column {name!r}" + (f" (--column {name}={near[0]}, if that is meant)" if near else "")
        )
    if len(hints) == len(texts):
        raise UserError(f"{source}:1: {' and '.join(hints)}: nothing to learn; name the column with --column")
    if hints:
        print(f"{source}: {hints[0]}", file=sys.stderr)


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
    workers: int = 1,
    force: bool = False,
    korean: KoreanRules | None = None,
) -> tuple[int, DropLedger]:
    """Clean ``source`` into ``output``; returns the number of rows read and the ledger of those left out.

    Further columns are kept; audio paths are rewritten relative to the output's folder. ``korean``: how Korean
    transcripts are cleaned beyond that. Reasons: ``empty_transcript``, ``empty_translation``, ``dual_transcript``,
    ``control_mark`` (see `training.data.control_marks`), ``too_short``, ``too_long``, ``word_languages`` (tags that do not line up with the cleaned words), and those of `training.data.dataset.check_audio`.

    Raises `UserError` for a manifest that cannot be read, for an output that somebody else made, and when
    nothing is left.
    """
    if output.suffix not in (".tsv", ".csv", ".jsonl"):
        raise UserError(f"--output {output}: a manifest is written as .tsv, .csv or .jsonl")
    if output.resolve() == source.resolve():
        raise UserError(f"--output {output}: is the input; the export is kept as it is, name another file")
    writable(output.parent, "--output")
    manifest = load_manifest(
        source, audio_root=audio_root, columns=columns, require=require or (), check_words=False
    )
    _look_for_texts(source, manifest.column_names)
    if korean is not None:
        _look_for_korean(manifest)
    rules = _Rules(
        manifest, _required(manifest, require), min_duration, max_duration, check_files, workers, korean
    )
    record = output.with_name(f"{output.stem}_preprocess.json")
    with DerivedFiles(record, [output, ledger_path(output)], force=force) as files:
        ledger = _write_kept(files, output, manifest, rules)
        if len(ledger) == len(manifest):
            raise UserError(
                f"{source}: none of its {len(manifest):,} utterances can be used\n{ledger.summary()}"
            )
        if line := rules.marks.line(f"in the columns {SEGMENTS} and {WORDS}"):
            print(line)
        with files.open(ledger_path(output)) as handle:
            ledger.write_to(handle)
        files.publish(
            {
                "made_by": "preprocess_manifest",
                "input": source.as_posix(),
                "input_sha256": manifest.sha256(),
                "min_duration": min_duration,
                "max_duration": max_duration,
                "korean": korean and asdict(korean),
                "utterances": len(manifest),
                "dropped": ledger.counts(),
                "control_marks": dict(rules.marks.counts),
            }
        )
    return len(manifest), ledger


def _write_kept(files: DerivedFiles, output: Path, manifest: Manifest, rules: _Rules) -> DropLedger:
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
    return ledger


def _required(manifest: Manifest, require: Sequence[str] | None) -> list[str]:
    texts = list(TEXT_COLUMNS.values())
    if require is None:
        require = [name for name in texts if name in manifest.column_names]
        if not require:
            raise UserError(f"{manifest.path}:1: neither a column 'transcript' nor 'translation'")
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
        workers: int,
        korean: KoreanRules | None,
    ) -> None:
        self.manifest = manifest
        self.require = require
        self.min_duration = min_duration
        self.max_duration = max_duration
        self.check_files = check_files
        self.workers = workers
        self.korean = korean
        self.marks = MarkTally()

    def rows(self) -> Iterator[tuple[dict[str, Any], Drop | None]]:
        """Every row with its texts cleaned, and why it is left out (None: it stays)."""
        with ThreadPoolExecutor(max(1, self.workers)) as pool:
            for start in range(0, len(self.manifest), _BLOCK):
                block = self.manifest.table.slice(start, _BLOCK).to_pylist()
                yield from pool.map(self._judge, range(start, start + len(block)), block)

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
        return row, self._text_drop(example, row) or self._sound_drop(example, index)

    def _text_drop(self, example: Example, row: Mapping[str, Any]) -> Drop | None:
        for name in self.require:
            if not row[name]:
                return Drop(example.id, f"empty_{name}", f"{example.source}: nothing left after cleaning")
        tags, words = len(example.word_languages), len((row.get("transcript") or "").split())
        if tags and tags != words:
            detail = f"{example.source}: {tags} tags for {words} words of the cleaned transcript"
            return Drop(example.id, "word_languages", detail)
        return None

    def _sound_drop(self, example: Example, index: int) -> Drop | None:
        if example.duration < self.min_duration:
            return Drop(example.id, "too_short", f"{example.source}: {example.duration:g} s")
        if example.duration > self.max_duration:
            return Drop(example.id, "too_long", f"{example.source}: {example.duration:g} s")
        if not self.check_files:
            return None
        found = check_audio(
            self.manifest, index, min_seconds=self.min_duration, max_seconds=self.max_duration
        )[1]
        return found if isinstance(found, Drop) else None


if __name__ == "__main__":
    exit_on_user_error(main)
