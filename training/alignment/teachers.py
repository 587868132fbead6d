"""Loads the teacher that a model's name stands for: a run of this library that gives times, or a stock Whisper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.alignment.teacher import Teacher
from training.base.errors import UserError
from training.data.example import TRANSCRIBE
from training.models.architecture import Architecture

SIZES = ("tiny", "base", "small", "medium", "large", "large-v2", "large-v3", "large-v3-turbo")
"""Names that ``--model`` knows: ``small`` is ``openai/whisper-small``."""


def load_teacher(name: str, *, device: str | None = None, native: bool = False) -> Teacher:
    """A run's folder (CTC or Whisper), a folder of stock transformers, a size of `SIZES`, or a hub id.

    device: ``cpu``, ``cuda``, …; None: the GPU where there is one. native: see `WhisperTeacher`; without it a Whisper
    with a CTC head places words by that (`training.alignment.whisper_ctc`). Raises `UserError`
    for a model that cannot tell times, and where it is not in reach.
    """
    architecture = _architecture(name)
    if device is not None:
        _move(architecture, device)
    if architecture.frames is not None:
        from training.alignment.ctc import CtcTeacher

        if native:
            raise UserError(f"--use-native: {name} is a CTC model; Whisper alone has a native way")
        return CtcTeacher(architecture)
    assert architecture.attention is not None
    if architecture.attention.head is not None and not native:
        from training.alignment.whisper_ctc import WhisperCtcTeacher

        return WhisperCtcTeacher(architecture)
    from training.alignment.whisper import WhisperTeacher

    return WhisperTeacher(architecture, native=native)


def _move(architecture: Architecture, device: str) -> None:
    model: Any = architecture.model
    try:
        model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {device}: {str(error).splitlines()[0]}") from error


def _architecture(name: str) -> Architecture:
    from training.decoding.loading import load_trained, with_tasks

    if not Path(name).is_dir():
        return _public(f"openai/whisper-{name}" if name in SIZES else name)
    trained = load_trained(Path(name))
    if trained.exported is not None:
        raise UserError(f"--model {name}: is an exported folder; give the run that it was exported from")
    frames = trained.architecture.frames
    if (frames is None or frames.speller is None) and trained.architecture.attention is None:
        raise UserError(
            f"--model {name}: holds a model of type {trained.model_type}, which cannot tell the times of given words; "
            "take a CTC model or a Whisper"
        )
    architecture = with_tasks(trained, (TRANSCRIBE,)).architecture
    assert isinstance(architecture, Architecture)
    return architecture


def _public(name: str) -> Architecture:
    """A stock Whisper by its hub id, on the 30 s of context that it was trained with."""
    from training.decoding.loading import default_device
    from training.models.architecture import BuildContext
    from training.models.common.weights import cache_alone_without_network
    from training.models.lookup import load

    whisper: Any = load("whisper")
    try:
        options = whisper.Options(name=name, task=TRANSCRIBE, encoder_context="full", language="en")
        with cache_alone_without_network([name]):
            architecture = whisper.build(options, BuildContext())
    except UserError as error:
        raise UserError(str(error).replace("model.name", "--model")) from error
    _move(architecture, default_device())
    architecture.model.eval()
    return architecture
