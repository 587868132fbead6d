"""The sources of utterances that a ``data:`` block can name, that of the registry aside (`training.registry.data_source`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from training.base.errors import UserError
from training.base.nearest import path_hint
from training.data.options import Contradiction
from training.data.sources.options import DatasetOptions, LibriSpeechOptions, ShardOptions
from training.data.sources.source import PARTS, Missing, Source, Split, no_dev

if TYPE_CHECKING:
    from training.data.sampler import DurationBatchSampler, Neighbours

SPLIT_SEED = 42
"""Draws the dev rows of a table that names none: the same in every run, so that seeds can be compared."""
SPLITTER = "polyvox split"


@dataclass(frozen=True)
class Table(Source):
    """A table (TSV, CSV or JSONL) for each split: ``data.train``, ``data.dev`` and ``data.test``.

    paths: by split; None where the configuration names none.
    audio_root: folder that relative audio paths start from; None: the table's own.
    columns: our name of a column → the table's.
    """

    kind: ClassVar[str] = "table"

    paths: Mapping[Split, Path | None]
    audio_root: Path | None
    columns: Mapping[str, str]

    @classmethod
    def of(cls, data: Any) -> Self:
        return cls({part: getattr(data, part) for part in PARTS}, data.audio_root, data.columns)

    def open(self, split: Split) -> Any:
        from training.data.manifest import load_manifest

        path = self.paths[split]
        if path is None:
            return None
        if not path.exists():
            hint = path_hint(path) or f"; make it with {SPLITTER}, or name another"
            raise UserError(f"data.{split}: {path} is not there{hint}")
        return load_manifest(path, audio_root=self.audio_root, columns=self.columns, need_text=True)

    def describe(self, split: Split) -> str:
        return str(self.paths[split])

    def missing(self, split: Split) -> Missing | None:
        path = self.paths[split]
        return None if path is not None and path.exists() else Missing(path, SPLITTER)

    def check(self, scored: bool) -> list[Contradiction]:
        lacking = scored and self.paths["dev"] is None
        return [no_dev("data.dev is null", ("data", "dev"))] if lacking else []

    def manifest(self, split: Split, rows: Any) -> Path | None:
        return self.paths[split]


@dataclass(frozen=True)
class SplitTable(Source):
    """One table whose column ``split`` says train, dev or test (``data.manifest``).

    path: of the table. dev_share: share of the training rows that serve as dev rows where none are named.
    audio_root, columns: as for `Table`.
    """

    kind: ClassVar[str] = "table"
    key: ClassVar[str] = "manifest"

    path: Path
    dev_share: float
    audio_root: Path | None
    columns: Mapping[str, str]

    @classmethod
    def of(cls, data: Any) -> Self:
        return cls(data.manifest, data.dev_share, data.audio_root, data.columns)

    def open(self, split: Split) -> Any:
        from training.data.prepare.split_column import open_part

        return open_part(
            self.path,
            split,
            dev_share=self.dev_share,
            seed=SPLIT_SEED,
            audio_root=self.audio_root,
            columns=self.columns,
        )

    def describe(self, split: Split) -> str:
        return str(self.path)

    def missing(self, split: Split) -> Missing | None:
        return None if self.path.is_file() else Missing(self.path, SPLITTER)


@dataclass(frozen=True)
class Dataset(Source):
    """A dataset of the library `datasets` (``data.dataset``).

    audio_root: folder that relative audio paths start from; None: the dataset's own.
    """

    kind: ClassVar[str] = "dataset"
    key: ClassVar[str] = "dataset"

    options: DatasetOptions
    audio_root: Path | None

    @classmethod
    def of(cls, data: Any) -> Self:
        return cls(data.dataset, data.audio_root)

    def open(self, split: Split) -> Any:
        from training.data.sources.dataset import load_source

        return load_source(
            self.options.path,
            name=self.options.name,
            split=self.options.split[split],
            columns=self.options.columns,
            audio_root=self.audio_root,
        )

    def describe(self, split: Split) -> str:
        return f"{self.options.path}, split {self.options.split[split]}"

    def manifest(self, split: Split, rows: Any) -> Path | None:
        return None


@dataclass(frozen=True)
class Shards(Source):
    """Folders of WebDataset shards (``data.shards``).

    columns: our name → the name in the samples' JSON.
    """

    kind: ClassVar[str] = "shards"
    key: ClassVar[str] = "shards"
    batches_by_length: ClassVar[bool] = False

    options: ShardOptions
    columns: Mapping[str, str]

    @classmethod
    def of(cls, data: Any) -> Self:
        return cls(data.shards, data.columns)

    def folders(self, split: Split) -> Sequence[Path]:
        """The folders that make a split."""
        found: Sequence[Path] = getattr(self.options, split)
        return found

    def open(self, split: Split) -> Any:
        from training.data.sources.shards.source import load_shards

        if not (folders := self.folders(split)):
            return None
        return load_shards(
            folders,
            domains=self.options.domains,
            default_domain=self.options.default_domain,
            columns=self.columns,
            keys=self.options.keys,
        )

    def describe(self, split: Split) -> str:
        return ", ".join(map(str, self.folders(split)))

    def missing(self, split: Split) -> Missing | None:
        lacking = [folder for folder in self.folders(split) if not folder.is_dir()]
        return Missing(lacking[0], "polyvox shards write") if lacking else None

    def check(self, scored: bool) -> list[Contradiction]:
        from training.data.sources.shards.folders import names_folder

        found = _empty_dev(self.key, self.options.dev, scored)
        folders = [folder for part in PARTS for folder in self.folders(part)]
        for name in self.options.domains:
            if not any(names_folder(name, folder) for folder in folders):
                there = ", ".join(dict.fromkeys(folder.name for folder in folders))
                message = f"no folder of data.shards is called so (there are: {there})"
                found.append((("data", "shards", "domains", name), message, ()))
        return found

    def batches(self, rows: Any, neighbours: Neighbours | None = None) -> Callable[..., DurationBatchSampler]:
        assert neighbours is None, "the order of shards is that of the disk"
        from training.data.sources.shards.order import ShardBatchSampler

        return partial(
            ShardBatchSampler.of,
            rows,
            balance=self.options.balance,
            shuffle_buffer=self.options.shuffle_buffer,
        )


@dataclass(frozen=True)
class LibriSpeech(Source):
    """The LibriSpeech corpus (``data.librispeech``)."""

    kind: ClassVar[str] = "librispeech"
    key: ClassVar[str] = "librispeech"

    options: LibriSpeechOptions

    @classmethod
    def of(cls, data: Any) -> Self:
        return cls(data.librispeech)

    def names(self, split: Split) -> Sequence[str]:
        """The corpus's own splits that make one of ours."""
        found: Sequence[str] = getattr(self.options, split)
        return found

    def open(self, split: Split) -> Any:
        from training.data.sources.librispeech import load_librispeech

        names = self.names(split)
        return load_librispeech(self.options.root, names) if names else None

    def describe(self, split: Split) -> str:
        return f"LibriSpeech, {', '.join(self.names(split))}"

    def missing(self, split: Split) -> Missing | None:
        from training.data.sources.librispeech import COMMAND, corpus_folder

        corpus = corpus_folder(self.options.root)
        lacking = [corpus / name for name in self.names(split) if not (corpus / name).is_dir()]
        return Missing(lacking[0], COMMAND) if lacking else None

    def check(self, scored: bool) -> list[Contradiction]:
        found = _empty_dev(self.key, self.options.dev, scored)
        seen: dict[str, str] = {}
        for part in PARTS:
            for name in self.names(part):
                if (before := seen.setdefault(name, part)) != part:
                    message = f"{name} is one of data.librispeech.{before} too; scores need speech that was not seen"
                    key = "data", "librispeech"
                    found.append(((*key, part), message, ((*key, before),)))
        return found


def _empty_dev(key: str, dev: Sequence[Any], scored: bool) -> list[Contradiction]:
    """A source whose splits are lists, without one that is scored during training."""
    return [no_dev(f"data.{key}.dev is empty", ("data", key, "dev"))] if scored and not dev else []


KINDS: dict[str, type[Source]] = {one.key: one for one in (SplitTable, Dataset, Shards, LibriSpeech)}
"""Key of the ``data:`` block → its source."""
