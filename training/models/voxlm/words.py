"""Times and confidences of the words of given texts, by a VoxLM with an aligner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from training.data.example import SpokenWord
from training.models.common.log_mels import ENCODER_FRAMES_PER_SECOND, FRAMES_PER_SECOND, encoder_frames
from training.models.common.monotone import word_times
from training.models.voxlm.collator import VoxLMCollator, VoxLMEncode

if TYPE_CHECKING:
    from training.models.batch import Batch


@dataclass(frozen=True)
class PointedWords:
    """Times and confidence of the words of given texts: ``(model, batch, texts, states=None) -> words of each text``.

    A word's confidence is the probability of all its tokens, each after those before it; nothing alters the scores.
    """

    encode: VoxLMEncode
    collate: VoxLMCollator
    given_text: bool = True

    @torch.no_grad()
    def __call__(
        self, model: Any, batch: Batch, texts: Sequence[str], states: torch.Tensor | None = None
    ) -> list[tuple[SpokenWord, ...]]:
        features = [self.encode.spoken(text) for text in texts]
        texts_batch = self.collate.texts(features, batch["frames"].cpu())
        texts_batch = {
            key: value.to(batch["frames"].device)
            for key, value in texts_batch.items()
            if torch.is_tensor(value)
        }
        if states is None:
            states = model.encode(batch["input_features"])
        count, states = int(texts_batch["words"].max()), states[:, : encoder_frames(batch["longest"])]
        if not count:
            return [()] * len(texts)
        frames, ids = batch["frames"], texts_batch["input_ids"]
        hidden = model.hidden(model.embed(ids, states, frames), texts_batch["attention_mask"])
        pointed = model.point(hidden, states, frames, texts_batch["token_words"], texts_batch["words"], count)
        times = [
            p.float().log_softmax(dim=-1).cpu().numpy() for p in (pointed.start_logits, pointed.end_logits)
        ]
        sure = _word_probabilities(model, hidden, ids, texts_batch["token_words"], count)
        rows = []
        for i, text in enumerate(texts):
            n, length = int(texts_batch["words"][i]), int(encoder_frames(frames[i]))
            found = word_times(
                times[0][i, :n, :length],
                times[1][i, :n, :length],
                1 / ENCODER_FRAMES_PER_SECOND,
                min(
                    float(frames[i]) / FRAMES_PER_SECOND, batch["clip_seconds"][i]
                ),  # the frames hold a little silence more
            )
            rows.append(
                tuple(
                    SpokenWord(text=word, start=float(a), end=float(b), confidence=float(sure[i, k]))
                    for k, (word, (a, b)) in enumerate(zip(text.split(), found, strict=True))
                )
            )
        return rows


def _word_probabilities(
    model: Any, hidden: torch.Tensor, ids: torch.Tensor, token_words: torch.Tensor, words: int
) -> torch.Tensor:
    """``[batch, words]``: product over each word's tokens of their probabilities."""
    here = token_words[:, 1:] >= 0
    logits = model.get_output_embeddings()(hidden[:, :-1][here]).float()
    log_probs = logits.log_softmax(dim=-1).gather(1, ids[:, 1:][here][:, None])[:, 0]
    rows = torch.arange(len(ids), device=ids.device)[:, None].expand_as(here)[here]
    sums = log_probs.new_zeros(len(ids), words)
    sums.index_put_((rows, token_words[:, 1:][here]), log_probs, accumulate=True)
    return sums.exp().cpu()
