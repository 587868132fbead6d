"""``--dry_run``: will this run work? Answered without writing anything that stays.

Everything is looked at that this machine has: configuration, data, model, one step. What it lacks (weights, a
tokenizer, data, the GPU) is named as not checked. The memory plan is for the profile's device.
"""

from __future__ import annotations

import copy
import logging
import math
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from training.base.errors import Lines, NotInReach, UserError, handled
from training.base.system_files import is_empty
from training.config import hardware
from training.config.schema import Config
from training.data.ledger import DropLedger
from training.data.lengths import LENGTH_TOLERANCE
from training.data.sampler import DurationBatchSampler, NeighbourBatches
from training.data.sources.source import Split
from training.data.tasks import check_tasks
from training.engine import arithmetic, long_form, spoken_language
from training.engine import run as runs
from training.models.architecture import Architecture, BuildContext
from training.models.batch import Batch, Features
from training.planning import disk, duration, label_rows, memory, trial, wording, worst_case
from training.planning.fake_step import NotCountable
from training.planning.screen import Rows
from training.planning.silence import offline, silent
from training.planning.texts import longest_labels, stand_in_texts

VALID, DOES_NOT_FIT = 0, 3
SAMPLE = 500
"""Utterances of a split whose sound is read; of larger splits as many, spread evenly."""
SAMPLE_TEXT = "kênh TikTok của em"
"""The text whose labels are shown where there is no data."""
REMEDY_LINES = 6


def dry_run(config: Config, report: Callable[[str], None] = print, *, download: bool = False) -> int:
    """Print what a run with this configuration would be; the exit status.

    ``download``: fetch pretrained weights that are not here; otherwise nothing is fetched.

    0: valid. 3: does not fit the profile's memory. Raises `UserError` (status 2) for the user's mistake.
    """
    memory.process_bytes()
    with nullcontext() if download else offline(), silent():
        return _Report(config, report).run()


@dataclass
class _Data:
    """The splits as far as they are there; ``checked`` datasets hold the rows that were looked at."""

    train: Any = None
    dev: Any = None
    checked: dict[str, Any] = field(default_factory=dict)
    known: worst_case.Known | None = None


class _Report(Rows):
    """The sections of a dry run, in order; each adds to what is not checked."""

    def __init__(self, config: Config, report: Callable[[str], None]) -> None:
        super().__init__(report)
        self.config = config
        self.data = _Data()
        self.unchecked: list[str] = []
        self.built: dict[str, Architecture] = {}
        self.others = 0.0
        """Share of the processor that other programs used at the trial."""
        self.steps: duration.Steps | None = None
        """Of the run; None without training data."""

    def run(self) -> int:
        self.settings()
        self.open_data()
        architecture, real = self.build()
        runs.check_sample_rate(self.config, architecture)
        runs.augment_for(self.config, architecture)
        self.check_data(architecture, real)
        self.data.known = self.lengths(architecture, real)
        model, plan = runs.learning_part(self.config, architecture)
        self.parameters(architecture, model, plan)
        load = worst_case.load(self.config, architecture, self.data.known)
        self.batches(architecture, load.train)
        if real:
            self.labels(architecture)
            found = self.try_step(architecture, model)
        else:
            found = None
            self.unchecked.append("one training step")
        self.needs(architecture, model, found, real)
        fits = self.check_memory(architecture, model, load)
        return self.verdict(fits)

    # Configuration

    def settings(self) -> None:
        """The resolved configuration in a few lines."""
        config = self.config
        assert config.model is not None
        training, profile = config.training, config.profile
        self.title(f"run {config.output.experiment_name}")
        self.row("model", wording.model(config.model))
        self.row(
            "profile",
            f"{profile.name}: {profile.description or arithmetic.device(config)}, {arithmetic.choice(config)}",
        )
        if told := hardware.contradiction(profile, hardware.look()):
            self.row("warning", told)
        self.row(
            "folder",
            f"{config.output.dir}{' (holds files already)' if _holds_files(config.output.dir) else ''}",
        )
        warm = training.warmup_steps if training.warmup_steps is not None else training.warmup_ratio or 0
        self.row(
            "schedule",
            f"{memory.optimiser(config)}, learning rate {training.learning_rate:g}, {training.lr_scheduler_type}, "
            f"warm-up {warm:g}{' of the steps' if warm < 1 else ' steps'}, weight decay {training.weight_decay:g}",
        )
        self.row("trainable", wording.trainable(training))

    # Data

    def open_data(self) -> None:
        """Open the manifests; a file that is not there is missing, one that is wrong is a mistake."""
        self.title("data")
        splits: tuple[Split, ...] = ("train", "dev")
        for split in splits:
            if split == "dev" and self.config.training.eval_strategy == "no":
                continue
            if (absent := self.config.data.source.missing(split)) is not None:
                self.missing(split, *absent)
                continue
            setattr(self.data, split, runs.open_split(self.config, split))
        if self.data.train is not None:
            with handled(
                Lines(lambda record, text: self.row("language", text)), logger=spoken_language.logger
            ):
                self.config = spoken_language.with_language(self.config, self.data.train)

    def missing(self, split: str, path: Path | None, maker: str) -> None:
        hint = "name a manifest" if path is None else f"make it with {maker}, or name another"
        self.row(split, f"missing: {path or f'data.{split}'} ({hint})")
        self.unchecked.append(f"data: {split} split")

    def texts(self) -> Iterator[tuple[str, str | None, str]]:
        """The training texts; made-up ones where there are none and a tokenizer from scratch needs some."""
        if self.data.train is not None:
            keep = self.config.data.keep_text_markers
            yield from runs.trained_texts(self.data.train, keep)
        elif self.config.model is not None and self.config.model.learns_vocabulary:
            yield from stand_in_texts(self.config)

    def check_data(self, architecture: Architecture, real: bool) -> None:
        """Read the sound and count what a run would drop; `UserError` above ``data.max_dropped_share``."""
        for split in ("train", "dev"):
            manifest = getattr(self.data, split)
            if manifest is None:
                continue
            hours = float(np.sum(manifest.durations)) / 3600
            rows = _spread(len(manifest), SAMPLE)
            sample = manifest if len(rows) == len(manifest) else manifest.select(rows)
            what = f"{len(manifest):,} utterances, {hours:.2f} h"
            check_tasks(manifest, architecture.tasks, f"data.{split}", every=split == "train")
            with handled(logging.NullHandler(), logger=runs.logger):  # the rows below say it
                dataset, ledger = runs.usable(self.config, architecture, sample, split)
            looked = "all read" if sample is manifest else f"{len(sample):,} of them read"
            if sample is not manifest:  # what the source itself refuses is known of all rows
                refused = DropLedger([*getattr(manifest, "refused", ())])
                refused.check_share(len(manifest) + len(refused), self.config.data.max_dropped_share)
                ledger.drops[:0] = refused
            self.row(split, f"{what}; {looked}, {len(ledger)} cannot be used")
            for note in (*getattr(manifest, "notes", ()), *wording.languages(manifest, self.config.model)):
                self.row("", note)
            for reason, count in ledger.counts().items():
                self.row("", f"{count:,} × {reason}")
            if first := next(iter(ledger), None):
                self.row("", f"first: {first.id}: {first.reason}: {first.detail}")
            self.data.checked[split] = dataset

    def lengths(self, architecture: Architecture, real: bool) -> worst_case.Known:
        """Durations of the data, or those that the limits allow; label lengths where a tokenizer is there."""
        guess = worst_case.assumed(self.config)
        if self.data.train is None:
            return guess
        train, dev = (None if s is None else self.fitting(s) for s in (self.data.train, self.data.dev))
        assert train is not None
        longest = longest_labels(architecture, self.data.checked["train"]) if real else None
        joining = long_form.neighbours_to_join(self.config, architecture, train, counted=real)
        joined = None
        if joining is not None and real:
            drawn = NeighbourBatches(train.durations, joining=joining, **worst_case.bounds(self.config))
            joined = drawn.longest_labels() + worst_case.EXTRA_TOKENS
        return worst_case.Known(
            train=train.durations,
            dev=guess.dev if dev is None else dev.durations,
            longest_labels=longest,
            joined_labels=joined,
            measured=True,
            joining=joining,
        )

    def fitting(self, rows: Any) -> Any:
        """The rows of a split that are not too long."""
        limit = self.config.audio.max_length_seconds + LENGTH_TOLERANCE
        fits = rows.durations <= limit
        return rows if fits.all() else rows.select(np.flatnonzero(fits))

    # Model

    def build(self) -> tuple[Architecture, bool]:
        """The architecture with weights and tokenizer where they can be had, else by its public sizes alone."""
        try:
            architecture, real = runs.build_architecture(self.config, self.context(meta=False)), True
        except NotInReach as error:
            architecture, real = runs.build_architecture(self.config, self.context(meta=True)), False
            self.unchecked += ["weights", "tokenizer"]
            self.reason = str(error)
        return architecture, real

    def context(self, *, meta: bool) -> BuildContext:
        return BuildContext(texts=self.texts, meta=meta, seed=self.config.training.seed)

    def parameters(self, architecture: Architecture, model: Any, plan: Any) -> None:
        """Counts of all parameters, of trained ones, and of those frozen by each pattern."""
        from training.engine import freezing as trainable

        self.title("model")
        if "weights" in self.unchecked:
            self.row("weights", f"not here, shapes from known sizes: {' '.join(self.reason.split())}")
        for note in architecture.notes:
            self.row("note", note)
        self.block(trainable.format_table(trainable.table(model, plan)))

    # Batches

    def batches(self, architecture: Architecture, worst: Batch) -> None:
        """Shapes of the heaviest batch, what one optimiser step sees, and how many there are."""
        known, training = self.data.known, self.config.training
        assert known is not None
        self.title("batches")
        shapes = [f"{k} {list(v.shape)}" for k, v in worst.items() if hasattr(v, "shape") and v.dim() > 1]
        source = (
            "by the data"
            if known.measured
            else f"assumed: clips up to {self.config.audio.max_length_seconds:g} s"
        )
        self.row("heaviest", f"{', '.join(shapes)} ({source})")
        sampler = self.sampler(known)
        world = int(os.environ.get("WORLD_SIZE", "1"))
        batches = sampler.batches()
        units: list[Any] = [unit for batch in batches for unit in batch]
        joined = [len(unit) for unit in units if isinstance(unit, tuple)]
        if joined:
            self.row(
                "joined",
                f"{sum(joined):,} clips to {len(joined):,} samples, {len(units) - len(joined):,} stay single",
            )
        clips = (
            (sum(joined) + len(units) - len(joined))
            / len(batches)
            * training.gradient_accumulation_steps
            * world
        )
        seconds = clips * float(known.train.mean())
        tokens = (
            clips
            * len(architecture.tasks)
            * worst_case.label_length(architecture, float(known.train.mean()), None)
        )
        self.row(
            "one step",
            f"{wording.counted(training.gradient_accumulation_steps, 'batch', 'batches')} × "
            f"{wording.counted(world, 'process', 'processes')}: about {clips:.1f} clips, {seconds:.0f} s of audio, "
            f"{tokens:.0f} label tokens in {wording.counted(len(architecture.tasks), 'task', 'tasks')}"
            f"{'' if known.measured else ' (assumed)'}",
        )
        self.row("schedule", wording.steps(self.config, sampler if known.measured else None, world))
        if known.measured:
            self.steps = duration.steps(self.config, -(-len(batches) // world))
            for warning in wording.schedule_warnings(self.config, len(batches), world):
                self.row("warning", warning)

    def sampler(self, known: worst_case.Known) -> DurationBatchSampler:
        """The sampler of training: over shards by the samples themselves, whose domains may come several times."""
        rows, limit = self.data.train, self.config.audio.max_length_seconds
        source = self.config.data.source
        if source.batches_by_length or rows is None:
            return worst_case.make_sampler(self.config, known.train, known.joining)
        fitting = rows.select(np.flatnonzero(rows.durations <= limit))
        return source.batches(fitting)(**worst_case.bounds(self.config))

    def labels(self, architecture: Architecture) -> None:
        """The exact labels of one example."""
        train = self.data.checked.get("train")
        if train is not None and len(train):
            what, one = "the first utterance", train[0]
        else:
            what, one = "a made-up text", worst_case.encoded(architecture, SAMPLE_TEXT)
        self.title(f"labels of {what}, special tokens included")
        practised = train if train is not None and len(train) and self.data.known is not None else None
        for name, text in label_rows.rows(self.config, architecture, one, practised):
            self.row(name, text)

    # Trial

    def try_step(self, architecture: Architecture, model: Any) -> duration.Duration | None:
        """One optimiser step and one hypothesis here, if that is affordable; how long the run will take."""
        self.title(f"trial on this machine: CPU, {trial.arithmetic_here(self.config)}")
        clips = self.heaviest_clips(architecture)
        batches = {f"{len(clips)} long clips": clips, "the longest clip": clips[:1]}
        if not len(self.data.checked.get("train", ())):
            batches = {"one clip of noise": clips}
        sample: duration.Sample | None = None
        self.others = trial.busy_share()
        for name, features in batches.items():
            batch = architecture.collate(features)
            try:
                cost = trial.estimate(self.config, architecture, model, batch, self.others)
            except NotCountable as reason:
                self.row("not tried", f"{name}: {reason}")
                continue
            if cost.refusal is None:
                result = trial.run(self.config, architecture, model, batch, clips[0])
                self.tried(name, result)
                if len(features) < len(clips):  # the usual batch may take too long as well
                    sample = duration.Sample(result.step, features)
                return self.whole_run(architecture, model, sample)
            self.row("not tried", f"{name}: {cost.refusal}")
            if not cost.is_too_large:
                step = trial.Timed(math.nan, math.nan, cost.step, 0.0)
                sample = duration.Sample(step, features, counted=True)
        self.unchecked.append("one training step")
        return None if sample is None else self.whole_run(architecture, model, sample)

    def heaviest_clips(self, architecture: Architecture) -> list[Features]:
        """The sampler's largest batch, longest clip first: of the clips that were read, else one of noise."""
        train = self.data.checked.get("train")
        if train is None or not len(train):
            return [worst_case.synthetic_features(architecture, self.config.audio.max_length_seconds)]
        assert self.data.known is not None
        known = self.data.known
        rows, seconds = worst_case.heaviest(self.config, known.train, joining=known.joining)
        if known.joining is not None:  # the rows that were read need not be neighbours
            return [worst_case.synthetic_features(architecture, seconds, known.labels(seconds))] * rows
        fitting = np.flatnonzero(train.durations <= seconds)
        order = fitting[np.argsort(-train.durations[fitting], kind="stable")]
        return [train[int(i)] for i in order[:rows]]

    def tried(self, name: str, result: trial.Result) -> None:
        self.row(
            name,
            f"loss {result.step.loss:.4f}, gradient norm {result.step.gradient_norm:.3f}; one optimiser step in "
            f"{result.step.seconds:.1f} s",
        )
        if not math.isfinite(result.step.loss) or not math.isfinite(result.step.gradient_norm):
            raise UserError(
                f"the loss of {name} is {result.step.loss}, its gradient norm {result.step.gradient_norm}"
            )
        for task, text in result.hypotheses.items():
            self.row(task, f"{text!r} ({result.generation_seconds:.1f} s for all tasks)")

    def whole_run(
        self, architecture: Architecture, model: Any, sample: duration.Sample | None
    ) -> duration.Duration | None:
        """How long the run will take, where it is one of this machine's CPU."""
        train, known = self.data.checked.get("train"), self.data.known
        if arithmetic.device(self.config) != "cpu" or train is None or not len(train):
            return None
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # processes that share the cores are not timed
            return None
        assert known is not None
        return duration.estimate(
            self.config, architecture, model, self.data.checked, self.sampler(known), known, sample
        )

    def needs(
        self, architecture: Architecture, model: Any, found: duration.Duration | None, real: bool
    ) -> None:
        """Time, cost and disk space of the whole run."""
        self.title("time, cost and disk space")
        if found is not None:
            self.row("duration", str(found))
            if self.others >= trial.BUSY:
                self.row("", f"{trial.busy_text(self.others)}, and it takes less time on a quiet one")
        else:
            self.row("duration", duration.not_timed(self.config, data=self.steps is not None))
        if (cost := duration.cost_text(self.config.profile.price_per_hour, found)) is not None:
            self.row("cost", cost)
        space = disk.estimate(self.config, architecture, model, self.steps, real=real)
        self.row("disk", str(space))
        if not space.fits:
            self.row("warning", f"{self.config.output.dir}: there is less space than that; {disk.REMEDY}")

    # Memory

    def check_memory(self, architecture: Architecture, model: Any, load: memory.Load) -> bool:
        """The plan for the profile's device, and what would make it fit."""
        self.title(
            f"memory on the profile's device ({arithmetic.device(self.config)}, {arithmetic.precision(self.config)})"
        )
        try:
            plan = memory.make_plan(self.config, architecture, model, load)
        except NotCountable as reason:
            self.unchecked.append(f"memory: {reason}")
            return True
        self.block(plan.table())
        moments = ", ".join(f"{name} {size / memory.GIB:.2f}" for name, size in plan.moments.items())
        self.row("moments", f"{moments} GiB")
        self.row("verdict", plan.verdict, "green" if plan.fits else "bold red")
        if not plan.fits:
            self.remedies(plan)
        elif (larger := memory.larger_batch(self.config, plan, self.plan)) is not None:
            self.row("larger batch", " ".join(larger.change.overrides))
            self.row("", f"{larger.plan.verdict}; {larger.change.price}")
        return plan.fits

    def plan(self, config: Config) -> memory.Plan:
        """The plan of any configuration of this data."""
        architecture = self.pristine(config)
        model, _ = runs.learning_part(config, architecture)
        assert self.data.known is not None
        return memory.make_plan(
            config, architecture, model, worst_case.load(config, architecture, self.data.known)
        )

    def pristine(self, config: Config) -> Architecture:
        """An architecture whose model nothing is frozen in yet: on the meta device where that is possible, built once."""
        assert config.model is not None
        key = config.model.model_dump_json()
        if key not in self.built:
            try:
                self.built[key] = runs.build_architecture(config, self.context(meta=True))
            except UserError:
                self.built[key] = runs.build_architecture(config, self.context(meta=False))
        return replace(self.built[key], model=copy.deepcopy(self.built[key].model))

    def remedies(self, plan: memory.Plan) -> None:
        found = memory.remedies(self.config, plan, self.plan)
        if not found:
            self.row("remedy", "none of the known changes makes it fit; take a smaller model")
        for remedy in found[:REMEDY_LINES]:
            self.row("would fit", f"{' '.join(remedy.change.overrides)}")
            self.row("", f"{remedy.plan.verdict}; {remedy.change.price}")

    # The end

    def verdict(self, fits: bool) -> int:
        if arithmetic.device(self.config) == "cuda" and not _has_gpu():
            self.unchecked.append(
                f"GPU: this machine has none; {arithmetic.precision(self.config)} and speed were not tried"
            )
        self.title("verdict")
        for what in dict.fromkeys(self.unchecked):
            self.row("not checked", what)
        told = "valid" if fits else "valid, but it does not fit the profile's memory"
        self.row("result", told, "green" if fits else "bold red")
        return VALID if fits else DOES_NOT_FIT


def _spread(total: int, wanted: int) -> list[int]:
    return list(range(total)) if total <= wanted else [i * total // wanted for i in range(wanted)]


def _holds_files(folder: Path) -> bool:
    return folder.is_dir() and not is_empty(folder)


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
