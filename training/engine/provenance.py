"""The history of a model over all starts of its run: devices, precision, utterances. Stored in every checkpoint."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from training.base.errors import UserError
from training.data import row_record
from training.data.row_record import Changes
from training.engine import checkpoint

if TYPE_CHECKING:
    from training.engine.run import Run

logger = logging.getLogger(__name__)

NAME = "provenance.json"
NOT_RECORDED = "not recorded"


@dataclass
class Provenance:
    """``rows``: split → `training.data.row_record.record`.

    ``devices``: for each start, and each kind of device in it, ``from_step``, ``name``, ``count`` (of GPUs; of processes
    on a CPU), ``processes`` and ``precision``. ``data_changes``: ``from_step``, and for each split that the user accepted as another
    how many utterances are (`training.data.row_record.Changes.counts`).
    """

    rows: Mapping[str, pa.Table] = field(default_factory=dict)
    devices: list[dict[str, Any]] = field(default_factory=list)
    data_changes: list[dict[str, Any]] = field(default_factory=list)

    def save(self, folder: Path) -> None:
        """Write all of it into a checkpoint."""
        told = {"devices": self.devices, "data_changes": self.data_changes}
        checkpoint.write_json(folder / NAME, told)
        for split, table in self.rows.items():
            (folder / rows_file(split)).write_bytes(row_record.write(table))


def rows_file(split: str) -> str:
    """Name of a split's record in a checkpoint."""
    return f"rows_{split}.arrow"


def load(folder: Path) -> Provenance:
    """What a checkpoint holds; nothing is in one of before there were such records, its device is `NOT_RECORDED`."""
    rows = {split: row_record.read(folder / rows_file(split)) for split in ("train", "dev")}
    try:
        told = json.loads((folder / NAME).read_text(encoding="utf8"))
    except FileNotFoundError:
        told = {"devices": [{"from_step": 0, "name": NOT_RECORDED}], "data_changes": []}
    known = {split: table for split, table in rows.items() if table is not None}
    return Provenance(known, told["devices"], told["data_changes"])


def rows_of(run: Run) -> dict[str, pa.Table]:
    """The records of a run's splits as they are now."""
    manifests: dict[str, Any] = {"train": run.train.manifest}
    if run.dev is not None:
        manifests["dev"] = run.dev.manifest
    return {split: row_record.record(rows) for split, rows in manifests.items()}


def continued(run: Run, resume: Path | None, *, accept_changed_data: bool) -> Provenance:
    """The provenance of a run that starts, or goes on from the checkpoint ``resume``; the device is added by `on_devices`.

    Raises `UserError` where the run goes on with other utterances and ``accept_changed_data`` is not set.
    """
    now = Provenance(rows_of(run))
    if resume is None:
        return now
    before = load(resume)
    now.devices, now.data_changes = before.devices, before.data_changes
    if "train" not in before.rows:
        logger.warning(
            f"{resume} does not say which utterances it was trained on (an older version wrote it): whether the data have "
            "changed cannot be checked"
        )
        return now
    changes = {
        split: found
        for split, table in before.rows.items()
        if split in now.rows and (found := row_record.compare(table, now.rows[split]))
    }
    if changes:
        _refuse_or_note(run, resume, changes, accept_changed_data)
        counts = {split: found.counts() for split, found in changes.items()}
        now.data_changes = [*now.data_changes, {"from_step": step_of(resume), **counts}]
    return now


def _refuse_or_note(run: Run, resume: Path, changes: Mapping[str, Changes], accepted: bool) -> None:
    named = [f"{split}: {told}" for split, told in changes.items()]
    lines = "\n".join(f"  {line}" for line in (*named, *_changed_keys(run)))
    if not accepted:
        raise UserError(
            f"--resume: the data are not those that {resume} was trained on:\n{lines}\nPut them back, or begin another run "
            "(another output.experiment_name, or --fresh), or go on with the data as they are: --accept_changed_data (the "
            "rest of the epoch is drawn from them: some utterances can come twice in it, others not at all)"
        )
    logger.warning(f"--accept_changed_data: goes on from {resume} with other data:\n{lines}")


def _changed_keys(run: Run) -> list[str]:
    """The keys that choose the utterances and are others than in the run's ``config.yaml``."""
    from training.config.load import RESOLVED_NAME, differences, read_file

    saved = run.folder / RESOLVED_NAME
    if not saved.is_file():
        return []
    before, now = read_file(saved).data, run.config.as_dict()
    keys = [
        *(f"data.{key}" for key in differences(before.get("data") or {}, now["data"])),
        "audio.max_length_seconds",
        "evaluation.max_utterances",
    ]
    pairs = ((key, _value(before, key), _value(now, key)) for key in keys if key != "data.max_dropped_share")
    return [f"{key}: {old!r} then, {new!r} now" for key, old, new in pairs if old != new]


def _value(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def step_of(resume: Path) -> int:
    """The step that a checkpoint was written at."""
    return int(json.loads((resume / "trainer_state.json").read_text(encoding="utf8"))["global_step"])


# Devices


def on_devices(found: Provenance, arguments: Any, resume: Path | None) -> Provenance:
    """The provenance with the devices of this start, of all processes; nothing is added where they are as before."""
    from accelerate.utils import gather_object

    name, count = _own_device(arguments)
    counts: Counter[str] = Counter()
    for other, number in gather_object([(name, count)]):
        counts[other] += number
    now = [
        {
            "name": device,
            "count": number,
            "processes": arguments.world_size,
            "precision": _precision(arguments),
        }
        for device, number in counts.items()
    ]
    if now != _latest(found.devices):
        step = 0 if resume is None else step_of(resume)
        found.devices = [*found.devices, *({"from_step": step, **device} for device in now)]
    return found


def _latest(devices: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    last = devices[-1]["from_step"] if devices else None
    return [
        {key: value for key, value in one.items() if key != "from_step"}
        for one in devices
        if one["from_step"] == last
    ]


def _own_device(arguments: Any) -> tuple[str, int]:
    """Name and number of what this process computes on."""
    import torch

    if arguments.device.type == "cuda":
        return torch.cuda.get_device_name(arguments.device), max(1, arguments.n_gpu)
    return (processor(), 1) if arguments.device.type == "cpu" else (str(arguments.device), 1)


def processor() -> str:
    """The name of this machine's CPU."""
    import platform

    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf8", errors="replace").splitlines() if info.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def _precision(arguments: Any) -> str:
    return next((name for name in ("bf16", "fp16") if getattr(arguments, name)), "fp32")


def told(devices: Sequence[Mapping[str, Any]]) -> str:
    """Devices in a line: ``2 × NVIDIA H200, bf16; from step 400: Intel Xeon, fp32``."""
    starts: dict[int, list[Mapping[str, Any]]] = {}
    for device in devices:
        starts.setdefault(device["from_step"], []).append(device)
    parts = [
        f"{f'from step {step}: ' if step else ''}{' and '.join(map(_one, found))}"
        for step, found in starts.items()
    ]
    return "; ".join(parts)


def _one(device: Mapping[str, Any]) -> str:
    if device["name"] == NOT_RECORDED:
        return NOT_RECORDED
    count = f"{device['count']} × " if device["count"] > 1 else ""
    return f"{count}{device['name']}, {device['precision']}"
