"""What Whisper can do beside writing: detect the language, and say how probable its texts are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from training.models.abilities import LanguagePrediction
from training.models.architecture import new_tokens
from training.models.batch import Batch
from training.models.common.decode import decode_text
from training.models.common.plain_text import text_ids
from training.models.safeguards import Scored
from training.models.whisper.tokenizer import PREVIOUS

NO_SPEECH = ("<|nospeech|>", "<|nocaptions|>")
"""The two names of the control token that says that nobody speaks."""


SURE = 0.9
"""Probability of the language token from which on it alone decides."""
CANDIDATES, BEGINNING, WEIGHT = 5, 24, 1.0
"""Below `SURE` so many languages are compared by the first so many tokens of their texts; weight of these beside the token."""
PHRASE = 6


@dataclass(frozen=True)
class DetectLanguage:
    """Completes prompts that leave the language open: the likeliest language token after the start token.

    Where the model is not sure of it (accents), the likeliest languages are compared by what it would write in them too: the
    logarithm of a token's probability, and `WEIGHT` times the mean log-probability of the beginning of the text. A text in
    the wrong language is one that the model finds improbable itself. A beginning that repeats itself is no text.

    ids: language code → id of its token. start_id: the start token. open_id: stands in the place of an open language.
    prompt: ids that follow the language in a prompt of transcription.
    """

    ids: Mapping[str, int]
    start_id: int
    open_id: int
    prompt: tuple[int, ...]

    @torch.no_grad()
    def __call__(self, model: Any, batch: Batch, states: torch.Tensor | None = None) -> LanguagePrediction:
        inputs = batch["decoder_input_ids"]
        open_ = inputs[:, 0, 1] == self.open_id
        if not open_.any():
            return LanguagePrediction(batch, states, [{}] * len(inputs))
        if states is None:
            states = model.encode(batch["input_features"])
        ids = torch.tensor(list(self.ids.values()), device=inputs.device)
        starts = torch.full((len(inputs), 1), self.start_id, device=inputs.device)
        shares = model.next_logits(states, starts)[:, ids].softmax(dim=-1)
        for row in (open_ & (shares.max(dim=-1).values < SURE)).nonzero().flatten().tolist():
            shares[row] = self._weighed(model, states[row : row + 1], shares[row], ids)
        completed = inputs.clone()
        detected = ids[shares.argmax(dim=-1)]
        completed[:, :, 1] = torch.where(open_[:, None], detected[:, None], inputs[:, :, 1])
        found = [
            dict(zip(self.ids, row, strict=True)) if is_open else {}
            for row, is_open in zip(shares.tolist(), open_.tolist(), strict=True)
        ]
        return LanguagePrediction({**batch, "decoder_input_ids": completed}, states, found)

    def _weighed(
        self, model: Any, states: torch.Tensor, shares: torch.Tensor, ids: torch.Tensor
    ) -> torch.Tensor:
        """Probabilities ``[languages]`` of one row, in which the texts of the likeliest languages count."""
        best = shares.topk(min(CANDIDATES, len(shares)))
        prompts = torch.tensor(
            [[self.start_id, token, *self.prompt] for token in ids[best.indices].tolist()], device=ids.device
        )
        written, means = model.generate_scored(
            states, prompts[None], max_new_tokens=BEGINNING, do_sample=False, num_beams=1
        )
        texts = [
            [*row, self.open_id] for row in written[0].tolist()
        ]  # the open place holds the token that ends texts
        loops = torch.tensor([repeats(row[: row.index(self.open_id)]) for row in texts], device=ids.device)
        if loops.all():
            return shares
        joint = best.values.log() + WEIGHT * means[0].to(shares)
        weighed = torch.zeros_like(shares)
        weighed[best.indices] = joint.masked_fill(loops, -torch.inf).softmax(dim=-1)
        return weighed


def repeats(ids: Sequence[int]) -> bool:
    """Whether half of a beginning of `BEGINNING` tokens repeats the phrase of at most `PHRASE` tokens before it: a loop, of
    which a decoder is sure in any language."""
    for length in range(1, PHRASE + 1):
        run = 0
        for before, now in zip(ids, ids[length:], strict=False):
            run = run + 1 if now == before else 0
            if run >= BEGINNING // 2:
                return True
    return False


@dataclass(frozen=True)
class WhisperScored:
    """`training.models.safeguards.ScoredDecoder` of a Whisper. positions: of its decoder."""

    tokenizer: Any
    start_id: int
    positions: int

    def encode(self, model: Any, batch: Batch) -> torch.Tensor:
        return model.encode(batch["input_features"])

    def no_speech(self, model: Any, states: torch.Tensor) -> list[float]:
        known = self.tokenizer.get_vocab()
        ids = [known[name] for name in NO_SPEECH if name in known]
        if not ids:
            return [0.0] * len(states)
        starts = torch.full((len(states), 1), self.start_id, device=states.device)
        return model.next_logits(states, starts).softmax(dim=-1)[:, ids].sum(dim=-1).tolist()

    def with_prompt(self, prompts: torch.Tensor, text: str) -> torch.Tensor:
        previous = self.tokenizer.convert_tokens_to_ids(PREVIOUS)
        if previous in (None, self.tokenizer.unk_token_id):
            raise ValueError(f"the tokenizer has no token {PREVIOUS}")
        # Whisper keeps half of the positions for the text before the utterance, the last tokens of it.
        kept = text_ids(self.tokenizer, f" {text.strip()}")[-(self.positions // 2 - 1) :]
        before = torch.tensor([previous, *kept], device=prompts.device).expand(*prompts.shape[:2], -1)
        return torch.cat([before, prompts], dim=-1)

    @torch.no_grad()
    def decode(
        self, model: Any, prompts: torch.Tensor, states: torch.Tensor, **generation: Any
    ) -> Sequence[Sequence[Scored]]:
        wanted = generation.get("max_new_tokens")
        generation["max_new_tokens"] = new_tokens(wanted, self.positions, prompts.shape[-1])
        ids, means = model.generate_scored(states, prompts, **generation)
        return [
            [Scored(decode_text(self.tokenizer, row), mean) for row, mean in zip(rows, found, strict=True)]
            for rows, found in zip(ids.tolist(), means.tolist(), strict=True)
        ]
