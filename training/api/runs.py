"""Read a configuration, train the model that it describes, open a finished run again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.api.process import share_the_cores
from training.base.errors import LogFile, UserError, first_rank, handled
from training.decoding.quiet import quietly

if TYPE_CHECKING:
    import pandas

    from training.config.schema import Config


@dataclass(frozen=True, repr=False)
class FinishedRun(os.PathLike[str]):
    """A run that was trained to its end. It may stand wherever a folder is asked for.

    Attributes:
        folder: holds the model, ``config.yaml``, ``train_results.json``, checkpoints and logs.
        results: what ``train_results.json`` says: ``steps``, ``train_loss``, ``train_seconds``, ``best_metric``, …
        config: the configuration that it was trained with.
    """

    folder: Path
    results: Mapping[str, Any]
    config: Config

    def __fspath__(self) -> str:
        return str(self.folder)

    def __repr__(self) -> str:
        steps, minutes = self.results["steps"], self.results["train_seconds"] / 60
        return f"FinishedRun({str(self.folder)!r}: {steps} steps in {minutes:.1f} min)"

    @property
    def history(self) -> pandas.DataFrame:
        """The log as a table, a row for each record: ``step``, ``epoch``, ``loss``, ``eval_wer``, …; NaN where it has none."""
        import pandas

        name = self.config.output.experiment_name
        path = self.folder / "metrics" / f"{name}_metrics.json"
        return pandas.DataFrame(json.loads(path.read_text(encoding="utf8"))["history"])


def load_config(path: Path | str, overrides: Sequence[str] = (), *, hardware: str | None = None) -> Config:
    """Read a YAML file and its ``_base_`` files, apply overrides, check every value.

    Args:
        path: the file; see ``configs/`` and ``docs/configuration.md``.
        overrides: ``key=value`` texts, applied last, e.g. ``["training.max_steps=20"]``.
        hardware: a profile of ``configs/profiles`` in place of the configuration's (``h100``), or ``auto``: the one that
            suits this machine, which is also taken where the configuration says nothing of the hardware.

    Returns:
        The configuration, complete.

    Raises:
        UserError: lists every mistake with its file and line.
    """
    share_the_cores()
    from training.config.load import load_config as read
    from training.config.load import names_hardware
    from training.config.profile_names import AUTO

    given = [overrides] if isinstance(overrides, str) else overrides
    if hardware is None and not names_hardware(path, given):
        hardware = AUTO
    return read(Path(path), given, hardware=hardware)


def train(
    config: Config,
    *,
    resume: bool | Path | str = False,
    fresh: bool = False,
    accept_changed_data: bool = False,
) -> FinishedRun:
    """Train the model that a configuration describes; ``polyvox train`` does the same.

    Lines about the run go to the logger ``training`` of the standard ``logging``, a progress bar to a terminal or notebook.
    Ctrl-C, the interrupt button of a notebook, and SIGTERM let the step under way end and save; signals do afterwards
    what they did before.

    Args:
        config: what `load_config` returned.
        resume: True goes on from the newest whole checkpoint in ``output.dir``, a path from that checkpoint.
        fresh: remove what an earlier run left in ``output.dir`` first.
        accept_changed_data: with ``resume``: go on although the utterances are not those that the run was trained on.

    Returns:
        The finished run.

    Raises:
        UserError: the configuration, the data or the folder must be changed first; the message says how. A folder that
            already holds files is one case: ask for ``resume`` or ``fresh``.
        training.engine.fit.Stopped: a signal ended the run; a checkpoint is saved, and ``resume=True`` goes on.
    """
    from training.config.schema import Config

    if not isinstance(config, Config):
        raise UserError(
            f"config: is of type {type(config).__name__}, not a configuration; give what load_config(path) returns"
        )
    if config.model is None:
        raise UserError("the configuration has no model: block; see docs/configuration.md")
    if resume is not False and fresh:
        raise UserError("resume and fresh contradict each other")
    if accept_changed_data and resume is False:
        raise UserError("accept_changed_data belongs to resume; a run that starts has no data of before")
    share_the_cores()
    check_reporters(config.training.report_to)
    with quietly(), _own_threads(), log_file(config, held=resume is False) as log:
        config, results = _train(config, resume, fresh, accept_changed_data, claimed=log.write_waiting)
    return FinishedRun(config.output.dir, results, config)


def _train(
    config: Config,
    resume: bool | Path | str,
    fresh: bool,
    accept_changed_data: bool,
    *,
    claimed: Callable[[], None],
) -> tuple[Config, Mapping[str, Any]]:
    from training.engine import checkpoint
    from training.engine.fit import Stopped, fit
    from training.engine.folder import check_folder, check_model, check_origin
    from training.engine.run import build

    folder = config.output.dir
    wanted = None if isinstance(resume, bool) else str(resume)
    start = None if resume is False else checkpoint.find(folder, wanted)
    check_folder(folder, resume=start, fresh=fresh)
    if fresh:
        check_origin(config)
    if start is not None:
        check_model(config, folder)
    # Adapters alone are in a LoRA checkpoint: its base is built as the first time.
    source = None if config.training.trainable == "lora" else start
    run = build(config, source=source, resume=start is not None)
    try:
        return run.config, fit(
            run, resume=start, fresh=fresh, accept_changed_data=accept_changed_data, claimed=claimed
        )
    except Stopped as stopped:
        stopped.add_note(f"saved in {folder}; go on with resume=True")
        raise


@contextmanager
def _own_threads() -> Iterator[None]:
    """``training.cpu_threads`` is the run's: after it the process has as many threads as before."""
    import torch

    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def log_file(config: Config, *, held: bool = False) -> Iterator[LogFile]:
    """``output.log_file`` gets the lines as well, from one rank.

    ``held``: where the file is inside the run's folder, which is not there yet, its lines wait for `LogFile.write_waiting`.
    """
    path, folder = config.output.log_file, config.output.dir
    inside = path is not None and path.resolve().is_relative_to(folder.resolve())
    log = LogFile(path or Path(os.devnull), held=held and inside)
    with handled(*([log] if path is not None and first_rank() else [])):
        yield log


def load_run(folder: Path | str) -> FinishedRun:
    """Open a run that was trained before, here or by ``polyvox train``.

    Args:
        folder: its ``output.dir``.

    Returns:
        The run, as `train` returned it.

    Raises:
        UserError: there is no finished run in this folder.
    """
    from training.config.load import RESOLVED_NAME
    from training.engine.folder import RESULTS

    folder = Path(folder)
    for name in (RESOLVED_NAME, RESULTS):
        if not (folder / name).is_file():
            raise UserError(
                f"{folder}: no {name}, so no finished run; train it to its end (resume=True goes on), or name its output.dir"
            )
    results = json.loads((folder / RESULTS).read_text(encoding="utf8"))
    return FinishedRun(folder, results, load_config(folder / RESOLVED_NAME))


def check_reporters(named: str | Sequence[str]) -> None:
    """`UserError` for a tool that is to draw curves and is not installed (a finished run needs none)."""
    asked = {named} if isinstance(named, str) else set(named)
    if not (asked := asked - {"none", "all"}):
        return
    from transformers import integrations

    missing = sorted(asked - set(integrations.get_available_reporting_integrations()))
    if missing:
        raise UserError(
            f"training.report_to: {missing[0]} is not installed, or switched off in the environment; "
            f"pip install {missing[0]}, or leave it out"
        )
