"""Chunked cross entropy over a large vocabulary against plain cross entropy: memory, time, equality.

    python benchmarks/large_vocabulary_loss.py --output outputs/benchmarks/large_vocabulary_loss.json

Plain is what stock models do: ``F.cross_entropy(F.linear(hidden, weight), labels)``. Both arms see the same
tensors and run forward and backward, for hidden states and weight. Times: interleaved in one process, median.
Memory: one fresh process for each arm, peak RSS less the RSS before (on CUDA also what the allocator says).
Where loss or gradients differ by more than `TOLERANCE`, no ratio is printed and the exit status is 1.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.nn.functional as F
from common import new_file

from training.models.common.losses import token_loss
from training.models.common.targets import IGNORED

TOLERANCE = 1e-5
MIB = 2**20
TIMES = ("seconds", "cpu_seconds")

Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def plain(inputs: Inputs, smoothing: float) -> torch.Tensor:
    hidden, weight, labels = inputs
    return F.cross_entropy(
        F.linear(hidden, weight), labels, reduction="sum", label_smoothing=smoothing, ignore_index=IGNORED
    )


def chunked(inputs: Inputs, smoothing: float) -> torch.Tensor:
    hidden, weight, labels = inputs
    return token_loss(hidden, weight, labels, smoothing=smoothing)


ARMS = {"plain": plain, "chunked": chunked}


def make_inputs(args: argparse.Namespace, ignored: float) -> Inputs:
    """hidden ``[tokens, width]``, weight ``[vocabulary, width]``, labels with that share ignored."""
    torch.manual_seed(0)
    weight = torch.empty(args.vocabulary, args.width, device=args.device).normal_(std=0.02)
    hidden = torch.empty(args.tokens, args.width, device=args.device).normal_()
    labels = torch.randint(args.vocabulary, (args.tokens,), device=args.device)
    labels[torch.rand(args.tokens, device=args.device) < ignored] = IGNORED
    return hidden.requires_grad_(), weight.requires_grad_(), labels


def step(arm: str, inputs: Inputs, smoothing: float) -> tuple[dict[str, float], list[torch.Tensor]]:
    """Forward and backward from empty gradients; its times, then loss and both gradients.

    ``cpu_seconds``, of all threads, say more than the clock where other work takes turns with this one.
    """
    inputs[0].grad = inputs[1].grad = None
    gc.collect()
    synchronise(inputs[0])
    start, cpu = time.perf_counter(), time.process_time()
    loss = ARMS[arm](inputs, smoothing) / len(inputs[2])  # as in training, where the factor is not one
    loss.backward()
    synchronise(inputs[0])
    times = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
    grads = [tensor.grad for tensor in inputs[:2] if tensor.grad is not None]
    return times, [loss.detach(), *grads]


def synchronise(tensor: torch.Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize()


def differences(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> dict[str, float]:
    """Of loss, hidden and weight gradient: largest difference over largest value, and that of the norms."""
    found = {}
    for name, a, b in zip(("loss", "hidden", "weight"), ours, theirs, strict=True):
        gap = a - b
        found[f"{name}_max"] = (gap.abs().max() / b.abs().max()).item()
        found[f"{name}_norm"] = (gap.norm() / b.norm()).item()
    return found


def measure_times(args: argparse.Namespace, smoothing: float, ignored: float) -> dict[str, Any]:
    inputs = make_inputs(args, ignored)
    times: dict[str, dict[str, list[float]]] = {kind: {arm: [] for arm in ARMS} for kind in TIMES}
    found = {arm: step(arm, inputs, smoothing)[1] for arm in ARMS}  # also the warm-up
    gaps = differences(found["chunked"], found["plain"])
    del found
    for _ in range(args.repeats):
        for arm in ARMS:
            for kind, value in step(arm, inputs, smoothing)[0].items():
                times[kind][arm].append(value)
    return {**times, "differences": gaps, "supervised": int((inputs[2] != IGNORED).sum())}


def peak_rss() -> int:
    """Largest resident set of this process so far, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux carries ru_maxrss over from the process that started this one
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS counts bytes


def measure_memory(args: argparse.Namespace) -> dict[str, int]:
    """Run in a fresh process: extra bytes of one forward and backward of ``args.memory_of``."""
    small = argparse.Namespace(**{**vars(args), "vocabulary": 100, "tokens": 8})
    step(args.memory_of, make_inputs(small, 0.0), 0.1)  # loads the libraries' kernels and workspaces
    inputs = make_inputs(args, args.ignored[0])
    before, peak_before = psutil.Process().memory_info().rss, peak_rss()
    if args.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        allocated = torch.cuda.memory_allocated()
    step(args.memory_of, inputs, args.smoothing[0])
    found = {"extra_rss": peak_rss() - before, "rss_before": before, "peak_before": peak_before}
    if args.device == "cuda":
        found["extra_cuda"] = torch.cuda.max_memory_allocated() - allocated
    return found


def memory_in_fresh_process(args: argparse.Namespace, arm: str, smoothing: float, ignored: float) -> Any:
    command = [sys.executable, __file__, "--memory_of", arm, "--device", args.device]
    for name in ("vocabulary", "tokens", "width", "threads"):
        command += [f"--{name}", str(getattr(args, name))]
    command += ["--smoothing", str(smoothing), "--ignored", str(ignored)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def compare(args: argparse.Namespace, smoothing: float, ignored: float) -> dict[str, Any]:
    case: dict[str, Any] = {"smoothing": smoothing, "ignored": ignored, "load_average": load_average()}
    case |= measure_times(args, smoothing, ignored)
    gc.collect()
    case["memory"] = {arm: memory_in_fresh_process(args, arm, smoothing, ignored) for arm in ARMS}
    case["equal"] = max(case["differences"].values()) <= TOLERANCE
    if case["equal"]:
        case |= ratios(case, "extra_cuda" if args.device == "cuda" else "extra_rss")
    return case


def ratios(case: dict[str, Any], memory: str) -> dict[str, Any]:
    """Chunked over plain: medians of the times, extra memory."""
    medians = {kind: {arm: statistics.median(times) for arm, times in case[kind].items()} for kind in TIMES}
    return {
        "medians": medians,
        "time_ratio": medians["seconds"]["chunked"] / medians["seconds"]["plain"],
        "cpu_time_ratio": medians["cpu_seconds"]["chunked"] / medians["cpu_seconds"]["plain"],
        "memory_ratio": case["memory"]["chunked"][memory] / case["memory"]["plain"][memory],
    }


def load_average() -> tuple[float, float, float] | None:
    return os.getloadavg() if hasattr(os, "getloadavg") else None


def machine(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if args.device == "cuda" else "cpu",
        "load_average": load_average(),
    }


def show(case: dict[str, Any]) -> None:
    name = f"smoothing {case['smoothing']:g}, {case['supervised']} supervised"
    worst = max(case["differences"].values())
    if not case["equal"]:
        print(f"{name}: NOT EQUAL ({worst:.1e} > {TOLERANCE:g}): no ratio\n{case['differences']}")
        return
    for arm in ARMS:
        memory = " ".join(f"{k} {v / MIB:,.0f} MiB" for k, v in case["memory"][arm].items() if "extra" in k)
        spread = f"{min(case['seconds'][arm]):.2f}–{max(case['seconds'][arm]):.2f}"
        clock, cpu = (case["medians"][kind][arm] for kind in TIMES)
        print(f"{name:34} {arm:8} {clock:7.2f} s ({spread})  CPU {cpu:6.2f} s  {memory}")
    print(
        f"{name:34} ratio    time {case['time_ratio']:.2f}  CPU {case['cpu_time_ratio']:.2f}  memory {case['memory_ratio']:.2f}  "
        f"largest relative difference {worst:.1e}",
        flush=True,
    )


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--vocabulary", type=int, default=250_054, help="mBART-50 has this many ids")
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--width", type=int, default=1024, help="of the hidden states (mBART-large: 1,024)")
    parser.add_argument("--smoothing", type=float, nargs="+", default=[0.0, 0.1])
    parser.add_argument("--ignored", type=float, nargs="+", default=[0.0, 1 / 3], help="share of the labels")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--output", type=new_file, help="JSON with every repeat")
    parser.add_argument("--memory_of", choices=sorted(ARMS), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    torch.set_num_threads(args.threads)
    if args.memory_of:
        print(json.dumps(measure_memory(args)))
        return 0
    result: dict[str, Any] = {"machine": machine(args), "tolerance": TOLERANCE, "cases": []}
    result |= {name: getattr(args, name) for name in ("vocabulary", "tokens", "width", "repeats")}
    for ignored in args.ignored:
        for smoothing in args.smoothing:
            result["cases"].append(compare(args, smoothing, ignored))
            show(result["cases"][-1])
    result["load_average_after"] = load_average()
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if all(case["equal"] for case in result["cases"]) else 1


if __name__ == "__main__":
    sys.exit(main())
