"""The parts of the server by themselves: batches, forms, fields, keys, live words, addresses, the command line."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from serving_assets import speech
from serving_fakes import abilities
from starlette.requests import Request

from training.base.errors import UserError
from training.cli import main
from training.data.example import SpokenWord
from training.data.manifest import load_manifest
from training.serving import collect
from training.serving.admission import same_origin
from training.serving.batches import VERY_SIMILAR, BatchKey, QueuedWindow, WindowQueue, choose
from training.serving.decoders import Decoders
from training.serving.dispatcher import AudioBudget
from training.serving.errors import ApiError
from training.serving.fields import KNOWN, understand
from training.serving.keys import Keys, add_key, read_keys
from training.serving.live import PAUSE, Agreement, Began, Ended, Segmenter
from training.serving.options import Options
from training.serving.settings import Settings, from_environment, require_safe_address
from training.serving.uploads import FIELD_BYTES, ClientGone, Form, read_form
from training.serving.worker import ProcessEnded

KEY = BatchKey("m", Options())


def piece(seconds: float, since: float = 0.0, key: BatchKey = KEY, **more: Any) -> QueuedWindow:
    future: Any = None
    return QueuedWindow(key, np.zeros(1, np.float32), None, seconds, since, future, **more)


def test_the_oldest_goes_first_with_others_of_like_length() -> None:
    old, like, unlike, young = piece(10, 1), piece(8, 3), piece(2, 2), piece(9, 4)
    assert choose({old, like, unlike, young}, 30) == [old, like, young]
    assert choose({old, like, unlike, young}, 20) == [old, like]
    assert choose({old, like}, 5) == [old]


def test_padding_counts_as_sound() -> None:
    pieces = {piece(5, n) for n in range(3)} | {piece(9, 3)}
    assert [one.seconds for one in choose(pieces, 27)] == [5, 5, 5]


def test_live_speech_goes_before_files_and_is_not_mixed_with_other_options() -> None:
    file, live, other = piece(3, 0), piece(3, 9, live=True), piece(3, 1, BatchKey("m", Options(beam_width=2)))
    assert choose({file, live, other}, 30) == [live, file]


def test_a_window_whose_process_died_is_alone() -> None:
    again, others = piece(3, 0, attempts=1), [piece(3, n) for n in range(1, 4)]
    assert choose({again, *others}, 30) == [again]
    assert choose({piece(3, 9, attempts=1), *others}, 30) == others


def test_models_whose_texts_padding_changes_get_windows_of_nearly_the_same_length() -> None:
    first, near, far = (piece(n, n, similarity=VERY_SIMILAR) for n in (10.0, 10.5, 14.0))
    assert choose({first, near, far}, 60) == [first, near]


@given(
    st.lists(st.tuples(st.floats(0.1, 30), st.floats(0, 100), st.integers(0, 2), st.booleans()), min_size=1),
    st.floats(1, 60),
)
def test_a_batch_is_never_empty_nor_mixed_nor_too_large(
    drawn: list[tuple[float, float, int, bool]], most: float
) -> None:
    pieces = {piece(s, since, BatchKey(str(k), Options()), live=live) for s, since, k, live in drawn}
    batch = choose(pieces, most)
    assert batch[0].order == min(one.order for one in pieces)
    assert len({one.key for one in batch}) == 1 and len(set(batch)) == len(batch)
    assert len(batch) == 1 or len(batch) * max(one.seconds for one in batch) <= most


def test_who_is_taken_out_is_not_computed() -> None:
    async def run() -> list[QueuedWindow]:
        waiting = WindowQueue()
        first, second = piece(1, 0), piece(1, 1)
        waiting.add(first)
        waiting.add(second)
        waiting.remove(first)
        return await waiting.batch(30)

    assert [one.since for one in asyncio.run(run())] == [1]


def test_decoded_sound_waits_for_room() -> None:
    async def run() -> list[str]:
        budget, order = AudioBudget(10), []

        async def window(name: str, seconds: float) -> None:
            await budget.take(seconds)
            order.append(name)

        await window("long", 25)  # alone it gets in
        waiting = asyncio.create_task(window("next", 6))
        await asyncio.sleep(0)
        order.append("given")
        await budget.give(25)
        await waiting
        return order

    assert asyncio.run(run()) == ["long", "given", "next"]


def test_short_windows_do_not_keep_a_long_one_from_its_room() -> None:
    async def run() -> list[str]:
        budget, order = AudioBudget(10), list[str]()

        async def window(name: str, seconds: float) -> None:
            await budget.take(seconds)
            order.append(name)
            await asyncio.sleep(0.02)
            await budget.give(seconds)

        async def later(seconds: float, name: str, length: float) -> None:
            await asyncio.sleep(seconds)
            await window(name, length)

        short = [later(0.01 * n, "short", 4) for n in range(10)]
        await asyncio.gather(*short, later(0.015, "long", 9))
        return order

    order = asyncio.run(run())
    assert order.index("long") <= 3 and len(order) == 11


def form_of(parts: list[bytes], kind: str = "multipart/form-data; boundary=x", most: int = 1000) -> Form:
    """A body that arrives in parts; after the last one the client leaves."""
    messages: Iterator[Mapping[str, Any]] = iter(
        [
            {"type": "http.request", "body": part, "more_body": n + 1 < len(parts)}
            for n, part in enumerate(parts)
        ]
    )

    async def receive() -> Mapping[str, Any]:
        return next(messages, {"type": "http.disconnect"})

    return asyncio.run(read_form(receive, kind, most, most / 1e6))


def body(data: bytes, *fields: tuple[str, str]) -> bytes:
    text = "".join(
        f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields
    )
    head = '--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    return text.encode() + head.encode() + data + b"\r\n--x--\r\n"


@given(st.binary(max_size=900), st.integers(1, 50))
def test_a_file_arrives_as_it_was_sent(data: bytes, size: int) -> None:
    whole = body(data, ("model", "demo"), ("model", "é"))
    form = form_of([whole[n : n + size] for n in range(0, len(whole), size)])
    assert form.upload is not None and form.upload.read() == data and form.fields == {"model": ["demo", "é"]}
    form.close()


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=6), st.text('abc;=x" ', max_size=20))
def test_any_other_body_is_refused_and_nothing_breaks(parts: list[bytes], kind: str) -> None:
    for content_type in ("multipart/form-data; boundary=x", kind):
        try:
            form_of(parts, content_type).close()
        except ApiError as error:
            assert 400 <= error.status < 500


@given(st.integers(0, 200), st.binary(min_size=1, max_size=3))
def test_a_damaged_form_is_refused_and_nothing_breaks(at: int, noise: bytes) -> None:
    whole = body(b"sound", ("model", "demo"))
    try:
        form_of([whole[:at] + noise + whole[at + len(noise) :]]).close()
    except ApiError as error:
        assert 400 <= error.status < 500


def test_limits_of_a_form() -> None:
    def status(*parts: bytes) -> int:
        with pytest.raises(ApiError) as raised:
            form_of(list(parts))
        return raised.value.status

    assert status(body(bytes(1001))) == 413
    assert status(body(b"", ("prompt", "x" * (FIELD_BYTES + 1)))) == 413
    assert status(body(b"", *[("a", "b")] * 101)) == 400
    assert status(body(b"")[:-12], b"") == 400
    assert status(body(b"").replace(b"--x--", body(b""))) == 400  # two files


def test_a_client_that_leaves_within_its_body() -> None:
    async def receive() -> Mapping[str, Any]:
        return {"type": "http.disconnect"}

    with pytest.raises(ClientGone):
        asyncio.run(read_form(receive, "multipart/form-data; boundary=x", 10, 1))


@given(
    st.dictionaries(
        st.sampled_from(sorted({*KNOWN, "x"})),
        st.lists(
            st.one_of(st.text(max_size=8), st.sampled_from(["1", "0.5", "vi", "true", "srt", "word", "m"])),
            max_size=2,
        ),
    )
)
def test_any_fields_are_understood_or_refused(fields: dict[str, list[str]]) -> None:
    for model in (
        abilities(),
        abilities(frames=False, scored=True, told_language=True, domains=("a",), domain="a"),
    ):
        try:
            understand(fields, "transcribe", {"m": model}, strict=False)
        except ApiError as error:
            assert error.status in (400, 404, 422) and error.param
            json.dumps(error.body)


def test_what_a_whisper_is_told() -> None:
    model = abilities(
        frames=False, scored=True, told_language=True, detects=("vi", "en"), languages=("auto", "en")
    )
    fields = {"prompt": ["TikTok"], "temperature": ["0.2"], "language": ["en"], "hot_words": ["a,b"]}
    question = understand(fields, "transcribe", {"m": model}, strict=False)
    assert question.asked.options == Options(prompt="TikTok", temperature=0.2)
    assert question.asked.language == "en" and question.ignored == ("hot_words",)
    assert (
        understand({"temperature": ["0"]}, "transcribe", {"m": model}, strict=True).asked.options == Options()
    )


def test_a_key_is_found_and_its_limits_hold(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    token = add_key(path, "anna")
    assert token not in path.read_text(encoding="utf8") and path.stat().st_mode & 0o77 == 0
    with pytest.raises(UserError, match="a key of this name"):
        add_key(path, "anna")
    other = add_key(path, "binh")
    keys = read_keys(path)
    key = keys.find(token)
    assert key is not None and key.name == "anna" and keys.find(other) is not key
    assert keys.find(token + "x") is None and keys.find("é\udc80") is None
    key.concurrent, key.per_minute = 2, 3
    for _ in range(2):
        assert key.wait(0.0) is None
        key.begin(0.0)
    assert key.wait(0.0) == 1
    key.end()
    key.begin(10.0)
    key.end()
    assert key.wait(20.0) == 40 and key.wait(61.0) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "must be"),
        ("{", "not JSON"),
        ('{"keys": []}', "no keys"),
        ('{"keys": [{"name": "a", "sha256": "12"}]}', "64 hexadecimal"),
        ('{"keys": [{"name": "a", "sha256": "%s", "per_minute": 0}]}' % ("0" * 64), "per_minute"),
        ('{"keys": [{"name": "a", "sha256": "%s", "limit": 1}]}' % ("0" * 64), "limit: no such field"),
    ],
)
def test_a_damaged_file_of_keys(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(text, encoding="utf8")
    with pytest.raises(UserError, match=said):
        read_keys(path)


def test_without_a_file_nobody_is_asked() -> None:
    assert not read_keys(None).asked and not Keys([]).asked


@pytest.mark.parametrize(
    ("host", "safe"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("example.org", False)],
)
def test_another_address_needs_keys(host: str, safe: bool) -> None:
    settings = Settings(models={}, host=host)
    if safe:
        require_safe_address(settings)
        return
    with pytest.raises(UserError, match="--new_key"):
        require_safe_address(settings)
    require_safe_address(Settings(models={}, host=host, no_auth=True))


def test_mistakes_of_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in (
        (["--model", "a=nowhere"], "no such folder"),
        (["--model", f"a={tmp_path}"], "no model"),
        (["--model", "a=x", "--model", "a=y"], "two models of the name a"),
        (["--model", f"a={tmp_path}", "--devices", "tpu"], "--devices tpu"),
        (["--model", f"a={tmp_path}", "--devices", "cpu,cpu"], "twice"),
        (["--new_key", "anna"], "--keys FILE"),
    ):
        assert main(["serve", *arguments]) == 2
        assert said in capsys.readouterr().err


def test_without_the_extra_the_command_says_how_to_get_it() -> None:
    code = (
        "import sys; sys.modules['fastapi'] = None; import importlib.util as u; old = u.find_spec;"
        "u.find_spec = lambda name, *a: None if name == 'fastapi' else old(name, *a);"
        "from training.cli import main; sys.exit(main(['serve', '--model', 'a=b']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "pip install 'polyvox[serve]'" in done.stderr


def test_the_environment_names_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("POLYVOX_MODEL", raising=False)
    with pytest.raises(UserError, match="POLYVOX_MODEL"):
        from_environment()
    for n, name in enumerate(("first", "second")):
        (tmp_path / "outputs" / name).mkdir(parents=True)
        path = tmp_path / "outputs" / name / "train_results.json"
        path.write_text("{}", encoding="utf8")
        import os

        os.utime(path, (n, n))
    assert list(from_environment().models) == ["second"]
    monkeypatch.setenv("POLYVOX_MODEL", str(tmp_path / "outputs" / "first"))
    assert list(from_environment().models) == ["first"]


def word(text: str, start: float, end: float | None = None) -> SpokenWord:
    return SpokenWord(text=text, start=start, end=start + 0.4 if end is None else end, confidence=0.9)


def test_two_hypotheses_have_to_agree_before_a_word_counts() -> None:
    said = Agreement()
    assert said.add([word("xin", 0), word("chao", 0.5)], 1.0) == []
    assert [one.text for one in said.add([word("xin", 0), word("chào", 0.5)], 1.4)] == ["xin"]
    assert said.open == [word("chào", 0.5)]
    assert [one.text for one in said.add([word("chào", 0.5), word("các", 1.0)], 2.0)] == ["chào"]
    assert said.add([word("các", 1.0, 1.9)], 2.0) == []  # it may be cut off
    final = said.finish([word("xin", 0), word("chàu", 0.5), word("các", 1.0), word("bạn", 1.6)])
    assert [one.text for one in final] == ["xin", "chào", "các", "bạn"]


@given(
    st.lists(st.lists(st.sampled_from("abc"), max_size=6), max_size=8),
    st.lists(st.sampled_from("abc"), max_size=6),
)
def test_no_word_is_taken_back(hypotheses: list[list[str]], last: list[str]) -> None:
    said, told = Agreement(), list[str]()
    for n, texts in enumerate(hypotheses):
        words = [word(text, i * 0.5) for i, text in enumerate(texts)]
        told += [one.text for one in said.add(words, 0.5 * n + 3)]
        assert [one.text for one in said.certain] == told
    final = [one.text for one in said.finish([word(text, i * 0.5) for i, text in enumerate(last)])]
    assert final[: len(told)] == told


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 48_000])
def test_speech_is_cut_where_it_pauses(rate: int) -> None:
    tone = 0.3 * np.sin(2 * np.pi * 300 * np.arange(2 * rate) / rate)
    sound = np.concatenate([np.zeros(rate), tone, np.zeros(2 * rate), tone, np.zeros(rate // 2)]).astype(
        np.float32
    )
    sound += 1e-4 * np.random.default_rng(0).standard_normal(len(sound)).astype(np.float32)
    segmenter = Segmenter(rate, 16_000, 20.0)
    events = [
        event for n in range(0, len(sound), rate // 10) for event in segmenter.add(sound[n : n + rate // 10])
    ]
    events += segmenter.finish()
    assert [type(one) for one in events] == [Began, Ended, Began, Ended]
    began = [one.at for one in events if isinstance(one, Began)]
    assert began == pytest.approx([1.0, 5.0], abs=0.1)
    ended = [one.sound for one in events if isinstance(one, Ended)]
    assert [one.start for one in ended] == pytest.approx([0.9, 4.9], abs=0.1)
    assert len(ended[0].samples) / 16_000 == pytest.approx(2.2, abs=0.15)


def test_speech_without_a_pause_is_cut_when_it_is_too_long_and_little_is_kept() -> None:
    segmenter, ended = Segmenter(16_000, 16_000, 5.0), list[Ended]()
    sound = speech(1, 0) + 0.2 * np.sin(2 * np.pi * 250 * np.arange(16_000) / 16_000).astype(np.float32)
    for _ in range(60):
        ended += [one for one in segmenter.add(sound) if isinstance(one, Ended)]
        assert len(segmenter._sound) < 7 * 16_000
    assert len(ended) >= 10
    assert all(2 < len(one.sound.samples) / 16_000 <= 5.2 for one in ended)
    starts = [one.sound.start for one in ended]
    for before, after in zip(ended, starts[1:], strict=False):
        assert after - (before.sound.start + len(before.sound.samples) / 16_000) < PAUSE


def test_time_that_is_over_is_told_as_504(tmp_path: Path) -> None:
    from training.serving.app import create_app
    from training.serving.transcriptions import answer

    (tmp_path / "config.json").write_text("{}", encoding="utf8")
    state = create_app(Settings(models={"m": tmp_path}, timeout=0.2)).state.server
    state.dispatcher.abilities = {"m": abilities()}
    left = list[str]()

    async def slow(*_: Any) -> None:
        try:
            await asyncio.sleep(30)
        finally:
            left.append("cancelled")

    state.dispatcher.transcribe = slow
    whole = [{"type": "http.request", "body": body(b"sound"), "more_body": False}]

    async def receive() -> Mapping[str, Any]:
        if whole:
            return whole.pop()
        await asyncio.sleep(30)
        return {"type": "http.disconnect"}

    async def run() -> int:
        scope = {"type": "http", "headers": [(b"content-type", b"multipart/form-data; boundary=x")]}
        request = Request({**scope, "state": {"began": time.monotonic()}}, receive)
        with pytest.raises(ApiError) as raised:
            await answer(request, state, "transcribe")
        return raised.value.status

    assert asyncio.run(run()) == 504 and left == ["cancelled"]


@pytest.mark.parametrize(
    ("origin", "allowed", "wanted"),
    [
        (None, (), True),
        ("http://here:8000", (), True),
        ("http://evil.example", (), False),
        ("http://evil.example", ("http://evil.example",), True),
        ("http://[", (), False),
        ("null", (), False),
    ],
)
def test_a_page_of_another_address_is_told_apart(
    origin: str | None, allowed: tuple[str, ...], wanted: bool
) -> None:
    headers = [(b"host", b"here:8000"), *([] if origin is None else [(b"origin", origin.encode())])]
    assert same_origin({"headers": headers}, allowed) is wanted


def test_a_correction_that_comes_twice_is_stored_once(tmp_path: Path) -> None:
    sound = io.BytesIO()
    soundfile.write(sound, np.zeros(1600, dtype=np.float32), 16_000, format="WAV")
    fields = {"text": "xin chào", "language": "vi"}
    first = collect._write(tmp_path, sound.getvalue(), 0.1, fields)
    assert collect._write(tmp_path, sound.getvalue(), 0.1, fields) == first
    assert collect._write(tmp_path, sound.getvalue(), 0.1, {**fields, "text": "chào"}) != first
    assert len(load_manifest(tmp_path / "manifest.tsv")) == 2


def test_a_decoder_that_died_before_it_was_asked_is_started_again_and_asked() -> None:
    restarted: list[int] = []

    async def run() -> None:
        decoders = Decoders(1, max_seconds=10, ffmpeg=False, restarted=lambda: restarted.append(1))
        try:
            await decoders.start()
            (decoder,) = decoders.all
            os.kill(decoder.worker.pid, signal.SIGKILL)
            while decoder.worker.running:
                await asyncio.sleep(0.01)
            answers = [decoder.call({"do": "close", "number": n}) for n in range(3)]
            for answer in await asyncio.gather(*answers, return_exceptions=True):
                assert isinstance(answer, ProcessEnded) or answer.head == {}
            assert (await decoder.call({"do": "close", "number": 9})).head == {}
        finally:
            decoders.close()

    asyncio.run(run())
    assert restarted
