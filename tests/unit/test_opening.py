"""What a training says before its first step and where a batch is too large; what is said while libraries load."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from training.cli import slow_start
from training.config.load import config_from
from training.engine import fit, opening


def test_an_amount_of_data_in_words() -> None:
    found = {"utterances": 2410, "hours": 3.2, "languages": ["en", "vi"], "domains": {}}
    assert opening.data(found) == "2,410 utterances, 3.20 h, languages en, vi"
    assert opening.data({**found, "languages": ["ko"]}).endswith(", language ko")
    assert opening.data({**found, "languages": []}) == "2,410 utterances, 3.20 h"


@pytest.mark.parametrize(
    ("training", "told"),
    [
        ({"batch_size": 16}, "training.batch_size=8 training.gradient_accumulation_steps=2"),
        ({"batch_size": 1}, "training.batch_size=1 "),
        (
            {"max_batch_seconds": 120, "gradient_accumulation_steps": 2},
            "training.max_batch_seconds=60 training.gradient_accumulation_steps=4",
        ),
        ({"max_batch_seconds": 40}, "training.max_batch_seconds=30 "),  # the longest clip must fit
        ({}, "training.batch_size=4 "),
    ],
)
def test_a_batch_that_does_not_fit_names_a_smaller_one(training: dict[str, Any], told: str) -> None:
    config = config_from({"model": {"type": "ctc"}, "training": training})
    said = fit._too_large(config, RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0"))
    assert told in said and "(CUDA out of memory)" in said and "--dry_run" in said


def test_running_out_of_memory_is_the_users_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from training.base.errors import UserError

    def full(**_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried …")

    config = config_from({"model": {"type": "ctc"}, "training": {"batch_size": 64}})
    restored: list[bool] = []
    ready: Any = SimpleNamespace(
        trainer=SimpleNamespace(train=full),
        plan=None,
        signals=SimpleNamespace(restore=lambda: restored.append(True)),
    )
    run: Any = SimpleNamespace(config=config)
    with pytest.raises(UserError, match=r"^training\.batch_size: a batch \(64\) does not fit"):
        fit._train(run, ready, None)
    assert restored == [True]


def test_who_waits_at_a_terminal_is_told_what_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert slow_start.announce() is None  # standard error is no terminal
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(slow_start, "PATIENCE", 0.01)
    monkeypatch.setattr(slow_start, "SLOW", ("loading_for_ages",))
    module = ModuleType("loading_for_ages")
    module.__spec__ = SimpleNamespace(_initializing=True)  # type: ignore[assignment]
    for there, said in ((True, "loading loading_for_ages …\n"), (False, "")):
        monkeypatch.setitem(sys.modules, "loading_for_ages", module)
        module.__spec__._initializing = there  # type: ignore[union-attr]
        timer = slow_start.announce()
        assert timer is not None
        timer.join()
        assert capsys.readouterr().err == said


def test_targets_are_those_of_the_demo_corpus_alone(tmp_path: Path) -> None:
    from training.api.scoring_told import is_demo
    from training.data.manifest import load_manifest

    head = "id,video_id,audio_path,duration,transcript,word_languages,kind,voice,snr_db,split_hint"
    for video, wanted in (("demo_003", True), ("talk_7", False)):
        path = tmp_path / f"{video}.csv"
        path.write_text(f"{head}\na,{video},a.wav,1.0,xin chào,vi vi,mixed,vi,20,test\n", encoding="utf8")
        assert is_demo(load_manifest(path)) is wanted
    plain = tmp_path / "plain.csv"
    plain.write_text("id,audio_path,duration,transcript\na,a.wav,1.0,hello\n", encoding="utf8")
    assert not is_demo(load_manifest(plain))


def test_without_targets_a_report_shows_scores_and_no_verdict(tmp_path: Path) -> None:
    from eval_assets import corpus

    from training.evaluation.evaluate import evaluate
    from training.evaluation.report import build_report
    from training.evaluation.stored import load_results

    examples, hypotheses = corpus(12)
    for name, judged in (("own", False), ("demo", True)):
        scored = evaluate(examples, hypotheses, meta={"model_dir": name}, resamples=50, with_targets=judged)
        assert ("(wanted < 15" in scored.summary()) is judged
        scored.write(tmp_path / name, name)
        page = build_report(load_results(tmp_path / name))
        assert page.count('class="badge') == (4 if judged else 0) and page.count('class="tile"') == 5
        assert ('class="target"' in page) is judged
