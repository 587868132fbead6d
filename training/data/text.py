"""Cleaning of transcripts and translations: removes what annotators add to the spoken words.

Cleaned: invisible characters, emphasis marks, tags in square brackets, runs of white space. Kept: every
letter, digit and punctuation mark of the spoken words, letter case, Vietnamese tones (NFC, never stripped).
"""

from __future__ import annotations

import re
import unicodedata

MAX_TAG_WORDS = 3
"""Square brackets around at most this many words are a tag (``[laughter]``, ``[cười]``, ``[nhạc nền nhẹ]``);
around more they hold speech and stay."""

_INVISIBLE = re.compile(r"[\u00ad\u200c-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]")
_SEPARATORS = re.compile(r"[\s\u200b\u0000-\u001f\u007f-\u009f]+")
_STRONG = re.compile(r"\*{2,}")
_EMPHASIS = re.compile(r"(?<!\*)\*([^\s*](?:[^*]*[^\s*])?)\*(?!\*)")
_PUNCTUATION = r"[,.;:!?…]+(?=\s|$)"
_WORD = r"[^\[\]\s]+"
_TAG = rf"\[\s*(?:{_WORD}(?:\s+{_WORD}){{0,{MAX_TAG_WORDS - 1}}})?\s*\]"
_TAGS_FIRST = re.compile(rf"^\s*(?:{_TAG}\s*)+(?:{_PUNCTUATION})?")
_TAGS_BEFORE_PUNCTUATION = re.compile(rf"(?:\s*{_TAG})+\s*(?={_PUNCTUATION})")
_TAGS = re.compile(_TAG)


def clean_transcript(text: str) -> str:
    """The text of the spoken words. Idempotent; the result is NFC, stripped, with single spaces.

    A tag leaves a space, so that the words around it stay apart; punctuation that followed it moves to the
    word before it, and goes where there is none.
    """
    while (cleaned := _clean_once(text)) != text:
        text = cleaned
    return text


def _clean_once(text: str) -> str:
    text = unicodedata.normalize("NFC", _INVISIBLE.sub("", text))
    text = _SEPARATORS.sub(" ", text).strip()
    text = _EMPHASIS.sub(r"\1", _STRONG.sub("", text))
    text = _TAGS_FIRST.sub("", text)
    text = _TAGS_BEFORE_PUNCTUATION.sub("", text)
    return _SEPARATORS.sub(" ", _TAGS.sub(" ", text)).strip()


def sentence_key(text: str) -> str:
    """A key that is equal for utterances of the same words: lower case, without punctuation.

    For finding repeated sentences across splits, not for scoring.
    """
    folded = unicodedata.normalize("NFC", clean_transcript(text)).casefold()
    return " ".join(
        "".join(c if c.isalnum() or unicodedata.category(c)[0] == "M" else " " for c in folded).split()
    )
