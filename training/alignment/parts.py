"""The records so far, written to disk one batch at a time: a run that was killed continues from them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from training.base.errors import UserError
from training.base.files import atomic_text
from training.data.example import SpokenWord

RECORDS, SETTINGS = "parts.jsonl", "parts.json"


@dataclass(frozen=True)
class Record:
    """One utterance: its words and the word error rate of the teacher (a share), or the reason why it has no words."""

    id: str
    words: tuple[SpokenWord, ...] = ()
    wer: float = 0.0
    reason: str = ""
    detail: str = ""


class Parts:
    """The records of a folder, and the settings that they were made with.

    Records are appended in one write. A line that is incomplete because the run was killed is removed when the folder is opened again,
    and its utterance is aligned again.

    Raises `UserError` where the folder was begun with other settings, unless ``force``, which begins anew.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], *, force: bool = False) -> None:
        self.path = folder / RECORDS
        folder.mkdir(parents=True, exist_ok=True)
        if force:
            self.path.unlink(missing_ok=True)
        elif self.path.exists() and self.path.stat().st_size:  # begun, and something is found
            _check_settings(folder, settings)
        with atomic_text(folder / SETTINGS) as handle:
            json.dump(settings, handle, ensure_ascii=False, indent=1)
        self.records = {record.id: record for record in _whole_records(self.path)}

    def add(self, records: Iterable[Record]) -> None:
        """Keep records; one of an utterance that has its record already changes nothing."""
        new = [record for record in records if record.id not in self.records]
        self.records |= {record.id: record for record in new}
        lines = "".join(json.dumps(asdict(record), ensure_ascii=False) + "\n" for record in new)
        with self.path.open("ab") as handle:
            handle.write(lines.encode())


def _check_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    try:
        before = json.loads((folder / SETTINGS).read_text(encoding="utf8"))
    except (OSError, ValueError):
        before = {}
    other = [name for name in settings if before.get(name) != settings[name]]
    if other:
        changed = ", ".join(f"{name} {before.get(name)!r} → {settings[name]!r}" for name in other)
        raise UserError(
            f"{folder}: begun with other settings ({changed}); choose another --output, or begin anew with --force"
        )


def _whole_records(path: Path) -> Iterator[Record]:
    """The records of the file; what follows the last line end is cut off."""
    if not path.exists():
        return
    with path.open("r+b") as handle:
        content = handle.read()
        whole = content.rfind(b"\n") + 1
        handle.truncate(whole)
    for number, line in enumerate(content[:whole].splitlines(), 1):
        try:
            fields = json.loads(line)
            words = tuple(SpokenWord(**word) for word in fields.pop("words"))
            yield Record(**fields, words=words)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{path}:{number}: damaged ({error}); begin anew with --force") from error
