"""What the server does about faults of its own: nothing ends unseen, and who asked is answered. No model process."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving_fakes import abilities, app_of

from training.base.errors import UserError
from training.serving import decode_process, messages
from training.serving.batches import BatchKey, QueuedWindow, WindowQueue
from training.serving.decoders import Decoder, Sound
from training.serving.devices import Device, work
from training.serving.dispatcher import DecodingRequest, Dispatcher
from training.serving.errors import ApiError
from training.serving.fields import understand
from training.serving.messages import Message
from training.serving.metrics import Metrics
from training.serving.options import Options
from training.serving.server import _bound
from training.serving.settings import Settings
from training.serving.state import State
from training.serving.transcriptions import _Stream
from training.serving.uploads import Upload
from training.serving.worker import ProcessEnded, ProcessNotRunning, ProcessTimeout, Worker
from training.transcription.windows import Window

SECRET = "Zauberwort"
ROW = {"hypotheses": {}, "languages": {}}


class Process:
    """In the place of a `Worker`: answers as it is told, and raises what it is told. asked: windows of each batch."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.asked, self.starts, self.running = list(answers), list[int](), 0, True

    def start(self) -> None:
        self.starts += 1
        self.running = True

    async def call(self, head: Mapping[str, Any], payload: Sequence[Any] = (), **_: Any) -> Message:
        if "models" in head:
            return Message({"models": {}}, bytearray(), [])
        self.asked.append(len(head["samples"]))
        answer = self.answers.pop(0) if self.answers else {"rows": [ROW] * len(head["samples"])}
        if isinstance(answer, Exception):
            self.running = not isinstance(answer, ProcessEnded | MemoryError)
            raise answer
        return Message(answer, bytearray(), [])


def computed(process: Process, seconds: Sequence[float], metrics: Metrics | None = None) -> list[Any]:
    """What windows of these lengths get of a device with that process: a row, or the status of an error."""
    metrics = metrics or Metrics()

    async def run() -> list[Any]:
        device, waiting = Device("cpu", {}, batch_seconds=30, batch_timeout=7), WindowQueue()
        device.worker = process  # type: ignore[assignment]
        device.ready.set()
        loop = asyncio.get_running_loop()
        pieces = [
            QueuedWindow(
                BatchKey("m", Options()), np.zeros(9, np.float32), None, length, n, loop.create_future()
            )
            for n, length in enumerate(seconds)
        ]
        for piece in pieces:
            waiting.add(piece)
        going = asyncio.create_task(work(device, waiting, metrics))
        found = await asyncio.gather(*(one.result for one in pieces), return_exceptions=True)
        assert not going.done() and not waiting.pieces
        going.cancel()
        return [one.status if isinstance(one, ApiError) else one for one in found]

    return asyncio.run(asyncio.wait_for(run(), 10))


@pytest.mark.parametrize(
    "fault", [KeyError(SECRET), TypeError(SECRET), {"unknown": SECRET}, {"rows": [ROW] * 3}]
)
def test_a_fault_costs_its_batch_and_the_device_goes_on(fault: Any, caplog: pytest.LogCaptureFixture) -> None:
    process = Process(fault)
    found = computed(process, [9, 1])  # too unlike for one batch
    assert found == [500, ROW] and process.starts == 0
    assert "a batch of 1 windows failed" in caplog.text and "devices.py" in caplog.text
    assert SECRET not in caplog.text


def test_a_fault_of_the_model_is_tried_once_more_alone(caplog: pytest.LogCaptureFixture) -> None:
    process = Process({"fault": "line 7\nKeyError"}, {"fault": "line 7\nKeyError"})
    assert computed(process, [5, 5]) == [500, ROW]
    assert process.asked == [2, 1, 1] and process.starts == 0 and "line 7" in caplog.text


@pytest.mark.parametrize("gpus", ["", "0"])
def test_a_model_process_tells_its_fault_and_goes_on_where_it_can(
    monkeypatch: pytest.MonkeyPatch, gpus: str
) -> None:
    from training.serving import model_process

    class Model:
        def abilities(self) -> Any:
            return abilities(cutting={"longest": 30.0})

    def answer(_: Any, asked: Mapping[str, Any], __: Any) -> Mapping[str, Any]:
        if asked["model"] == "broken":
            raise KeyError(SECRET)
        return {"rows": []}

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    monkeypatch.setattr(model_process, "_load", lambda _: {"m": Model()})
    monkeypatch.setattr(model_process, "answer", answer)
    ours, theirs = socket.socketpair()
    ended = list[str]()

    def serve() -> None:
        with theirs:
            try:
                model_process.serve(theirs)
            except EOFError:
                ended.append("by the server")

    thread = threading.Thread(target=serve)
    thread.start()
    messages.send(ours, {"models": {}, "batch_seconds": 30})
    assert "m" in messages.receive(ours).head["models"]
    messages.send(ours, {"model": "broken"}, [bytes(2_000_000)])
    told = messages.receive(ours).head["fault"]
    assert "KeyError" in told and "test_serving_faults.py" in told and f"KeyError('{SECRET}')" not in told
    if not gpus:
        messages.send(ours, {"model": "m"})
        assert messages.receive(ours).head == {"rows": []}
        ours.shutdown(socket.SHUT_RDWR)
    thread.join(10)
    ours.close()
    assert ended == ([] if gpus else ["by the server"])


def test_a_fault_that_ended_the_process_is_tried_once_more(caplog: pytest.LogCaptureFixture) -> None:
    process = Process(MemoryError(SECRET))
    assert computed(process, [5, 5, 5]) == [ROW] * 3
    assert process.asked == [3, 1, 1, 1] and process.starts == 1
    assert "MemoryError" in caplog.text and SECRET not in caplog.text


def test_a_process_that_dies_twice_with_a_window() -> None:
    process = Process(ProcessEnded(), ProcessEnded())
    assert computed(process, [5, 5]) == [500, ROW]
    assert process.asked == [2, 1, 1] and process.starts == 2


def test_a_window_that_is_computed_for_too_long_is_not_tried_again() -> None:
    process = Process(ProcessTimeout())
    assert computed(process, [5]) == [504] and process.starts == 1
    process = Process(ProcessTimeout(), ProcessTimeout())  # in company it may not have been the cause
    assert computed(process, [5, 5]) == [504, ROW] and process.asked == [2, 1, 1]


def test_a_window_whose_request_has_ended_is_not_computed_again() -> None:
    class Leaving(Process):
        async def call(self, head: Mapping[str, Any], payload: Sequence[Any] = (), **more: Any) -> Message:
            if not self.asked:
                pieces[0].result.cancel()
            return await super().call(head, payload, **more)

    process, pieces = Leaving(ProcessEnded()), list[QueuedWindow]()

    async def run() -> None:
        device, waiting = Device("cpu", {}, batch_seconds=30, batch_timeout=7), WindowQueue()
        device.worker = process  # type: ignore[assignment]
        device.ready.set()
        for n in range(2):
            future = asyncio.get_running_loop().create_future()
            pieces.append(QueuedWindow(BatchKey("m", Options()), np.zeros(9, np.float32), None, 5, n, future))
            waiting.add(pieces[-1])
        going = asyncio.create_task(work(device, waiting, Metrics()))
        assert await pieces[1].result == ROW
        going.cancel()

    asyncio.run(asyncio.wait_for(run(), 10))
    assert process.asked == [2, 1]


def test_only_windows_that_were_computed_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()
    with caplog.at_level("INFO"):
        assert computed(Process(ProcessEnded(), {"fault": "a"}), [5, 5], metrics) == [500, ROW]
    assert b"polyvox_windows_total 1.0" in metrics.text() and "ready again" in caplog.text


def test_a_process_that_fails_to_start_is_started_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("training.serving.devices.BACKOFF_SECONDS", 0.0)
    faults = [OSError("no more processes"), KeyError(SECRET)]

    class Stubborn(Process):
        def start(self) -> None:
            super().start()
            if faults:
                raise faults.pop(0)

    process = Stubborn(ProcessEnded())
    assert computed(process, [5]) == [ROW] and process.starts == 3
    assert "does not start" in caplog.text and SECRET not in caplog.text


def test_the_time_of_a_request_is_not_that_of_a_process() -> None:
    dispatcher = Dispatcher(Settings(models={}, timeout=1, batch_timeout=50), Metrics())
    assert [one.batch_timeout for one in dispatcher.devices] == [50]
    asyncio.run(dispatcher.close())


def answered(answer: Callable[[socket.socket], None], timeout: float = 5.0) -> tuple[Any, Worker]:
    """What a call of a `Worker` raises whose process answers like that."""
    ours, theirs = socket.socketpair()
    worker = Worker("nowhere")
    worker._end = ours

    async def run() -> Any:
        try:
            return await worker.call({"do": "it"}, timeout=timeout)
        except Exception as error:
            return error

    with theirs:
        answer(theirs)
        found = asyncio.run(run())
    worker.close()
    return found, worker


def test_whatever_is_no_answer_ends_the_process() -> None:
    def nonsense(end: socket.socket) -> None:
        end.sendall(b"\0\0\0\2" + bytes(8) + b"[[")

    def deep(end: socket.socket) -> None:
        end.sendall((200_000).to_bytes(4) + bytes(8) + b"[" * 200_000)

    for answer in (nonsense, deep):
        found, worker = answered(answer)
        assert type(found) is ProcessEnded and worker._end is None
    found, _ = answered(lambda _: None, timeout=0.05)
    assert type(found) is ProcessTimeout


def test_a_load_that_fails_in_an_unknown_way_ends_the_server(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        async def start(self) -> None:
            raise KeyError("models")

    state: Any = State(Settings(models={}), *[None] * 3, Broken())  # type: ignore[arg-type]
    told = list[str]()
    state.on_failure = lambda: told.append("ended")
    asyncio.run(state.load())
    assert told == ["ended"] and "KeyError" in state.failed and "cannot be loaded" in caplog.text


def test_a_host_whose_name_is_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise UnicodeError("label empty or too long")  # what Python says of "a..b"

    monkeypatch.setattr("socket.getaddrinfo", refused)
    with pytest.raises(UserError, match=r"--host a\.\.b --port 8000: cannot listen there"):
        _bound(Settings(models={}, host="a..b"))


def test_a_payload_is_no_longer_than_was_asked_for() -> None:
    def long(end: socket.socket) -> None:
        messages.send(end, {}, [bytes(101)])

    def taken(longest: int) -> int:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            long(theirs)
            return len(messages.receive(ours, longest).payload)

    assert taken(101) == 101
    for longest in (100, 0):
        with pytest.raises(EOFError, match="101 bytes"):
            taken(longest)
    found, _ = answered(long)  # who waits for an answer without sound gets none
    assert type(found) is ProcessEnded
    assert messages.payload_of(30, 16_000) < 2.5e6


def asked_of_a_decoder(*asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What `decode_process.serve` answers to messages, in this process."""
    ours, theirs = socket.socketpair()
    with ours:

        def serve() -> None:
            with theirs:
                decode_process.serve(theirs)

        thread = threading.Thread(target=serve)
        thread.start()
        found = []
        for head in asked:
            messages.send(ours, head)
            found.append(messages.receive(ours).head)
        ours.shutdown(socket.SHUT_RDWR)
        thread.join()
    return found


def test_a_decoder_goes_on_after_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_process, "_limit_time", lambda: None)  # of this process
    for name in ("MEMORY_BYTES", "KEPT_IN_MEMORY"):
        monkeypatch.setattr(decode_process.decoded, name, getattr(decode_process.decoded, name))
    unknown, broken, last = asked_of_a_decoder(
        {"do": "next", "number": 7}, {"do": "open", "number": 8}, {"do": "close", "number": 7}
    )
    assert unknown == {"lost": True}
    assert broken["error"][0] == 400 and "IndexError" in broken["fault"]
    assert last == {}


def reading(*answers: Any) -> tuple[list[Any], Sound]:
    """The windows of an upload whose decoder answers like that, or the fault in the place of one."""
    window = np.zeros(4, np.float32)

    class Reader(Process):
        async def call(self, head: Mapping[str, Any], payload: Sequence[Any] = (), **_: Any) -> Message:
            self.asked.append(head["do"])
            answer = self.answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            if "windows" in answer or answer == {}:
                return Message({"samples": 4, **answer}, bytearray(window.tobytes()), [])
            return Message(answer, bytearray(), [])

    opened = {"seconds": 2.0, "windows": [[0.0, 1.0, None, False], [1.0, 2.0, None, False]]}
    process = Reader(*[opened if one == "opened" else one for one in answers])
    asked = {"cutting": {"longest": 30.0}, "sample_rate": 16_000}
    sound = Sound(Decoder(worker=process), 1, Upload(), asked)  # type: ignore[arg-type]

    async def run() -> list[Any]:
        found: list[Any] = []
        await sound.open()
        for _ in range(2):
            try:
                found.append(len(await sound.next()))
            except (ProcessEnded, ApiError) as error:
                found.append(type(error))
        return found

    found = asyncio.run(run())
    sound.upload.close()
    sound.asked = {"asked": process.asked}
    return found, sound


def test_an_upload_that_its_decoder_does_not_know_is_opened_again(caplog: pytest.LogCaptureFixture) -> None:
    found, sound = reading("opened", {"lost": True}, "opened")
    assert found == [4, 4] and sound.asked == {"asked": ["open", "next", "open"]}
    assert sound.windows[1] == Window(1.0, 2.0) and "does not know an upload" in caplog.text
    assert reading("opened", ProcessNotRunning(), "opened")[0] == [4, 4]
    fault = {"error": [400, "broke", "undecodable_audio"], "fault": "KeyError at x"}
    assert reading("opened", fault)[0] == [4, ApiError] and "a decoder failed: KeyError" in caplog.text


def test_where_one_window_fails_the_others_of_the_detection_are_ended() -> None:
    model = abilities(languages=("auto", "en"), detects=("vi", "en"), told_language=True)
    ended = list[int]()

    async def run() -> None:
        dispatcher = Dispatcher(Settings(models={}), Metrics())
        dispatcher.abilities = {"m": model}
        upload = Upload()

        @asynccontextmanager
        async def opened(*_: Any) -> AsyncIterator[Any]:
            windows = tuple(Window(8.0 * n, 8.0 * n + 8) for n in range(3))
            sound = Sound(Decoder(), 1, upload, {}, 24.0, windows)
            sound.next = lambda: asyncio.sleep(0, np.zeros(9, np.float32))  # type: ignore[method-assign]
            yield sound

        async def compute(_: Any, samples: Any, *__: Any) -> Any:
            await asyncio.sleep(0)
            ended.append(0)
            if len(ended) == 1:
                raise ApiError(400, "no sound")
            try:
                await asyncio.sleep(30)
            finally:
                ended.append(1)

        dispatcher.decoders.opened = opened  # type: ignore[method-assign, assignment]
        dispatcher.compute = compute  # type: ignore[method-assign, assignment]
        with pytest.raises(ApiError, match="no sound"):
            await dispatcher.transcribe(DecodingRequest("m", Options()), upload, 0.0)
        assert ended.count(1) == ended.count(0) - 1 > 0 and dispatcher.budget.taken == 0
        await dispatcher.close()
        upload.close()

    asyncio.run(asyncio.wait_for(run(), 10))


def events_of(
    folder: Path, transcribe: Any, *, stop: bool = False, form: Any = None
) -> tuple[list[Any], Any]:
    """The events of a streamed answer, and its `_Stream`; with ``stop`` the time of ``--grace`` is over after the first one."""

    async def run() -> tuple[list[Any], Any]:
        state = app_of(folder, abilities(timed=False)).state.server
        question = understand(
            form or {"stream": ["true"]}, "transcribe", state.dispatcher.abilities, strict=True
        )
        state.dispatcher.transcribe = transcribe
        stream = _Stream(state, question, Upload(), 0.0, None)
        found = list[Any]()

        async def read() -> None:
            async for line in stream.events(lambda: asyncio.sleep(30, {"type": "http.disconnect"})):
                found.append(json.loads(line.removeprefix("data: ")))

        reading = asyncio.create_task(read())
        if stop:
            await asyncio.sleep(0.01)
            state.occupancy.stopping = True
            reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        return found, stream

    return asyncio.run(asyncio.wait_for(run(), 10))


@pytest.mark.parametrize(
    ("fault", "code"),
    [(ApiError(400, "broken", code="broken_audio"), "broken_audio"), (KeyError(SECRET), "internal")],
)
def test_an_error_within_a_stream_is_its_last_event(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: Exception, code: str
) -> None:
    async def transcribe(*_: Any) -> Any:
        raise fault

    events, stream = events_of(tmp_path, transcribe)
    assert [(one["type"], one["error"]["code"]) for one in events] == [("error", code)]
    assert SECRET not in caplog.text and stream.upload.file == -1


def test_a_stream_that_the_end_of_the_server_cuts_says_so(tmp_path: Path) -> None:
    async def transcribe(*_: Any) -> Any:
        await asyncio.sleep(30)

    events, stream = events_of(tmp_path, transcribe, stop=True)
    assert [(one["type"], one["error"]["code"]) for one in events] == [("error", "stopping")]
    assert stream.upload.file == -1 and b"gone_total 0.0" in stream.state.metrics.text()


def test_a_stream_names_its_language(tmp_path: Path) -> None:
    async def transcribe(*_: Any) -> Any:
        raise ApiError(400, "not needed")

    assert events_of(tmp_path, transcribe)[1].language == {"Content-Language": "vi"}


def test_a_temperature_of_0_changes_nothing_and_is_taken() -> None:
    models = {"m": abilities()}
    for value in ("0", "0.0", ""):
        asked = understand({"temperature": [value]}, "transcribe", models, strict=True)
        assert not asked.ignored and asked.asked.options == Options()
    with pytest.raises(ApiError, match="temperature: has no effect"):
        understand({"temperature": ["0.2"]}, "transcribe", models, strict=True)
    assert not understand({"domain": ["none"]}, "transcribe", models, strict=True).ignored


def test_beams_are_bounded() -> None:
    for model, widest in ((abilities(), 10), (abilities(frames=False, scored=True), 5)):
        found = understand({"beam_width": [str(widest)]}, "transcribe", {"m": model}, strict=True)
        assert found.asked.options.beam_width == widest
        with pytest.raises(ApiError, match=f"from 1 to {widest}"):
            understand({"beam_width": [str(widest + 1)]}, "transcribe", {"m": model}, strict=True)


def test_an_upload_that_nobody_holds_is_forgotten() -> None:
    import os

    upload = Upload()
    file = upload.file
    del upload
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file)
