"""What the dry run says of a whole run's time, cost and disk space, also on a slow or busy machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_dry_run import ROWS, config, folder, said, values_of  # noqa: F401

from training.base.errors import UserError
from training.config.schema import Config
from training.engine import fit, freezing
from training.engine import run as runs
from training.planning import disk, duration, trial
from training.planning.dry_run import VALID

HERE = ("profile.device=cpu", "training.batch_size=2", "model.full_context_share=0")


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "busy_share", lambda: 0.0)


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "busy_share", lambda: 0.75)


def test_an_interval_may_be_a_share_of_the_steps() -> None:
    assert [duration.interval(every, 10) for every in (0.25, 3, 0.01, 20)] == [3, 3, 1, 20]


def test_a_busy_machine_is_named_beside_the_time(folder: Path, busy: None) -> None:  # noqa: F811
    status, lines = said(config(folder, *HERE))
    assert status == VALID
    number = next(n for n, line in enumerate(lines) if line.startswith("  duration "))
    assert " steps " in lines[number] and " s a step" in lines[number] and "counted" not in lines[number]
    assert "the machine is busy: other programs use 75% of its processor" in lines[number + 1]


def test_a_quiet_machine_is_not_called_busy(folder: Path, quiet: None) -> None:  # noqa: F811
    _, lines = said(config(folder, *HERE, "profile.price_per_hour=3600"))
    assert values_of(lines, "duration")[0].startswith("about ") and "busy" not in "\n".join(lines)
    assert values_of(lines, "cost")[0].endswith("at 3600 an hour (profile.price_per_hour)")
    (told,) = values_of(lines, "disk")
    assert told.startswith("up to ") and " checkpoints of " in told and not values_of(lines, "warning")


def estimates(monkeypatch: pytest.MonkeyPatch, flops: float) -> list[trial.Estimate]:
    """What the trials of a machine of this speed are thought to take, as they are asked for."""
    found: list[trial.Estimate] = []
    estimate = trial.estimate

    def kept(*given: Any) -> trial.Estimate:
        found.append(estimate(*given))
        return found[-1]

    monkeypatch.setattr(trial, "flops_per_second", lambda: flops)
    monkeypatch.setattr(trial, "estimate", kept)
    return found


def test_one_timed_clip_stands_for_the_run_where_the_batch_takes_too_long(
    folder: Path,  # noqa: F811
    busy: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = estimates(monkeypatch, 1e6)
    settings = config(folder, *HERE)
    status, lines = said(settings)
    heavy, light = found
    assert status == VALID and heavy.seconds > light.seconds > 60
    # Nothing was tried: the time is counted from the operations of the longest clip.
    (told,) = values_of(lines, "duration")
    assert told.endswith("none was timed)")
    for line in values_of(lines, "not tried"):
        assert "more than 60 s; the machine is busy" in line
    monkeypatch.setattr(trial, "MOST_SECONDS", (heavy.seconds + light.seconds) / 2)
    steps: list[int] = []
    step = trial.step

    def counted(config: Config, architecture: Any, model: Any, batch: Any) -> trial.Timed:
        steps.append(len(batch["ids"]))
        return step(config, architecture, model, batch)

    monkeypatch.setattr(trial, "step", counted)
    _, lines = said(settings)
    assert steps == [1], "no further step of a batch that takes too long"
    (told,) = values_of(lines, "duration")
    assert told.startswith("about ") and "none was timed" not in told
    assert "the machine is busy" in values_of(lines, "")[-1] or any("is busy" in one for one in lines)


def test_a_sample_is_scaled_by_its_seconds(folder: Path, quiet: None) -> None:  # noqa: F811
    """Twice the seconds of the step, twice those of the run; the update counts once for each step."""
    settings = config(folder, *HERE)
    run = runs.build(settings)
    sampler = settings.data.source.batches(run.train.manifest)(batch_size=2, seed=1)
    known = duration.Known(train=run.train.durations, dev=None, measured=True)
    batches = sampler.batches()
    padded = sum(duration._padded(sampler.durations, rows) for rows in batches)
    longest = run.train[ROWS - 1]

    def of(passes: float, update: float) -> duration.Duration:
        sample = duration.Sample(trial.Timed(1.0, 1.0, passes, update), [longest])
        return duration.estimate(
            settings, run.architecture, run.architecture.model, {"train": run.train}, sampler, known, sample
        )

    one = of(2.0, 0.0)
    per_second = 2.0 / longest["seconds"]
    assert one.training == pytest.approx(per_second * padded * one.steps.epochs)
    assert of(4.0, 0.0).training == pytest.approx(2 * one.training)
    assert of(2.0, 0.5).training == pytest.approx(one.training + 0.5 * one.steps.total)


def test_a_price_gives_the_cost_of_the_run(folder: Path, quiet: None) -> None:  # noqa: F811
    found = duration.Duration(duration.Steps(10, 100), 7200.0, 2, 900.0)
    assert duration.cost_text(2.5, found) == "about 6.25, at 2.5 an hour (profile.price_per_hour)"
    untimed = duration.Duration(duration.Steps(10, 100), 7200.0, 2, None)
    assert duration.cost_text(2.5, untimed) == "at least 5.00, at 2.5 an hour (profile.price_per_hour)"
    assert duration.cost_text(None, found) is None
    # A run that is planned for a GPU is not timed.
    assert duration.cost_text(3.0, None) == "3 an hour (profile.price_per_hour); the run was not timed here"
    with pytest.raises(UserError, match="price_per_hour"):
        config(folder, "profile.price_per_hour=-1")


def size(path: Path) -> int:
    return sum(one.stat().st_size for one in path.rglob("*") if one.is_file())


def test_the_planned_disk_space_is_that_of_a_run(folder: Path) -> None:  # noqa: F811
    """Measured on the folder of a real training; its logs may be a little smaller or larger than planned."""
    settings = config(
        folder,
        *HERE,
        "training.num_train_epochs=6",
        "training.save_total_limit=2",
        "training.eval_strategy=epoch",
        "training.logging_steps=2",
        f"output.dir={folder / 'run'}",
        "training.ema_decay=0.9",  # keeps the weights twice
        "evaluation.max_new_tokens=2",
        sizes={"d_model": 128, "encoder_ffn_dim": 512, "decoder_ffn_dim": 512},
    )
    run = runs.build(settings)
    model, _ = runs.learning_part(settings, run.architecture)
    sampler = settings.data.source.batches(run.train.manifest)(batch_size=2, seed=1)
    steps = duration.steps(settings, len(sampler.batches()))
    planned = disk.estimate(settings, run.architecture, model, steps)
    assert (planned.kept, planned.extra) == (2, 1) and disk.saved(settings, steps) == 6
    fit.fit(runs.build(settings))
    checkpoints = sorted((folder / "run").glob("checkpoint-*"))
    assert len(checkpoints) == planned.kept
    for one in checkpoints:
        assert planned.checkpoint == pytest.approx(size(one), rel=0.03)
    left = size(folder / "run") - sum(map(size, checkpoints))
    assert planned.final + planned.logs == pytest.approx(left, rel=0.05)
    assert planned.most == pytest.approx(3 * size(checkpoints[0]) + planned.logs, rel=0.03)


def test_adapters_make_small_checkpoints(folder: Path) -> None:  # noqa: F811
    pytest.importorskip("peft")
    settings = config(folder, *HERE, "training.trainable=lora", sizes={"d_model": 128})
    run = runs.build(settings)
    model, plan = runs.learning_part(settings, run.architecture)
    planned = disk.estimate(settings, run.architecture, model, None)
    _, learning = freezing.counts(freezing.table(model, plan))
    processor = disk.processor_bytes(run.architecture)
    assert planned.checkpoint == 3 * 4 * learning + processor + disk.STATE
    assert planned.final > planned.checkpoint - processor and planned.kept == 3


@pytest.mark.parametrize(
    ("overrides", "saves", "kept"),
    [
        (("training.save_total_limit=1",), 9, (2, 1)),  # the best one and the last one
        (("training.save_total_limit=null",), 9, (9, 0)),
        (("training.save_total_limit=null",), None, (None, 0)),
        (("training.save_total_limit=3",), 2, (2, 0)),
        (("training.save_total_limit=3",), None, (3, 1)),
        (("training.save_strategy=no", "training.load_best_model_at_end=false"), 0, (0, 0)),
    ],
)
def test_how_many_checkpoints_are_kept(
    folder: Path,  # noqa: F811
    overrides: tuple[str, ...],
    saves: int | None,
    kept: tuple[int | None, int],
) -> None:
    assert disk.kept_checkpoints(config(folder, *overrides), saves) == kept


def test_too_little_space_is_warned_of(folder: Path, quiet: None, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    _, lines = said(config(folder, *HERE))
    assert values_of(lines, "warning")[-1].endswith(disk.REMEDY)


def test_without_data_each_checkpoint_is_named(folder: Path, quiet: None) -> None:  # noqa: F811
    for split in ("train", "dev"):
        (folder / f"{split}.csv").unlink()
    short = ("audio.max_length_seconds=2", "model.full_context_share=0")
    _, lines = said(config(folder, "training.save_total_limit=null", *short))
    assert " for each checkpoint, " in values_of(lines, "disk")[0]
    assert values_of(lines, "duration") == ["not known without the training data"]
