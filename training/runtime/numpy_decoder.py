"""Whisper's decoder with numpy alone, from the weights of a CTranslate2 folder.

For what CTranslate2 does not give: the attention to the sound while a text is read, and draws that can be repeated. It
writes no text that is not drawn. Names of weights are those of CTranslate2's specification of a Transformer decoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from training.base.errors import UserError
from training.runtime.ctranslate2_weights import Weights
from training.runtime.token_search import log_softmax

GELU = 3
"""CTranslate2's number of the activation function."""
EPSILON = 1e-5
Pair = tuple[np.ndarray, np.ndarray]
"""Keys and values, float32 ``[rows, heads, length, width / heads]``."""


class NumpyDecoder:
    """A decoder whose ids are rows of the model.

    Args:
        weights: of the folder.
        heads: the cross-attentions to record, by layer.

    Raises `UserError` for a decoder that is no Whisper's.
    """

    def __init__(self, weights: Weights, heads: Mapping[int, Sequence[int]]) -> None:
        self.weights, self.recorded = weights, heads
        self.layers = 0
        while f"decoder/layer_{self.layers}/ffn/linear_0/weight" in weights:
            self.layers += 1
        if weights.number("decoder/activation") != GELU or not weights.number("decoder/pre_norm"):
            raise UserError("model.bin: its decoder is none of Whisper's; export the model again")
        self.heads = weights.number("decoder/num_heads")

    def sound(self, states: np.ndarray) -> list[Pair]:
        """Keys and values of each layer's cross-attention, for encoder states float32 ``[clips, frames, width]``."""
        return [
            self._keys_and_values(self._linear(f"decoder/layer_{n}/attention/linear_1", states))
            for n in range(self.layers)
        ]

    def read(self, prompt: np.ndarray, text: np.ndarray, sound: Sequence[Pair]) -> Pair:
        """Let the decoder read a text after a prompt, int64 ``[1, length]`` each, of one clip.

        Returns:
            Attention ``[recorded heads, tokens + 1, frames]``, row i that of the step that predicts token i; logits
            ``[tokens, rows of the model]`` of each token.
        """
        attended: list[np.ndarray] = []
        hidden, _ = self.pass_on(np.concatenate((prompt, text), axis=1), [], sound, attended)
        first = prompt.shape[1] - 1
        weights = np.concatenate(attended, axis=1)[0, :, first:]
        return weights, self.logits(hidden[0, first : first + text.shape[1]])

    def pass_on(
        self, ids: np.ndarray, past: Sequence[Pair], sound: Sequence[Pair], attended: list[np.ndarray] | None
    ) -> tuple[np.ndarray, list[Pair]]:
        """Pass new ids through the layers.

        Args:
            ids: int64 ``[rows, length]``.
            past: keys and values of each layer's self-attention; empty: there are none.
            sound: those of cross-attention, `sound`.
            attended: gets the recorded heads of each layer ``[rows, heads, length, frames]``; None: nothing is recorded.

        Returns:
            States ``[rows, length, width]``, and the longer keys and values.
        """
        before, length = past[0][0].shape[2] if past else 0, ids.shape[1]
        places = self.weights["decoder/position_encodings/encodings"][before : before + length]
        hidden = self.weights["decoder/embeddings/weight"][ids] + places
        seen = np.arange(before + length)[None] <= np.arange(before, before + length)[:, None]
        bias = np.where(seen, np.float32(0), np.float32(-1e9))
        longer: list[Pair] = []
        for n in range(self.layers):
            name = f"decoder/layer_{n}"
            new = self._linear(
                f"{name}/self_attention/linear_0", self._norm(f"{name}/self_attention", hidden)
            )
            width = hidden.shape[-1]
            pair = self._keys_and_values(new[..., width:])
            if past:
                pair = (
                    np.concatenate((past[n][0], pair[0]), axis=2),
                    np.concatenate((past[n][1], pair[1]), axis=2),
                )
            mixed, _ = self._attend(new[..., :width], pair, bias)
            hidden = hidden + self._linear(f"{name}/self_attention/linear_1", mixed)
            queries = self._linear(f"{name}/attention/linear_0", self._norm(f"{name}/attention", hidden))
            mixed, shares = self._attend(queries, sound[n], None)
            if attended is not None and n in self.recorded:
                attended.append(shares[:, list(self.recorded[n])])
            hidden = hidden + self._linear(f"{name}/attention/linear_2", mixed)
            inner = gelu(self._linear(f"{name}/ffn/linear_0", self._norm(f"{name}/ffn", hidden)))
            hidden = hidden + self._linear(f"{name}/ffn/linear_1", inner)
            longer.append(pair)
        return hidden, longer

    def logits(self, hidden: np.ndarray) -> np.ndarray:
        """Float32 ``[…, rows of the model]`` of what follows each of the states ``[…, width]``."""
        return self._norm("decoder", hidden) @ self.weights["decoder/projection/weight"].T

    def _linear(self, name: str, values: np.ndarray) -> np.ndarray:
        product = values @ self.weights[f"{name}/weight"].T
        return product + self.weights[f"{name}/bias"] if f"{name}/bias" in self.weights else product

    def _norm(self, name: str, values: np.ndarray) -> np.ndarray:
        centred = values - values.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + np.float32(EPSILON))
        return scaled * self.weights[f"{name}/layer_norm/gamma"] + self.weights[f"{name}/layer_norm/beta"]

    def _split(self, values: np.ndarray) -> np.ndarray:
        rows, length, width = values.shape
        return values.reshape(rows, length, self.heads, width // self.heads).transpose(0, 2, 1, 3)

    def _keys_and_values(self, together: np.ndarray) -> Pair:
        keys, values = np.split(together, 2, axis=-1)
        return self._split(keys), self._split(values)

    def _attend(self, queries: np.ndarray, pair: Pair, bias: np.ndarray | None) -> Pair:
        """What the queries ``[rows, length, width]`` gather, and their attention ``[rows, heads, length, frames]``."""
        split = self._split(queries)
        scores = (split / np.float32(np.sqrt(split.shape[-1]))) @ pair[0].transpose(0, 1, 3, 2)
        raised = np.exp(log_softmax(scores if bias is None else scores + bias))
        mixed = (raised @ pair[1]).transpose(0, 2, 1, 3)
        return mixed.reshape(queries.shape), raised


class NumpySteps:
    """`training.runtime.token_search.Steps` of a `NumpyDecoder`, for one clip."""

    def __init__(
        self, decoder: NumpyDecoder, sound: Sequence[Pair], order: np.ndarray, rows: np.ndarray
    ) -> None:
        self.decoder, self.sound, self.past = decoder, sound, list[Pair]()
        self.rows = rows
        self.moved = len(order) != len(rows)

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        hidden, self.past = self.decoder.pass_on(self.rows[ids], self.past, self.sound, None)
        logits = self.decoder.logits(hidden[:, -1])
        return logits[:, self.rows] if self.moved else logits

    def keep(self, rows: np.ndarray) -> None:
        self.past = [(keys[rows], values[rows]) for keys, values in self.past]


def gelu(values: np.ndarray) -> np.ndarray:
    """x Φ(x), with the error function of Abramowitz and Stegun (1964), 7.1.26: within 1.5e-7."""
    x = np.abs(values) * np.float32(np.sqrt(0.5))
    t = 1.0 / (1.0 + np.float32(0.3275911) * x)
    powers = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    erf = np.sign(values) * (1.0 - powers * np.exp(-x * x))
    found: np.ndarray = (0.5 * values * (1.0 + erf)).astype(np.float32)
    return found
