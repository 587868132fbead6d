"""Cross-attention of all tasks of a clip to one set of keys and values."""

from __future__ import annotations

from typing import Any

import torch


class SharedKeys:
    """For a cross-attention of transformers, before its class: several decoder rows (the tasks of a clip) to each encoder row.

    Queries of cross-attention know nothing of one another: those of all tasks are taken as one long sequence, so that
    keys and values are computed, kept and read once per clip. With as many decoder rows as encoder rows it is the
    stock computation.
    """

    def forward(
        self,
        hidden_states: torch.Tensor,
        key_value_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **stock: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """hidden_states ``[rows · tasks, length, width]``, key_value_states ``[rows, frames, width]``."""
        # unflatten refuses rows that do not divide; a reshape would mix clips where the numbers happen to fit.
        queries = hidden_states.unflatten(0, (len(key_value_states), -1)).flatten(1, 2)
        if attention_mask is not None and attention_mask.dim() == 4:
            attention_mask = attention_mask[:, :, :1]  # which frames are padding: the same for every query
        attended, weights = super().forward(  # type: ignore[misc]
            queries, key_value_states=key_value_states, attention_mask=attention_mask, **stock
        )
        return attended.view(hidden_states.shape), weights
