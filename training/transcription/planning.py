"""Cuts a recording into windows before a model sees it. Imports no model: a process that only decodes sound can do it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from training.base.errors import UserError
from training.data.audio import AudioError, probe
from training.data.lengths import is_too_long
from training.transcription.recordings import Recording
from training.transcription.speech_regions import Detector, make_detector, part_of, regions_of, track_of
from training.transcription.windows import Cutting, Window, plan_windows

SHORTEST = 0.3
"""Seconds; a window is never shorter, however short the word in it."""


@dataclass
class Planner:
    """How recordings are cut.

    cutting: see `Cutting`; a recording that is no longer than its ``longest`` is one window. always_cut: cut those too.
    looks: look for speech in short recordings too, because the no-speech rule holds (Whisper writes a word for digital
    silence, and is sure of it). detector: finds the pauses. channel: of recordings with several; None: all, mixed to mono.
    """

    cutting: Cutting
    looks: bool = False
    always_cut: bool = False
    detector: str | Detector = "energy"
    channel: int | None = None
    _made: Detector | None = field(default=None, repr=False)

    def plan(self, path: Path | str) -> Recording:
        """Open a file and cut it into windows. Raises `UserError` where it cannot be read."""
        try:
            seconds = probe(path).duration
            return Recording(str(path), seconds, tuple(self._windows(Path(path), seconds)), self.channel)
        except AudioError as error:
            raise UserError(str(error)) from error

    def _windows(self, path: Path, seconds: float) -> list[Window]:
        """What the model gets: none where nobody speaks, the whole recording where it fits."""
        cuts = is_too_long(seconds, self.cutting.longest) or self.always_cut
        if not (cuts or self.looks):
            return [Window(0.0, seconds)]
        detector = self._detector()
        track = track_of(path, seconds, detector, self.channel)
        regions = regions_of(detector.speech(track), detector.hop)
        windows = plan_windows(regions, track, detector.hop, seconds, self.cutting)
        if windows and not cuts:
            windows = [Window(0.0, seconds)]
        return [
            replace(one, steady=detector.steady(part_of(track, detector.hop, one.start, one.end)))
            for one in (_at_least(window, seconds) for window in windows)
        ]

    def _detector(self) -> Detector:
        if self._made is None:
            self._made = make_detector(self.detector) if isinstance(self.detector, str) else self.detector
        return self._made


def _at_least(window: Window, seconds: float) -> Window:
    if window.seconds >= SHORTEST:
        return window
    start = max(0.0, min(window.start, seconds - SHORTEST))
    return Window(start, min(seconds, start + SHORTEST), window.stitch_at)
