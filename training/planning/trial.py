"""One optimiser step and one hypothesis on this machine's CPU, when it can be afforded.

In the run's own arithmetic where the run is one of this CPU, in float32 where it is planned for a GPU.
"""

from __future__ import annotations

import math
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from training.config.load import config_from
from training.config.schema import Config
from training.decoding.ctc_decoding import with_frame_decoder
from training.decoding.predict import longest_hypothesis
from training.engine.arithmetic import device, precision
from training.models.architecture import Architecture, DecodeOptions
from training.models.batch import Batch, Features
from training.models.common.attention import use_products
from training.planning.memory import GIB, PROCESS, Load, Plan, make_plan

MOST_SECONDS = 60.0
SHARE_OF_FREE_MEMORY = 0.5
NEW_TOKENS = 32
EFFICIENCY = 0.3
"""Share of a large matrix product's speed that a whole training step reaches."""
STREAM = 4e9
"""Bytes of weights that a CPU reads in a second when it generates token after token."""


BUSY = 0.25
"""Share of the processor that other programs use, from which on the machine is called busy."""
LOOK = 0.3
"""Seconds for which the processor is looked at."""


@dataclass(frozen=True)
class Estimate:
    """Cost of a trial: bytes beside the weights that are loaded already, and seconds.

    step: seconds of them that the optimiser step takes. others: share of the processor that other programs use.
    """

    memory: int
    seconds: float
    free: int
    step: float = 0.0
    others: float = 0.0

    @property
    def is_too_large(self) -> bool:
        """Whether it would take too much memory."""
        return self.memory > SHARE_OF_FREE_MEMORY * self.free

    @property
    def refusal(self) -> str | None:
        """Why it is not tried; None when it can be."""
        if self.is_too_large:
            return f"needs {self.memory / GIB:.1f} GiB, and half of the free memory is {self.free / 2 / GIB:.1f} GiB"
        if self.seconds > MOST_SECONDS:
            told = f"; {busy_text(self.others)}" if self.others >= BUSY else ""
            return f"would take about {math.ceil(self.seconds)} s on this CPU, more than {MOST_SECONDS:.0f} s{told}"
        return None


@dataclass(frozen=True)
class Result:
    """The results of the trial step and of the decoding."""

    step: Timed
    hypotheses: dict[str, str]
    generation_seconds: float


@dataclass(frozen=True)
class Timed:
    """One optimiser step: seconds of its ``passes`` (forward and backward) and of its ``update`` (clipping, AdamW)."""

    loss: float
    gradient_norm: float
    passes: float
    update: float

    @property
    def seconds(self) -> float:
        """Of the whole step."""
        return self.passes + self.update


def busy_share() -> float:
    """Share (0 to 1) of this machine's processor that other programs use, while this process waits."""
    import psutil

    return float(psutil.cpu_percent(interval=LOOK)) / 100


def busy_text(share: float) -> str:
    """That the machine is busy, in words."""
    return f"the machine is busy: other programs use {share:.0%} of its processor"


def estimate(
    config: Config, architecture: Architecture, model: Any, batch: Batch, others: float = 0.0
) -> Estimate:
    """Memory from a plan for the CPU in float32, time from its FLOPs and this machine's speed.

    others: share of the processor that other programs use (`busy_share`).
    """
    import psutil

    plan = cpu_plan(config, architecture, model, batch)
    ours = plan.items.get(PROCESS, 0) + plan.items["weights"]
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    generation = NEW_TOKENS * weights / STREAM
    step_seconds = plan.flops / (EFFICIENCY * flops_per_second())
    free = int(psutil.virtual_memory().available)
    return Estimate(plan.total - ours, step_seconds + generation, free, step_seconds, others)


def cpu_plan(config: Config, architecture: Architecture, model: Any, batch: Batch) -> Plan:
    """The plan of one step on this machine's CPU in float32."""
    overrides = ["profile.device=cpu", "profile.precision=fp32", "training.fp16=null", "training.bf16=null"]
    here = config_from(config.as_dict(), overrides, name=config.output.experiment_name)
    return make_plan(here, architecture, model, Load(train=batch))


def flops_per_second(width: int = 768) -> float:
    """Speed of a matrix product of this width on this CPU, the best of three."""
    a = torch.rand(width, width)
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - started)
    return 2 * width**3 / best


def run(config: Config, architecture: Architecture, model: Any, batch: Batch, one: Features) -> Result:
    """Train ``model`` on the batch for one step of AdamW and let it transcribe ``one``; the weights change."""
    timed = step(config, architecture, model, batch)
    started = time.perf_counter()
    with autocast(config):
        hypotheses = hypothesis(architecture, one)
    return Result(timed, hypotheses, time.perf_counter() - started)


def step(config: Config, architecture: Architecture, model: Any, batch: Batch) -> Timed:
    """One optimiser step of AdamW on the batch; the weights change."""
    training = config.training
    if arithmetic_here(config) == "bf16":
        use_products(architecture.model)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        parameters, lr=training.learning_rate, weight_decay=training.weight_decay, fused=True
    )
    model.train()
    started = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        with autocast(config):
            loss = architecture.loss(batch, model=model).loss
        loss.backward()
    passed = time.perf_counter()
    norm = torch.nn.utils.clip_grad_norm_(parameters, training.max_grad_norm or float("inf"))
    optimiser.step()
    ended = time.perf_counter()
    model.zero_grad(set_to_none=True)
    model.eval()
    return Timed(float(loss.detach()), float(norm), passed - started, ended - passed)


def arithmetic_here(config: Config) -> str:
    """``bf16`` where the run is one of this CPU in bf16, else ``fp32``."""
    return "bf16" if device(config) == "cpu" and precision(config) == "bf16" else "fp32"


def autocast(config: Config) -> AbstractContextManager[Any]:
    """The context of a forward pass in `arithmetic_here`."""
    return torch.autocast("cpu", torch.bfloat16, enabled=arithmetic_here(config) == "bf16")


def hypothesis(architecture: Architecture, one: Features) -> dict[str, str]:
    """The model's text of one clip for each task, at most `NEW_TOKENS` tokens long."""
    tokens = min(NEW_TOKENS, longest_hypothesis(one["seconds"]))
    with torch.no_grad():
        decoded = architecture.decode(
            architecture.collate([one]),
            with_frame_decoder(architecture, DecodeOptions(max_new_tokens=tokens)),
        )
    return {task: rows[0].text for task, rows in decoded.items()}
