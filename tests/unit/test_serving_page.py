"""The page in a real browser whose microphone plays a WAV. Skipped without Chromium and playwright.

With ``POLYVOX_AXE`` (the path of ``axe.min.js``, from npm's ``axe-core``) accessibility is checked too; with
``POLYVOX_SCREENSHOTS`` (a folder) pictures are kept there to be looked at.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import serving_assets
import soundfile
from serving_assets import Server

from training.data.manifest import load_manifest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
sync_api = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
SECONDS = 60_000
"""Milliseconds that a browser on a busy machine may take for anything."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    (folder / "collected").mkdir()
    models = {"tones": Path(os.environ["POLYVOX_TONES"])} if "POLYVOX_TONES" in os.environ else None
    made = (
        serving_assets.models(folder)
        if models is None
        else {**models, "ctc": serving_assets.models(folder)["ctc"]}
    )
    with Server(made, "--collect", folder / "collected", log=folder / "log.txt") as running:
        yield running.wait_ready()


@pytest.fixture(scope="module")
def spoken(folder: Path) -> Path:
    """What the microphone hears, over and over."""
    path = folder / "microphone.wav"
    if "POLYVOX_TONES" in os.environ:
        clips = sorted(Path(os.environ["POLYVOX_TONES"]).parent.glob("test?.wav"))[:2]
        sound = np.concatenate([soundfile.read(clip)[0] for clip in clips])
        soundfile.write(path, np.repeat(sound, 2), 16_000)
    else:
        soundfile.write(path, serving_assets.speech(4), 16_000)
    return path


@pytest.fixture(scope="module")
def browser(spoken: Path) -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        flags = (
            "--no-sandbox",
            "--use-fake-device-for-media-stream",
            f"--use-file-for-fake-audio-capture={spoken}",
            "--autoplay-policy=no-user-gesture-required",
        )
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=list(flags))
        yield made
        made.close()


@pytest.fixture
def page(browser: Any, server: Server) -> Iterator[Any]:
    yield from opened(browser, server, permissions=["microphone"])


def opened(browser: Any, server: Server, **options: Any) -> Iterator[Any]:
    """A page; whatever its console complains of fails the test."""
    context = browser.new_context(locale="en-US", accept_downloads=True, **options)
    made = context.new_page()
    made.set_default_timeout(SECONDS)
    complaints: list[str] = []
    made.on("console", lambda one: complaints.append(one.text) if _is_wrong(one) else None)
    made.on("pageerror", lambda error: complaints.append(str(error)))
    made.on("request", lambda one: complaints.append(one.url) if not _ours(one.url, server) else None)
    made.goto(server.url)
    until(made, "document.querySelectorAll('#model option').length > 0")
    yield made
    context.close()
    assert complaints == []


def _is_wrong(message: Any) -> bool:
    """An answer of the server that is an error is shown on the page, and is no fault of it."""
    return message.type == "error" and "the server responded with a status of 4" not in message.text


def _ours(url: str, server: Server) -> bool:
    return url.startswith((server.url, "blob:", "data:"))


def until(page: Any, expression: str) -> None:
    """Until an expression holds. (playwright's own wait evaluates a string in the page, which the page's policy forbids.)"""
    for _ in range(SECONDS // 50):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"{expression} never held")


def picture(page: Any, name: str) -> None:
    if "POLYVOX_SCREENSHOTS" in os.environ:
        page.screenshot(path=Path(os.environ["POLYVOX_SCREENSHOTS"], f"{name}.png"), full_page=True)


def serious(page: Any) -> list[str]:
    """What axe finds; nothing where there is no axe."""
    if "POLYVOX_AXE" not in os.environ:
        return []
    page.evaluate(Path(os.environ["POLYVOX_AXE"]).read_text(encoding="utf8"))
    found = page.evaluate("axe.run()")
    return [
        f"{one['id']}: {one['nodes'][0]['html'][:200]}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]


def recorded(page: Any, seconds: float = 5) -> None:
    page.get_by_role("button", name="Record", exact=True).click()
    page.wait_for_timeout(1000 * seconds)
    page.get_by_role("button", name="Stop", exact=True).click()
    page.wait_for_selector(".item .state:has-text('done')")


def test_speech_becomes_words_that_play_and_files_that_parse(page: Any, folder: Path) -> None:
    page.get_by_role("button", name="Record", exact=True).click()
    until(page, "document.querySelector('#live').textContent.trim().length > 0")
    picture(page, "live")
    page.wait_for_timeout(2000)
    page.get_by_role("button", name="Stop", exact=True).click()
    page.wait_for_selector(".item .state:has-text('done')")
    word = page.locator(".word").last
    word.click()
    until(page, "document.querySelector('.item audio').currentTime > 0")
    assert "confidence" in word.get_attribute("title")
    found = {}
    for name in ("SRT", "VTT", "JSON", "Text"):
        with page.expect_download() as download:
            page.get_by_role("button", name=name, exact=True).click()
        found[name] = Path(download.value.path()).read_text(encoding="utf8")
    text = json.loads(found["JSON"])["text"]
    assert text and found["Text"].strip() == text
    assert re.match(r"1\n\d\d:\d\d:\d\d,\d{3} --> \d\d:\d\d:\d\d,\d{3}\n.+", found["SRT"])
    assert found["VTT"].startswith("WEBVTT\n\n00:")
    assert serious(page) == []
    picture(page, "done")


def test_two_models_beside_each_other_and_a_correction_for_the_next_training(page: Any, folder: Path) -> None:
    page.get_by_label("Beside it").select_option(index=2)
    page.set_input_files("#files", str(serving_assets.clip(folder / "a.wav", 2.0)))
    page.wait_for_selector(".item .state:has-text('done')")
    assert page.locator("article h3").count() == 2
    first = page.locator("article").first
    first.get_by_text("Correct the text").click()
    first.locator("textarea").fill("xin chào\tcác bạn")
    first.get_by_role("button", name="Store the correction").click()
    assert "consent" in first.locator(".sent").inner_text()
    first.get_by_role("checkbox").check()
    first.get_by_role("button", name="Store the correction").click()
    first.locator(".sent:has-text('stored')").wait_for()
    picture(page, "two")
    assert serious(page) == []
    manifest = folder / "collected" / "manifest.tsv"
    with manifest.open(encoding="utf8", newline="") as file:
        (row,) = csv.DictReader(file, delimiter="\t")
    assert row["transcript"] == "xin chào các bạn" and row["duration"] == "2.000"
    (example,) = load_manifest(manifest, need_text=True)
    assert Path(example.audio.path).read_bytes() == (folder / "a.wav").read_bytes()


def test_by_keyboard_narrow_dark_and_in_vietnamese(browser: Any, server: Server, folder: Path) -> None:
    for page in opened(
        browser,
        server,
        viewport={"width": 360, "height": 700},
        color_scheme="dark",
        permissions=["microphone"],
    ):
        page.get_by_label("Interface").select_option("vi")
        assert (
            page.locator("#record").inner_text() == "Ghi âm"
            and page.evaluate("document.documentElement.lang") == "vi"
        )
        page.get_by_label("Giao diện").focus()
        for _ in range(4):
            page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "record"
        page.keyboard.press("Enter")
        page.wait_for_timeout(3000)
        page.keyboard.press("Enter")
        page.wait_for_selector(".item .state:has-text('xong')")
        page.locator(".word").first.focus()
        page.keyboard.press("Enter")
        until(page, "document.querySelector('.item audio').currentTime > 0")
        assert page.evaluate("document.documentElement.scrollWidth <= 360")
        assert serious(page) == []
        picture(page, "narrow")
        page.get_by_label("Giao diện").select_option("en")
        assert "confidence: " in page.locator(".meta").first.inner_text()
        assert page.locator("#second option").first.inner_text() == "none"


def test_a_denied_microphone_is_explained(browser: Any, server: Server) -> None:
    for page in opened(browser, server):
        page.evaluate(
            "() => { navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'NotAllowedError') } }"
        )
        page.get_by_role("button", name="Record", exact=True).click()
        page.locator("#notice:has-text('denied')").wait_for()
        assert serious(page) == []


def test_a_second_click_while_the_microphone_is_asked_for_starts_nothing(page: Any) -> None:
    page.evaluate(
        """() => {
            const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
            globalThis.asked = 0;
            navigator.mediaDevices.getUserMedia = async (wanted) => {
                globalThis.asked += 1;
                await new Promise((ready) => setTimeout(ready, 300));
                return ask(wanted);
            };
        }"""
    )
    button = page.locator("#record")
    button.click()
    button.click()
    until(page, "document.querySelector('#record').getAttribute('aria-pressed') === 'true'")
    page.wait_for_timeout(600)
    assert page.evaluate("globalThis.asked") == 1
    page.get_by_role("button", name="Stop", exact=True).click()
    page.wait_for_selector(".item .state:has-text('done')")
    assert page.locator(".item").count() == 1


def test_a_browser_that_cannot_record_gives_the_microphone_back(page: Any) -> None:
    page.evaluate(
        """() => {
            const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
            navigator.mediaDevices.getUserMedia = async (wanted) => (globalThis.given = await ask(wanted));
            AudioWorklet.prototype.addModule = async () => { throw new DOMException("", "AbortError"); };
        }"""
    )
    page.locator("#record").click()
    page.locator("#notice:has-text('cannot record')").wait_for()
    assert page.evaluate("globalThis.given.getTracks().every((track) => track.readyState === 'ended')")


def test_several_files_wait_in_turn_and_can_be_cancelled(page: Any, folder: Path) -> None:
    clips = [serving_assets.clip(folder / f"{n}.wav", 30, n) for n in range(3)]
    page.set_input_files("#files", [str(clip) for clip in clips])
    last = page.locator(".item").first
    last.get_by_role("button", name="Cancel").click()
    assert last.locator(".state").inner_text() in ("cancelled",)
    until(page, "document.querySelectorAll('.item .state').length === 3")
    page.locator(".item .state:has-text('done')").nth(1).wait_for()
    page.set_input_files("#files", {"name": "x.wav", "mimeType": "audio/wav", "buffer": b"nothing" * 50})
    page.locator(".item .state.failed").wait_for()
