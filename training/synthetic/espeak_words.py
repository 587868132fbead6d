"""Words with their times from espeak-ng: the sound of a sentence and where each of its words lies in it.

Word events alone do not tell this. Function words merge into one event ("of the") unless a zero-width space keeps them
apart, no event marks the end of a word, and the event of a word comes before the silence of its first plosive. Phoneme
events give the rest, with two exceptions, both where a vowel follows a nasal, an ``l`` or an ``r``: espeak reports such a
vowel only after the movement into it. `word_spans` looks at the sound to tell the cases apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from training.synthetic.espeak import EVENT_PHONEME, EVENT_WORD, Event, element

GLUE = " \u200b"
"""Between words: a space, and a zero-width space that keeps espeak from taking two words for one."""

LOUD = 0.3
"""Share of the RMS level of the sentence: louder samples are sound, softer ones the silence before a plosive.

Between an event of a word and its first phoneme nothing was found from 0.21 to 0.42 (4,000 boundaries of function words, four voices).
"""

_OPEN, _CLOSE = "<speak>", "</speak>"
_PAUSE = "_"
"""The names of espeak's pauses begin with it."""


def place(parts: Iterable[str | float]) -> tuple[str, tuple[int, ...]]:
    """An SSML document of words and pauses (seconds), and the position of each word's first character, from 1."""
    document, positions = _OPEN, []
    for part in parts:
        if isinstance(part, str):
            positions.append(len(document) + 1)
            document += element((part, None)) + GLUE
        else:
            document += element(part) + GLUE
    return document + _CLOSE, tuple(positions)


def word_spans(sound: np.ndarray, events: Sequence[Event], positions: Sequence[int]) -> list[tuple[int, int]]:
    """First sample of each word and the one after its last: ``sound`` int16 ``[samples]`` with its ``events``.

    ``positions`` are those of `place`. Silence between words belongs to none. Raises `RuntimeError` where
    the events name other words.
    """
    groups = _by_word(events)
    found = tuple(group[0].position for group in groups)
    if found != tuple(positions):
        raise RuntimeError(f"espeak-ng spoke words at the characters {found} in place of {tuple(positions)}")
    level = LOUD * _rms(sound)
    spans: list[tuple[int, int]] = []
    last = None
    for group in groups:
        start, is_joined = _start(sound, group, last, level)
        if is_joined:
            spans[-1] = (spans[-1][0], start)
        last = _phonemes(group)[-1]
        spans.append((start, _event_after(last, events).sample))
    return spans


def _by_word(events: Sequence[Event]) -> list[list[Event]]:
    """The events of each word, its own first. Those without a length are no words ("fake models")."""
    groups: list[list[Event]] = []
    for event in events:
        if event.kind == EVENT_WORD and event.length > 0:
            groups.append([event])
        elif groups:
            groups[-1].append(event)
    return groups


def _start(sound: np.ndarray, group: Sequence[Event], last: Event | None, level: float) -> tuple[int, bool]:
    """First sample of a word, and whether it is spoken in one movement with ``last``, the phoneme before it."""
    word, first = group[0].sample, _phonemes(group)[0].sample
    if _rms(sound[word:first]) <= level:
        return first, False
    # The consonant of a joined pair sounds from the word's event on: its own event has no length.
    is_joined = last is not None and last.sample == word
    return (first, True) if is_joined else (word, False)


def _phonemes(group: Sequence[Event]) -> list[Event]:
    found = [event for event in group if event.kind == EVENT_PHONEME and not event.phoneme.startswith(_PAUSE)]
    if not found:
        raise RuntimeError(f"espeak-ng reported no phoneme for the word at character {group[0].position}")
    return found


def _event_after(event: Event, events: Sequence[Event]) -> Event:
    """What follows: espeak ends every text with a pause, so something does."""
    at = next(at for at, other in enumerate(events) if other is event)
    return events[at + 1]


def _rms(sound: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(sound, dtype=float)))) if len(sound) else 0.0
