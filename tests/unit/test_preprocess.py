"""Cleaning a manifest: the table of the guide, the ledger, and what must not be overwritten."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from speech_files import manifest, sound

from training.base.errors import UserError
from training.cli.preprocess import main
from training.data.manifest import load_manifest
from training.data.prepare.clean import preprocess
from training.data.prepare.split import split

SCRIPT = Path(__file__).parents[2] / "training" / "data" / "preprocess_manifest.py"


def row(folder: Path, name: str, seconds: float = 1.0, **cells: Any) -> dict[str, Any]:
    path = sound(folder / "video_1" / f"{name}.wav", seconds)
    texts = {"transcript": f"nói {name}", "translation": f"nói {name}"}
    return {
        "id": name,
        "video_id": "1",
        "audio_path": f"video_1/{path.name}",
        "duration": seconds,
        **texts,
        **cells,
    }


def export(folder: Path, *rows: dict[str, Any]) -> Path:
    return manifest(folder / "manifest.tsv", rows)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_guides_command_cleans_and_keeps_a_ledger(tmp_path: Path) -> None:
    source = export(
        tmp_path,
        row(tmp_path, "good", transcript="[cười] **Xin**  chào", translation="*Xin* chào\u00a0"),
        row(tmp_path, "blip", 0.3),
        row(tmp_path, "long", 31.0),
        row(tmp_path, "laugh", transcript="[laughter]"),
        row(tmp_path, "untranslated", translation=""),
        {**row(tmp_path, "absent"), "audio_path": "video_1/gone.wav"},
    )
    before = source.read_bytes()
    output = tmp_path / "manifest_clean.tsv"
    done = run("--input", source, "--output", output)
    assert done.returncode == 0, done.stderr
    lines = output.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "id\tvideo_id\taudio_path\tduration\ttranscript\ttranslation"
    assert lines[1:] == ["good\t1\tvideo_1/good.wav\t1\tXin chào\tXin chào"]
    drops = [line.split("\t") for line in (tmp_path / "manifest_clean_dropped.tsv").read_text().splitlines()]
    assert drops[0] == ["id", "reason", "detail"]
    assert {cells[0]: cells[1] for cells in drops[1:]} == {
        "blip": "too_short",
        "long": "too_long",
        "laugh": "empty_transcript",
        "untranslated": "empty_translation",
        "absent": "missing_audio",
    }
    assert all(f"{source}:" in cells[2] for cells in drops[1:])
    assert "1 of 6 utterances kept" in done.stdout
    assert "too_long" in done.stdout
    assert source.read_bytes() == before


# Trap 11.
def test_a_long_clip_is_dropped_and_no_row_is_shortened(tmp_path: Path) -> None:
    """The guide caps the duration at 30 s and keeps the text: that row must be gone, and no duration altered."""
    source = export(tmp_path, row(tmp_path, "fits", 29.5), row(tmp_path, "long", 45.0))
    output = tmp_path / "clean.tsv"
    _, ledger = preprocess(source, output)
    clean = load_manifest(output)
    assert [(e.id, e.duration) for e in clean] == [("fits", 29.5)]
    assert [(drop.id, drop.reason) for drop in ledger] == [("long", "too_long")]


# Trap 11.
def test_a_row_that_understates_its_length_is_dropped(tmp_path: Path) -> None:
    source = export(tmp_path, row(tmp_path, "fits"), {**row(tmp_path, "long", 45.0), "duration": 30})
    _, ledger = preprocess(source, tmp_path / "clean.tsv")
    assert [(drop.id, drop.reason) for drop in ledger] == [("long", "duration_mismatch")]
    _, ledger = preprocess(source, tmp_path / "unchecked.tsv", check_files=False)
    assert len(ledger) == 0


# Trap 10.
def test_truncated_files_are_found_by_their_header(tmp_path: Path) -> None:
    source = export(tmp_path, row(tmp_path, "good"), row(tmp_path, "cut"))
    path = tmp_path / "video_1" / "cut.wav"
    path.write_bytes(path.read_bytes()[:2000])
    _, ledger = preprocess(source, tmp_path / "clean.tsv", workers=2)
    assert [(drop.id, drop.reason) for drop in ledger] == [("cut", "unreadable_audio")]


# Trap 13.
@pytest.mark.parametrize("text", ["nan", "NA", "null"])
def test_no_cell_becomes_nan_and_nan_stays_where_it_is_said(tmp_path: Path, text: str) -> None:
    source = export(
        tmp_path,
        row(tmp_path, "said", transcript=text, translation=text),
        row(tmp_path, "missing", translation=None),
    )
    output = tmp_path / "clean.csv"
    preprocess(source, output, require=["transcript"], keep_markers=[text])
    clean = load_manifest(output)
    assert dict(clean[0].texts) == {"transcribe": text, "translate": text}
    assert dict(clean[1].texts) == {"transcribe": "nói missing"}
    assert output.read_text(encoding="utf-8").splitlines()[2].endswith(",nói missing,")


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl"])
def test_further_columns_and_numbers_are_kept(tmp_path: Path, suffix: str) -> None:
    words = '[["nói", 0.1, 0.4], ["ok", 0.5, 0.9]]'
    extra = {
        "speaker": "007",
        "words": words,
        "gender": "f",
        "split_hint": "unheard",
        "start": 0.25,
        "end": 1.125,
    }
    source = export(tmp_path, row(tmp_path, "a", 1.5, transcript='nói "ok"', **extra) | {"duration": 0.875})
    output = tmp_path / "new" / f"clean{suffix}"
    preprocess(source, output)
    clean = load_manifest(output, check_files=True)
    example = clean[0]
    assert (example.speaker, example.duration, example.audio.start, example.audio.end) == (
        "007",
        0.875,
        0.25,
        1.125,
    )
    assert [word.text for word in example.words] == ["nói", "ok"]
    assert example.texts["transcribe"] == 'nói "ok"'
    assert clean.column("gender") == ["f"]
    assert clean.column("split_hint") == ["unheard"]
    assert "../video_1/a.wav" in output.read_text(encoding="utf-8")


def test_tags_of_cleaned_words_are_kept_and_others_dropped(tmp_path: Path) -> None:
    source = export(
        tmp_path,
        row(tmp_path, "after", transcript="[cười] kênh **TikTok**", word_languages="vi en"),
        row(tmp_path, "before", transcript="[cười] kênh TikTok", word_languages="x vi en"),
        row(tmp_path, "none", transcript="[cười] kênh", word_languages=""),
    )
    _, ledger = preprocess(source, tmp_path / "clean.tsv")
    assert [e.word_languages for e in load_manifest(tmp_path / "clean.tsv")] == [("vi", "en"), ()]
    assert [(drop.id, drop.reason) for drop in ledger] == [("before", "word_languages")]
    assert "3 tags for 2 words" in ledger.drops[0].detail


def test_a_manifest_without_translations_needs_none(tmp_path: Path) -> None:
    rows = [{k: v for k, v in row(tmp_path, "a").items() if k != "translation"}]
    source = manifest(tmp_path / "m.tsv", rows)
    total, ledger = preprocess(source, tmp_path / "clean.tsv")
    assert (total, len(ledger)) == (1, 0)
    with pytest.raises(UserError, match="the column 'translation' is missing"):
        preprocess(source, tmp_path / "clean.tsv", require=["transcript", "translation"])


def test_columns_of_others_are_renamed(tmp_path: Path) -> None:
    cells = row(tmp_path, "a")
    source = manifest(
        tmp_path / "m.csv", [{"path": cells["audio_path"], "duration": 1, "sentence": "**ok**"}]
    )
    arguments = ["--input", str(source), "--output", str(tmp_path / "clean.tsv")]
    assert main([*arguments, "--column", "audio_path=path", "--column", "transcript=sentence"]) == 0
    assert load_manifest(tmp_path / "clean.tsv")[0].texts == {"transcribe": "ok"}


def test_one_mapping_of_columns_serves_the_export_and_what_was_made_from_it(tmp_path: Path) -> None:
    """The pipeline cleans, splits and trains with the same ``data.columns``."""
    columns = {"transcript": "sentence", "translation": "meaning"}
    rows = [row(tmp_path, name, video_id=name) for name in "abc"]
    theirs = [
        {columns.get(name, name): value for name, value in cells.items()} | {"meaning": "nghĩa"}
        for cells in rows
    ]
    source, clean = manifest(tmp_path / "m.tsv", theirs), tmp_path / "clean.tsv"
    preprocess(source, clean, columns=columns)
    split(clean, tmp_path / "splits")
    expected = {"transcribe": "nói a", "translate": "nghĩa"}
    for path in (source, clean, *sorted((tmp_path / "splits").glob("*.csv"))):
        found = {example.id: example.texts for example in load_manifest(path, columns=columns)}
        assert all(texts["translate"] == "nghĩa" for texts in found.values())
        assert found.get("a", expected) == expected


def test_a_mapping_that_a_file_of_the_users_lacks_is_an_error_although_our_name_is_there(
    tmp_path: Path,
) -> None:
    source = export(tmp_path, row(tmp_path, "a"))
    with pytest.raises(UserError, match="'transcrypt' is missing; did you mean 'transcript'"):
        load_manifest(source, columns={"transcript": "transcrypt"})


def test_audio_root_is_where_paths_start_and_the_output_needs_none(tmp_path: Path) -> None:
    cells = row(tmp_path / "sounds", "a")
    source = manifest(tmp_path / "lists" / "m.tsv", [cells])
    preprocess(source, tmp_path / "out" / "clean.tsv", audio_root=tmp_path / "sounds")
    clean = load_manifest(tmp_path / "out" / "clean.tsv", check_files=True)
    assert clean.column("audio_path") == ["../sounds/video_1/a.wav"]


def test_a_second_call_overwrites_its_own_output_and_nothing_else(tmp_path: Path) -> None:
    source = export(tmp_path, row(tmp_path, "a"))
    output = tmp_path / "clean.tsv"
    preprocess(source, output)
    first = output.read_bytes()
    preprocess(source, output)
    assert output.read_bytes() == first
    output.write_text("edited by hand\n")
    with pytest.raises(UserError, match=r"clean\.tsv: already there.*--force"):
        preprocess(source, output)
    assert output.read_text() == "edited by hand\n"
    preprocess(source, output, force=True)
    assert output.read_bytes() == first


def test_a_call_that_stopped_half_way_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = export(tmp_path, row(tmp_path, "a"))
    output = tmp_path / "clean.tsv"
    preprocess(source, output)
    export(tmp_path, row(tmp_path, "a"), row(tmp_path, "b"))
    replace, calls = Path.replace, []

    def stopping(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == 3:  # the record, the output; then the ledger
            raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", stopping)
        preprocess(source, output)
    assert not list(tmp_path.glob(".*.part"))
    total, _ = preprocess(source, output)
    assert total == len(load_manifest(output)) == 2


def test_the_export_itself_and_foreign_files_are_never_overwritten(tmp_path: Path) -> None:
    source = export(tmp_path, row(tmp_path, "a"))
    with pytest.raises(UserError, match="is the input"):
        preprocess(source, source, force=True)
    (tmp_path / "mine.tsv").write_text("mine")
    with pytest.raises(UserError, match=r"mine\.tsv: already there"):
        preprocess(source, tmp_path / "mine.tsv")
    assert (tmp_path / "mine.tsv").read_text() == "mine"


def test_nothing_left_is_an_error_and_writes_nothing(tmp_path: Path) -> None:
    source = export(tmp_path, row(tmp_path, "a", 0.2))
    with pytest.raises(UserError, match=r"none of its 1 utterances can be used[\s\S]*too_short"):
        preprocess(source, tmp_path / "clean.tsv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.tsv", "video_1"]


def test_mistakes_end_with_status_2_and_no_traceback(tmp_path: Path) -> None:
    source = manifest(tmp_path / "m.tsv", [{"audio_path": "a.wav", "duration": "1,5", "transcript": "a"}])
    done = run("--input", source, "--output", tmp_path / "clean.tsv")
    assert done.returncode == 2
    assert done.stderr.strip() == f"error: {source}:2: duration: '1,5' is not a number of seconds"


def test_what_was_asked_for_is_recorded(tmp_path: Path) -> None:
    source = export(tmp_path, row(tmp_path, "a"), row(tmp_path, "b", 0.2))
    preprocess(source, tmp_path / "clean.tsv", min_duration=0.4)
    record = json.loads((tmp_path / "clean_preprocess.json").read_text())
    assert (record["utterances"], record["dropped"], record["min_duration"]) == (2, {"too_short": 1}, 0.4)
    assert record["input_sha256"] == load_manifest(source).sha256()


def test_a_misspelt_text_column_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in.tsv"
    source.write_text("id\tvideo_id\taudio_path\tduration\ttranskript\ttranslation\n", encoding="utf-8")
    with pytest.raises(UserError):  # no rows
        preprocess(source, tmp_path / "out.tsv")
    assert "if that is 'transkript', add --column transcript=transkript" in capsys.readouterr().err
    source.write_text("id\tvideo_id\taudio_path\tduration\ttext\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"'transcript' is missing.*add --column transcript=text"):
        preprocess(source, tmp_path / "out.tsv")


def test_a_duration_is_not_taken_for_a_misspelt_translation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in.tsv"
    source.write_text("id\taudio_path\tduration\ttranscript\n", encoding="utf-8")
    with pytest.raises(UserError):  # no rows
        preprocess(source, tmp_path / "out.tsv")
    assert capsys.readouterr().err == (
        f"{source}: no column 'translation'; the rows have transcripts only, which is enough to train transcription\n"
    )


KSPON = "b/ 음/ 그+ 그래서 (30%)/(삼 십 퍼센트) n/"


def test_korean_rows_are_cleaned_by_the_korean_rules_and_other_rows_are_not(tmp_path: Path) -> None:
    source = export(
        tmp_path,
        row(tmp_path, "ko", transcript=KSPON, translation="b/ 3", language="ko"),
        row(tmp_path, "unnamed", transcript="３시 o/네", translation="x", language=None),
        row(tmp_path, "en", transcript="(a)/(b) b/ 3", translation="x", language="en"),
    )
    output = tmp_path / "clean.tsv"
    done = run("--input", source, "--output", output, "--korean", "--dual", "second", "--numerals", "read")
    assert done.returncode == 0, done.stderr
    assert [(e.id, *e.texts.values()) for e in load_manifest(output)] == [
        ("ko", "음 그 그래서 삼 십 퍼센트", "b/ 3"),
        ("unnamed", "세시 네", "x"),
        ("en", "(a)/(b) b/ 3", "x"),
    ]
    record = json.loads((tmp_path / "clean_preprocess.json").read_text(encoding="utf-8"))
    assert record["korean"] == {"dual": "second", "numerals": "read"}


def test_rows_with_two_transcripts_are_dropped_until_one_is_chosen(tmp_path: Path) -> None:
    source = export(
        tmp_path,
        row(tmp_path, "two", transcript=KSPON, language="ko"),
        row(tmp_path, "one", transcript="3시", language="ko_KR"),
        row(tmp_path, "en", transcript="(a)/(b)", language="en"),
    )
    output = tmp_path / "clean.tsv"
    done = run("--input", source, "--output", output, "--korean")
    assert done.returncode == 0, done.stderr
    assert "dual_transcript" in done.stdout
    (drop,) = (tmp_path / "clean_dropped.tsv").read_text(encoding="utf-8").splitlines()[1:]
    assert drop.split("\t")[:2] == ["two", "dual_transcript"] and "choose with --dual" in drop
    assert [(e.id, e.texts["transcribe"]) for e in load_manifest(output)] == [
        ("one", "3시"),
        ("en", "(a)/(b)"),
    ]


@pytest.mark.parametrize("option", [("--dual", "first"), ("--numerals", "read")])
def test_korean_options_without_korean_are_refused(tmp_path: Path, option: tuple[str, str]) -> None:
    done = run("--input", tmp_path / "a.tsv", "--output", tmp_path / "b.tsv", *option)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {option[0]}: is for Korean transcripts; say --korean as well\n"


def test_korean_rules_for_a_manifest_of_other_languages_are_refused(tmp_path: Path) -> None:
    source = export(
        tmp_path,
        row(tmp_path, "en", transcript="a", language="en"),
        row(tmp_path, "kr", transcript="가", language="kr"),
    )
    done = run("--input", source, "--output", tmp_path / "b.tsv", "--korean")
    assert done.returncode == 2
    assert f"error: --korean: no row of {source} is Korean (language: en, kr); Korean is ko" in done.stderr
    assert not (tmp_path / "b.tsv").exists()
