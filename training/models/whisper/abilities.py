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
from training.models.common.language_choice import BEGINNING, Beginning, language_shares
from training.models.common.plain_text import text_ids
from training.models.common.stop_repeats import StopRepeats
from training.models.safeguards import Scored, Search
from training.models.whisper.tokenizer import PREVIOUS

NO_SPEECH = ("<|nospeech|>", "<|nocaptions|>")
"""The two names of the control token that says that nobody speaks."""


@dataclass(frozen=True)
class DetectLanguage:
    """Completes prompts that leave the language open, see `training.models.common.language_choice`.

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

        def beginnings(row: int, languages: list[int]) -> list[Beginning]:
            prompts = [[self.start_id, int(ids[n]), *self.prompt] for n in languages]
            asked = torch.tensor(prompts, device=inputs.device)[None]
            generation = {"max_new_tokens": BEGINNING, "do_sample": False, "num_beams": 1}
            written, means = model.generate_scored(states[row : row + 1], asked, **generation)
            # The open place holds the token that ends texts.
            texts = [[*text, self.open_id] for text in written[0].tolist()]
            return [
                Beginning(text[: text.index(self.open_id)], mean)
                for text, mean in zip(texts, means[0].tolist(), strict=True)
            ]

        logits = model.next_logits(states, starts)[:, ids].cpu().numpy()
        shares = language_shares(logits, open_.tolist(), beginnings)
        completed = inputs.clone()
        detected = ids[torch.from_numpy(shares.argmax(axis=-1)).to(ids)]
        completed[:, :, 1] = torch.where(open_[:, None], detected[:, None], inputs[:, :, 1])
        probabilities = [
            dict(zip(self.ids, row, strict=True)) if is_open else {}
            for row, is_open in zip(shares.tolist(), open_.tolist(), strict=True)
        ]
        return LanguagePrediction({**batch, "decoder_input_ids": completed}, states, probabilities)


@dataclass(frozen=True)
class WhisperScored:
    """`training.models.safeguards.ScoredDecoder` of a Whisper. positions: of its decoder. vocabulary: number of ids."""

    tokenizer: Any
    start_id: int
    positions: int
    vocabulary: int

    def prompts(self, batch: Batch) -> torch.Tensor:
        return batch["decoder_input_ids"][:, :, : batch["prompt_length"]]

    def encode(self, model: Any, batch: Batch) -> torch.Tensor:
        return model.encode(batch["input_features"])

    def row(self, model: Any, states: torch.Tensor, row: int) -> torch.Tensor:
        return states[row : row + 1]

    def no_speech(self, model: Any, states: torch.Tensor) -> list[float]:
        known = self.tokenizer.get_vocab()
        ids = [known[name] for name in NO_SPEECH if name in known]
        if not ids:
            return [0.0] * len(states)
        starts = torch.full((len(states), 1), self.start_id, device=states.device)
        return model.next_logits(states, starts).softmax(dim=-1)[:, ids].sum(dim=-1).tolist()

    def before(self, text: str) -> list[int]:
        previous = self.tokenizer.convert_tokens_to_ids(PREVIOUS)
        if previous in (None, self.tokenizer.unk_token_id):
            raise ValueError(f"the tokenizer has no token {PREVIOUS}")
        return [previous, *last_ids(text_ids(self.tokenizer, f" {text.strip()}"), self.positions)]

    def with_prompt(self, prompts: torch.Tensor, text: str) -> torch.Tensor:
        before = torch.tensor(self.before(text), device=prompts.device).expand(*prompts.shape[:2], -1)
        return torch.cat([before, prompts], dim=-1)

    @torch.no_grad()
    def decode(
        self, model: Any, prompts: torch.Tensor, states: torch.Tensor, search: Search
    ) -> Sequence[Sequence[Scored]]:
        ids, means = model.generate_scored(states, prompts, **self.arguments(search, prompts.shape[-1]))
        return [
            [Scored(decode_text(self.tokenizer, row), mean) for row, mean in zip(rows, found, strict=True)]
            for rows, found in zip(ids.tolist(), means.tolist(), strict=True)
        ]

    def arguments(self, search: Search, prompt: int) -> dict[str, Any]:
        """Of transformers' ``generate``."""
        found: dict[str, Any] = {
            "max_new_tokens": new_tokens(search.new, self.positions, prompt),
            "num_beams": search.beams,
            "do_sample": False,
            "drawn_at": search.temperature,
        }
        if search.no_repeat_ngram:
            found["no_repeat_ngram_size"] = search.no_repeat_ngram
        if search.suppressed is not None:
            found["suppress_tokens"] = list(search.suppressed)
        if search.stop_repeats:
            found["stopping_criteria"] = [StopRepeats(prompt)]
        return found


def last_ids(ids: list[int], positions: int) -> list[int]:
    """The last ids of a text before the utterance: with its control token half of the positions, as in Whisper."""
    return ids[-(positions // 2 - 1) :]
