"""One line of the answer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """What was looked at and what was found.

    Attributes:
        name: what was looked at.
        value: what was found.
        state: ``ok``; ``note``: something does not work or is slow without it; ``problem``: nothing can be trained.
        advice: what to do; empty where nothing is to be done.
    """

    name: str
    value: str
    state: State = "ok"
    advice: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)
