"""Words and their times from espeak-ng's events."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from speech_files import onset

from training.synthetic.espeak import EVENT_PHONEME, EVENT_WORD, Espeak, Event
from training.synthetic.espeak_words import GLUE, place, word_spans

_FUNCTION_WORDS = (
    "i a an and at are as be by can could do for from had has have he her his if in is it me my not of off on or our she "
    "so that the then there they to under was we will with you"
)
_INITIALS = (
    "tea boat car dog go apple eight only map night light rain shop fish sun view house this think yes"
)
RATE = 1000
"""Samples a second of made-up sound."""


@pytest.fixture(scope="module")
def espeak() -> Espeak:
    pytest.importorskip("espeakng_loader")
    return Espeak(seed=1)


def spans_in_ms(espeak: Espeak, parts: list[str | float]) -> tuple[np.ndarray, list[tuple[float, float]]]:
    document, positions = place(parts)
    sound, events = espeak.speak_with_events(document)
    scale = 1000 / espeak.sample_rate
    return sound, [(start * scale, end * scale) for start, end in word_spans(sound, events, positions)]


# Where the words stand in the document


@given(
    st.lists(
        st.one_of(st.text("abc,.'?&<", min_size=1, max_size=6), st.floats(0.1, 2.0)), min_size=1, max_size=8
    )
)
@settings(max_examples=200, deadline=None)
def test_positions_are_those_of_the_words_in_the_document(parts: list[str | float]) -> None:
    document, positions = place(parts)
    words = [part for part in parts if isinstance(part, str)]
    assert len(positions) == len(words)
    for word, position in zip(words, positions, strict=True):
        there = document[position - 1 :].replace("&amp;", "&").replace("&lt;", "<")
        assert there.startswith(word + GLUE)
    assert document.count("<break") == len(parts) - len(words)


# Made-up events: every case of a boundary, in samples of a sound whose loud parts are known


def word(position: int, sample: int, length: int = 2) -> Event:
    return Event(EVENT_WORD, position, length, sample)


def phoneme(name: str, sample: int) -> Event:
    return Event(EVENT_PHONEME, 1, 0, sample, name)


def loud(*stretches: tuple[int, int]) -> np.ndarray:
    sound = np.zeros(RATE, dtype=np.int16)
    for start, end in stretches:
        sound[start:end] = 1000
    return sound


def spans(sound: np.ndarray, *events: Event) -> list[tuple[int, int]]:
    positions = [event.position for event in events if event.kind == EVENT_WORD and event.length]
    return word_spans(sound, [*events, phoneme("_:", 900)], positions)


def test_the_silence_before_a_plosive_belongs_to_no_word() -> None:
    sound = loud((0, 200), (250, 900))
    events = word(8, 0), phoneme("aI", 0), word(11, 200), phoneme("k", 250), phoneme("a", 300)
    assert spans(sound, *events) == [(0, 200), (250, 900)]


def test_a_pause_belongs_to_no_word() -> None:
    sound = loud((0, 200), (500, 900))
    events = (
        word(8, 0),
        phoneme("aI", 0),
        phoneme("_:", 200),
        phoneme("_", 500),
        word(11, 500),
        phoneme("a", 500),
    )
    assert spans(sound, *events) == [(0, 200), (500, 900)]


def test_a_nasal_spoken_in_one_movement_with_the_vowel_ends_where_the_vowel_is_reported() -> None:
    sound = loud((0, 900))
    events = word(8, 0), phoneme("I", 0), phoneme("n", 200), word(11, 200), phoneme("a", 260)
    assert spans(sound, *events) == [(0, 260), (260, 900)]


def test_a_dark_l_ends_where_the_next_word_begins_its_silence() -> None:
    sound = loud((0, 200), (250, 900))
    events = word(8, 0), phoneme("O:", 0), phoneme("l", 200), word(11, 200), phoneme("b", 250)
    assert spans(sound, *events) == [(0, 200), (250, 900)]


def test_a_vowel_after_a_linking_r_begins_at_its_word_event() -> None:
    sound = loud((0, 900))
    events = word(8, 0), phoneme("O:", 0), phoneme("r-", 150), word(11, 200), phoneme("a", 240)
    assert spans(sound, *events) == [(0, 200), (200, 900)]


def test_phantom_events_are_dropped() -> None:
    events = word(0, 0, length=0), word(8, 0), phoneme("aI", 0), word(0, 100, length=0), phoneme("t", 120)
    assert spans(loud((0, 900)), *events) == [(0, 900)]


def test_other_words_than_those_given_are_an_error() -> None:
    events = [word(8, 0), phoneme("aI", 0), phoneme("_:", 900)]
    with pytest.raises(RuntimeError, match=r"\(8,\) in place of \(8, 12\)"):
        word_spans(loud((0, 900)), events, (8, 12))


def test_a_word_without_a_phoneme_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="no phoneme for the word at character 8"):
        spans(loud((0, 900)), word(8, 0), word(11, 200), phoneme("a", 200))


# espeak-ng


# Trap 29.
def test_without_the_zero_width_space_function_words_merge(espeak: Espeak) -> None:
    espeak.set_voice("en-us")
    _, events = espeak.speak_with_events("<speak>one of the cats</speak>")
    assert sum(event.kind == EVENT_WORD and event.length > 0 for event in events) == 3
    assert len(spans_in_ms(espeak, ["one", "of", "the", "cats"])[1]) == 4


# Trap 29.
@pytest.mark.parametrize("voice", ["en-us", "en-gb-x-rp+f3"])
def test_every_pair_of_function_words_has_two_words_with_times(espeak: Espeak, voice: str) -> None:
    espeak.set_voice(voice)
    words = _FUNCTION_WORDS.split()
    lengths: list[float] = []
    for first in words:
        for at in range(0, len(words), 9):
            pairs = [said for other in words[at : at + 9] for said in (first, other)]
            sound, times = spans_in_ms(espeak, [*pairs, f"{first}."])
            assert len(times) == len(pairs) + 1
            edges = [edge for span in times for edge in span]
            assert edges == sorted(edges) and edges[-1] <= len(sound) / espeak.sample_rate * 1000
            lengths += [end - start for start, end in times]
    assert min(lengths) > 20 and max(lengths) < 800 and 100 < np.mean(lengths) < 400


@pytest.mark.parametrize("voice", ["en-us", "en-us+f2", "en-gb-x-rp"])
def test_words_after_a_pause_begin_where_the_sound_does(espeak: Espeak, voice: str) -> None:
    espeak.set_voice(voice, rate=170)
    for said in _INITIALS.split():
        sound, times = spans_in_ms(espeak, ["put", "it", 0.4, said, "then,", said, "today."])
        for before, after in ((1, 2), (3, 4)):
            end, start = times[before][1] / 1000, times[after][0] / 1000
            assert start - end > 0.08
            heard = onset(sound / 32768, espeak.sample_rate, end + 0.06)
            assert abs(start - heard) <= 0.02, said


def test_there_is_sound_in_every_word_and_none_in_the_pauses(espeak: Espeak) -> None:
    espeak.set_voice("en-us+f2", rate=170)
    parts: list[str | float] = [
        "In",
        "an",
        "hour,",
        0.3,
        "we",
        "will",
        "all",
        "eat",
        "one",
        "of",
        "the",
        "apples.",
    ]
    sound, times = spans_in_ms(espeak, parts)
    level = np.sqrt(np.mean(np.square(sound, dtype=float)))

    def rms(start: float, end: float) -> float:
        part = sound[round(start / 1000 * espeak.sample_rate) : round(end / 1000 * espeak.sample_rate)]
        return float(np.sqrt(np.mean(np.square(part, dtype=float))))

    assert all(rms(*span) > 0.4 * level for span in times)
    gaps = [(end, start) for (_, end), (start, _) in itertools.pairwise(times) if start - end > 5]
    assert len(gaps) >= 2 and max(rms(*gap) for gap in gaps) < 0.3 * level


def test_sound_and_events_are_of_one_call(espeak: Espeak) -> None:
    """The same text said again is another sound of other lengths: times from a second call would be wrong."""
    espeak.set_voice("en-us", rate=170)
    document, positions = place(["the", "train", "to", "london", "leaves", "at", "ten."])
    ends = set()
    for _ in range(3):
        sound, events = espeak.speak_with_events(document)
        assert max(event.sample for event in events) == len(sound)
        ends.add(word_spans(sound, events, positions)[-1][1])
    assert len(ends) > 1
