"""A run beside its start weights: figures, lines, the kept answers, and where there are none."""

from __future__ import annotations

import json
import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import whisper_assets

from training.api import start as starts
from training.api.predicting import decoding
from training.api.scoring import evaluate
from training.base.errors import UserError
from training.config.load import config_from, save_resolved
from training.config.schema import Config
from training.data.example import AudioRef, Example, Hypothesis
from training.data.manifest import load_manifest
from training.decoding.ctc_setup import SearchOptions
from training.decoding.loading import load_trained
from training.engine import run as runs
from training.evaluation import summary
from training.evaluation.report import build_report
from training.evaluation.start import beside_start
from training.evaluation.stored import Result
from training.evaluation.summary import retained_text, summarize
from training.models.architecture import BuildContext

WORDS = (
    "xin chào các em",
    "hôm nay học bài",
    "con mèo ngồi đây",
    "trời mưa to lắm",
    "đi chợ mua rau",
    "em thích đọc sách",
)


def example(number: int, language: str = "vi") -> Example:
    return Example(
        id=f"u{number}",
        audio=AudioRef(path=f"{number}.wav"),
        duration=1.0,
        texts={"transcribe": WORDS[number % len(WORDS)]},
        language=language,
    )


def said(examples: list[Example], wrong: int) -> list[Hypothesis]:
    """The references; the first word is left out of the first ``wrong`` utterances."""
    texts = [one.texts["transcribe"] for one in examples]
    spoken = [text.partition(" ")[2] if i < wrong else text for i, text in enumerate(texts)]
    return [
        Hypothesis(id=one.id, task="transcribe", text=text)
        for one, text in zip(examples, spoken, strict=True)
    ]


def test_the_difference_is_paired_and_has_a_verdict() -> None:
    examples = [example(i) for i in range(24)]
    found = beside_start(examples, said(examples, 20), said(examples, 4), resamples=300)
    wer = found["differences"]["wer"]
    assert found["scores"]["wer"]["value"] == pytest.approx(wer["a"])
    assert wer["difference"] == pytest.approx(found["own"]["wer"]["value"] - found["scores"]["wer"]["value"])
    assert wer["high"] < 0 and wer["verdict"] == "better" and found["metric"] == "wer"
    worse = beside_start(examples, said(examples, 4), said(examples, 20), resamples=300)
    assert worse["differences"]["wer"]["verdict"] == "worse"
    same = beside_start(examples, said(examples, 4), said(examples, 4), resamples=300)
    assert same["differences"]["wer"]["verdict"] == "no difference shown"


def test_each_domain_has_its_own_difference_and_verdict() -> None:
    domains = ("child", "adult")
    examples = [replace(example(i), domain=domains[i < 12]) for i in range(24)]
    wrong = said(examples[:12], 0) + said(examples[12:], 10)
    found = beside_start(examples, wrong, said(examples, 0), resamples=300)
    assert {name: part["rows"] for name, part in found["by_domain"].items()} == {
        "adult": {"transcribe": 12},
        "child": {"transcribe": 12},
    }
    adult, child = (found["by_domain"][name]["metrics"]["wer"] for name in ("adult", "child"))
    assert (adult["difference"], adult["verdict"]) == (0.0, "no difference shown")
    assert child["high"] < 0 and child["verdict"] == "better"
    report = {"start": {**found, "name": "base", "context": "30 s context"}}
    told = list(summary._start(report))
    assert told[2].startswith("  change of domain adult: WER 0.0 -> 0.0, +0.0 [+0.0, +0.0] paired: no diff")
    assert told[3].startswith(f"  change of domain child: WER {child['a']:.1f} -> 0.0, -{child['a']:.1f} [")
    assert (
        beside_start(said_by := [example(0)], said(said_by, 0), said(said_by, 0), resamples=50)["by_domain"]
        == {}
    )


def test_utterances_that_the_start_cannot_take_count_on_neither_side() -> None:
    examples = [example(i) for i in range(10)]
    found = beside_start(examples, said(examples, 0)[:6], said(examples, 9), resamples=50)
    assert found["rows"] == {"transcribe": 6} and found["differences"]["wer"]["rows"] == 6


def test_languages_without_spaces_are_retained_by_characters() -> None:
    for language, metric in (("ko", "cer"), ("en", "wer")):
        examples = [example(i, language) for i in range(4)]
        found = beside_start(examples, said(examples, 1), said(examples, 2), resamples=50)
        assert found["metric"] == metric
        assert retained_text(found).startswith(f"{metric.upper()} ") and " -> " in retained_text(found)


# A run from a folder of weights.


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips, a stock-shaped Whisper in ``start/``, and a run from it in ``run/`` whose weights differ."""
    folder = tmp_path_factory.mktemp("start")
    rng = np.random.default_rng(0)
    for split in ("train", "test", "other"):
        lines = ["id,audio_path,duration,transcript,language"]
        for i in range(3):
            soundfile.write(folder / f"{split}{i}.wav", 0.1 * rng.standard_normal(8000), 16_000)
            lines.append(f"{split}{i},{split}{i}.wav,0.5,{WORDS[i]},vi")
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n", encoding="utf8")
    scratch = settings(folder, {"sizes": {**whisper_assets.SIZES, "init_std": 0.3}, "max_label_tokens": 64})
    built = runs.build_architecture(
        scratch, BuildContext(texts=lambda: (("transcribe", "vi", one) for one in WORDS), seed=1)
    )
    built.save(folder / "start", built.model)
    config = json.loads((folder / "start/config.json").read_text())
    config.pop("polyvox")
    (folder / "start/config.json").write_text(json.dumps(config))  # as stock transformers leaves one
    tuned = settings(folder, {"name": str(folder / "start")})
    run = runs.build_architecture(tuned, BuildContext(seed=2))
    run.model.model.decoder.embed_tokens.weight.data *= -1
    run.save(folder / "run", run.model)
    save_resolved(tuned, folder / "run")
    return folder


def settings(folder: Path, model: dict[str, Any]) -> Config:
    return config_from(
        {
            "model": {"type": "whisper", "task": "transcribe", "language": "vi", **model},
            "data": {name: str(folder / f"{name}.csv") for name in ("train", "test")} | {"dev": None},
            "training": {"eval_strategy": "no", "load_best_model_at_end": False},
            "output": {"dir": str(folder / "run")},
            "evaluation": {"silence_probes": False, "resamples": 50, "max_new_tokens": 6},
        }
    )


def test_the_start_weights_are_scored_once_and_kept(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = evaluate(project / "run", output=tmp_path)
    start = scores.report["start"]
    assert (start["name"], start["context"], start["from_cache"]) == ("start", "30 s context", False)
    assert start["rows"] == {"transcribe": 3} and set(start["differences"]) >= {"wer", "cer"}
    assert start["own"]["wer"]["value"] == scores.report["scores"]["wer"]["value"]
    assert json.loads((tmp_path / "run_metrics.json").read_text(encoding="utf8"))["start"] == start
    first = summarize(scores.report).splitlines()
    assert first[0].startswith("start weights (start, untouched, 30 s context): ") and "paired: " in first[1]
    page = build_report([Result("run", dict(scores.report))])
    assert "start, untouched, 30 s context" in page

    again = evaluate(project / "run", output=tmp_path)
    assert again.report["start"] == {**start, "from_cache": True}
    # Other utterances, other options and other weights are asked anew.
    assert not evaluate(project / "run", output=tmp_path, overrides=["max_new_tokens=5"]).report["start"][
        "from_cache"
    ]
    found = evaluate(project / "run", manifest=project / "other.csv", output=tmp_path, name="other")
    assert not found.report["start"]["from_cache"]


def test_an_answer_is_kept_by_all_that_decides_it(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = Path(shutil.copytree(project, tmp_path / "copied"))

    def key() -> str:
        trained = load_trained(copied / "start")
        return starts._key(trained, load_manifest(copied / "test.csv"), decoding(trained, SearchOptions()))

    keys = [key(), key()]
    assert keys[0] == keys[1]
    for name in ("tokenizer.json", "preprocessor_config.json"):
        path = copied / "start" / name
        path.write_text(path.read_text(encoding="utf8") + "\n", encoding="utf8")
        keys.append(key())
    os.utime(copied / "test0.wav", (1, 1))
    keys.append(key())
    monkeypatch.setattr(starts, "code_hash", lambda: "changed")
    keys.append(key())
    assert len(set(keys)) == 5


def test_the_code_is_known_by_its_content_not_its_commit() -> None:
    assert starts.code_hash() == starts.code_hash()
    assert {(Path(starts.__file__).parents[1] / name).is_dir() for name in starts.CODE} == {True}


def test_manifests_that_must_be_retained(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    other = project / "other.csv"
    scores = evaluate(project / "run", overrides=[f"retain=[{other}]"])
    (found,) = scores.report["retained"]
    assert found["name"] == "Vietnamese (other.csv)" and found["rows"] == {"transcribe": 3}
    assert f"retained, Vietnamese (other.csv): {retained_text(found)}" in summarize(scores.report)
    with pytest.raises(UserError, match=r"evaluation.retain: .*gone.csv is not there"):
        evaluate(project / "run", overrides=[f"retain=[{project}/gone.csv]"])


def test_manifests_that_cannot_be_compared_are_said_not_to_be_scored(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = [f"retain=[{project / 'other.csv'}]"]
    assert "retained" not in evaluate(project / "run", overrides=wanted, baseline=False).report
    assert "evaluation.retain: not scored: the start weights are left out" in caplog.text

    def gone(name: str) -> Path:
        raise starts.NoStart(f"{name} is not here")

    monkeypatch.setattr(starts, "_folder", gone)
    report = evaluate(project / "run", overrides=wanted).report
    (found,) = report["retained"]
    assert found["name"] == "other.csv" and "is not here" in found["note"]
    assert f"retained, other.csv: not scored: {project / 'start'} is not here" in summarize(report)
    monkeypatch.setattr(starts, "start_weights", lambda config: None)
    report = evaluate(project / "run", overrides=wanted).report
    assert "random weights" in report["retained"][0]["note"] and "start" not in report
    build_report([Result("run", dict(report))])


def test_answers_are_kept_for_the_domain_that_was_asked(project: Path, tmp_path: Path) -> None:
    lines = (project / "test.csv").read_text(encoding="utf8").splitlines()
    asked = []
    for domain in ("adult", "child"):
        rows = [f"{lines[0]},domain", *(f"{line},{domain}" for line in lines[1:])]
        (tmp_path / f"{domain}.csv").write_text("\n".join(rows) + "\n", encoding="utf8")
        asked.append(list(starts._utterances(load_manifest(tmp_path / f"{domain}.csv", audio_root=project))))
    assert asked[0] != asked[1]


def test_without_the_baseline_and_without_the_weights(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "start" not in evaluate(project / "run", baseline=False).report

    def gone(name: str) -> Path:
        raise starts.NoStart(f"{name} is not here")

    monkeypatch.setattr(starts, "_folder", gone)
    report = evaluate(project / "run").report
    assert "is not here" in report["start"]["note"]
    assert summarize(report).splitlines()[0].startswith("start weights: ")


def test_a_stock_model_on_the_data_of_a_configuration(project: Path) -> None:
    config = settings(project, {"name": str(project / "start")})
    scores = evaluate(config=config)
    assert scores.report["rows"] == {"transcribe": 3} and "start" not in scores.report
    assert scores.report["meta"]["config_sha256"] is None  # no run was made with it
    named = evaluate(project / "start", config=config)
    assert named.report["scores"] == scores.report["scores"]
    assert evaluate(project / "run").report["start"]["scores"]["wer"] == scores.report["scores"]["wer"]
    with pytest.raises(UserError, match="which model"):
        evaluate()
    scratch = settings(project, {"sizes": whisper_assets.SIZES})
    with pytest.raises(UserError, match="names no pretrained weights"):
        evaluate(config=scratch)
    with pytest.raises(UserError, match="gone is not here: no such folder, and not in the hub's cache"):
        evaluate(config=settings(project, {"name": str(project / "gone")}))


def test_weights_of_another_type_are_no_baseline(project: Path) -> None:
    """A CTC model on a Whisper's encoder is not a Whisper that was trained on."""
    taken = SimpleNamespace(
        weights={"pretrained": str(project / "start")},
        scored_by_word_times=False,
        tasks=("transcribe",),
        type="ctc",
    )
    with pytest.raises(starts.NoStart, match="a whisper, of which a ctc takes a part"):
        starts.start_weights(SimpleNamespace(model=taken))  # type: ignore[arg-type]


def test_weights_that_are_parts_are_said_to_be_parts(project: Path) -> None:
    config = settings(project, {"type": "e2e", "encoder": "a/b", "decoder": "c/d"})
    with pytest.raises(starts.NoStart, match="a/b, c/d are parts"):
        starts.start_weights(config)
