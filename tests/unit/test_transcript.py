"""How transcripts are written."""

from __future__ import annotations

import itertools
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.example import SpokenWord
from training.transcription.formats import FORMATS
from training.transcription.transcript import CUE_SECONDS, LINE_LETTERS, LINES, Segment, Transcript, cues

STAMP = re.compile(r"^\d\d:\d\d:\d\d[,.]\d{3} --> \d\d:\d\d:\d\d[,.]\d{3}$", re.M)


def word(text: str, start: float, end: float) -> SpokenWord:
    return SpokenWord(text=text, start=start, end=end, confidence=0.5)


def transcript(*segments: Segment, tasks: int = 1) -> Transcript:
    return Transcript("a.wav", 4000.0, ("transcribe", "translate")[:tasks], segments, 0.5)


TWO = transcript(
    Segment(
        0.0,
        2.0,
        {"transcribe": "xin chào", "translate": "hello"},
        (word("xin", 0.1, 0.4), word("chào", 0.5, 0.9)),
    ),
    Segment(3661.5, 3663.0, {"transcribe": "a < b & c", "translate": ""}),
    tasks=2,
)


def test_txt_has_a_line_for_each_task() -> None:
    assert FORMATS["txt"](TWO) == "xin chào a < b & c\nhello\n"
    assert FORMATS["txt"](transcript()) == "\n"


def test_srt_by_hand() -> None:
    assert FORMATS["srt"](TWO) == (
        "1\n00:00:00,100 --> 00:00:00,900\nxin chào\n\n2\n01:01:01,500 --> 01:01:03,000\na < b & c\n\n"
    )


def test_vtt_escapes_what_it_gives_a_meaning() -> None:
    text = FORMATS["vtt"](TWO)
    assert text.startswith("WEBVTT\n\n00:00:00.100 --> 00:00:00.900\n")
    assert "a &lt; b &amp; c" in text


def test_tsv_has_a_row_for_each_segment() -> None:
    rows = [line.split("\t") for line in FORMATS["tsv"](TWO).splitlines()]
    assert rows == [
        ["a.wav", "0.000", "2.000", "", "xin chào", "hello"],
        ["a.wav", "3661.500", "3663.000", "", "a < b & c", ""],
    ]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.text("abc", min_size=1, max_size=12), st.floats(0.05, 1.0), st.floats(0.0, 2.0)),
        max_size=60,
    )
)
def test_subtitles_keep_every_word_in_order(spoken: list[tuple[str, float, float]]) -> None:
    words, now = [], 0.0
    for text, length, pause in spoken:
        words.append(word(text, now, now + length))
        now += length + pause
    found = cues(transcript(Segment(0.0, now, {"transcribe": " ".join(w.text for w in words)}, tuple(words))))
    assert " ".join(cue.text for cue in found).split() == [w.text for w in words]
    for cue in found:
        lines = cue.text.split("\n")
        assert len(lines) <= LINES and all(len(line) <= LINE_LETTERS for line in lines)
        assert 0 < cue.end - cue.start <= CUE_SECONDS + 1.0
    assert all(a.end <= b.start + 1e-9 for a, b in itertools.pairwise(found))


def test_segments_without_word_times_are_spread() -> None:
    text = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    result = transcript(Segment(10.0, 30.0, {"transcribe": text}))
    found = cues(result)
    assert len(found) > 2 and found[0].start == 10.0 and abs(found[-1].end - 30.0) < 1e-6
    assert len(STAMP.findall(FORMATS["srt"](result))) == len(found)
