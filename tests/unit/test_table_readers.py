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

from training.base.errors import UserError
from training.data import json_tables, table_basics, text_tables
from training.data.tables import LINE, read_table, row_writer

EACH = settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))

PIECES = st.sampled_from(
    ["a", "b c", "", " ", '"', '""', "'", '"hello" he said', 'he said "hello"', '"x"', "é", "e\u0301", "日本",
     "\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", ",", ";", "\t", "|", "\ufeff", "nan", "\\", "\\n", "1,5",
     "sep=;", "\u00a0", "[1]"]
)  # fmt: skip
LINE_ENDS = st.sampled_from(["\n", "\r\n", "\n", "\r\n", "\r", "\r\r\n"])
CELL = st.lists(st.one_of(PIECES, PIECES, LINE_ENDS), max_size=3).map("".join)
NAMES = st.sampled_from(
    ["audio_path", "duration", "transcript", "text", "id", "x;y", "a,b", " speaker ", '"q"']
)
ODD_NAMES = st.sampled_from(["audio_path", "id", "id", "", "__line__", "two\nlines"])
HEADER = st.one_of(
    *[st.lists(NAMES, min_size=1, max_size=4, unique=True)] * 4, st.lists(ODD_NAMES, min_size=1, max_size=3)
)


def seldom(draw: st.DrawFn, values: list[Any], otherwise: Any) -> Any:
    """One of ``values`` in one table of six."""
    return draw(st.sampled_from(values)) if draw(st.integers(0, 5)) == 0 else otherwise


def quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"'


def written(cell: str) -> str:
    """As a spreadsheet writes it: in quotes where it must be."""
    return quoted(cell) if set(cell) & set('",;\t|\r\n') else cell


def bare(cell: str) -> str:
    """A cell of a table without quoting."""
    return "".join(" " if sign in "\t\r\n" else sign for sign in cell)


@st.composite
def tables(draw: st.DrawFn) -> tuple[str, bytes]:
    """A table that is well formed, nearly so, or not at all."""
    suffix = draw(st.sampled_from([".csv", ".csv", ".tsv"]))
    separator = "\t" if suffix == ".tsv" else draw(st.sampled_from([",", ",", ";", "\t", "|"]))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    end = seldom(draw, ["\r", "\n\n", "\r\n\r\n", "\n \n"], end)
    header = draw(HEADER)
    right = [bare] if suffix == ".tsv" else [quoted, written]
    quote: Callable[[str], str] = seldom(draw, [quoted, written, bare, str], draw(st.sampled_from(right)))
    rows = draw(st.lists(st.lists(CELL, min_size=len(header), max_size=len(header)), max_size=6))
    if rows and (odd := seldom(draw, ["more", "less"], None)):
        rows[-1] = rows[-1][1:] if odd == "less" else [*rows[-1], "more"]
    lines = [separator.join(map(right[-1], header)), *(separator.join(map(quote, row)) for row in rows)]
    mark = draw(st.sampled_from(["", "\ufeff"]))
    stated = draw(st.sampled_from(["", f"sep={separator}{end}"]))
    text = mark + seldom(draw, ["sep=;\n", "\n", "\r\n", '"', "\ufeff"], stated)
    text += end.join(lines) + seldom(draw, ["", separator, '"', separator + end, end + end], end)
    content = text.encode()
    at = draw(st.integers(0, len(content)))
    return suffix, content[:at] + seldom(
        draw, [b"\xe9", b"\xed\xa0\x80", b"\x00", b'"', b"\r"], b""
    ) + content[at:]


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


GOOD = st.sampled_from(
    ["1", "-0", "0", "1.0", "2.5", "1e5", "9223372036854775807", "null", '""', '"a"', '"é"', '"e\u0301"', '"\\/"',
     '"\\ud83d\\ude00"', '"\u2028"', '"nan"', '"x, \\"y\\""', '"\\u0000"']
)  # fmt: skip
ANY = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), max_size=8)


@EACH
@given(st.lists(st.lists(ANY, min_size=2, max_size=2), max_size=5), st.integers(1, 2))
def test_what_a_command_writes_as_csv_is_read_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], width: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "made.csv"
    names = ["audio_path", "transcript"][:width]
    with path.open("w", encoding="utf-8", newline="") as handle:
        put = row_writer(handle, ".csv", names)
        for row in rows:
            put(dict(zip(names, row, strict=False)))
    table = read_table(path).to_pydict()
    assert [list(row) for row in zip(*(table[name] for name in names), strict=True)] == [
        row[:width] for row in rows
    ]


VALUES: st.SearchStrategy[str] = st.sampled_from(
    ["1e400", "-1e400", "9223372036854775808", "1" * 400, "1" * 5000, "NaN", "Infinity", "Inf", "true",
     '"2020-01-01"', '"2021-02-03T04:05:06"', '"12:00"', '"\\ud800"', '"\t"', '["a", "b"]', "[]", '{"a": 1}',
     '{"a": 1, "a": 2}', "[" * 30 + "]" * 30, "01", "1.", "-", "'a'", "1_0"]
)  # fmt: skip
KEYS = ["audio_path", "duration", "transcript", "start", "words", "", "x"]
ODD = st.sampled_from(
    ["{}{}", '{"x": 1}{"x": 2}', "", " ", "[1]", '{"x":\n1}', '{"x": 1, "x": 2}', "\ufeff{}", "x", "1", "{}",
     '{"__line__": 1}', '{"x": {"y": 1}\n}', '{"x": 1', "[" * 100_000]
)  # fmt: skip


def written_object(values: dict[str, str]) -> str:
    return "{" + ", ".join(f"{json.dumps(key)}: {value}" for key, value in values.items()) + "}"


@st.composite
def jsonl(draw: st.DrawFn) -> bytes:
    """Rows of the same keys, often of one type each, of which some may be something else."""
    kinds = {
        "text": st.sampled_from(
            ['"a"', '"é"', '""', "null", '"x, \\"y\\""', '"\\u0000"', '"\u2028"', '"nan"', '"1"']
        ),
        "number": st.sampled_from(["1", "-0", "0", "2", "9223372036854775807"]),
        "seconds": st.sampled_from(["1", "2.5", "-0", "-0.0", "1e5", "1e-7", "9223372036854775807", "null"]),
        "date": st.sampled_from(['"2020-01-01"', '"2021-02-03T04:05:06"', '"12:00"', '"a"']),
        "any": st.one_of(GOOD, VALUES),
    }
    keys = draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=4, unique=True))
    usual = {"duration": "seconds", "start": "seconds"}
    shape = {
        key: kinds[seldom(draw, ["any", "date"], usual.get(key) or draw(st.sampled_from(["text", "number"])))]
        for key in keys
    }
    row = st.fixed_dictionaries(shape).map(written_object)
    rows = draw(st.lists(row, min_size=1, max_size=6))
    if odd := seldom(draw, ["yes"], None):
        rows.insert(draw(st.integers(0, len(rows))), draw(ODD) if odd else "")
    end = seldom(draw, ["\r", "\n\n", ""], draw(st.sampled_from(["\n", "\r\n"])))
    content = (end.join(rows) + draw(st.sampled_from(["", end]))).encode()
    at = draw(st.integers(0, len(content)))
    return content[:at] + seldom(draw, [b"\xe9", b"\x00", b" ", b"\n", b"\r"], b"") + content[at:]


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


@pytest.mark.parametrize("later", ["12.50", "-0", "true", '["a"]', "null"])
def test_a_column_that_changes_its_kind_between_blocks_is_not_plain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: str
) -> None:
    """Arrow, which reads block by block, would make text of the numbers of a later one."""
    path = tmp_path / "m.jsonl"
    rows = [f'{{"transcript": {cell}, "pad": "{"x" * 40}"}}\n' for cell in ('"a"', '"b"', later, later)]
    path.write_text("".join(rows))
    monkeypatch.setattr(json_tables, "BLOCK", len(rows[0]) + 10)
    plain = json_tables.read_plain(path)
    assert plain is None or plain.equals(json_tables.read_careful(path, None))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_line_ends_in_quotes_stay_wherever_a_block_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(f'transcript,n\n"one{end}two",1\n"three",2\n"four",3\n'.encode())
    for block in range(24, 40):
        monkeypatch.setattr(table_basics, "BLOCK", block)
        assert read_table(path).column("transcript").to_pylist() == [f"one{end}two", "three", "four"]


@pytest.mark.parametrize("suffix", [".tsv", ".csv"])
def test_a_byte_order_mark_that_begins_the_first_row_stays(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"m{suffix}"
    path.write_text("transcript\n\ufeffone\n\ufefftwo\n", encoding="utf8")
    assert read_table(path).column("transcript").to_pylist() == ["\ufeffone", "\ufefftwo"]


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
        math.isclose(float(cell), float(d), rel_tol=0)
        for cell, (_, d, _) in zip(cells["duration"], rows, strict=True)
    )
