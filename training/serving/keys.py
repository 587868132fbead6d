"""Who may ask: keys that are kept as hashes, with limits of their own.

The file is JSON: ``{"keys": [{"name": "anna", "sha256": "…", "concurrent": 4, "per_minute": 60}]}``; both limits are
optional. A key is 32 random bytes, so that one round of SHA-256 is enough: there is no dictionary of such keys.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.base.errors import UserError
from training.base.files import atomic_text

_HEX = re.compile(r"[0-9a-f]{64}")
_FIELDS = {"name", "sha256", "concurrent", "per_minute"}
MINUTE = 60.0


@dataclass(eq=False)
class Key:
    """One key. concurrent: requests at once; per_minute: requests that begin within any minute; None: no limit."""

    name: str
    digest: bytes
    concurrent: int | None = None
    per_minute: int | None = None
    inside: int = 0
    _begun: deque[float] = field(default_factory=deque, repr=False)

    def wait(self, now: float) -> int | None:
        """Seconds until a request may begin; None: now."""
        while self._begun and self._begun[0] <= now - MINUTE:
            self._begun.popleft()
        if self.per_minute is not None and len(self._begun) >= self.per_minute:
            return max(1, round(self._begun[0] + MINUTE - now))
        return 1 if self.concurrent is not None and self.inside >= self.concurrent else None

    def begin(self, now: float) -> None:
        """A request begins."""
        self.inside += 1
        if self.per_minute is not None:
            self._begun.append(now)

    def end(self) -> None:
        """It has ended."""
        self.inside -= 1


class Keys:
    """All keys of a server; none: everybody may ask."""

    def __init__(self, keys: list[Key]) -> None:
        self.keys = keys

    @property
    def asked(self) -> bool:
        """Whether requests need a key."""
        return bool(self.keys)

    def find(self, token: str) -> Key | None:
        """The key that ``token`` is. Every key is compared, each in constant time."""
        digest = hashlib.sha256(token.encode("utf8", "surrogateescape")).digest()
        found = None
        for key in self.keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found


def read_keys(path: Path | None) -> Keys:
    """The keys of a file; None: nobody is asked for one. Raises `UserError`."""
    if path is None:
        return Keys([])
    keys = [_key(path, n, one) for n, one in enumerate(_records(path))]
    if not keys:
        raise UserError(f"{path}: no keys in it; polyvox serve --new_key NAME --keys {path} makes one")
    return Keys(keys)


def _records(path: Path) -> list[Any]:
    try:
        found = json.loads(path.read_text(encoding="utf8"))
    except OSError as error:
        raise UserError(f"--keys: {path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise UserError(f"--keys: {path}: not JSON ({error})") from error
    records = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(records, list):
        raise UserError(f'--keys: {path}: must be {{"keys": [{{"name": …, "sha256": …}}]}}')
    return records


def _key(path: Path, number: int, found: Any) -> Key:
    where = f"--keys: {path}: keys[{number}]"
    if not isinstance(found, Mapping) or not isinstance(found.get("name"), str):
        raise UserError(f"{where}: must be an object with a name")
    if unknown := set(found) - _FIELDS:
        raise UserError(f"{where}: {min(unknown)}: no such field; there are {', '.join(sorted(_FIELDS))}")
    if not isinstance(found.get("sha256"), str) or not _HEX.fullmatch(found["sha256"]):
        raise UserError(f"{where}: sha256: must be the 64 hexadecimal digits of the key's SHA-256")
    limits: dict[str, Any] = {}
    for name in ("concurrent", "per_minute"):
        limits[name] = value = found.get(name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise UserError(f"{where}: {name}: must be a whole number from 1 on (got {value!r})")
    return Key(found["name"], bytes.fromhex(found["sha256"]), limits["concurrent"], limits["per_minute"])


def add_key(path: Path, name: str) -> str:
    """Make a key, append its hash to the file, and return it: it is nowhere else. Raises `UserError`."""
    records = _records(path) if path.exists() else []
    if any(isinstance(one, Mapping) and one.get("name") == name for one in records):
        raise UserError(f"--new_key {name}: {path} has a key of this name; delete its entry first")
    token = f"pv-{secrets.token_urlsafe(32)}"
    records.append({"name": name, "sha256": hashlib.sha256(token.encode()).hexdigest()})
    with atomic_text(path) as file:
        file.write(json.dumps({"keys": records}, indent=2, ensure_ascii=False) + "\n")
    path.chmod(0o600)
    return token
