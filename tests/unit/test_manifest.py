"""Manifests: formats, messages, what counts as missing, memory."""

from __future__ import annotations

import csv
import json
import multiprocessing
import pickle
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from training.base.errors import UserError
from training.data.example import TRANSCRIBE, TRANSLATE, AudioRef, Example, Word
from training.data.manifest import Manifest, load_manifest
from training.data.tables import LINE, row_writer

NAN = float("nan")

GUIDE_COLUMNS = ("id", "video_id", "audio_path", "duration", "transcript", "translation")


def write(path: Path, *lines: str, encoding: str = "utf-8") -> Path:
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


def tsv(folder: Path, *rows: str, header: str = "\t".join(GUIDE_COLUMNS)) -> Path:
    return write(folder / "manifest.tsv", header, *rows)


def test_a_row_of_the_guides_becomes_an_example(tmp_path: Path) -> None:
    path = tsv(tmp_path, "u1\tv1\tvideo_v1/segment_1.wav\t2.5\tkênh TikTok của em\tkênh Tóp Tóp của em")
    assert load_manifest(path)[0] == Example(
        id="u1",
        audio=AudioRef(path=str(tmp_path / "video_v1/segment_1.wav")),
        duration=2.5,
        texts={TRANSCRIBE: "kênh TikTok của em", TRANSLATE: "kênh Tóp Tóp của em"},
        group="v1",
        source=f"{path}:2",
    )


def test_every_column_of_ours_arrives(tmp_path: Path) -> None:
    header = "id\taudio_path\tduration\tstart\tend\ttranscript\tspeaker\tlanguage\ttarget_language\tdomain\tgroup\twords\tword_languages\tvideo_id"
    row = 'u\ta.wav\t1\t2\t3\txin hello\ts1\tvi\tvi\tnews\tg1\t[["xin", 0.1, 0.4], ["hello", 0.5, 0.9]]\tvi en\tv1'
    example = load_manifest(tsv(tmp_path, row, header=header))[0]
    assert example.audio == AudioRef(path=str(tmp_path / "a.wav"), start=2.0, end=3.0)
    assert (example.speaker, example.language, example.target_language) == ("s1", "vi", "vi")
    assert (example.domain, example.group) == ("news", "g1")
    assert example.words == (Word(text="xin", start=0.1, end=0.4), Word(text="hello", start=0.5, end=0.9))
    assert example.word_languages == ("vi", "en")


def rows_of(manifest: Manifest) -> list[tuple]:
    return [(e.id, e.duration, dict(e.texts), e.group, e.speaker) for e in manifest]


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl"])
def test_formats_hold_the_same(tmp_path: Path, suffix: str) -> None:
    rows = [
        {"id": "a", "audio_path": "a.wav", "duration": 1.25, "transcript": 'nói "ok", rồi', "group": "1"},
        {"id": "0002", "audio_path": "b.wav", "duration": 3.0, "transcript": "", "translation": "ờ"},
    ]
    columns = ["id", "audio_path", "duration", "transcript", "translation", "group"]
    path = tmp_path / f"m{suffix}"
    with path.open("w", encoding="utf-8", newline="") as handle:
        put = row_writer(handle, suffix, columns)
        for row in rows:
            put(row)
    assert rows_of(load_manifest(path)) == [
        ("a", 1.25, {TRANSCRIBE: 'nói "ok", rồi'}, "1", None),
        ("0002", 3.0, {TRANSLATE: "ờ"}, None, None),
    ]


def test_parquet_with_numbers_and_lists(tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": [1, 2],
            "audio_path": ["a.wav", "b.wav"],
            "duration": pa.array([1.5, 2.0], pa.float32()),
            "transcript": ["một", None],
            "word_languages": [["vi"], None],
        }
    )
    parquet.write_table(table, tmp_path / "m.parquet")
    manifest = load_manifest(tmp_path / "m.parquet")
    assert manifest.ids == ["1", "2"]
    assert manifest[0].word_languages == ("vi",)
    assert manifest[1].texts == {}
    np.testing.assert_array_equal(manifest.durations, np.array([1.5, 2.0], np.float32))


def test_jsonl_with_lists_and_blank_lines_keeps_line_numbers(tmp_path: Path) -> None:
    rows = [
        {
            "audio_path": "a.wav",
            "duration": 1,
            "transcript": "xin hello",
            "words": [["xin", 0, 0.5], ["hello", 0.5, 1]],
        },
        {"audio_path": "b.wav", "duration": 2.5, "word_languages": ["vi"], "transcript": "xin"},
    ]
    path = write(tmp_path / "m.jsonl", json.dumps(rows[0]), "", json.dumps(rows[1]))
    manifest = load_manifest(path)
    assert manifest[0].words[1] == Word(text="hello", start=0.5, end=1.0)
    assert manifest[1].source == f"{path}:3"
    assert manifest[1].word_languages == ("vi",)


def test_jsonl_that_looks_like_dates_stays_text(tmp_path: Path) -> None:
    row = {"id": "2020-01-01", "audio_path": "a.wav", "duration": 1.5, "transcript": "2021-02-03"}
    manifest = load_manifest(write(tmp_path / "m.jsonl", json.dumps(row)))
    assert (manifest[0].id, manifest[0].texts[TRANSCRIBE]) == ("2020-01-01", "2021-02-03")


def test_plain_and_careful_jsonl_readers_agree(tmp_path: Path) -> None:
    rows = [
        {"id": f"{i:03}", "audio_path": f"{i}.wav", "duration": i + 0.1, "transcript": f"từ {i}"}
        for i in range(50)
    ]
    plain = load_manifest(write(tmp_path / "plain.jsonl", *map(json.dumps, rows)))
    careful = load_manifest(
        write(tmp_path / "careful.jsonl", *map(json.dumps, rows[:9]), "", *map(json.dumps, rows[9:]))
    )
    assert rows_of(plain) == rows_of(careful)
    assert [e.source.rsplit(":", 1)[1] for e in plain] == [str(i + 1) for i in range(50)]


# Trap 13.
@pytest.mark.parametrize("text", ["nan", "NaN", "NA", "N/A", "null", "None", "NULL", "#N/A", "-"])
@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl"])
def test_missing_is_absent_and_the_word_nan_is_a_word(tmp_path: Path, text: str, suffix: str) -> None:
    columns = ["audio_path", "duration", "transcript", "translation"]
    path = tmp_path / f"m{suffix}"
    with path.open("w", encoding="utf-8", newline="") as handle:
        put = row_writer(handle, suffix, columns)
        put({"audio_path": "a.wav", "duration": 1.0, "transcript": text, "translation": text})
        put({"audio_path": "b.wav", "duration": 1.0, "transcript": "a", "translation": None})
        put({"audio_path": "c.wav", "duration": 1.0, "transcript": "  ", "translation": ""})
    manifest = load_manifest(path)
    assert manifest[0].texts == {TRANSCRIBE: text, TRANSLATE: text}
    assert manifest[1].texts == {TRANSCRIBE: "a"}
    assert manifest[2].texts == {}
    assert list(manifest.texts()) == [
        (TRANSCRIBE, None, text),
        (TRANSLATE, None, text),
        (TRANSCRIBE, None, "a"),
    ]
    assert manifest.column("translation") == [text, None, None]


# Trap 13.
@pytest.mark.parametrize(("suffix", "first"), [(".jsonl", "b"), (".jsonl", NAN), (".parquet", NAN)])
def test_a_number_that_is_none_is_no_text(tmp_path: Path, suffix: str, first: str | float) -> None:
    """``json.dumps`` writes what pandas leaves for a missing text as NaN; a column of such is one of floats."""
    rows = [
        {"audio_path": f"{i}.wav", "duration": 1.0, "transcript": "a", "translation": text}
        for i, text in enumerate((first, NAN))
    ]
    path = tmp_path / f"m{suffix}"
    if suffix == ".jsonl":
        write(path, *map(json.dumps, rows))
    else:
        parquet.write_table(pa.Table.from_pylist(rows), path)
    expected = first if isinstance(first, str) else None
    manifest = load_manifest(path)
    assert manifest.column("translation") == [expected, None]
    assert TRANSLATE not in manifest[1].texts


# Trap 13.
def test_a_duration_of_nan_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"manifest\.tsv:2: duration: no number of seconds"):
        load_manifest(tsv(tmp_path, "u\tv\ta.wav\tnan\ta\tb"))


def test_a_quote_in_a_tsv_swallows_no_row(tmp_path: Path) -> None:
    path = tsv(tmp_path, 'u1\tv\ta.wav\t1\t"mở ngoặc\tb', 'u2\tv\tb.wav\t1\tđóng"\t"nói" "rồi"')
    manifest = load_manifest(path)
    assert [e.texts[TRANSCRIBE] for e in manifest] == ['"mở ngoặc', 'đóng"']
    assert manifest[1].texts[TRANSLATE] == '"nói" "rồi"'


def test_cells_that_a_csv_writer_has_quoted_in_a_tsv_are_unquoted(tmp_path: Path) -> None:
    path = tmp_path / "m.tsv"
    words = json.dumps([["a", 0, 1]])
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle, delimiter="\t")
        writer.writerow(["audio_path", "duration", "transcript", "words"])
        writer.writerow(["a.wav", 1, 'he said "a"', words])
    example = load_manifest(path)[0]
    assert example.texts[TRANSCRIBE] == 'he said "a"'
    assert example.words == (Word(text="a", start=0, end=1),)


def test_csv_cells_with_commas_quotes_and_line_breaks(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["audio_path", "duration", "transcript"])
        writer.writerow(["a.wav", 1, 'một, "hai"\nba'])
        writer.writerow(["b.wav", 2, "bốn"])
    manifest = load_manifest(path)
    assert manifest[0].texts[TRANSCRIBE] == 'một, "hai"\nba'
    assert [e.source for e in manifest] == [f"{path}:2", f"{path}:4"]


def test_a_csv_quote_that_is_never_closed_is_named(tmp_path: Path) -> None:
    path = write(
        tmp_path / "m.csv", "audio_path,duration,transcript", 'a.wav,1,"mở', "b.wav,1,x", "c.wav,1,y"
    )
    with pytest.raises(UserError, match=r"m\.csv:2: .*a quote that is opened in it is never closed"):
        load_manifest(path)


@pytest.mark.parametrize("suffix", [".tsv", ".csv"])
def test_byte_order_mark_and_windows_line_ends(tmp_path: Path, suffix: str) -> None:
    separator = "\t" if suffix == ".tsv" else ","
    lines = [
        separator.join(cells)
        for cells in (["audio_path", "duration", "transcript"], ["a.wav", "1.5", "chào"])
    ]
    path = tmp_path / f"m{suffix}"
    path.write_bytes(b"\xef\xbb\xbf" + ("\r\n".join(lines) + "\r\n").encode())
    manifest = load_manifest(path)
    assert manifest.column_names == ["audio_path", "duration", "transcript", "id"]
    assert manifest[0].texts == {TRANSCRIBE: "chào"}


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl"])
def test_another_encoding_is_named_with_its_line(tmp_path: Path, suffix: str) -> None:
    lines = {
        ".tsv": ["audio_path\tduration\ttranscript", "a.wav\t1\ta", "b.wav\t1\tcafé"],
        ".csv": ["audio_path,duration,transcript", "a.wav,1,a", "b.wav,1,café"],
        ".jsonl": [
            '{"audio_path": "0", "duration": 1}',
            '{"audio_path": "a", "duration": 1}',
            '{"audio_path": "é"}',
        ],
    }[suffix]
    path = write(tmp_path / f"m{suffix}", *lines, encoding="latin-1")
    with pytest.raises(UserError, match=rf"m\{suffix}:3: not UTF-8 \(byte 0xe9"):
        load_manifest(path)


def test_utf16_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "m.tsv", "audio_path\tduration", "a.wav\t1", encoding="utf-16")
    with pytest.raises(UserError, match="UTF-16; save it as UTF-8"):
        load_manifest(path)


def test_a_missing_column_is_named_with_the_nearest(tmp_path: Path) -> None:
    path = tsv(tmp_path, "a.wav\t1\tx", header="audio_path\tdurations\ttranscript")
    with pytest.raises(
        UserError, match=r"manifest\.tsv:1: the column 'duration' is missing; did you mean 'durations'"
    ):
        load_manifest(path)
    with pytest.raises(UserError, match=r":1: the column 'translation' is missing"):
        load_manifest(tsv(tmp_path, "a.wav\t1", header="audio_path\tduration"), require=["translation"])


def test_columns_are_mapped(tmp_path: Path) -> None:
    path = tsv(tmp_path, "a.wav\t1\tx\ty", header="path\tduration\tsentence\ttranscript")
    manifest = load_manifest(path, columns={"audio_path": "path", "transcript": "sentence"})
    assert manifest[0].texts == {TRANSCRIBE: "x"}
    with pytest.raises(
        UserError, match=r"data\.columns\.transcrip: not a column of ours; did you mean 'transcript'"
    ):
        load_manifest(path, columns={"transcrip": "sentence"})
    with pytest.raises(
        UserError, match=r"data\.columns\.transcript: the column 'sentense' is missing; did you mean"
    ):
        load_manifest(path, columns={"transcript": "sentense"})


def test_all_problems_come_at_once_with_their_lines(tmp_path: Path) -> None:
    path = tsv(
        tmp_path,
        "u1\tv\ta.wav\t1,5\ta\tb",
        "u2\tv\t\t1\ta\tb",
        "u3\tv\tc.wav\t0\ta\tb",
        "u4\tv\td.wav\t\ta\tb",
        "u1\tv\te.wav\t1\ta\tb",
    )
    with pytest.raises(UserError) as caught:
        load_manifest(path)
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"{path}:{n}" for n in (2, 3, 4, 5, 6)]
    assert "'1,5' is not a number" in lines[0]
    assert "audio_path: empty" in lines[1]
    assert "must be above 0" in lines[2]
    assert "no number of seconds" in lines[3]
    assert "'u1' is the id of line 2 too" in lines[4]


def test_no_more_than_twenty_problems_are_listed_and_the_rest_counted(tmp_path: Path) -> None:
    path = tsv(tmp_path, *(f"u{i}\tv\ta.wav\tx\ta\tb" for i in range(100)))
    with pytest.raises(UserError) as caught:
        load_manifest(path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 21
    assert lines[-1] == "… and 80 more"


@pytest.mark.parametrize("suffix", [".tsv", ".csv"])
def test_rows_of_another_width_are_named(tmp_path: Path, suffix: str) -> None:
    separator = "\t" if suffix == ".tsv" else ","
    rows = (["audio_path", "duration", "transcript"], ["a", "1", "x"], ["b", "1"], ["c", "1", "x", "y"])
    path = write(tmp_path / f"m{suffix}", *(separator.join(row) for row in rows))
    with pytest.raises(UserError) as caught:
        load_manifest(path)
    assert f"{path}:3: 2 cells, the header names 3 columns" in str(caught.value)
    assert f"{path}:4: 4 cells" in str(caught.value)


@pytest.mark.parametrize("suffix", [".tsv", ".csv"])
def test_stray_carriage_returns_and_blank_headers_are_named(tmp_path: Path, suffix: str) -> None:
    separator = "\t" if suffix == ".tsv" else ","
    path = tmp_path / f"m{suffix}"
    path.write_bytes(separator.join(["audio_path", "duration", "transcript\na", "1", "x\ry\n"]).encode())
    with pytest.raises(UserError, match=rf"m\{suffix}:2: .*a carriage return"):
        load_manifest(path)
    with pytest.raises(UserError, match=":1: the first line is blank"):
        load_manifest(
            write(path, "", separator.join(["audio_path", "duration"]), separator.join(["a.wav", "1"]))
        )


@pytest.mark.parametrize("suffix", [".tsv", ".csv"])
def test_blank_lines_are_passed_over_and_counted(tmp_path: Path, suffix: str) -> None:
    separator = "\t" if suffix == ".tsv" else ","
    rows = (
        separator.join(["audio_path", "duration"]),
        "",
        separator.join(["a", "1"]),
        "",
        "",
        separator.join(["b", "2"]),
        "",
    )
    manifest = load_manifest(write(tmp_path / f"m{suffix}", *rows))
    assert [manifest.line(i) for i in range(len(manifest))] == [3, 6]


def test_bad_jsonl_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "m.jsonl", '{"audio_path": "a", "duration": 1}', "{oops", "[1]")
    with pytest.raises(UserError) as caught:
        load_manifest(path)
    assert f"{path}:2: not JSON" in str(caught.value)
    assert f"{path}:3: a JSON object is expected" in str(caught.value)


def test_files_and_kinds_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load_manifest(tmp_path / "absent.tsv")
    with pytest.raises(UserError, match=r"a manifest is one of \.tsv, \.csv, \.jsonl, \.parquet"):
        load_manifest(write(tmp_path / "m.xlsx", "x"))
    (tmp_path / "empty.tsv").touch()
    with pytest.raises(UserError, match=r"empty\.tsv:1: the file is empty"):
        load_manifest(tmp_path / "empty.tsv")
    with pytest.raises(UserError, match="the column 'id' appears 2 times"):
        load_manifest(write(tmp_path / "twice.tsv", "id\tid", "a\tb"))


def test_a_manifest_without_rows_is_empty(tmp_path: Path) -> None:
    manifest = load_manifest(tsv(tmp_path))
    assert len(manifest) == 0
    assert manifest.durations.shape == (0,)


def test_ids_are_made_of_path_and_start(tmp_path: Path) -> None:
    header = "audio_path\tduration\tstart\tend"
    manifest = load_manifest(tsv(tmp_path, "v\\a.wav\t1\t\t", "v/a.wav\t1\t2.5\t3.5", header=header))
    assert manifest.ids == ["v/a.wav", "v/a.wav@2.5"]


def test_duration_follows_from_start_and_end(tmp_path: Path) -> None:
    manifest = load_manifest(tsv(tmp_path, "a.wav\t1.5\t4", header="audio_path\tstart\tend"))
    assert manifest[0].duration == 2.5
    with pytest.raises(UserError, match="end: 1 s is not after the start"):
        load_manifest(tsv(tmp_path, "a.wav\t1.5\t1", header="audio_path\tstart\tend"))


def test_paths_start_from_the_root_first_then_from_the_manifest(tmp_path: Path) -> None:
    root, beside = tmp_path / "root", tmp_path / "export"
    root.mkdir()
    beside.mkdir()
    (root / "a.wav").write_bytes(b"x")
    (beside / "b.wav").write_bytes(b"x")
    manifest = load_manifest(
        tsv(beside, "1\tv\ta.wav\t1\ta\tb", "2\tv\tb.wav\t1\ta\tb"), audio_root=root, check_files=True
    )
    assert [e.audio.path for e in manifest] == [str(root / "a.wav"), str(beside / "b.wav")]
    assert load_manifest(manifest.path)[0].audio.path == str(beside / "a.wav")


def test_missing_files_are_named_with_their_lines(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"x")
    (tmp_path / "folder.wav").mkdir()
    path = tsv(tmp_path, *(f"{n}\tv\t{n}.wav\t1\ta\tb" for n in ("a", "b", "folder")))
    with pytest.raises(UserError) as caught:
        load_manifest(path, check_files=True)
    assert str(caught.value).splitlines() == [
        f"{path}:3: audio_path: no such file: {tmp_path / 'b.wav'}",
        f"{path}:4: audio_path: not a file: {tmp_path / 'folder.wav'}",
    ]


def test_word_languages_must_count_the_words(tmp_path: Path) -> None:
    header = "audio_path\tduration\ttranscript\tword_languages"
    path = tsv(tmp_path, "a\t1\txin  chào\tvi vi", "b\t1\t[cười] xin\tvi", "c\t1\tx\t", header=header)
    with pytest.raises(UserError, match=r":3: word_languages: 1 tags for the 2 words.*polyvox preprocess"):
        load_manifest(path)
    assert load_manifest(path, check_words=False)[1].word_languages == ("vi",)


def test_bad_words_are_named_on_access(tmp_path: Path) -> None:
    path = tsv(tmp_path, "a\t1\t[[1]]", header="audio_path\tduration\twords")
    with pytest.raises(UserError, match=rf"{path}:2: words: not JSON of the form"):
        load_manifest(path)[0]


def test_select_slices_and_negative_indices(tmp_path: Path) -> None:
    manifest = load_manifest(tsv(tmp_path, *(f"u{i}\tv\ta{i}.wav\t{i + 1}\ta\tb" for i in range(5))))
    assert manifest.select([3, 0]).ids == ["u3", "u0"]
    assert manifest[1:3].ids == ["u1", "u2"]
    assert manifest[-1].id == "u4"
    assert manifest.select([3])[0].source.endswith(":5")
    assert len(manifest.select([])) == 0
    with pytest.raises(IndexError):
        manifest[5]


def test_texts_carry_their_languages(tmp_path: Path) -> None:
    header = "audio_path\tduration\ttranscript\ttranslation\tlanguage\ttarget_language"
    manifest = load_manifest(tsv(tmp_path, "a\t1\thi\tchào\ten\tvi", header=header))
    assert list(manifest.texts()) == [(TRANSCRIBE, "en", "hi"), (TRANSLATE, "vi", "chào")]


def test_unknown_columns_are_kept_and_absent_ones_named(tmp_path: Path) -> None:
    manifest = load_manifest(tsv(tmp_path, "a\t1\tf", header="audio_path\tduration\tgender"))
    assert manifest.column("gender") == ["f"]
    with pytest.raises(UserError, match=r":1: there is no column 'age'"):
        manifest.column("age")


def large(folder: Path, rows: int = 150_000) -> Path:
    path = folder / "large.tsv"
    with path.open("w") as handle:
        handle.write("audio_path\tduration\ttranscript\n")
        handle.writelines(
            f"video/segment_{i}.wav\t{1 + i % 7}.5\tsome words that were said {i}\n" for i in range(rows)
        )
    return path


def read_ids(manifest: Manifest) -> tuple[int, str]:
    return len(manifest), manifest[len(manifest) - 1].id


def test_a_large_manifest_stays_off_the_python_heap_and_out_of_the_pickle(tmp_path: Path) -> None:
    path = large(tmp_path)
    before = sys.getallocatedblocks()
    manifest = load_manifest(path)
    assert sys.getallocatedblocks() - before < 5_000  # a Python object per row would be 150,000
    sent = pickle.dumps(manifest)
    assert len(sent) < 10_000
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(read_ids, (manifest,)) == (150_000, "video/segment_149999.wav")
    assert pickle.loads(sent).select([7])[0] == manifest[7]
    spool = Path(manifest._spool or "")
    assert spool.is_file()
    del manifest
    assert not spool.exists()


def test_a_small_manifest_travels_in_the_pickle(tmp_path: Path) -> None:
    manifest = load_manifest(tsv(tmp_path, "u1\tv\ta.wav\t1\ta\tb"))
    again = pickle.loads(pickle.dumps(manifest))
    assert again[0] == manifest[0]
    assert manifest._spool is None


def test_the_hash_is_that_of_the_file(tmp_path: Path) -> None:
    import hashlib

    path = tsv(tmp_path, "u1\tv\ta.wav\t1\ta\tb")
    assert load_manifest(path).sha256() == hashlib.sha256(path.read_bytes()).hexdigest()


CELLS = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8), st.sampled_from([".tsv", ".csv", ".jsonl"]))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, texts: list, suffix: str) -> None:
    path = tmp_path_factory.mktemp("m") / f"m{suffix}"
    with path.open("w", encoding="utf-8", newline="") as handle:
        put = row_writer(handle, suffix, ["audio_path", "duration", "transcript", "translation"])
        for i, (first, second) in enumerate(texts):
            put({"audio_path": f"{i}.wav", "duration": 1.0, "transcript": first, "translation": second})
    manifest = load_manifest(path)
    assert len(manifest) == len(texts)
    for i, (first, second) in enumerate(texts):
        expected = {TRANSCRIBE: first.strip(), TRANSLATE: second.strip()}
        found = manifest[i].texts
        if suffix == ".tsv" and any(t[:1] == '"' and '""' in t[1:-1] for t in (first, second)):
            continue  # looks like a cell that a CSV writer has quoted
        assert found == {task: text for task, text in expected.items() if text}
        assert manifest[i].source == f"{path}:{i + (1 if suffix == '.jsonl' else 2)}"


def test_the_line_column_is_not_shown(tmp_path: Path) -> None:
    manifest = load_manifest(tsv(tmp_path, "u1\tv\ta.wav\t1\ta\tb"))
    assert LINE not in manifest.column_names
    assert manifest.line(0) == 2
