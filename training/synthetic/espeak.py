"""A thin wrapper of espeak-ng, the synthesiser in the package ``espeakng-loader`` (optional extra ``demo``).

The library keeps its state in C globals: one voice per process at a time, and the sound of a text depends
a little on what was spoken before it (phases, flutter). Equal bytes are therefore promised for equal
*sequences* of calls in a *fresh* process, each begun with `Espeak(seed)`; see ``training.synthetic.studio``.

The library is started once in a process: a second ``espeak_Initialize`` frees the phoneme tables to which the state
of the last voice still points, and the next clause reads them (found with valgrind in espeak-ng 1.52).
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterable
from typing import Any, NamedTuple
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from training.base.errors import UserError

# Constants of espeak's public header speak_lib.h.
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_DONT_EXIT = 0x8000
_CHARS_UTF8 = 1
_SSML = 0x10
_POSITION_CHARACTER = 1
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4

VOLUME = 60
"""Volume; espeak's default is 100, at which its loudest vowels clip."""

EVENT_WORD, EVENT_PHONEME = 1, 7
_LIST_TERMINATED = 0


class _EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _EspeakEvent(ctypes.Structure):
    """``espeak_EVENT`` of the header."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_SynthCallback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_EspeakEvent)
)


class Event(NamedTuple):
    """What espeak reports while it speaks.

    ``kind`` is `EVENT_WORD`, `EVENT_PHONEME` or another of espeak's; ``position`` and ``length`` are characters of the
    document, counted from 1; ``sample`` is where in the sound it happens; ``phoneme`` is empty for other kinds.
    """

    kind: int
    position: int
    length: int
    sample: int
    phoneme: str = ""


class Espeak:
    """The synthesiser of this process.

    ``sample_rate`` is espeak's own, in Hz (22,050). Raises `UserError` where the package is missing or
    its library cannot be loaded.
    """

    def __init__(self, seed: int = 0) -> None:
        self._library, self.sample_rate = _started()
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
        self._chunks: list[bytes] = []
        self._events: list[Event] = []
        self._callback = _SynthCallback(self._collect)  # kept alive: C holds no reference to it
        self._library.espeak_SetSynthCallback(self._callback)

    def set_voice(self, name: str, *, rate: int = 175, pitch: int = 50, pitch_range: int = 50) -> None:
        """Choose a voice such as ``vi``, ``vi-vn-x-south+f2``; ``rate`` in words a minute, the rest 0–99."""
        status = self._library.espeak_SetVoiceByName(name.encode())
        if status != 0:
            raise UserError(f"espeak-ng has no voice {name!r} (status {status}).")
        settings = {_RATE: rate, _PITCH: pitch, _RANGE: pitch_range, _VOLUME: VOLUME}
        for parameter, value in settings.items():
            self._library.espeak_SetParameter(parameter, value, 0)

    def speak(self, ssml: str) -> np.ndarray:
        """The sound of an SSML document: int16 ``[samples]``, mono, at ``sample_rate``."""
        self._chunks.clear()
        self._events.clear()
        text = ssml.encode()
        status = self._library.espeak_Synth(
            text, len(text) + 1, 0, _POSITION_CHARACTER, 0, _CHARS_UTF8 | _SSML, None, None
        )
        if status != 0:
            raise RuntimeError(f"espeak-ng failed with status {status} on {ssml!r}")
        return np.frombuffer(b"".join(self._chunks), dtype=np.int16)

    def speak_with_events(self, ssml: str) -> tuple[np.ndarray, list[Event]]:
        """A sound as of `speak`, and the events of the same call: a second call would give another sound.

        Where espeak reports phonemes, a sound is now and then a few milliseconds longer or shorter. Corpora without
        times are therefore spoken by `speak`, or their bytes would change.
        """
        self._library.espeak_ng_SetPhonemeEvents(1, 0)
        try:
            return self.speak(ssml), list(self._events)
        finally:
            self._library.espeak_ng_SetPhonemeEvents(0, 0)

    def _collect(self, samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            self._chunks.append(ctypes.string_at(samples, count * 2))
        for event in events:
            if event.type == _LIST_TERMINATED:
                break
            self._events.append(_event(event))
        return 0


def _event(event: _EspeakEvent) -> Event:
    phoneme = event.id.string.decode(errors="replace") if event.type == EVENT_PHONEME else ""
    return Event(event.type, event.text_position, event.length, event.sample, phoneme)


def ssml(parts: Iterable[tuple[str, str | None] | float]) -> str:
    """An SSML document from ``(text, language)`` runs; ``None`` is the language of the chosen voice.

    A run in another language is wrapped in a ``voice`` element: espeak then switches its rules and
    phonemes inside the sentence and keeps the variant (``+f2``) of the speaker. A number is a pause in seconds,
    which may stand inside a word.
    """
    return f"<speak>{''.join(element(part) for part in parts)}</speak>"


def element(part: tuple[str, str | None] | float) -> str:
    """One part of `ssml`."""
    if isinstance(part, float):
        return f'<break time="{round(part * 1000)}ms"/>'
    text, language = part
    if language is None:
        return escape(text)
    return f"<voice xml:lang={quoteattr(language)}>{escape(text)}</voice>"


@functools.cache
def _started() -> tuple[ctypes.CDLL, int]:
    library, data = _load()
    rate = library.espeak_Initialize(_AUDIO_OUTPUT_SYNCHRONOUS, 0, data.encode(), _DONT_EXIT)
    if rate <= 0:
        raise UserError(
            f"espeak-ng does not start: no usable data in {data}. Reinstall the package espeakng-loader."
        )
    return library, int(rate)


def _load() -> tuple[ctypes.CDLL, str]:
    try:
        import espeakng_loader
    except ImportError as error:
        raise UserError(
            "the demo corpus is spoken by espeak-ng, which is not installed. "
            "Install the extra: pip install -e '.[demo]' in Polyvox's folder"
        ) from error
    try:
        library = ctypes.CDLL(espeakng_loader.get_library_path())
    except OSError as error:
        raise UserError(f"the library of the package espeakng-loader cannot be loaded: {error}") from error
    return library, str(espeakng_loader.get_data_path())
