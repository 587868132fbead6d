"""``polyvox.json`` and ``parity.json`` of an exported folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from training.base.files import sha256
from training.base.system_files import listed
from training.decoding.loading import Trained
from training.engine.versions import commit, versions
from training.export.gate import Gate
from training.export.verdict import Finding, overall
from training.models.export_parts import VERSION, Description
from training.runtime.folder import NOT_CHECKED, RECORD

PARITY = "parity.json"
CARD = "README.md"
ENGINES = ("ctranslate2", "onnx", "onnxruntime", "onnxscript")
UNCHECKED = "exported with --no_check: nobody has compared it with the original"


def write_record(
    folder: Path,
    trained: Trained,
    description: Description,
    about: Mapping[str, Any],
    gate: Gate | None,
    findings: Sequence[Finding] = (),
) -> None:
    """Write both files.

    Args:
        folder: of the exported model, all other files written.
        trained: the original.
        description: for the runtime.
        about: ``format``, ``precision`` and more of the record.
        gate: what was compared; None: nothing.
        findings: of the comparison.
    """
    verdict = overall(findings) if findings else NOT_CHECKED
    source = {
        "folder": trained.folder.resolve().name,
        "files": {path.name: sha256(path) for path in sorted(listed(trained.folder, "*.safetensors"))},
    }
    check: dict[str, Any] = {"verdict": verdict}
    if gate is None:
        check["how"] = UNCHECKED
    else:
        check |= {
            "utterances": len(gate.utterances),
            "manifest_sha256": gate.utterances.rows.sha256(),
            "how": f"the same utterances through both models, greedy, every task; {gate.rule(about['precision'])}",
            "tasks": {finding.task: finding.to_json() for finding in findings},
        }
    together = {**versions(), **_engines()}
    files = _hashes(folder)
    _write(folder / PARITY, {**about, "check": check, "source": source, "files": files, "versions": together})
    _write(
        folder / RECORD,
        {
            "version": VERSION,
            "architecture": trained.model_type,
            **about,
            "description": description.model_dump(mode="json"),
            "check": {key: value for key, value in check.items() if key != "tasks"},
            "source": source,
            "commit": commit(),
            "versions": together,
            "files": {**files, PARITY: sha256(folder / PARITY)},
        },
    )


def _hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each file, the card apart: that may be written on."""
    return {
        path.name: sha256(path)
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name not in (RECORD, PARITY, CARD)
    }


def _engines() -> dict[str, str]:
    found = {}
    for name in ENGINES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # the engines of other formats need not be there
            continue
    return found


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf8")
