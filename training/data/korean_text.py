"""Korean transcripts: forms of letters that mean the same made one, annotations taken out, numerals spelt out."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from training.data.korean_numbers import read_numerals
from training.data.text import clean_transcript

Dual = Literal["first", "second"]
Numerals = Literal["keep", "read"]

_WIDTHS = ("<narrow>", "<wide>", "<square>")
_FILLERS = {0x115F: "", 0x1160: "", 0x3164: " "}
"""Letters by their Unicode category that show nothing; U+3164 takes the place of a syllable."""
_MIDDLE_DOT = "ARAEA"
"""Its letter U+318D is in use as a middle dot: the jamo of older texts must not become one."""

_DUAL = re.compile(r"\(([^()]*)\)\s*/\s*\(([^()]*)\)")
_NOISE = re.compile(r"(?<!\w)[bnlou]/(?![A-Za-z](?!/))")
_HESITATION = re.compile(r"(?<=[가-힣])[/+*]+(?=[\s.,?!]|$)")


@dataclass(frozen=True)
class KoreanRules:
    """Options of the cleaning of Korean transcripts.

    ``dual``: which of ``(…)/(…)`` stays; None leaves both. ``numerals``: ``read`` spells digits out.
    """

    dual: Dual | None = None
    numerals: Numerals = "keep"


def clean_korean(text: str, rules: KoreanRules) -> str:
    """`clean_transcript`, and what belongs to Korean: `plain_forms`, the marks of AI-Hub, ``rules``. Idempotent.

    AI-Hub marks sounds (``b/ n/ l/ o/ u/``), fillers (``아/``), repeated beginnings (``그+``) and unclear words
    (``그*``). The sounds are removed; of the words only the mark is removed, since they were spoken.
    """
    while (cleaned := _clean_once(text, rules)) != text:
        text = cleaned
    return text


def has_two_transcripts(text: str) -> bool:
    """Whether a part of the text is there twice, as spelling and as pronunciation: ``(30%)/(삼십 퍼센트)``."""
    return _DUAL.search(text) is not None


def plain_forms(text: str) -> str:
    """NFC; full-width and half-width characters and squared units (㎏) as the usual ones; jamo that stand alone as
    letters (U+3131 …); fillers gone. Letters in a row are not put together to syllables (ㅋㅏ stays)."""
    plain = unicodedata.normalize("NFC", text.translate(_FORMS).translate(_FILLERS))
    return plain.translate(_LONE_JAMO)


def _clean_once(text: str, rules: KoreanRules) -> str:
    text = clean_transcript(plain_forms(text))
    if rules.dual is not None:
        text = _DUAL.sub(r"\1" if rules.dual == "first" else r"\2", text)
    text = _HESITATION.sub("", _NOISE.sub(" ", text))
    return clean_transcript(read_numerals(text) if rules.numerals == "read" else text)


def _forms() -> Iterator[tuple[int, str]]:
    """Characters of `_WIDTHS` and what they are a form of. One step of NFKC only: the next would make jamo of letters."""
    for code in (*range(0x3250, 0x3400), *range(0xFF01, 0xFFEF)):
        width, _, plain = unicodedata.decomposition(chr(code)).partition(" ")
        if width in _WIDTHS:
            yield code, "".join(chr(int(point, 16)) for point in plain.split())


def _lone_jamo() -> Iterator[tuple[int, str]]:
    """Leading, vowel and trailing jamo, and the letter of each that stands for itself."""
    for code in range(0x1100, 0x1200):
        name = unicodedata.name(chr(code), "").split(" ", 2)[-1]
        if name == _MIDDLE_DOT:
            continue
        try:
            yield code, unicodedata.lookup(f"HANGUL LETTER {name}")
        except KeyError:  # an old one without a letter stays as it is
            continue


_FORMS = dict(_forms())
_LONE_JAMO = dict(_lone_jamo())
