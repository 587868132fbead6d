"""A model as ONNX graphs."""

from __future__ import annotations

import inspect
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from training.models.export_parts import NemoModel, OnnxModel, OnnxPart
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
    for part in model.parts():
        path = folder / f"{part.name}.onnx"
        with _quiet():
            _program(part, optimize).save(str(path))
        if precision == "int8" and part.name in QUANTIZED:
            _quantize(path)


def write_nemo(model: NemoModel, folder: Path, precision: str, *, optimize: bool = True) -> None:
    """Write ``model.onnx``, ``vocab.txt`` and ``config.json``, as onnx-asr reads NeMo's CTC models, and our log-mels.

    Args:
        model: graphs, tokens and sizes.
        folder: exists.
        precision: ``fp32``.
        optimize: fuse and fold the graph.
    """
    write_onnx(OnnxModel(model.parts), folder, precision, optimize=optimize)
    _describe(folder / "model.onnx", model)
    names = ["<blk>" if i == model.blank else token for i, token in enumerate(model.tokens)]
    lines = "".join(f"{name} {i}\n" for i, name in enumerate(names))
    (folder / "vocab.txt").write_text(lines, encoding="utf8")
    about = {
        "model_type": "nemo-conformer-ctc",
        "features_size": model.mels,
        "subsampling_factor": model.subsampling,
    }
    (folder / "config.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf8")


def _describe(path: Path, model: NemoModel) -> None:
    """What sherpa-onnx reads of a graph beside its inputs and outputs."""
    onnx = needed("onnx", "export")
    graph = onnx.load(str(path))
    about = {
        "model_type": "EncDecCTCModelBPE",
        "vocab_size": str(len(model.tokens)),
        "subsampling_factor": str(model.subsampling),
        "normalize_type": "per_feature",
    }
    onnx.helper.set_model_props(graph, about)
    onnx.save(graph, str(path))


def _program(part: OnnxPart, optimize: bool) -> Any:
    """The exported graph. Named axes may have any length; lengths that are equal have to be so in use as well."""
    named = [dict.fromkeys(part.dynamic.get(name, {}), torch.export.Dim.DYNAMIC) for name in part.inputs]
    parameters = inspect.signature(part.module.forward).parameters.values()
    single = sum(one.kind is not inspect.Parameter.VAR_POSITIONAL for one in parameters)
    # Arguments that a module takes together, as *caches, are one argument to the exporter.
    shapes = (*named[:single], *([tuple(named[single:])] if named[single:] else []))
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
    """Weights of matrix products in 8 bits, activations as they come (dynamic).

    The weights of a large graph stand in a file of their own, ``NAME.onnx.data``, which is written anew.
    """
    onnx, quantization = needed("onnx", "export"), needed("onnxruntime.quantization", "export")
    model = onnx.load(str(path))
    weights = path.with_name(f"{path.name}.data")
    large = weights.exists()
    weights.unlink(missing_ok=True)
    untie(model)
    with _quiet():
        quantization.quantize_dynamic(
            model,
            path,
            op_types_to_quantize=["MatMul"],
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            use_external_data_format=large,
        )


def untie(model: Any) -> None:
    """Give each use of a shared table its own, so that the matrix of a tied embedding can be quantised alone.

    A matrix that is read transposed is stored transposed. Stated shapes go: they are of the table as it was, and
    quantising would compare them (https://github.com/microsoft/onnxruntime/issues/25890).
    """
    numpy_helper = needed("onnx.numpy_helper", "export")
    tables = {table.name: table for table in model.graph.initializer}
    for node in [node for node in model.graph.node if node.op_type == "Transpose"]:
        if node.input[0] in tables and len(tables[node.input[0]].dims) == 2:
            values = numpy_helper.to_array(tables[node.input[0]]).T
            model.graph.initializer.append(numpy_helper.from_array(values.copy(), node.output[0]))
            model.graph.node.remove(node)
    for node in model.graph.node:
        # Quantising turns the table of a Gemm round where it stands, whoever else reads it.
        if node.op_type == "Gemm" and node.input[1] in tables:
            values = numpy_helper.to_array(tables[node.input[1]])
            node.input[1] = f"{node.input[1]}_of_{node.output[0]}"
            model.graph.initializer.append(numpy_helper.from_array(values.copy(), node.input[1]))
    used = {name for node in model.graph.node for name in node.input}
    for name in set(tables) - used:
        model.graph.initializer.remove(tables[name])
    del model.graph.value_info[:]


@contextmanager
def _quiet() -> Iterator[None]:
    """The notes of the libraries on what is not installed, and on what could be done before, are not for the user."""
    loggers = [logging.getLogger(name) for name in (None, "torch.onnx", "onnxscript", "onnx_ir")]
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
