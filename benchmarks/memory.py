"""The memory plan of a dry run against real training steps, and the largest model and batch under caps on a GPU.

    python benchmarks/memory.py [key=value …] [--caps 4 8 16] [--output memory.json]   # where there is a GPU
    python benchmarks/memory.py [--cases "demo_whisper, 12 × 10 s" …]                    # on a CPU

GPU: for every cap (GB of a whole card, of which the CUDA context takes its part) and every Whisper size, trained whole
and with LoRA under the settings of dev_whisper (``key=value`` changes them), the largest batch whose training steps
run, found by doubling and bisection in a process of its own whose share of the GPU is held by
``torch.cuda.set_per_process_memory_fraction``. Clips are the dry run's worst case without data: 30 s, ten label tokens
a second. Steps are real: weights at random, autocast, gradient checkpointing, two accumulated batches, clipping, AdamW.
Beside the peak of that batch stands the dry run's plan: its tensors against ``max_memory_allocated``, its sum against
``max_memory_reserved``. A size is not tried once a smaller one has not fitted. ``--device cpu`` does the same search in
float32 with the peak that torch's allocator had given out, for whoever has no GPU.

CPU (what runs where there is no GPU): whole steps of AdamW on made-up clips at the models' real sizes. Two figures are
measured beside the weights. Tensors: the most that torch's allocator had given out at once during a step (its
profiler's records); this is what the plan counts. Resident: the highest resident memory of two steps (``VmHWM``, set
back before them) less what the process held with model and batch in place; against it stands the plan with its share
for malloc. Linux only.
"""

from __future__ import annotations

import argparse
import gc
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import common

from training.base.errors import UserError, exit_on_user_error

MIB, GIB = 2**20, 2**30
WANTED = 0.10
"""Largest share by which the plan may miss the measured peak."""
SIZES = ("whisper-tiny", "whisper-base", "whisper-small", "whisper-medium", "whisper-large-v3")
MODES = ("all", "lora")
MOST_ROWS = 4096
CASES: dict[str, dict[str, Any]] = {
    "demo_whisper, 12 × 10 s": {"config": "demo_whisper", "rows": 12, "seconds": 10},
    "demo_e2e, 8 × 10 s": {"config": "demo_e2e", "rows": 8, "seconds": 10},
    "whisper-tiny, 8 × 10 s": {
        "config": "dev_whisper",
        "rows": 8,
        "seconds": 10,
        "overrides": ["training.gradient_checkpointing=false"],
    },
    "whisper-tiny, 8 × 10 s, checkpointing": {"config": "dev_whisper", "rows": 8, "seconds": 10},
    "wav2vec2-base + mBART-large-50, lna, 2 × 8 s": {"config": "dev_e2e", "rows": 2, "seconds": 8},
    "wav2vec2-base trained + mBART-large-50, 1 × 8 s": {
        "config": "dev_e2e",
        "rows": 1,
        "seconds": 8,
        "overrides": ["training.freeze_encoder=false", "training.gradient_checkpointing=false"],
    },
}


# Real steps


def real_model(config: Any, architecture: Any, device: str) -> Any:
    """What learns of the architecture's model, with random weights, as training has it; nothing in it is left to chance."""
    import torch

    from training.engine.run import learning_part

    with torch.device(device):
        whole = type(architecture.model)(architecture.model.config)
    model, _ = learning_part(config, replace(architecture, model=whole))
    for module in model.modules():
        settings = getattr(module, "config", None)
        if hasattr(settings, "layerdrop"):
            settings.layerdrop = 0.0
        if hasattr(settings, "apply_spec_augment"):
            settings.apply_spec_augment = False
    if config.training.gradient_checkpointing:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    return model


def stepper(config: Any, model: Any, batch: dict[str, Any], device: str) -> tuple[Callable[[], None], Any]:
    """One optimiser step as the trainer makes it, over two batches where it accumulates; and the optimiser."""
    import torch

    from training.config.agreement import precision
    from training.models.batch import model_inputs
    from training.planning.fake_step import DTYPES

    dtype, passes = DTYPES[precision(config)], min(2, config.training.gradient_accumulation_steps)
    learning = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(learning, lr=1e-5, fused=True)
    scaler = torch.amp.GradScaler(device, init_scale=1.0, enabled=dtype is torch.float16)
    inputs = model_inputs(batch)
    reduced = dtype is not torch.float32

    def step() -> None:
        for _ in range(passes):
            here = {name: v.to(device) if torch.is_tensor(v) else v for name, v in inputs.items()}
            with torch.autocast(device, dtype if reduced else torch.bfloat16, enabled=reduced):
                loss = model(**here).loss
            scaler.scale(loss / passes).backward()
        scaler.unscale_(optimiser)
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        scaler.step(optimiser)
        scaler.update()
        optimiser.zero_grad(set_to_none=True)

    return step, optimiser


def allocated(step: Callable[[], None]) -> int:
    """The most bytes that torch's CPU allocator had given out at once during the step, beyond those before it."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    records = profiler.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), i, e.nbytes()) for i, e in enumerate(records) if e.name() == "[memory]")
    live = peak = 0
    for _, _, size in changes:
        live += size
        peak = max(peak, live)
    return peak


# Cases on the CPU


def measure(case: dict[str, Any]) -> common.Figures:
    """Planned and measured bytes of one case, in this process."""
    import torch

    from training.config.load import load_config
    from training.engine.run import learning_part
    from training.models.architecture import BuildContext
    from training.models.lookup import load
    from training.planning import memory, worst_case
    from training.planning.fake_step import FakeModel
    from training.planning.texts import stand_in_texts

    torch.set_num_threads(int(case.get("threads", 1)))
    one_batch = "training.gradient_accumulation_steps=1"
    overrides = ["profile.device=cpu", "profile.precision=fp32", one_batch, *case.get("overrides", [])]
    config = load_config(common.ROOT / "configs" / f"{case['config']}.yaml", overrides)
    scratch = getattr(config.model, "sizes", None) is not None
    context = BuildContext(texts=(lambda: stand_in_texts(config)) if scratch else None, meta=True)
    architecture = load(config.model.type).build(config.model, context)  # type: ignore[union-attr]
    real = real_model(config, architecture, "cpu")
    model, _ = learning_part(config, architecture)
    # Clips of unequal length, as in life: masks that hide nothing are left out by transformers.
    longest, other = (
        worst_case.synthetic_features(architecture, share * case["seconds"]) for share in (1.0, 0.9)
    )
    batch = architecture.collate([longest, *[other] * (case["rows"] - 1)])
    checkpointing = config.training.gradient_checkpointing
    fake_model = FakeModel(model, cuda=False, precision="fp32", checkpointing=checkpointing)
    states, _ = memory.optimiser_bytes(model, memory.optimiser(config))
    tensors = fake_model.step(batch, accumulated=False).peak
    step, _ = stepper(config, real, batch, "cpu")
    resident = resident_bytes(step)  # first: the step that makes the optimiser's states is one of its two
    return {
        "tensors": {"planned": tensors, "measured": allocated(step)},
        "resident": {"planned": states + int(tensors * (1 + memory.HEAP)), "measured": resident},
    }


def resident_bytes(step: Callable[[], None]) -> int:
    """Bytes by which two real steps raise this process's resident memory."""
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    step()
    step()
    return _status("VmHWM") - before


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"this system does not report {key}")


# The largest batch under a cap


@dataclass(frozen=True)
class Search:
    """A model, what of it learns, and the memory that it may have: ``cap`` GB of a card."""

    size: str
    mode: str
    cap: float
    device: str
    overrides: tuple[str, ...] = ()

    def config(self, rows: int = 1) -> Any:
        """dev_whisper with this model and batches of so many clips."""
        from training.config.load import load_config

        here = [] if self.device == "cuda" else ["profile.precision=fp32"]
        return load_config(
            common.ROOT / "configs" / "dev_whisper.yaml",
            [
                f"model.name=openai/{self.size}",
                f"training.trainable={self.mode}",
                f"training.batch_size={rows}",
                "training.eval_strategy=no",
                "training.load_best_model_at_end=false",
                f"profile.memory_gb={self.cap:g}",
                f"profile.device={self.device}",
                *here,
                *self.overrides,
            ],
        )


def most(fits: Callable[[int], bool], limit: int = MOST_ROWS) -> int:
    """The largest number up to ``limit`` that fits, 0 where 1 does not; what is above one that does not fit does not."""
    good, bad = 0, 1
    while bad <= limit and fits(bad):
        good, bad = bad, 2 * bad
    bad = min(bad, limit + 1)
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


def largest(search: Search) -> common.Figures:
    """The largest batch that trains, its peaks in bytes and the plan's; in this process."""
    import torch

    from training.models.architecture import BuildContext
    from training.models.lookup import load
    from training.planning import worst_case

    config = search.config()
    architecture = load("whisper").build(config.model, BuildContext(meta=True))
    room = hold(search)
    try:
        model = real_model(config, architecture, search.device)
    except torch.OutOfMemoryError:
        return {"rows": 0}
    peaks: dict[int, dict[str, int]] = {}

    def fits(rows: int) -> bool:
        there = search.config(rows)
        batch = worst_case.load(there, architecture, worst_case.assumed(there)).train
        found = peak(there, model, batch, search.device)
        if found is not None and found["allocated"] <= room:
            peaks[rows] = found
        return rows in peaks

    rows = most(fits)
    if not rows:
        return {"rows": 0}
    return {"rows": rows, "measured": peaks[rows], "planned": planned(search, rows)}


def hold(search: Search) -> int:
    """Bytes that tensors may take; on a GPU its allocator gives no more from now on."""
    import torch

    from training.planning.memory import CUDA_CONTEXT

    if search.device == "cpu":
        return int(search.cap * GIB)
    room = int(search.cap * GIB) - CUDA_CONTEXT
    total = torch.cuda.get_device_properties(0).total_memory
    if room > total:
        raise UserError(f"--caps: {search.cap:g} GB are more than this GPU has")
    torch.cuda.set_per_process_memory_fraction(room / total)
    return room


def peak(config: Any, model: Any, batch: dict[str, Any], device: str) -> dict[str, int] | None:
    """Bytes at the worst moment of three optimiser steps, the first of which makes the states; None: out of memory."""
    import torch

    try:
        step, optimiser = stepper(config, model, batch, device)
        found = cuda_peak(step) if device == "cuda" else cpu_peak(step, model, optimiser)
        assert optimiser.state, "no step was taken: the gradients were not finite"
        return found
    except torch.OutOfMemoryError:
        return None
    finally:
        model.zero_grad(set_to_none=True)


def cuda_peak(step: Callable[[], None]) -> dict[str, int]:
    """What torch had given out at once, and what it had taken from the GPU for that."""
    import torch

    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    for _ in range(3):
        step()
    torch.cuda.synchronize()
    return {
        "allocated": torch.cuda.max_memory_allocated(),
        "reserved": torch.cuda.max_memory_reserved(),
    }


def cpu_peak(step: Callable[[], None], model: Any, optimiser: Any) -> dict[str, int]:
    """Weights, states, and the most that a step takes beside them."""
    import torch

    step()
    states = [v for state in optimiser.state.values() for v in state.values() if torch.is_tensor(v)]
    tensors = {t.untyped_storage().data_ptr(): t for t in [*model.parameters(), *model.buffers(), *states]}
    return {"allocated": allocated(step) + sum(t.numel() * t.element_size() for t in tensors.values())}


def planned(search: Search, rows: int) -> dict[str, int]:
    """The dry run's plan of this batch: bytes of tensors, and of all that the allocator takes for them."""
    from training.engine.run import learning_part
    from training.models.architecture import BuildContext
    from training.models.lookup import load
    from training.planning import memory, worst_case

    config = search.config(rows)
    architecture = load("whisper").build(config.model, BuildContext(meta=True))
    batch = worst_case.load(config, architecture, worst_case.assumed(config)).train
    model, _ = learning_part(config, architecture)
    plan = memory.make_plan(config, architecture, model, memory.Load(train=batch))
    return {"allocated": plan.tensors} | ({"reserved": plan.total} if search.device == "cuda" else {})


# Processes and tables


def in_own_process(option: str, what: str) -> common.Figures:
    """What this script's hidden ``option`` prints, in a fresh process."""
    return common.child(__file__, option, what)


def off(planned: float, measured: float) -> float:
    """By which share the plan is above (positive) or below what was measured."""
    return planned / measured - 1


def run_cases(cases: Sequence[str], repeats: int) -> list[common.Round]:
    """All cases in turns, and their table (the first round's)."""
    rounds = common.in_turns({n: lambda _, n=n: in_own_process("--child", n) for n in cases}, repeats)
    head = [
        "case",
        *(f"{kind} {what}" for kind in ("tensors", "resident") for what in ("planned", "measured", "off")),
    ]
    lines = []
    for name, found in rounds[0].arms.items():
        cells = [
            f"{found[kind][what] / MIB:.0f}" if what != "off" else f"{off(**found[kind]):+.1%}"
            for kind in ("tensors", "resident")
            for what in ("planned", "measured", "off")
        ]
        lines.append([name, *cells])
    print(f"{common.table(head, lines)}\nMiB beside the weights")
    return rounds


def run_searches(args: argparse.Namespace, device: str) -> tuple[common.Round, list[str]]:
    """The largest batch of every size, mode and cap; and which plans miss by more than `WANTED`."""
    arms: dict[str, Callable[[int], common.Figures]] = {}
    for cap in args.caps:
        for mode in args.modes:
            too_large: list[str] = []
            for size in args.sizes:
                search = Search(size, mode, cap, device, tuple(args.overrides))
                arms[f"{cap:g} GB, {size}, {mode}"] = partial(search_unless, search, too_large)
    (one,) = common.in_turns(arms, 1)
    print(common.table(SEARCH_HEAD, [search_cells(name, found) for name, found in one.arms.items()]))
    missed = [
        name for name, found in one.arms.items() if max(map(abs, misses(found).values()), default=0) > WANTED
    ]
    print(f"plan off by more than {WANTED:.0%}: {'; '.join(missed) or 'none'}")
    return one, missed


def search_unless(search: Search, too_large: list[str], _: int) -> common.Figures:
    """`largest` in a process of its own, unless a smaller size did not fit already."""
    if too_large:
        return {"rows": 0, "not_tried": f"{too_large[0]} does not fit"}
    try:
        found = in_own_process("--search", json.dumps(asdict(search)))
    except UserError as error:  # the other searches take minutes and stay of use
        return {"rows": 0, "failed": str(error)}
    if not found["rows"]:
        too_large.append(search.size)
    return found


SEARCH_HEAD = (
    "cap, model, learns",
    "batch of 30 s",
    "allocated MiB",
    "planned",
    "off",
    "reserved MiB",
    "planned",
    "off",
)


def search_cells(name: str, found: common.Figures) -> list[str]:
    """A line of the searches' table."""
    if not found["rows"]:
        why = "failed" if "failed" in found else found.get("not_tried", "does not fit")
        return [name, why, *["-"] * 6]
    cells = [name, str(found["rows"])]
    for kind in ("allocated", "reserved"):
        if kind not in found["measured"]:
            cells += ["-"] * 3
            continue
        there, plan = found["measured"][kind], found["planned"][kind]
        cells += [f"{there / MIB:.0f}", f"{plan / MIB:.0f}", f"{off(plan, there):+.1%}"]
    return cells


def misses(found: common.Figures) -> dict[str, float]:
    """How far the plan is off, by kind of bytes."""
    return {kind: off(found["planned"][kind], there) for kind, there in found.get("measured", {}).items()}


def main(argv: Sequence[str] | None = None) -> int:
    """0, also where a plan misses: what is off stands in the table; 1 where a search failed."""
    args = parsed(argv)
    if args.child is not None:
        print(json.dumps(measure(CASES[args.child])))
        return 0
    if args.search is not None:
        print(json.dumps(largest(parsed_search(args.search))))
        return 0
    device = args.device or ("cuda" if has_gpu() else None)
    cases = args.cases if args.cases is not None else ([] if device else list(CASES))
    rounds = run_cases(cases, args.repeats) if cases else []
    if device is None:
        print("largest model and batch under caps: not measured: no GPU")
        return common.finish(args.output, args, rounds, searches="not measured: no GPU")
    one, missed = run_searches(args, device)
    failures = [found["failed"] for found in one.arms.values() if "failed" in found]
    return common.finish(args.output, args, [*rounds, one], failures, plan_off=missed)


def parsed_search(text: str) -> Search:
    """A `Search` from the JSON that a child process is given."""
    found = json.loads(text)
    return Search(**{**found, "overrides": tuple(found["overrides"])})


def has_gpu() -> bool:
    """Whether torch sees one."""
    import torch

    return torch.cuda.is_available()


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command's options."""
    parser = common.command_line(__doc__, repeats=1)
    parser.add_argument("--cases", nargs="*", choices=CASES, help="on the CPU (all where there is no GPU)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="search the largest batches there")
    parser.add_argument("--caps", type=float, nargs="+", default=[4, 8, 16], help="GB of a card (4 8 16)")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=SIZES, help="smallest first")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES, help="what learns")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--search", help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of dev_whisper in the searches")
    return parser.parse_args(argv)


if __name__ == "__main__":
    exit_on_user_error(main)
