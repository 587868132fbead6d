"""Text normalisation before scoring, one set of rules per language.

Whisper's own normaliser and the multilingual one of the Open ASR Leaderboard drop diacritics; in Vietnamese
these are tones and vowels, so "ma", "má" and "mà" are three words. Nothing here removes a letter or a mark.
A rule set is named with its version in every result, so that figures can be compared.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from training.data.korean_text import plain_forms

_APOSTROPHES = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "＇": "'", "`": "'", "´": "'"})
_ALIASES = {
    "vie": "vi", "vietnamese": "vi", "eng": "en", "english": "en",
    "kor": "ko", "korean": "ko", "fra": "fr", "fre": "fr", "french": "fr",
}  # fmt: skip
_LATE_TONE = re.compile(r"(òa|óa|ỏa|õa|ọa|òe|óe|ỏe|õe|ọe|ùy|úy|ủy|ũy|ụy)$")
_TONE_ON_LAST = dict(
    zip(
        ["òa", "óa", "ỏa", "õa", "ọa", "òe", "óe", "ỏe", "õe", "ọe", "ùy", "úy", "ủy", "ũy", "ụy"],
        ["oà", "oá", "oả", "oã", "oạ", "oè", "oé", "oẻ", "oẽ", "oẹ", "uỳ", "uý", "uỷ", "uỹ", "uỵ"],
        strict=True,
    )
)


@dataclass(frozen=True)
class Normalizer:
    """The rules of one language. ``spaces_in_cer`` is False where word spacing is free (Korean): CER is taken
    without spaces, and once more with them."""

    name: str
    version: int
    rules: str
    word: Callable[[str], str]
    spaces_in_cer: bool = True

    def __call__(self, text: str) -> str:
        """Normalised words joined by single spaces; the empty string when nothing is left."""
        return " ".join(piece for token in text.split() for piece in self.word(token).split())

    def words(self, text: str) -> list[str]:
        return self(text).split()

    def characters(self, text: str) -> str:
        """The text that CER compares: the normalised text, without its spaces where ``spaces_in_cer`` is False."""
        normal = self(text)
        return normal if self.spaces_in_cer else normal.replace(" ", "")

    @property
    def label(self) -> str:
        return f"{self.name}/v{self.version}"


def primary_language(code: str | None) -> str:
    """``vi`` for ``vi``, ``vi_VN``, ``vie`` or ``Vietnamese``; ``und`` where nothing is given."""
    if not code:
        return "und"
    tag = re.split(r"[-_]", code.strip().lower())[0]
    return _ALIASES.get(tag, tag)


def normalizer(language: str | None) -> Normalizer:
    """The rules for a language code; the default ones (letters and marks kept) where there are no own."""
    return _NORMALIZERS.get(primary_language(language), _DEFAULT)


def collapse(text: str) -> str:
    """Raw text as raw scores take it: white space collapsed, nothing else."""
    return " ".join(text.split())


def _strip(token: str, keep_apostrophe: bool) -> str:
    """Case-folded NFC letters, marks and digits; format characters vanish, anything else parts words."""
    text = unicodedata.normalize(
        "NFC", unicodedata.normalize("NFC", token.translate(_APOSTROPHES)).casefold()
    )
    kept = []
    for index, character in enumerate(text):
        kind = unicodedata.category(character)
        if kind[0] in "LMN" or (keep_apostrophe and character == "'" and _inside(text, index)):
            kept.append(character)
        elif kind != "Cf":
            kept.append(" ")
    return unicodedata.normalize("NFC", "".join(kept))


def _inside(text: str, index: int) -> bool:
    return 0 < index < len(text) - 1 and text[index - 1].isalpha() and text[index + 1].isalpha()


def _with_apostrophe(token: str) -> str:
    return _strip(token, keep_apostrophe=True)


def _without_apostrophe(token: str) -> str:
    return _strip(token, keep_apostrophe=False)


def _vietnamese(token: str) -> str:
    pieces = _strip(token, keep_apostrophe=True).replace("ð", "đ").split()
    return " ".join(_LATE_TONE.sub(lambda match: _TONE_ON_LAST[match[1]], piece) for piece in pieces)


def _korean(token: str) -> str:
    # U+318D is a letter to Unicode and a middle dot to those who write it: 초ㆍ중ㆍ고.
    return _strip(plain_forms(token).replace("\u318d", " "), keep_apostrophe=False)


_COMMON = "NFC, case-folded, punctuation and symbols become spaces, every letter, mark and digit kept"
_DEFAULT = Normalizer("default", 1, f"{_COMMON}; apostrophes inside words kept", _with_apostrophe)
_NORMALIZERS = {
    "vi": Normalizer(
        "vi",
        1,
        f"{_COMMON} (tones are words); apostrophes inside words kept; old and new placement of the tone mark in "
        "final oa, oe, uy made one (hòa = hoà); eth written for đ mended",
        _vietnamese,
    ),
    "en": Normalizer("en", 1, f"{_COMMON}; apostrophes inside words kept", _with_apostrophe),
    "fr": Normalizer("fr", 1, f"{_COMMON}; the apostrophe parts words (l'eau = l eau)", _without_apostrophe),
    "ko": Normalizer(
        "ko",
        2,
        f"{_COMMON}; full-width and half-width characters and squared units as the usual ones, jamo that stand alone "
        "as letters, fillers gone, U+318D parts words; CER without spaces, and with them as cer_spaces",
        _korean,
        spaces_in_cer=False,
    ),
}
