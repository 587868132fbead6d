"""The study: Optuna's database in a folder, opened anew or gone on with, by one process at a time."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from training.base.errors import UserError
from training.base.files import writable
from training.base.system_files import listed
from training.config.load import differences
from training.tuning.space import Dimension, holding

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from training.config.schema import Config

DATABASE, LOCK = "study.db", "study.lock"
STUDY = "polyvox"
SETTING = "setting"
"""The study's attribute that says what it is a study of."""
OUTCOME, REASON, SECONDS, AGAIN_OF = "outcome", "reason", "seconds", "again_of"
"""Attributes of a trial."""
COMPLETE, PRUNED, DIVERGED, MEMORY, FAILED = "complete", "pruned", "diverged", "out of memory", "failed"
STOPPED, KILLED = "stopped", "killed"
UNDONE = (STOPPED, KILLED)
"""Outcomes of trials that are made again, with the same values."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What is searched, around which configuration, and where the study lies."""

    path: Path
    overrides: tuple[str, ...]
    config: Config
    dimensions: tuple[Dimension, ...]
    folder: Path
    metric: str
    greater_is_better: bool

    @property
    def setting(self) -> dict[str, Any]:
        """Two calls that differ in any of it cannot share a study."""
        values = self.config.as_dict()
        del values["output"]
        return {"config": values, "search": {one.key: str(one) for one in self.dimensions}}

    def trial_folder(self, number: int) -> Path:
        """The run of a trial."""
        return self.folder / f"trial_{number:04d}"

    def log(self, number: int) -> Path:
        """What a trial's run would have printed."""
        return self.folder / "logs" / f"trial_{number:04d}.log"

    def output(self, number: int) -> list[str]:
        """Overrides that give a trial its place and name."""
        name = f"{self.config.output.experiment_name}_trial_{number:04d}"
        folder = json.dumps(str(self.trial_folder(number)), ensure_ascii=False)
        return [f"output.dir={folder}", f"output.experiment_name={json.dumps(name, ensure_ascii=False)}"]

    @property
    def distributions(self) -> dict[str, Any]:
        """The dimensions in Optuna's terms."""
        return {one.key: one.distribution() for one in self.dimensions}


def require_optuna() -> None:
    """`UserError` where the extra is missing."""
    try:
        import filelock  # noqa: F401
        import optuna
    except ImportError as error:
        raise UserError("polyvox tune needs Optuna: pip install 'polyvox[tune]'") from error
    optuna.logging.set_verbosity(logging.WARNING)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The folder for this process alone, as long as it lives: a killed one holds nothing."""
    from filelock import FileLock, Timeout

    writable(folder, "--output")
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(
            f"{folder}: another polyvox tune is at work there; wait for it, or name another folder with --output"
        ) from error
    try:
        yield
    finally:
        lock.release()


def clear(folder: Path) -> None:
    """Remove the study that the folder holds; `UserError` where it holds something else. Call it `locked`."""
    if not _holds_files(folder):
        return
    if not (folder / DATABASE).is_file():
        raise UserError(f"--fresh: {folder} holds no study and is left alone; name another --output")
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != LOCK:
            entry.unlink()


def stored_search(folder: Path) -> list[str] | None:
    """The texts of the search that the folder's study was begun with; None where there is no study."""
    import optuna

    if not (folder / DATABASE).is_file():
        return None
    with _explained(folder):
        try:
            study = optuna.load_study(study_name=STUDY, storage=_storage(folder))
        except KeyError:
            return None
        setting = study.user_attrs.get(SETTING)
    return list(setting["search"].values()) if setting else None


def open_study(setup: Setup, report: Callable[[str], None] = print) -> optuna.Study:
    """The folder's study, or a new one; `UserError` where it is a study of something else. Call it `locked`.

    A trial that a dead process left running is marked as killed, and all that are undone are queued again. A study of
    something else of which every trial has failed and left nothing is begun anew: the command was corrected.
    """
    there = (setup.folder / DATABASE).is_file()
    if not there and _holds_files(setup.folder):
        raise UserError(f"{setup.folder} holds files and no {DATABASE}; name another folder with --output")
    study = _load(setup.folder, maximise=setup.greater_is_better)
    known = study.user_attrs.get(SETTING)
    if known is not None and _differs(known, setup) and _in_vain(study, setup):
        count = len(study.get_trials(deepcopy=False))
        report(
            f"{setup.folder}: all {count} trials of the study there failed; it is begun anew with these settings"
        )
        study = _anew(setup)
        known = None
    if known is None:
        _begin(study, setup)
    else:
        _compare(known, setup)
    _bury(study)
    _queue_undone(study)
    return study


def _begin(study: optuna.Study, setup: Setup) -> None:
    """The first trial has the configuration's own values, where the space holds them: the figure to beat."""
    own = holding(setup.dimensions, setup.config.as_dict())
    if own is not None:
        study.enqueue_trial(own, skip_if_exists=True)
    study.set_user_attr(SETTING, setup.setting)


def _differs(known: Mapping[str, Any], setup: Setup) -> bool:
    return bool(known != _stored(setup))


def _stored(setup: Setup) -> dict[str, Any]:
    """The setting through JSON, as the database has it: tuples are lists there."""
    found: dict[str, Any] = json.loads(json.dumps(setup.setting))
    return found


def _in_vain(study: optuna.Study, setup: Setup) -> bool:
    """Whether every trial failed and none has left a checkpoint or a logged step."""
    trials = [one for one in study.get_trials(deepcopy=False) if one.state.is_finished()]
    if not trials or any(outcome(one) != FAILED for one in trials):
        return False
    return not any(setup.trial_folder(one.number).exists() for one in trials)


def _anew(setup: Setup) -> optuna.Study:
    import optuna

    optuna.delete_study(study_name=STUDY, storage=_storage(setup.folder))
    return _load(setup.folder, maximise=setup.greater_is_better)


def _compare(known: Mapping[str, Any], setup: Setup) -> None:
    now = _stored(setup)
    for part, name in (("search", "searches something else"), ("config", "is of another configuration")):
        if keys := ", ".join(differences(known[part], now[part])):
            raise UserError(
                f"{setup.folder}: the study there {name} ({keys}); give what it was begun with, name another folder "
                "with --output, or remove it with --fresh"
            )


def _load(folder: Path, *, maximise: bool) -> optuna.Study:
    """The study in the folder's database, made where there is none."""
    import optuna

    direction: Literal["maximize", "minimize"] = "maximize" if maximise else "minimize"
    with _explained(folder):
        storage = _storage(folder)
        study = optuna.create_study(
            storage=storage, study_name=STUDY, direction=direction, load_if_exists=True
        )
        if SETTING not in study.user_attrs and study.direction.name.lower() != direction:
            # Killed before it had begun, by a call that wanted something else.
            optuna.delete_study(study_name=STUDY, storage=storage)
            study = optuna.create_study(storage=storage, study_name=STUDY, direction=direction)
    return study


def _storage(folder: Path) -> optuna.storages.RDBStorage:
    import optuna
    from sqlalchemy import URL

    url = URL.create("sqlite", database=str(folder / DATABASE)).render_as_string()
    # Optuna fills in what stands in braces.
    escaped = url.replace("{", "{{").replace("}", "}}")
    return optuna.storages.RDBStorage(escaped, engine_kwargs={"connect_args": {"timeout": 60}})


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """`UserError` where the database cannot be read as a study."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import DatabaseError

    try:
        yield
    except (DatabaseError, StorageInternalError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{folder / DATABASE}: cannot be gone on with ({reason}); name another folder with --output"
        ) from error


def _holds_files(folder: Path) -> bool:
    return folder.is_dir() and any(entry.name != LOCK for entry in listed(folder))


def _bury(study: optuna.Study) -> None:
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)


def _queue_undone(study: optuna.Study) -> None:
    trials = study.get_trials(deepcopy=False)
    again = {trial.user_attrs.get(AGAIN_OF) for trial in trials}
    for trial in trials:
        if outcome(trial) in UNDONE and trial.number not in again and trial.params:
            study.enqueue_trial(trial.params, user_attrs={AGAIN_OF: trial.number})


def outcome(trial: FrozenTrial) -> str:
    """How a trial ended; `KILLED` where its process could not record it; empty while it waits or runs."""
    if not trial.state.is_finished():
        return ""
    recorded = trial.user_attrs.get(OUTCOME)
    if trial.state.name == "COMPLETE":
        return COMPLETE
    if trial.state.name == "PRUNED":
        return str(recorded or PRUNED)
    return recorded if recorded in (FAILED, STOPPED) else KILLED  # it may have died between two words


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that count: they ended by themselves, well or not."""
    return [
        one
        for one in study.get_trials(deepcopy=False)
        if one.state.is_finished() and outcome(one) not in UNDONE
    ]


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """The best of the complete trials; None while there is none."""
    return study.best_trial if any(outcome(one) == COMPLETE for one in finished(study)) else None


def next_trial(study: optuna.Study, setup: Setup) -> optuna.Trial:
    """The next values, drawn from the seed, the number of finished trials and their figures alone.

    So a study that was killed or stopped goes on with the values that it would have had.
    """
    from optuna.samplers import TPESampler

    study.sampler = TPESampler(seed=setup.config.training.seed + len(finished(study)))
    return study.ask(setup.distributions)
