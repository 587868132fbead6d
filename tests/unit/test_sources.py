"""What the project's own source may not contain."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "training"
FILES = sorted(SOURCE.rglob("*.py"))

GONE = {
    "lang_code_to_id",
    "additional_special_tokens",
    "additional_special_tokens_ids",
    "save_safetensors",
    "logging_dir",
    "group_by_length",
    "overwrite_output_dir",
}
"""Attributes, keywords and keys of older versions of transformers."""

CODE_RUNNERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
LOADERS = {"torch.load", "torch.save", "pandas.read_pickle", "pd.read_pickle", "numpy.load", "np.load"}


def nodes() -> Iterator[tuple[str, ast.AST]]:
    """``(file:line, node)`` of all source files."""
    assert len(FILES) > 50
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            yield f"{path.relative_to(SOURCE)}:{getattr(node, 'lineno', 0)}", node


def imported() -> Iterator[tuple[str, str]]:
    """``(file:line, package)`` of every import, inside functions too."""
    for place, node in nodes():
        if isinstance(node, ast.Import):
            yield from ((place, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield place, node.module.split(".")[0]


# Trap 22.
def test_no_attribute_or_keyword_that_is_gone() -> None:
    found = [
        (place, name)
        for place, node in nodes()
        for name in (getattr(node, "attr", None), getattr(node, "arg", None))
        if name in GONE
    ]
    keys = [
        (place, key.value)
        for place, node in nodes()
        if isinstance(node, ast.Dict) and not place.startswith("config/verbatim.py")  # which refuses them
        for key in node.keys
        if isinstance(key, ast.Constant) and key.value in GONE
    ]
    assert (found, keys) == ([], [])


# Trap 24.
def test_nothing_asks_a_hub_for_code() -> None:
    assert [(place, name) for place, name in imported() if name == "evaluate"] == []
    trusting = [place for place, node in nodes() if getattr(node, "arg", None) == "trust_remote_code"]
    assert trusting == []


# Trap 28.
def test_no_pickle_is_imported() -> None:
    assert [(place, name) for place, name in imported() if name in CODE_RUNNERS] == []


# Trap 28.
def test_no_pickle_is_written_or_loaded() -> None:
    calls = [(place, ast.unparse(node.func)) for place, node in nodes() if isinstance(node, ast.Call)]
    assert [(place, call) for place, call in calls if call in LOADERS] == []
    switches = [
        (place, node.arg)
        for place, node in nodes()
        if isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "weights_only")
    ]
    assert switches == []
