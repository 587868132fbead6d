"""A run's resolved configuration and what its folder holds, asked in a process of its own.

Reading a configuration imports its architecture and with it torch; the pipeline, which lives as long as both
trainings, keeps that memory free.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.errors import USER_ERROR, UserError, exit_on_user_error


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


def resolve(config: Path, overrides: Sequence[str]) -> Resolved:
    """Ask; what is wrong with the configuration is a `UserError`."""
    command = [sys.executable, "-m", "training.pipeline.resolve", str(config), *overrides]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf8", check=False)
    if done.returncode == USER_ERROR:
        raise UserError(done.stderr.strip().removeprefix("error: "))
    if done.returncode:
        raise RuntimeError(f"{config} could not be read:\n{done.stderr}")
    answer = json.loads(done.stdout.splitlines()[-1])
    checkpoint = answer.pop("checkpoint")
    return Resolved(**answer, checkpoint=Path(checkpoint) if checkpoint else None)


def main() -> int:
    """Print the answer as one line of JSON."""
    from training import checkpoint
    from training.config.load import load_config

    config = load_config(Path(sys.argv[1]), sys.argv[2:])
    if config.model is None:
        raise UserError(f"{sys.argv[1]}: no model: block")
    newest = checkpoint.latest(config.output.dir, lambda text: print(text, file=sys.stderr))
    answer = {
        "values": config.as_dict(),
        "text": config.to_yaml(),
        "checkpoint": str(newest) if newest else None,
    }
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    exit_on_user_error(main)
