"""Tables of others: structured cells, words for "no value", separators, encodings, names with accents, other columns."""

from __future__ import annotations

import json
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from shard_assets import archive, sample
from speech_files import manifest, sound

from training.base.errors import UserError
from training.cli.preprocess import main
from training.cli.transcribe import find_clips
from training.data.dataset import SpeechDataset, validate
from training.data.example import TRANSCRIBE, Example
from training.data.file_names import existing, on_disk
from training.data.manifest import load_manifest
from training.data.missing import MARKERS
from training.data.prepare.clean import preprocess
from training.data.prepare.split import split
from training.data.sources.audio_folder import load_audio_folder
from training.data.sources.dataset import load_source
from training.data.sources.librispeech import load_librispeech
from training.data.sources.shards.source import load_shards
from training.data.tables import json_cell, read_table
from training.data.tasks import check_tasks
from training.data.timestamps_manifest import read_timestamps
from training.registry.rows import read_metadata

NFC, NFD = unicodedata.normalize("NFC", "café 한국.wav"), unicodedata.normalize("NFD", "café 한국.wav")
STRUCTURES: list[Any] = [["a", "b"], [], {"en": "a"}, {}, True, False, [[1, 2]], 12.5, 12.0, 1e300]


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def rows(**cells: Any) -> list[dict[str, Any]]:
    """A good row before and behind one with these cells."""
    good = {"audio_path": "a.wav", "duration": 1.5, "transcript": "a"}
    return [{**good, "id": "1"}, {**good, "id": "2", **cells}, {**good, "id": "3"}]


# -- cells that are no text ------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", STRUCTURES)
@pytest.mark.parametrize("name", ["transcript", "translation"])
def test_a_structure_in_place_of_a_text_is_a_mistake_with_its_line(
    tmp_path: Path, name: str, value: Any
) -> None:
    path = jsonl(tmp_path / "m.jsonl", *rows(**{name: value}))
    with pytest.raises(UserError) as caught:
        load_manifest(path)
    assert str(caught.value).startswith(f"{path}:2: {name}: ")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "name", ["id", "audio_path", "speaker", "language", "domain", "group", "split", "duration", "start"]
)
def test_a_structure_in_another_column_of_ours_is_a_mistake(tmp_path: Path, name: str) -> None:
    for value in (["a"], {"path": "a.wav"}, True):
        with pytest.raises(UserError, match=rf"m\.jsonl:2: {name}: "):
            load_manifest(jsonl(tmp_path / "m.jsonl", *rows(**{name: value})))


def test_structures_under_another_name_are_found_too_and_all_at_once(tmp_path: Path) -> None:
    good = {"audio_path": "a.wav", "duration": 1}
    path = jsonl(tmp_path / "m.jsonl", *({**good, "id": i, "sentence": ["a", i]} for i in range(25)))
    with pytest.raises(UserError) as caught:
        load_manifest(path, columns={"transcript": "sentence"})
    lines = str(caught.value).splitlines()
    assert lines[0] == f'{path}:1: transcript: ["a", 0] is a list; text is expected'
    assert len(lines) == 21
    assert lines[-1] == "… and 5 more"
    metadata = read_metadata(jsonl(path, {**good, "sentence": ["a"]}, {**good, "id": "b", "sentence": "b"}))
    assert [(drop.reason, drop.detail) for drop in metadata.broken] == [
        ("bad_row", f'{path}:1: transcript: ["a"] is a list; text is expected')
    ]


def test_structures_stay_where_a_column_is_made_of_them_or_is_not_ours(tmp_path: Path) -> None:
    extra = {
        "words": [["a", 0, 1]],
        "word_languages": ["vi"],
        "meta": {"a": [1]},
        "tags": ["x"],
        "ok": True,
        "snr": 1.5,
    }
    made = load_manifest(jsonl(tmp_path / "m.jsonl", *rows(**extra)))
    assert made[1].words[0].text == "a"
    assert made[1].word_languages == ("vi",)
    assert [made.column(name)[1] for name in ("meta", "tags", "ok", "snr")] == [
        '{"a": [1]}',
        '["x"]',
        "true",
        "1.5",
    ]
    other = [
        {
            "audio_path": "a.wav",
            "duration": 1,
            "transcript": "a b",
            "langs": ["vi", "en"],
            "times": [["a", 0, 1]],
        }
    ]
    mapped = load_manifest(
        jsonl(tmp_path / "n.jsonl", *other), columns={"word_languages": "langs", "words": "times"}
    )
    assert mapped[0].word_languages == ("vi", "en")
    assert mapped[0].words[0].end == 1.0


def test_a_whole_number_is_the_text_of_its_digits(tmp_path: Path) -> None:
    made = load_manifest(jsonl(tmp_path / "m.jsonl", *rows(transcript=12, speaker=7)))
    assert made[1].texts == {TRANSCRIBE: "12"}
    assert made[1].speaker == "7"
    only = [{"audio_path": f"{n}.wav", "duration": 1, "transcript": n} for n in (12, 13)]
    assert load_manifest(jsonl(tmp_path / "n.jsonl", *only))[1].texts == {TRANSCRIBE: "13"}


@pytest.mark.parametrize(
    "column",
    [
        pa.array([["a", "b"], None]),
        pa.array([{"text": "a"}, None]),
        pa.array([True, None]),
        pa.array([12.5, None]),
        pa.array([1, None], pa.date32()),
        pa.array([[True]], pa.list_(pa.bool_())).take(pa.array([0, None])),
    ],
)
@pytest.mark.parametrize("name", ["transcript", "sentence"])
def test_parquet_columns_that_are_no_text(tmp_path: Path, name: str, column: pa.Array) -> None:
    path = tmp_path / "m.parquet"
    parquet.write_table(
        pa.table({"audio_path": ["a.wav", "b.wav"], "duration": [1.0, 2.0], name: column}), path
    )
    columns = {"transcript": name} if name != "transcript" else {}
    with pytest.raises(UserError, match=r"m\.parquet:1: transcript: "):
        load_manifest(path, columns=columns)
    if name != "transcript":
        assert load_manifest(path).column(name)[1] is None


def test_parquet_texts_of_every_type_of_text(tmp_path: Path) -> None:
    texts = pa.array(["một", None])
    kinds = [
        texts,
        texts.cast(pa.large_string()),
        texts.dictionary_encode(),
        pa.array([1, None]),
        pa.nulls(2),
    ]
    for kind in kinds:
        parquet.write_table(
            pa.table({"audio_path": ["a", "b"], "duration": [1, 2], "transcript": kind}),
            tmp_path / "m.parquet",
        )
        assert load_manifest(tmp_path / "m.parquet").column("transcript")[0] in ("một", "1", None)


def test_parquet_that_cannot_be_a_manifest_ends_in_words(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    sounds = pa.array([{"bytes": b"x", "path": "a.wav"}])
    parquet.write_table(pa.table({"audio": sounds, "duration": [1.0]}), path)
    with pytest.raises(
        UserError, match=r"m\.parquet: column 'audio' holds bytes; read such a dataset with data\.dataset"
    ):
        load_manifest(path)
    parquet.write_table(pa.table([pa.array(["a"]), pa.array(["b"])], ["audio_path", "audio_path"]), path)
    with pytest.raises(UserError, match="'audio_path' appears 2 times"):
        load_manifest(path)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_parquet_lengths_of_time_are_seconds(tmp_path: Path, unit: str) -> None:
    lengths = pa.array([1500, None], pa.duration("ms")).cast(pa.duration(unit), safe=False)
    table = pa.table({"audio_path": ["a", "b"], "duration": lengths, "transcript": ["a", "b"]})
    parquet.write_table(table, tmp_path / "m.parquet")
    found = load_manifest(tmp_path / "m.parquet", need_duration=False).table.column("duration").to_pylist()
    assert found == [1.0 if unit == "s" else 1.5, None]


def test_a_dataset_with_lists_as_texts_is_refused(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav", 1.0)
    table = pa.table({"audio": ["a.wav"], "sentences": [["a", "b"]]})
    (tmp_path / "d").mkdir()
    parquet.write_table(table, tmp_path / "d" / "x.parquet")
    with pytest.raises(UserError, match=r"transcript: .* is a list"):
        load_source(
            str(tmp_path / "d" / "x.parquet"), columns={"transcript": "sentences"}, audio_root=tmp_path
        )


def test_json_cell_refuses_structures_under_our_names() -> None:
    assert json_cell(["a"], "anything") == '["a"]'
    assert json_cell([["a", 0, 1]], "words") == '[["a", 0, 1]]'
    assert (json_cell(12, "transcript"), json_cell(float("nan"), "transcript")) == ("12", None)
    for value in (["a"], {"a": 1}, True, 1.5):
        with pytest.raises(ValueError, match="transcript: "):
            json_cell(value, "transcript")


def test_a_structure_in_a_timestamps_manifest_is_named_with_its_sample(tmp_path: Path) -> None:
    sample = {
        "audio_path": "a.wav",
        "text": "a",
        "duration": 1,
        "words": [{"word": "a", "start": 0, "end": 1}],
    }
    path = tmp_path / "timestamps_manifest.json"
    path.write_text(json.dumps({"version": 1, "samples": [sample, {**sample, "speaker": ["x"]}]}))
    with pytest.raises(UserError, match=r"sample 2: speaker: .* is a list"):
        read_timestamps(path)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('{"audio_path": "a", "transcript": "x", "transcript": "y"}', "the key 'transcript' is there twice"),
        ('{"transcript": "\\ud800"}', "half of a surrogate pair"),
        ('{"duration": ' + "1" * 5000 + "}", "digits"),
        ("[" * 100_000, "nested too deeply"),
        ('{"meta": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        ('{"meta": ' + '{"a":' * 30_000 + "1" + "}" * 30_000 + "}", "nested too deeply"),
        ('{"meta": {"a": 1, "a": 2}}', "the key 'a' is there twice"),
        ('{"a": 1}{"a": 2}', "not JSON: Extra data"),
    ],
)
def test_odd_json_ends_in_words_and_goes_to_the_list_of_broken_rows(
    tmp_path: Path, line: str, what: str
) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(f'{{"a": 1}}\n{line}\n\n')
    with pytest.raises(UserError, match=rf"m\.jsonl:2: .*{what}"):
        read_table(path)
    broken: list[tuple[int, str]] = []
    assert read_table(path, broken).num_rows == 1
    assert [number for number, _ in broken] == [2]


def test_brackets_in_a_text_are_no_nesting(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps({"transcript": "[" * 5000}) + "\n")
    assert read_table(path).column("transcript").to_pylist() == ["[" * 5000]


@pytest.mark.parametrize("cell", ["[" * 100_000, '[["a", 0, {"b": 1, "b": 2}]]'])
def test_odd_word_times_are_refused_with_their_line(tmp_path: Path, cell: str) -> None:
    path = tmp_path / "m.tsv"
    path.write_text(f"audio_path\tduration\ttranscript\twords\na.wav\t1\ta\t{cell}\n")
    with pytest.raises(UserError, match=r"m\.tsv:2: words: "):
        list(load_manifest(path))


@pytest.mark.parametrize("content", ["[" * 100_000, '{"samples": [{"text": "a", "text": "b"}]}'])
def test_an_odd_timestamps_manifest_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "timestamps_manifest.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"damaged, (not JSON: nested|the key 'text')"):
        read_timestamps(path)


# -- separators and encodings ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_what_separates_the_cells_is_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], separator: str, stated: bool, end: str, mark: str
) -> None:
    lines = [f"sep={separator}"] if stated else []
    lines += [separator.join(("audio_path", "duration", "transcript"))]
    lines += [
        separator.join(("a.wav", "1.5", '"một; hai, ba\t| ""bốn"""')),
        separator.join(("b.wav", "2", "x")),
    ]
    path = tmp_path / "m.csv"
    path.write_bytes((mark + end.join(lines) + end).encode())
    made = load_manifest(path)
    assert [e.texts[TRANSCRIBE] for e in made] == ['một; hai, ba\t| "bốn"', "x"]
    assert [made.line(i) for i in range(2)] == [2 + stated, 3 + stated]
    said = capsys.readouterr().err
    assert (said == "") == (separator == ",")


def test_a_comma_file_with_semicolons_in_its_cells_stays_one(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("audio_path,duration,transcript,a;b;c;d;e\na.wav,1,x; y; z,;\n")
    assert load_manifest(path)[0].texts == {TRANSCRIBE: "x; y; z"}
    path.write_text('audio_path;duration;"text, raw";"a,b,c,d"\na.wav;1,5;x, y;,\n')
    made = load_manifest(path, columns={"transcript": "text, raw"})
    assert (made[0].texts, made[0].duration) == ({TRANSCRIBE: "x, y"}, 1.5)


def test_a_decimal_comma_is_read_only_where_semicolons_separate(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("audio_path;duration;start;end\na.wav;;0,25;1,5\n")
    made = load_manifest(path)[0]
    assert (made.audio.start, made.audio.end, made.duration) == (0.25, 1.5, 1.25)
    path.write_text('audio_path,duration\na.wav,"1,5"\n')
    with pytest.raises(UserError, match=r"m\.csv:2: duration: '1,5' is not a number"):
        load_manifest(path)


def test_a_stated_separator_that_is_none_and_a_csv_called_tsv(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("sep=x\naudio_pathxduration\n")
    with pytest.raises(UserError, match=r"m\.csv:1: sep=x"):
        read_table(tmp_path / "m.csv")
    (tmp_path / "m.tsv").write_text("sep=;\naudio_path;duration\n")
    with pytest.raises(UserError, match=r"m\.tsv:1: sep=; .*rename the file to \.csv"):
        read_table(tmp_path / "m.tsv")
    (tmp_path / "m.tsv").write_text("audio_path,duration\na.wav,1\n")
    with pytest.raises(UserError, match=r"the header holds no tab.*rename the file to \.csv"):
        load_manifest(tmp_path / "m.tsv")


@pytest.mark.parametrize("cell", ['"hello" he said', '"a" "b"', '"a"b'])
def test_text_behind_a_closing_quote_is_refused_and_never_loses_its_quotes(tmp_path: Path, cell: str) -> None:
    path = tmp_path / "m.csv"
    path.write_text(f"audio_path,duration,transcript\na.wav,1,x\nb.wav,1,{cell}\n")
    with pytest.raises(UserError, match=r"m\.csv:3: .*text after a closing quote"):
        read_table(path)
    path = path.with_suffix(".tsv")
    path.write_text(f"audio_path\tduration\ttranscript\nb.wav\t1\t{cell}\n")
    assert load_manifest(path)[0].texts == {TRANSCRIBE: cell}


@pytest.mark.parametrize("cell", ['he said "hello"', '5" disc', "it's", 'a "b", c'.replace(",", ";")])
def test_a_quote_inside_a_bare_cell_stays(tmp_path: Path, cell: str) -> None:
    path = tmp_path / "m.csv"
    path.write_text(f"audio_path,duration,transcript\na.wav,1,{cell}\n")
    assert load_manifest(path)[0].texts == {TRANSCRIBE: cell}


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
@pytest.mark.parametrize(
    ("encoding", "what"),
    [
        ("cp1252", r"not UTF-8 \(byte 0xe9.*Windows-1252 \(.*é.*iconv -f WINDOWS-1252 -t UTF-8"),
        ("utf-16", "UTF-16; save it as UTF-8"),
        ("utf-16-le", "NUL byte: the file is UTF-16"),
        ("utf-16-be", "NUL byte: the file is UTF-16"),
        ("utf-32", "UTF-32; save it as UTF-8"),
    ],
)
def test_other_encodings_are_named(tmp_path: Path, suffix: str, encoding: str, what: str) -> None:
    text = '{"audio_path": "café"}\n' if suffix == ".jsonl" else "audio_path\ncafé\n"
    path = tmp_path / f"m{suffix}"
    path.write_bytes(text.encode(encoding))
    with pytest.raises(UserError, match=what):
        read_table(path)


def test_a_column_with_an_internal_name_is_refused(tmp_path: Path) -> None:
    for suffix, text in (
        (".csv", "__line__,a\n1,2\n"),
        (".tsv", "__line__\ta\n1\t2\n"),
        (".jsonl", '{"__line__": 1}\n'),
    ):
        path = tmp_path / f"m{suffix}"
        path.write_text(text)
        with pytest.raises(UserError, match="'__line__' is used inside this library"):
            read_table(path)


def test_rows_of_old_line_ends_are_refused_not_lost(tmp_path: Path) -> None:
    for suffix, separator in ((".tsv", "\t"), (".csv", ",")):
        path = tmp_path / f"m{suffix}"
        for text in ("audio_path,duration\ra.wav,1\rb.wav,1\r", "audio_path,duration\na.wav,1\rb.wav,1\n"):
            path.write_text(text.replace(",", separator), newline="")
            with pytest.raises(UserError, match="a carriage return"):
                read_table(path)


# -- words for "no value" --------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", sorted(MARKERS))
def test_preprocess_puts_a_word_for_no_value_into_the_ledger(tmp_path: Path, word: str) -> None:
    sound(tmp_path / "a.wav", 1.0)
    cells = [
        {"id": i, "audio_path": "a.wav", "duration": 1.0, "transcript": text}
        for i, text in enumerate(("a", f" {word} ", f"{word} a"))
    ]
    source = manifest(tmp_path / "in.jsonl", cells)
    _, ledger = preprocess(source, tmp_path / "out.tsv")
    assert [(drop.id, drop.reason) for drop in ledger] == [("1", "missing_text_marker")]
    assert "--keep_text_marker" in next(iter(ledger)).detail
    _, ledger = preprocess(source, tmp_path / "kept.tsv", keep_markers=[word])
    assert len(ledger) == 0


@pytest.mark.parametrize("word", ["none", "Null", "na", "Nan", "nil", "no", "-", "not available"])
def test_other_words_are_words(tmp_path: Path, word: str) -> None:
    sound(tmp_path / "a.wav", 1.0)
    source = manifest(tmp_path / "in.tsv", [{"audio_path": "a.wav", "duration": 1.0, "transcript": word}])
    assert len(preprocess(source, tmp_path / "out.tsv")[1]) == 0


def test_a_translation_that_is_not_required_is_emptied_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sound(tmp_path / "a.wav", 1.0)
    cells = {"audio_path": "a.wav", "duration": 1.0, "transcript": "a", "translation": "NaN"}
    source = manifest(tmp_path / "in.tsv", [cells])
    preprocess(source, tmp_path / "out.tsv", require=["transcript"])
    assert load_manifest(tmp_path / "out.tsv").column("translation") == [None]
    assert (
        "translation: 1 cells that only say nan, None or the like are left empty" in capsys.readouterr().err
    )


def test_the_option_keeps_a_word_and_refuses_one_that_is_always_kept(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav", 1.0)
    source = manifest(tmp_path / "in.tsv", [{"audio_path": "a.wav", "duration": 1.0, "transcript": "null"}])
    options = ["--input", str(source), "--output", str(tmp_path / "out.tsv")]
    assert main([*options, "--keep_text_marker", "null"]) == 0
    with pytest.raises(UserError, match="--keep_text_marker: 'zero' is not taken for a missing text"):
        main([*options, "--keep_text_marker", "zero"])


def encode(example: Example, waveform: np.ndarray) -> dict[str, Any]:
    return {"wave": waveform}


def test_the_look_before_training_puts_such_rows_into_the_ledger(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav", 1.0)
    cells = [
        {"id": i, "audio_path": "a.wav", "duration": 1.0, "transcript": t}
        for i, t in enumerate(("a", "None", "null"))
    ]
    made = load_manifest(manifest(tmp_path / "in.tsv", cells))
    kept, ledger = validate(SpeechDataset(made, encode, 16_000, keep_markers=("null",)))
    assert kept.tolist() == [0, 2]
    assert [(drop.id, drop.reason) for drop in ledger] == [("1", "missing_text_marker")]
    assert "data.keep_text_markers: 'None'" in next(iter(ledger)).detail


def test_split_warns_of_such_texts(tmp_path: Path) -> None:
    cells = [
        {
            "audio_path": f"{i}.wav",
            "duration": 1.0,
            "speaker": f"s{i}",
            "transcript": "nan" if i == 3 else "a",
        }
        for i in range(6)
    ]
    report = split(manifest(tmp_path / "in.tsv", cells), tmp_path / "out", by="speaker")
    assert any("transcript of 1 utterances is only 'nan'" in line for line in report["warnings"])


# -- durations that the table does not know ----------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["", "N/A", "nan", "NaN", "None", "null", "<NA>", " - "])
def test_preprocess_reads_an_unknown_duration_from_the_header(tmp_path: Path, cell: str) -> None:
    sound(tmp_path / "a.wav", 1.25)
    sound(tmp_path / "b.wav", 40.0)
    path = tmp_path / "in.csv"
    path.write_text(
        f"audio_path,duration,transcript\na.wav,{cell},a\nb.wav,{cell},b\na.wav,1.25,c\n".replace(
            "a.wav,1.25", "./a.wav,1.25"
        )
    )
    total, ledger = preprocess(path, tmp_path / "out.tsv")
    assert (total, [(drop.id, drop.reason) for drop in ledger]) == (3, [("b.wav", "too_long")])
    assert [e.duration for e in load_manifest(tmp_path / "out.tsv")] == [1.25, 1.25]
    with pytest.raises(UserError, match=r"in\.csv:2: duration: no number of seconds in this row"):
        preprocess(path, tmp_path / "unchecked.tsv", check_files=False)
    with pytest.raises(UserError, match=r"in\.csv:2: duration: .*polyvox preprocess reads it"):
        load_manifest(path)


@pytest.mark.parametrize(
    ("header", "row", "expected"),
    [
        ("audio_path,transcript", "a.wav,a", 2.0),
        ("audio_path,start,end,transcript", "a.wav,0.5,N/A,a", 1.5),
        ("audio_path,start,end,duration,transcript", "a.wav,0.5,1.25,N/A,a", 0.75),
        ("audio_path,start,end,duration,transcript", "a.wav,N/A,N/A,N/A,a", 2.0),
        ("audio_path,start,duration,transcript", "a.wav,0.5,,a", 1.5),
    ],
)
def test_preprocess_reads_stretches_without_a_duration(
    tmp_path: Path, header: str, row: str, expected: float
) -> None:
    sound(tmp_path / "a.wav", 2.0)
    path = tmp_path / "in.csv"
    path.write_text(f"{header}\n{row}\n")
    preprocess(path, tmp_path / "out.csv")
    assert load_manifest(tmp_path / "out.csv")[0].duration == pytest.approx(expected)


@pytest.mark.parametrize("cell", ["abc", "1:30", "0", "-1", "inf"])
def test_a_duration_that_is_wrong_is_still_a_mistake(tmp_path: Path, cell: str) -> None:
    sound(tmp_path / "a.wav", 1.0)
    path = tmp_path / "in.csv"
    path.write_text(f"audio_path,duration,transcript\na.wav,{cell},a\n")
    with pytest.raises(UserError, match=r"in\.csv:2: duration: "):
        preprocess(path, tmp_path / "out.tsv")


def test_an_unknown_duration_of_a_missing_file_goes_to_the_ledger(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav", 1.0)
    path = tmp_path / "in.csv"
    path.write_text("audio_path,duration,transcript\na.wav,,a\ngone.wav,,b\n")
    assert [drop.reason for drop in preprocess(path, tmp_path / "out.tsv")[1]] == ["missing_audio"]


def test_an_audio_folder_reads_what_its_metadata_does_not_know(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav", 1.0)
    sound(tmp_path / "b.wav", 2.0)
    (tmp_path / "metadata.csv").write_text("file_name,duration,text\na.wav,1,a\nb.wav,N/A,b\n")
    made = load_audio_folder(tmp_path, "train", {"transcript": "text"})
    assert made.durations.tolist() == [1.0, 2.0]


def test_the_registry_reads_an_unknown_duration_too(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("path,duration,text\na.wav,N/A,a\n")
    metadata = read_metadata(path)
    assert len(metadata.broken) == 0
    assert metadata.manifest[0].duration is None


# -- columns under other names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["text", "Text", "sentence", "transcription", "normalized_text", "transkript"]
)
def test_a_missing_transcript_is_noticed_with_a_guess_and_the_option(tmp_path: Path, name: str) -> None:
    path = tmp_path / "m.csv"
    path.write_text(f"audio_path,duration,{name}\na.wav,1,a\n")
    with pytest.raises(
        UserError,
        match=rf":1: the column 'transcript' is missing.*audio_path, duration, {name}\); add data\.columns\.transcript={name}",
    ):
        load_manifest(path, need_text=True)
    with pytest.raises(UserError, match=rf"add --column transcript={name}"):
        preprocess(path, tmp_path / "out.tsv")
    with pytest.raises(UserError, match=rf"add --column transcript={name}"):
        split(path, tmp_path / "splits")


def test_all_missing_columns_are_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("audio_filepath,length,sentence\na.wav,1,a\n")
    with pytest.raises(UserError) as caught:
        load_manifest(path, need_text=True)
    advice = [line.rsplit("; add ", 1)[1] for line in str(caught.value).splitlines()]
    assert advice == [
        "data.columns.audio_path=audio_filepath",
        "data.columns.duration=length",
        "data.columns.transcript=sentence",
    ]


def test_shards_whose_text_has_another_name_say_the_option(tmp_path: Path) -> None:
    archive(tmp_path / "s.tar", sample("a", transcript=None, text="hello"))
    with pytest.raises(UserError, match=r"no sample can be used\n[^$]*: data\.columns\.transcript=text"):
        load_shards(tmp_path, default_domain="x")
    assert load_shards(tmp_path, columns={"transcript": "text"}, default_domain="x")[0].texts == {
        TRANSCRIBE: "hello"
    }


def test_shards_refuse_structures_as_texts_and_read_unknown_durations(tmp_path: Path) -> None:
    rows = [
        *sample("a", sentence=["x"], transcript=None),
        *sample("b", sentence="x", duration="N/A", transcript=None),
    ]
    archive(tmp_path / "s.tar", rows)
    source = load_shards(tmp_path, columns={"transcript": "sentence"}, default_domain="x")
    assert [(drop.reason, drop.detail) for drop in source.refused] == [
        ("bad_sidecar", 'a.json: transcript: ["x"] is a list; text is expected')
    ]
    assert source.durations.tolist() == [0.5]


def test_a_task_without_a_column_is_told_the_option(tmp_path: Path) -> None:
    cells = {"audio_path": "a.wav", "duration": 1.0, "translation": "a", "sentence": "b"}
    made = load_manifest(manifest(tmp_path / "m.tsv", [cells]), need_text=True)
    with pytest.raises(UserError, match=r"if that is 'sentence', add data\.columns\.transcript=sentence"):
        check_tasks(made, (TRANSCRIBE,), "data.train", every=True)


def test_split_takes_columns_under_other_names(tmp_path: Path) -> None:
    cells = [{"path": f"{i}.wav", "duration": 1.0, "speaker": f"s{i}", "text": "a"} for i in range(6)]
    source = manifest(tmp_path / "in.tsv", cells)
    split(source, tmp_path / "out", by="speaker", columns={"audio_path": "path", "transcript": "text"})
    assert load_manifest(tmp_path / "out" / "train.csv")[0].texts == {TRANSCRIBE: "a"}


# -- names with accents ------------------------------------------------------------------------------------------


@pytest.fixture(params=[(NFC, NFD), (NFD, NFC)], ids=["table NFD", "table NFC"])
def spelt(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """How the disk and the table spell one name; skipped where the file system takes both for one."""
    on_this_disk, in_the_table = request.param
    (tmp_path / "probe").mkdir()
    (tmp_path / "probe" / on_this_disk).touch()
    if (tmp_path / "probe" / in_the_table).exists():
        pytest.skip("this file system takes both spellings for one name")
    return on_this_disk, in_the_table


def test_a_file_is_found_under_the_other_spelling(tmp_path: Path, spelt: tuple[str, str]) -> None:
    there, asked = spelt
    sound(tmp_path / "folder" / there, 1.0)
    path = manifest(
        tmp_path / "m.tsv", [{"audio_path": f"folder/{asked}", "duration": 1.0, "transcript": "a"}]
    )
    found = str(tmp_path / "folder" / there)
    assert load_manifest(path, check_files=True)[0].audio.path == found
    assert load_manifest(path, audio_root=tmp_path, check_files=True)[0].audio.path == found
    assert len(load_manifest(path).waveform(0, 16_000)) == 16_000
    assert len(preprocess(path, tmp_path / "out" / "clean.tsv")[1]) == 0
    assert len(load_manifest(tmp_path / "out" / "clean.tsv").waveform(0, 16_000)) == 16_000
    assert find_clips([tmp_path / "folder" / asked]) == [tmp_path / "folder" / there]


def test_folder_and_file_may_be_spelt_in_different_ways(tmp_path: Path, spelt: tuple[str, str]) -> None:
    there, asked = spelt
    for folder, name in ((there, asked), (asked, there), (there, there)):
        path = tmp_path / "x" / folder.removesuffix(".wav") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        for other in (asked, there):
            wanted = tmp_path / "x" / asked.removesuffix(".wav") / other
            assert existing(wanted) is not None
        for one in path.parent.iterdir():
            one.unlink()
        path.parent.rmdir()
    assert existing(tmp_path / asked) is None
    assert on_disk(tmp_path / asked) == tmp_path / asked
    assert existing("é" * 5000) is None


def test_the_exact_spelling_wins_where_both_are_there(tmp_path: Path, spelt: tuple[str, str]) -> None:
    for name in spelt:
        (tmp_path / name).touch()
        assert existing(tmp_path / name) == tmp_path / name


def test_audio_folder_and_registry_find_the_other_spelling(
    tmp_path: Path, spelt: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    there, asked = spelt
    sound(tmp_path / "clips" / there, 1.0)
    (tmp_path / "clips" / "metadata.csv").write_text(f"file_name,transcript\n{asked},a\n", encoding="utf-8")
    made = load_audio_folder(tmp_path / "clips", "train")
    assert (made.durations.tolist(), made[0].audio.path) == ([1.0], str(tmp_path / "clips" / there))
    other = tmp_path / "tables" / "t.csv"
    other.parent.mkdir()
    other.write_text(f"path,text\nclips/{asked},a\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert read_metadata(other).manifest[0].audio.path == str(tmp_path / "clips" / there)


def test_librispeech_finds_the_other_spelling(tmp_path: Path, spelt: tuple[str, str]) -> None:
    there, asked = (name.removesuffix(".wav").replace(" ", "") for name in spelt)
    folder = tmp_path / "LibriSpeech" / "dev" / "1" / "2"
    sound(folder / f"{there}.flac", 1.0)
    (folder / "1-2.trans.txt").write_text(f"{asked} HELLO\n", encoding="utf-8")
    made = load_librispeech(tmp_path, ["dev"])
    assert len(made.refused) == 0
    assert len(made.waveform(0, 16_000)) == 16_000


def test_a_command_says_a_missing_column_with_status_two(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("audio_path,duration,sentence\na.wav,1,a\n")
    script = Path(__file__).parents[2] / "training" / "data" / "split_data.py"
    done = subprocess.run(
        [sys.executable, str(script), "--manifest", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "add --column transcript=sentence" in done.stderr
