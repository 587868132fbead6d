"""How far the memory plan is off: planned against measured peaks of real training steps on the CPU, in float32.

    python benchmarks/memory_plan.py [--output memory_plan.json] [--cases whisper-tiny …]

Each case runs in a process of its own: the model at its real size with random weights, whole steps of AdamW on
made-up clips. Two figures are measured beside the weights. Tensors: the most that torch's allocator had given out
at once during a step (its profiler's records); this is what the plan counts. Resident: the highest resident memory
of two steps (``VmHWM``, set back before them) less what the process held with model and batch in place; against
it stands the plan with its share for malloc. Linux only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

MIB = 2**20
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


def measure(case: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Planned and measured bytes of one case, in this process."""
    import torch

    from training import memory, worst_case
    from training.config.load import load_config
    from training.dry_run import stand_in_texts
    from training.memory import optimiser_bytes
    from training.models import BuildContext, load
    from training.phantom import Phantom
    from training.run import learning_part

    torch.set_num_threads(int(case.get("threads", 1)))
    root = Path(__file__).resolve().parents[1]
    overrides = ["profile.device=cpu", "profile.precision=fp32", *case.get("overrides", [])]
    config = load_config(root / "configs" / f"{case['config']}.yaml", overrides)
    scratch = getattr(config.model, "sizes", None) is not None
    context = BuildContext(texts=(lambda: stand_in_texts(config)) if scratch else None, meta=True)
    bundle = load(config.model.type).build(config.model, context)  # type: ignore[union-attr]
    model, _ = learning_part(config, bundle)
    # Clips of unequal length, as in life: masks that hide nothing are left out by transformers.
    longest, other = (worst_case.synthetic_features(bundle, share * case["seconds"]) for share in (1.0, 0.9))
    batch = bundle.collate([longest, *[other] * (case["rows"] - 1)])
    checkpointing = config.training.gradient_checkpointing
    phantom = Phantom(model, cuda=False, precision="fp32", checkpointing=checkpointing)
    states, _ = optimiser_bytes(model, memory.optimiser(config))
    tensors = phantom.step(batch, accumulated=False).peak
    resident, allocated = _steps(model, batch, checkpointing)
    planned = {"tensors": tensors, "resident": states + int(tensors * (1 + memory.HEAP))}
    measured = {"tensors": allocated, "resident": resident}
    return {
        "planned": planned,
        "measured": measured,
        "off": {k: planned[k] / measured[k] - 1 for k in planned},
    }


def _steps(model: Any, batch: dict[str, Any], checkpointing: bool) -> tuple[int, int]:
    """Bytes by which two real steps raise this process's resident memory, and that a third takes from the allocator."""
    import torch

    from training.models import model_inputs

    real = type(model)(model.config)
    for ours, theirs in zip(real.parameters(), model.parameters(), strict=True):
        ours.requires_grad = theirs.requires_grad
    for module in real.modules():
        settings = getattr(module, "config", None)
        if hasattr(settings, "layerdrop"):
            settings.layerdrop = 0.0
        if hasattr(settings, "apply_spec_augment"):
            settings.apply_spec_augment = False
    if checkpointing:
        real.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    real.train()
    optimiser = torch.optim.AdamW((p for p in real.parameters() if p.requires_grad), lr=1e-5, fused=True)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

    def step() -> None:
        real(**model_inputs(batch)).loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    step()
    step()
    resident = _status("VmHWM") - before
    return resident, _allocated(step)


def _allocated(step: Callable[[], None]) -> int:
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


def _cells(result: dict[str, Any], kind: str, width: int) -> str:
    planned, measured = result["planned"][kind] / MIB, result["measured"][kind] / MIB
    return f"{planned:{width}.0f}  {measured:8.0f}  {result['off'][kind]:+7.1%}"


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"this system does not report {key}")


def main() -> int:
    """Measure every case in its own process; print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=None)
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--child", default=None, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child is not None:
        print(json.dumps(measure(CASES[args.child])))
        return 0
    results = {}
    width = max(map(len, args.cases))
    columns = "tensors: planned  measured      off   resident: planned  measured      off   (MiB beside the weights)"
    print(f"{'case':<{width}}  {columns}")
    for name in args.cases:
        command = [sys.executable, __file__, "--child", name]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        result = json.loads(done.stdout.splitlines()[-1])
        results[name] = result
        print(
            f"{name:<{width}}  {_cells(result, 'tensors', 16)}  {_cells(result, 'resident', 18)}", flush=True
        )
    if args.output is not None:
        args.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
