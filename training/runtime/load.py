"""From an exported folder to a model that decodes."""

from __future__ import annotations

from training.base.errors import UserError
from training.models.architecture import SpeechModel
from training.models.export_parts import CTRANSLATE2, ONNX
from training.runtime.folder import Exported


def load_exported(exported: Exported) -> SpeechModel:
    """The model of a folder that `training.runtime.folder.read_exported` read.

    Raises:
        UserError: its engine is not installed, cannot read the files, or the folder is for other programs alone.
    """
    description = exported.description
    if exported.format == CTRANSLATE2 and description.decoder == "whisper":
        from training.runtime.ctranslate2_engine import Ctranslate2Whisper
        from training.runtime.whisper import ExportedWhisper

        return ExportedWhisper.of(exported, Ctranslate2Whisper(exported.folder, description))
    if exported.format == ONNX and description.decoder == "ctc":
        from training.runtime.ctc import ExportedCtc

        return ExportedCtc.of(exported)
    raise UserError(
        f"{exported.folder}: exported as {exported.format} ({description.decoder}), which is for other programs; polyvox does "
        "not run it"
    )
