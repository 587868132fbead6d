"""The peers of `benchmarks/train_ctc_to_quality.py`: what they share with ours, what the clock counts, what the gate stops."""

from __future__ import annotations

import csv
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from training.base.errors import UserError

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
DIGITS = BENCHMARKS.parent / "configs" / "digits_ctc.yaml"
RATE, WORDS = 8000, ("no", "yes", "ok")


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    """The scripts import one another as they do when they are run."""
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    """Eighteen tones of unequal length, six of them to choose on."""
    folder = tmp_path_factory.mktemp("tones")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(18):
        seconds = float(rng.uniform(0.4, 0.8))
        time = np.arange(round(RATE * seconds)) / RATE
        name = f"{i}.wav"
        soundfile.write(folder / name, 0.3 * np.sin(2 * np.pi * 300 * (1 + i % 3) * time), RATE)
        split = "dev" if i < 6 else "train"
        rows.append((name, round(len(time) / RATE, 4), WORDS[i % 3], "ann", split, "en"))
    path = folder / "manifest.tsv"
    with path.open("w", encoding="utf8", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(("audio_path", "duration", "transcript", "speaker", "split", "language"))
        writer.writerows(rows)
    return path


def overrides(manifest: Path) -> list[str]:
    """The tones and a tiny model instead of the digits and theirs."""
    model = {"d_model": 16, "num_encoder_layers": 1, "num_heads": 2, "d_ff": 16, "n_mels": 16}
    training = {
        "max_batch_seconds": 2.4,
        "max_steps": 8,
        "eval_steps": 2,
        "save_steps": 4,
        "report_to": "none",
    }
    return [
        f"data.manifest={manifest}",
        "audio.max_length_seconds=1",
        "augmentation.after_epochs=1",
        "model.subsampling_channels=4",
        *(f"model.{key}={value}" for key, value in model.items()),
        *(f"training.{key}={value}" for key, value in training.items()),
    ]


def arm(name: str, manifest: Path, folder: Path, target: float) -> dict:
    """What one arm finds in eight steps."""
    import train_ctc_arm

    output = folder / f"{name}.json"
    how = ["--config", str(DIGITS), "--target", str(target), "--output", str(output)]
    assert train_ctc_arm.main([name, *how, *overrides(manifest), f"output.dir={folder / name}"]) == 0
    return json.loads(output.read_text(encoding="utf8"))


def test_all_arms_begin_alike_and_are_scored_at_the_same_steps(manifest, tmp_path):
    import train_ctc_to_quality as benchmark

    found = {name: arm(name, manifest, tmp_path, target=-1) for name in "ABC"}
    assert len({(one["weights"], one["utterances"]) for one in found.values()}) == 1
    for one in found.values():
        assert [point["step"] for point in one["curve"]] == [2, 4, 6, 8]
        seconds = [one["prepared"], *(point["seconds"] for point in one["curve"])]
        assert seconds == sorted(seconds) and one["wall"] > seconds[-1] > 0
        assert benchmark.at(one, -1)["seconds"] is None


def test_a_stock_run_ends_at_its_target(manifest, tmp_path):
    import train_ctc_to_quality as benchmark

    found = benchmark.at(arm("B", manifest, tmp_path, target=1000), 1000)
    assert len(found["curve"]) == 1
    assert found["steps"] == 2 and found["seconds"] == found["curve"][0]["seconds"]


def test_our_run_ends_at_its_target_in_a_process_of_its_own(manifest):
    import train_ctc_to_quality as benchmark

    args = benchmark.options().parse_args(overrides(manifest))
    found = benchmark.at(
        benchmark.one_training(benchmark.Corpus(DIGITS, (), target=1000), "C", args, 0), 1000
    )
    assert len(found["curve"]) == 1
    assert found["steps"] == 2 and found["seconds"] == found["curve"][0]["seconds"]


def test_the_clock_stands_while_a_model_is_evaluated():
    import evaluation_clock

    clock = evaluation_clock.EvaluationClock(target=5)
    state, control = SimpleNamespace(global_step=3), SimpleNamespace(should_evaluate=True)
    control.should_training_stop = False
    clock.start()
    clock.on_step_end(None, state, control)
    time.sleep(0.2)
    clock.on_evaluate(None, state, control, {"eval_cer": 6.0})
    assert clock.curve[0]["seconds"] < 0.1 and not control.should_training_stop
    clock.on_step_end(None, state, control)
    clock.on_evaluate(None, state, control, {"eval_cer": 5.0})
    assert clock.curve[1]["seconds"] < 0.1 and control.should_training_stop


def test_stock_loss_is_that_of_wav2vec2_with_the_mean():
    import stock_ctc

    torch.manual_seed(0)
    logits, lengths = torch.randn(2, 9, 5), torch.tensor([9, 7])
    labels = torch.tensor([[1, 2, 2], [4, -100, -100]])
    found = stock_ctc.ctc_mean(SimpleNamespace(logits=logits, lengths=lengths), labels)
    each = torch.nn.functional.ctc_loss(
        logits.log_softmax(-1).transpose(0, 1),
        torch.tensor([[1, 2, 2], [4, 0, 0]]),
        lengths,
        torch.tensor([3, 1]),
        reduction="none",
    )
    assert found == pytest.approx(float((each / torch.tensor([3, 1])).mean()))


def test_frames_of_padding_say_nothing():
    import stock_ctc

    logits = torch.zeros(2, 3, 4)
    logits[..., 2] = 1
    paths = stock_ctc.best_paths((logits, torch.tensor([3, 1]), logits), torch.tensor(0))
    assert paths.tolist() == [[2, 2, 2], [2, 0, 0]]


def figures(seconds: float | None, weights: str = "w") -> dict:
    return {"seconds": seconds, "steps_seconds": 8.0, "weights": weights, "utterances": 9, "cer": 7.0}


def test_the_way_to_a_rate_is_that_to_its_first_evaluation():
    import train_ctc_to_quality as benchmark

    times = ((1.5, 90), (2.5, 8), (5.5, 4), (6.5, 6))
    curve = [{"step": 10 * n, "seconds": s, "cer": cer} for n, (s, cer) in enumerate(times, 1)]
    found = [benchmark.at({"prepared": 0.5, "curve": curve}, target) for target in (10, 5, 2)]
    keys = ("seconds", "steps", "steps_seconds", "step_ms", "slowest", "cer")
    assert [tuple(one[key] for key in keys) for one in found] == [
        (2.5, 20, 2.0, pytest.approx(100), 1.0, 8),
        (5.5, 30, 5.0, pytest.approx(500 / 3), pytest.approx(3), 4),
        (None, 40, 6.0, pytest.approx(150), pytest.approx(3), 6),
    ]


def test_no_way_is_asked_for_that_is_not_gone():
    import train_ctc_to_quality as benchmark

    with pytest.raises(UserError, match=r"--at: the runs end at --target, which must be the lowest"):
        benchmark.main(["--corpus", "digits", "--target", "5", "--at", "8", "--at", "2"])


def test_stock_has_no_loss_half_way_up(manifest, tmp_path):
    import stock_ctc
    from evaluation_clock import EvaluationClock

    from training.config.load import load_config
    from training.engine.run import build

    config = load_config(
        DIGITS, [*overrides(manifest), f"output.dir={tmp_path / 'run'}", "training.max_steps=2"]
    )
    run = build(config)
    assert run.architecture.model.middle_weight == 0.3
    stock_ctc.train(run, stock_ctc.TUTORIAL, EvaluationClock(1000))
    assert run.architecture.model.middle_weight == 0.0


def test_no_ratio_for_an_arm_that_misses_the_target_or_begins_elsewhere():
    import common
    import train_ctc_to_quality as benchmark

    def rounds(**arms: dict) -> list:
        return [common.Round({f"demo {name}": one for name, one in arms.items()}, (0.0, 0.0, 0.0))]

    good = rounds(A=figures(None), B=figures(30.0), C=figures(10.0))
    ratios = benchmark.speedups(good, "demo", "ABC", 5.0)
    assert ratios["demo B / C"].median == 3 and "demo A / C" not in ratios
    assert benchmark.gate(good, ["demo A", "demo C"], 5.0) == [
        "round 1: demo A ends its schedule with CER 7.0, 5 wanted"
    ]
    other = rounds(B=figures(30.0, "other"), C=figures(10.0))
    assert benchmark.speedups(other, "demo", "BC", 5.0) == {}
    assert "different weights" in benchmark.gate(other, ["demo B", "demo C"], 5.0)[0]


def test_without_speech_the_digits_are_left_out_with_the_reason(capsys, monkeypatch):
    import train_ctc_to_quality as benchmark

    monkeypatch.delenv("POLYVOX_SPEECH", raising=False)
    assert benchmark.main(["--corpus", "digits"]) == 0
    assert "skipped: no real speech here" in capsys.readouterr().out
