"""What a comparison of an exported model with its original comes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.runtime.folder import FAILED, PASSED, UNDECIDED


@dataclass(frozen=True)
class Finding:
    """The verdict on one task, in a line and in figures."""

    task: str
    verdict: str
    line: str
    figures: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {"verdict": self.verdict, **self.figures}


def overall(findings: Sequence[Finding]) -> str:
    """The worst verdict."""
    found = {finding.verdict for finding in findings}
    return next(verdict for verdict in (FAILED, UNDECIDED, PASSED) if verdict in found)
