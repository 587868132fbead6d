"""Export a trained model for other engines; ``polyvox export`` does the same."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from training.base.errors import UserError

if TYPE_CHECKING:
    from training.decoding.loading import Trained
    from training.export.exporting import Exported
    from training.export.gate import Gate

UTTERANCES = 200
SEED = 0
"""Draws the utterances of the comparison: the same in every call."""


def export_model(
    model_path: os.PathLike[str] | str,
    output_path: Path | str,
    optimize: bool = True,
    quantize: bool = False,
    format: Literal["onnx", "ctranslate2", "ggml", "nemo"] = "onnx",
    *,
    tasks: tuple[str, ...] | None = None,
    precision: Literal["fp32", "fp16", "int8"] | None = None,
    split: Literal["dev", "test"] = "test",
    manifest: Path | str | None = None,
    utterances: int = UTTERANCES,
    max_drift: float | None = None,
    check: bool = True,
    force: bool = False,
) -> Exported:
    """Write a trained model for another engine and compare it with the original on real utterances.

    Args:
        model_path: a finished run, or a folder with a model.
        output_path: the folder to write.
        optimize: fuse the graph (ONNX); CTranslate2 does so in any case.
        quantize: the same as ``precision="int8"``.
        format: of the model's files.
        tasks: that the exported model does; default: all.
        precision: of the weights; default: fp32, or int8 with ``quantize``.
        split: of the run, whose utterances are compared.
        manifest: compare the utterances of this manifest instead.
        utterances: how many of them, drawn once and for all.
        max_drift: points of WER (CER for Korean) or BLEU that may be lost; default: none in fp32, where the tokens must be
            identical, 0.5 in fp16, 1.0 in int8.
        check: compare at all; without it the folder says for good that nobody has.
        force: replace an earlier export.

    Returns:
        The folder and the findings. Where ``passed`` is False the folder is ``NAME.failed``.

    Raises:
        UserError: the model does not offer the format, the place is taken, or there are no utterances to compare.
    """
    from training.decoding.loading import load_trained, with_tasks
    from training.decoding.quiet import quietly
    from training.export.exporting import Wanted, export, offered

    chosen = _precision(precision, quantize)
    with quietly():
        trained = load_trained(Path(model_path))
        trained = with_tasks(trained, tasks) if tasks else trained
        offered(trained, format, chosen)  # before the utterances are looked at
        gate = _gate(trained, split, manifest, utterances, max_drift) if check else None
        if gate is not None and not gate.by_tokens(chosen):
            _require_references(trained, gate)
        wanted = Wanted(
            format=format,
            precision=chosen,
            output=Path(output_path),
            gate=gate,
            force=force,
            optimize=optimize,
        )
        return export(trained, wanted)


def _precision(precision: Any, quantize: bool) -> Any:
    if precision not in (None, "int8") and quantize:
        raise UserError(f"quantize and precision={precision!r} contradict each other; leave out one of them")
    return precision or ("int8" if quantize else "fp32")


def _gate(
    trained: Trained, split: Any, manifest: Path | str | None, count: int, max_drift: float | None
) -> Gate:
    """The comparison on ``count`` utterances that can be read."""
    import numpy as np

    from training.api.predicting import open_rows, readable, setting
    from training.export.decoded import Utterances
    from training.export.gate import Gate

    if count < 1:
        raise UserError(f"--utterances {count}: at least 1")
    if max_drift is not None and not 0 <= max_drift < math.inf:
        raise UserError(f"--max_drift {max_drift:g}: a number of points, 0 or more")
    rows, _ = open_rows(trained, Path(manifest) if manifest else None, "--check_manifest", split, None)
    drawn = np.sort(np.random.default_rng(SEED).permutation(len(rows))[:count])
    found = readable(trained, rows.select(drawn), split)
    found.require()
    return Gate(
        Utterances(
            found.dataset.manifest,
            setting(trained, "batch_seconds") or 60.0,
            setting(trained, "max_new_tokens"),
        ),
        max_drift,
    )


def _require_references(trained: Trained, gate: Gate) -> None:
    """`UserError` where the scores of a task cannot be taken, before anything is decoded."""
    rows = gate.utterances.rows
    there = {task for row in range(len(rows)) for task in rows[row].texts}
    if missing := [task for task in trained.architecture.tasks if task not in there]:
        others = [task for task in trained.architecture.tasks if task in there]
        hint = f"--task {others[0]} exports the other task alone, " if others else ""
        raise UserError(
            f"none of the {len(rows)} utterances has a reference for {missing[0]}, so that its scores cannot be compared; "
            f"{hint}--check_manifest names other utterances, --no_check compares nothing"
        )
