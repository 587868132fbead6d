"""Two recordings of `behaviour.py` side by side: one line per case and quantity."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Record = dict[str, Any]
"""The quantities of one case, by name."""
ABOUT = "about"
"""Name of the record that is not compared."""
SHOWN = 3
"""Differences that a line quotes."""
LONGEST = 90
"""Characters of a quoted difference."""


def compare(before: Path, after: Path) -> int:
    """Print a line per case and quantity; 1 where one differs or is missing."""
    old, new = load(before), load(after)
    places = [value.pop(ABOUT, {}) for value in (old, new)]
    for name in ("versions", "processor"):
        if all(places) and places[0].get(name) != places[1].get(name):
            print(f"note: another {name}: {places[0].get(name)} -> {places[1].get(name)}")
    unequal = 0
    for case in [*old, *(name for name in new if name not in old)]:
        for quantity, verdict in verdicts(old.get(case), new.get(case)):
            print(f"{case:20} {quantity:18} {verdict}")
            unequal += not verdict.startswith("equal")
    print(f"{unequal} differ" if unequal else "all equal")
    return 1 if unequal else 0


def load(folder: Path) -> dict[str, Record]:
    """The records of a folder by their names."""
    return {path.stem: json.loads(path.read_text(encoding="utf8")) for path in sorted(folder.glob("*.json"))}


def verdicts(before: Record | None, after: Record | None) -> Iterator[tuple[str, str]]:
    """Each quantity of a case and what became of it."""
    if before is None or after is None:
        yield "(whole record)", f"differs (only in {'BEFORE' if after is None else 'AFTER'})"
        return
    for quantity in [*before, *(name for name in after if name not in before)]:
        if quantity not in before or quantity not in after:
            yield quantity, f"differs (only in {'BEFORE' if quantity in before else 'AFTER'})"
        elif quantity == "config":
            yield quantity, of_configs(before[quantity], after[quantity])
        elif quantity == "dry_run":
            yield quantity, of_lines(before[quantity], after[quantity])
        else:
            yield quantity, of_values(before[quantity], after[quantity])


def flat(value: Any, name: str = "") -> dict[str, str]:
    """Every leaf by its path, as JSON: equal where the numbers are bit for bit."""
    if isinstance(value, (dict, list)) and value:
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        inner = [flat(one, f"{name}.{key}" if name else str(key)) for key, one in pairs]
        return {path: leaf for leaves in inner for path, leaf in leaves.items()}
    return {name: json.dumps(value, ensure_ascii=False)}


def of_values(before: Any, after: Any) -> str:
    """``equal``, or how many leaves differ and the first of them; for numbers, the largest difference too."""
    old, new = flat(before), flat(after)
    paths = list(dict.fromkeys([*old, *new]))
    changed = [path for path in paths if old.get(path) != new.get(path)]
    if not changed:
        return "equal"
    quoted = [
        short(f"{path}: {old.get(path, 'absent')} -> {new.get(path, 'absent')}") for path in changed[:SHOWN]
    ]
    gaps = [gap for path in changed if (gap := distance(old.get(path), new.get(path))) is not None]
    largest = f"; largest difference {max(gaps):.3g}" if gaps else ""
    return f"differs ({len(changed)} of {len(paths)}: {'; '.join(quoted)}{largest})"


def distance(before: str | None, after: str | None) -> float | None:
    """Of two leaves that are numbers."""
    values = [json.loads(leaf) if leaf is not None else None for leaf in (before, after)]
    if any(isinstance(value, bool) or not isinstance(value, (int, float)) for value in values):
        return None
    return float(abs(values[0] - values[1]))


def of_lines(before: Sequence[str], after: Sequence[str]) -> str:
    """``equal``, or the lines of which one side has more."""
    changed = [
        line
        for line in difflib.unified_diff(before, after, lineterm="", n=0)
        if line[:1] in "+-" and not line.startswith(("---", "+++"))
    ]
    if not changed:
        return "equal"
    return f"differs ({len(changed)} lines: {'; '.join(short(line) for line in changed[: 2 * SHOWN])})"


def of_configs(before: Any, after: Any) -> str:
    """``equal``, with the keys that moved, or which keys differ beside them."""
    old, new = flat(before), flat(after)
    moved = moves(old, new)
    for source, target in moved.items():
        del old[source], new[target]
    listed = (
        f"{len(moved)} keys moved: {', '.join(f'{source} -> {target}' for source, target in moved.items())}"
    )
    verdict = of_values(
        {path: json.loads(leaf) for path, leaf in old.items()}, {p: json.loads(v) for p, v in new.items()}
    )
    if not moved:
        return verdict
    return f"equal ({listed})" if verdict == "equal" else f"{verdict[:-1]}; {listed})"


def moves(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
    """Old place to new place of keys whose value is the same, where only one pair of places can be meant.

    A key may get another name in its block or another block, but not both at once: one part of its path stays.
    """
    gone = [path for path in old if path not in new]
    come = [path for path in new if path not in old]

    def can_be(source: str, target: str) -> bool:
        parts, others = source.split("."), target.split(".")
        return old[source] == new[target] and (parts[-1] == others[-1] or parts[:-1] == others[:-1])

    pairs = {source: [target for target in come if can_be(source, target)] for source in gone}
    taken = [target for targets in pairs.values() for target in targets]
    return {
        source: targets[0]
        for source, targets in pairs.items()
        if len(targets) == 1 and taken.count(targets[0]) == 1
    }


def short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
