"""A model of transformers in CTranslate2's format."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.models.common.moved_ids import copies_in, order_of
from training.models.export_parts import Ctranslate2Model
from training.runtime.packages import needed

QUANTIZATIONS = {"fp32": "float32", "fp16": "float16", "int8": "int8"}


def write_ctranslate2(part: Ctranslate2Model, folder: Path, precision: str, *, optimize: bool = True) -> None:
    """Write ``model.bin``, ``config.json`` and ``vocabulary.json``.

    Args:
        part: the model, and the ids whose rows move.
        folder: exists.
        precision: a key of `QUANTIZATIONS`.
        optimize: CTranslate2 fuses in any case.
    """
    loaders = needed("ctranslate2.converters.transformers", "export")
    loader = loaders._MODEL_LOADERS[type(part.model.config).__name__]
    order = order_of(part.moved, part.model.config.vocab_size)
    with torch.no_grad():
        model = _copied(part.model, order)
        spec = loader.get_model_spec(model)
        loader.set_config(spec.config, model, part.tokenizer)
        _move_config(spec.config, order)
        loader.set_vocabulary(spec, _tokens(loader.get_vocabulary(part.model, part.tokenizer), order))
        spec.validate()
        spec.optimize(quantization=QUANTIZATIONS[precision])
        spec.save(str(folder))


def _copied(model: Any, order: np.ndarray) -> Any:
    """A copy whose rows of the (tied) embedding are those of ``order``. CTranslate2 quantises the weights that it is given
    in place, and the original is needed for the comparison."""
    copied = copy.deepcopy(model).cpu().float()
    rows = torch.nn.Parameter(copied.get_input_embeddings().weight[torch.from_numpy(order)])
    copied.get_input_embeddings().weight = copied.get_output_embeddings().weight = rows
    return copied


def _move_config(config: Any, order: np.ndarray) -> None:
    """Ids in the configuration. Lists are always there: CTranslate2 would otherwise suppress what it chooses itself."""
    for name in ("suppress_ids", "suppress_ids_begin", "lang_ids"):
        ids = getattr(config, name, None) or []
        setattr(config, name, np.flatnonzero(np.isin(order, ids)).tolist())
    copies = copies_in(order, len(np.unique(order))).tolist()
    config.suppress_ids = sorted({*config.suppress_ids, *copies})


def _tokens(tokens: list[str], order: np.ndarray) -> list[str]:
    """The text of each row; a row that comes twice has another the second time, because texts are keys."""
    seen: set[int] = set()
    named = []
    for i in order.tolist():
        named.append(f"{tokens[i]}copy" if i in seen else tokens[i])
        seen.add(i)
    return named
