"""The blocks of a configuration that name a source of utterances other than tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from training.data.options import Block, Count, Positive, one_or_more


class DatasetOptions(Block):
    """A `datasets` dataset instead of manifests: a hub id, a Parquet or audio folder, a saved dataset."""

    path: str
    """What `datasets.load_dataset` or `load_from_disk` takes: hub id or local folder."""
    name: str | None = None
    """Name of the dataset's configuration (subset), where it has several."""
    split: dict[Literal["train", "dev", "test"], str] = Field(
        default={"train": "train", "dev": "validation", "test": "test"}
    )
    """Our split → the dataset's split; slices such as `train[:90%]` are understood by `datasets`. Splits that are
    left out keep their default."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Our column → the dataset's column (`transcript: sentence`)."""

    @field_validator("split", mode="before")
    @classmethod
    def _complete(cls, given: Any) -> Any:
        return {**cls.model_fields["split"].default, **given} if isinstance(given, dict) else given


class ShardOptions(Block):
    """WebDataset shards instead of manifests (see `docs/data-formats.md`): folders of tar archives, read in place."""

    train: Annotated[tuple[Path, ...], Field(min_length=1)]
    """Folder of shards to train on, or a list of folders that are one split (`[root/train, root/train_normal]`)."""
    dev: tuple[Path, ...] = ()
    """The folders that checkpoints are chosen on."""
    test: tuple[Path, ...] = ()
    """The folders that the finished run is scored on."""
    domains: dict[str, str] = Field(default_factory=dict)
    """Folder (its name, or the end of its path) → domain of the samples whose JSON names none. The name of a folder
    alone has no meaning. null removes the entry of a base configuration."""
    default_domain: str | None = None
    """Domain of samples that have none otherwise; they are counted. null: such a sample is a mistake."""
    keys: Literal["first_dot", "suffix"] = "first_dot"
    """Where the key that the members of a sample share ends: at the first dot of the file's name, as WebDataset has it, or
    before its `suffix`. Where the first dot would give one key to several clips, their names are read by the other rule."""
    shuffle_buffer: Count = 5000
    """Places by which a sample moves at most in the order of the permuted shards: larger mixes more, and reads from
    more shards at a time."""
    balance: dict[str, Positive] = Field(default_factory=dict)
    """Domain → how often each of its samples comes in an epoch (`{dyslexic: 3}`; 0.5: half of them, drawn for each
    epoch); domains that are not named come once."""

    @field_validator("train", "dev", "test", mode="before")
    @classmethod
    def _several(cls, given: Any) -> Any:
        return one_or_more(given)

    @field_validator("domains", mode="before")
    @classmethod
    def _taken_back(cls, given: Any) -> Any:
        return {k: v for k, v in given.items() if v is not None} if isinstance(given, dict) else given


class LibriSpeechOptions(Block):
    """The LibriSpeech corpus instead of manifests (see `docs/data-formats.md`), as `polyvox download librispeech` leaves
    it."""

    root: Path = Path("data")
    """Folder that holds `LibriSpeech/`."""
    train: Annotated[tuple[str, ...], Field(min_length=1)]
    """Split to train on, or a list of splits (`[train-clean-100, train-clean-360]`)."""
    dev: tuple[str, ...] = ()
    """The splits that checkpoints are chosen on."""
    test: tuple[str, ...] = ()
    """The splits that the finished run is scored on."""

    @field_validator("train", "dev", "test", mode="before")
    @classmethod
    def _several(cls, given: Any) -> Any:
        return one_or_more(given)
