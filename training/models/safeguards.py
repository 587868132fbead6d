"""Options of Whisper's safeguards of decoding, and what a model offers that can be decoded with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True, kw_only=True)
class Safeguards:
    """Whisper's safeguards of decoding (Radford et al. 2022, section 4.5), with the values published there.

    temperatures: tried in this order until a text passes; 0 is the most probable path (or the beam search), above 0 the
        tokens are drawn. One value: no fallback.
    compression_ratio: a text that zlib compresses by more than this factor repeats itself; None: not looked at.
    log_probability: a text whose mean log-probability per token (natural logarithm) is lower fails; None: not looked at.
    no_speech: an utterance whose probability of no speech is higher, and whose text fails by its log-probability, gets
        no text; None: not looked at.
    repetition: a text with a run of equal phrases fails too (`training.decoding.repetition`); where every temperature
        fails, the run is cut after its first phrase.
    no_repeat_ngram: no run of so many tokens may appear twice in a text; 0: no such bound.
    suppressed: token ids that are never written, instead of those of the generation configuration; None: those.
    initial_prompt: text that is said to come before the utterance (``<|startofprev|>``): names, spelling, style.
    """

    temperatures: tuple[float, ...] = TEMPERATURES
    compression_ratio: float | None = 2.4
    log_probability: float | None = -1.0
    no_speech: float | None = 0.6
    repetition: bool = True
    no_repeat_ngram: int = 0
    suppressed: tuple[int, ...] | None = None
    initial_prompt: str = ""

    def __post_init__(self) -> None:
        if not self.temperatures or any(not 0 <= one <= 2 for one in self.temperatures):
            raise ValueError(f"temperatures: at least one, each from 0 to 2 (got {list(self.temperatures)})")
        if self.no_repeat_ngram < 0:
            raise ValueError(
                f"no_repeat_ngram_size: a number of tokens from 0 on (got {self.no_repeat_ngram})"
            )


@dataclass(frozen=True, kw_only=True)
class Search:
    """How a decoder looks for texts, whatever computes it.

    beams: 1 is greedy, or drawn. new: the most new tokens; None: as many as fit. temperature: above 0 the tokens are drawn,
    by one beam. no_repeat_ngram, suppressed: see `Safeguards`. stop_repeats: a text that does nothing but repeat itself
    is ended (`training.models.common.repeated_tokens`).
    """

    beams: int = 1
    new: int | None = None
    temperature: float = 0.0
    no_repeat_ngram: int = 0
    suppressed: tuple[int, ...] | None = None
    stop_repeats: bool = False


class Scored(NamedTuple):
    """One decoded text. log_probability: mean natural log-probability of its tokens, the end token included."""

    text: str
    log_probability: float


class ScoredDecoder(Protocol):
    """The ability of a model to be decoded at several temperatures, and to say how probable its texts are.

    Prompts and states are arrays of the model's own kind: tensors of torch, arrays of numpy, an engine's.
    vocabulary: number of token ids.
    """

    @property
    def vocabulary(self) -> int: ...

    def prompts(self, batch: Any) -> Any:
        """The prompts of a batch, int64 ``[batch, task, length]``."""
        ...

    def encode(self, model: Any, batch: Any) -> Any:
        """Encoder states of a batch."""
        ...

    def row(self, model: Any, states: Any, row: int) -> Any:
        """The encoder states of one row, as a batch of one."""
        ...

    def no_speech(self, model: Any, states: Any) -> list[float]:
        """The probability of each row that nobody speaks."""
        ...

    def before(self, text: str) -> list[int]:
        """The ids in front of a prompt that say that this text comes before the utterance.

        Raises:
            ValueError: the tokenizer has no token for that.
        """
        ...

    def with_prompt(self, prompts: Any, text: str) -> Any:
        """``prompts`` with the ids of `before` in front of them."""
        ...

    def decode(self, model: Any, prompts: Any, states: Any, search: Search) -> Sequence[Sequence[Scored]]:
        """The text of each row and task, for ``prompts [batch, task, length]``."""
        ...
