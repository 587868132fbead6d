"""A run's resolved configuration and what its folder holds, asked in a process of its own.

Reading a configuration imports its architecture and with it torch; the pipeline, which lives as long as both
trainings, keeps that memory free.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.base.errors import USER_ERROR, UserError, exit_on_user_error
from training.data.sources.source import named
from training.recipes.weights import of_scores


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """``text``: the configuration as a run saves it; ``checkpoint``: the newest whole one in its folder."""

    values: dict[str, Any]
    text: str
    checkpoint: Path | None

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.values["output"]["dir"])

    @property
    def name(self) -> str:
        """The run's name in result files."""
        return str(self.values["output"]["experiment_name"])


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training configuration."""

    config: Path
    overrides: tuple[str, ...]
    resolved: Resolved

    def path(self, name: str) -> Path:
        """One of the configuration's ``paths``."""
        return Path(self.resolved.values["paths"][name])

    @property
    def from_files(self) -> bool:
        """Whether ``data`` reads the manifests ``train``, ``dev`` and ``test``."""
        return not named(self.resolved.values["data"])

    def reads_splits(self, splits: Path) -> bool:
        """Whether it trains on a manifest of the folder ``splits``."""
        train = self.resolved.values["data"]["train"]
        return self.from_files and train is not None and Path(train).parent == splits

    def names(self) -> dict[str, Any]:
        """What a recipe's ``{run.…}`` means.

        ``manifests``: those of training and dev; ``tested``: that of the test split, in a list, which is empty where
        the run names its own test data; ``unheard``: that of the speakers that are not in training, where it exists;
        ``scoring``: the settings of the evaluation as ``key=value``.
        """
        data, splits = self.resolved.values["data"], self.path("splits_dir")
        tested = [Path(data["test"] or splits / "test.csv")] if self.from_files else []
        unheard = splits / "unheard.csv"
        beside = bool(tested) and tested[0].parent == splits and unheard.is_file()
        return {
            "folder": self.resolved.folder,
            "name": self.resolved.name,
            "config": self.config,
            "overrides": list(self.overrides),
            "manifests": [Path(data[name]) for name in ("train", "dev") if data[name]],
            "tested": tested,
            "unheard": [unheard] if beside else [],
            "scoring": [
                f"{key}={json.dumps(value)}" for key, value in of_scores(self.resolved.values).items()
            ],
        }


def runs_of(asked: Sequence[tuple[Path, tuple[str, ...]]]) -> list[Run]:
    """Trainings with these configurations and overrides, all resolved in one other process."""
    return [
        Run(config=config, overrides=given, resolved=one)
        for (config, given), one in zip(asked, resolve(asked) if asked else [], strict=True)
    ]


def resolve(asked: Sequence[tuple[Path, Sequence[str]]]) -> list[Resolved]:
    """Ask for configurations with their overrides; what is wrong with one is a `UserError`."""
    request = json.dumps([[str(config), list(overrides)] for config, overrides in asked])
    command = [sys.executable, "-m", "training.recipes.resolve", request]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf8", check=False)
    if done.returncode == USER_ERROR:
        raise UserError(done.stderr.rpartition("error: ")[2].strip())  # warnings of libraries come before it
    if done.returncode:
        raise RuntimeError(f"{request} could not be read:\n{done.stderr}")
    return [
        Resolved(values=values, text=text, checkpoint=Path(checkpoint) if checkpoint else None)
        for values, text, checkpoint in json.loads(done.stdout.splitlines()[-1])
    ]


def addressed(override: str, names: Collection[str]) -> tuple[str | None, str]:
    """``name:key=value`` for one of ``names`` → that name and ``key=value``; (None, the override) for any other."""
    name, colon, rest = override.partition(":")
    return (name, rest) if colon and name in names else (None, override)


def main() -> int:
    """Print the answers as one line of JSON."""
    print(json.dumps([_answer(Path(config), overrides) for config, overrides in json.loads(sys.argv[1])]))
    return 0


def _answer(path: Path, overrides: list[str]) -> tuple[dict[str, Any], str, str | None]:
    from training.config.load import load_config
    from training.engine import checkpoint

    config = load_config(path, overrides)
    if config.model is None:
        raise UserError(f"{path}: no model: block")
    newest = checkpoint.latest(config.output.dir)
    return config.as_dict(), config.to_yaml(), str(newest) if newest else None


if __name__ == "__main__":
    exit_on_user_error(main)
