"""Decodes with Whisper's safeguards: another temperature where a text fails, no text where nobody speaks, loops cut.

Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision", section 4.5.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from training.data.example import NO_SPEECH, REPETITION, UNCERTAIN, DecodingQuality
from training.decoding.repetition import cut_loops, loops
from training.decoding.stop_repeats import StopRepeats
from training.models.architecture import Decoded, DecodeOptions, SpeechModel
from training.models.batch import Batch
from training.models.safeguards import Safeguards, Scored

SEED = 0
"""Of the draws: the same utterance gives the same text, whatever is decoded with it."""


def decode_guarded(
    architecture: SpeechModel,
    batch: Batch,
    options: DecodeOptions,
    *,
    model: Any,
    states: torch.Tensor | None = None,
) -> dict[str, list[Decoded]]:
    """As `SpeechModel.decode`, with ``options.safeguards``; only for a model with the ability `scored`.

    The batch is decoded once, at the first temperature; only rows whose text fails are decoded again.

    Args:
        architecture: the model's.
        batch: on the model's device.
        options: of decoding, with safeguards.
        model: the module.
        states: encoder states ``[batch, frames, width]`` where they are known already.

    Returns:
        For each task one `Decoded` per row, with its `DecodingQuality`.
    """
    decoding = _Decoding(architecture, batch, options, model, states)
    tasks = architecture.tasks
    first = decoding.first()
    rows = [
        [decoding.best(row, task, one) for task, one in enumerate(found)] for row, found in enumerate(first)
    ]
    decoded = {name: [row[task] for row in rows] for task, name in enumerate(tasks)}
    return architecture.with_word_times(batch, decoded, model=model, states=decoding.states)


def compression_ratio(text: str) -> float:
    """Bytes of a text divided by its bytes after zlib; loops compress well."""
    data = text.encode("utf8")
    return len(data) / len(zlib.compress(data))


@dataclass(frozen=True)
class _Attempt:
    """One text, the temperature that it was decoded at, and why it fails: `REPETITION`, `UNCERTAIN`; None: it passes."""

    scored: Scored
    temperature: float
    failure: str | None


class _Decoding:
    """The decoding of one batch."""

    def __init__(
        self,
        architecture: SpeechModel,
        batch: Batch,
        options: DecodeOptions,
        model: Any,
        states: torch.Tensor | None,
    ) -> None:
        assert options.safeguards is not None and architecture.scored is not None
        self.ability, self.safeguards, self.options = architecture.scored, options.safeguards, options
        self.model = model
        self.states = self.ability.encode(model, batch) if states is None else states
        prompts = batch["decoder_input_ids"][:, :, : batch["prompt_length"]]
        before = self.safeguards.initial_prompt
        self.prompts = self.ability.with_prompt(prompts, before) if before.strip() else prompts

    def first(self) -> list[list[_Attempt]]:
        """The attempt at the first temperature, for each row and task."""
        temperature = self.safeguards.temperatures[0]
        if temperature == 0:
            found = self._decoded(self.prompts, self.states, temperature)
            return [[self._judged(one, temperature) for one in row] for row in found]
        shape = self.prompts.shape[:2]
        return [[self._again(row, task, temperature) for task in range(shape[1])] for row in range(shape[0])]

    def best(self, row: int, task: int, first: _Attempt) -> Decoded:
        """The text that passes, or the best of those that fail."""
        attempts = [first]
        silence = self._no_speech(row, first)
        for temperature in self.safeguards.temperatures[1:]:
            if attempts[-1].failure is None or self._silent(attempts[-1], silence):
                break
            attempts.append(self._again(row, task, temperature))
            silence = self._no_speech(row, attempts[-1]) if silence is None else silence
        return self._chosen(attempts, silence)

    def _again(self, row: int, task: int, temperature: float) -> _Attempt:
        """One row and task decoded by itself, so that its draws do not depend on its neighbours."""
        prompts, states = self.prompts[row : row + 1, task : task + 1], self.states[row : row + 1]
        return self._judged(self._decoded(prompts, states, temperature)[0][0], temperature)

    def _decoded(
        self, prompts: torch.Tensor, states: torch.Tensor, temperature: float
    ) -> Sequence[Sequence[Scored]]:
        generation = {**self.options.generation(), **self.safeguards.generation()}
        if self.safeguards.repetition and (self.options.beam_width == 1 or temperature > 0):
            generation["stopping_criteria"] = [StopRepeats(prompts.shape[-1])]
        if temperature == 0:
            return self.ability.decode(self.model, prompts, states, **generation)
        generation |= {"num_beams": 1, "do_sample": True, "temperature": temperature, "top_k": 0}
        devices = [states.device] if states.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(SEED)
            return self.ability.decode(self.model, prompts, states, **generation)

    def _judged(self, scored: Scored, temperature: float) -> _Attempt:
        return _Attempt(scored, temperature, failure(scored, self.safeguards))

    def _no_speech(self, row: int, attempt: _Attempt) -> float | None:
        """The probability of no speech, where the text is so uncertain that it matters."""
        if self.safeguards.no_speech is None or not self._unsure(attempt):
            return None
        return self.ability.no_speech(self.model, self.states[row : row + 1])[0]

    def _unsure(self, attempt: _Attempt) -> bool:
        bound = self.safeguards.log_probability
        return bound is None or attempt.scored.log_probability < bound

    def _silent(self, attempt: _Attempt, silence: float | None) -> bool:
        bound = self.safeguards.no_speech
        return bound is not None and silence is not None and silence > bound and self._unsure(attempt)

    def _chosen(self, attempts: Sequence[_Attempt], silence: float | None) -> Decoded:
        chosen = attempts[-1]
        if self._silent(chosen, silence):
            return _no_text(chosen, silence)
        if chosen.failure is not None:
            # As faster-whisper: the most probable text, one without repetition before one with it.
            sound = [one for one in attempts if one.failure != REPETITION]
            chosen = max(sound or attempts, key=lambda one: one.scored.log_probability)
        whole = chosen.scored.text
        is_cut = self.safeguards.repetition and chosen.failure == REPETITION and loops(whole)
        text = cut_loops(whole) if is_cut else whole
        return Decoded(text, quality=_quality(chosen, silence, chosen.failure, whole if is_cut else None))


def failure(scored: Scored, safeguards: Safeguards) -> str | None:
    """Why a text fails: `REPETITION`, `UNCERTAIN`; None: it passes."""
    ratio = safeguards.compression_ratio
    if ratio is not None and compression_ratio(scored.text) > ratio:
        return REPETITION
    if safeguards.repetition and loops(scored.text):
        return REPETITION
    bound = safeguards.log_probability
    return UNCERTAIN if bound is not None and scored.log_probability < bound else None


def _no_text(attempt: _Attempt, silence: float | None) -> Decoded:
    return Decoded("", quality=_quality(attempt, silence, NO_SPEECH, attempt.scored.text or None))


def _quality(
    attempt: _Attempt, silence: float | None, suspect: str | None, uncut: str | None
) -> DecodingQuality:
    return DecodingQuality(
        temperature=attempt.temperature,
        log_probability=attempt.scored.log_probability,
        compression_ratio=compression_ratio(attempt.scored.text),
        no_speech=silence,
        suspect=suspect,
        uncut=uncut,
    )
