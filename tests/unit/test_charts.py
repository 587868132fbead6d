from __future__ import annotations

import json
import math
from html import escape

import pytest
from eval_assets import corpus

from training.base.errors import UserError
from training.cli.charts import main
from training.evaluation import charts
from training.evaluation.evaluate import evaluate
from training.evaluation.figures import Bar, Scale, bars, curves
from training.evaluation.report import build_report, write_report
from training.evaluation.run_labels import colour, labels, readable
from training.evaluation.stored import History, Result, load_histories, load_results

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


# Names and colours of runs


def history(run: str, experiment: str, place: str = "", level: float = 5.0) -> History:
    records = [{"step": n, "loss": level / n, "eval_loss": level / n, "eval_wer": 50.0} for n in (1, 2, 3)]
    return History(run, experiment, records, place=place)


def legends(tmp_path, histories, monkeypatch):
    """The texts of the legend that is drawn, and their colours."""
    from matplotlib.figure import Figure

    kept = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, path: (kept.append(self), save(self, path)))
    assert charts.training_loss(histories, tmp_path / "loss.png")
    (figure,) = kept
    legend = figure.axes[0].get_legend() or figure.legends[0]
    names = [text.get_text() for text in legend.get_texts()]
    return dict(zip(names, [line.get_color() for line in legend.get_lines()], strict=True))


def test_runs_of_one_configuration_keep_their_own_names_and_colours(tmp_path, monkeypatch):
    drawn = legends(tmp_path, [history("seed1", "tiny"), history("seed2", "tiny")], monkeypatch)
    assert list(drawn) == [
        f"tiny ({run}), {what}" for run in ("seed1", "seed2") for what in ("training", "evaluation")
    ]
    colours = list(drawn.values())
    assert colours[0] == colours[1] != colours[2] == colours[3]


def test_names_differ_whatever_the_runs_are_called():
    same = [history("run", "e", place) for place in ("a/run", "b/run", "", "")]
    assert labels(same) == ["e (run) (a/run)", "e (run) (b/run)", "e (run) (3)", "e (run) (4)"]
    assert labels([history("r", "a"), history("s", "b")]) == ["a", "b"]
    assert labels([history("r", "a\nb"), history("r", " ")]) == ["a�b", "(no name)"]
    for tricky in (["x", "x", "x (r)"], ["x", "x", "x (1)", "x (2)"]):
        assert len(set(labels([history("r", name) for name in tricky]))) == len(tricky)


@pytest.mark.parametrize(
    "name",
    ["_hidden", "cost $5 to $7", "$\\frac{", "a_b^c", "<b>&amp;</b>", "한국어", "50 %", "'\"", "\ud800"],
)
def test_odd_names_are_drawn_as_they_are(tmp_path, monkeypatch, name):
    drawn = legends(tmp_path, [history("r", name), history("s", "other")], monkeypatch)
    assert next(iter(drawn)) == f"{readable(name)}, training" and len(drawn) == 4
    result = Result(name, evaluate(*corpus(12, drop=0.1), meta={}, resamples=30).report)
    assert charts.wer_comparison([result], tmp_path / "wer.png")
    write_report(tmp_path / "r.html", [], [history("r", name)], None)
    assert escape(f"{readable(name)}, training") in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_more_runs_than_the_palette_has_colours(tmp_path, monkeypatch):
    runs = [history(f"run{n}", f"e{n}", level=2.0 + n) for n in range(30)]
    drawn = legends(tmp_path, runs, monkeypatch)
    assert len(drawn) == 60 and len(set(drawn.values())) == 30
    for dark in (False, True):
        assert len({colour(n, dark) for n in range(300)}) == 300


def test_a_run_has_the_same_colour_in_every_figure():
    """Also where an earlier run has no such curve."""
    bare = History("first", "first", [{"step": 1, "eval_wer": 60.0}])
    page = build_report([], [bare, history("second", "second")])
    loss, wer = (part.split("</figure>")[0] for part in page.split("<figure")[1:3])
    assert '<span class="key s1">second, training</span>' in loss and "key s0" not in loss
    assert '<span class="key s1">second, evaluation (dots)</span>' in loss
    assert '<span class="key s0">first, WER</span><span class="key s1">second, WER</span>' in wer
    assert 'class="line s1"' in loss and 'class="dot s1"' in loss and 'class="line s1"' in wer


def test_the_page_has_a_colour_for_each_of_many_runs():
    page = build_report([], [history(f"r{n}", f"e{n}") for n in range(9)])
    assert page.count(f"--s8:{colour(8)};") == page.count(f"--s8:{colour(8, dark=True)};") == 1
    assert ".line.s8 { stroke:var(--s8); }" in page
