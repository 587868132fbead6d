"""The documents keep their word: names of the guides are all explained, and what is named exists."""

from __future__ import annotations

import ast
import importlib
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "internal" / "from-the-guides.md"
FIXTURE = ROOT / "tests" / "fixtures" / "guide_names.json"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WRITTEN = ("outputs/", "data/", ".venv/")
"""Folders that commands write into; git ignores them."""
STOCK = {
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
}
"""Files that transformers writes into a model's folder; the names of all others are in our sources."""
INVENTED = {"training/models/moonshine.py"}
"""The file that `docs/adding-an-architecture.md` shows how to write."""
RENAMED = {"benchmarks/manifest_rows.py", "benchmarks/memory_plan.py"}
"""Scripts that `docs/internal/log.md` names as they were called when their figures were taken."""
COMMANDS = {
    "train.py": "training.cli.train",
    "run_evaluation.py": "training.cli.evaluate",
    "export_charts.py": "training.cli.charts",
    "transcribe.py": "training.cli.transcribe",
    "preprocess_manifest.py": "training.cli.preprocess",
    "split_data.py": "training.cli.split",
    "prepare_data.py": "training.cli.prepare_data",
    "generate_timestamps.py": "training.cli.timestamps",
    "inference.py": "training.cli.inference",
}
CODE = re.compile(r"`([^`]+)`")
FILE = re.compile(r"[\w.{}/-]+/[\w.-]+\.(?:py|md|ya?ml|toml|sh|bat|txt|j2)")
KEY = re.compile(r"[a-z]+(?:\.[a-z_0-9]+)+")
OBJECT = re.compile(r"(training/[\w/]+\.py)::([\w.]+)")


class Row(NamedTuple):
    """One line of a table: the guide's names, ours, and the reason."""

    names: list[str]
    ours: list[str]
    why: str


def tables(text: str) -> dict[str, dict[str, list[Row]]]:
    """Guide → kind of name → rows."""
    found: dict[str, dict[str, list[Row]]] = {}
    guide = kind = ""
    for line in text.splitlines():
        if line.startswith("## Guide "):
            guide = line.removeprefix("## Guide ")
        elif line.startswith("### "):
            kind = line.removeprefix("### ")
        elif guide and line.startswith("| `"):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            names, ours = ([code.replace("\\|", "|") for code in CODE.findall(cell)] for cell in cells[:2])
            found.setdefault(guide, {}).setdefault(kind, []).append(Row(names, ours, cells[2]))
    return found


def missing_names(text: str, names: dict[str, dict[str, list[str]]]) -> list[str]:
    """Names of the fixture that no table explains, under their kind, and names that no guide has."""
    found = tables(text)
    explained: dict[str, set[str]] = {}
    for kinds in found.values():
        for kind, rows in kinds.items():
            explained.setdefault(kind, set()).update(name for row in rows for name in row.names)
    wanted = [(guide, kind, name) for guide, kinds in names.items() for kind in kinds for name in kinds[kind]]
    problems = [
        f"{guide}: {kind}: {name}" for guide, kind, name in wanted if name not in explained.get(kind, ())
    ]
    for guide, kinds in found.items():
        for kind, rows in kinds.items():
            known = names.get(guide, {}).get(kind, [])
            problems += [
                f"not in guide {guide}: {name}" for row in rows for name in row.names if name not in known
            ]
    return problems


@lru_cache
def definitions(path: str) -> set[str]:
    """Names that a module defines at its top level, and as ``Class.name`` those of its classes."""
    found = set()
    for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
        for name in _defined(node):
            found.add(name)
        if isinstance(node, ast.ClassDef):
            found.update(f"{node.name}.{name}" for inner in node.body for name in _defined(inner))
    return found


def _defined(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        yield node.name
    targets = (
        node.targets
        if isinstance(node, ast.Assign)
        else [node.target]
        if isinstance(node, ast.AnnAssign)
        else []
    )
    yield from (target.id for target in targets if isinstance(target, ast.Name))


def is_key(key: str) -> bool:
    """Whether the schema, or the options of an architecture, have the key."""
    from training.config.schema import Config
    from training.models import lookup

    block, *names = key.split(".")
    if key == "_base_":
        return True
    if block == "model":
        return any(has_key(lookup.options_class(one), names) for one in lookup.available())
    return has_key(Config, key.split("."))


def has_key(schema: Any, names: list[str]) -> bool:
    """Whether a block, or a block in it, has the key."""
    from training.config.reference import _model_of

    field = schema.model_fields.get(names[0]) if schema else None
    return field is not None and (len(names) == 1 or has_key(_model_of(field.annotation), names[1:]))


def what_is_wrong(ours: str, help_of: dict[str, str]) -> str | None:
    """Why one of our names does not hold; None when it does."""
    from training import cli as polyvox
    from training.data.columns import COLUMNS

    script, _, flag = ours.partition(" ")
    if match := OBJECT.fullmatch(ours):
        path, name = match.groups()
        there = (ROOT / path).is_file() and name in definitions(path)
    elif flag.startswith("--"):
        there = re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", help_of[script]) is not None
    elif script == "polyvox":
        there = flag in polyvox.COMMANDS
    elif ours.startswith("column:"):
        there = ours.removeprefix("column:") in COLUMNS
    elif ours.startswith("package:"):
        there = ours.removeprefix("package:") in packages()
    elif ours.startswith(WRITTEN):
        there = is_written(ours)
    elif ours == "_base_" or (KEY.fullmatch(ours) and not (ROOT / ours).exists()):
        there = is_key(ours)
    else:
        there = (ROOT / ours).exists()
    return None if there else ours


def is_written(path: str) -> bool:
    """Whether git ignores the path's folder, and for a result whether something of ours writes such a file."""
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    folder = path.split("/")[0]
    if f"/{folder}/" not in ignored and f"/{folder}/*" not in ignored:
        return False
    name = path.removeprefix("outputs/").rstrip("/").split("/")[-1]
    if folder != "outputs" or name in STOCK or name == "outputs" or (ROOT / f"configs/{name}.yaml").exists():
        return True
    return re.sub(r"^dev_(domain_)?(whisper|e2e|ctc)|\d+$", "", name) in sources()


@lru_cache
def sources() -> str:
    """All of the library's code."""
    return "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "training").rglob("*.py"))


def packages() -> set[str]:
    """What ``pyproject.toml`` depends on."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {re.split(r"[<>=\[]", need)[0] for need in project["dependencies"]}


@pytest.fixture(scope="module")
def names() -> dict[str, dict[str, list[str]]]:
    return json.loads(FIXTURE.read_text(encoding="utf-8"))


def test_every_name_of_the_guides_is_explained(names: dict[str, dict[str, list[str]]]) -> None:
    assert sum(len(kind) for kinds in names.values() for kind in kinds.values()) > 200
    assert missing_names(DOCUMENT.read_text(encoding="utf-8"), names) == []


def test_a_row_that_is_removed_is_missed(names: dict[str, dict[str, list[str]]]) -> None:
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    without = "\n".join(line for line in lines if not line.startswith("| `model.add_adapter` "))
    assert missing_names(without, names) == ["004: Configuration keys: model.add_adapter"]


def test_every_row_says_where_or_why() -> None:
    rows = [
        row
        for kinds in tables(DOCUMENT.read_text("utf-8")).values()
        for rows in kinds.values()
        for row in rows
    ]
    assert [row.names for row in rows if not row.ours and not row.why] == []


def test_everything_that_we_name_exists(capsys: pytest.CaptureFixture[str]) -> None:
    found = tables(DOCUMENT.read_text(encoding="utf-8"))
    ours = {one for kinds in found.values() for rows in kinds.values() for row in rows for one in row.ours}
    help_of = {}
    for script, module in COMMANDS.items():
        with pytest.raises(SystemExit):
            importlib.import_module(module).main(["--help"])
        help_of[script] = capsys.readouterr().out
    assert sorted(filter(None, (what_is_wrong(one, help_of) for one in ours))) == []


@pytest.mark.parametrize(
    "wrong",
    [
        "configs/nothing.yaml",
        "training/engine/callbacks.py::Nothing",
        "training.nothing",
        "data.shards.nothing",
        "model.unfreeze.nothing",
        "train.py --nothing",
        "polyvox nothing",
        "column:nothing",
        "package:nothing",
        "model.nothing",
        "nothing.md",
        "outputs/results/dev_whisper_nothing.json",
    ],
)
def test_a_wrong_name_is_seen(wrong: str) -> None:
    assert what_is_wrong(wrong, {"train.py": "--dry_run --config"}) == wrong


def test_every_key_of_the_guides_configurations_is_a_name(names: dict[str, dict[str, list[str]]]) -> None:
    import yaml

    for file in sorted(FIXTURE.parent.glob("guide_0*_*.yaml")):
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        keys = {
            f"{block}.{key}" if key else block
            for block, inner in content.items()
            if block != "_base_"
            for key in (inner if isinstance(inner, dict) else [""])
        }
        assert keys <= set(names[file.name[6:9]]["Configuration keys"]), file.name


def broken_links(page: Path, text: str) -> list[str]:
    """Relative links of a page that lead nowhere."""
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    return [
        one
        for one in links
        if not one.startswith(("http://", "https://", "mailto:")) and not (page.parent / one).exists()
    ]


def absent_files(text: str) -> list[str]:
    """Paths into the project's folders that are written as code and are not there."""
    folders = ("training/", "configs/", "docs/", "tests/", "benchmarks/")
    code = [*CODE.findall(text), *re.findall(r"```.*?```", text, flags=re.S)]
    words = {path for one in code for path in FILE.findall(one) if path.startswith(folders)}
    # The first column of the guides' table holds paths that are not ours; so do placeholders.
    return sorted(
        path
        for path in words
        if "{" not in path and path not in INVENTED | RENAMED and not (ROOT / path).exists()
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_files_of_a_page_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert broken_links(page, text) == []
    if page == DOCUMENT:
        text = "\n".join(
            line.split("|", 2)[2] if line.startswith("| ") else line for line in text.splitlines()
        )
    assert absent_files(text) == []


def test_a_dead_link_and_a_missing_file_are_seen() -> None:
    text = "See [this](nowhere.md) and [that](https://example.org), `training/nothing.py` and `configs/base.yaml`."
    assert broken_links(DOCUMENT, text) == ["nowhere.md"]
    assert absent_files(text) == ["training/nothing.py"]


def test_the_site_is_made_without_a_warning(tmp_path: Path) -> None:
    """The command of `make docs`: every page is in the contents, and links to pages and headings lead somewhere."""
    pytest.importorskip("sphinx")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-b",
        "html",
        str(ROOT / "docs"),
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    written = {page.relative_to(tmp_path).with_suffix(".md") for page in tmp_path.rglob("*.html")}
    assert {page.relative_to(ROOT / "docs") for page in PAGES[1:]} <= written


def documented(text: str) -> list[str]:
    """The ``polyvox …`` commands of a page: lines of its code blocks, continued lines joined, comments left out."""
    text = text.replace("\\\n", " ")
    blocks = re.findall(r"```(?:bash|sh|text)?\n(.*?)```", text, flags=re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += re.findall(r"^    (?:\$ )?(polyvox .*)$", text, flags=re.M)
    return [
        line.strip().removeprefix("$ ")
        for line in lines
        if line.strip().removeprefix("$ ").startswith("polyvox ")
    ]


def unknown_options(command: str) -> list[str]:
    """Options of a documented command that the command does not have."""
    from training import cli as polyvox

    words = shlex.split(command.replace("…", ""), comments=True)[1:]
    if not words or words[0].startswith("-") or words[0].isupper():
        return []
    if words[0] not in polyvox.COMMANDS:
        return [words[0]]
    prepares = words[:2] == ["data", "prepare"]  # has a module of its own
    module = importlib.import_module(
        "training.cli.prepare_data" if prepares else polyvox.COMMANDS[words[0]][0]
    )
    known = set(module.parser()._options())
    given = [word.partition("=")[0] for word in words if word.startswith("--") and word != "--"]
    return [one for one in given if not {one, one.replace("-", "_").replace("__", "--", 1)} & known]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_documented_commands_have_these_options(page: Path) -> None:
    commands = documented(page.read_text(encoding="utf-8"))
    wrong = {one: unknown for one in commands if (unknown := unknown_options(one))}
    # The page shows how a misspelt option is answered.
    shown = {"polyvox train --config configs/demo_whisper.yaml --dryrun": ["--dryrun"]}
    assert {one: names for one, names in wrong.items() if shown.get(one) != names} == {}


def test_a_wrong_option_of_a_documented_command_is_seen() -> None:
    page = "```bash\npolyvox train --config a.yaml --nothing  # a comment\npolyvox nothing\n```\n    polyvox split --manifest m \n"
    assert [unknown_options(one) for one in documented(page)] == [["--nothing"], ["nothing"], []]
