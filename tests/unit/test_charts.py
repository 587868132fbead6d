from __future__ import annotations

import json
import math

import pytest
from eval_assets import corpus

from training.errors import UserError
from training.evaluation import charts
from training.evaluation.evaluate import evaluate
from training.evaluation.figures import Bar, Scale, bars, curves
from training.evaluation.stored import History, load_histories, load_results
from training.scripts.export_charts import main

CHARTS = ("training_loss.png", "wer_comparison.png", "bleu_comparison.png")


def make_history(outputs, run, steps=40):
    folder = outputs / run / "metrics"
    folder.mkdir(parents=True)
    records = [
        {"step": s, "epoch": s / 10, "loss": 5 * math.exp(-s / 20), "learning_rate": 1e-3}
        for s in range(1, steps)
    ]
    records += [
        {"step": s, "epoch": s / 10, "eval_loss": 4 * math.exp(-s / 20), "eval_wer": 90 - s} for s in (10, 20)
    ]
    records.append({"step": steps, "train_runtime": 3.0})
    content = {"experiment": run, "history": records}
    (folder / f"{run}_metrics.json").write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def outputs(tmp_path):
    for number, run in enumerate(("demo_whisper", "demo_e2e")):
        evaluate(*corpus(24, drop=0.1 * (number + 1)), meta={}, resamples=30).write(tmp_path / "results", run)
        make_history(tmp_path, run)
    return tmp_path


def shape(path):
    from matplotlib import image

    return image.imread(path)


def test_three_charts_and_the_report_are_written(outputs, capsys):
    assert main(["--outputs", str(outputs)]) == 0
    for name in CHARTS:
        pixels = shape(outputs / "charts" / name)
        assert pixels.shape[:2] == (720, 1200)
        assert len({tuple(pixel) for pixel in pixels[::4, ::4, :3].reshape(-1, 3)}) > 20  # not an empty page
    assert (outputs / "charts" / "report.html").stat().st_size > 10_000
    assert capsys.readouterr().out.count("written:") == 4


def test_nothing_to_draw_is_said_with_the_places(tmp_path):
    with pytest.raises(UserError, match=r"nothing to draw: no \*_metrics\.json in .*results"):
        main(["--outputs", str(tmp_path)])


def test_a_chart_without_figures_is_named(tmp_path, capsys):
    make_history(tmp_path, "demo_whisper")
    assert main(["--outputs", str(tmp_path), "--charts", str(tmp_path / "elsewhere")]) == 0
    printed = capsys.readouterr().out
    assert "left out: wer_comparison.png" in printed and "left out: bleu_comparison.png" in printed
    assert (tmp_path / "elsewhere" / "training_loss.png").is_file()
    assert not (tmp_path / "elsewhere" / "wer_comparison.png").exists()


def test_damaged_files_are_named(outputs):
    damaged = outputs / "results" / "demo_e2e_metrics.json"
    damaged.write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"demo_e2e_metrics\.json: not a readable JSON file"):
        main(["--outputs", str(outputs)])
    damaged.write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="holds no scores"):
        main(["--outputs", str(outputs)])


def test_bars_stand_at_the_scores_with_their_intervals(outputs, monkeypatch):
    seen = {}
    monkeypatch.setattr(charts, "_figure", lambda path, title, draw: seen.update(draw=draw))
    results = load_results(outputs / "results")
    assert charts.wer_comparison(results, outputs / "x.png")
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    seen["draw"](axes)
    heights = sorted(patch.get_height() for patch in axes.patches)
    wanted = sorted(r.report["scores"][name]["value"] for r in results for name in ("wer", "cer"))
    assert heights == pytest.approx(wanted)
    drawn = {
        tuple(round(float(end), 6) for end in segment[:, 1])
        for bar in axes.containers if hasattr(bar, "has_yerr")
        for segment in bar.lines[2][0].get_segments()
    }  # fmt: skip
    assert drawn == {
        (round(score["low"], 6), round(score["high"], 6))
        for r in results
        for score in (r.report["scores"]["wer"], r.report["scores"]["cer"])
    }


def test_histories_give_curves_and_skip_other_records(outputs):
    history = load_histories(outputs)[0]
    assert len(history.curve("loss")) == 39 and history.curve("eval_wer") == [(10, 80), (20, 70)]


def test_smoothing_does_not_lag_behind_a_straight_line():
    line = [(float(x), 100.0 - x) for x in range(200)]
    assert charts.smooth(line) == [pytest.approx(point) for point in line]
    noisy = [(float(x), float(x % 2)) for x in range(400)]
    middle = [y for _, y in charts.smooth(noisy)[50:350]]
    assert max(middle) - min(middle) < 0.1


def test_undefined_losses_do_not_break_the_chart(tmp_path):
    history = History(
        "r", "r", [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 0.0}, {"step": 3, "loss": None}]
    )
    assert charts.training_loss([history], tmp_path / "a.png")
    assert not charts.training_loss([History("r", "r", [])], tmp_path / "b.png")


@pytest.mark.parametrize(("last", "between"), [(0.5, True), (0.001, False)])
def test_figures_of_the_loss_axis_do_not_lie_on_each_other(tmp_path, monkeypatch, last, between):
    labels = []

    def save(figure, path, **options):
        figure.canvas.draw()
        labels.extend(tick.get_text() for tick in figure.axes[0].get_yticklabels(minor=True))

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", save)
    records = [{"step": 1, "loss": 5.0}, {"step": 2, "loss": last}]
    assert charts.training_loss([History("r", "r", records)], tmp_path / "a.png")
    assert any(labels) == between


def test_figure_axis_and_marks():
    scale = Scale(0, 80, 300, 20)
    assert scale(0) == 300 and scale(80) == 20
    assert Scale(0, 100, 0, 1).ticks() == [0, 20, 40, 60, 80, 100]
    svg = bars(["a<b"], [("WER", [Bar(10, 8, 12)]), ("CER", [None])], 'x"y', 15)
    assert "a&lt;b" in svg and "<b" not in svg.replace("<bar", "") and 'aria-label="x&quot;y"' in svg
    assert "10.0 [8.0, 12.0]" in svg and svg.count("<rect") == 1
    assert curves([("loss", [(1, 2), (2, 1)], True), ("eval", [(2, 1)], False)], "Loss").count("<circle") == 1
