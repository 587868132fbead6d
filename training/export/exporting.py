"""From a trained model to a checked folder for another engine."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.base.errors import UserError
from training.decoding.loading import Trained, default_device
from training.export.folder import check_free, new_folder, replace_folder
from training.export.gate import Gate
from training.export.record import CARD, write_record
from training.export.run_files import RUN_FILES
from training.export.sherpa import NAME as SHERPA
from training.export.sherpa import sherpa_may
from training.export.to_ctranslate2 import write_ctranslate2
from training.export.to_ggml import write_ggml
from training.export.to_onnx import write_nemo, write_onnx
from training.export.verdict import Finding, overall
from training.models.architecture import Architecture
from training.models.export_parts import (
    CTRANSLATE2,
    GGML,
    NEMO,
    ONNX,
    Ctranslate2Model,
    Description,
    ExportParts,
    GgmlModel,
    NemoModel,
    Refused,
)
from training.runtime.folder import NOT_CHECKED, PASSED, is_exported, read_exported
from training.runtime.load import load_exported

logger = logging.getLogger(__name__)

WRITERS: Mapping[str, Callable[..., None]] = {
    CTRANSLATE2: write_ctranslate2,
    ONNX: write_onnx,
    NEMO: write_nemo,
    GGML: write_ggml,
}
PRECISIONS_OF = {
    CTRANSLATE2: ("fp32", "int8", "fp16"),
    ONNX: ("fp32", "int8"),
    NEMO: ("fp32",),
    GGML: ("fp16",),
}


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be written. gate: compares it with the original; None: nothing is compared, and the folder says so.
    optimize: fuse the graph."""

    format: str
    precision: str
    output: Path
    gate: Gate | None
    force: bool = False
    optimize: bool = True


@dataclass(frozen=True)
class Exported:
    """What was written. folder: ``NAME.failed`` where the comparison did not pass."""

    folder: Path
    verdict: str
    findings: tuple[Finding, ...]
    size: int

    @property
    def passed(self) -> bool:
        """Whether it may be used: it passed, or no comparison was asked for."""
        return self.verdict in (PASSED, NOT_CHECKED)


def offered(trained: Trained, format_: str, precision: str) -> ExportParts:
    """The parts of a model. Raises `UserError`, in one line, where it does not offer the format in this precision."""
    if not isinstance(trained.architecture, Architecture):
        raise UserError(
            f"--model {trained.folder}: is exported already; give the run that it was exported from"
        )
    parts = trained.architecture.export_parts()
    if parts is None:
        raise UserError(
            f"--model {trained.folder}: a model of type {trained.model_type} offers nothing for export"
        )
    part = parts.formats.get(format_, Refused("not offered"))
    if isinstance(part, Refused):
        raise UserError(f"--format {format_}: not for {trained.folder} ({trained.model_type}): {part.reason}")
    if precision not in PRECISIONS_OF[format_]:
        raise UserError(
            f"--precision {precision}: {format_} is offered in {', '.join(PRECISIONS_OF[format_])}"
        )
    return parts


def export(trained: Trained, wanted: Wanted) -> Exported:
    """Write a model for another engine, compare it with the original, and put it in its place.

    Args:
        trained: the model.
        wanted: format, precision, place, comparison.

    Returns:
        Where it stands, and what the comparison found.

    Raises:
        UserError: the model does not offer the format, or the place is taken.
    """
    parts = offered(trained, wanted.format, wanted.precision)
    if wanted.gate is not None and (wanted.format, wanted.precision) == (CTRANSLATE2, "fp16"):
        _require_gpu()
    if not wanted.output.name:
        raise UserError(f"--output {wanted.output}: holds something else; name a new folder")
    failed = wanted.output.with_name(f"{wanted.output.name}.failed")
    check_free(failed, "--output", force=True, ours=is_exported)
    with new_folder(wanted.output, "--output", force=wanted.force, ours=is_exported) as folder:
        description = _write(trained, parts, wanted, folder)
        findings: Sequence[Finding] = ()
        if wanted.gate is not None:
            exported = load_exported(read_exported(folder))
            findings = wanted.gate(trained.architecture, exported, parts, wanted.precision)
            about = _about(parts, wanted)
            if isinstance(part := parts.formats[wanted.format], NemoModel):
                about["third_parties"][SHERPA] = sherpa_may(part, folder, exported, wanted.gate.utterances)
            write_record(folder, trained, description, about, wanted.gate, findings)
        verdict = overall(findings) if findings else NOT_CHECKED
        size = sum(path.stat().st_size for path in folder.iterdir())
        place = wanted.output if verdict in (PASSED, NOT_CHECKED) else failed
        if place == failed:
            replace_folder(folder, failed)
    if trained.calibration is not None and place == wanted.output:
        logger.warning(
            f"the confidence of the original's words is calibrated, that of {place} is not: polyvox calibrate --model_dir "
            f"{place} --manifest FILE fits it on the exported model"
        )
    return Exported(place, verdict, tuple(findings), size)


def _require_gpu() -> None:
    if default_device() != "cuda":
        raise UserError(
            "--precision fp16: CTranslate2 computes in 16 bits on a GPU alone, and there is none here to compare on; take "
            "int8, or say --no_check"
        )


def _write(trained: Trained, parts: ExportParts, wanted: Wanted, folder: Path) -> Description:
    """All files of the folder; nothing is compared yet."""
    WRITERS[wanted.format](parts.formats[wanted.format], folder, wanted.precision, optimize=wanted.optimize)
    parts.save_text(folder)
    for name, values in parts.arrays.items():
        with (folder / f"{name}.npy").open("wb") as file:
            np.lib.format.write_array(file, values)
    if run := RUN_FILES.get((wanted.format, parts.description.decoder)):
        (folder / "run.py").write_text(run, encoding="utf8")
    if (trained.folder / CARD).is_file():
        shutil.copyfile(trained.folder / CARD, folder / CARD)
    description = parts.description.model_copy(
        update={
            "longest_seconds": trained.longest_seconds,
            "single_utterances": trained.single_utterances,
            "beams": trained.beams,
        }
    )
    write_record(folder, trained, description, _about(parts, wanted), None)
    return description


def _about(parts: ExportParts, wanted: Wanted) -> dict[str, Any]:
    about: dict[str, Any] = {"format": wanted.format, "precision": wanted.precision}
    part = parts.formats[wanted.format]
    if isinstance(part, Ctranslate2Model | GgmlModel | NemoModel):
        about["third_parties"] = dict(part.third_parties)
    return about
