"""Arrow's readers and the strict ones: the same cells and lines for every file, or both refuse it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from training.data import json_tables, table_basics, text_tables
from training.data.tables import LINE, read_table
from training.errors import UserError

EACH = settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))

PIECES = st.sampled_from(
    ["a", "b c", "", " ", '"', '""', "'", '"hello" he said', 'he said "hello"', '"x"', "é", "e\u0301", "日本",
     "\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x00", "\r", "\n", "\r\n", "\r\r\n", ",", ";", "\t", "|",
     "\ufeff", "nan", "\\", "\\n", "1,5", "sep=;", "\u00a0", "[1]"]
)  # fmt: skip
CELL = st.lists(PIECES, max_size=3).map("".join)
HEADER = st.lists(
    st.sampled_from(["audio_path", "duration", "transcript", "text", "id", "x;y", "a,b", "", " id ", "__line__", '"q"']),
    min_size=1,
    max_size=4,
)
ENDS = st.sampled_from(["\n", "\r\n", "\r", "\n\n", "\n \n"])


def quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"'


@st.composite
def tables(draw: st.DrawFn) -> tuple[str, bytes]:
    """A table that is well formed, nearly so, or not at all."""
    suffix = draw(st.sampled_from([".csv", ".csv", ".tsv"]))
    separator = "\t" if suffix == ".tsv" else draw(st.sampled_from([",", ",", ";", "\t", "|"]))
    end = draw(ENDS)
    header = draw(HEADER)
    width = len(header)
    quote: Callable[[str], str] = draw(st.sampled_from([quoted, quoted, lambda cell: cell]))
    wide = st.integers(0, 19).map(lambda n: width + (n == 0) - (n == 1))
    rows = draw(st.lists(wide.flatmap(lambda n: st.lists(CELL, min_size=max(0, n), max_size=max(0, n))), max_size=6))
    lines = [separator.join(header), *(separator.join(map(quote, row)) for row in rows)]
    text = draw(st.sampled_from(["", "", "\ufeff", "sep=;\n", "\ufeffsep=,\r\n", "\n"]))
    text += end.join(lines) + draw(st.sampled_from(["", end, separator, '"', separator + end, end + end]))
    broken = draw(st.sampled_from([b"", b"", b"", b"", b"\xe9", b"\xed\xa0\x80", b"\x00"]))
    content = text.encode("utf-8", "surrogatepass")
    at = draw(st.integers(0, len(content)))
    return suffix, content[:at] + broken + content[at:]


def outcome(read: Callable[[], pa.Table | None]) -> Any:
    """The columns and cells, or that the file was refused."""
    try:
        table = read()
    except UserError:
        return "refused"
    return None if table is None else table.to_pydict()


@EACH
@given(tables(), st.sampled_from([1 << 24, 1 << 24, 64]))
def test_arrow_and_the_strict_reader_agree(
    tmp_path_factory: pytest.TempPathFactory, made: tuple[str, bytes], block: int
) -> None:
    path = tmp_path_factory.getbasetemp() / f"agree{made[0]}"
    path.write_bytes(made[1])
    try:
        text_tables.check(path)
        layout = text_tables.layout_of(path)
    except UserError:
        assert outcome(lambda: read_table(path)) == "refused"
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_basics, "BLOCK", block)
        fast = outcome(lambda: text_tables.read_fast(path, layout, None))
    strict = outcome(lambda: text_tables.read_strict(path, layout, None))
    assert fast is None or fast == strict
    broken_fast: list[tuple[int, str]] = []
    broken_strict: list[tuple[int, str]] = []
    fast = outcome(lambda: text_tables.read_fast(path, layout, broken_fast))
    strict = outcome(lambda: text_tables.read_strict(path, layout, broken_strict))
    if fast is not None:
        assert (fast, broken_fast) == (strict, broken_strict)
    outcome(lambda: read_table(path))  # whatever the bytes are: a table, or a UserError


SAFE = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00\r"), max_size=10)


@EACH
@given(
    st.lists(st.tuples(SAFE, SAFE), min_size=1, max_size=6),
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", "\ufeff"]),
    st.booleans(),
)
def test_a_well_formed_csv_is_what_was_written(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str]],
    separator: str,
    end: str,
    mark: str,
    stated: bool,
) -> None:
    """The cells that a spreadsheet wrote, whatever separates them, each with the line on which its row begins."""
    path = tmp_path_factory.getbasetemp() / "written.csv"
    lines = [f"sep={separator}"] if stated else []
    lines += [separator.join(("audio_path", "transcript"))]
    lines += [separator.join(map(quoted, row)) for row in rows]
    path.write_bytes((mark + end.join(lines) + end).encode())
    table = read_table(path).to_pydict()
    assert list(zip(table["audio_path"], table["transcript"], strict=True)) == rows
    line, expected = 2 + stated, []
    for row in rows:
        expected.append(line)
        line += 1 + sum(cell.count("\n") for cell in row)
    assert table[LINE] == expected
    layout = text_tables.layout_of(path)
    assert text_tables.read_fast(path, layout, None) is not None  # these are not left to the slow reader


VALUES: st.SearchStrategy[str] = st.sampled_from(
    ["1", "-0", "0", "1.0", "2.5", "1e5", "1e400", "-1e400", "9223372036854775807", "9223372036854775808", "1" * 400,
     "1" * 5000, "NaN", "Infinity", "Inf", "true", "null", '""', '"a"', '"é"', '"e\u0301"', '"2020-01-01"',
     '"2021-02-03T04:05:06"', '"12:00"', '"\\u0000"', '"\\ud800"', '"\\ud83d\\ude00"', '"\\/"', '"\u2028"', '"\t"',
     '"nan"', '["a", "b"]', "[]", '{"a": 1}', '{"a": 1, "a": 2}', "[" * 30 + "]" * 30, "01", "1.", "-", "'a'", "1_0"]
)  # fmt: skip
KEYS = st.sampled_from(["audio_path", "duration", "transcript", "start", "words", "", "__line__", "x"])
OBJECT = st.lists(st.tuples(KEYS, VALUES), max_size=4, unique_by=lambda pair: pair[0]).map(
    lambda pairs: "{" + ", ".join(f"{json.dumps(key)}: {value}" for key, value in pairs) + "}"
)
ODD = st.sampled_from(["{}{}", '{"x": 1}{"x": 2}', "", " ", "[1]", '{"x":\n1}', '{"x": 1, "x": 2}', "\ufeff{}", "x", "1"])


@st.composite
def jsonl(draw: st.DrawFn) -> bytes:
    """Rows of one shape, of which some may have other values, or be something else."""
    row = st.one_of(OBJECT, OBJECT, OBJECT, ODD) if draw(st.booleans()) else draw(st.lists(OBJECT, min_size=1, max_size=2).map(st.sampled_from))
    end = draw(st.sampled_from(["\n", "\n", "\r\n", "\r", "\n\n"]))
    content = (end.join(draw(st.lists(row, min_size=1, max_size=5))) + draw(st.sampled_from(["", end]))).encode()
    at = draw(st.integers(0, len(content)))
    return content[:at] + draw(st.sampled_from([b"", b"", b"", b"\xe9", b"\x00", b" "])) + content[at:]


@EACH
@given(jsonl(), st.sampled_from([1 << 24, 64]))
def test_the_plain_and_the_careful_reader_of_jsonl_agree(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, block: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "agree.jsonl"
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_tables, "BLOCK", block)
        plain = outcome(lambda: json_tables.read_plain(path))
    careful = outcome(lambda: json_tables.read_careful(path, None))
    assert plain is None or plain == careful
    outcome(lambda: read_table(path))
    outcome(lambda: read_table(path, []))


NUMBER = st.one_of(st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False))


@EACH
@given(st.lists(st.tuples(SAFE, NUMBER, st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=5))
def test_plain_jsonl_is_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, float, int]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "written.jsonl"
    path.write_text("".join(json.dumps({"transcript": t, "duration": d, "n": n}) + "\n" for t, d, n in rows))
    plain = json_tables.read_plain(path)
    careful = json_tables.read_careful(path, None)
    assert plain is None or plain.to_pydict() == careful.to_pydict()
    cells = careful.to_pydict()
    assert cells["transcript"] == [text for text, _, _ in rows]
    assert cells["n"] == [str(n) for _, _, n in rows]
    assert all(
        math.isclose(float(cell), float(d), rel_tol=0) for cell, (_, d, _) in zip(cells["duration"], rows, strict=True)
    )
