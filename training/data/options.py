"""The base of every block of options, and the blocks that the data code reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]


Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


Contradiction = tuple[tuple[str | int, ...], str, tuple[tuple[str | int, ...], ...]]
"""A key, what is wrong with it, and the other keys that take part in it."""


class Block(BaseModel):
    """Base of all blocks: frozen, and unknown keys are refused."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),
        allow_inf_nan=False,
    )


def one_or_more(given: Any) -> Any:
    """A single name or path as a list of one."""
    return (given,) if isinstance(given, str | Path) else given


class Change(Block):
    """One change of the training clips."""

    prob: Share = 0.0
    """Share of the clips that are changed."""


class Speed(Change):
    """Speed perturbation, which also changes the pitch (Ko et al. 2015)."""

    low: Positive = 0.9
    """Slowest."""
    high: Positive = 1.1
    """Fastest."""


class Volume(Change):
    """Louder or softer."""

    low_db: float = -10.0
    """Softest, in decibels."""
    high_db: float = 6.0
    """Loudest, in decibels."""


class Shift(Change):
    """Silence before and after the clip; nothing is cut off."""

    seconds: NonNegative = 0.2
    """The longest silence at either end."""


class Noise(Change):
    """Noise that is added to the speech."""

    folder: Path | None = None
    """Recordings of noise (WAV, FLAC, …); null: synthetic noise from white to brown."""
    snr_low: float = 5.0
    """Lowest signal-to-noise ratio, in decibels."""
    snr_high: float = 25.0
    """Highest signal-to-noise ratio, in decibels."""


class Reverb(Change):
    """Reverberation: the clip is convolved with a recorded impulse response."""

    folder: Path | None = None
    """Impulse responses (WAV, FLAC, …)."""


class SpecMasks(Change):
    """SpecAugment (Park et al. 2019): stretches of bands and of frames are masked."""

    freq_masks: Annotated[int, Field(ge=0)] = 2
    """Masks over bands."""
    freq_width: Share = 0.2
    """The widest of them, as a share of the bands."""
    time_masks: Annotated[int, Field(ge=0)] = 2
    """Masks over frames."""
    time_width: Share = 0.1
    """The widest of them, as a share of the clip's frames."""


class Join(Change):
    """Several clips in sequence as one utterance, as in long recordings; ``prob``: share of the batches."""

    most: Annotated[int, Field(ge=2)] = 3
    """The most clips in one; together, before pauses and other changes, no longer than `audio.max_length_seconds`."""
    pause: NonNegative = 0.3
    """The longest silence between two of them, in seconds."""
    after_epochs: Annotated[int, Field(ge=0)] = 0
    """Number of first epochs with single clips only: a model from scratch learns to align faster on short clips."""


class Augmentation(Block):
    """Augmentation of the training clips, drawn again for every clip and epoch. Evaluation uses the clips unchanged."""

    enabled: bool = True
    """false: no augmentation, whatever the keys below say."""
    after_epochs: Annotated[int, Field(ge=0)] = 0
    """Number of first epochs without augmentation: a model from scratch learns faster from unchanged clips, and these
    steps are cheaper. `join` has its own."""
    speed: Speed = Speed()
    """Speed perturbation, which also changes the pitch."""
    shift: Shift = Shift()
    """Silence before and after the clip."""
    reverb: Reverb = Reverb()
    """Reverberation."""
    noise: Noise = Noise()
    """Noise that is added to the speech."""
    volume: Volume = Volume()
    """Louder or softer."""
    spec: SpecMasks = SpecMasks()
    """Masks over the log-mels (SpecAugment)."""
    join: Join = Join()
    """Several clips as one utterance."""

    @property
    def changes(self) -> dict[str, Change]:
        """Every change by its name, in the order in which they are made."""
        return {name: value for name, value in self if isinstance(value, Change)}

    @property
    def active(self) -> bool:
        """Whether any clip is changed."""
        return self.enabled and any(change.prob > 0 for change in self.changes.values())

    @property
    def starting_later(self) -> dict[str, int]:
        """Epochs after which the training clips become harder, by the key that says so; without those at the start."""
        alone = any(change.prob > 0 for name, change in self.changes.items() if name != "join")
        waits = {
            "after_epochs": alone * self.after_epochs,
            "join.after_epochs": bool(self.join.prob) * self.join.after_epochs,
        }
        return {key: epochs for key, epochs in waits.items() if self.enabled and epochs}
