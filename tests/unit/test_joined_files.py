"""Long files of known texts, made of the clips of a recording."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from speech_files import manifest, sound

from training.base.errors import UserError
from training.data.manifest import load_manifest
from training.evaluation.joined_files import plan_files, write_files

RATE = 16_000


def rows(folder: Path, talks: str = "aaabbbbba", seconds: float = 1.0, **more: Any) -> Any:
    found = [
        {
            "id": f"u{i}",
            "audio_path": sound(folder / f"{i}.wav", seconds, rate=RATE, seed=i).name,
            "duration": seconds,
            "transcript": f"word{i}",
            "talk": talk,
            **more,
        }
        for i, talk in enumerate(talks)
    ]
    return load_manifest(manifest(folder / "m.tsv", found))


def test_recordings_take_turns_and_a_short_end_is_left_out(tmp_path: Path) -> None:
    """Talk a: four clips, talk b: five; two and a pause fit 2.5 s."""
    plans = plan_files(rows(tmp_path), seconds=2.5, files=None, pause=0.5)
    assert [(plan.recording, plan.rows) for plan in plans] == [
        ("a", (0, 1)), ("b", (3, 4)), ("a", (2, 8)), ("b", (5, 6)),
    ]  # fmt: skip
    assert {plan.seconds for plan in plans} == {2.5}
    assert len(plan_files(rows(tmp_path), seconds=2.5, files=3, pause=0.5)) == 3
    half = plan_files(rows(tmp_path), seconds=2.0, files=None, pause=0.0)
    assert [plan.rows for plan in half][-1] == (7,), "half of the wanted length is enough"


def test_a_file_holds_its_clips_in_order_with_pauses_and_their_texts(tmp_path: Path) -> None:
    table = rows(tmp_path, language="ko", speaker="s")
    plans = plan_files(table, seconds=3.5, files=2, pause=0.25)
    first, second = write_files(table, plans, tmp_path / "long", pause=0.25)
    samples, rate = soundfile.read(first.audio.path, dtype="float32")
    clips = [table.waveform(row, RATE) for row in plans[0].rows]
    quiet = np.zeros(RATE // 4, dtype=np.float32)
    expected = np.concatenate([clips[0], quiet, clips[1], quiet, clips[2]])
    assert rate == RATE and len(samples) == len(expected)
    np.testing.assert_allclose(samples, expected, atol=1 / 2**15)
    assert first.texts == {"transcribe": "word0 word1 word2"} and first.duration == len(samples) / RATE
    assert (first.group, first.language, first.speaker, second.group) == ("a", "ko", "s", "b")


def test_clips_of_no_recording_and_short_recordings_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing says which recording .* recording, group, video_id, talk"):
        plan_files(rows(tmp_path, talks=[""] * 2))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"no recording has 55 s of clips"):
        plan_files(rows(tmp_path))
