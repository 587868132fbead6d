"""One optimiser step and one hypothesis on this machine's CPU in float32, when it can be afforded."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch

from training.config.load import config_from
from training.config.schema import Config
from training.decoding.ctc_decoding import with_frame_decoder
from training.decoding.predict import longest_hypothesis
from training.models.architecture import Architecture, Batch, DecodeOptions, Features
from training.planning.memory import GIB, PROCESS, Load, Plan, make_plan

MOST_SECONDS = 60.0
SHARE_OF_FREE_MEMORY = 0.5
NEW_TOKENS = 32
EFFICIENCY = 0.3
"""Share of a large matrix product's speed that a whole training step reaches."""
STREAM = 4e9
"""Bytes of weights that a CPU reads in a second when it generates token after token."""


@dataclass(frozen=True)
class Estimate:
    """Cost of a trial: bytes beside the weights that are loaded already, and seconds."""

    memory: int
    seconds: float
    free: int

    @property
    def refusal(self) -> str | None:
        """Why it is not tried; None when it can be."""
        if self.memory > SHARE_OF_FREE_MEMORY * self.free:
            return f"needs {self.memory / GIB:.1f} GiB, and half of the free memory is {self.free / 2 / GIB:.1f} GiB"
        if self.seconds > MOST_SECONDS:
            return f"would take about {math.ceil(self.seconds)} s on this CPU, more than {MOST_SECONDS:.0f} s"
        return None


@dataclass(frozen=True)
class Result:
    """The results of the trial step and of the decoding."""

    loss: float
    gradient_norm: float
    step_seconds: float
    hypotheses: dict[str, str]
    generation_seconds: float


def estimate(config: Config, architecture: Architecture, model: Any, batch: Batch) -> Estimate:
    """Memory from a plan for the CPU in float32, time from its FLOPs and this machine's speed."""
    import psutil

    plan = cpu_plan(config, architecture, model, batch)
    ours = plan.items.get(PROCESS, 0) + plan.items["weights"]
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    generation = NEW_TOKENS * weights / STREAM
    seconds = plan.flops / (EFFICIENCY * flops_per_second()) + generation
    return Estimate(plan.total - ours, seconds, int(psutil.virtual_memory().available))


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
    training = config.training
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=training.learning_rate, weight_decay=training.weight_decay)
    model.train()
    started = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        loss = architecture.loss(batch, model=model).loss
        loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(parameters, training.max_grad_norm or float("inf"))
    optimiser.step()
    seconds = time.perf_counter() - started
    model.zero_grad(set_to_none=True)
    model.eval()
    started = time.perf_counter()
    hypotheses = hypothesis(architecture, one)
    return Result(float(loss.detach()), float(norm), seconds, hypotheses, time.perf_counter() - started)


def hypothesis(architecture: Architecture, one: Features) -> dict[str, str]:
    """The model's text of one clip for each task, at most `NEW_TOKENS` tokens long."""
    tokens = min(NEW_TOKENS, longest_hypothesis(one["seconds"]))
    with torch.no_grad():
        decoded = architecture.decode(
            architecture.collate([one]),
            with_frame_decoder(architecture, DecodeOptions(max_new_tokens=tokens)),
        )
    return {task: rows[0].text for task, rows in decoded.items()}
