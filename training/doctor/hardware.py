"""GPU, torch's build, cores, memory and disk."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training.base.hub import cache_folder
from training.doctor.environment import program, version_of
from training.doctor.finding import Finding

GIB = 2**30
FEW_CORES, LITTLE_MEMORY, LITTLE_DISK = 2, 8 * GIB, 10 * GIB
"""Below these a note says what that means."""
DRIVER_SECONDS, TORCH_SECONDS = 10.0, 120.0
"""Time limits of the driver's program and of the import of torch, which can take long on a cold disk."""
ASK_TORCH = """
import json, torch
cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
gpus = [torch.cuda.get_device_properties(n) for n in range(torch.cuda.device_count())] if cuda else []
print(json.dumps({
    "version": torch.__version__, "cuda_build": torch.version.cuda, "hip_build": torch.version.hip,
    "cuda": cuda, "mps": mps, "threads": torch.get_num_threads(),
    "gpus": [{"name": g.name, "memory": g.total_memory, "major": g.major} for g in gpus],
}))
"""


def cores() -> Finding:
    """Cores that this process may use, and the bound of a container."""
    everything = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else everything
    quota = _cpu_quota()
    value = f"{usable} usable of {everything}" if usable != everything else f"{usable}"
    if quota is not None:
        value += f", the container may use {quota:g}"
    if min(usable, quota or usable) < FEW_CORES:
        return Finding(
            "cores", value, "note", "one core decodes sound and trains by turns: dataloader.num_workers=0"
        )
    return Finding("cores", value)


def _cpu_quota() -> float | None:
    """Cores that the control group (version 2) of a container allows; None where it sets no bound."""
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        return None


def memory() -> Finding:
    """Main memory; that of a container where it is bounded."""
    total = _memory_total()
    if total is None:
        return Finding("memory", "not known on this system")
    limit = _memory_limit()
    value = f"{total / GIB:.1f} GiB"
    if limit is not None and limit < total:
        value += f", the container may use {limit / GIB:.1f} GiB"
    if min(total, limit or total) < LITTLE_MEMORY:
        advice = "take --hardware cpu and a small model; polyvox train --dry_run plans the memory"
        return Finding("memory", value, "note", advice)
    return Finding("memory", value)


def _memory_total() -> int | None:
    try:
        import psutil

        return int(psutil.virtual_memory().total)
    except ImportError:
        try:
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (AttributeError, ValueError, OSError):
            return None


def _memory_limit() -> int | None:
    try:
        return int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def disk() -> Iterator[Finding]:
    """Free space here and where the hub's models are kept."""
    cache = cache_folder()
    places = {"disk, this folder": Path.cwd(), "disk, model cache": cache}
    for name, place in places.items():
        there = next((one for one in (place, *place.parents) if one.exists()), Path.cwd())
        free = shutil.disk_usage(there).free
        value = f"{free / GIB:.0f} GiB free ({place})"
        if free < LITTLE_DISK:
            advice = "free some space; a Whisper small with three checkpoints takes about 9 GiB"
            yield Finding(
                name,
                value,
                "note",
                advice if name.endswith("folder") else f"{advice}, or set HF_HOME elsewhere",
            )
        else:
            yield Finding(name, value)


def driver() -> Finding:
    """What the NVIDIA driver says, without torch."""
    command = program("nvidia-smi")
    if command is None:
        return Finding("NVIDIA driver", "none (no nvidia-smi)")
    query = [command, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=DRIVER_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(
            "NVIDIA driver", f"nvidia-smi does not answer ({error})", "note", "reinstall the driver"
        )
    if answer.returncode:
        said = (answer.stdout + answer.stderr).strip().partition("\n")[0]
        return Finding("NVIDIA driver", said, "note", "install the driver that fits the kernel, then reboot")
    return Finding("NVIDIA driver", "; ".join(answer.stdout.strip().splitlines()))


def torch_build() -> str | None:
    """``2.13.0+cpu``, ``2.13.0 (CUDA 12.8)``: read from torch's version file, without importing it."""
    version = version_of("torch")
    if version is None:
        return None
    import importlib.util

    spec = importlib.util.find_spec("torch")
    file = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    text = file.read_text(encoding="utf8") if file is not None and file.is_file() else ""
    cuda = re.search(r"^cuda[^=]*= '([\d.]+)'", text, re.MULTILINE)
    return f"{version} (CUDA {cuda[1]})" if cuda else version


def start_torch() -> subprocess.Popen[str]:
    """Ask torch in a process of its own: a broken installation ends that one."""
    return subprocess.Popen(
        [sys.executable, "-c", ASK_TORCH], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def torch(process: subprocess.Popen[str], gpu_in_driver: bool) -> Iterator[Finding]:
    """What the started process says: the build of torch and the devices that it can compute on."""
    build = torch_build()
    if build is None:
        process.kill()
        process.communicate()
        yield Finding(
            "torch",
            "not installed",
            "problem",
            "see https://pytorch.org/get-started/locally, then pip install polyvox",
        )
        return
    try:
        out, error = process.communicate(timeout=TORCH_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        yield Finding(
            "torch",
            f"{build}: import takes more than {TORCH_SECONDS:g} s",
            "note",
            "look at the disk; call again",
        )
        return
    if process.returncode:
        reason = (error.strip().splitlines() or ["no message"])[-1]
        yield Finding(
            "torch",
            f"{build}: cannot be imported ({reason})",
            "problem",
            "install it anew: pip install --force-reinstall torch",
        )
        return
    yield from _devices(build, json.loads(out.splitlines()[-1]), gpu_in_driver)


def _devices(build: str, said: dict[str, Any], gpu_in_driver: bool) -> Iterator[Finding]:
    yield Finding("torch", f"{build}, {said['threads']} threads")
    for number, gpu in enumerate(said["gpus"]):
        kind = "bf16" if gpu["major"] >= 8 else "no bf16: profile.precision=fp16"
        yield Finding(f"GPU {number}", f"{gpu['name']}, {gpu['memory'] / GIB:.0f} GiB, {kind}")
    if said["gpus"]:
        return
    if said["mps"]:
        yield Finding(
            "GPU", "Apple (mps)", advice="--hardware mps; see docs/training.md for what it cannot do"
        )
    elif gpu_in_driver and not said["cuda_build"] and not said["hip_build"]:
        advice = "install the CUDA build: pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu128"
        yield Finding("GPU", "the driver shows one, and this torch is built for CPUs", "note", advice)
    elif gpu_in_driver:
        advice = "update the driver, and look at CUDA_VISIBLE_DEVICES"
        yield Finding("GPU", "the driver shows one, and torch cannot use it", "note", advice)
    else:
        advice = (
            "small models train here too: --hardware cpu, configs/cpu_whisper.yaml, configs/demo_ctc.yaml"
        )
        yield Finding("GPU", "none", "note", advice)
