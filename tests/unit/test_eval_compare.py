from __future__ import annotations

import csv
import json

import pytest
from eval_assets import corpus, example, said

from training.base.errors import UserError
from training.cli.compare import main
from training.data.example import TRANSCRIBE
from training.evaluation.compare import compare
from training.evaluation.evaluate import evaluate


def write(folder, name, drop=0.1, seed=0, rows=40):
    return evaluate(*corpus(rows, drop=drop, seed=seed), meta={}, resamples=20).write(
        folder / "results", name
    )[1]


@pytest.fixture
def tables(tmp_path):
    return write(tmp_path, "good", drop=0.05), write(tmp_path, "bad", drop=0.3, seed=1)


def test_the_better_run_is_found_on_every_metric(tables):
    found = compare(*tables, resamples=200)
    assert {name: entry["verdict"] for name, entry in found["metrics"].items()} == dict.fromkeys(
        ("wer", "cer", "bleu", "chrf"), "A better"
    )
    swapped = compare(*reversed(tables), resamples=200)
    for name, entry in found["metrics"].items():
        assert swapped["metrics"][name]["verdict"] == "B better"
        assert swapped["metrics"][name]["difference"] == pytest.approx(-entry["difference"])
    assert found["metrics"]["wer"]["low"] > 0 > found["metrics"]["bleu"]["high"]


def test_a_run_does_not_differ_from_itself(tables):
    found = compare(tables[0], tables[0], resamples=100)
    assert {entry["verdict"] for entry in found["metrics"].values()} == {"no difference shown"}


def test_the_paired_interval_is_narrower_than_the_two_apart(tmp_path):
    """Two runs that share most of their errors: pairing takes the shared part out."""
    examples, hypotheses = corpus(60, drop=0.2)
    better = [
        said(h.id, h.text + " nữa" if n % 20 == 0 else h.text, h.task) for n, h in enumerate(hypotheses)
    ]
    paths = [
        evaluate(examples, found, meta={}, resamples=200).write(tmp_path, name)[1]
        for name, found in (("a", hypotheses), ("b", better))
    ]
    found = compare(*paths, resamples=300)["metrics"]["wer"]
    alone = evaluate(examples, hypotheses, meta={}, resamples=300).to_json()["scores"]["wer"]
    assert found["high"] - found["low"] < 0.7 * (alone["high"] - alone["low"])


def test_run_folders_and_results_folders_are_understood(tmp_path, tables):
    (tmp_path / "good").mkdir()
    assert compare(tmp_path / "good", tables[1], resamples=100)["a"] == str(tables[0])
    with pytest.raises(
        UserError, match=r"several predictions tables \(bad_predictions\.csv, good_predictions\.csv\)"
    ):
        compare(tmp_path / "results", tables[1])
    with pytest.raises(UserError, match="evaluate the run first"):
        (tmp_path / "new").mkdir()
        compare(tmp_path / "new", tables[1])


def edit(path, change):
    rows = list(csv.DictReader(path.open(encoding="utf-8", newline="")))
    rows = change(rows)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_different_utterances_are_counted_and_the_first_is_named(tables):
    edit(tables[1], lambda rows: [row for row in rows if row["id"] not in ("u3", "u7")])
    with pytest.raises(
        UserError, match=r"2 utterances of .*good_predictions\.csv \(transcribe\) .* first u3;"
    ):
        compare(*tables)
    with pytest.raises(UserError, match=r"2 utterances of .*good_predictions\.csv"):
        compare(*reversed(tables))


def test_different_references_are_refused(tables):
    edit(tables[1], lambda rows: [row | ({"reference": "khác"} if row["id"] == "u5" else {}) for row in rows])
    with pytest.raises(UserError, match=r"1 utterances .* different references .* first u5: .*'khác'"):
        compare(*tables)


def test_doubled_rows_and_foreign_tables_are_refused(tables, tmp_path):
    edit(tables[0], lambda rows: [*rows, rows[0]])
    with pytest.raises(UserError, match=r"record 82: u0 \(transcribe\) comes twice"):
        compare(*tables)
    other = tmp_path / "other.csv"
    other.write_text("id,text\n1,x\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"other\.csv:1: no column task, language, reference, hypothesis"):
        compare(other, tables[1])


# Trap 13.
def test_the_word_nan_survives_the_table(tmp_path):
    examples = [example("a", "nan"), example("b", "na")]
    paths = [
        evaluate(examples, [said("a", text), said("b", "na")], meta={}, resamples=20).write(
            tmp_path, f"r{n}"
        )[1]
        for n, text in enumerate(("nan", ""))
    ]
    found = compare(*paths, resamples=100)["metrics"]["wer"]
    assert (found["a"], found["b"]) == (0, 50)


def test_command_prints_a_table_and_does_not_write_over_a_file(tables, tmp_path, capsys):
    target = tmp_path / "comparison.json"
    assert main([str(tables[0]), str(tables[1]), "--output", str(target), "--resamples", "100"]) == 0
    printed = capsys.readouterr().out
    assert "WER" in printed and "A better" in printed
    assert json.loads(target.read_text(encoding="utf-8"))["rows"][TRANSCRIBE] == 40
    with pytest.raises(UserError, match="exists"):
        main([str(tables[0]), str(tables[1]), "--output", str(target)])
    with pytest.raises(UserError, match="at least 100"):
        main([str(tables[0]), str(tables[1]), "--resamples", "5"])
