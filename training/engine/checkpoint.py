"""Checkpoints that can be trusted: no pickles in them, and a half-written one is known as such."""

from __future__ import annotations

import json
import logging
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from training.base.errors import UserError
from training.base.system_files import listed

logger = logging.getLogger(__name__)

MARKER = "complete.json"
OPTIMIZER, SCHEDULER, SCALER, RNG = "optimizer", "scheduler.json", "scaler.json", "rng"


def mark_complete(folder: Path) -> None:
    """List every file of the checkpoint with its size; written last, and atomically."""
    files = {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(listed(folder, "**/*"))
        if path.is_file()
    }
    files.pop(MARKER, None)
    write_json(folder / MARKER, {"files": files})


def why_incomplete(folder: Path) -> str | None:
    """A message about what is missing in a checkpoint folder; None where it is complete."""
    try:
        files = json.loads((folder / MARKER).read_text(encoding="utf8"))["files"]
    except FileNotFoundError:
        return f"{MARKER} is missing: the run was stopped while writing it"
    except (ValueError, KeyError, TypeError):
        return f"{MARKER} cannot be read"
    for name, size in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
    return None


def checkpoints(run_dir: Path) -> list[Path]:
    """The checkpoint folders of a run, newest first, whole or not."""
    found = [
        path for path in run_dir.glob("checkpoint-*") if path.is_dir() and path.name.split("-")[-1].isdigit()
    ]
    return sorted(found, key=lambda path: -int(path.name.split("-")[-1]))


def latest(run_dir: Path) -> Path | None:
    """The newest whole checkpoint; those passed over are logged with the reason."""
    for folder in checkpoints(run_dir):
        reason = why_incomplete(folder)
        if reason is None:
            return folder
        logger.warning(f"{folder} is passed over: {reason}")
    return None


def find(run_dir: Path, wanted: str | None) -> Path:
    """The checkpoint that ``--resume [CHECKPOINT]`` means; `UserError` when there is none to go on from."""
    if wanted:
        folder = Path(wanted)
        if not folder.is_dir():
            raise UserError(f"--resume {wanted}: no such folder; the run has {_names(run_dir)}")
        if reason := why_incomplete(folder):
            raise UserError(
                f"--resume {wanted}: not a whole checkpoint ({reason}); the run has {_names(run_dir)}"
            )
        return folder
    folder_or_none = latest(run_dir)
    if folder_or_none is None:
        raise UserError(
            f"--resume: {run_dir} has no whole checkpoint to go on from; start it without --resume"
        )
    return folder_or_none


def _names(run_dir: Path) -> str:
    names = [path.name for path in checkpoints(run_dir) if why_incomplete(path) is None]
    return ", ".join(names) if names else "no whole checkpoint"


def write_json(path: Path, value: Any) -> None:
    """Write and rename, so that a reader never sees half a file."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("w", encoding="utf8") as file:
        json.dump(value, file, ensure_ascii=False, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def save_optimizer(optimizer: Any, folder: Path) -> None:
    """Optimiser state: tensors into safetensors, everything else into JSON."""
    state = optimizer.state_dict()
    tensors: dict[str, torch.Tensor] = {}
    values: dict[str, Any] = {}
    for index, entries in state["state"].items():
        for name, value in entries.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{index}/{name}"] = value.detach().contiguous()
            else:
                values[f"{index}/{name}"] = value
    save_file(tensors, folder / f"{OPTIMIZER}.safetensors")
    write_json(folder / f"{OPTIMIZER}.json", {"param_groups": state["param_groups"], "values": values})


def load_optimizer(optimizer: Any, folder: Path, device: str = "cpu") -> None:
    """Restore what `save_optimizer` wrote."""
    rest = json.loads((folder / f"{OPTIMIZER}.json").read_text(encoding="utf8"))
    state: dict[int, dict[str, Any]] = {}
    entries = {**load_file(folder / f"{OPTIMIZER}.safetensors", device=device), **rest["values"]}
    for key, value in entries.items():
        index, name = key.split("/", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": rest["param_groups"]})


def save_rng(folder: Path, rank: int = 0) -> None:
    """The states of Python's, NumPy's and torch's generators, one pair of files per rank."""
    kind, keys, position, has_gauss, cached = np.random.get_state()
    version, words, gauss = random.getstate()
    tensors = {"cpu": torch.get_rng_state(), "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64))}
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    save_file(tensors, folder / f"{RNG}_{rank}.safetensors")
    values = {"python": [version, list(words), gauss], "numpy": [kind, position, has_gauss, cached]}
    write_json(folder / f"{RNG}_{rank}.json", values)


def load_rng(folder: Path, rank: int = 0) -> bool:
    """Restore what `save_rng` wrote; False when this rank had no part in writing the checkpoint."""
    path = folder / f"{RNG}_{rank}.json"
    if not path.is_file():
        return False
    values = json.loads(path.read_text(encoding="utf8"))
    tensors = load_file(folder / f"{RNG}_{rank}.safetensors")
    version, words, gauss = values["python"]
    random.setstate((version, tuple(words), gauss))
    kind, position, has_gauss, cached = values["numpy"]
    np.random.set_state((kind, tensors["numpy"].numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(tensors["cpu"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])
    return True
