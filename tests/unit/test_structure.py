"""The plan of the package: which folder may import from which, and no circle of files anywhere."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
ORDER = (
    *("base", "data", "doctor", "synthetic", "models", "registry", "config", "runtime", "decoding"),
    *(
        "transcription",
        "serving",
        "evaluation",
        "diagnosis",
        "engine",
        "alignment",
        "planning",
        "export",
        "publishing",
        "tuning",
        "recipes",
        "api",
        "cli",
        "scripts",
    ),
)
"""From the bottom to the top: a folder imports from those before it alone."""
DOORS = ("training.data.demo", "training.data.preprocess_manifest", "training.data.split_data")
"""Paths of commands that stay where they were; each calls its command in ``cli``."""


def modules() -> dict[str, Path]:
    found = {}
    for path in (ROOT / "training").rglob("*.py"):
        parts = list(path.relative_to(ROOT).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports() -> dict[str, set[str]]:
    """Module → the modules of the package that it imports anywhere in its code."""
    known = modules()
    graph = {}
    for name, path in known.items():
        found: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        graph[name] = {one for one in found if one in known and one != name}
    return graph


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_a_folder_imports_from_those_below_it_alone() -> None:
    upwards = [
        f"{name} imports {other}"
        for name, others in imports().items()
        for other in others
        if name not in DOORS and room(name) in ORDER and room(other) in ORDER
        if ORDER.index(room(other)) > ORDER.index(room(name))
    ]
    assert sorted(upwards) == []


def test_every_folder_has_its_place_in_the_order() -> None:
    assert {room(name) for name in modules()} - {"", *ORDER} == set()


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = imports()
    for name in graph:
        reached: set[str] = set()
        ahead = list(graph[name])
        while ahead:
            one = ahead.pop()
            if one not in reached:
                reached.add(one)
                ahead.extend(graph[one])
        assert name not in reached, f"{name} imports itself by way of others"
