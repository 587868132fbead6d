"""What the commands do with small data, recorded to the last bit; and what of it differs after the code has changed.

    python benchmarks/behaviour.py record --output before
    (change the code; on the same machine, with the same packages:)
    python benchmarks/behaviour.py record --output after
    python benchmarks/behaviour.py compare before after

``record`` synthesises small corpora. It then runs every demo and digits configuration of ``configs/``, and tiny
models of other settings, by ``python -m training.cli …`` alone and with one thread. It imports nothing of the
package, so that the same script runs before and after modules move. It writes one ``NAME.json`` per case:

    first_weights       digest of each tensor (SHA-256 of its type, shape and bytes) after a step of learning rate 0
    losses              loss, gradient norm and learning rate of every step, in full precision
    checkpoint_scores   what the trainer's evaluations on the dev split gave
    results             what ``train_results.json`` says of the data, the steps, the parameters and the best checkpoint
    last_weights        digest of each tensor of the newest checkpoint: model, optimiser, random numbers
    kept_weights        digest of each tensor of the model that the run leaves, of its best step
    scores, hypotheses  ``polyvox evaluate`` on the test split, once for each evaluation that the case names
    transcripts         ``polyvox transcribe`` of a clip and of a recording of several clips
    dry_run             what ``--dry_run`` prints; seconds and what Python itself takes in memory are masked
    config              the run's ``config.yaml``, loaded

``corpora.json`` has digests of the corpora's files. ``about.json`` has the commit, the versions, the processor and
the CPU seconds of each case; it is not compared. A case that starts from another one's model runs that one first.

``compare`` prints one line per case and quantity: ``equal``, or ``differs`` and what. Keys of ``config.yaml`` that are
at another place with the same value are listed as moved and do not count as a difference. Exit status: 0 all equal,
1 something differs or is missing, 2 a mistake in the call.

Two recordings of the same code are equal. To show this, make two and compare them. Numbers of two machines differ in
their last digits. All the cases take about ten minutes of one core (see ``about.json``) and no network.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import soundfile
import yaml
from behaviour_cases import CASES, ROOT, STILL, TINY, Case, chosen, folder_of, unlisted
from behaviour_compare import ABOUT, Record, compare, load

CORPORA = "corpora"
PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "peft")

# Commands


class Failed(Exception):
    """A command of the recording did not end well; its words."""


def polyvox(work: Path, *words: object) -> str:
    """What ``polyvox …`` prints, run in the folder ``work`` with one thread and without a network."""
    single = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    offline = dict.fromkeys(("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"), "1")
    fixed = {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf8", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-m", "training.cli", *map(str, words)]
    environment = {**os.environ, **single, **offline, **fixed}
    done = subprocess.run(
        command, cwd=work, env=environment, capture_output=True, text=True, encoding="utf8", check=False
    )
    if done.returncode:
        told = " ".join(map(str, words))
        raise Failed(
            f"polyvox {told}: exit status {done.returncode}\n{done.stdout[-1000:]}{done.stderr[-3000:]}"
        )
    return done.stdout


def train(work: Path, case: Case, *flags: str, changed: Mapping[str, Any] = MappingProxyType({})) -> str:
    """What ``polyvox train`` of a case prints; ``changed``: keys that are other than the case says."""
    path = ROOT / "configs" / f"{case.config}.yaml"
    if "\n" in case.config:
        path = work / f"{case.name}.yaml"
        path.write_text(TINY.format(root=ROOT) + case.config, encoding="utf8")
    settings = {
        "training.max_steps": case.steps,
        "training.logging_steps": 1,
        "training.cpu_threads": 1,
        "output.dir": f"outputs/{case.name}",
        "output.experiment_name": case.name,
        **case.overrides,
        **changed,
    }
    return polyvox(
        work, "train", "--config", path, *flags, *(f"{key}={value}" for key, value in settings.items())
    )


# Corpora


def make_corpora(work: Path) -> None:
    """Some minutes of each demo corpus, cleaned and split as the demo does it; digits; a recording of each."""
    polyvox(work, "demo-data", "--minutes", 6)
    polyvox(work, "preprocess", "--input", "data/export/manifest.tsv", "--output", "data/clean.tsv")
    polyvox(work, "split", "--manifest", "data/clean.tsv", "--output_dir", "data/splits")
    for name in ("korean", "english"):
        polyvox(work, "demo-data", "--corpus", name, "--minutes", 6)
        manifest, splits = f"data/{name}/manifest.tsv", f"data/{name}_splits"
        polyvox(work, "split", "--manifest", manifest, "--output_dir", splits)
    make_digits(work / "data" / "digits")
    for name in ("export", "korean", "english", "digits"):
        join_clips(work, name)


def make_digits(folder: Path, clips: int = 300, rate: int = 8000) -> None:
    """Each word is a chord of its own with a voice's pitch and some noise; every sixth clip is of the test split."""
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    rows = []
    for number in range(clips):
        digit, voice = number % 10, number % 7
        time = np.arange(round(rate * rng.uniform(0.3, 0.5))) / rate
        pitches = np.array([[250 + 60 * digit], [900 + 210 * digit]]) * (1 + 0.02 * voice)
        sound = 0.15 * np.sin(2 * np.pi * pitches * time).sum(0) + 0.01 * rng.standard_normal(len(time))
        soundfile.write(folder / f"{number:03}.wav", sound, rate)
        row = {"id": f"d{number:03}", "audio_path": f"{number:03}.wav", "duration": len(time) / rate}
        split = "test" if number % 6 == 5 else "train"
        rows.append({**row, "transcript": words[digit], "speaker": f"v{voice}", "split": split})
    with (folder / "manifest.tsv").open("w", encoding="utf8", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0]], delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)


def clips_of(work: Path, corpus: str) -> list[Path]:
    """The corpus's sounds in order."""
    return [path for path in sorted((work / "data" / corpus).rglob("*.wav")) if path.name != "talk.wav"]


def join_clips(work: Path, corpus: str, clips: int = 14) -> None:
    """``talk.wav`` of a corpus: clips with a pause of a second after each third, and of 0.3 s after the others."""
    parts: list[np.ndarray] = []
    for number, path in enumerate(clips_of(work, corpus)[:clips]):
        sound, rate = soundfile.read(path)
        parts += [sound, np.zeros(rate if number % 3 == 2 else int(0.3 * rate))]
    soundfile.write(work / "data" / corpus / "talk.wav", np.concatenate(parts), rate)


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of the files in a folder by their relative paths; all the sounds of a corpus have one."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder)
        key = f"{name.parts[0]}/**/*.wav" if path.suffix == ".wav" else str(name)
        found.setdefault(key, hashlib.sha256()).update(path.read_bytes())
    return {name: digest.hexdigest() for name, digest in found.items()}


# Quantities


def record_case(work: Path, case: Case) -> Record:
    """All the quantities of one case."""
    for folder, command in case.prepare.items():
        if not (work / folder).exists():
            polyvox(work, *command.split())
    first = folder_of(case.name, "first")
    train(work, case, changed={**STILL, "output.dir": first})
    dry_run = train(work, case, "--dry_run")
    train(work, case)
    run = work / "outputs" / case.name
    history = json.loads((run / f"metrics/{case.name}_metrics.json").read_text(encoding="utf8"))["history"]
    evaluated = {name: evaluate(work, case, name, options) for name, options in case.evaluations.items()}
    return {
        "first_weights": weights(work / first),
        "losses": by_step(history, ("loss", "grad_norm", "learning_rate")),
        "checkpoint_scores": by_step(history, ("eval_",)),
        "results": results(run),
        "last_weights": weights(run / f"checkpoint-{case.steps}"),
        "kept_weights": weights(run),
        "scores": {name: scores for name, (scores, _) in evaluated.items()},
        "hypotheses": {name: texts for name, (_, texts) in evaluated.items()},
        "transcripts": transcripts(work, case),
        "dry_run": masked(dry_run),
        "config": yaml.safe_load((run / "config.yaml").read_text(encoding="utf8")),
    }


def weights(folder: Path) -> dict[str, str]:
    """Digest of each tensor in a folder's ``*.safetensors``, by file and name; and ``all`` of them with their names."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        content = path.read_bytes()
        start = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:start])
        header.pop("__metadata__", None)
        for name, tensor in header.items():
            begin, end = (start + offset for offset in tensor["data_offsets"])
            kind = f"{tensor['dtype']} {tensor['shape']}".encode()
            found[f"{path.stem} {name}"] = hashlib.sha256(kind + content[begin:end]).hexdigest()
    if not found:
        raise Failed(f"{folder}: no tensors in *.safetensors")
    together = "\n".join(f"{name} {found[name]}" for name in sorted(found))
    return {"all": hashlib.sha256(together.encode()).hexdigest(), **found}


def by_step(history: Iterable[Mapping[str, Any]], starts: tuple[str, ...]) -> dict[str, Any]:
    """What of the trainer's log begins so, by step; times left out."""
    found: dict[str, Any] = {}
    for row in history:
        if values := {key: row[key] for key in row if key.startswith(starts) and not varies(key)}:
            found.setdefault(f"step {row['step']}", {}).update(values)
    return found


def varies(key: str) -> bool:
    """Whether a key's value is of the moment or the machine, or recorded elsewhere."""
    named = (
        "versions",
        "commit",
        "config",
        "config_sha256",
        "generation_seconds",
        "rtf",
        "rtfx",
        "train_seconds",
    )
    return key in named or key.endswith(("_runtime", "_per_second", "latency_seconds"))


def steady(value: Any) -> Any:
    """A value of JSON less what `varies`."""
    if isinstance(value, dict):
        return {key: steady(inner) for key, inner in value.items() if not varies(key)}
    return [steady(inner) for inner in value] if isinstance(value, list) else value


def results(run: Path) -> Any:
    return steady(json.loads((run / "train_results.json").read_text(encoding="utf8")))


def evaluate(work: Path, case: Case, name: str, options: str) -> tuple[Any, dict[str, str]]:
    """Scores of an evaluation, and its hypotheses by utterance and task."""
    output = work / "results" / case.name / re.sub(r"\W+", "_", name)
    polyvox(work, "evaluate", "--model_dir", folder_of(case.name, name), "--output", output, *options.split())
    scores = {
        path.stem: steady(json.loads(path.read_text(encoding="utf8")))
        for path in sorted(output.glob("*.json"))
    }
    texts = {}
    for path in sorted(output.glob("*_predictions.csv")):
        with path.open(encoding="utf8", newline="") as file:
            texts |= {
                f"{path.stem} {row['id']} {row['task']}": row["hypothesis"] for row in csv.DictReader(file)
            }
    return scores, texts


def transcripts(work: Path, case: Case) -> list[Any]:
    """What ``polyvox transcribe --format json`` prints for a clip and for a recording of several."""
    clip = clips_of(work, case.corpus)[0].relative_to(work)
    sounds = (clip, f"data/{case.corpus}/talk.wav")
    # So short a limit makes the recording be cut, heard in pieces and put together again.
    options = ("--format", "json", "--longest", 8, *case.transcribing.split())
    model = folder_of(case.name, next(iter(case.evaluations)))
    printed = polyvox(work, "transcribe", "--model", model, *sounds, *options)
    return [steady(json.loads(line)) for line in printed.splitlines() if line.startswith("{")]


def masked(table: str) -> list[str]:
    """The lines of a dry run; ``#`` for seconds, and for memory that counts what Python and its libraries take."""
    counted = ("Python, libraries", "at the worst moment", "moments", "verdict        fits")
    lines = []
    for line in table.splitlines():
        line = re.sub(r"\b\d+\.\d s\b(?= for all tasks|$)", "# s", line.rstrip())
        lines.append(re.sub(r"\d+\.\d+", "#", line) if line.strip().startswith(counted) else line)
    return lines


def without_places(value: Any, work: Path) -> Any:
    """The value with ``WORK`` and ``ROOT`` for the two folders."""
    text = json.dumps(value, ensure_ascii=False)
    for name, folder in (("WORK", work), ("ROOT", ROOT)):
        text = text.replace(str(folder), name)
    return json.loads(text)


# Record


def record(output: Path, names: Sequence[str], keep: bool) -> int:
    """Write the records of the chosen cases; 1 where a command failed: that case has no record, the others have."""
    work = output / "work"
    if work.exists():
        shutil.rmtree(work)
    work.mkdir(parents=True)
    work = work.resolve()
    seconds: dict[str, float] = {}
    with timed(CORPORA, seconds):
        make_corpora(work)
        write(output / f"{CORPORA}.json", without_places({"files": digests(work / "data")}, work))
    failed = 0
    for case in chosen(names):
        with timed(case.name, seconds):
            try:
                write(output / f"{case.name}.json", without_places(record_case(work, case), work))
            except Failed as error:
                print(f"failed: {error}", file=sys.stderr)
                failed += 1
    earlier = load(output).get(ABOUT, {}).get("cpu_seconds", {})
    write(output / f"{ABOUT}.json", {**about(), "cpu_seconds": {**earlier, **seconds}})
    if not keep:
        shutil.rmtree(work)
    return 1 if failed else 0


class timed:
    """Say what begins; keep the CPU seconds of the commands in it."""

    def __init__(self, name: str, seconds: dict[str, float]) -> None:
        self.name, self.seconds = name, seconds

    def __enter__(self) -> None:
        print(f"{self.name} …", end=" ", flush=True)
        self.before = cpu_seconds()

    def __exit__(self, *error: object) -> None:
        self.seconds[self.name] = round(cpu_seconds() - self.before, 1)
        print(f"{self.seconds[self.name]:.0f} s", flush=True)


def cpu_seconds() -> float:
    """Of all commands so far that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def about() -> Record:
    """Commit, versions and processor: what has to be the same, or is to differ, between two recordings."""
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    info = Path("/proc/cpuinfo")
    models = re.findall(r"model name\s*: (.*)", info.read_text(encoding="utf8")) if info.is_file() else []
    versions = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    return {
        "commit": commit.stdout.strip(),
        "versions": versions,
        "processor": (models or [platform.machine()])[0],
    }


def write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf8")


# Command line


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("record", help="run the commands and write what they gave")
    one.add_argument("--output", type=Path, required=True, help="folder of the records")
    names = [case.name for case in CASES]
    one.add_argument("--only", nargs="+", default=[], choices=names, metavar="NAME", help=", ".join(names))
    one.add_argument("--keep", action="store_true", help="leave corpora and runs in OUTPUT/work")
    two = commands.add_parser("compare", help="two folders of records")
    two.add_argument("before", type=Path)
    two.add_argument("after", type=Path)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done or equal, 1 something differs or a command failed, 2 a mistake in the call."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    parser = arguments()
    given = parser.parse_args(argv)
    if given.command == "compare":
        for folder in (given.before, given.after):
            if not load(folder):
                parser.error(f"{folder}: no records (*.json) there; make them with record --output {folder}")
        return compare(given.before, given.after)
    if absent := unlisted():
        parser.error(f"no case for configs/{absent[0]}.yaml: add it to CASES")
    there = [case.name for case in chosen(given.only) if (given.output / f"{case.name}.json").exists()]
    if there:
        parser.error(
            f"{given.output / there[0]}.json is there already: give another folder, or delete it first"
        )
    try:
        return record(given.output, given.only, given.keep)
    except Failed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
