"""A graph of an exported folder in ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from training.base.errors import UserError
from training.runtime.packages import needed


class Session:
    """Calls a graph with numpy arrays, by name. Uses as many threads as ``OMP_NUM_THREADS`` says, else one for each core.

    Raises `UserError` for a file that ONNX Runtime cannot read.
    """

    def __init__(self, path: Path) -> None:
        runtime = needed("onnxruntime", "export")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or 0)
        options.log_severity_level = 3
        self.path_only = runtime.RunOptions()
        self.path_only.only_execute_path_to_fetches = True
        try:
            self.session = runtime.InferenceSession(str(path), options, providers=_providers(runtime))
        except Exception as error:  # onnxruntime raises classes of its own, derived from Exception alone
            reason = str(error).partition("\n")[0]
            raise UserError(
                f"{path}: ONNX Runtime cannot read it ({reason}); export the model again"
            ) from error

    @cached_property
    def inputs(self) -> list[str]:
        """Names of the inputs, in the graph's order."""
        return [one.name for one in self.session.get_inputs()]

    @cached_property
    def outputs(self) -> list[str]:
        """Names of the outputs, in the graph's order."""
        return [one.name for one in self.session.get_outputs()]

    @cached_property
    def shapes(self) -> dict[str, list[int | str]]:
        """Lengths of each input's axes, names for those that may have any length."""
        return {one.name: one.shape for one in self.session.get_inputs()}

    def __call__(self, **inputs: np.ndarray) -> list[Any]:
        """The outputs, in the graph's order."""
        return self.session.run(None, inputs)

    def some(self, outputs: Sequence[str], inputs: Mapping[str, Any]) -> list[Any]:
        """These outputs, in this order; nothing else is computed."""
        return self.session.run(list(outputs), inputs, self.path_only)


def _providers(runtime: Any) -> list[str]:
    """The GPU where this build of ONNX Runtime has one, then the processor."""
    there = runtime.get_available_providers()
    return [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in there]
