from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile
from eval_assets import corpus, example, said
from PIL import Image

from training.cli.charts import audio_of
from training.data.example import TRANSCRIBE, TRANSLATE
from training.evaluation.evaluate import evaluate
from training.evaluation.figures import LogScale, curves
from training.evaluation.report import build_report
from training.evaluation.report_opening import grouped, opening
from training.evaluation.selected_rows import DELETED, EQUAL, INSERTED, SUBSTITUTED, diff, select_rows
from training.evaluation.spectrogram import spectrogram
from training.evaluation.stored import History, Result, load_results

VOID = {"meta", "br", "img"}
ATTACK = "<script>alert('x')</script>\"&"


class Page(HTMLParser):
    """Checks that every element is closed; keeps elements, links and visible text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.links, self.text = [], [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "action", "data", "poster")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"{tag} closed at {self.getpos()}"

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text += data


@pytest.fixture
def results(tmp_path):
    clip = tmp_path / "clip.wav"
    soundfile.write(clip, np.sin(np.arange(16000) * 0.1) * 0.1, 16000)
    for number, run in enumerate(("demo_e2e", "demo_whisper")):
        examples, hypotheses = corpus(30, drop=0.1 + 0.1 * number, seed=number, path=str(clip))
        evaluate(
            examples, hypotheses, meta={"commit": "abc123"}, train_speakers=["s0"], resamples=30,
            train_texts={task: ["em đi xem"] for task in (TRANSCRIBE, TRANSLATE)}, silence={"noise": ["xin chào"]},
        ).write(tmp_path, run)  # fmt: skip
    return load_results(tmp_path)


def histories():
    records = [{"step": s, "loss": 3.0 / s, "eval_loss": 3.1 / s, "eval_wer": 50.0 / s} for s in range(1, 20)]
    return [History("demo_e2e", "demo_e2e", records, "model:\n  type: e2e # <&>")]


def test_page_is_well_formed_and_self_contained(results):
    page = build_report(results, histories(), audio_of(results))
    parsed = Page(page)
    assert not parsed.open
    assert "script" not in parsed.tags and "link" not in parsed.tags and "iframe" not in parsed.tags
    assert all(link.startswith(("data:", "#")) for link in parsed.links)
    assert not re.search(r"https?://|@import|url\(", page)
    for part in ("Scores on the test set", "met", "Translation against copying", "Error analysis", "demo_whisper",
                 "A better", "abc123", "type: e2e # <&>", "unheard", "noise"):  # fmt: skip
        assert part in parsed.text, part
    assert parsed.tags.count("svg") == 4


def test_links_inside_the_page_lead_somewhere(results):
    page = build_report(results, histories())
    targets = set(re.findall(r'id="([^"]+)"', page))
    assert {link[1:] for link in Page(page).links if link.startswith("#")} <= targets


def test_examples_play_the_sound_of_the_clip(results):
    page = build_report(results, (), audio_of(results))
    sounds = [link for link in Page(page).links if link.startswith("data:audio/wav;base64,")]
    assert 12 <= len(sounds) <= 16
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(sounds[0].split(",")[1])))
    assert rate == 16000 and len(samples) == 16000 and abs(samples).max() == pytest.approx(0.1, abs=0.01)


def test_missing_sound_is_said_not_replaced(results, tmp_path, capsys):
    (tmp_path / "clip.wav").unlink()
    page = build_report(results, (), audio_of(results))
    assert "audio" not in Page(page).tags and "not at hand" in page
    assert "no sound for" in capsys.readouterr().err


def test_everything_from_data_is_escaped(tmp_path):
    examples = [example("<b>id", ATTACK, ATTACK + " x", speaker="<i>spk", tags=["<u>"])]
    hypotheses = [said("<b>id", ATTACK, TRANSCRIBE), said("<b>id", ATTACK, TRANSLATE)]
    evaluate(
        examples,
        hypotheses,
        meta={"note": ATTACK},
        resamples=20,
        train_texts=[ATTACK],
        silence={"<k>": [ATTACK]},
    ).write(tmp_path, "run")
    page = build_report(
        load_results(tmp_path), [History("<r>", "<e>", [{"step": 1, "loss": 1.0}], ATTACK)], title=ATTACK
    )
    parsed = Page(page)
    assert not set(parsed.tags) & {"script", "b>id", "i", "u", "k", "r", "e"}
    assert "<script" not in page and "alert('x')</script>" in parsed.text


def test_page_without_results_or_histories_still_stands(results):
    assert "No run was evaluated yet" in build_report([], histories())
    assert not Page(build_report(results)).open


def test_page_opens_with_what_was_scored_and_against_what(results):
    """Two sentences a run; against the start weights where they were scored."""
    report = {
        **results[0].report,
        "meta": {
            "model_type": "whisper",
            "parameters": 72_593_920,
            "manifest": "data/splits/test.csv",
            "config": {"data": {"train": "data/splits/train.csv"}, "model": {"name": "openai/whisper-base"}},
        },
        "scores": {"wer": {"value": 12.3, "low": 10.0, "high": 14.0, "rows": 30}},
        "start": {
            "name": "whisper-base",
            "differences": {
                "wer": {"difference": -1.25, "low": -2.5, "high": 0.5, "verdict": "no difference shown"}
            },
        },
    }
    assert opening(Result("mine", report)) == (
        "mine (whisper, 72.6 million parameters), trained on data/splits/train.csv from whisper-base, was scored on 30 "
        "utterances of test.csv. WER is 12.3 [10.0, 14.0]; against whisper-base before the training -1.2 [-2.5, +0.5] paired: "
        "no difference shown."
    )
    report["meta"]["manifest"] = "data/registry.db[v1/test]"
    report["meta"]["config"]["data"] |= {"registry": "data/registry.db", "version": "v1"}
    told = opening(Result("mine", report))
    assert "trained on registry.db[v1] from" in told and "30 utterances of registry.db[v1/test]. WER" in told
    difference = {"a": 10.0, "b": 12.0, "difference": 2.0, "low": 0.5, "high": 3.5, "verdict": "A better"}
    del report["start"]
    compared = [{"names": ("mine", "other"), "metrics": {"wer": difference}}]
    assert "; against other on the same utterances -2.0 [-3.5, -0.5] paired." in opening(
        Result("mine", report), compared
    )
    assert "; against mine on the same utterances +2.0 [+0.5, +3.5] paired." in opening(
        Result("other", report), compared
    )
    assert build_report(results).index('class="lead"') < build_report(results).index("<nav")


def test_a_figure_holds_the_runs_of_one_test_set(results, tmp_path):
    evaluate(*corpus(8), meta={"manifest": "other.csv", "manifest_sha256": "1"}, resamples=20).write(
        tmp_path / "other", "small"
    )
    both = [*results, *load_results(tmp_path / "other")]
    assert [[one.run for one in group.results] for group in grouped(both)] == [
        ["demo_e2e", "demo_whisper"],
        ["small"],
    ]
    page = build_report(both)
    captions = [one for one in re.findall(r"<figure.*?<h3>(.*?)</h3>", page) if "Errors" in one]
    assert captions == [
        "Errors in transcription, percent, its test set",
        "Errors in transcription, percent, other.csv",
    ]
    for svg in re.findall(r"<svg.*?</svg>", page, flags=re.S):
        assert not ("small" in svg and "demo_e2e" in svg)


def test_sections_without_content_are_not_there(results):
    assert 'id="words"' not in build_report(results) and ">Words<" not in build_report(results)
    assert 'id="translation"' in build_report(results)
    empty = build_report([], histories())
    assert re.findall(r'<h2 id="(\w+)"', empty) == ["figures", "settings"]


def test_the_loss_has_a_logarithmic_axis():
    scale = LogScale(0.1, 10.0, 300.0, 0.0)
    assert [scale(0.1), scale(1.0), scale(10.0)] == pytest.approx([300.0, 150.0, 0.0])
    assert scale.ticks() == pytest.approx([0.1, 0.2, 0.5, 1, 2, 5, 10])
    svg = curves([("loss", [(1, 10.0), (2, 1.0), (3, 0.0), (4, 0.1)], True)], "loss", log=True)
    points = re.search(r'points="([^"]+)"', svg).group(1).split()
    heights = [float(point.split(",")[1]) for point in points]
    assert len(points) == 3  # zero has no place on the axis
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1], abs=0.2)


def test_a_spectrogram_shows_the_frequency_of_a_tone():
    file = io.BytesIO()
    soundfile.write(file, 0.5 * np.sin(2 * np.pi * 2000 * np.arange(16000) / 16000), 16000, format="WAV")
    pixels = np.asarray(Image.open(io.BytesIO(spectrogram(file.getvalue()))))
    assert pixels.dtype == np.uint8 and pixels.shape == (120, 98)
    assert abs(int(pixels.mean(axis=1).argmax()) - 90) <= 1  # a quarter of 8 kHz, from the bottom


def test_runs_of_different_test_sets_say_why_they_are_not_compared(results, tmp_path):
    evaluate(*corpus(8), meta={}, resamples=20).write(tmp_path / "other", "small")
    page = build_report([*results, *load_results(tmp_path / "other")])
    assert "Cannot be compared" in page and "evaluate both runs on the same test file" in page


def test_diff_marks_each_kind():
    assert diff("a b c d", "a x c d e") == [
        (EQUAL, "a", "a"), (SUBSTITUTED, "b", "x"), (EQUAL, "c d", "c d"), (INSERTED, "", "e"),
    ]  # fmt: skip
    assert diff("a b", "a")[-1] == (DELETED, "b", "")
    assert diff("", "") == []


def test_selected_rows_hold_best_worst_and_changed_rows_of_every_run(results):
    selected = select_rows(results)
    assert len({row.id for row in selected}) == len(selected) <= 16
    assert any(row.why.startswith("translation changes") for row in selected) and any(
        p.why == "worst" for p in selected
    )
    assert all({found.run for found in row.hypotheses} == {"demo_e2e", "demo_whisper"} for row in selected)
    table = {(row["id"], row["task"]): row for row in results[0].predictions()}

    def errors(name):
        return sum(
            int(table[name, t][k])
            for t in (TRANSCRIBE, TRANSLATE)
            for k in ("substitutions", "deletions", "insertions")
        )

    worst = next(row for row in selected if row.why.endswith("worst"))
    best = next(row for row in selected if row.why.endswith("best"))
    assert errors(worst.id) > errors(best.id)
