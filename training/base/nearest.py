"""What was probably meant by a name or a path that does not exist."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

CUTOFF = 0.6
"""Similarity (`difflib.SequenceMatcher.ratio`) from which a name is suggested."""
MOST = 2_000
"""Entries of a folder that are compared at most."""
RUNS = Path("outputs")
"""Folder in which runs are looked for by their names."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like ``name``; case is ignored. None where none is near."""
    folded: dict[str, str] = {}
    for one in known:
        folded.setdefault(one.casefold(), one)
    near = get_close_matches(name.casefold(), folded, n=1, cutoff=CUTOFF)
    return folded[near[0]] if near else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``; did you mean NAME?``, or nothing."""
    near = nearest(name, known)
    return f"; did you mean {near}?" if near else ""


def nearest_path(path: Path) -> Path | None:
    """An existing path that differs from ``path`` in misspelt folders or in the name; None where none is near."""
    parts = path.parts
    if not parts:
        return None
    here = Path(parts[0]) if path.is_absolute() else Path()
    for part in parts[1:] if path.is_absolute() else parts:
        step = here / part
        if not step.exists():
            near = _nearest_file(part, _names(here))
            if near is None:
                return None
            step = here / near
        here = step
    return here if here != path else None


def path_hint(path: Path, *, among: Sequence[Path] = ()) -> str:
    """``; did you mean PATH?`` for a path that does not exist, or nothing.

    Args:
        path: what was asked for.
        among: folders in which the bare name is looked for too, such as that of the runs.
    """
    found = nearest_path(path)
    if found is None:
        for folder in among:
            near = _nearest_file(path.name, _names(folder))
            if near is not None:
                found = folder / near
                break
    return f"; did you mean {found}?" if found is not None else ""


def _nearest_file(name: str, known: Sequence[str]) -> str | None:
    """The name of a file or folder that is most like ``name``; a suffix that both have says nothing."""
    suffix = Path(name).suffix
    stems = {Path(one).stem: one for one in known if Path(one).suffix == suffix}
    if near := nearest(Path(name).stem, stems):
        return stems[near]
    others = [one for one in known if Path(one).suffix != suffix and Path(one).stem == Path(name).stem]
    return nearest(name, others)  # the suffix alone is misspelt


def _names(folder: Path) -> list[str]:
    try:
        found = (entry.name for _, entry in zip(range(MOST), folder.iterdir(), strict=False))
        return sorted(name for name in found if not name.startswith("."))
    except OSError:
        return []
