"""The process of one device: it loads the models and decodes one batch of windows after another."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.base.errors import UserError
from training.data.example import TRANSCRIBE, AudioRef, Example
from training.data.workers import follow
from training.serving import messages
from training.serving.errors import traced
from training.serving.options import Abilities, Options, hypothesis_dict

if TYPE_CHECKING:
    from training.decoding.loading import Trained
    from training.transcription.transcriber import Transcriber

VARIANTS = 32
"""Ways to decode (hot words, prompts) that are kept ready; the one that was not asked for longest goes first."""
WHOLE_BATCH = 1e9
"""Seconds: the server has made the batch."""


class Windows:
    """Windows in memory as a dataset of encoded utterances, as `training.decoding.predict.predict` takes it.

    broken: what is wrong with rows that cannot be encoded; a second of silence takes their place.
    """

    def __init__(
        self, sounds: Sequence[np.ndarray], languages: Sequence[str | None], architecture: Any
    ) -> None:
        self.sounds, self.architecture = sounds, architecture
        self.durations = np.array([len(one) / architecture.sample_rate for one in sounds], dtype=np.float32)
        self.manifest = [
            Example(
                id=str(n),
                audio=AudioRef(path=""),
                duration=float(self.durations[n]),
                texts={},
                language=language,
            )
            for n, language in enumerate(languages)
        ]
        self.broken: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, row: int) -> dict[str, Any]:
        try:
            return self.architecture.encode(self.manifest[row], self.sounds[row])
        except ValueError as error:
            self.broken[row] = str(error)
            silence = np.zeros(self.architecture.sample_rate, dtype=np.float32)
            return self.architecture.encode(self.manifest[row], silence)


class Model:
    """A loaded model and the ways in which it was asked to decode."""

    def __init__(self, folder: Path) -> None:
        from training.decoding.loading import load_trained

        self.folder = folder
        self.trained: Trained = load_trained(folder)
        self.variants: OrderedDict[Options, Transcriber] = OrderedDict()

    def variant(self, options: Options) -> Transcriber:
        """A transcriber that decodes like that. Raises `UserError` where the model cannot."""
        if options in self.variants:
            self.variants.move_to_end(options)
            return self.variants[options]
        with contextlib.redirect_stderr(io.StringIO()):  # it may name hot words, and no text is logged
            made = self.variants[options] = _transcriber(self.trained, options)
        while len(self.variants) > VARIANTS:
            self.variants.popitem(last=False)
        return made

    def abilities(self) -> Abilities:
        """What the server has to know of it."""
        architecture = self.trained.architecture
        options = Options(task=architecture.tasks[0], domain=self._some_domain())
        usual = self.variant(options)
        detection, domains = architecture.language_detection, architecture.domains
        every = _languages()
        names = {code: name for code, name in every.items() if _takes(self.trained, code)}
        return Abilities(
            tasks=architecture.tasks,
            languages=architecture.languages,
            language_names=names,
            told_language=detection is not None or len(names) < len(every),
            detects=tuple(sorted(detection.languages)) if detection else (),
            sample_rate=architecture.sample_rate,
            timed=TRANSCRIBE in architecture.tasks
            and self.variant(Options(task=TRANSCRIBE, domain=options.domain)).timed,
            cutting=asdict(usual.planner.cutting),
            looks=usual.planner.looks,
            frames=architecture.frames is not None,
            padding_sensitive=architecture.frames is None and architecture.collate.padding != "full",
            scored=architecture.scored is not None,
            domains=domains.names if domains else (),
            domain=domains.default if domains else None,
            predicts_domain=bool(domains and domains.predictable),
            created=int(self.folder.stat().st_mtime),
        )

    def _some_domain(self) -> str | None:
        domains = self.trained.architecture.domains
        return domains.names[0] if domains is not None and domains.default is None else None


def _languages() -> dict[str, str]:
    """Codes of languages and their English names."""
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    return dict(LANGUAGES)


def _takes(trained: Trained, code: str) -> bool:
    from training.transcription.spoken_language import wanted_language

    try:
        wanted_language(trained, code)
    except UserError:
        return False
    return True


def _transcriber(trained: Trained, options: Options) -> Transcriber:
    from training.decoding.ctc_setup import SearchOptions
    from training.models.safeguards import Safeguards
    from training.transcription.transcriber import Transcriber

    if any(word.startswith("@") for word in options.hot_words):
        raise UserError("hot_words: @FILE reads files of this machine, and is not for requests")
    guards: dict[str, Any] = {"initial_prompt": options.prompt} if options.prompt else {}
    if options.temperature is not None:
        guards["temperatures"] = (options.temperature,)
    return Transcriber(
        trained,
        tasks=(options.task,),
        domain=options.domain,
        options=SearchOptions(beam_width=options.beam_width, hot_words=options.hot_words),
        safeguards=Safeguards(**guards) if guards else None,
        batch_seconds=WHOLE_BATCH,
    )


def answer(models: Mapping[str, Model], asked: Mapping[str, Any], payload: bytearray) -> dict[str, Any]:
    """The hypotheses of a batch: a row for each window, ``error`` in the place of those that cannot be encoded.

    asked: ``model``, ``options``, and of each window its ``samples`` (a number) and ``language``; payload: the samples
    of all, float32.
    """
    sounds = np.frombuffer(payload, dtype=np.float32)
    ends = np.cumsum(asked["samples"])
    try:
        transcriber = models[asked["model"]].variant(Options.of(asked["options"]))
    except (UserError, ValueError) as error:
        return {"refused": str(error).replace(str(models[asked["model"]].folder), asked["model"])}
    windows = Windows(np.split(sounds, ends[:-1]), asked["languages"], transcriber.architecture)
    rows: list[dict[str, Any]] = []
    for row in transcriber.predict(windows):
        if row.row in windows.broken:
            rows.append({"error": windows.broken[row.row]})
        else:
            told = {task: hypothesis_dict(one) for task, one in row.hypotheses.items()}
            rows.append({"hypotheses": told, "languages": dict(row.languages)})
    return {"rows": rows}


def _load(folders: Mapping[str, str]) -> dict[str, Model]:
    from training.decoding.quiet import quiet

    quiet()
    return {name: Model(Path(folder)) for name, folder in folders.items()}


def serve(end: socket.socket) -> None:
    """Load the models that the first message names, say what they can do, then answer batches until the server goes."""
    asked = messages.receive(end).head
    try:
        models = _load(asked["models"])
        told = {name: model.abilities().as_dict() for name, model in models.items()}
    except UserError as error:
        messages.send(end, {"refused": str(error)})
        return
    messages.send(end, {"models": told})
    longest = max(
        messages.payload_of(max(asked["batch_seconds"], one["cutting"]["longest"]), one["sample_rate"])
        for one in told.values()
    )
    while True:
        message = messages.receive(end, longest)
        try:
            found = answer(models, message.head, message.payload)
        except Exception as error:  # a batch's own: the next one may be in order
            found = {"fault": traced(error)}
        messages.send(end, found)
        if "fault" in found and os.environ.get("CUDA_VISIBLE_DEVICES"):
            return  # after some faults of a GPU everything fails in this process


def main() -> None:
    """The server's end of the socket is the first argument."""
    follow(os.getppid())
    os.nice(5)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with (
        socket.socket(fileno=int(sys.argv[1])) as end,
        contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError),
    ):
        serve(end)


if __name__ == "__main__":
    main()
