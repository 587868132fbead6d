"""A split must hold the texts that the model learns or is scored against."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from speech_files import manifest, sound

from training.base.errors import UserError
from training.data.dataset import SpeechDataset, validate
from training.data.manifest import load_manifest
from training.data.tasks import check_tasks

BOTH = ("transcribe", "translate")


class Encode:
    def __init__(self, *tasks: str) -> None:
        self.tasks = tasks

    def __call__(self, example: Any, waveform: Any) -> dict[str, Any]:
        return {}

    def check(self, example: Any, seconds: float) -> None: ...


@pytest.fixture
def rows(tmp_path: Path) -> Any:
    """Transcripts for all, a translation for the second alone."""
    cells = [
        {
            "id": name,
            "audio_path": str(sound(tmp_path / f"{name}.wav", 1.0)),
            "duration": 1.0,
            "transcript": "xin chào",
            "translation": "hello" if name == "b" else "",
        }
        for name in "abc"
    ]
    return load_manifest(manifest(tmp_path / "m.tsv", cells))


def test_rows_without_a_text_for_any_task_are_dropped_with_the_column(rows: Any) -> None:
    kept, ledger = validate(SpeechDataset(rows, Encode("translate"), 16000))
    assert kept.tolist() == [1]
    assert [(drop.id, drop.reason) for drop in ledger] == [("a", "empty_text"), ("c", "empty_text")]
    assert ledger.drops[0].detail.endswith("m.tsv:2: no translation")
    assert validate(SpeechDataset(rows, Encode(*BOTH), 16000))[0].tolist() == [0, 1, 2]


def test_some_text_for_each_task_is_enough(rows: Any) -> None:
    check_tasks(rows, BOTH, "data.train", every=True)


def test_a_training_split_without_one_tasks_texts_is_refused(rows: Any) -> None:
    with pytest.raises(
        UserError, match=r"data\.train: no row of .*m\.tsv has a text for translate: the column 'transl"
    ):
        check_tasks(rows.select([0, 2]), BOTH, "data.train", every=True)
    check_tasks(rows.select([0, 2]), BOTH, "data.dev", every=False)
    with pytest.raises(UserError, match=r"model\.task=transcribe"):
        check_tasks(rows.select([0, 2]), BOTH, "data.train", every=True)


def test_a_split_without_any_text_of_the_tasks_or_without_rows_is_refused(rows: Any) -> None:
    with pytest.raises(UserError, match="has a text for translate"):
        check_tasks(rows.select([0, 2]), ("translate",), "data.dev", every=False)
    with pytest.raises(UserError, match="holds no utterances"):
        check_tasks(rows.select([]), BOTH, "data.dev", every=False)
