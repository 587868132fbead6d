"""What a model card is written from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.config.schema import Config
from training.data.example import TRANSLATE
from training.models.lookup import options_class
from training.publishing.evidence import Evidence

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
LANGUAGE = re.compile(r"[a-z]{2,3}(?=$|[_-])")


@dataclass(frozen=True)
class Facts:
    """What a card is written from; paths in it are relative already.

    config: the run's resolved settings. results: its ``train_results.json``. architectures: the classes of
    transformers that load it. hub_bases: of `bases`, the Hub's (`hub_bases`). licence: None where the user stated none.
    """

    repo_id: str
    config: Mapping[str, Any]
    results: Mapping[str, Any]
    architectures: tuple[str, ...]
    hub_bases: tuple[str, ...]
    evidence: Evidence
    licence: str | None = None

    @property
    def model(self) -> Mapping[str, Any]:
        """The ``model:`` block."""
        return self.config["model"]

    @property
    def title(self) -> str:
        """The repository's name without its owner."""
        return self.repo_id.partition("/")[2]

    @property
    def bases(self) -> list[str]:
        """Pretrained weights that the run began from: hub ids and folders."""
        return bases(self.model)

    @property
    def languages(self) -> list[str]:
        """ISO codes of what is spoken and written: those of the training rows, then those of the configuration."""
        recorded = self.results.get("data", {}).get("train", {}).get("languages", [])
        named = [
            self.model.get("language"),
            self.model.get("target_language"),
            *self.model.get("languages", ()),
        ]
        codes = [LANGUAGE.match(name) for name in (*recorded, *named) if name]
        return list(dict.fromkeys(code[0] for code in codes if code))

    @property
    def translates(self) -> bool:
        """Whether it writes translations, beside transcripts or alone."""
        return self.model.get("task") in ("both", TRANSLATE)


def bases(model: Mapping[str, Any]) -> list[str]:
    """Names of pretrained weights in a ``model:`` block; an encoder that is built by its kind's name is none."""
    named = [model.get(key) for key in options_class(str(model["type"])).weight_keys]
    return list(dict.fromkeys(name for name in named if name and "/" in name))


def hub_bases(config: Config) -> tuple[str, ...]:
    """Those of `bases` that are models of the Hub, not folders of this machine."""
    outputs = f"{config.paths.output_dir}/"
    found = bases(config.as_dict()["model"])
    return tuple(
        name
        for name in found
        if HUB_ID.fullmatch(name) and not name.startswith(outputs) and not Path(name).exists()
    )
