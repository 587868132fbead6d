"""Make or refresh the project's virtual environment: what run_dev, run_prod and the Makefile call first.

Runs under a bare Python, before anything is installed, so it uses the standard library alone. torch comes
first, because which build of it suits the machine has to be known before pip looks at the rest. A second
call compares a stamp and returns at once, without the network.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.base.errors import UserError, exit_on_user_error
from training.base.system_files import is_empty

ROOT = Path(__file__).resolve().parents[2]
SUPPORTED = ((3, 11), (3, 13))
"""First and last Python version that every pinned dependency has wheels for."""
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
STAMP, LOG = "polyvox.json", "install.log"
ACCELERATOR_PACKAGES = ("nvidia", "cuda", "triton", "pytorch-triton")
INPUTS = ("pyproject.toml", "constraints.txt")
CREDENTIALS = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^/\s?#]+@", re.IGNORECASE)
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the environment should hold."""

    venv: Path
    extras: frozenset[str]
    torch_index: str | None = field(repr=False)
    assume_yes: bool


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0: the environment stands; 1: pip failed; 2: the user has to decide or mend something."""
    args = _parser().parse_args(argv)
    wanted = Wanted(
        venv=args.venv.absolute(),
        extras=frozenset(filter(None, args.extras.split(","))),
        torch_index=os.environ.get("TORCH_INDEX_URL") or None,
        assume_yes=args.yes,
    )
    if args.title:
        print(args.title, flush=True)
    return prepare(wanted, _say)


def prepare(wanted: Wanted, say: Say) -> int:
    """Install what the stamp does not vouch for."""
    check_python(sys.version_info[:2], sys.executable)
    _mention_active(wanted.venv, say)
    stamp = read_stamp(wanted.venv)
    if is_current(stamp, wanted):
        say(f"{wanted.venv}: up to date")
        write_stamp(wanted.venv, stamp | {"last_seconds": 0.0})
        return 0
    started = time.monotonic()
    make_venv(wanted.venv, say)
    if not install(wanted, stamp, say):
        return 1
    write_stamp(wanted.venv, new_stamp(stamp, wanted) | {"last_seconds": time.monotonic() - started})
    return 0


def check_python(version: tuple[int, int], executable: str) -> None:
    """`UserError` where the running Python is not one that the dependencies support."""
    if not SUPPORTED[0] <= version <= SUPPORTED[1]:
        first, last = (".".join(map(str, one)) for one in SUPPORTED)
        raise UserError(
            f"{executable} is Python {version[0]}.{version[1]}; Polyvox needs {first} to {last}: install one "
            "of them, or name its executable in POLYVOX_PYTHON"
        )


def python_of(folder: Path) -> Path:
    """The interpreter of a virtual environment."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def fingerprint(root: Path = ROOT) -> str:
    """Hash of the files that say what is to be installed."""
    digest = hashlib.sha256()
    for name in INPUTS:
        digest.update(name.encode() + b"\0" + (root / name).read_bytes() + b"\0")
    return digest.hexdigest()


def read_stamp(folder: Path) -> dict[str, Any]:
    """What the last finished installation wrote; empty when there was none."""
    try:
        stamp = json.loads((folder / STAMP).read_text(encoding="utf8"))
    except (FileNotFoundError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(folder: Path, stamp: dict[str, Any]) -> None:
    """Written last and by renaming: an interrupted installation has no stamp that vouches for it."""
    stamp = stamp | {"torch_index": known_index(stamp.get("torch_index"))}
    partial = folder / f"{STAMP}.part"
    partial.write_text(json.dumps(stamp, indent=1), encoding="utf8")
    partial.replace(folder / STAMP)


def new_stamp(old: dict[str, Any], wanted: Wanted) -> dict[str, Any]:
    """The record of an installation. It keeps extras that were installed before, because pip removes nothing."""
    return {
        "inputs": fingerprint(),
        "root": str(ROOT),
        "python": f"{sys.version_info[0]}.{sys.version_info[1]}",
        "extras": sorted(wanted.extras | set(old.get("extras", ()))),
        "torch_index": known_index(wanted.torch_index) or old.get("torch_index"),
    }


def known_index(address: str | None) -> str | None:
    """How the stamp knows an index: without its user and password, of which it keeps a hash."""
    if address is None or (shown := without_credentials(address)) == address:
        return address
    return (
        f"{shown}#{hashlib.sha256(address.encode()).hexdigest()[:16]}" if "***@" not in address else address
    )


def without_credentials(text: str) -> str:
    """Addresses in the text show ``***`` in place of user, password or token."""
    return CREDENTIALS.sub(r"\1***@", text)


def is_current(stamp: dict[str, Any], wanted: Wanted) -> bool:
    """Whether nothing needs to be installed. Looks at files alone."""
    return (
        stamp.get("inputs") == fingerprint()
        and stamp.get("root") == str(ROOT)
        and wanted.extras <= set(stamp.get("extras", ()))
        and known_index(wanted.torch_index) in (None, stamp.get("torch_index"))
        and python_of(wanted.venv).exists()
    )


def make_venv(folder: Path, say: Say) -> None:
    """Make the environment, or use the one that is there; `UserError` where that is no usable one."""
    python = python_of(folder)
    if not python.exists():
        if folder.exists() and not is_empty(folder) and not (folder / "pyvenv.cfg").exists():
            raise UserError(f"{folder} is no virtual environment; name another folder in POLYVOX_VENV")
        say(f"making {folder} with Python {sys.version_info[0]}.{sys.version_info[1]}")
        venv.create(folder, with_pip=True)
        return
    question = "import sys; print(*sys.version_info[:2])"
    answer = subprocess.run([python, "-c", question], capture_output=True, text=True, check=False)
    if answer.returncode:
        raise UserError(f"{python} does not run ({answer.stderr.strip()}); remove {folder} and call again")
    major, minor = map(int, answer.stdout.split())
    check_python((major, minor), str(python))


def install(wanted: Wanted, stamp: dict[str, Any], say: Say) -> bool:
    """pip itself, torch, then the rest at the pinned versions; False when pip failed (the reason is printed)."""
    pins = pinned(ROOT / "constraints.txt")
    pip = Pip(python_of(wanted.venv), wanted.venv / LOG, say)
    if not pip.install([f"pip=={pins['pip']}"], "pip"):
        return False
    switched = known_index(wanted.torch_index) not in (None, stamp.get("torch_index"))
    if (switched or not pip.has("torch", pins["torch"])) and not install_torch(pip, pins["torch"], wanted):
        return False
    extras = f"[{','.join(sorted(wanted.extras))}]" if wanted.extras else ""
    constraints = ["-c", str(ROOT / "constraints.txt")]
    return pip.install([*constraints, "-e", f"{ROOT}{extras}"], "the other packages")


def pinned(constraints: Path) -> dict[str, str]:
    """Package → version of a constraints file."""
    lines = (line.split("#")[0].split(";")[0].strip() for line in constraints.read_text("utf8").splitlines())
    return dict(line.split("==", 1) for line in lines if "==" in line)


def install_torch(pip: Pip, version: str, wanted: Wanted) -> bool:
    """torch at its pinned version from the index that suits the machine (see `choose_index`)."""
    index = wanted.torch_index
    if index is None and not has_nvidia_gpu():
        index = choose_index(pip.accelerator_packages(f"torch=={version}"), version, wanted.assume_yes)
    source = ["--index-url", index] if index else []
    # Its dependencies come with the rest: an index of torch alone has not got them at the pinned versions.
    replace = ["--force-reinstall"] if wanted.torch_index else []
    if pip.install(["--no-deps", *replace, *source, f"torch=={version}"], f"torch {version}"):
        return True
    if index:
        pip.say(
            f"torch was looked for on {without_credentials(index)}; another index can be named in TORCH_INDEX_URL"
        )
    return False


def choose_index(heavy: Sequence[str], version: str, assume_yes: bool) -> str | None:
    """Where torch comes from on a machine without a GPU; None: pip's own index, whose build is a light one.

    Raises `UserError` when CUDA packages would come and nobody is there to decide.
    """
    if not heavy:
        return None
    problem = (
        f"this machine shows no NVIDIA GPU, and torch {version} from pip's index brings {len(heavy)} CUDA "
        f"packages, several gigabytes ({', '.join(heavy[:3])}, …)"
    )
    if not assume_yes and not ask(f"{problem}.\nInstall the CPU build from {CPU_INDEX} instead? [y/N] "):
        raise UserError(
            f"{problem}; decide with --yes (the CPU build from {CPU_INDEX}), or name an index in "
            f"TORCH_INDEX_URL, e.g. TORCH_INDEX_URL={CPU_INDEX} (CPU) or https://pypi.org/simple (CUDA)"
        )
    return CPU_INDEX


def ask(question: str) -> bool:
    """The answer of the person at the terminal; no, where there is none."""
    if not (sys.stdin and sys.stdin.isatty()):
        return False
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        return False


def has_nvidia_gpu() -> bool:
    """Whether the driver lists a GPU. Cheap, and needs nothing installed."""
    command = shutil.which("nvidia-smi")
    if command is None:
        devices = Path("/proc/driver/nvidia/gpus")
        return devices.is_dir() and any(devices.iterdir())
    try:
        listed = subprocess.run([command, "-L"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.returncode == 0 and "GPU" in listed.stdout


class Pip:
    """pip of the environment: quiet on screen, everything in its log."""

    def __init__(self, python: Path, log: Path, say: Say):
        self.python, self.log, self.say = python, log, say
        self.environment = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
        self.environment["PYTHONUNBUFFERED"] = "1"

    def has(self, name: str, version: str) -> bool:
        """Whether the package is installed at this version, of whatever build (``2.13.0+cpu``)."""
        code = f"from importlib.metadata import version; print(version({name!r}))"
        found = subprocess.run([self.python, "-c", code], capture_output=True, text=True, check=False)
        return found.returncode == 0 and found.stdout.strip().split("+")[0] == version

    def install(self, arguments: Iterable[str], what: str) -> bool:
        """``pip install``; progress in one line, the end of pip's words where it fails."""
        command = [str(self.python), "-m", "pip", "install", "--progress-bar", "off", *arguments]
        status, lines = Status(what, self.say), []
        with self.log.open("a", encoding="utf8") as log:
            log.write(f"\n$ {without_credentials(subprocess.list2cmdline(command))}\n")
            process = subprocess.Popen(
                command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf8",
                errors="replace",
            )
            assert process.stdout is not None
            for line in map(without_credentials, process.stdout):
                log.write(line)
                lines.append(line.rstrip())
                status.line(line.strip())
        if process.wait() == 0:
            status.done()
            return True
        status.clear()
        self.say("\n  ".join([f"pip could not install {what} (all of it in {self.log}):", *lines[-8:]]))
        return False

    def accelerator_packages(self, requirement: str) -> list[str]:
        """CUDA packages among what the requirement depends on here. Reads metadata, downloads no wheel."""
        report = self.log.with_name("torch-report.json")
        # Without fast-deps, an index that serves no metadata of its own makes pip fetch the whole wheel.
        look = [
            "--dry-run",
            "--quiet",
            "--ignore-installed",
            "--no-deps",
            "--use-feature=fast-deps",
            "--report",
        ]
        command = [str(self.python), "-m", "pip", "install", *look, str(report), requirement]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UserError(
                f"pip finds no {requirement} here; is there a network?\n"
                f"{without_credentials(done.stderr).strip()[-600:]}"
            )
        found = json.loads(report.read_text(encoding="utf8"))["install"]
        report.unlink()
        needs = [need for item in found for need in item["metadata"].get("requires_dist", [])]
        return [name for name in self._active(needs) if name.startswith(ACCELERATOR_PACKAGES)]

    def _active(self, requirements: list[str]) -> list[str]:
        """Names of the requirements whose markers hold in the environment."""
        code = (
            "import json, sys; from pip._vendor.packaging.requirements import Requirement as R; "
            "print(json.dumps([r.name.lower() for r in map(R, json.load(sys.stdin)) "
            "if r.marker is None or r.marker.evaluate({'extra': ''})]))"
        )
        command = [str(self.python), "-c", code]
        done = subprocess.run(
            command, input=json.dumps(requirements), capture_output=True, text=True, check=True
        )
        return list(json.loads(done.stdout))


class Status:
    """One line that is rewritten on a terminal; in a log, a line at the start and at the end."""

    def __init__(self, what: str, say: Say):
        self.what, self.say, self.started = what, say, time.monotonic()
        self.terminal = sys.stdout.isatty()
        self.count = 0
        if not self.terminal:
            say(f"{what} …")

    def line(self, text: str) -> None:
        """A line of pip's output."""
        words = text.split()
        if not self.terminal or not words or words[0] not in ("Collecting", "Downloading", "Installing"):
            return
        self.count += words[0] == "Collecting"
        detail = f"installing {len(words) - 3} packages" if words[0] == "Installing" else " ".join(words[:3])
        width = shutil.get_terminal_size().columns - 1
        print(f"\r\x1b[2K{f'  {self.what}: [{self.count}] {detail}'[:width]}", end="", flush=True)

    def clear(self) -> None:
        """Remove the line."""
        if self.terminal:
            print("\r\x1b[2K", end="", flush=True)

    def done(self) -> None:
        """Say how long it took."""
        self.clear()
        self.say(f"{self.what}: installed in {time.monotonic() - self.started:.0f} s")


def _mention_active(folder: Path, say: Say) -> None:
    active = os.environ.get("VIRTUAL_ENV") or os.environ.get("CONDA_PREFIX")
    if active and Path(active).resolve() != folder.resolve():
        say(f"{active} is active and left alone; {folder} is used (POLYVOX_VENV={active} would use it)")


def _say(text: str) -> None:
    print(f"  {text}", flush=True)


def _parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(prog="environment", description=__doc__)
    place = Path(os.environ.get("POLYVOX_VENV") or ROOT / ".venv")
    result.add_argument("--venv", type=Path, default=place, help="folder (default: POLYVOX_VENV, or .venv)")
    result.add_argument(
        "--extras", default="demo,lora", help="optional parts of the project, comma-separated"
    )
    result.add_argument("--yes", action="store_true", help="answer yes to the question about torch's build")
    result.add_argument("--title", default="", help="line to print first")
    return result


if __name__ == "__main__":
    exit_on_user_error(main, stopped="\nstopped; the next call goes on")
