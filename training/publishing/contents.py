"""What of a run's folder is published: the finished model and how it came about, nothing that can run or that is private."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from training.base.errors import UserError
from training.base.system_files import listed
from training.config.load import RESOLVED_NAME
from training.data.example import TASKS
from training.engine.averaging import RAW
from training.engine.checkpoint import MARKER, OPTIMIZER, SCALER, SCHEDULER
from training.engine.folder import RESULTS
from training.evaluation.stored import METRICS_SUFFIX, read_json
from training.publishing import private
from training.publishing.evidence import Evidence

CARD = "README.md"
WEIGHTS = re.compile(r"(?:model|adapter_model)(?:-\d+-of-\d+)?\.safetensors")
INDEX = "model.safetensors.index.json"
PARTS = re.compile(
    r"(?:\w+_)?config\.json|tokenizer\.json|vocab(?:ulary_map)?\.json|(?:added_tokens|special_tokens_map|normalizer)\.json"
    r"|model\.safetensors\.index\.json|(?:train_results|calibration)\.json|(?:merges|vocab)\.txt"
    r"|chat_template\.jinja|[\w.-]+\.model"
)
"""Names of what belongs to a model beside its weights; ``.model`` is sentencepiece's, checked not to be a pickle."""
OF_CHECKPOINTS = ("trainer_state.json", MARKER, SCHEDULER, SCALER, f"{OPTIMIZER}.json", RAW)
BINARY = (".safetensors", ".onnx", ".data", ".bin", ".npy")
"""Endings of files without text."""
VERBATIM = ("tokenizer.json", "vocab.json", "added_tokens.json")
"""Vocabularies: a piece such as ``/a`` is no path."""
PICKLES = (b"\x80", b"PK\x03\x04", b"\x1f\x8b")
"""How pickles, torch's archives and compressed pickles begin."""
EXAMPLE_LINE = re.compile(rf"^  (?:{'|'.join(TASKS)}): .*\n?", re.MULTILINE)
"""What `training.engine.callbacks.HypothesisCallback` logs: a reference of the dev split and its hypothesis."""
UTTERANCES = ("worst", "by_speaker")
"""Sections of an evaluation that quote the test split's texts or name its speakers."""


@dataclass(frozen=True)
class Item:
    """One file of the repository: its name there, and where its bytes are."""

    name: str
    content: Path | bytes

    @property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


@dataclass
class Parcel:
    """All that goes; what stays here, with the reason; and absolute paths with what stands for them."""

    items: list[Item] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    shortened: dict[str, str] = field(default_factory=dict)

    def add_values(self, name: str, path: Path, values: Any) -> None:
        """A JSON file; as it is where there is nothing to hide in it."""
        hidden = private.without_paths(values, self.shortened)
        self.items.append(Item(name, path if hidden == read_json(path) else _json(hidden)))


def pack(folder: Path, evidence: Evidence, log: Path | None) -> Parcel:
    """The files of a finished run, its evaluations and its log; the card is not among them.

    Raises `UserError` for a run that is not finished, and for weights that are damaged.
    """
    check_finished(folder)
    parcel = Parcel()
    for path in sorted(listed(folder)):
        _take(parcel, folder, path)
    _add_config(parcel, folder / RESOLVED_NAME)
    for path in sorted(listed(folder / "metrics", f"*{METRICS_SUFFIX}")):
        parcel.add_values(f"metrics/{path.name}", path, read_json(path))
    _add_evidence(parcel, evidence)
    if log is not None and log.is_file():
        _add_log(parcel, log)
    return parcel


def check_finished(folder: Path) -> None:
    """`UserError` for a folder that is not a finished run's."""
    if not folder.is_dir():
        raise UserError(f"--model_dir {folder}: no such folder; give a run's, such as outputs/demo_whisper")
    if not (folder / RESOLVED_NAME).is_file():
        raise UserError(f"--model_dir {folder}: holds no {RESOLVED_NAME}, so it is no run of ours")
    if not (folder / RESULTS).is_file():
        raise UserError(
            f"--model_dir {folder}: the run is not finished ({RESULTS} is missing); go on with "
            f"polyvox train --config {folder / RESOLVED_NAME} --resume"
        )
    weights = [path for path in listed(folder) if WEIGHTS.fullmatch(path.name)]
    missing = [name for name in _shards(folder) if not (folder / name).is_file()]
    if missing or not weights or not (folder / "config.json").is_file():
        name = missing[0] if missing else "model.safetensors" if not weights else "config.json"
        raise UserError(f"--model_dir {folder}: {name} is missing, so there is no whole model to publish")
    for path in weights:
        _check_weights(path)


def check_secrets(parcel: Parcel) -> None:
    """`UserError` that names file and line, never the secret, where a text that would go holds an access token."""
    secrets = private.own_secrets()
    for item in parcel.items:
        if item.name.endswith(BINARY):
            continue
        content = item.content if isinstance(item.content, bytes) else item.content.read_bytes()
        if line := private.line_of_secret(content.decode("utf8", errors="replace"), secrets):
            place = item.content if isinstance(item.content, Path) else item.name
            raise UserError(
                f"{place}:{line}: holds an access token or a password of this machine's environment; nothing was "
                "sent. Remove it there (and have the token replaced, if others could read the file)"
            )


def _take(parcel: Parcel, folder: Path, path: Path) -> None:
    reason = why_not(path)
    if reason is None and path.name.endswith(".json") and path.name not in VERBATIM:
        parcel.add_values(path.name, path, read_json(path))
    elif reason is None:
        parcel.items.append(Item(path.name, path))
    elif reason:
        parcel.left_out[path.relative_to(folder).as_posix() + ("/" if path.is_dir() else "")] = reason


def why_not(path: Path) -> str | None:
    """Why a file of the folder stays here; None when it goes, nothing to say (``""``) where it is dealt with apart."""
    if path.name in (RESOLVED_NAME, CARD, "metrics"):
        return ""
    if path.name.startswith("checkpoint-") or path.name in OF_CHECKPOINTS:
        return "checkpoint: optimiser states and earlier weights"
    if path.name == "logs":
        return "TensorBoard: names this machine, and holds utterances of the dev split"
    if path.name.startswith("dropped_"):
        return "names utterances of the data"
    if path.is_dir() or not (WEIGHTS.fullmatch(path.name) or PARTS.fullmatch(path.name)):
        return "not part of the model"
    return "a pickle, which can run code" if _is_pickle(path) else None


def _is_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(4)
    # The header of a safetensors file begins with its length, which may look like anything.
    return path.suffix != ".safetensors" and start.startswith(PICKLES)


def _shards(folder: Path) -> set[str]:
    """The files that an index of several says the weights are in."""
    index = folder / INDEX
    return set(read_json(index)["weight_map"].values()) if index.is_file() else set()


def _check_weights(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            file.keys()
    except SafetensorError as error:
        raise UserError(f"{path}: damaged or no safetensors file ({error}); nothing was sent") from error


def _add_config(parcel: Parcel, path: Path) -> None:
    values = private.without_paths(yaml.safe_load(path.read_text(encoding="utf8")), parcel.shortened)
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=False, width=110)
    parcel.items.append(Item(path.name, text.encode()))


def _add_evidence(parcel: Parcel, evidence: Evidence) -> None:
    for path, values in evidence.files():
        parcel.add_values(f"results/{path.name}", path, dict(_without_utterances(values)))


def _without_utterances(report: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((key, value) for key, value in report.items() if key not in UTTERANCES)


def _add_log(parcel: Parcel, log: Path) -> None:
    text = EXAMPLE_LINE.sub("", log.read_text(encoding="utf8", errors="replace"))
    name = log.name if log.suffix in (".txt", ".log") else f"{log.name}.txt"
    parcel.items.append(Item(name, private.text_without_paths(text, parcel.shortened).encode()))


def _json(values: Any) -> bytes:
    return (json.dumps(values, ensure_ascii=False, indent=2) + "\n").encode()
