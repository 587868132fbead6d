"""From an exported folder to a model that decodes."""

from __future__ import annotations

from collections.abc import Callable

from training.base.errors import UserError
from training.models.architecture import SpeechModel
from training.models.export_parts import CTRANSLATE2, GGML, NEMO, ONNX
from training.runtime.folder import Exported


def load_exported(exported: Exported) -> SpeechModel:
    """The model of a folder that `training.runtime.folder.read_exported` read.

    Raises:
        UserError: its engine is not installed, cannot read the files, or the folder is for other programs alone.
    """
    if loader := _LOADERS.get((exported.format, exported.description.decoder)):
        return loader(exported)
    raise UserError(
        f"{exported.folder}: exported as {exported.format} ({exported.description.decoder}), which is for other programs; "
        "polyvox does not run it"
    )


def _ctranslate2_whisper(exported: Exported) -> SpeechModel:
    from training.runtime.ctranslate2_engine import Ctranslate2Whisper
    from training.runtime.log_mels import LogMels
    from training.runtime.whisper import ExportedWhisper

    settings = exported.description.log_mels
    assert settings is not None
    engine = Ctranslate2Whisper(exported.folder, exported.description)
    return ExportedWhisper.of(exported, engine, LogMels.of_folder(settings, exported.folder))


def _onnx_whisper(exported: Exported) -> SpeechModel:
    from training.runtime.onnx_session import Session
    from training.runtime.onnx_whisper import OnnxLogMels, OnnxWhisper
    from training.runtime.whisper import ExportedWhisper

    settings = exported.description.log_mels
    assert settings is not None
    log_mels = OnnxLogMels(settings, Session(exported.folder / "features.onnx"))
    return ExportedWhisper.of(exported, OnnxWhisper(exported.folder, exported.description), log_mels)


def _onnx_ctc(exported: Exported) -> SpeechModel:
    from training.runtime.ctc import ExportedCtc

    return ExportedCtc.of(exported)


def _onnx_encoder_decoder(exported: Exported) -> SpeechModel:
    from training.runtime.encoder_decoder import ExportedEncoderDecoder

    return ExportedEncoderDecoder.of(exported)


def _onnx_language_model(exported: Exported) -> SpeechModel:
    from training.runtime.language_model import ExportedLanguageModel

    return ExportedLanguageModel.of(exported)


def _ggml(exported: Exported) -> SpeechModel:
    from training.runtime.ggml import ExportedGgml

    return ExportedGgml.of(exported)


_LOADERS: dict[tuple[str, str], Callable[[Exported], SpeechModel]] = {
    (CTRANSLATE2, "whisper"): _ctranslate2_whisper,
    (ONNX, "whisper"): _onnx_whisper,
    (ONNX, "ctc"): _onnx_ctc,
    (ONNX, "encoder_decoder"): _onnx_encoder_decoder,
    (ONNX, "language_model"): _onnx_language_model,
    (NEMO, "ctc"): _onnx_ctc,
    (GGML, "whisper"): _ggml,
}
"""By format and decoder."""
