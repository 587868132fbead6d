"""Reads labels with times: subtitles, Praat's TextGrid, ELAN's EAF, Audacity's label tracks."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import unescape
from importlib import import_module
from pathlib import Path
from typing import Any

from training.base.errors import UserError

MARKUP = re.compile(r"<[^<>\n]{1,100}>")
"""Tags of subtitles: ``<i>``, ``<v Anna>``, ``<00:00:01.200>``."""


@dataclass(frozen=True)
class Label:
    """A text and its times, in seconds from the start of the recording. tier: of TextGrid and EAF, else empty; speaker: where the file says who
    speaks."""

    start: float
    end: float
    text: str
    tier: str = ""
    speaker: str = ""


def read_labels(path: Path) -> list[Label]:
    """The labels of a file, by its suffix (`READERS`), in the order of their starts. Empty texts are left out.

    Raises:
        UserError: another suffix, a file that cannot be read as its suffix says, or a reader that is not installed.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{path}: labels are one of {', '.join(READERS)}")
    try:
        found = reader(path)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UnicodeError as error:
        raise UserError(
            f"{path}: is not UTF-8 ({error}); convert it: iconv -f ENCODING -t UTF-8 {path.name}"
        ) from error
    except Exception as error:  # the parsers raise whatever they stumble over
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{path}: cannot be read as {path.suffix} ({reason})") from error
    return sorted((label for label in found if label.text), key=lambda label: (label.start, label.end))


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise UserError(f"{package} is not installed: pip install 'polyvox[labels]'") from error


def _subtitles(path: Path) -> list[Label]:
    """SRT, WebVTT, SSA and ASS. Line breaks inside a cue stay; a voice tag ``<v Anna>`` names the speaker."""
    pysubs2 = _package("pysubs2")
    text = path.read_text(encoding="utf-8-sig")
    cues = pysubs2.SSAFile.from_string(
        text,
        format_=None if text.strip() else path.suffix[1:],
        keep_html_tags=True,
        keep_unknown_html_tags=True,
    )
    return [
        Label(cue.start / 1000, cue.end / 1000, _plain(cue.plaintext), speaker=_voice(cue))
        for cue in cues
        if not cue.is_comment
    ]


def _plain(text: str) -> str:
    lines = (" ".join(unescape(MARKUP.sub("", line)).split()) for line in text.splitlines())
    return "\n".join(line for line in lines if line)


def _voice(cue: Any) -> str:
    voice = re.match(r"<v(?:\.[^ >]*)? ([^>]+)>", cue.text)
    return (voice.group(1) if voice else cue.name).strip()


def _textgrid(path: Path) -> list[Label]:
    textgrid = _package("praatio.textgrid")
    grid = textgrid.openTextgrid(str(path), includeEmptyIntervals=False, duplicateNamesMode="rename")
    return [
        Label(entry.start, entry.end, entry.label.strip(), tier=tier.name)
        for tier in grid.tiers
        for entry in tier.entries
        if hasattr(entry, "end")  # points of time are no utterances
    ]


def _elan(path: Path) -> list[Label]:
    """Annotations with times of their own. Those that only refer to others (glosses, translations) have none."""
    eaf = _package("pympi.Elan").Eaf(str(path))
    return [
        Label(start / 1000, end / 1000, text.strip(), tier=tier, speaker=about[2].get("PARTICIPANT", ""))
        for tier, about in eaf.tiers.items()
        for start, end, text in (
            (eaf.timeslots[first], eaf.timeslots[last], text or "")
            for first, last, text, _ in about[0].values()
        )
        if start is not None and end is not None
    ]


def _audacity(path: Path) -> list[Label]:
    """``start<TAB>end<TAB>text``, seconds. Lines that begin with a backslash hold frequencies."""
    labels = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if not line.strip() or line.startswith("\\"):
            continue
        cells = line.split("\t", 2)
        try:
            start, end = (float(cell.replace(",", ".")) for cell in cells[:2])
        except ValueError:
            raise UserError(
                f"{path}:{number}: expected start, end and text, separated by tabs, as Audacity exports labels"
            ) from None
        labels.append(Label(start, end, cells[2].strip() if len(cells) > 2 else ""))
    return labels


READERS: Mapping[str, Callable[[Path], list[Label]]] = {
    ".srt": _subtitles,
    ".vtt": _subtitles,
    ".ass": _subtitles,
    ".ssa": _subtitles,
    ".textgrid": _textgrid,
    ".eaf": _elan,
    ".txt": _audacity,
}
"""Suffix, in lower case → what reads such a file."""
