"""Recordings of any length to text, by any architecture of the library."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from training.base.errors import UserError
from training.data.example import TRANSCRIBE, Hypothesis
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
from training.decoding.predict import Prediction, predict
from training.models.architecture import AS_IT_IS, AUTO, SWAP
from training.models.safeguards import Safeguards
from training.transcription.assembly import assemble
from training.transcription.planning import Planner
from training.transcription.recordings import Place, Recording, Windows, Work
from training.transcription.speech_regions import Detector
from training.transcription.spoken_language import (
    SpokenLanguage,
    first_windows,
    known_language,
    wanted_language,
)
from training.transcription.transcript import Transcript
from training.transcription.windows import Cutting

LONGEST = 30.0


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
        self.batch_seconds = batch_seconds
        self.warnings = list[str]()
        self.options = (options or SearchOptions()).of_run(self.trained.beams)
        self.asked = replace(
            self.options.resolved(self.architecture), safeguards=guarded(self.trained, safeguards)
        )
        self.timed = TRANSCRIBE in self.architecture.tasks and (
            self.asked.frames is not None or self.architecture.aligner is not None
        )
        self.calibration, self.note = usable(
            trained.calibration, trained.folder, self.options.identity(self.architecture)
        )
        longest = min(longest or trained.longest_seconds or LONGEST, LONGEST)
        packed = (0.0 if trained.single_utterances else longest) if pack is None else min(pack, longest)
        guards = self.asked.safeguards
        self.planner = Planner(
            Cutting(longest, pause, min(pad, longest / 8), min(3.0, longest / 4), packed),
            looks=guards is not None and guards.no_speech is not None,
            always_cut=always_cut,
            detector=detector,
            channel=channel,
        )

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
        return self.planner.plan(path)

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
            work.broken.get(file)
            or assemble(
                one,
                work.of(file),
                tasks=self.architecture.tasks,
                timed=self.timed,
                language=spoken[file],
            )
            for file, one in enumerate(recordings)
        ]

    def _predict(self, work: Work, places: Sequence[Place], languages: Mapping[int, str | None]) -> None:
        """Decode the windows at these places, prompts in the language of each recording."""
        if not places:
            return
        dataset = Windows(work.recordings, places, self.architecture, languages)
        for row in self.predict(dataset, work.progress):
            place = dataset.places[row.row]
            work.hypotheses[place] = row.hypotheses
            work.probabilities.setdefault(place, row.languages)
        work.broken |= dataset.broken
        work.taken |= dataset.taken

    def predict(
        self, windows: Any, progress: Callable[[float], None] = lambda seconds: None
    ) -> list[Prediction]:
        """Decode windows that are encoded already.

        Args:
            windows: a dataset as `training.decoding.predict.predict` takes it.
            progress: gets the audio seconds of each finished batch.

        Returns:
            In the order of the dataset; the confidence of words is calibrated where the model has a calibration.
        """
        found = predict(
            self.architecture,
            windows,
            batch_seconds=self.batch_seconds,
            options=self.asked,
            with_loss=False,
            progress=progress,
        )
        return [replace(row, hypotheses=self._calibrated(row.hypotheses)) for row in found.predictions]

    def _calibrated(self, hypotheses: Mapping[str, Hypothesis]) -> Mapping[str, Hypothesis]:
        if self.calibration is None:
            return hypotheses
        return {task: self.calibration.apply(hypothesis) for task, hypothesis in hypotheses.items()}


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
