"""Live sessions with a fake socket and a fake model: their events, their time, their errors, and sound that comes too fast."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving_fakes import LIVE, FakeSocket, abilities, app_of

from training.data.example import Hypothesis, SpokenWord
from training.serving.errors import ApiError
from training.serving.live import Segmenter
from training.serving.live_input import AHEAD, LEAST, MOST, PACE, LiveInput, Pace
from training.serving.live_settings import form_fields
from training.serving.realtime import Session

RATE = 16_000
PREFIX = "conversation.item.input_audio_transcription."
SECRET = "Zauberwort"
COMMIT = {"type": "input_audio_buffer.commit"}


def sound(*seconds: float) -> bytes:
    """Silence and a tone by turns, 16 bits at `RATE`."""
    draw = np.random.default_rng(0)
    parts = []
    for n, length in enumerate(seconds):
        count = round(length * RATE)
        tone = 0.3 * (n % 2) * np.sin(2 * np.pi * 300 * np.arange(count) / RATE)
        parts.append(tone + 1e-4 * draw.standard_normal(count))
    return (32767 * np.concatenate(parts)).astype("<i2").tobytes()


def update(**transcription: Any) -> dict[str, Any]:
    """An event that asks for `RATE`, and for what is given."""
    input_ = {"format": {"type": "audio/pcm", "rate": RATE}, "transcription": transcription}
    return {"type": "session.update", "session": {"audio": {"input": input_}}}


def word_in_the_middle(asked: Any, samples: np.ndarray, *_: Any, **__: Any) -> Hypothesis:
    """A window with one word, which lies 0.1 to 0.3 s after its beginning."""
    return Hypothesis(
        id="",
        task="transcribe",
        text="xin",
        words=(SpokenWord(text="xin", start=0.1, end=0.3, confidence=0.9),),
    )


Compute = Callable[..., Hypothesis]


def told(
    folder: Path, *messages: Any, compute: Compute = word_in_the_middle
) -> tuple[list[dict[str, Any]], FakeSocket]:
    """The events of a session in which the client sends these messages, without ``polyvox.partial``, and its socket."""
    state = app_of(folder, abilities(cutting=LIVE)).state.server
    socket = FakeSocket(*messages)

    async def row(*arguments: Any, **more: Any) -> dict[str, Any]:
        return {"hypotheses": {"transcribe": asdict(compute(*arguments, **more))}, "languages": {}}

    state.dispatcher.compute = row
    asyncio.run(Session(socket, state).run())  # type: ignore[arg-type]
    return [one for one in socket.events if one["type"] != "polyvox.partial"], socket


def of(kind: str, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in events if one["type"] == kind]


def test_the_time_of_a_session_goes_on_after_an_update_and_after_clear(tmp_path: Path) -> None:
    said = sound(1.0, 1.0, 1.0)
    events, _ = told(
        tmp_path, update(), said, update(), said, {"type": "input_audio_buffer.clear"}, said, COMMIT
    )
    starts = [one["audio_start_ms"] / 1000 for one in of("input_audio_buffer.speech_started", events)]
    assert starts == pytest.approx([1.0, 4.0, 7.0], abs=0.1)
    ends = [one["audio_end_ms"] / 1000 for one in of("input_audio_buffer.speech_stopped", events)]
    assert ends == pytest.approx([2.1, 5.1, 8.1], abs=0.1)
    words = [one["words"][0]["start"] for one in of(f"{PREFIX}completed", events) if one["words"]]
    assert words == pytest.approx([1.0, 4.0, 7.0], abs=0.1)


def test_an_update_while_somebody_speaks_ends_the_window(tmp_path: Path) -> None:
    events, _ = told(tmp_path, update(), sound(1.0, 1.03), update(), sound(1.0))
    kinds = [one["type"] for one in events]
    assert kinds.index(f"{PREFIX}completed") < len(kinds) - 1 - kinds[::-1].index("session.updated")
    (stopped,) = of("input_audio_buffer.speech_stopped", events)
    assert stopped["audio_end_ms"] == pytest.approx(2030, abs=30)


@pytest.mark.parametrize("received", [b"", sound(1.0), sound(0.01)])
def test_a_commit_of_silence_is_answered(tmp_path: Path, received: bytes) -> None:
    events, _ = told(tmp_path, update(), received, COMMIT, COMMIT)
    committed, completed = of("input_audio_buffer.committed", events), of(f"{PREFIX}completed", events)
    assert [one["item_id"] for one in committed] == [one["item_id"] for one in completed]
    assert len(completed) == 2 and completed[0]["item_id"] != completed[1]["item_id"]
    assert all(one["transcript"] == "" and one["words"] == [] for one in completed)
    assert not of("error", events)


def test_a_commit_takes_what_came_last(tmp_path: Path) -> None:
    """Also what is shorter than a block, and what nobody has looked at yet."""
    events, _ = told(tmp_path, update(), sound(1.0, 0.14), COMMIT)
    (done,) = of(f"{PREFIX}completed", events)
    assert done["transcript"] == "xin"


def test_hot_words_may_be_a_list(tmp_path: Path) -> None:
    asked = list[tuple[str, ...]]()

    def compute(question: Any, *_: Any, **__: Any) -> Hypothesis:
        asked.append(question.options.hot_words)
        return Hypothesis(id="", task="transcribe", text="")

    for given in (["TikTok", "họp nhóm"], "TikTok, họp nhóm"):
        asked.clear()
        told(tmp_path, update(hot_words=given), sound(1.0, 1.0, 1.0), compute=compute)
        assert set(asked) == {("TikTok", "họp nhóm")}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hot_words", ["a", 1]),
        ("hot_words", {"a": 1}),
        ("language", ["vi"]),
        ("beam_width", [2]),
        ("beam_width", True),
        ("prompt", {}),
    ],
)
def test_a_setting_of_the_wrong_kind_is_named_and_changes_nothing(
    tmp_path: Path, field: str, value: Any
) -> None:
    events, _ = told(tmp_path, update(), update(**{field: value}), sound(1.0, 1.0, 1.0))
    (error,) = of("error", events)
    assert error["error"]["param"] == field and len(of(f"{PREFIX}completed", events)) == 1
    with pytest.raises(ApiError):
        form_fields({field: value})


def test_a_window_that_fails_is_told_and_the_session_goes_on(tmp_path: Path) -> None:
    def compute(asked: Any, samples: np.ndarray, *_: Any, **__: Any) -> Hypothesis:
        if len(samples) < 1.4 * RATE:
            raise ApiError(500, "the model process ended twice with this request", code="model_ended")
        return word_in_the_middle(asked, samples)

    events, socket = told(tmp_path, update(), sound(1.0, 1.0, 1.0), sound(0.0, 1.5, 1.0), compute=compute)
    (lost,), (done,) = of(f"{PREFIX}failed", events), of(f"{PREFIX}completed", events)
    assert lost["error"]["code"] == "model_ended" and lost["item_id"] == "item_1"
    assert done["transcript"] == "xin" and done["item_id"] == "item_2" and socket.closed is None


def test_a_fault_of_the_server_is_told_before_the_socket_is_closed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def compute(*_: Any, **__: Any) -> Hypothesis:
        raise KeyError(SECRET)

    events, socket = told(tmp_path, update(), sound(1.0, 1.0, 1.0), compute=compute)
    assert events[-1]["type"] == "error" and events[-1]["error"]["code"] == "internal"
    assert socket.closed == 1011
    assert "KeyError" in caplog.text and SECRET not in caplog.text


def test_a_client_that_leaves_at_any_time_is_no_fault(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = app_of(tmp_path, abilities(cutting=LIVE)).state.server

    async def row(*arguments: Any, **more: Any) -> dict[str, Any]:
        return {"hypotheses": {"transcribe": asdict(word_in_the_middle(*arguments))}, "languages": {}}

    state.dispatcher.compute = row
    for stays in range(10):
        socket = FakeSocket(update(), sound(1.0, 1.5, 1.0), COMMIT, stays=stays)
        asyncio.run(Session(socket, state).run())  # type: ignore[arg-type]
        assert len(socket.events) == stays and socket.closed is None
    assert "failed" not in caplog.text


def test_sound_is_cut_outside_the_event_loop_in_blocks() -> None:
    received = list[tuple[float, str]]()

    class Listening(Segmenter):
        def add(self, samples: np.ndarray) -> list[Any]:
            received.append((len(samples) / RATE, threading.current_thread().name))
            return super().add(samples)

    async def run() -> float:
        with ThreadPoolExecutor(1, thread_name_prefix="segmenting") as thread:
            live = LiveInput(Listening(RATE, RATE, 20.0), RATE, 2.0, Pace(), thread)
            for data in (*[sound(0.02)] * 4, sound(1.0, 1.2), sound(0.01)):
                for block in live.blocks(data):
                    await live.take(block)
            assert live.end == pytest.approx(2.0 + 0.08 + 2.2 + 0.01)
            await live.finish()
            return live.end

    assert asyncio.run(run()) == pytest.approx(4.29)
    assert sum(seconds for seconds, _ in received) == pytest.approx(2.29)
    assert all(seconds <= MOST for seconds, _ in received) and all(
        name == "segmenting_0" for _, name in received
    )
    assert all(seconds >= LEAST for seconds, _ in received[:-1])


def test_sound_is_taken_a_little_faster_than_it_is_spoken() -> None:
    now = [0.0]
    pace = Pace(lambda: now[0])
    for _ in range(10_000):  # who speaks in real time never waits
        now[0] += 0.1
        assert pace.wait(0.1) == 0
    assert pace.wait(AHEAD - 0.1) == 0  # what a connection held back
    taken, began = 0.0, now[0]
    for _ in range(500):
        now[0] += pace.wait(0.5)
        taken += 0.5
    assert taken / (now[0] - began) == pytest.approx(PACE, rel=0.01)


def test_a_fast_speaker_waits_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited = list[float]()
    sleep = asyncio.sleep

    async def slept(seconds: float) -> None:
        waited.append(seconds)
        await sleep(0)

    monkeypatch.setattr("training.serving.live_input.asyncio.sleep", slept)
    said = sound(*[1.0] * 81)
    events, _ = told(tmp_path, update(), said)
    assert len(of("input_audio_buffer.speech_started", events)) == 40
    assert sum(one > 0 for one in waited) > 50
