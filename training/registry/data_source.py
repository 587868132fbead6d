"""A frozen version of a registry as a source of utterances (``data.registry`` and ``data.version``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from training.data.sources.source import Source, Split


@dataclass(frozen=True)
class RegistrySource(Source):
    """A frozen version of a data registry.

    where: SQLite file or SQLAlchemy URL. version: its name.
    """

    kind: ClassVar[str] = "registry"
    key: ClassVar[str] = "registry"

    where: str
    version: str

    @classmethod
    def of(cls, data: Any) -> Self:
        return cls(data.registry, data.version)

    def open(self, split: Split) -> Any:
        from training.registry.source import load_version

        return load_version(self.where, self.version, split)

    def describe(self, split: Split) -> str:
        return f"{self.where}, version {self.version}"

    @property
    def database(self) -> str | None:
        return self.where
