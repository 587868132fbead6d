"""The folder of a finished run and its evaluations, written without training; and beside them what must stay here."""

from __future__ import annotations

import atexit
import json
import pickle
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from eval_assets import example, said
from safetensors.numpy import save_file

from training.config.load import config_from
from training.data.example import Example, Hypothesis
from training.evaluation.compare import compare
from training.evaluation.domains import OWN, predicted_domains, swap_test
from training.evaluation.evaluate import evaluate
from training.evaluation.verdict import judge

DOMAINS = ("normal", "dyslexic")
NEVER = "a sentence of the test split that nobody else should read"
SETTINGS = {
    "model": {
        "type": "domain_whisper",
        "name": "openai/whisper-small",
        "language": "ko",
        "domains": list(DOMAINS),
    },
    "training": {"trainable": "blocks", "num_train_epochs": 3, "learning_rate": 1e-4, "report_to": "none"},
    "profile": {"description": "two CPU cores"},
}
AMOUNTS = {
    "utterances": 120,
    "hours": 0.5,
    "languages": ["ko"],
    "domains": {"dyslexic": {"utterances": 20, "hours": 0.2}, "normal": {"utterances": 100, "hours": 0.3}},
}
RESULTS = {
    "steps": 30,
    "epochs": 3.0,
    "train_seconds": 90.0,
    "parameters": 241_000_000,
    "trainable_parameters": 1_234_567,
    "utterances": 120,
    "data": {"train": AMOUNTS, "dev": {**AMOUNTS, "utterances": 12, "domains": {}}},
    "longest_seconds": 12.34,
    "resumed_from": None,
    "commit": "c0ffee",
    "versions": {"polyvox": "0.1.0", "torch": "2.13.0"},
}


def make(folder: Path) -> Path:
    """``outputs/clinic`` and ``outputs/results`` in the folder; returns the run's folder. Its manifests lie elsewhere."""
    template = _template()
    for path in sorted(template.rglob("*")):
        target = folder / path.relative_to(template)
        if path.is_dir():
            target.mkdir(exist_ok=True)
        else:
            target.write_bytes(path.read_bytes().replace(str(template).encode(), str(folder).encode()))
    return folder / "outputs" / "clinic"


@lru_cache
def _template() -> Path:
    """Made once in a process: scores take their time."""
    folder = Path(tempfile.mkdtemp(prefix="polyvox-published-"))
    atexit.register(shutil.rmtree, folder)
    _write(folder)
    return folder


def _write(folder: Path) -> None:
    run = folder / "outputs" / "clinic"
    run.mkdir(parents=True)
    config = config_from(
        SETTINGS,
        [f"data.{name}={folder}/private/{name}.csv" for name in ("train", "dev", "test")]
        + [f"output.dir={run}", f"output.log_file={folder}/clinic.log", "output.experiment_name=clinic"],
    )
    (run / "config.yaml").write_text(config.to_yaml(), encoding="utf8")
    write_json(
        run / "config.json", {"architectures": ["WhisperForConditionalGeneration"], "_name_or_path": str(run)}
    )
    write_json(run / "train_results.json", {**RESULTS, "best_checkpoint": f"{run}/checkpoint-20"})
    write_json(run / "tokenizer.json", {"model": {"vocab": {"/a/b": 0}}, "tokens": ["/a/b"]})
    write_json(run / "generation_config.json", {"max_length": 448})
    write_json(
        run / "metrics" / "clinic_metrics.json",
        {"experiment": "clinic", "history": [{"loss": 1.5, "step": 10}]},
    )
    weights(run)
    (folder / "clinic.log").write_text(LOG.format(folder=folder), encoding="utf8")
    what_stays(run)
    evaluations(folder / "outputs" / "results", run)


LOG = """the data lie in {folder}/private
step     10/30  epoch 1.00  loss 1.5000
  transcribe: 'a sentence of the dev split' → 'a sense of the death split'
done
"""


def weights(run: Path) -> None:
    """Two shards and their index."""
    names = [f"model-{number:05}-of-00002.safetensors" for number in (1, 2)]
    for number, name in enumerate(names):
        save_file({f"w{number}": np.full(64, number, dtype=np.float32)}, run / name)
    write_json(run / "model.safetensors.index.json", {"weight_map": {"w0": names[0], "w1": names[1]}})


def what_stays(run: Path) -> None:
    """A checkpoint, curves, a ledger, pickles, somebody's notes."""
    for name in ("notes.txt", "speakers.json", "letter.jinja"):
        (run / name).write_text(json.dumps({"never": NEVER}), encoding="utf8")
    for name in (
        "checkpoint-20/optimizer.safetensors",
        "checkpoint-20/model.safetensors",
        "logs/events.out.host.1",
    ):
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_bytes(b"never")
    (run / "dropped_train.tsv").write_text("u7\ttoo short\n", encoding="utf8")
    for name in ("training_args.bin", "vocabulary.model"):
        (run / name).write_bytes(pickle.dumps({"never": True}))
    write_json(run / "trainer_state.json", {"never": True})


def evaluations(results: Path, run: Path) -> None:
    """The run's scores, its swap test, a base's scores, and the comparison of the two with a verdict."""
    results.mkdir()
    examples = [
        example(f"u{n}", f"{NEVER} {n}", speaker=f"speaker{n % 3}", language="ko", domain=DOMAINS[n % 2])
        for n in range(12)
    ]
    manifest = str(run.parents[1] / "private" / "test.csv")
    told = {"model_type": "domain_whisper", "tasks": ["transcribe"], "manifest": manifest, "split": "test"}
    told |= {"commit": "c0ffee", "config": {"data": {"test": manifest}}}
    for name, wrong in (("base", 1), ("clinic", 3)):
        meta = {**told, "model_dir": str(run.with_name(name))}
        hypotheses = recognised(examples, wrong)
        evaluate(
            examples,
            hypotheses,
            meta=meta,
            resamples=100,
            silence={"silence": ["", "ah"], "noise": ["oh no"]},
        ).write(results, name)
    meta = {**told, "model_dir": str(run / "checkpoint-20")}
    evaluate(examples, recognised(examples, 2), meta=meta, resamples=100).write(
        results, "clinic-checkpoint-20"
    )
    asked = [replace(one, domain=DOMAINS[n % 2]) for n, one in enumerate(recognised(examples, 3))]
    prompts = {OWN: (examples, recognised(examples, 3)), "swap": (examples, recognised(examples, 1))}
    swap = swap_test(prompts, resamples=100, seed=0)
    swap["heard_domains"] = predicted_domains(examples, asked, resamples=100, seed=0)
    write_json(results / "clinic_swap.json", swap)
    tables = [results / f"{name}_predictions.csv" for name in ("base", "clinic")]
    comparison = compare(*tables, resamples=100)
    comparison["verdict"] = judge(comparison, "dyslexic", None, 1.0)
    write_json(results / "base_and_clinic.json", comparison)


def recognised(examples: Sequence[Example], every: int) -> list[Hypothesis]:
    """Hypotheses of which each ``every``-th lacks its last word."""
    return [
        said(one.id, one.texts["transcribe"] if n % every else one.texts["transcribe"].rpartition(" ")[0])
        for n, one in enumerate(examples)
    ]


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf8")
