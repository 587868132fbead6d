"""What of a run's files belongs to this machine or its user: absolute paths are cut down, secrets are found."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

_PATH = r"(?:/[^/\0\n]+)+/?|[A-Za-z]:[\\/][^\0\n]+|~/[^\0\n]+"
ABSOLUTE = re.compile(rf"(?P<scheme>sqlite:///)?(?P<path>{_PATH})")
IN_TEXT = re.compile(r"(?<![\w.:/~])(?:/[\w.@+-]+){2,}/?|(?<!\w)[A-Za-z]:\\[\w.@+\\-]+")
CREDENTIALS = re.compile(r"://[^/\s:@]*:[^/\s@]+@")
HOMES = ("home", "Users")
KEPT_PARTS = 2
"""Number of last parts that are kept of a path outside the working directory and the home folder."""

TOKENS = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{30,}|AKIA[0-9A-Z]{16}|wandb_v\d_\w{20,}|sk-[A-Za-z0-9-]{30,})"
)
"""Access tokens by their form: Hugging Face, GitHub, AWS, W&B, OpenAI."""
SECRET_NAMES = ("TOKEN", "API_KEY", "SECRET", "PASSWORD")
SHORTEST_SECRET = 8


def relative(path: str) -> str:
    """The part of an absolute path that says nothing of the machine: from the working directory, from the home, or
    its last `KEPT_PARTS` parts."""
    if path.startswith("~/"):
        return path.removeprefix("~/")
    for base in (Path.cwd(), Path.home()):
        if str(base) != base.anchor and Path(path).is_relative_to(base):
            return Path(path).relative_to(base).as_posix()
    pure = PureWindowsPath(path) if path[1:2] == ":" else PurePosixPath(path)
    parts = [part for part in pure.parts if part != pure.anchor]
    if parts and parts[0] in HOMES:
        parts = parts[2:]
    return "/".join(parts[-KEPT_PARTS:]) or "."


def without_paths(value: Any, found: dict[str, str]) -> Any:
    """Settings or figures with relative paths and without passwords in addresses; what was replaced comes into
    ``found``. Texts that are not a path as a whole stay."""
    if isinstance(value, dict):
        return {key: without_paths(one, found) for key, one in value.items()}
    if isinstance(value, list):
        return [without_paths(one, found) for one in value]
    if not isinstance(value, str):
        return value
    if CREDENTIALS.search(value):
        found[CREDENTIALS.sub("://…@", value)] = hidden = CREDENTIALS.sub("://", value)
        return hidden
    match = ABSOLUTE.fullmatch(value)
    if match is None:
        return value
    found[value] = (match["scheme"] or "") + relative(match["path"])
    return found[value]


def text_without_paths(text: str, found: dict[str, str]) -> str:
    """The same for lines of prose (a log), in which paths stand between words."""

    def shorter(match: re.Match[str]) -> str:
        found[match[0]] = relative(match[0])
        return found[match[0]]

    return IN_TEXT.sub(shorter, CREDENTIALS.sub("://", text))


def secrets_of(environment: Iterable[tuple[str, str]], *more: str | None) -> set[str]:
    """Values that must not be published: of variables that are called like secrets, and ``more``."""
    named = {value for name, value in environment if name.upper().endswith(SECRET_NAMES)}
    return {value for value in {*named, *more} if value and len(value) >= SHORTEST_SECRET}


def own_secrets() -> set[str]:
    """`secrets_of` this process, and the token of ``hf auth login``."""
    from huggingface_hub import get_token

    return secrets_of(os.environ.items(), get_token())


def line_of_secret(text: str, secrets: Collection[str]) -> int | None:
    """The first line that holds a secret or something in the form of an access token."""
    for number, line in enumerate(text.splitlines(), start=1):
        if TOKENS.search(line) or any(secret in line for secret in secrets):
            return number
    return None
