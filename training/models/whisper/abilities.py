"""What Whisper can do beside writing: detect the language, and say how probable its texts are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from training.models.abilities import LanguagePrediction
from training.models.architecture import TOKENS_PER_SECOND, new_tokens
from training.models.batch import Batch
from training.models.common.decode import decode_text
from training.models.common.plain_text import text_ids
from training.models.common.stop_repeats import StopRepeats
from training.models.safeguards import Scored
from training.models.whisper.tokenizer import PREVIOUS

NO_SPEECH = ("<|nospeech|>", "<|nocaptions|>")
"""The two names of the control token that says that nobody speaks."""


SURE = 0.9
"""Probability of the language token from which on it alone decides."""
CANDIDATES, WEIGHT = 5, 0.3
"""Below `SURE` so many languages are compared by their texts; weight of a text's log-probability beside the token's."""
SHORT = 1 / 8
"""A text with fewer tokens than this share of the longest one stands for a part of the speech alone: scripts differ by less."""
EXTRA_TOKENS, MOST_TOKENS = 20, 220
"""Beside `TOKENS_PER_SECOND`, tokens after which a text is given up; and the most (half of Whisper's positions)."""


@dataclass(frozen=True)
class DetectLanguage:
    """Completes prompts that leave the language open: the likeliest language token after the start token.

    Where the model is not sure of it (accents), the likeliest languages are compared by what it would write in them too: the
    logarithm of a token's probability, and `WEIGHT` times that of its whole text, the sum over the tokens. Not their mean: scripts
    that take many tokens for a word have many that are easy to foretell. Texts that do not end (loops), or that stand for a
    part of the speech, are compared with nothing; where none is left, the token decides.

    ids: language code → id of its token. start_id: the start token. end_id: the token that ends a text; it stands in the place
    of an open language too. prompt: ids that follow the language in a prompt of transcription.
    """

    ids: Mapping[str, int]
    start_id: int
    end_id: int
    prompt: tuple[int, ...]

    @torch.no_grad()
    def __call__(self, model: Any, batch: Batch, states: torch.Tensor | None = None) -> LanguagePrediction:
        inputs = batch["decoder_input_ids"]
        open_ = inputs[:, 0, 1] == self.end_id
        if not open_.any():
            return LanguagePrediction(batch, states, [{}] * len(inputs))
        if states is None:
            states = model.encode(batch["input_features"])
        ids = torch.tensor(list(self.ids.values()), device=inputs.device)
        starts = torch.full((len(inputs), 1), self.start_id, device=inputs.device)
        shares = model.next_logits(states, starts)[:, ids].softmax(dim=-1)
        for row in (open_ & (shares.max(dim=-1).values < SURE)).nonzero().flatten().tolist():
            tokens = min(MOST_TOKENS, EXTRA_TOKENS + int(TOKENS_PER_SECOND * batch["clip_seconds"][row]))
            shares[row] = self._weighed(model, states[row : row + 1], shares[row], ids, tokens)
        completed = inputs.clone()
        detected = ids[shares.argmax(dim=-1)]
        completed[:, :, 1] = torch.where(open_[:, None], detected[:, None], inputs[:, :, 1])
        found = [
            dict(zip(self.ids, row, strict=True)) if is_open else {}
            for row, is_open in zip(shares.tolist(), open_.tolist(), strict=True)
        ]
        return LanguagePrediction({**batch, "decoder_input_ids": completed}, states, found)

    def _weighed(
        self, model: Any, states: torch.Tensor, shares: torch.Tensor, ids: torch.Tensor, most_tokens: int
    ) -> torch.Tensor:
        """Probabilities ``[languages]`` of one row, in which the texts of the likeliest languages count."""
        best = shares.topk(min(CANDIDATES, len(shares)))
        prompts = torch.tensor(
            [[self.start_id, token, *self.prompt] for token in ids[best.indices].tolist()], device=ids.device
        )
        loops = StopRepeats(prompts.shape[-1])
        written, means = model.generate_scored(
            states,
            prompts[None],
            max_new_tokens=most_tokens,
            do_sample=False,
            num_beams=1,
            stopping_criteria=[loops],
        )
        looping = torch.zeros(len(prompts), dtype=torch.bool, device=ids.device)
        if loops.stopped is not None:
            looping = loops.stopped
        ends = written[0] == self.end_id
        ended = ends.any(dim=-1) & ~looping  # the row of a loop is filled up with end tokens
        lengths = torch.where(ended, ends.int().argmax(dim=-1) + 1, written.shape[-1]).masked_fill(looping, 0)
        whole = ended & (lengths >= SHORT * lengths.max())
        if not whole.any():
            return shares
        joint = best.values.log() + WEIGHT * lengths * means[0].to(shares)
        weighed = torch.zeros_like(shares)
        weighed[best.indices] = joint.masked_fill(~whole, -torch.inf).softmax(dim=-1)
        return weighed


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
