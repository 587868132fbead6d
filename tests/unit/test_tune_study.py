"""A study of stand-in trainings: how trials end, what is kept, and that it goes on where it was left."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import tune_assets

pytest.importorskip("optuna", reason="the extra tune is not installed")

from training import cli
from training.base.errors import UserError
from training.config.load import load_config
from training.engine.fit import Stopped
from training.engine.trainer import NotFiniteError
from training.tuning import study as studies
from training.tuning import trials

SEARCH = ("--search", "training.learning_rate=log:1e-5:1e-1", "training.batch_size=choice:2,4")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tune_assets.config(tmp_path)


@pytest.fixture
def tune(config: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command with another training."""

    def call(score: Callable[[Any, int], float], *arguments: str, wanted: int = 6) -> int:
        monkeypatch.setattr(trials, "train", tune_assets.fake_training(score))
        command = ["tune", "--config", str(config), "--trials", str(wanted)]
        return cli.main([*command, *(arguments or SEARCH)])

    return call


def table(config: Path) -> list[dict[str, str]]:
    with (config.parent / "run_tune" / "trials.tsv").open(encoding="utf8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def bowl(config: Any, step: int) -> float:
    """Best at a learning rate of 3e-3, better with every step."""
    import math

    return 10 + 20 * abs(math.log10(config.training.learning_rate / 3e-3)) - step / 10


def drawn(rows: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(row["training.learning_rate"], row["training.batch_size"]) for row in rows]


def test_a_study_from_beginning_to_end(
    config: Path, tune: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(bowl, *SEARCH, "--prune_after", "2", "--", "training.seed=5") == 0
    rows, folder = table(config), config.parent / "run_tune"
    complete = [row for row in rows if row["outcome"] == "complete"]
    best = min(complete, key=lambda row: float(row["eval_wer"]))
    assert len(rows) == 6 and {row["outcome"] for row in rows} == {"complete", "pruned"}
    assert float(rows[0]["training.learning_rate"]) == 1e-3, (
        "the configuration's own value is the first trial"
    )
    loaded = load_config(folder / "best.yaml")
    assert loaded.training.learning_rate == float(best["training.learning_rate"])
    assert loaded.training.batch_size == int(best["training.batch_size"])
    assert loaded.training.seed == 5 and loaded.training.max_steps == 30
    assert loaded.output.dir == config.parent / "run_best"
    weights = [path.parent.name for path in folder.glob("*/model.safetensors")]
    assert weights == [f"trial_{int(best['trial']):04d}"]
    assert [path.parent.name for path in folder.glob("*/checkpoint-10")] == weights
    assert len(list(folder.glob("*/config.yaml"))) == 6, "what each trial was stays"
    shown = capsys.readouterr().out
    assert f"best: trial {best['trial']}, eval_wer {float(best['eval_wer']):.4f}" in shown
    assert not [path for path in folder.rglob("*") if path.suffix in (".pkl", ".pt", ".bin")]


def test_pruned_trials_are_behind_the_median_and_end_early(config: Path, tune: Callable[..., int]) -> None:
    def score(config: Any, step: int) -> float:
        return 1000 * config.training.learning_rate - step / 1000

    assert tune(score, *SEARCH, "--prune_after", "1", wanted=8) == 0
    rows = table(config)
    pruned = [row for row in rows if row["outcome"] == "pruned"]
    assert pruned and all(row["evaluations"] == "1" and "median" in row["reason"] for row in pruned)
    for row in pruned:
        before = [one for one in rows[: int(row["trial"])] if one["outcome"] == "complete"]
        first = median(float(one["eval_wer"]) + 0.02 for one in before)  # two evaluations after the first
        assert float(row["eval_wer"]) > first
    assert all(row["evaluations"] == "3" for row in rows if row["outcome"] == "complete")
    assert tune(score, *SEARCH, "--fresh", "--no_pruning", wanted=8) == 0
    assert [row["outcome"] for row in table(config)] == ["complete"] * 8


def test_a_higher_score_is_better_where_the_configuration_says_so(
    config: Path, tune: Callable[..., int]
) -> None:
    arguments = (*SEARCH, "training.metric_for_best_model=eval_loss", "training.greater_is_better=true")
    assert tune(bowl, *arguments, "--no_pruning") == 0
    values = [float(row["eval_loss"]) for row in table(config)]
    best = load_config(config.parent / "run_tune" / "best.yaml").training.learning_rate
    assert float(table(config)[values.index(max(values))]["training.learning_rate"]) == best


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (NotFiniteError("the loss is nan at step 3"), "diverged"),
        (MemoryError(), "out of memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried …"), "out of memory"),
        (UserError("model.d_model: 16 heads do not divide it"), "failed"),
        (ZeroDivisionError("division by zero"), "failed"),
    ],
)
def test_a_trial_that_breaks_is_recorded_and_the_study_goes_on(
    config: Path, tune: Callable[..., int], error: Exception, outcome: str
) -> None:
    def score(config: Any, step: int) -> float:
        if config.output.dir.name in ("trial_0001", "trial_0003"):
            raise error
        return bowl(config, step)

    assert tune(score, *SEARCH, "--no_pruning", wanted=5) == 0
    rows = table(config)
    expected = ["complete", outcome, "complete", outcome, "complete"]
    assert [row["outcome"] for row in rows] == expected
    assert rows[1]["reason"].endswith(str(error) or "MemoryError")
    log = (config.parent / "run_tune" / "logs" / "trial_0001.log").read_text(encoding="utf8")
    assert "a line of the run" in log and "Traceback" in log
    assert tune(bowl, *SEARCH, wanted=5) == 0, "they count: nothing is done again"
    assert len(table(config)) == 5


def test_a_score_that_is_not_a_number_is_a_diverged_trial(config: Path, tune: Callable[..., int]) -> None:
    def score(config: Any, step: int) -> float:
        return float("nan") if config.output.dir.name == "trial_0000" and step == 20 else bowl(config, step)

    assert tune(score, wanted=2) == 0
    rows = table(config)
    assert [row["outcome"] for row in rows] == ["diverged", "complete"]
    assert rows[0]["reason"] == "eval_wer is nan at step 20"


def test_trials_that_all_fail_alike_end_the_study(
    config: Path, tune: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    def score(config: Any, step: int) -> float:
        raise UserError(f"{config.output.dir}: the vocabulary is empty")

    assert tune(score, wanted=20) == 2
    assert "3 trials failed alike" in capsys.readouterr().err
    assert len(table(config)) == 3 and not (config.parent / "run_tune" / "best.yaml").exists()


def test_a_study_of_failed_trials_gives_way_to_the_corrected_command(
    config: Path,
    tune: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """``profile.device=cuda`` without a GPU, say: nothing was trained, so there is nothing to start over."""

    def refuse(config: Any, watch: Any, report: Any) -> None:
        raise UserError("this machine shows no GPU")

    made = tune_assets.fake_training
    monkeypatch.setattr(tune_assets, "fake_training", lambda score: refuse)
    assert tune(bowl, *SEARCH, "training.max_steps=31", wanted=5) == 2
    monkeypatch.setattr(tune_assets, "fake_training", made)
    assert tune(bowl, wanted=2) == 0
    assert "all 3 trials of the study there failed; it is begun anew" in capsys.readouterr().out
    assert [row["outcome"] for row in table(config)] == ["complete", "complete"]


def test_failed_trials_that_left_something_are_not_forgotten(config: Path, tune: Callable[..., int]) -> None:
    def score(config: Any, step: int) -> float:
        raise UserError("breaks at its first evaluation")

    assert tune(score, *SEARCH, "training.max_steps=31", wanted=5) == 2
    assert tune(bowl, wanted=2) == 2
    assert len(table(config)) == 3


def test_a_full_disk_ends_the_study_and_the_trial_is_made_again(
    config: Path, tune: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    def score(config: Any, step: int) -> float:
        if config.output.dir.name == "trial_0001":
            raise OSError(28, "No space left on device", "model.safetensors")
        return bowl(config, step)

    assert tune(score, wanted=3) == 2
    assert "No space left" in capsys.readouterr().err
    assert tune(bowl, wanted=3) == 0
    rows = table(config)
    assert [row["outcome"] for row in rows] == ["complete", "stopped", "complete", "complete"]
    assert drawn(rows)[1] == drawn(rows)[2]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Stopped(signal.SIGINT), SystemExit(130)])
def test_ctrl_c_is_one_message_and_the_study_goes_on_as_if_nothing_had_been(
    config: Path, tune: Callable[..., int], error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tune(bowl, *SEARCH, "--prune_after", "2", wanted=14) == 0
    whole = table(config)

    def score(config: Any, step: int) -> float:
        if config.output.dir.name == "trial_0012":
            raise error
        return bowl(config, step)

    assert tune(score, *SEARCH, "--prune_after", "2", "--fresh", wanted=14) == 130
    captured = capsys.readouterr()
    assert captured.err == "" and captured.out.splitlines()[-1].startswith("SIGINT: 12 of 14 trials")
    assert tune(bowl, *SEARCH, "--prune_after", "2", wanted=14) == 0
    rows = table(config)
    assert rows[12]["outcome"] == "stopped"
    # With twelve trials done the sampler has long left its random phase: the last two depend on all before.
    assert drawn([row for row in rows if row["outcome"] != "stopped"]) == drawn(whole)


def test_a_trial_whose_process_died_is_made_again(config: Path, tune: Callable[..., int]) -> None:
    assert tune(bowl, wanted=1) == 0
    code = (
        "import os, sys; sys.path[:0] = sys.argv[1:3]; import tune_assets; from training import cli; "
        "from training.tuning import trials; trials.train = lambda *args: os._exit(9); cli.main(sys.argv[3:])"
    )
    here = Path(__file__)
    command = ["tune", "--config", str(config), "--trials", "2", *SEARCH]
    arguments = [str(here.parent), str(here.parents[2]), *command]
    died = subprocess.run([sys.executable, "-c", code, *arguments], env=os.environ, timeout=120)
    assert died.returncode == 9
    assert tune(bowl, wanted=2) == 0
    rows = table(config)
    assert [row["outcome"] for row in rows] == ["complete", "killed", "complete"]
    assert drawn(rows)[1] == drawn(rows)[2]


def test_what_is_finished_is_not_done_again(config: Path, tune: Callable[..., int]) -> None:
    made: list[str] = []

    def score(config: Any, step: int) -> float:
        made.append(config.output.dir.name)
        return bowl(config, step)

    assert tune(score, *SEARCH, "--no_pruning", wanted=3) == 0
    assert tune(score, *SEARCH, "--no_pruning", wanted=5) == 0
    assert list(dict.fromkeys(made)) == [f"trial_{number:04d}" for number in range(5)]
    assert len(made) == 15
    # Without a search the study goes on with its own.
    assert tune(score, "--no_pruning", wanted=6) == 0
    assert len(table(config)) == 6 and "training.batch_size" in table(config)[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--search", "training.learning_rate=log:1e-5:1e-2", "training.batch_size=choice:2,4"), "learning_rate"),
        (("--search", "training.learning_rate=log:1e-5:1e-1"), "training.batch_size"),
        ((*SEARCH, "training.max_steps=40"), "training.max_steps"),
    ],
)  # fmt: skip
def test_another_search_or_configuration_is_not_mixed_in(
    config: Path, tune: Callable[..., int], arguments: tuple[str, ...], said: str, capsys: Any
) -> None:
    assert tune(bowl, wanted=1) == 0
    assert tune(bowl, *arguments, wanted=2) == 2
    message = capsys.readouterr().err
    assert said in message and "--fresh" in message
    assert len(table(config)) == 1
    assert tune(bowl, *arguments, "--fresh", wanted=1) == 0


def test_weights_of_all_trials_stay_where_asked_for(config: Path, tune: Callable[..., int]) -> None:
    assert tune(bowl, *SEARCH, "--keep", "--no_pruning", wanted=3) == 0
    assert len(list((config.parent / "run_tune").glob("*/model.safetensors"))) == 3


def test_a_folder_that_holds_something_else_is_left_alone(
    config: Path, tune: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = config.parent / "run_tune"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    for more in ((), ("--fresh",)):
        assert tune(bowl, *SEARCH, *more) == 2
        assert str(folder) in capsys.readouterr().err
    assert (folder / "notes.txt").read_text() == "mine"
    (folder / studies.DATABASE).write_bytes(b"not a database at all, but as long as one" * 50)
    assert tune(bowl) == 2
    assert "cannot be gone on with" in capsys.readouterr().err


def test_two_at_once_in_one_folder_are_refused(
    config: Path, tune: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = config.parent / "run_tune"
    with studies.locked(folder):
        assert tune(bowl) == 2
    assert "another polyvox tune is at work" in capsys.readouterr().err
    assert tune(bowl, wanted=1) == 0


def test_a_manifest_that_is_missing_is_told_before_the_first_trial(
    config: Path, tune: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    (config.parent / "dev.csv").unlink()
    assert tune(bowl) == 2
    assert "data.dev" in capsys.readouterr().err
    assert not (config.parent / "run_tune").exists()


def test_a_run_that_keeps_its_last_model_is_scored_by_it(config: Path, tune: Callable[..., int]) -> None:
    def worse(config: Any, step: int) -> float:
        return float(step)

    assert tune(worse, wanted=1) == 0
    assert float(table(config)[0]["eval_wer"]) == 10
    assert tune(worse, *SEARCH, "training.load_best_model_at_end=false", "--fresh", wanted=1) == 0
    assert float(table(config)[0]["eval_wer"]) == 30
