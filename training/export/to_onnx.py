"""A model as ONNX graphs."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from training.models.export_parts import OnnxModel, OnnxPart
from training.runtime.packages import needed

QUANTIZED = ("encoder", "decoder")
"""Graphs whose matrices are quantised; log-mels are not."""


def write_onnx(model: OnnxModel, folder: Path, precision: str, *, optimize: bool = True) -> None:
    """Write ``NAME.onnx`` for each graph.

    Args:
        model: the graphs.
        folder: exists.
        precision: ``fp32`` or ``int8``.
        optimize: fuse and fold the graph.
    """
    needed("onnxscript", "export")
    for part in model.parts:
        path = folder / f"{part.name}.onnx"
        with _quiet():
            _program(part, optimize).save(str(path))
        if precision == "int8" and part.name in QUANTIZED:
            _quantize(path)


def _program(part: OnnxPart, optimize: bool) -> Any:
    """The exported graph. Named axes may have any length; lengths that are equal have to be so in use as well."""
    shapes = tuple(
        dict.fromkeys(part.dynamic.get(name, {}), torch.export.Dim.DYNAMIC) for name in part.inputs
    )
    program = torch.onnx.export(
        part.module.eval(),
        tuple(part.inputs.values()),
        dynamo=True,
        dynamic_shapes=shapes,
        input_names=list(part.inputs),
        output_names=list(part.outputs),
        optimize=optimize,
        verbose=False,
    )
    assert program is not None
    return program


def _quantize(path: Path) -> None:
    """Weights of matrix products in 8 bits, activations as they come (dynamic)."""
    quantization = needed("onnxruntime.quantization", "export")
    quantization.quantize_dynamic(
        path,
        path,
        op_types_to_quantize=["MatMul"],
        weight_type=quantization.QuantType.QInt8,
        per_channel=True,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's notes on what is not installed, and its warnings, are not for the user."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
