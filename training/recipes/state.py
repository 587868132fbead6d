"""What has been done, with what: ``outputs/.pipeline.json``, written after every change, by renaming."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from training.base.errors import UserError
from training.recipes.process import alive, creation_time

NAME = ".pipeline.json"


class State:
    """One record per task: hash of its inputs, when it began, whether it was finished, how long it took."""

    def __init__(self, path: Path):
        self.path = path
        self._values: dict[str, Any] = {"tasks": {}, "running": None}
        self.reload()

    def reload(self) -> None:
        """Read what is on disk; another machine may have written it."""
        try:
            self._values = json.loads(self.path.read_text(encoding="utf8"))
        except FileNotFoundError:
            return
        except ValueError as error:
            raise UserError(
                f"{self.path}: not readable ({error}); remove it to have every step judged anew"
            ) from error

    def record(self, key: str) -> dict[str, Any] | None:
        """What is known of a task: ``inputs``, ``since``, ``finished``, ``seconds``, ``redo``, ``notes``."""
        return self._values["tasks"].get(key)

    @property
    def running(self) -> dict[str, Any] | None:
        """The task in progress: ``key``, ``flags``, ``host``, ``pid``, ``created``."""
        return self._values["running"]

    @property
    def call(self) -> dict[str, Any] | None:
        """The latest call on the first machine: ``id``, and its exit ``status``, None while it goes on."""
        return self._values.get("call")

    def open_call(self) -> None:
        """A call begins on the first machine; the others follow it by its id."""
        self._values |= {"call": {"id": uuid.uuid4().hex, "status": None}, "running": None}
        self.save()

    def close_call(self, status: int) -> None:
        """The call has ended; machines that follow it end as well."""
        assert self.call is not None
        self.call["status"] = status
        self._values["running"] = None
        self.save()

    def is_finished(self, key: str, inputs: str, outputs: Iterable[Path]) -> bool:
        """Done with these inputs, and what it wrote is there."""
        record = self.record(key)
        return bool(
            record
            and record["finished"]
            and record["inputs"] == inputs
            and all(path.exists() for path in outputs)
        )

    def begin(self, key: str, inputs: str, *, flags: Iterable[str] = (), goes_on: bool = False) -> None:
        """The task starts. ``goes_on``: with what an earlier attempt has left, whose beginning stays."""
        old = self.record(key)
        since = old["since"] if old and goes_on else time.time()
        self._values["tasks"][key] = {"inputs": inputs, "since": since, "finished": False}
        self._values["running"] = {"key": key, "flags": list(flags), "host": platform.node()}
        self.save()

    def process(self, pid: int) -> None:
        """The task's process, so that a later call can see whether it still runs."""
        assert self.running is not None
        self.running.update(pid=pid, created=creation_time(pid))
        self.save()

    def finish(self, key: str, seconds: float, notes: Mapping[str, Any] | None = None) -> None:
        """The task is done; ``notes`` are kept with it."""
        record = self._values["tasks"][key]
        record |= {"finished": True, "seconds": seconds, "notes": dict(notes or {})}
        self._values["running"] = None
        self.save()

    def stop(self) -> None:
        """No task runs any more."""
        self._values["running"] = None
        self.save()

    def redo_all(self) -> None:
        """``--fresh``: every task is to be done again, also after an interruption."""
        for record in self._values["tasks"].values():
            record |= {"finished": False, "redo": True}
        self.save()

    def refuse_second(self) -> None:
        """`UserError` where a task of an earlier call still runs on this machine."""
        now = self.running
        if now and "pid" in now and now["host"] == platform.node() and alive(now["pid"], now["created"]):
            raise UserError(
                f"{self.path}: {now['key']} still runs as process {now['pid']}, from another call; wait for it, "
                f"or stop it (kill {now['pid']}) and call again"
            )

    def save(self) -> None:
        """Write, flush, rename."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(f"{self.path.name}.part")
        with partial.open("w", encoding="utf8") as file:
            json.dump(self._values, file, ensure_ascii=False, indent=1)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.path)


def fingerprint(values: Any, files: Iterable[Path] = ()) -> str:
    """Hash of plain values and of what files and folders hold (a path that is missing counts as such)."""
    digest = hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode())
    for path in files:
        found = folder_hash(path) if path.is_dir() else file_hash(path)
        digest.update(f"\0{path}\0{found}".encode())
    return digest.hexdigest()


def folder_hash(folder: Path) -> str:
    """SHA-256 of names, sizes and times of change of all files in a folder; their bytes are not read."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        stat = path.stat()
        digest.update(f"\0{path.relative_to(folder)}\0{stat.st_size}\0{stat.st_mtime_ns}".encode())
    return digest.hexdigest()


def file_hash(path: Path) -> str | None:
    """SHA-256 of a file's bytes; None where there is no file."""
    if not path.is_file():
        return None
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
