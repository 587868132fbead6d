"""The memory plan of a run: what its worst moment needs on the profile's device, and what would make it fit.

`training.planning.fake_step` counts a training step and an evaluation batch; this module adds what they run beside
(weights, optimiser states, the process or the CUDA context) and holds the sum against the budget.
benchmarks/memory.py measures how far the plan is off.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch

from training.base.errors import UserError
from training.config.arguments import DEFAULT_BATCH
from training.config.load import config_from
from training.config.schema import Config
from training.engine.arithmetic import device, precision
from training.models.architecture import Architecture
from training.models.batch import Batch
from training.models.decoder_sizes import DecoderSizes
from training.planning.fake_step import FakeModel, Trace

GIB = 2**30
FIXED = ("weights", "optimiser states")
PROCESS = "Python, libraries, data workers"
ALLOCATOR, MALLOC = "allocator and kernel workspaces", "malloc's leftovers"
AROUND = (PROCESS, ALLOCATOR, MALLOC)
"""Memory of a plan beside tensors."""
CUDA_CONTEXT = int(0.7 * GIB)
"""GPU memory of driver, context and libraries before the first tensor."""
WORKSPACE = 64 * 2**20
"""cuBLAS and cuDNN keep scratch memory of this order."""
FRAGMENTS = 0.04
"""Share of what comes and goes that torch's caching allocator holds and cannot use."""
HEAP = 0.35
"""Share of what comes and goes on a CPU that glibc's malloc holds beyond it: between 0.1 and 0.6, as
benchmarks/memory.py measures it (less with ``MALLOC_MMAP_THRESHOLD_=65536``)."""
WORKER = int(0.25 * GIB)
"""A data worker's own memory beyond what it shares with the process that started it."""
EIGHT_BIT_FROM = 4096
"""bitsandbytes keeps the states of smaller parameters in 32 bits."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """The input of a plan: the heaviest batches of training and of evaluation."""

    train: Batch
    evaluation: Batch | None = None
    new_tokens: int = 0
    beams: int = 1


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Bytes at the worst moment by what holds them, and the budget they must stay within.

    moment: ``training step``, ``optimiser step`` or ``evaluation``. moments: total bytes of each.
    """

    items: Mapping[str, int]
    moment: str
    moments: Mapping[str, int]
    budget: int
    device: str
    parameters: int
    trainable: int
    flops: int = field(default=0, compare=False)

    @property
    def total(self) -> int:
        """Bytes at the worst moment."""
        return sum(self.items.values())

    @property
    def tensors(self) -> int:
        """Bytes of tensors alone at the worst moment."""
        return sum(size for name, size in self.items.items() if name not in AROUND)

    @property
    def fits(self) -> bool:
        """Whether the worst moment stays within the budget."""
        return self.total <= self.budget

    @property
    def verdict(self) -> str:
        """``fits: 2.9 of 3.3 GiB``, or that it does not."""
        word = "fits" if self.fits else "does not fit"
        return f"{word}: {self.total / GIB:.2f} of {self.budget / GIB:.2f} GiB"

    def table(self) -> str:
        """One line for each item, and the sum."""
        rows = [*self.items.items(), (f"at the worst moment ({self.moment})", self.total)]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {size / GIB:8.3f} GiB" for name, size in rows)


def make_plan(config: Config, architecture: Architecture, model: Any, load: Load) -> Plan:
    """The plan of training ``model`` (what `trainable.apply` made of the architecture's) with this configuration.

    The model may lie on any device; it is neither moved nor changed. Raises `training.planning.fake_step.NotCountable`.
    """
    cuda = device(config) == "cuda"
    fake_model = FakeModel(
        model,
        cuda=cuda,
        precision=precision(config),
        checkpointing=config.training.gradient_checkpointing,
    )
    weights = fake_model.static
    states, scratch = optimiser_bytes(model, optimiser(config))
    step = fake_model.step(load.train, accumulated=config.training.gradient_accumulation_steps > 1)
    gradients = sum(p.numel() * p.element_size() for p in _trainable(model))
    fixed = dict(zip(FIXED, (weights, states), strict=True)) | _replicas(gradients)
    moments = {
        "training step": {**fixed, **_parts(step)},
        "optimiser step": {**fixed, "gradients": gradients, "optimiser's scratch memory": scratch},
    }
    if load.evaluation is not None:
        moments["evaluation"] = {**fixed, **_evaluation(fake_model, load, architecture)}
    moments = {name: {**items, **_around(config, items, cuda)} for name, items in moments.items()}
    sums = {name: sum(items.values()) for name, items in moments.items()}
    worst = max(sums, key=lambda name: sums[name])
    return Plan(
        items={name: size for name, size in moments[worst].items() if size},
        moment=worst,
        moments=sums,
        budget=budget(config),
        device=device(config),
        parameters=sum(p.numel() for p in model.parameters()),
        trainable=sum(p.numel() for p in _trainable(model)),
        flops=step.flops,
    )


def budget(config: Config) -> int:
    """Bytes that tensors may take: on a GPU less its context, on a CPU with everything in it."""
    gigabytes = config.profile.memory_gb
    whole = int(gigabytes * GIB) if gigabytes is not None else machine_memory(device(config))
    return whole - CUDA_CONTEXT if device(config) == "cuda" else whole


def machine_memory(kind: str) -> int:
    """Bytes of this machine's GPU (its first) or of its main memory."""
    if kind == "cuda":
        if not torch.cuda.is_available():
            raise UserError("profile.memory_gb: not given, and this machine shows no GPU to ask; set it")
        return int(torch.cuda.get_device_properties(0).total_memory)
    import psutil

    return int(psutil.virtual_memory().total)


def optimiser(config: Config) -> str:
    """The name that transformers has for the optimiser."""
    chosen = getattr(config.training, "optim", "adamw_torch_fused")
    return str(getattr(chosen, "value", chosen))


def optimiser_bytes(model: torch.nn.Module, name: str) -> tuple[int, int]:
    """Bytes of the optimiser's states, and of what one step makes beside them."""
    trainable = _trainable(model)
    count = sum(p.numel() for p in trainable)
    if "8bit" in name:
        return _eight_bit(model, 1 if "lion" in name else 2), 0
    if name == "adafactor":
        return sum(
            4 * (p.numel() // p.shape[-1] + p.shape[-1]) if p.dim() > 1 else 4 * p.numel() for p in trainable
        ), 0
    per_parameter = {"sgd": 0, "adagrad": 4, "rmsprop": 4}.get(name, 4 if "lion" in name else 8)
    # AdamW over lists of tensors takes the root of all second moments at once; the fused kernel does not.
    return per_parameter * count, 4 * count if name == "adamw_torch" else 0


def _eight_bit(model: torch.nn.Module, width: int) -> int:
    """transformers keeps the states of embeddings in 32 bits, bitsandbytes those of small parameters."""
    whole = {
        id(p)
        for m in model.modules()
        if isinstance(m, torch.nn.Embedding)
        for p in m.parameters(recurse=False)
    }
    small = lambda p: id(p) in whole or p.numel() < EIGHT_BIT_FROM  # noqa: E731
    return sum((4 * width if small(p) else width) * p.numel() for p in _trainable(model))


def _trainable(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


def _replicas(gradients: int) -> dict[str, int]:
    """With several processes DDP sends gradients through buckets as large as they are."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return {"DDP's gradient buckets": gradients} if several else {}


def _parts(trace: Trace) -> dict[str, int]:
    return {name: size for name, size in trace.parts.items() if size}


def _evaluation(fake_model: FakeModel, load: Load, architecture: Architecture) -> dict[str, int]:
    """The forward pass with the loss, or the generation that follows it, whichever takes more."""
    assert load.evaluation is not None
    forward = fake_model.forward(load.evaluation)
    if not load.new_tokens:
        return _parts(forward)
    cache = generation_bytes(fake_model, load, forward.states, architecture.decoder_sizes)
    if cache > forward.peak:
        return {"keys and values of generation": cache}
    return _parts(forward)


def generation_bytes(fake_model: FakeModel, load: Load, states: tuple[int, ...], sizes: DecoderSizes) -> int:
    """Encoder states of every row, task and beam, the keys and values that attention keeps, and logits of one token.

    ``states``: shape of the encoder's states, ``[rows, frames, width]``. ``sizes``: of the architecture's decoder.
    """
    assert load.evaluation is not None
    rows = states[0] * load.evaluation["labels"].shape[1] * load.beams
    positions = states[1] + load.evaluation["prompt_length"] + load.new_tokens
    cached = 2 * sizes.layers * rows * positions * sizes.kept * fake_model.dtype.itemsize
    # Beam search and mBART copy the encoder's states for every task (greedy Whisper needs less), and generate takes
    # logits to float32 before it compares them.
    return (
        cached
        + rows * states[1] * sizes.width * 4
        + rows * fake_model.vocabulary * (4 + fake_model.dtype.itemsize)
    )


def _around(config: Config, items: Mapping[str, int], cuda: bool) -> dict[str, int]:
    """Memory beside the tensors of one moment."""
    coming_and_going = sum(size for name, size in items.items() if name not in FIXED)
    if cuda:
        return {ALLOCATOR: WORKSPACE + int(FRAGMENTS * coming_and_going)}
    return {
        MALLOC: int(HEAP * coming_and_going),
        PROCESS: process_bytes() + config.dataloader.num_workers * WORKER,
    }


@lru_cache(maxsize=1)
def process_bytes() -> int:
    """Memory of Python, torch and transformers in this process, measured at the first call."""
    import psutil

    return int(psutil.Process().memory_info().rss)


# What would make it fit


@dataclass(frozen=True)
class Change:
    """Overrides that change a configuration, and what they cost."""

    overrides: tuple[str, ...]
    price: str

    @property
    def for_evaluation(self) -> bool:
        """Whether it leaves training as it is."""
        return all(override.startswith("evaluation.") for override in self.overrides)


@dataclass(frozen=True)
class Remedy:
    """A change under which the plan fits, found by planning anew with it."""

    change: Change
    plan: Plan


Replan = Callable[[Config], Plan]


def remedies(config: Config, plan: Plan, replan: Replan) -> list[Remedy]:
    """Changes that make the plan fit: every single one that does; where none does, the cheapest sum of them.

    Changes are tried in the order of their price, each by planning anew.
    """
    if plan.items["weights"] > plan.budget and not (
        config.model is not None and config.model.can_shrink_weights
    ):
        return []
    search = _Search(config, plan, replan)
    return search.singles() or search.together()


def larger_batch(config: Config, plan: Plan, replan: Replan) -> Remedy | None:
    """Twice the batch, with half the accumulation where there is any; None where it would not fit, and where a GPU's
    memory is more than half used already."""
    if plan.device != "cuda" or 2 * plan.total > plan.budget:
        return None
    training = config.training
    key, value = (
        ("max_batch_seconds", training.max_batch_seconds)
        if training.max_batch_seconds and not training.batch_size
        else ("batch_size", training.batch_size or DEFAULT_BATCH)
    )
    overrides = [f"training.{key}={2 * value:g}"]
    if (often := training.gradient_accumulation_steps) % 2 == 0:
        overrides.append(f"training.gradient_accumulation_steps={often // 2}")
    price = "the same step sooner" if len(overrides) > 1 else "fewer steps in an epoch, of twice as much data"
    change = Change(tuple(overrides), price)
    found = replan(_apply(config, change))
    return Remedy(change, found) if found.fits else None


class _Search:
    """Plans of changed configurations, each made once."""

    def __init__(self, config: Config, plan: Plan, replan: Replan) -> None:
        self.config, self.first, self.replan = config, plan, replan
        self.plans: dict[tuple[str, ...], Plan | None] = {(): plan}

    def singles(self) -> list[Remedy]:
        """For each kind of change, the mildest one that is enough on its own."""
        kinds = [options for options in candidates(self.config) if self.matters(options)]
        found = [self.mildest([], options) for options in kinds]
        return [self.remedy([change]) for change in found if change is not None]

    def together(self) -> list[Remedy]:
        """Changes that each save something, added up until it fits, less those that turn out not to be needed."""
        chosen: list[Change] = []
        least = self.first.total
        for options in candidates(self.config):
            enough = self.mildest(chosen, options)
            if enough is not None:
                return [self.pruned([*chosen, enough])]
            furthest = self.plan([*chosen, options[-1]]) if options else None
            if furthest is not None and furthest.total < least:
                chosen, least = [*chosen, options[-1]], furthest.total
        return []

    def mildest(self, chosen: list[Change], options: Sequence[Change]) -> Change | None:
        """The first of the options that is enough beside what is chosen; they go ever further, so the last decides."""
        if not options or not self.fits([*chosen, options[-1]]):
            return None
        return next(option for option in options if self.fits([*chosen, option]))

    def pruned(self, chosen: list[Change]) -> Remedy:
        for change in chosen[:-1][::-1]:
            rest = [other for other in chosen if other is not change]
            chosen = rest if self.fits(rest) else chosen
        return self.remedy(chosen)

    def matters(self, options: Sequence[Change]) -> bool:
        """Whether the changes can help: those that only reduce the memory of evaluation do not help a training step."""
        return self.first.moment == "evaluation" or not all(option.for_evaluation for option in options)

    def fits(self, chosen: Sequence[Change]) -> bool:
        plan = self.plan(chosen)
        return plan is not None and plan.fits

    def remedy(self, chosen: Sequence[Change]) -> Remedy:
        plan = self.plan(chosen)
        assert plan is not None
        return Remedy(_sum(chosen), plan)

    def plan(self, chosen: Sequence[Change]) -> Plan | None:
        """The plan under these changes; None where the configuration does not allow them."""
        change = _sum(chosen)
        if change.overrides not in self.plans:
            try:
                self.plans[change.overrides] = self.replan(_apply(self.config, change))
            except UserError:
                self.plans[change.overrides] = None
        return self.plans[change.overrides]


def _sum(changes: Sequence[Change]) -> Change:
    overrides = tuple(override for change in changes for override in change.overrides)
    return Change(overrides, "; ".join(change.price for change in changes))


def _apply(config: Config, change: Change) -> Config:
    return config_from(config.as_dict(), change.overrides, name=config.output.experiment_name)


def candidates(config: Config) -> Iterator[Sequence[Change]]:
    """Changes that can save memory, the least costly first; within one entry ever further ones."""
    training = config.training
    if device(config) == "cuda" and precision(config) == "fp32":
        yield [Change(("training.bf16=true",), "half precision")]
    if not training.gradient_checkpointing:
        yield [Change(("training.gradient_checkpointing=true",), "about a third more time per step")]
    yield list(_smaller_batches(config))
    yield list(_smaller_evaluation(config))
    if device(config) == "cuda" and "8bit" not in optimiser(config) and training.trainable != "lora":
        yield [Change(("training.optim=adamw_bnb_8bit",), "needs bitsandbytes")]
    if config.model is not None:
        yield from ([Change((override,), cost)] for override, cost in config.model.memory_savings())
    yield from _fewer_parameters(config)


def _fewer_parameters(config: Config) -> Iterator[Sequence[Change]]:
    training = config.training
    if not training.freeze_encoder or training.freeze_encoder_epochs:
        unfreezes = ("training.freeze_encoder_epochs=null",) if training.freeze_encoder_epochs else ()
        yield [Change(("training.freeze_encoder=true", *unfreezes), "the encoder stays as it is")]
    if training.trainable == "all":
        yield [Change(("training.trainable=lna",), "only layer norms and attention learn")]
    if training.trainable != "lora":
        yield [Change(("training.trainable=lora",), "only adapters learn; needs peft")]


def _smaller_batches(config: Config) -> Iterator[Change]:
    """Halved, and accumulated over twice as many, so that a step still sees as much."""
    training = config.training
    size, seconds = training.batch_size, training.max_batch_seconds
    if size is None and seconds is None:
        size = DEFAULT_BATCH
    least = config.audio.max_length_seconds
    before: tuple[str, ...] = ()
    for factor in (2, 4, 8, 16, 32, 64):
        smaller: tuple[str, ...] = ()
        if size is not None and size > 1:
            smaller += (f"training.batch_size={max(1, size // factor)}",)
        if seconds is not None and seconds > least:
            smaller += (f"training.max_batch_seconds={max(least, seconds / factor):g}",)
        if smaller == before:
            return
        before = smaller
        steps = f"training.gradient_accumulation_steps={training.gradient_accumulation_steps * factor}"
        yield Change((*smaller, steps), "more, smaller batches per step")


def _smaller_evaluation(config: Config) -> Iterator[Change]:
    seconds, least = config.evaluation.batch_seconds, config.audio.max_length_seconds
    while seconds > least:
        seconds = max(least, seconds / 2)
        yield Change((f"evaluation.batch_seconds={seconds:g}",), "slower evaluation")
