"""``polyvox serve`` from outside: OpenAI's client and plain requests, against what `Transcriber` says of the same files."""

from __future__ import annotations

import base64
import io
import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
import serving_assets
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving_assets import Server, error_of
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from training.data.audio import find_ffmpeg
from training.models.safeguards import Safeguards
from training.transcription.formats import as_srt, as_vtt
from training.transcription.transcriber import Transcriber
from training.transcription.transcript import rounded

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the server needs Linux")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("serving")


@pytest.fixture(scope="module")
def models(folder: Path) -> dict[str, Path]:
    return {**serving_assets.models(folder), "stock": serving_assets.stock_whisper(folder / "stock")}


@pytest.fixture(scope="module")
def server(folder: Path, models: dict[str, Path]) -> Iterator[Server]:
    options = ("--max_mb", 1, "--max_seconds", 100, *(["--ffmpeg"] if find_ffmpeg() else []))
    with Server(models, *options, log=folder / "log.txt") as running:
        yield running.wait_ready()


@pytest.fixture(scope="module")
def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0)


@pytest.fixture(scope="module")
def short(folder: Path) -> Path:
    return serving_assets.clip(folder / "geheim.wav", 1.7)


@pytest.fixture(scope="module")
def long(folder: Path) -> Path:
    """Of several windows, compressed, at another rate than the model's."""
    sound = serving_assets.speech(70, 3)
    soundfile.write(folder / "long.ogg", np.stack([sound, 0.5 * sound], axis=1), 22_050)
    return folder / "long.ogg"


def ours(model: Path, file: Path, task: str = "transcribe", **options: Any) -> Any:
    return Transcriber(model, tasks=(task,), **options)(file)


def post(server: Server, file: bytes | Path | None, path: str = "transcriptions", **fields: Any) -> Any:
    data = file.read_bytes() if isinstance(file, Path) else file
    return httpx2.post(
        f"{server.url}/v1/audio/{path}",
        data={"model": "ctc", **fields},
        files={"other": b""} if data is None else {"file": ("a.wav", data)},
        timeout=60,
    )


def test_the_openai_client_gets_the_five_formats(
    client: openai.OpenAI, models: dict[str, Path], short: Path
) -> None:
    expected = ours(models["ctc"], short)

    def asked(**options: Any) -> Any:
        with short.open("rb") as file:
            return client.audio.transcriptions.create(model="ctc", file=file, **options)

    assert expected.text and asked().text == expected.text
    assert asked(response_format="text") == expected.text + "\n"
    assert asked(response_format="srt") == as_srt(expected)
    assert asked(response_format="vtt") == as_vtt(expected)
    told = asked(response_format="verbose_json", timestamp_granularities=["word", "segment"])
    assert told.text == expected.text and told.duration == 1.7 and told.task == "transcribe"
    assert [(word.word, word.start, word.end) for word in told.words] == [
        (word.text, round(word.start, 3), round(word.end, 3)) for word in expected.words
    ]
    assert [segment.text for segment in told.segments] == [
        segment.texts["transcribe"] for segment in expected.segments
    ]
    assert told.segments[0].avg_logprob is None and told.language == "vietnamese"


def test_both_tasks_of_a_whisper(client: openai.OpenAI, models: dict[str, Path], short: Path) -> None:
    for task, endpoint in (
        ("transcribe", client.audio.transcriptions),
        ("translate", client.audio.translations),
    ):
        with short.open("rb") as file:
            told = endpoint.create(model="whisper", file=file, response_format="verbose_json")
        expected = ours(models["whisper"], short, task)
        assert told.text == expected.text and told.text
        assert told.language == {"transcribe": "vietnamese", "translate": "english"}[task]


def test_a_long_recording_is_cut_and_joined_as_offline(
    client: openai.OpenAI, models: dict[str, Path], long: Path
) -> None:
    expected = ours(models["ctc"], long)
    assert len(expected.segments) > 1
    with long.open("rb") as file:
        told = client.audio.transcriptions.create(model="ctc", file=file, response_format="verbose_json")
    assert told.text == expected.text
    assert [(one.start, one.end) for one in told.segments] == [
        (round(one.start, 3), round(one.end, 3)) for one in expected.segments
    ]


def test_a_stream_tells_each_window_and_then_the_whole(
    client: openai.OpenAI, server: Server, models: dict[str, Path], short: Path, long: Path
) -> None:
    assert post(server, short, stream="true").headers["Content-Language"] == "vi"
    with long.open("rb") as file:
        events = list(client.audio.transcriptions.create(model="ctc", file=file, stream=True))
    deltas = [one.delta for one in events if one.type == "transcript.text.delta"]
    assert len(deltas) > 1 and events[-1].type == "transcript.text.done"
    assert "".join(deltas) == events[-1].text == ours(models["ctc"], long).text


def test_a_stock_whisper_detects_the_language_and_takes_temperature_and_prompt(
    server: Server, models: dict[str, Path], short: Path
) -> None:
    for fields, options in (
        ({"temperature": "0.4"}, {"safeguards": Safeguards(temperatures=(0.4,))}),
        (
            {"temperature": "0.4", "prompt": "TikTok", "language": "de"},
            {"safeguards": Safeguards(temperatures=(0.4,), initial_prompt="TikTok"), "language": "de"},
        ),
    ):
        expected = ours(models["stock"], short, **options)
        told = post(server, short, model="stock", response_format="verbose_json", **fields).json()
        assert expected.language is not None
        assert (told["text"], told["language_code"]) == (expected.text, expected.language.code)
        assert told["language_probability"] == rounded(expected.language.probability)
        assert [one["avg_logprob"] for one in told["segments"]] == [
            round(one.quality["transcribe"].log_probability, 4) for one in expected.segments
        ]


@pytest.mark.skipif(find_ffmpeg() is None, reason="no ffmpeg")
def test_ffmpeg_decodes_what_libsndfile_cannot(
    server: Server, models: dict[str, Path], long: Path, folder: Path
) -> None:
    made = folder / "long.m4a"
    subprocess.run([str(find_ffmpeg()), "-v", "error", "-y", "-i", long, made], check=True)
    assert post(server, made).json()["text"] == ours(models["ctc"], made).text


def test_options_of_decoding_reach_the_model(server: Server, models: dict[str, Path], short: Path) -> None:
    from training.decoding.ctc_setup import SearchOptions

    expected = ours(models["ctc"], short, options=SearchOptions(beam_width=4, hot_words=("meeting",)))
    answer = post(server, short, beam_width="4", hot_words="meeting")
    assert answer.json()["text"] == expected.text and "Polyvox-Ignored" not in answer.headers


def test_what_has_no_effect_is_named(server: Server, short: Path) -> None:
    answer = post(server, short, prompt="TikTok", temperature="0.4", domain="child", foo="1", language="fr")
    assert answer.status_code == 200
    assert answer.headers["Polyvox-Ignored"] == "domain, foo, language, prompt, temperature"


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["ctc", "whisper", "stock"]


def test_a_name_of_openais_means_the_first_model(
    server: Server, models: dict[str, Path], short: Path
) -> None:
    assert post(server, short, model="whisper-1").json()["text"] == ours(models["ctc"], short).text


def flac_bomb(seconds: int) -> bytes:
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", 16_000, 1, "PCM_16", format="FLAC") as sound:
        for _ in range(seconds // 100):
            sound.write(np.zeros(1_600_000, np.int16))
    return file.getvalue()


def wav(seconds: float = 1.0, **changed: Any) -> bytes:
    file = io.BytesIO()
    soundfile.write(
        file, serving_assets.speech(seconds), 16_000, format=changed.pop("format", "WAV"), **changed
    )
    return file.getvalue()


PLAYLIST = b"#EXTM3U\n#EXTINF:10,\nhttp://127.0.0.1:9/secret.ts\n"


@pytest.mark.parametrize(
    ("file", "fields", "status", "said"),
    [
        (None, {}, 422, "file: is missing"),
        (None, {"file": "http://127.0.0.1:9/a.wav"}, 400, "opens no addresses"),
        (None, {"url": "http://127.0.0.1:9/a.wav"}, 400, "opens no addresses"),
        (b"", {}, 400, "empty"),
        (wav()[:20_000], {}, 400, "file"),
        (wav()[:44], {}, 400, "truncated"),
        (b"hello, this is a text" * 20, {}, 415, "a text"),
        (PLAYLIST, {}, 415, "playlist"),
        (bytes(range(256)) * 8, {}, 415, "first bytes"),
        (wav(), {"model": "nobody"}, 404, "there are ctc, whisper, stock"),
        (wav(), {"response_format": "xml"}, 422, "response_format: must be one of json"),
        (wav(), {"temperature": "hot"}, 422, "from 0 to 1"),
        (wav(), {"temperature": "nan"}, 422, "from 0 to 1"),
        (wav(), {"beam_width": "2.5"}, 422, "whole number"),
        (wav(), {"language": "klingon"}, 400, "language: ctc knows"),
        (wav(), {"model": "whisper", "language": "German"}, 400, "language: whisper knows"),
        (wav(), {"model": "whisper", "language": "auto"}, 400, "not learnt to detect"),
        (wav(), {"hot_words": "@/etc/passwd"}, 422, "hot_words"),
        (wav(), {"timestamp_granularities[]": "word"}, 400, "verbose_json"),
        (wav(), {"stream": "true", "response_format": "srt"}, 400, "stream"),
        (wav(0.01), {}, 400, "cannot be used"),
        (wav(30, subtype="PCM_24", format="WAV"), {}, 413, "larger than 1 MB"),
        (flac_bomb(3_600), {}, 413, "3600 s of sound"),
    ],
)
def test_bad_requests_are_told_what_is_wrong(
    server: Server, file: bytes | None, fields: dict[str, str], status: int, said: str
) -> None:
    answer = httpx2.post(
        f"{server.url}/v1/audio/transcriptions",
        data={"model": "ctc", **fields},
        files={"other": b""} if file is None else {"file": ("a.wav", file)},
    )
    assert answer.status_code == status, answer.text
    assert said in error_of(answer.content)["message"]


def test_words_of_a_model_without_times_are_refused(server: Server, short: Path) -> None:
    answer = post(
        server,
        short,
        "translations",
        model="whisper",
        response_format="verbose_json",
        **{"timestamp_granularities[]": "word"},
    )
    assert answer.status_code == 400 and "times of words" in error_of(answer.content)["message"]
    assert post(server, short, "translations").status_code == 400  # the CTC model cannot translate


def test_a_header_that_claims_more_than_there_is(server: Server) -> None:
    data = bytearray(wav(2, format="FLAC"))
    data[21] |= 0x0F  # the upper bits of the number of samples
    data[22:26] = b"\xff\xff\xff\xff"
    answer = post(server, bytes(data), response_format="verbose_json")
    assert answer.json()["duration"] == 2.0  # what is there is counted


def test_names_and_suffixes_mean_nothing(server: Server, models: dict[str, Path], short: Path) -> None:
    answer = httpx2.post(
        f"{server.url}/v1/audio/transcriptions",
        files={"file": ("../../etc/passwd.mp4", short.read_bytes(), "video/mp4")},
    )
    assert answer.json()["text"] == ours(models["ctc"], short).text


def test_a_body_that_is_no_form(server: Server) -> None:
    url = f"{server.url}/v1/audio/transcriptions"
    assert httpx2.post(url, json={"file": "x"}).status_code == 415
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    for body in (
        b"",
        b"--x\r\n",
        b"nonsense",
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc',
    ):
        answer = httpx2.post(url, content=body, headers=kind)
        assert answer.status_code == 400, body
        error_of(answer.content)


def test_unknown_routes_and_methods_are_errors_in_the_same_form(server: Server) -> None:
    for answer in (
        httpx2.get(f"{server.url}/v1/nothing"),
        httpx2.get(f"{server.url}/v1/audio/transcriptions"),
    ):
        assert answer.status_code in (404, 405)
        error_of(answer.content)


def test_health_and_metrics(server: Server, short: Path) -> None:
    before = server.metric("polyvox_windows_total")
    post(server, short)
    assert server.metric("polyvox_windows_total") == before + 1
    assert server.metric("polyvox_requests_inside") == 0 == server.metric("polyvox_windows_waiting")
    assert server.status("/healthz") == server.status("/readyz") == 200


def test_the_log_has_no_text_and_no_name(server: Server, models: dict[str, Path], short: Path) -> None:
    text = post(server, short, prompt="Zauberwort").json()["text"]
    log = server.log.read_text(encoding="utf8")
    assert "POST /v1/audio/transcriptions 200" in log
    assert not any(word in log for word in ("geheim", "Zauberwort", "passwd", "Traceback", "nothing", text))


def test_the_schema_tells_of_the_form(server: Server) -> None:
    schema = json.loads(server.get("/openapi.json")[1])
    form = schema["paths"]["/v1/audio/transcriptions"]["post"]["requestBody"]["content"][
        "multipart/form-data"
    ]
    assert form["schema"]["required"] == ["file"] and "hot_words" in form["schema"]["properties"]


def test_no_upload_is_left_open(server: Server, short: Path) -> None:
    def uploads() -> int:
        files = Path(f"/proc/{server.process.pid}/fd").iterdir()
        return sum("memfd" in str(file.readlink()) for file in files)

    for _ in range(3):
        post(server, short)
    post(server, b"broken" * 100)
    server.wait(lambda: uploads() == 0, 5)
    assert re.search(r"\d", str(uploads()))


KINDS = {
    "wav": wav(0.3),
    "flac": wav(0.3, format="FLAC"),
    "ogg": wav(0.3, format="OGG", subtype="VORBIS"),
    "mp3": wav(0.3, format="MP3"),
    "aiff": wav(0.3, format="AIFF"),
    "au": wav(0.3, format="AU"),
    "w64": wav(0.3, format="W64"),
}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_sound_never_breaks_the_server(server: Server, data: st.DataObject) -> None:
    whole = bytearray(KINDS[data.draw(st.sampled_from(sorted(KINDS)))])
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, min(len(whole) - 1, 200)) | st.integers(0, len(whole) - 1))
        noise = data.draw(
            st.sampled_from([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"]) | st.binary(max_size=8)
        )
        whole[at : at + len(noise)] = noise
    whole = whole[: data.draw(st.integers(0, len(whole)) | st.just(len(whole)))]
    answer = post(server, bytes(whole))
    assert answer.status_code in (200, 400, 413, 415), answer.text
    assert "Traceback" not in server.log.read_text(encoding="utf8")


def test_sockets_that_say_nothing_and_bodies_that_come_slowly_keep_nobody_out(
    server: Server, models: dict[str, Path], short: Path
) -> None:
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(200)]
    slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
    for one in slow:
        one.sendall(
            b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
        )
    assert post(server, short).json()["text"] == ours(models["ctc"], short).text
    for one in (*idle, *slow):
        one.close()
    server.wait(lambda: server.metric("polyvox_requests_inside") == 0, 20)


def spoken(server: Server, sound: np.ndarray, session: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of a live session that gets ``sound`` (16 kHz) at once."""
    events: list[dict[str, Any]] = []
    with connect(f"ws://127.0.0.1:{server.port}/v1/realtime") as live:
        live.send(json.dumps({"type": "session.update", "session": session}))
        data = (32767 * sound).astype("<i2").tobytes()
        for n, at in enumerate(range(0, len(data), 6_400)):
            part = data[at : at + 6_400]
            text = json.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(part).decode()})
            live.send(text if n % 2 else part)
            time.sleep(0.01)
        live.send(json.dumps({"type": "input_audio_buffer.commit"}))
        live.send(json.dumps({"type": "input_audio_buffer.clear"}))
        while not events or events[-1]["type"] != "input_audio_buffer.cleared":
            events.append(json.loads(live.recv(timeout=60)))
    return events


def test_live_speech(server: Server) -> None:
    pause = np.zeros(16_000, np.float32)
    sound = np.concatenate([pause, serving_assets.speech(2.5), pause, serving_assets.speech(2.0, 5), pause])
    sound += 1e-4 * np.random.default_rng(0).standard_normal(len(sound)).astype(np.float32)
    events = spoken(server, sound, {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 16_000}}}})
    kinds = [event["type"].removeprefix("conversation.item.input_audio_transcription.") for event in events]
    assert kinds[:2] == ["session.created", "session.updated"]
    begun = [one["item_id"] for one in events if one["type"] == "input_audio_buffer.speech_started"]
    completed = [event for event in events if event["type"].endswith("completed")]
    assert [one["item_id"] for one in completed][: len(begun)] == begun and len(begun) >= 2
    assert all(one["transcript"] == "" for one in completed[len(begun) :])  # the commit of the last pause
    for done in completed:
        deltas = [
            one["delta"]
            for one in events
            if one["type"].endswith(".delta") and one["item_id"] == done["item_id"]
        ]
        assert "".join(deltas) == done["transcript"] == " ".join(word["word"] for word in done["words"])
        assert all(0.8 < word["start"] <= word["end"] < len(sound) / 16_000 for word in done["words"])


def test_what_a_live_session_refuses(server: Server) -> None:
    with connect(f"ws://127.0.0.1:{server.port}/v1/realtime") as live:
        assert json.loads(live.recv())["type"] == "session.created"
        for event, said in (
            ("nonsense", "JSON object"),
            ({"type": "conversation.create"}, "no such event"),
            ({"type": "input_audio_buffer.append", "audio": "%"}, "base64"),
            ({"type": "input_audio_buffer.append", "audio": "AAAA"}, "16 bits"),
            (
                {"type": "session.update", "session": {"audio": {"input": {"format": {"rate": 96_000}}}}},
                "rate",
            ),
            (
                {"type": "session.update", "session": {"input_audio_transcription": {"model": "whisper"}}},
                "CTC",
            ),
            (
                {"type": "session.update", "session": {"input_audio_transcription": {"model": "x"}}},
                "there are ctc",
            ),
        ):
            live.send(event if isinstance(event, str) else json.dumps(event))
            answer = json.loads(live.recv(timeout=30))
            assert answer["type"] == "error" and said in answer["error"]["message"]
        live.send(b"abc")
        assert "16 bits" in json.loads(live.recv(timeout=30))["error"]["message"]


def test_a_page_of_another_address_gets_no_socket(server: Server) -> None:
    address = f"ws://127.0.0.1:{server.port}/v1/realtime"
    with pytest.raises(InvalidStatus) as refused:
        connect(address, origin=Origin("https://example.org"))
    assert refused.value.response.status_code == 403
    connect(address, origin=Origin(server.url)).close()
    server.wait(lambda: server.metric("polyvox_sockets") == 0, 20)


def test_other_addresses_may_not_read_answers(server: Server) -> None:
    answer = httpx2.get(f"{server.url}/v1/models", headers={"Origin": "https://example.org"})
    assert "access-control-allow-origin" not in answer.headers


def test_the_page_loads_nothing_from_elsewhere(server: Server) -> None:
    answer = httpx2.get(server.url)
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    for name in ("index.html", "page.css", "page.js"):
        text = server.get(f"/page/{name}")[1].decode()
        assert len(text) > 500 and not re.search(r"https?://", text)
    assert server.status("/page/../app.py") == server.status("/page/app.py") == 404


def test_nothing_is_kept_unless_the_server_was_told_to(server: Server, short: Path) -> None:
    answer = httpx2.post(
        f"{server.url}/v1/corrections",
        data={"text": "a", "consent": "true"},
        files={"file": ("a", short.read_bytes())},
    )
    assert answer.status_code == 404 and "--collect" in error_of(answer.content)["message"]
