"""What other programs read, read back: TextGrid, CTM, the guide's JSON."""

from __future__ import annotations

import itertools
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.cli import transcribe
from training.data.example import SpokenWord
from training.transcription.formats import FORMATS
from training.transcription.transcript import Segment, Transcript

Tier = list[tuple[float, float, str]]
HEAD = re.compile(r'File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = (\S+)\nxmax = (\S+)\n')
TIER = re.compile(
    r'    item \[(\d+)\]:\n        class = "IntervalTier"\n        name = "([^"]*)"\n        xmin = (\S+)\n'
    r"        xmax = (\S+)\n        intervals: size = (\d+)\n((?:        intervals \[.*\n(?:            .*\n){3})*)"
)
INTERVAL = re.compile(
    r"        intervals \[(\d+)\]:\n            xmin = (\S+)\n            xmax = (\S+)\n"
    r'            text = "((?:[^"]|"")*)"\n'
)


def read_textgrid(text: str) -> tuple[float, dict[str, Tier]]:
    """End of the recording, and tiers by name; every line of the file belongs to something that is checked."""
    head = HEAD.match(text)
    assert head is not None and float(head[1]) == 0
    found = TIER.findall(text)
    shown = f"tiers? <exists>\nsize = {len(found)}\nitem []:\n"
    assert text[head.end() :].startswith(shown)
    assert "".join(match[0] for match in TIER.finditer(text)) == text[head.end() + len(shown) :]
    assert [int(number) for number, *_ in found] == list(range(1, len(found) + 1))
    tiers: dict[str, Tier] = {}
    for _, name, low, high, size, body in found:
        lines = INTERVAL.findall(body)
        assert [int(line[0]) for line in lines] == list(range(1, int(size) + 1))
        tiers[name] = [(float(a), float(b), said.replace('""', '"')) for _, a, b, said in lines]
        assert (low, high) == (head[1], head[2]) and lines[0][1] == low and lines[-1][2] == high
    for tier in tiers.values():
        assert all(start < end for start, end, _ in tier)
        assert all(a[1] == b[0] for a, b in itertools.pairwise(tier)), "no gap, no overlap"
    return float(head[2]), tiers


def word(text: str, start: float, end: float, confidence: float = 0.5) -> SpokenWord:
    return SpokenWord(text=text, start=start, end=end, confidence=confidence)


def transcript(
    *segments: Segment, tasks: tuple[str, ...] = ("transcribe",), seconds: float = 4.0
) -> Transcript:
    return Transcript("talks/a talk.wav", seconds, tasks, segments, 0.5)


TWO = transcript(
    Segment(
        0.0,
        1.0,
        {"transcribe": 'xin "chào"', "translate": "hello"},
        (word("xin", 0.1, 0.4), word('"chào"', 0.35, 0.9)),
    ),
    Segment(1.0, 2.0, {"transcribe": "bạn", "translate": "you"}, (word("bạn", 1.5, 1.5),)),
    tasks=("transcribe", "translate"),
)


def test_textgrid_by_hand() -> None:
    """The second word begins inside the first; the third has no length, which Praat does not know."""
    end, tiers = read_textgrid(FORMATS["textgrid"](TWO))
    assert end == 4.0 and list(tiers) == ["words", "segments", "segments (translate)"]
    assert tiers["words"] == [
        (0.0, 0.1, ""),
        (0.1, 0.4, "xin"),
        (0.4, 0.9, '"chào"'),
        (0.9, 1.5, ""),
        (1.5, 1.501, "bạn"),
        (1.501, 4.0, ""),
    ]
    assert tiers["segments"] == [(0.0, 1.0, 'xin "chào"'), (1.0, 2.0, "bạn"), (2.0, 4.0, "")]
    assert [text for _, _, text in tiers["segments (translate)"]] == ["hello", "you", ""]


def test_textgrid_without_word_times_has_no_tier_of_guesses() -> None:
    end, tiers = read_textgrid(FORMATS["textgrid"](transcript(Segment(0.5, 1.0, {"transcribe": "a b"}))))
    assert (end, tiers) == (4.0, {"segments": [(0.0, 0.5, ""), (0.5, 1.0, "a b"), (1.0, 4.0, "")]})
    assert read_textgrid(FORMATS["textgrid"](transcript()))[1] == {"segments": [(0.0, 4.0, "")]}
    assert read_textgrid(FORMATS["textgrid"](transcript(seconds=0.0)))[0] > 0


TIMES = st.lists(
    st.tuples(st.text('ab"ạ', min_size=1, max_size=4), st.floats(0, 8), st.floats(-0.5, 2)), max_size=12
)


@settings(max_examples=80, deadline=None)
@given(TIMES)
def test_textgrids_are_valid_whatever_the_times(spoken: list[tuple[str, float, float]]) -> None:
    """Words that overlap, go back, end before they start, lie behind the end of the file."""
    words = tuple(word(text, start, start + length) for text, start, length in spoken)
    text = " ".join(one.text for one in words)
    end, tiers = read_textgrid(
        FORMATS["textgrid"](transcript(Segment(0.0, 4.0, {"transcribe": text}, words)))
    )
    assert end >= 4.0
    assert [said for _, _, said in tiers.get("words", []) if said] == [one.text for one in words]


def test_ctm_reads_back() -> None:
    lines = [line.split(" ") for line in FORMATS["ctm"](TWO).splitlines()]
    assert lines == [
        ["a_talk", "1", "0.100", "0.300", "xin", "0.5000"],
        ["a_talk", "1", "0.350", "0.550", '"chào"', "0.5000"],
        ["a_talk", "1", "1.500", "0.001", "bạn", "0.5000"],
    ]
    assert FORMATS["ctm"](transcript()) == ""


def test_a_segment_whose_words_found_no_place_is_not_lost() -> None:
    """Its times are guesses, and its confidence says so."""
    found = transcript(
        Segment(0.0, 1.0, {"transcribe": "a"}, (word("a", 0.2, 0.4),)), Segment(2.0, 3.0, {"transcribe": "b"})
    )
    assert FORMATS["ctm"](found).splitlines() == [
        "a_talk 1 0.200 0.200 a 0.5000",
        "a_talk 1 2.000 1.000 b 0.0000",
    ]


def test_the_guides_json() -> None:
    text = FORMATS["words"](TWO)
    assert json.loads(text) == {
        "text": 'xin "chào" bạn',
        "words": [
            {"word": "xin", "start": 0.1, "end": 0.4, "confidence": 0.5},
            {"word": '"chào"', "start": 0.35, "end": 0.9, "confidence": 0.5},
            {"word": "bạn", "start": 1.5, "end": 1.5, "confidence": 0.5},
        ],
    }
    assert text.splitlines()[3] == '    {"word": "xin", "start": 0.1, "end": 0.4, "confidence": 0.5},'
    assert json.loads(FORMATS["words"](transcript())) == {"text": "", "words": []}


def test_the_command_knows_every_format() -> None:
    assert set(transcribe.FORMATS) == set(FORMATS)


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_format_writes_an_empty_transcript(name: str) -> None:
    assert isinstance(FORMATS[name](transcript()), str)
