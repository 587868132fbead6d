"""The demo corpora: synthetic speech by espeak-ng.

``codeswitched`` (Vietnamese–English, `training.synthetic.codeswitched`), ``korean`` (a typical and an atypical
population, `training.synthetic.korean`), ``conventions`` (one sound, two ways to write it,
`training.synthetic.conventions`) and ``english`` (with the times of its words, `training.synthetic.english`). The layout is that of an annotation system's export: ``manifest.tsv`` and
``video_<id>/segment_<n>.wav`` (16 kHz, mono, PCM16).
"""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from training.base.errors import UserError
from training.data.text import clean_transcript
from training.synthetic.codeswitched import CODESWITCHED
from training.synthetic.conventions import CONVENTIONS
from training.synthetic.english import ENGLISH
from training.synthetic.files import MANIFEST, publish, refuse_to_overwrite, write_manifest
from training.synthetic.korean import KOREAN
from training.synthetic.plan import UNHEARD, Row
from training.synthetic.studio import Progress, synthesise_all
from training.synthetic.writer import normalised_words

CORPORA = {"codeswitched": CODESWITCHED, "korean": KOREAN, "conventions": CONVENTIONS, "english": ENGLISH}
DEFAULT_CORPUS = "codeswitched"


@dataclass(frozen=True, slots=True)
class DemoSummary:
    """A summary of a corpus: ``minutes`` of audio, number of distinct ``words``; ``told`` describes what is special about it."""

    manifest: Path
    utterances: int
    videos: int
    minutes: float
    words: int
    told: str
    unheard: int
    wall_seconds: float

    def __str__(self) -> str:
        return (
            f"{self.manifest}: {self.utterances} utterances, {self.minutes:.1f} minutes in {self.videos} videos, "
            f"{self.words} distinct words, {self.told}, "
            f"{self.unheard} of an unheard voice; {self.wall_seconds:.1f} s"
        )


def make_demo(
    output: Path,
    *,
    corpus: str = DEFAULT_CORPUS,
    minutes: float | None = None,
    seed: int = 42,
    force: bool = False,
    progress: Progress | None = None,
) -> DemoSummary:
    """Write a corpus to the folder ``output``: about ``minutes`` of speech of the training speakers.

    The utterances of the unheard speakers are added to that. Equal arguments give equal bytes. ``output`` appears
    only when the corpus is complete. Raises `UserError` where a demo or another export is there
    already (unless ``force``), where espeak-ng is missing, or where the grammar has too few sentences.
    """
    started = time.perf_counter()
    description = CORPORA[corpus]
    minutes = description.minutes if minutes is None else minutes
    if not (math.isfinite(minutes) and minutes > 0):
        raise UserError(f"--minutes must be above 0 (got {minutes:g}).")
    refuse_to_overwrite(output, force)
    partial = output.parent / f".{output.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        videos = description.plan(minutes, seed)
        rows = synthesise_all(videos, partial, progress)
        write_manifest(partial / MANIFEST, rows, description.columns)
        publish(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return _summary(
        output / MANIFEST, rows, len(videos), description.tell(rows), time.perf_counter() - started
    )


def _summary(manifest: Path, rows: list[Row], videos: int, told: str, wall_seconds: float) -> DemoSummary:
    seconds = {row["audio_path"]: float(row["duration"]) for row in rows}
    return DemoSummary(
        manifest=manifest,
        utterances=len(rows),
        videos=videos,
        minutes=sum(seconds.values()) / 60,
        words=len({word for row in rows for word in normalised_words(clean_transcript(row["transcript"]))}),
        told=told,
        unheard=sum(row["split_hint"] == UNHEARD for row in rows),
        wall_seconds=wall_seconds,
    )
