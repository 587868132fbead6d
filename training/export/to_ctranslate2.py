"""A model of transformers in CTranslate2's format."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.models.common.moved_ids import order_of
from training.models.export_parts import Ctranslate2Model
from training.runtime.packages import needed

QUANTIZATIONS = {"fp32": "float32", "fp16": "float16", "int8": "int8"}


def write_ctranslate2(part: Ctranslate2Model, folder: Path, precision: str) -> None:
    """Write ``model.bin``, ``config.json`` and ``vocabulary.json``.

    Args:
        part: the model, and the ids whose rows move.
        folder: exists.
        precision: a key of `QUANTIZATIONS`.
    """
    loaders = needed("ctranslate2.converters.transformers", "export")
    loader = loaders._MODEL_LOADERS[type(part.model.config).__name__]
    order = order_of(part.moved, part.model.config.vocab_size)
    with torch.no_grad():
        model = _moved(part.model, order) if part.moved.ids else part.model
        spec = loader.get_model_spec(model)
        loader.set_config(spec.config, model, part.tokenizer)
        _move_config(spec.config, np.argsort(order))
        tokens = loader.get_vocabulary(part.model, part.tokenizer)
        loader.set_vocabulary(spec, [tokens[i] for i in order])
        spec.validate()
        spec.optimize(quantization=QUANTIZATIONS[precision])
        spec.save(str(folder))


def _moved(model: Any, order: np.ndarray) -> Any:
    """A copy whose rows of the embedding stand in another order."""
    copied = copy.deepcopy(model)
    weight = copied.get_input_embeddings().weight
    weight.copy_(weight[torch.from_numpy(order)])
    return copied


def _move_config(config: Any, rows: np.ndarray) -> None:
    """Ids in the configuration. Lists are always there: CTranslate2 would otherwise suppress what it chooses itself."""
    for name in ("suppress_ids", "suppress_ids_begin", "lang_ids"):
        ids = getattr(config, name, None) or []
        setattr(config, name, [int(rows[i]) for i in ids])
