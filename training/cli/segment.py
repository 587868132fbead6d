"""Cut long recordings by their labels: ``polyvox segment talks/ --output data/export/manifest.tsv``.

Reads subtitles (SRT, WebVTT, SSA, ASS), Praat's TextGrid, ELAN's EAF and Audacity's label tracks that have the name of the recording
(talk.mp3 and talk.srt, talk.vi.srt or talk.TextGrid), and writes a clip for each label and the manifest. What is left
out stands in MANIFEST_dropped.tsv, with its reason.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from training.base.errors import UserError
from training.cli.command_line import Parser

if TYPE_CHECKING:
    from training.data.ledger import DropLedger
    from training.data.prepare.segment import Pairs

SHOWN = 3
"""Files of a kind that are named on the screen."""


def parser() -> Parser:
    """The command line."""
    description = (__doc__ or "").partition("\n\n")[2]
    result = Parser(prog="polyvox segment", description=description)
    result.add_argument("recordings", nargs="+", type=Path, help="recordings, or folders of them")
    result.add_argument("--labels", type=Path, help="folder of the labels (otherwise beside the recordings)")
    result.add_argument(
        "--output",
        type=Path,
        default=Path("data/export/manifest.tsv"),
        help="manifest to write: .tsv, .csv, .jsonl",
    )
    result.add_argument(
        "--clips", type=Path, default=Path("data/clips"), help="folder of the clips (data/clips)"
    )
    result.add_argument(
        "--no_cut", action="store_true", help="write no clips: the manifest names stretches of the recordings"
    )
    result.add_argument(
        "--tier", action="append", default=[], metavar="NAME", help="tier of TextGrid or EAF; may be repeated"
    )
    result.add_argument("--all_tiers", action="store_true", help="every tier, each is a speaker")
    result.add_argument("--language", help="of the transcripts (vi, en, ko, …), as a column of the manifest")
    result.add_argument("--pad", type=float, default=0.1, help="seconds of sound kept around a label (0.1)")
    result.add_argument(
        "--join_gap",
        type=float,
        help="join neighbours of one speaker with a pause of at most so many seconds, up to --max_duration: for subtitles that part sentences",
    )
    result.add_argument("--min_duration", type=float, default=0.3, help="shorter ones are left out (0.3)")
    result.add_argument("--max_duration", type=float, default=30.0, help="longer ones are left out (30)")
    result.add_argument("--force", action="store_true", help="overwrite files that this command has not made")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Cut, write, print what was left out."""
    arguments = parser().parse_args(argv)
    from training.data.labels.segments import Rules
    from training.data.prepare.clean import ledger_path
    from training.data.prepare.segment import Target, pairs, segment

    if arguments.labels is not None and not arguments.labels.is_dir():
        raise UserError(f"--labels {arguments.labels}: no such folder")
    found = pairs(arguments.recordings, arguments.labels, arguments.language)
    _tell_lonely(found)
    rules = Rules(
        tiers=tuple(arguments.tier),
        all_tiers=arguments.all_tiers,
        pad=arguments.pad,
        join_gap=arguments.join_gap,
        shortest=arguments.min_duration,
        longest=arguments.max_duration,
    )
    clips = None if arguments.no_cut else arguments.clips
    target = Target(manifest=arguments.output, clips=clips, force=arguments.force)
    count, seconds, ledger = segment(
        found.found, target, rules, language=arguments.language, progress=lambda name: print(name, flush=True)
    )
    unread = _tell_unreadable(ledger, len(found.found))
    print(
        f"{arguments.output}: {count:,} utterances, {seconds / 3600:.2f} hours, of {len(found.found) - unread:,} recordings"
    )
    print(ledger.summary())
    if ledger.drops:
        print(f"each of them with its reason: {ledger_path(arguments.output)}")
    cleaned = arguments.output.with_name(f"{arguments.output.stem}_clean{arguments.output.suffix}")
    print(f"next: polyvox preprocess --input {arguments.output} --output {cleaned}")
    return 0


def _tell_unreadable(ledger: DropLedger, recordings: int) -> int:
    """Name the recordings that could not be read, whether they have labels or not; their number."""
    from training.data.prepare.segment import UNREADABLE

    drops = [drop for drop in ledger if drop.reason == UNREADABLE]
    if drops:
        print(f"{len(drops):,} of {recordings:,} recordings cannot be read:", file=sys.stderr)
    for drop in drops[:SHOWN]:
        print(f"  {drop.id}: {drop.detail}", file=sys.stderr)
    if len(drops) > SHOWN:
        print(f"  … and {len(drops) - SHOWN:,} more", file=sys.stderr)
    return len(drops)


def _tell_lonely(found: Pairs) -> None:
    """Name recordings without labels and labels without a recording. Raises `UserError` where nothing has a partner."""
    for paths, what in (
        (found.without_labels, "recordings without labels"),
        (found.without_sound, "labels without a recording"),
    ):
        if paths:
            shown = ", ".join(map(str, paths[:SHOWN])) + (", …" if len(paths) > SHOWN else "")
            print(f"{len(paths):,} {what}: {shown}", file=sys.stderr)
    if not found.found:
        raise UserError(
            "no recording has a file of labels of the same name (talk.mp3 and talk.srt, talk.vi.srt or talk.TextGrid)"
        )
