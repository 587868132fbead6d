"""The folder of a run: whether it may be written, whose it is, what a failed start leaves."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.base.errors import UserError, first_rank
from training.base.files import writable
from training.base.system_files import is_empty
from training.config.arguments import logging_folder
from training.config.load import RESOLVED_NAME, differences, read_file
from training.config.schema import Config
from training.engine import checkpoint
from training.engine.run import Run
from training.engine.spoken_language import KEYS

RESULTS = "train_results.json"
OF_VALUE = ("checkpoint-*", "metrics/*.json", "*.safetensors", RESULTS)
"""Files of a run's folder that are never removed when a start fails: checkpoints, logged steps, models, results."""


def own_files(run: Run) -> list[Path]:
    """Files that a run writes before its first checkpoint and its first logged step."""
    names = [RESOLVED_NAME, *map(dropped_file, run.dropped)]
    log = run.config.output.log_file
    inside = [log] if log is not None and log.resolve().is_relative_to(run.folder.resolve()) else []
    return [*(run.folder / name for name in names), logging_folder(run.config), *inside]


def dropped_file(split: str) -> str:
    """Name of a split's ledger in the run's folder."""
    return f"dropped_{split}.tsv"


def check_model(config: Config, folder: Path) -> None:
    """`UserError` where the run that is gone on with was begun with another ``model:`` block: its weights are there."""
    target = folder / RESOLVED_NAME
    if not target.is_file():
        return
    before, now = read_file(target).data.get("model") or {}, config.as_dict().get("model") or {}
    before = {**_defaults(config.model), **before}  # keys that are younger than the run
    given = config.model.model_fields_set if config.model is not None else set()
    for key in KEYS:
        if key in now and key not in given:  # it was found in the data, and is taken from the run's folder
            before.pop(key, None)
    changed = [key for key in differences(before, now) if key.partition(".")[0] in before]
    if changed:
        raise UserError(
            f"model.{changed[0]}: not what {target} says, and --resume goes on with that model; leave it as it was, or "
            "begin another run (another output.experiment_name, or --fresh)"
        )


def _defaults(options: Any) -> dict[str, Any]:
    """The default values of a ``model:`` block, as a file would state them."""
    from pydantic_core import to_jsonable_python

    fields = type(options).model_fields.items()
    return {
        name: to_jsonable_python(field.get_default(call_default_factory=True))
        for name, field in fields
        if not field.is_required()
    }


def check_folder(folder: Path, *, resume: Path | None, fresh: bool) -> None:
    """`UserError` where writing into the run's folder is impossible, or not what the user asked for."""
    if not first_rank():
        return
    if missing := missing_parts(folder):
        writable(folder, "output.dir")
        remove_empty(missing)  # made again when there is something to write
        return
    writable(folder, "output.dir")
    if resume is not None or is_empty(folder):
        return
    if not fresh:
        raise UserError(
            f"{folder} already holds files; go on with --resume, start over with --fresh (which removes a run), "
            "or choose another output.dir"
        )
    if not (folder / "config.yaml").is_file():
        raise UserError(
            f"--fresh: {folder} was not written by a run and is left alone; choose another output.dir"
        )
    if Path.cwd().is_relative_to(folder.resolve()):
        raise UserError(
            f"--fresh: {folder} holds the working directory and is left alone; choose another output.dir"
        )


def check_origin(config: Config) -> None:
    """`UserError` where ``--fresh`` would remove the very model that the run begins with."""
    folder = config.output.dir.resolve()
    for key, value in (config.model.weights if config.model is not None else {}).items():
        if Path(value).resolve().is_relative_to(folder):
            raise UserError(
                f"--fresh: {config.output.dir} holds model.{key} ({value}) and is left alone; choose another output.dir"
            )


def claim_folder(folder: Path, *, resume: Path | None, fresh: bool) -> None:
    """`check_folder`, then make it; with ``fresh`` the run that it holds is removed."""
    check_folder(folder, resume=resume, fresh=fresh)
    if fresh and first_rank() and folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)


def write_results(folder: Path, results: dict[str, Any]) -> None:
    """``train_results.json``: its presence says that the run is finished."""
    checkpoint.write_json(folder / RESULTS, results)


def missing_parts(folder: Path) -> list[Path]:
    """The folder and those above it that are not there, the deepest first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove these folders in their order, up to the first that holds something or is not there."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


@dataclass
class Start:
    """Whether a run that starts has claimed its folder; until then nothing in it is its own."""

    claimed: bool = False


@contextmanager
def vain_start_removed(folder: Path, own: Sequence[Path], *, of_value: Sequence[str]) -> Iterator[Start]:
    """The start of a run in a folder that holds nothing (or a run that is to go): where it fails, its leavings go too.

    ``own``: files and folders that the run writes. They are removed only once the folder is claimed, and only where it
    has nothing that matches one of the patterns ``of_value``. So the corrected command can start in the same folder.
    """
    missing, start = missing_parts(folder), Start()
    try:
        yield start
    except BaseException:
        if start.claimed and not any(any(folder.glob(pattern)) for pattern in of_value):
            for path in own:
                _remove(path)
        remove_empty(missing)
        raise


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
