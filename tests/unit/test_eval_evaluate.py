from __future__ import annotations

import csv
import json
import subprocess
import sys

import pytest
from eval_assets import corpus, example, said

from training.data.example import TASKS, TRANSCRIBE, TRANSLATE, AudioRef, Example, Hypothesis
from training.evaluation.baselines import nearest_training_sentences
from training.evaluation.evaluate import evaluate
from training.evaluation.quick_scores import corpus_scores
from training.evaluation.rows import join
from training.evaluation.word_alignment import align_words

QUICK = {"resamples": 100}


@pytest.fixture(scope="module")
def found():
    examples, hypotheses = corpus(60)
    train = {task: [e.texts[task] for e in examples[:10]] for task in (TRANSCRIBE, TRANSLATE)}
    return evaluate(
        examples,
        hypotheses,
        meta={"commit": "abc", "versions": {"jiwer": "4"}},
        train_texts=train,
        train_speakers=["s0", "s1", "s2", "s3"],
        silence={"noise": ["xin chào", ""], "silence": [""]},
        **QUICK,
    )


def test_scores_equal_the_quick_ones_and_carry_intervals(found):
    report = found.to_json()
    quick = corpus_scores(*corpus(60))
    for name, value in quick.items():
        score = report["scores"][name]
        assert score["value"] == pytest.approx(value)
        assert score["low"] <= score["value"] <= score["high"] and score["unit"] == "speaker"
    assert set(report["scores_raw"]) == {"wer", "cer", "bleu", "chrf"}


def test_report_states_its_rules(found):
    report = found.to_json()
    assert report["meta"]["commit"] == "abc"
    assert report["normalisation"]["transcribe"]["vi"]["name"] == "vi/v1"
    assert "insertion" in report["empty_references"]["rule"]
    assert report["signatures"]["bleu"].startswith("nrefs:1")
    assert report["no_speech"]["noise"]["words"] == 2 and report["no_speech"]["silence"]["words"] == 0
    assert report["word_language_tagger"]["against_gold"]["accuracy"] > 95
    assert {t["metric"]: t["wanted"] for t in report["targets"]} == {
        "wer": "< 15", "cer": "< 10", "bleu": "> 25", "chrf": "> 50",
    }  # fmt: skip


def test_speed_counts_both_tasks_once_per_clip(found):
    speed = found.to_json()["speed"]
    assert speed["audio_seconds"] == pytest.approx(60 * 2.0)
    assert speed["rtf"] == pytest.approx(60 * 0.2 / 120)
    assert speed["mean_latency_seconds"] == pytest.approx(0.2)


def test_speed_counts_hypotheses_without_a_reference():
    """Four clips of 2 s, two tasks of 0.5 s each: as much work where three have no translation to compare with."""
    rows = [
        Example(
            id=str(i),
            audio=AudioRef(path="x"),
            duration=2.0,
            texts={"transcribe": "một"} | ({"translate": "một"} if i == 0 else {}),
            language="vi",
        )
        for i in range(4)
    ]
    said = [Hypothesis(id=row.id, task=task, text="một", seconds=0.5) for row in rows for task in TASKS]
    speed = evaluate(rows, said, meta={}, resamples=20).report["speed"]
    assert speed["rtf"] == pytest.approx(8 * 0.5 / 8.0)
    assert speed["mean_latency_seconds"] == pytest.approx(1.0)


def test_unheard_voices_are_scored_apart(found):
    report = found.to_json()
    assert report["by_training"]["unheard"]["transcribe_rows"] == 12
    assert report["by_training"]["heard"]["transcribe_rows"] == 48
    assert report["by_speaker"]["s4"]["heard_in_training"] is False
    assert report["by_speaker"]["s4"]["wer"]["value"] == pytest.approx(
        report["by_training"]["unheard"]["wer"]["value"]
    )


def test_nearest_training_sentence_baseline(found):
    nearest = found.to_json()["nearest_training_sentence"]
    assert nearest["transcribe"]["references_in_training"] == 10
    assert nearest["transcribe"]["wer"]["value"] > 30 and nearest["translate"]["bleu"]["value"] < 60


def test_files_hold_every_reference_and_hypothesis(found, tmp_path):
    metrics, table = found.write(tmp_path / "results", "demo_whisper")
    assert (metrics.name, table.name) == ("demo_whisper_metrics.json", "demo_whisper_predictions.csv")
    report = json.loads(metrics.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert report["run"] == "demo_whisper"
    rows = list(csv.DictReader(table.open(encoding="utf-8", newline="")))
    assert len(rows) == 120
    errors = sum(
        int(row[kind])
        for row in rows
        if row["task"] == TRANSCRIBE
        for kind in ("substitutions", "deletions", "insertions")
    )
    words = sum(int(row["words"]) for row in rows if row["task"] == TRANSCRIBE)
    assert 100 * errors / words == pytest.approx(report["scores"]["wer"]["value"])
    characters = [
        (int(row["character_errors"]), int(row["characters"])) for row in rows if row["task"] == TRANSCRIBE
    ]
    assert 100 * sum(c[0] for c in characters) / sum(c[1] for c in characters) == pytest.approx(
        report["scores"]["cer"]["value"]
    )
    assert {row["id"] for row in rows if row["changed"] == "1"} == {f"u{n}" for n in range(0, 60, 4)}


def test_summary_prints_baselines_beside_the_scores(found):
    text = found.summary()
    for part in (
        "WER",
        "copy of the reference transcript",
        "nearest training sentence",
        "speakers that are not in training",
        "replaced",
    ):
        assert part in text


def test_one_task_and_no_extras_are_enough(tmp_path):
    examples = [
        example("a", None, "bonjour", language="mdw", target="fr"),
        example("b", None, "l'eau", language="mdw", target="fr"),
    ]
    hypotheses = [said("a", "bonjour", TRANSLATE), said("b", "eau", TRANSLATE)]
    found = evaluate(examples, hypotheses, meta={}, train_texts=None, silence=None, **QUICK)
    report = found.to_json()
    assert set(report["scores"]) == {"bleu", "chrf"} and report["translation"] is None
    assert report["normalisation"]["translate"]["fr"]["name"] == "fr/v1"
    assert report["speed"]["rtf"] is None and report["by_training"] is None
    found.write(tmp_path, "run")
    assert "BLEU" in found.summary()


# Trap 17.
def test_transcription_of_nothing_is_undefined_not_zero():
    report = evaluate([example("a", "!")], [said("a", "xin")], meta={}, **QUICK).to_json()
    assert report["scores"]["wer"]["value"] is None and report["targets"][0]["met"] is False
    assert report["empty_references"]["transcribe"] == 1


def test_nearest_sentence_by_hand():
    rows = join([example("a", "một hai ba"), example("b", "bốn")], [said("a", ""), said("b", "")])[TRANSCRIBE]
    found = nearest_training_sentences(rows, ["Một hai!", "một hai bốn năm", "bốn bốn", ""])
    assert found.texts == ["một hai", "bốn bốn"] and found.distances == [1, 1]
    assert nearest_training_sentences(rows, []) is None
    sampled = nearest_training_sentences(rows, [f"câu {n}" for n in range(50)], most=10)
    assert (sampled.training_sentences, sampled.searched) == (50, 10)


def test_nearest_sentence_equals_brute_force_over_word_edits():
    examples, _ = corpus(40)
    rows = join(examples, [said(e.id, "") for e in examples])[TRANSCRIBE]
    sentences = sorted({row.reference for row in rows[20:]})
    found = nearest_training_sentences(rows[:20], sentences)
    for row, text, distance in zip(rows[:20], found.texts, found.distances, strict=True):
        edits = [sum(align_words([row.reference], [s]).counts[0][1:]) for s in sentences]
        assert distance == min(edits) and text == sentences[edits.index(min(edits))]


# Trap 24.
def test_scoring_needs_no_models_and_no_hub():
    code = (
        "import sys, training.evaluation.evaluate, training.evaluation.compare, training.evaluation.report\n"
        "bad = [m for m in ('torch', 'transformers', 'evaluate', 'datasets', 'matplotlib') if m in sys.modules]\n"
        "bad += [m for m in sys.modules if m.startswith(('training.models', 'training.models.common'))]\n"
        "sys.exit(repr(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
