"""Control tokens written into transcripts: times are kept, other marks taken out or the row listed, text untouched."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from registry_files import imported, noise, table
from registry_files import settings as settings_of
from speech_files import manifest, sound

from training.cli import lm
from training.cli.prepare_data import report
from training.cli.preprocess import main
from training.data.control_marks import MarkTally, time_cells, time_columns, unmarked, watched
from training.data.example import TASKS, AudioRef, Example, Hypothesis
from training.data.korean_text import KoreanRules
from training.data.manifest import load_manifest
from training.data.prepare.clean import preprocess
from training.data.text import clean_transcript
from training.evaluation.evaluate import evaluate
from training.registry.source import load_version

ORDINARY = [
    "a < b | c > d",
    "nếu x<|y| thì |y|>x",
    "f <| x |> g",
    "<3 và <|> và |>",
    "<b>đậm</b> <i>",
    "email <an@b.vn> nhé",
    "giá <|5|",
    "a|b||c",
    "<|a b|>",
    "tập_vi vi_VN en-US",
]


def take(text: str, column: str = "transcript", seconds: float = 10.0) -> Any:
    return unmarked(text, column, seconds, clean_transcript)


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_is_left_as_it_is(text: str) -> None:
    found = take(text)
    assert (found.text, found.marks, found.fault, found.segments) == (clean_transcript(text), 0, None, ())


@pytest.mark.parametrize(
    ("text", "segments"),
    [
        ("<|0.00|> Xin chào<|1.20|>", [("Xin chào", 0.0, 1.2)]),
        ("<|0.00|> Xin<|0.50|><|0.50|> chào<|1.20|>", [("Xin", 0.0, 0.5), ("chào", 0.5, 1.2)]),
        ("<|0.00|> Xin chào<|1.20|> các bạn<|2.4|>", [("Xin chào", 0.0, 1.2), ("các bạn", 1.2, 2.4)]),
        ("<|startoftranscript|><|vi|><|transcribe|><|0.00|>Xin<|1|><|endoftext|>", [("Xin", 0.0, 1.0)]),
        ("<|0.00|>[cười]<|0.40|> **Xin**<|1.20|>", [("Xin", 0.4, 1.2)]),
        ("<|0.00|> Xin chào<|10.06|>", [("Xin chào", 0.0, 10.06)]),
    ],
)
def test_the_times_of_a_timestamped_transcript_are_kept(text: str, segments: list[Any]) -> None:
    found = take(text)
    assert list(found.segments) == segments
    assert found.text == " ".join(said for said, _, _ in segments)
    assert found.fault is None and "<" not in found.text


@pytest.mark.parametrize(
    "text",
    [
        "<|0.00|> Xin chào",  # no end
        "Xin <|0.50|> chào <|1.00|>",  # no start
        "<|1.20|> Xin <|0.00|> chào <|2.00|>",  # backwards
        "<|28.00|> Xin chào <|29.00|>",  # of a longer recording
        "<|0.50|> Xin chào <|0.50|>",  # no time at all
    ],
)
def test_times_that_are_not_those_of_all_words_are_taken_out_and_counted(text: str) -> None:
    found = take(text)
    assert (found.text, found.segments, found.fault) == ("Xin chào", (), None)
    tally = MarkTally()
    tally.add({"transcript": found})
    assert "times not kept of 1" in (tally.line("in a column") or "")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("<|vi|> xin chào<|endoftext|>", "xin chào"),
        ("<|VI|><|Transcribe|> XIN", "XIN"),
        ("xin chào</s>", "xin chào"),
        ("<s> xin chào </s><pad><pad>", "xin chào"),
        ("<bos>xin<end_of_turn>", "xin"),
        ("<｜begin▁of▁sentence｜>xin", "xin"),
        ("<|domain:north|>xin", "xin"),
        ("<|en|>", ""),
        ("<|0.00|><|1.00|>", ""),
    ],
)
def test_marks_around_the_words_are_taken_out(text: str, left: str) -> None:
    found = take(text)
    assert (found.text, found.fault) == (left, None) and found.marks


@pytest.mark.parametrize(
    ("text", "column", "why"),
    [
        ("Xin <|endoftext|> chào", "transcript", "among the words"),
        ("xin</s>chào", "transcript", "among the words"),
        ("<|startofprev|> trước <|startoftranscript|> sau", "transcript", "not of this clip"),
        ("xin <unk> chào", "transcript", "not all that the clip says"),
        ("xin <UNK>", "transcript", "not all that the clip says"),
        ("<|en|><|translate|> hello", "transcript", "no transcript"),
        ("<|en|><|transcribe|> hello", "translation", "no translation"),
        ("xin <|im_end|><|im_start|>user chào", "transcript", "among the words"),
        ("<|nospeech|> xin", "transcript", "not all that the clip says"),
    ],
)
def test_marks_that_leave_open_what_was_said_are_a_fault(text: str, column: str, why: str) -> None:
    assert why in take(text, column).fault


@settings(max_examples=300, deadline=None)
@given(
    parts=st.lists(
        st.one_of(
            st.sampled_from(
                ["<|0.00|>", "<|1.50|>", "<|en|>", "</s>", "<", "|", ">", "<|", "|>", "<|e", "n|>"]
            ),
            st.text(max_size=5),
        ),
        max_size=8,
    )
)
def test_no_mark_is_left_and_nothing_else_is_lost(parts: list[str]) -> None:
    found = take("".join(parts))
    again = take(found.text)
    assert (again.text, again.marks) == (found.text, 0)
    if found.segments:
        assert " ".join(text for text, _, _ in found.segments).split() == found.text.split()
        assert all(start < end for _, start, end in found.segments)
    if not found.marks:
        assert found.text == clean_transcript("".join(parts))


def test_cells_of_the_rows_own_are_not_replaced() -> None:
    found = take("<|0.00|> Xin<|0.50|><|0.50|> chào<|1.20|>")
    cells = time_cells(found, {"words": ""})
    assert (
        json.loads(cells["words"]) == json.loads(cells["segments"]) == [["Xin", 0.0, 0.5], ["chào", 0.5, 1.2]]
    )
    assert set(time_cells(found, {"words": "[]", "segments": "mine"})) == set()
    assert set(time_cells(take("<|0|> Xin chào<|1.20|>"), {})) == {"segments"}
    assert time_columns(["a", None, "<|vi|> a"]) == []
    assert time_columns(["<|0.00|> Xin chào<|1.20|>"]) == ["segments"]
    assert time_columns(["<|0.00|> Xin chào<|1.20|>", "<|0.00|> a<|1.20|>"]) == ["segments", "words"]
    assert unmarked("<|0.00|> a<|99.00|>", "transcript", math.inf, str.strip).segments


def row(folder: Path, name: str, transcript: str, **cells: Any) -> dict[str, Any]:
    path = sound(folder / f"{name}.wav", 2.0)
    return {"id": name, "audio_path": path.name, "duration": 2.0, "transcript": transcript, **cells}


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl"])
def test_preprocess_keeps_times_lists_faults_and_says_counts(
    tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = manifest(
        tmp_path / "manifest.tsv",
        [
            row(tmp_path, "timed", "<|0.00|> Xin chào<|1.20|>"),
            row(tmp_path, "by_word", "<|0.00|> Xin<|0.50|><|0.50|> chào<|1.20|>"),
            row(tmp_path, "elsewhere", "<|20.00|> Xin chào<|21.20|>"),
            row(tmp_path, "marked", "<|vi|> Xin chào<|endoftext|>"),
            row(tmp_path, "among", "Xin <|endoftext|> chào"),
            row(tmp_path, "empty", "<|nospeech|>"),
            row(tmp_path, "plain", "a < b | c > d"),
        ],
    )
    output = tmp_path / f"clean{suffix}"
    assert main(["--input", str(source), "--output", str(output)]) == 0
    said = capsys.readouterr().out
    assert (
        "taken out of 4 utterances; times kept of 2 (in the columns segments and words); times not kept of 1"
        in said
    )
    kept = load_manifest(output)
    texts = {example.id: example.texts["transcribe"] for example in kept}
    assert texts == dict.fromkeys(("timed", "by_word", "elsewhere", "marked"), "Xin chào") | {
        "plain": "a < b | c > d"
    }
    segments = dict(zip(texts, kept.column("segments"), strict=True))
    assert json.loads(segments["timed"]) == [["Xin chào", 0.0, 1.2]]
    assert [name for name, cell in segments.items() if cell] == ["timed", "by_word"]
    assert {e.id: len(e.words) for e in kept if e.words} == {"by_word": 2}
    ledger = (tmp_path / "clean_dropped.tsv").read_text(encoding="utf8")
    assert "among\tcontrol_mark" in ledger and "empty\tcontrol_mark" in ledger
    record = json.loads((tmp_path / "clean_preprocess.json").read_text(encoding="utf8"))
    assert record["control_marks"] == {"marks_removed": 4, "times_kept": 2, "times_not_kept": 1}
    assert record["dropped"] == {"control_mark": 2}


def test_a_table_without_marks_gets_no_columns_and_no_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = manifest(tmp_path / "manifest.tsv", [row(tmp_path, "plain", "a < b | c > d")])
    assert main(["--input", str(source), "--output", str(tmp_path / "clean.tsv")]) == 0
    assert "control marks" not in capsys.readouterr().out
    assert load_manifest(tmp_path / "clean.tsv").column_names == [
        "id",
        "audio_path",
        "duration",
        "transcript",
    ]


def test_korean_rules_clean_what_lies_between_the_marks(tmp_path: Path) -> None:
    rows = [row(tmp_path, "ko", "<|0.00|> 아/ 네 (30%)/(삼십 퍼센트)<|1.20|>", language="ko")]
    source = manifest(tmp_path / "manifest.tsv", rows)
    total, ledger = preprocess(source, tmp_path / "clean.tsv", korean=KoreanRules(dual="second"))
    assert (total, len(ledger)) == (1, 0)
    kept = load_manifest(tmp_path / "clean.tsv")
    (example,) = list(kept)
    ((text, start, end),) = json.loads(kept.column("segments")[0])
    assert text == example.texts["transcribe"] and "(" not in text and (start, end) == (0.0, 1.2)


def test_texts_that_nobody_cleaned_are_counted_where_they_are_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    assert list(watched(["<|0.00|> a", "a < b", "b</s>"], said.append)) == ["<|0.00|> a", "a < b", "b</s>"]
    assert len(said) == 1 and said[0].startswith("2 texts hold control marks")
    assert list(watched(["a", "b"], said.append)) and len(said) == 1
    text = tmp_path / "text.txt"
    text.write_text("<|0.00|> xin<|1.00|>\nchào\n", encoding="utf8")
    assert lm.main(["train", "--text", str(text), "--output", str(tmp_path / "lm.arpa"), "--order", "1"]) == 0
    assert "--text: 1 texts hold control marks" in capsys.readouterr().err


def test_the_registry_takes_marks_out_and_keeps_times_of_words(tmp_path: Path) -> None:
    texts = [
        "<|0.00|> xin<|0.40|><|0.40|> chào<|0.90|>",
        "<|vi|>xin bạn",
        "<|0.00|>hai từ<|0.90|>",
        "xin <|vi|> anh",
    ]
    lines = ["file_path,transcript,duration,split,speaker_id"]
    for i, text in enumerate(texts):
        noise(tmp_path / f"{i}.wav", seed=i)
        lines.append(f"{i}.wav,{text},1.0,{('train', 'dev', 'test', 'train')[i]},s{i}")
    source = table(tmp_path / "metadata.csv", lines)
    done = imported(source, auto_split=False)
    assert done.ledger.counts() == {"control_mark": 1}
    assert "taken out of 3 utterances; times kept of 1 (as words); times not kept of 1" in report(
        settings_of(source), done
    )
    parts = {
        name: load_version(str(tmp_path / "registry.db"), "v1", name)[0] for name in ("train", "dev", "test")
    }
    assert [one.texts["transcribe"] for one in parts.values()] == ["xin chào", "xin bạn", "hai từ"]
    assert [[(w.text, w.start, w.end) for w in one.words] for one in parts.values()] == [
        [("xin", 0.0, 0.4), ("chào", 0.4, 0.9)], [], [],
    ]  # fmt: skip


def test_hypotheses_and_references_that_are_written_like_control_tokens_are_scored(tmp_path: Path) -> None:
    texts = ["<|en|>", "<|0.00|> xin chào<|1.20|>", "</s> <unk>", "<|", "", 'xin <b>&"chào"']
    rows = [
        Example(
            id=str(i),
            audio=AudioRef(path="x"),
            duration=2.0,
            texts=dict.fromkeys(TASKS, texts[-1 - i] or "a"),
            language="vi",
        )
        for i in range(len(texts))
    ]
    said = [
        Hypothesis(id=str(i), task=task, text=text, seconds=0.1)
        for i, text in enumerate(texts)
        for task in TASKS
    ]
    found = evaluate(rows, said, meta={}, resamples=20)
    assert math.isfinite(found.to_json()["scores"]["wer"]["value"])
    assert found.summary() and all(path.stat().st_size for path in found.write(tmp_path, "marks"))
