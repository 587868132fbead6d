"""Chooses the profile that suits the machine, and gives the reason in one line."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

WEIGHT_KEYS = ("name", "encoder", "decoder")
WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json")
TIMEOUT_SECONDS = 3.0
DEMO_COLUMNS = {"video_id", "word_languages", "kind", "voice", "snr_db", "split_hint"}
DEMO_VIDEO = "demo"
OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


@dataclass(frozen=True)
class Machine:
    """What was found. ``gpu``: its name; ``weights``: why those of the profile that suits can be had (None: they cannot)."""

    gpu: str | None
    weights: str | None
    own_manifest: bool

    @property
    def pretrained(self) -> str:
        """The profile with pretrained weights that suits the machine."""
        return "dev" if self.gpu else "cpu"


@dataclass(frozen=True)
class Choice:
    """A profile, and the line that says why."""

    profile: str
    line: str


def choose(machine: Machine, manifest: Path) -> Choice:
    """Where pretrained weights and an own manifest are there ``dev`` on a GPU and ``cpu`` without one; else ``demo``."""
    found = [
        machine.gpu or "no CUDA GPU",
        machine.weights or "no pretrained weights in reach",
        f"{manifest} found" if machine.own_manifest else f"no {manifest} of your own",
    ]
    if machine.weights and machine.own_manifest:
        profile = machine.pretrained
        models = "pretrained models" if machine.gpu else "a pretrained Whisper"
        meaning = f"{models} fine-tuned on {manifest}"
    elif machine.own_manifest:
        profile, meaning = "demo", f"the demo's small models from scratch, trained on {manifest}"
    else:
        profile, meaning = "demo", "models from scratch on a synthesised corpus"
    return Choice(profile, f"profile {profile}: {', '.join(found)} → {meaning}")


def look(manifest: Path, weights: Mapping[str, Iterable[str]]) -> Machine:
    """Look at the machine; takes some seconds at most, whatever the network does.

    Args:
        manifest: where the user's own manifest would be.
        weights: profile (``dev``, ``cpu``) → hub ids and folders of the weights that it begins with.
    """
    found = Machine(gpu=gpu_name(), weights=None, own_manifest=manifest.is_file() and not is_demo(manifest))
    return replace(found, weights=weights_in_reach(weights[found.pretrained]))


def is_demo(manifest: Path) -> bool:
    """Whether a manifest is the demo corpus: its own columns, and no video but its own."""
    if not manifest.is_file():
        return False
    with manifest.open(encoding="utf8", newline="", errors="replace") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        if not set(rows.fieldnames or ()) >= DEMO_COLUMNS:
            return False
        return all((row["video_id"] or "").startswith(DEMO_VIDEO) for row in islice(rows, 100_000))


def gpu_name() -> str | None:
    """Name of the first CUDA device that torch can use, asked in a process of its own."""
    code = "import torch; print(torch.cuda.get_device_name(0) if torch.cuda.is_available() else '')"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return answer.stdout.strip() or None


def pretrained_names(configs: Iterable[tuple[Path, Iterable[str]]]) -> list[str]:
    """Hub ids and folders that configurations name in their ``model`` blocks, ``key=value`` overrides in their place."""
    names: list[str] = []
    for path, overrides in configs:
        given = dict(override.partition("=")[::2] for override in overrides)
        model: dict[str, Any] = (yaml.safe_load(path.read_text(encoding="utf8")) or {}).get("model") or {}
        model |= {key: given[f"model.{key}"] for key in WEIGHT_KEYS if f"model.{key}" in given}
        names += [model[key] for key in WEIGHT_KEYS if isinstance(model.get(key), str)]
    return names


def weights_in_reach(
    names: Iterable[str],
    *,
    cached: Callable[[str], bool] | None = None,
    online: Callable[[str], bool] | None = None,
) -> str | None:
    """How the weights of all these models can be had; None where those of one cannot."""
    missing = [name for name in names if not (cached or is_cached)(name)]
    if not missing:
        return "pretrained weights cached"
    if any(os.environ.get(name, "").upper() in ("1", "TRUE", "YES", "ON") for name in OFFLINE_VARIABLES):
        return None
    return "model hub in reach" if (online or answers)(missing[0]) else None


def is_cached(name: str) -> bool:
    """Whether a model's weights are in the hub's cache, or the name is a folder."""
    from huggingface_hub import try_to_load_from_cache

    if Path(name).is_dir():
        return True
    return any(isinstance(try_to_load_from_cache(name, file), str) for file in WEIGHTS)


def answers(name: str) -> bool:
    """Whether the hub serves the model, within three seconds (a name server may take far longer to say no)."""
    from huggingface_hub import constants

    request = urllib.request.Request(f"{constants.ENDPOINT}/{name}/resolve/main/config.json", method="HEAD")
    served: list[bool] = []

    def knock() -> None:
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as reply:
                served.append(reply.status < 400)
        except (OSError, ValueError):
            served.append(False)

    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(TIMEOUT_SECONDS)
    return served == [True]
