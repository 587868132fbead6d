"""The report as Chromium draws it, light and dark, at two widths, beside pictures of before. Skipped without the extra ``browser``.

Fonts differ between machines, so whole pictures cannot be compared. Each block of the page (headings' part, cards, charts) is
compared by its place across the page and by a picture of `CELLS` means, whatever its height. After a wanted change:
``POLYVOX_NEW_REFERENCE=1 python -m pytest tests/unit/test_report_screens.py`` writes the references anew; look at them (and,
with ``POLYVOX_SCREENSHOTS=FOLDER``, at the whole pictures) before they are committed.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from eval_assets import corpus
from PIL import Image

from training.cli.charts import audio_of
from training.data.example import TRANSCRIBE, TRANSLATE
from training.evaluation.evaluate import evaluate
from training.evaluation.report import build_report
from training.evaluation.stored import History, load_results

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
sync_api = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")

REFERENCES = Path(__file__).parents[1] / "fixtures" / "report_screens"
VIEWS = [(scheme, width) for scheme in ("light", "dark") for width in (1280, 420)]
BLOCKS = "header, .card, .tiles, svg"
CELLS = (12, 6)
"""Columns and rows of a block's picture."""
PLACE = 6.0
"""Pixels by which a block may lie elsewhere, or be wider, across the page."""
COLOUR = 14.0
"""Mean difference of a block's picture from its reference, of 255, from which on it counts as changed."""


@dataclass(frozen=True)
class View:
    """What was drawn: left edge and width of each block in pixels, and their pictures, ``[blocks, rows, columns, 3]``."""

    boxes: np.ndarray
    pictures: np.ndarray
    overflow: float

    def differences(self, other: View) -> list[str]:
        """What is not as in another view, in words."""
        if len(self.boxes) != len(other.boxes):
            return [f"{len(self.boxes)} blocks instead of {len(other.boxes)}"]
        moved = np.abs(self.boxes - other.boxes).max(axis=1)
        changed = np.abs(self.pictures.astype(float) - other.pictures).mean(axis=(1, 2, 3))
        return [
            *(f"block {n}: {by:.0f} px elsewhere" for n, by in enumerate(moved) if by > PLACE),
            *(f"block {n}: its picture differs by {by:.1f}" for n, by in enumerate(changed) if by > COLOUR),
        ]


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of made-up scores, the same on every machine."""
    folder = tmp_path_factory.mktemp("report")
    clip = folder / "clip.wav"
    soundfile.write(clip, np.sin(np.arange(16_000) * 0.1) * 0.1, 16_000)
    for number, run in enumerate(("demo_e2e", "demo_whisper")):
        examples, hypotheses = corpus(30, drop=0.1 + 0.1 * number, seed=number, path=str(clip))
        evaluate(
            examples,
            hypotheses,
            meta={"commit": "abc123"},
            train_speakers=["s0"],
            resamples=30,
            train_texts={task: ["em đi xem"] for task in (TRANSCRIBE, TRANSLATE)},
        ).write(folder, run)
    records = [{"step": s, "loss": 3.0 / s, "eval_loss": 3.1 / s, "eval_wer": 50.0 / s} for s in range(1, 20)]
    results = load_results(folder)
    page = build_report(results, [History("demo_e2e", "demo_e2e", records, "model: {}")], audio_of(results))
    path = folder / "report.html"
    path.write_text(page, encoding="utf8")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        made = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--hide-scrollbars"]
        )
        yield made
        made.close()


def look(browser: Any, path: Path, scheme: str, width: int, *, style: str = "", name: str = "") -> View:
    """The page of a file in a window of this width. ``style``: rules that are added to it."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True, locale="en-US"
    )
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto(path.as_uri())
    if style:
        page.add_style_tag(content=style)
    boxes = page.evaluate(
        "blocks => [...document.querySelectorAll(blocks)].map(one => one.getBoundingClientRect())"
        ".map(one => [one.left, one.top + scrollY, one.width, one.height])",
        BLOCKS,
    )
    overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    whole = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    context.close()
    if name and "POLYVOX_SCREENSHOTS" in os.environ:
        whole.save(Path(os.environ["POLYVOX_SCREENSHOTS"], f"{name}.png"))
    parts = [whole.crop((round(x), round(y), round(x + w), round(y + h))) for x, y, w, h in boxes]
    pictures = [np.asarray(part.resize(CELLS, Image.Resampling.BOX)) for part in parts]
    return View(np.array(boxes)[:, [0, 2]], np.stack(pictures), overflow)


def reference(scheme: str, width: int) -> tuple[Path, Path]:
    return REFERENCES / f"{scheme}_{width}.png", REFERENCES / f"{scheme}_{width}.json"


def keep(view: View, scheme: str, width: int) -> None:
    picture, boxes = reference(scheme, width)
    picture.parent.mkdir(exist_ok=True)
    Image.fromarray(view.pictures.reshape(-1, CELLS[0], 3)).save(picture, optimize=True)
    boxes.write_text(json.dumps(view.boxes.round().astype(int).tolist()) + "\n", encoding="utf8")


def kept(scheme: str, width: int) -> View:
    picture, boxes = reference(scheme, width)
    return View(
        np.array(json.loads(boxes.read_text(encoding="utf8")), dtype=float),
        np.asarray(Image.open(picture).convert("RGB")).reshape(-1, CELLS[1], CELLS[0], 3),
        0.0,
    )


@pytest.mark.parametrize(("scheme", "width"), VIEWS)
def test_the_report_looks_as_before(browser: Any, page_file: Path, scheme: str, width: int) -> None:
    view = look(browser, page_file, scheme, width, name=f"report_{scheme}_{width}")
    if "POLYVOX_NEW_REFERENCE" in os.environ:
        keep(view, scheme, width)
    assert view.overflow <= 0, "the page itself does not scroll sideways"
    assert view.differences(kept(scheme, width)) == []


def test_other_fonts_are_no_difference(browser: Any, page_file: Path) -> None:
    """Another machine's fonts: letters of other widths and lines of other heights."""
    for font in ("serif", "monospace"):
        style = f"body {{ font-family: {font} !important; }}"
        for width in (1280, 420):
            assert (
                look(browser, page_file, "light", width, style=style).differences(kept("light", width)) == []
            )


@pytest.mark.parametrize(
    ("fault", "style"),
    [
        ("the cards have lost their padding", ".card { padding: 0 !important; border: 0 !important; }"),
        ("the columns are one", ".grid2 { grid-template-columns: 1fr !important; }"),
        ("the bars are black", ".bar { fill: #000 !important; }"),
        ("a wide table pushes the page", ".card { width: 1500px; }"),
        ("dark ink on a dark page", ":root { --card: #1b2230 !important; }"),
    ],
)
def test_faults_are_seen(browser: Any, page_file: Path, fault: str, style: str) -> None:
    found = look(browser, page_file, "light", 1280, style=style).differences(kept("light", 1280))
    assert found, fault


def test_a_dark_page_is_not_taken_for_a_light_one(browser: Any, page_file: Path) -> None:
    assert look(browser, page_file, "dark", 420).differences(kept("light", 420))
