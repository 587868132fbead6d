"""What of an exported folder is published: its files as they were compared, the comparison, and a card that tells both."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from training.base.errors import UserError
from training.base.system_files import listed
from training.data.metric import LABELS
from training.decoding.calibrated import NAME as CALIBRATION
from training.decoding.calibrated import read_calibration, weights_of
from training.export.record import PARITY
from training.publishing.contents import CARD, Item, Parcel
from training.publishing.scores import table
from training.runtime.folder import FAILED, NOT_CHECKED, RECORD, UNDECIDED, Exported, read_exported

SECTION = "## This export"
"""Title of what is added to the card of the run."""
QUOTED = ("id", "original", "exported")
"""What a comparison has of each utterance that differs: texts of the test split."""
NUMBERS = ("original", "exported", "value", "low", "high")
LIBRARIES = {
    "onnx": "onnxruntime",
    "nemo": "onnxruntime",
    "ctranslate2": "ctranslate2",
    "ggml": "whisper.cpp",
}
"""The Hub's ``library_name``, by format."""


def pack_exported(folder: Path) -> tuple[Parcel, Exported]:
    """The files of an exported folder, the card apart.

    Args:
        folder: what ``polyvox export`` wrote.

    Raises:
        UserError: a file is not the one that was compared, the comparison did not pass, or the confidences are calibrated for
            other weights.
    """
    found = read_exported(folder)
    parity = _parity(found)
    _check_calibration(folder)
    parcel = Parcel()
    for path in sorted(listed(folder)):
        if (path.name in found.record["files"] and path.name != PARITY) or path.name == CALIBRATION:
            parcel.items.append(Item(path.name, path))
        elif path.name not in (CARD, RECORD, PARITY):
            parcel.left_out[path.name] = "not part of the export"
    shown = _json(_without_texts(parity))
    record = {**found.record, "files": {**found.record["files"], PARITY: hashlib.sha256(shown).hexdigest()}}
    parcel.items += [Item(PARITY, shown), Item(RECORD, _json(record))]
    return parcel, found


def _parity(found: Exported) -> Mapping[str, Any]:
    """``parity.json``; `UserError` where it does not let the folder be published."""
    path = found.folder / PARITY
    try:
        parity: Mapping[str, Any] = json.loads(path.read_text(encoding="utf8"))
        verdict = parity["check"]["verdict"]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error}); export the model again") from error
    if PARITY not in found.record["files"] or verdict != found.checked:
        raise UserError(f"{path}: is not that of {RECORD}; export the model again")
    if verdict in (FAILED, UNDECIDED):
        raise UserError(
            f"--model_dir {found.folder}: the comparison with the original did not pass ({verdict}, see {path}); nothing was "
            "sent. Export the model again, in another precision or with more --utterances"
        )
    return parity


def _check_calibration(folder: Path) -> None:
    calibration = read_calibration(folder)
    if calibration is not None and calibration.weights != weights_of(folder):
        raise UserError(
            f"{folder / CALIBRATION}: was fitted with other weights than this folder's, and confidences are not carried over; "
            f"fit it with polyvox calibrate --model_dir {folder}, or delete it"
        )


def _without_texts(parity: Mapping[str, Any]) -> dict[str, Any]:
    """The same without what the compared utterances say: they are the test split's."""
    check = dict(parity["check"])
    check["tasks"] = {
        task: {
            **figures,
            "different": [
                {key: value for key, value in one.items() if key not in QUOTED}
                for one in figures.get("different", [])
            ],
        }
        for task, figures in check.get("tasks", {}).items()
    }
    return {**parity, "check": check}


def card_of(found: Exported, repo_id: str, licence: str | None, written: str | None) -> str:
    """The card.

    Args:
        found: the folder.
        repo_id: the repository.
        licence: the Hub's name of it; None: not stated.
        written: the card of the folder, which the section on the export is added to; None: there is none.
    """
    section = "\n".join((SECTION, "", *_told(found)))
    if written is not None:
        before = written.partition(f"\n{SECTION}")[0].rstrip()
        return f"{before}\n\n{section}\n"
    title = repo_id.partition("/")[2]
    languages = ", ".join(dict.fromkeys(found.description.languages))
    intro = f"A {found.architecture} speech model of Polyvox ({languages}), exported for another engine."
    return f"---\n{_front_matter(found, licence, title)}\n---\n\n# {title}\n\n{intro}\n\n{section}\n"


def _front_matter(found: Exported, licence: str | None, title: str) -> str:
    from huggingface_hub import ModelCardData

    languages = [
        code for code in dict.fromkeys(found.description.languages) if code.isalpha() and len(code) < 4
    ]
    data = ModelCardData(
        language=languages or None,
        license=licence or "other",
        license_name=None if licence else "not-stated",
        library_name=LIBRARIES[found.format],
        pipeline_tag="automatic-speech-recognition",
        tags=["polyvox", found.format, found.precision, found.architecture.replace("_", "-")],
        model_name=title,
    )
    return data.to_yaml()


def _told(found: Exported) -> Iterator[str]:
    source, check = found.record["source"]["folder"], found.record["check"]
    yield f"`{source}` as {found.format}, {found.precision}, by `polyvox export`. "
    if found.checked == NOT_CHECKED:
        yield "Nobody has compared it with the original."
    else:
        yield f"Compared with the original on {check['utterances']:,} utterances ({check['how']}): {found.checked}."
        yield ""
        parity = json.loads((found.folder / PARITY).read_text(encoding="utf8"))
        rows = [_row(task, figures) for task, figures in parity["check"]["tasks"].items()]
        yield from table(
            ("task", "verdict", "the same", "original → this", "difference, 95 % interval"), rows
        )
    if (found.folder / CALIBRATION).is_file():
        yield from ("", "The confidence of words is calibrated on this export.")
    programs = found.record.get("third_parties") or {}
    if programs:
        yield ""
        yield from (f"- {name}: {may}" for name, may in programs.items())
    yield ""
    yield f"`polyvox transcribe FILE --model FOLDER` reads it without PyTorch; `{PARITY}` has all figures."


def _row(task: str, figures: Mapping[str, Any]) -> tuple[str, ...]:
    same = f"{figures['identical']:,} of {figures['utterances']:,}" if "identical" in figures else ""
    if "metric" not in figures:
        return (task, figures["verdict"], same, "", "")
    told = {key: math.nan if (value := figures[key]) is None else value for key in NUMBERS}
    label = LABELS.get(figures["metric"], figures["metric"])
    scores = f"{label} {told['original']:.2f} → {told['exported']:.2f}"
    change = f"{told['value']:+.2f} [{told['low']:+.2f}, {told['high']:+.2f}]"
    return (task, figures["verdict"], same, scores, change)


def _json(values: Any) -> bytes:
    return (json.dumps(values, ensure_ascii=False, indent=2) + "\n").encode()
