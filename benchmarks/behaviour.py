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
import difflib
import hashlib
import json
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import soundfile
import yaml

ROOT = Path(__file__).resolve().parents[1]
Record = dict[str, Any]
"""The quantities of one case, by name."""
CORPORA, ABOUT = "corpora", "about"
PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "peft")
SHOWN = 3
"""Differences that a line of `compare` quotes."""
LONGEST = 90
"""Characters of a quoted difference."""

# Cases


@dataclass(frozen=True, kw_only=True)
class Case:
    """A configuration, what it is run with, and what is read from its run.

    ``config``: a file of ``configs/``, or the text of one. ``after``: the cases whose models it starts from.
    ``prepare``: what else it starts from, by folder the command that makes it. ``evaluations``: by name, the options of ``polyvox
    evaluate``; where the name begins with ``first``, of the model before it has learnt. ``transcribing``: options of
    ``polyvox transcribe``, which takes the model of the first evaluation.
    """

    name: str
    config: str
    corpus: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 20
    after: tuple[str, ...] = ()
    prepare: Mapping[str, str] = field(default_factory=dict)
    evaluations: Mapping[str, str] = field(default_factory=lambda: {"last": ""})
    transcribing: str = ""


def folder_of(name: str, evaluation: str) -> str:
    """The run's folder that an evaluation reads."""
    return f"outputs/first/{name}" if evaluation.startswith("first") else f"outputs/{name}"


TINY = "_base_: [{root}/configs/base.yaml, {root}/configs/profiles/cpu.yaml]\n"
TINY_E2E = """
model:
  type: e2e
  language: vi
  task: both
  sizes:
    vocab_size: 300
    encoder: {hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 48,
              conv_dim: [16, 16, 16, 16], conv_stride: [10, 8, 4, 2], conv_kernel: [20, 16, 8, 3],
              feat_extract_norm: layer, num_conv_pos_embeddings: 15, num_conv_pos_embedding_groups: 4}
    decoder: {d_model: 24, decoder_layers: 2, decoder_attention_heads: 2, decoder_ffn_dim: 48}
augmentation:
  speed: {prob: 0.5}
  volume: {prob: 0.5}
  noise: {prob: 0.5}
training:
  batch_size: 4
  gradient_accumulation_steps: 2
  learning_rate: 2.0e-3
  label_smoothing_factor: 0.1
  freeze_encoder_epochs: 0.5
  eval_steps: 0.25
  save_steps: 0.25
  report_to: none
evaluation: {num_beams: 2, max_new_tokens: 40, max_utterances: 10}
"""
TINY_DOMAINS = """
paths: {splits_dir: data/korean_splits}
model:
  type: domain_whisper
  language: ko
  domains: [normal, dyslexic]
  domain_weights: {dyslexic: 2.0}
  full_context_share: 0.25
  encoder_context: trimmed
  sizes: {init_std: 0.08, vocab_size: 600, d_model: 32, encoder_layers: 1, decoder_layers: 1, encoder_attention_heads: 2,
          decoder_attention_heads: 2, encoder_ffn_dim: 64, decoder_ffn_dim: 64, dropout: 0.1}
augmentation:
  shift: {prob: 0.5}
  spec: {prob: 0.5}
  join: {prob: 0.3}
training:
  max_batch_seconds: 30
  learning_rate: 3.0e-3
  average_checkpoints: 2
  eval_steps: 0.25
  save_steps: 0.25
  report_to: none
evaluation: {max_new_tokens: 40, max_utterances: 10}
"""
TINY_VOXLM = """
paths: {splits_dir: data/english_splits}
model:
  type: voxlm
  audio_encoder: outputs/demo_voxlm_encoder
  llm: outputs/demo_voxlm_llm
  language: en
  encoder_context: trimmed
  stack: 8
  projector_width: 32
  aligner: {width: 16, layers: 1, heads: 2}
training:
  batch_size: 3
  gradient_accumulation_steps: 2
  learning_rate: 5.0e-3
  eval_steps: 0.5
  save_steps: 0.5
  report_to: none
evaluation: {num_beams: 2, max_new_tokens: 30}
"""
STILL = {
    "training.learning_rate": 0,
    "training.max_steps": 1,
    "training.ema_decay": "null",
    "training.average_checkpoints": "null",
}
"""A run of one step that changes nothing: it leaves the first weights."""
UNTAUGHT = {"first": "", "first, beam": "--beam_width 4"}
"""Of a CTC model that has learnt for some steps only, which writes nothing; before them it writes letters at random."""
TAUGHT = {"last": "", "last, beam": "--beam_width 4"}
LANGUAGE_MODEL = {
    "outputs/demo_voxlm_llm": "lm causal --text data/english_splits/train.csv --output outputs/demo_voxlm_llm --steps 120"
}
ENCODER = ("demo_voxlm_encoder",)
CASES = (
    Case(name="demo_ctc", config="demo_ctc", corpus="export", steps=64, evaluations=UNTAUGHT),
    Case(
        name="digits_ctc",
        config="digits_ctc",
        corpus="digits",
        steps=160,
        # With fewer steps a shorter memory; and a score that tells their models apart.
        overrides={"training.ema_decay": 0.9, "training.metric_for_best_model": "cer"},
        evaluations=TAUGHT,
    ),
    Case(name="demo_whisper", config="demo_whisper", corpus="export"),
    Case(name="demo_e2e", config="demo_e2e", corpus="export"),
    Case(name="demo_domain_base", config="demo_domain_base", corpus="korean"),
    Case(
        name="demo_domain_whisper",
        config="demo_domain_whisper",
        corpus="korean",
        after=("demo_domain_base",),
        evaluations={"last": "--swap_test"},
        transcribing="--domain auto",
    ),
    Case(name="demo_voxlm_encoder", config="demo_voxlm_encoder", corpus="english"),
    Case(
        name="demo_voxlm",
        config="demo_voxlm",
        corpus="english",
        overrides={"training.max_batch_seconds": 20},
        after=ENCODER,
        prepare=LANGUAGE_MODEL,
    ),
    Case(
        name="demo_voxlm_phase2",
        config="demo_voxlm",
        corpus="english",
        overrides={"training.max_batch_seconds": 20, "training.phase": 2, "model.name": "outputs/demo_voxlm"},
        after=("demo_voxlm",),
    ),
    Case(
        name="tiny_e2e",
        config=TINY_E2E,
        corpus="export",
        steps=40,
    ),
    Case(
        name="tiny_domain",
        config=TINY_DOMAINS,
        corpus="korean",
        steps=40,
        evaluations={"last, auto": "--domain auto"},
        transcribing="--domain normal",
    ),
    Case(
        name="tiny_voxlm",
        config=TINY_VOXLM,
        corpus="english",
        overrides={"training.trainable": "lora", "training.lora.r": 4},
        after=ENCODER,
        prepare=LANGUAGE_MODEL,
    ),
    Case(
        name="tiny_voxlm_phase2",
        config=TINY_VOXLM,
        corpus="english",
        overrides={"training.phase": 2, "model.name": "outputs/tiny_voxlm"},
        after=("tiny_voxlm",),
    ),
)


def unlisted() -> list[str]:
    """Demo and digits configurations that no case runs."""
    shipped = {
        path.stem for pattern in ("demo_*", "digits*") for path in (ROOT / "configs").glob(f"{pattern}.yaml")
    }
    return sorted(shipped - {case.config for case in CASES})


def chosen(names: Sequence[str]) -> list[Case]:
    """These cases (all where none is named) and those that they start from, in order."""
    known = {case.name: case for case in CASES}
    wanted: set[str] = set()
    waiting = list(names or known)
    while waiting:
        name = waiting.pop()
        wanted.add(name)
        waiting += known[name].after
    return [case for case in CASES if case.name in wanted]


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
    write(
        output / f"{ABOUT}.json", {**about(), "cpu_seconds": seconds, "all": round(sum(seconds.values()), 1)}
    )
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


# Compare


def compare(before: Path, after: Path) -> int:
    """Print a line per case and quantity; 1 where one differs or is missing."""
    old, new = load(before), load(after)
    places = [value.pop(ABOUT, {}) for value in (old, new)]
    for name in ("versions", "processor"):
        if places[0].get(name) != places[1].get(name):
            print(f"note: another {name}: {places[0].get(name)} -> {places[1].get(name)}")
    unequal = 0
    for case in [*old, *(name for name in new if name not in old)]:
        for quantity, verdict in verdicts(old.get(case), new.get(case)):
            print(f"{case:20} {quantity:18} {verdict}")
            unequal += not verdict.startswith("equal")
    print(f"{unequal} differ" if unequal else "all equal")
    return 1 if unequal else 0


def load(folder: Path) -> dict[str, Record]:
    """The records of a folder by their names."""
    return {path.stem: json.loads(path.read_text(encoding="utf8")) for path in sorted(folder.glob("*.json"))}


def verdicts(before: Record | None, after: Record | None) -> Iterator[tuple[str, str]]:
    """Each quantity of a case and what became of it."""
    if before is None or after is None:
        yield "(whole record)", f"differs (only in {'BEFORE' if after is None else 'AFTER'})"
        return
    for quantity in [*before, *(name for name in after if name not in before)]:
        if quantity not in before or quantity not in after:
            yield quantity, f"differs (only in {'BEFORE' if quantity in before else 'AFTER'})"
        elif quantity == "config":
            yield quantity, of_configs(before[quantity], after[quantity])
        elif quantity == "dry_run":
            yield quantity, of_lines(before[quantity], after[quantity])
        else:
            yield quantity, of_values(before[quantity], after[quantity])


def flat(value: Any, name: str = "") -> dict[str, str]:
    """Every leaf by its path, as JSON: equal where the numbers are bit for bit."""
    if isinstance(value, (dict, list)) and value:
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        inner = [flat(one, f"{name}.{key}" if name else str(key)) for key, one in pairs]
        return {path: leaf for leaves in inner for path, leaf in leaves.items()}
    return {name: json.dumps(value, ensure_ascii=False)}


def of_values(before: Any, after: Any) -> str:
    """``equal``, or how many leaves differ and the first of them; for numbers, the largest difference too."""
    old, new = flat(before), flat(after)
    paths = list(dict.fromkeys([*old, *new]))
    changed = [path for path in paths if old.get(path) != new.get(path)]
    if not changed:
        return "equal"
    quoted = [
        short(f"{path}: {old.get(path, 'absent')} -> {new.get(path, 'absent')}") for path in changed[:SHOWN]
    ]
    gaps = [gap for path in changed if (gap := distance(old.get(path), new.get(path))) is not None]
    largest = f"; largest difference {max(gaps):.3g}" if gaps else ""
    return f"differs ({len(changed)} of {len(paths)}: {'; '.join(quoted)}{largest})"


def distance(before: str | None, after: str | None) -> float | None:
    """Of two leaves that are numbers."""
    values = [json.loads(leaf) if leaf is not None else None for leaf in (before, after)]
    if any(isinstance(value, bool) or not isinstance(value, (int, float)) for value in values):
        return None
    return float(abs(values[0] - values[1]))


def of_lines(before: Sequence[str], after: Sequence[str]) -> str:
    """``equal``, or the lines of which one side has more."""
    changed = [
        line
        for line in difflib.unified_diff(before, after, lineterm="", n=0)
        if line[:1] in "+-" and not line.startswith(("---", "+++"))
    ]
    if not changed:
        return "equal"
    return f"differs ({len(changed)} lines: {'; '.join(short(line) for line in changed[: 2 * SHOWN])})"


def of_configs(before: Any, after: Any) -> str:
    """``equal``, with the keys that moved, or which keys differ beside them."""
    old, new = flat(before), flat(after)
    moved = moves(old, new)
    for source, target in moved.items():
        del old[source], new[target]
    listed = (
        f"{len(moved)} keys moved: {', '.join(f'{source} -> {target}' for source, target in moved.items())}"
    )
    verdict = of_values(
        {path: json.loads(leaf) for path, leaf in old.items()}, {p: json.loads(v) for p, v in new.items()}
    )
    if not moved:
        return verdict
    return f"equal ({listed})" if verdict == "equal" else f"{verdict[:-1]}; {listed})"


def moves(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
    """Old place to new place of keys whose value is the same, where only one pair of places can be meant.

    A key may get another name in its block or another block, but not both at once: one part of its path stays.
    """
    gone = [path for path in old if path not in new]
    come = [path for path in new if path not in old]

    def can_be(source: str, target: str) -> bool:
        parts, others = source.split("."), target.split(".")
        return old[source] == new[target] and (parts[-1] == others[-1] or parts[:-1] == others[:-1])

    pairs = {source: [target for target in come if can_be(source, target)] for source in gone}
    taken = [target for targets in pairs.values() for target in targets]
    return {
        source: targets[0]
        for source, targets in pairs.items()
        if len(targets) == 1 and taken.count(targets[0]) == 1
    }


def short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


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
