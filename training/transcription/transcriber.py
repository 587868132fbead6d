"""Recordings of any length to text, by any architecture of the library."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from training.base.errors import UserError
from training.data.audio import AudioError, probe
from training.data.example import NO_SPEECH, TRANSCRIBE, Hypothesis, SpokenWord, mean_confidence
from training.data.lengths import is_too_long
from training.decoding.calibrated import usable
from training.decoding.ctc_setup import SearchOptions
from training.decoding.loading import (
    Trained,
    guarded,
    load_trained,
    with_domain,
    with_tasks,
    with_word_times,
)
from training.decoding.predict import predict
from training.models.architecture import AS_IT_IS, AUTO, SWAP
from training.models.safeguards import Safeguards
from training.transcription.recordings import Place, Recording, Windows, Work
from training.transcription.speech_regions import Detector, make_detector, part_of, regions_of, track_of
from training.transcription.spoken_language import (
    SpokenLanguage,
    first_windows,
    known_language,
    wanted_language,
)
from training.transcription.stitching import TIMED_TOLERANCE, join
from training.transcription.suspects import with_repeated_marked, with_steady_marked
from training.transcription.transcript import Segment, Transcript, spread
from training.transcription.windows import Cutting, Window, plan_windows

LONGEST = 30.0
SHORTEST = 0.3
"""Seconds; a window is never shorter, however short the word in it."""


class Transcriber:
    """A trained model, ready for recordings.

    Args:
        model: a folder (of a run, of a checkpoint, of a stock model), a finished run, or a result of `load_trained`.
        tasks: tasks of the model to run; default: all that it was trained for, transcription alone for a stock model.
        language: language of the speech (ISO 639); ``auto``: detected for each recording from its first speech, for a
            pretrained multilingual Whisper and what was tuned from one. Default: the model's own; ``auto`` where its
            folder names none (a stock Whisper).
        domain: domain of the speakers, for a model with domain tokens; ``auto``: the model predicts it.
        options: how the frames of a CTC model are decoded, and the beam width of the other models; default: the beam
            width that the run's scores have (``evaluation.num_beams``), greedy for a model without a run.
        safeguards: of decoding, for Whisper-type models. Default: those that were published with Whisper, where the model
            can be decoded with them.
        longest: longest input of the model in seconds, at most 30; default: the longest utterance of its training where
            the run states it, else 30. A recording of at most this length is one window, unless ``always_cut``.
        pause: silence in seconds that always ends a window (see `Cutting`).
        pad: silence in seconds that is kept before and after speech.
        pack: regions of speech are put into one window up to this many seconds. Default: ``longest`` for stock
            models, 0 for models of this library, which were trained on single utterances.
        always_cut: cut recordings that fit one window too.
        detector: finds the pauses: ``energy``, ``silero``, or a `Detector`.
        batch_seconds: seconds of audio in one batch.
        channel: channel of multi-channel recordings, counted from 0; default: the mean of the channels, or the loudest
            channel where they cancel each other.

    Attributes:
        warnings: a line for each recording whose channels cancel each other, with the channel that was used.
        timed: whether the model gives words with times.
        note: whether the confidence of words is calibrated, and why not.

    Raises `UserError` for a folder without a model and for options that the model cannot serve.
    """

    def __init__(
        self,
        model: os.PathLike[str] | str | Trained,
        *,
        tasks: tuple[str, ...] | None = None,
        language: str | None = None,
        domain: str | None = None,
        options: SearchOptions | None = None,
        safeguards: Safeguards | None = None,
        longest: float | None = None,
        pause: float = Cutting.pause,
        pad: float = Cutting.pad,
        pack: float | None = None,
        always_cut: bool = False,
        detector: str | Detector = "energy",
        batch_seconds: float = 60.0,
        channel: int | None = None,
    ) -> None:
        trained = model if isinstance(model, Trained) else load_trained(Path(model))
        if tasks is None and trained.stock and TRANSCRIBE in trained.architecture.tasks:
            tasks = (TRANSCRIBE,)  # a stock Whisper translates too, into English, which nobody asked for
        self.trained = with_word_times(with_domain(with_tasks(trained, tasks) if tasks else trained, domain))
        _require_domain(self.trained, domain)
        self.architecture = self.trained.architecture
        self.language = wanted_language(self.trained, language)
        self.batch_seconds, self.always_cut = batch_seconds, always_cut
        self.channel, self.warnings = channel, list[str]()
        self.options = (options or SearchOptions()).of_run(self.trained.config)
        self.asked = replace(
            self.options.resolved(self.architecture), safeguards=guarded(self.trained, safeguards)
        )
        self.timed = TRANSCRIBE in self.architecture.tasks and (
            self.asked.frames is not None or self.architecture.aligner is not None
        )
        self.calibration, self.note = usable(
            trained.calibration, trained.folder, self.options.identity(self.architecture)
        )
        self.longest = min(longest or trained.longest_seconds or LONGEST, LONGEST)
        packed = (
            (0.0 if trained.single_utterances else self.longest) if pack is None else min(pack, self.longest)
        )
        self.cutting = Cutting(
            self.longest, pause, min(pad, self.longest / 8), min(3.0, self.longest / 4), packed
        )
        self.detector: Detector | None = None if isinstance(detector, str) else detector
        self._detector_name = detector if isinstance(detector, str) else ""

    def __call__(self, audio: Path | str) -> Transcript:
        """Transcribe one file.

        Args:
            audio: a recording of any length.

        Returns:
            Its text, segments and, where the model gives them, words with times in seconds and confidence.

        Raises:
            UserError: the file cannot be read.
        """
        (transcript,) = self.transcribe(audio)
        return transcript

    def transcribe_batch(self, files: Sequence[Path | str] | Path | str) -> list[dict[str, Any]]:
        """Transcribe files, windows of all of them in common batches.

        Args:
            files: recordings of any length.

        Returns:
            For each file, in order, its transcript as a dictionary: ``text``, ``confidence`` (0 to 1; NaN where the
            model gives none), ``audio``, ``seconds``, ``segments`` and the text of each task.

        Raises:
            UserError: a file cannot be read.
        """
        found = self.transcribe(files)
        return [
            {**one.as_dict(), "confidence": math.nan if one.confidence is None else one.confidence}
            for one in found
        ]

    def transcribe(
        self,
        audio: Sequence[Path | str] | Path | str,
        *,
        progress: Callable[[float], None] = lambda seconds: None,
    ) -> list[Transcript]:
        """One `Transcript` for each file, in order. ``progress`` gets the audio seconds of each finished batch.

        Raises `UserError` for a file that cannot be decoded; `plan` and `finish` continue with the others.
        """
        files = [audio] if isinstance(audio, str | Path) else audio
        transcripts = []
        for one in self.finish([self.plan(path) for path in files], progress):
            if isinstance(one, UserError):
                raise one
            transcripts.append(one)
        return transcripts

    def plan(self, path: Path | str) -> Recording:
        """Open a file and cut it into windows. Raises `UserError` where it cannot be read."""
        try:
            seconds = probe(path).duration
            return Recording(str(path), seconds, tuple(self._windows(Path(path), seconds)), self.channel)
        except AudioError as error:
            raise UserError(str(error)) from error

    def _cuts(self, seconds: float) -> bool:
        return is_too_long(seconds, self.longest) or self.always_cut

    def _looks(self, seconds: float) -> bool:
        """Whether the detector looks for speech: also in a short recording where the no-speech rule holds, because Whisper
        writes a word for digital silence, and is sure of it."""
        guards = self.asked.safeguards
        return self._cuts(seconds) or (guards is not None and guards.no_speech is not None)

    def _windows(self, path: Path, seconds: float) -> list[Window]:
        """What the model gets: none where nobody speaks, the whole recording where it fits."""
        if not self._looks(seconds):
            return [Window(0.0, seconds)]
        if self.detector is None:
            self.detector = make_detector(self._detector_name)
        track = track_of(path, seconds, self.detector, self.channel)
        regions = regions_of(self.detector.speech(track), self.detector.hop)
        windows = plan_windows(regions, track, self.detector.hop, seconds, self.cutting)
        if windows and not self._cuts(seconds):
            windows = [Window(0.0, seconds)]
        return [
            replace(one, steady=self.detector.steady(part_of(track, self.detector.hop, one.start, one.end)))
            for one in (_at_least(window, seconds) for window in windows)
        ]

    def finish(
        self, recordings: Sequence[Recording], progress: Callable[[float], None] = lambda seconds: None
    ) -> list[Transcript | UserError]:
        """Transcribe recordings that `plan` has cut, windows of all files in common batches.

        Args:
            recordings: results of `plan`.
            progress: gets the audio seconds of each finished batch.

        Returns:
            A transcript for each recording, in order. For a recording that cannot be encoded (broken samples, shorter
            than a frame) it is a `UserError` with the reason.
        """
        work = Work(recordings, progress)
        places = [(file, n) for file, one in enumerate(recordings) for n in range(len(one.windows))]
        known = known_language(self.trained, self.language)
        spoken: dict[int, SpokenLanguage | None] = dict.fromkeys(range(len(recordings)), known)
        if self.language == AUTO:
            first = [(file, n) for file, n in places if n < first_windows(recordings[file].windows)]
            self._predict(work, first, dict.fromkeys(spoken, AUTO))
            spoken = work.languages()
            done = work.decoded_in()
            places = [place for place in places if done.get(place) != _code(spoken[place[0]])]
        self._predict(work, places, {file: _code(one) for file, one in spoken.items()})
        self.warnings += [f"{recordings[file].path}: {note}" for file, note in sorted(work.taken.items())]
        return [
            work.broken.get(file) or self._transcript(one, work.of(file), spoken[file])
            for file, one in enumerate(recordings)
        ]

    def _predict(self, work: Work, places: Sequence[Place], languages: Mapping[int, str | None]) -> None:
        """Decode the windows at these places, prompts in the language of each recording."""
        if not places:
            return
        dataset = Windows(work.recordings, places, self.architecture, languages)
        result = predict(
            self.architecture,
            dataset,
            batch_seconds=self.batch_seconds,
            options=self.asked,
            with_loss=False,
            progress=work.progress,
        )
        for row in result.predictions:
            place = dataset.places[row.row]
            work.hypotheses[place] = self._calibrated(row.hypotheses)
            work.probabilities.setdefault(place, row.languages)
        work.broken |= dataset.broken
        work.taken |= dataset.taken

    def _calibrated(self, hypotheses: Mapping[str, Hypothesis]) -> Mapping[str, Hypothesis]:
        if self.calibration is None:
            return hypotheses
        return {task: self.calibration.apply(hypothesis) for task, hypothesis in hypotheses.items()}

    def _transcript(
        self,
        recording: Recording,
        hypotheses: Sequence[Mapping[str, Hypothesis]],
        language: SpokenLanguage | None,
    ) -> Transcript:
        tasks = self.architecture.tasks
        stitched = {
            name: stitch(
                recording.windows,
                [by_task[name] for by_task in hypotheses],
                timed=self.timed and name == TRANSCRIBE,
            )
            for name in tasks
        }
        segments, empty = [], []
        for n in range(len(recording.windows)):
            texts = {name: " ".join(word.text for word in words[n]) for name, words in stitched.items()}
            known = self.timed and _has_times(hypotheses[n][TRANSCRIBE])
            words = tuple(stitched[TRANSCRIBE][n]) if known else ()
            start, end = borders(recording.windows, n)
            quality = {name: one.quality for name, one in hypotheses[n].items() if one.quality is not None}
            if recording.windows[n].steady:
                quality = with_steady_marked(quality, texts)
            domain = hypotheses[n][tasks[0]].domain
            segment = Segment(start, end, texts, words, mean_confidence(words), domain, quality)
            if any(texts.values()):
                segments.append(segment)
            elif any(one.suspect == NO_SPEECH for one in quality.values()):
                empty.append(segment)
        every = [word for segment in segments for word in segment.words]
        return Transcript(
            recording.path,
            recording.seconds,
            tasks,
            tuple(with_repeated_marked(segments)),
            mean_confidence(every),
            _given(language) if not segments and _steady(recording, empty) else language,
            tuple(empty),
        )


def _steady(recording: Recording, left_out: Sequence[Segment]) -> bool:
    """Whether text was left out, and all windows have the level of noise or hum: nobody speaks there."""
    return bool(left_out) and all(window.steady for window in recording.windows)


def _given(language: SpokenLanguage | None) -> SpokenLanguage | None:
    """None for a detected language: where nobody speaks, there is no language to tell."""
    return None if language is None or language.probability is not None else language


def _code(language: SpokenLanguage | None) -> str | None:
    return None if language is None else language.code


def transcribe(
    files: Sequence[Path | str] | Path | str, model: os.PathLike[str] | str | Trained, **options: Any
) -> list[Transcript]:
    """Transcribe recordings of any length.

    Args:
        files: one file or several.
        model: a finished run, a model's folder, or what `load_model` returned.
        options: of the `Transcriber`, e.g. ``language="vi"``.

    Returns:
        A transcript for each file, in order.

    Raises:
        UserError: the folder holds no model, it cannot serve an option, or a file cannot be read.
    """
    return Transcriber(model, **options).transcribe(files)


def _require_domain(trained: Trained, domain: str | None) -> None:
    """`UserError` where the model needs a domain and none is given: a recording has none of its own."""
    domains = trained.architecture.domains
    if domain in (None, AS_IT_IS, SWAP) and domains is not None and domains.default is None:
        given = "" if domain is None else f"--domain {domain}: a recording has no domain of its own; "
        raise UserError(
            f"{given}{trained.folder} is told which population speaks: --domain {', '.join(domains.names)}, or auto, where it "
            "says itself"
        )


def stitch(
    windows: Sequence[Window], hypotheses: Sequence[Hypothesis], *, timed: bool
) -> list[list[SpokenWord]]:
    """Words of each window, times in seconds of the recording; where windows overlap each word once.

    Hypotheses without times get guessed ones, which only serve to join them.
    """
    known = [timed and _has_times(one) for one in hypotheses]
    placed = [
        _shifted(one.words, window.start) if has_times else spread(one.text, window.start, window.end)
        for window, one, has_times in zip(windows, hypotheses, known, strict=True)
    ]
    for n, window in enumerate(windows):
        if window.stitch_at is None:
            continue
        both_known = known[n - 1] and known[n]
        tolerance = TIMED_TOLERANCE if both_known else 1.5 * (windows[n - 1].end - window.start)
        both = join(placed[n - 1], placed[n], window.stitch_at, tolerance)
        kept = sum(1 for word in placed[n - 1] if any(word is other for other in both))
        placed[n - 1], placed[n] = both[:kept], both[kept:]
    return placed


def _has_times(hypothesis: Hypothesis) -> bool:
    """Whether the words have times: a text without words needs none."""
    return bool(hypothesis.words) or not hypothesis.text


def borders(windows: Sequence[Window], n: int) -> tuple[float, float]:
    """Start and end of a window in seconds, without the parts that belong to its neighbours."""
    start = windows[n].stitch_at
    end = windows[n + 1].stitch_at if n + 1 < len(windows) else None
    return windows[n].start if start is None else start, windows[n].end if end is None else end


def _shifted(words: Sequence[SpokenWord], by: float) -> list[SpokenWord]:
    return [replace(word, start=word.start + by, end=word.end + by) for word in words]


def _at_least(window: Window, seconds: float) -> Window:
    if window.seconds >= SHORTEST:
        return window
    start = max(0.0, min(window.start, seconds - SHORTEST))
    return Window(start, min(seconds, start + SHORTEST), window.stitch_at)
