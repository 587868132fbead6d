"""The language that the letters of texts show: by script, and in Latin script by the letters beyond a to z.

Letters do not tell languages apart that share them: the answer is a default that is said, not a measurement. Alphabets:
Unicode CLDR's main exemplar characters (https://cldr.unicode.org), reduced to the letters that are not ASCII.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

MOST_TEXTS = 2_000
"""Texts that are looked at, the first ones."""
OTHER_SCRIPT = 0.2
"""Share of letters that are not Latin from which the text is taken for a language of that script."""
ACCENTED = 0.003
"""Share of letters beyond a to z from which a text in Latin script is taken for something else than English."""
SCRIPTS = {
    "HANGUL": "ko",
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "CJK": "zh",
    "THAI": "th",
    "LAO": "lo",
    "KHMER": "km",
    "MYANMAR": "my",
    "DEVANAGARI": "hi",
    "BENGALI": "bn",
    "TAMIL": "ta",
    "TELUGU": "te",
    "KANNADA": "kn",
    "MALAYALAM": "ml",
    "GUJARATI": "gu",
    "GURMUKHI": "pa",
    "SINHALA": "si",
    "GEORGIAN": "ka",
    "ARMENIAN": "hy",
    "HEBREW": "he",
    "GREEK": "el",
    "ETHIOPIC": "am",
    "TIBETAN": "bo",
    "ARABIC": "ar",
    "CYRILLIC": "ru",
}
"""Script, as Unicode names its letters → the language that is taken for it."""
WITHIN = {
    "ARABIC": {"fa": "پچژگ", "ur": "ٹڈڑے"},
    "CYRILLIC": {"uk": "іїєґ", "be": "ў", "sr": "јљњђћџ", "kk": "әғқңөұүһ", "mn": "өү"},
}
"""Script → languages that have letters which the script's first language lacks."""
LATIN = {
    "vi": "ăâđêôơưàảãáạằẳẵắặầẩẫấậèẻẽéẹềểễếệìỉĩíịòỏõóọồổỗốộờởỡớợùủũúụừửữứựỳỷỹýỵ",
    "fr": "àâæçéèêëîïôœùûüÿ",
    "de": "äöüß",
    "es": "áéíóúüñ",
    "pt": "áâãàçéêíóôõú",
    "it": "àèéìòù",
    "pl": "ąćęłńóśźż",
    "cs": "áčďéěíňóřšťúůýž",
    "sk": "áäčďéíĺľňóôŕšťúýž",
    "hu": "áéíóöőúüű",
    "ro": "ăâîșțşţ",
    "tr": "çğıöşü",
    "sv": "åäö",
    "da": "æøå",
    "fi": "äö",
    "et": "äõöüšž",
    "is": "áðéíóúýþæö",
    "lt": "ąčęėįšųūž",
    "lv": "āčēģīķļņšūž",
    "hr": "čćđšž",
    "ca": "àçéèíïóòúü",
}
"""Language in Latin script → its letters beyond a to z."""
LATIN_WITHOUT = ("en", "id", "ms", "sw", "nl", "tl", "jv", "so", "zu", "xh", "mg", "la", "eo")
"""Other languages that are written in Latin script."""


@dataclass(frozen=True)
class Letters:
    """What the letters show.

    Attributes:
        language: ISO 639 code.
        script: Unicode's name of the script: ``HANGUL``, ``LATIN``, …
        share: of all letters, how many are of this script.
        reason: in words, for a message.
    """

    language: str
    script: str
    share: float
    reason: str


def language_of(texts: Iterable[str]) -> Letters | None:
    """The language that the letters of the texts show; None where there are no letters."""
    counts: Counter[str] = Counter()
    for text in islice(texts, MOST_TEXTS):
        counts.update(unicodedata.normalize("NFC", text).lower())
    scripts: Counter[str] = Counter()
    for letter, number in counts.items():
        if script := script_of(letter):
            scripts[script] += number
    total = scripts.total()
    if not total:
        return None
    others = total - scripts["LATIN"]
    if others < OTHER_SCRIPT * total:
        return _latin(counts, scripts["LATIN"] / total)
    del scripts["LATIN"]
    if scripts["HIRAGANA"] + scripts["KATAKANA"]:
        script, language = "HIRAGANA", "ja"
    else:
        script = max(scripts, key=lambda name: scripts[name])
        language = _within(script, counts)
    return Letters(
        language, script, others / total, f"{100 * others / total:.0f} % of the letters are {script.title()}"
    )


def contradicts(language: str, letters: Letters) -> bool:
    """Whether the texts are certainly not in this language: it is written in another script, or without these letters."""
    scripts = scripts_of(language)
    if not scripts:
        return False
    if letters.script not in scripts:
        return True
    return letters.language == "vi" and language in ("en", *(set(LATIN) - {"vi"}))


def scripts_of(language: str) -> set[str]:
    """The scripts that a language is written in, as far as known here."""
    found = {script for script, code in SCRIPTS.items() if code == language}
    found |= {script for script, codes in WITHIN.items() if language in codes}
    if language in ("ja", "zh"):
        found |= {"CJK", "HIRAGANA", "KATAKANA"}
    return found | ({"LATIN"} if language in LATIN or language in LATIN_WITHOUT else set())


@lru_cache(maxsize=65_536)
def script_of(letter: str) -> str | None:
    """The script of one character, by its name in Unicode; None for what is no letter."""
    if not letter.isalpha():
        return None
    name = unicodedata.name(letter, "").partition(" ")[0]
    return name if name in SCRIPTS or name == "LATIN" else None


def _latin(counts: Counter[str], share: float) -> Letters:
    letters = {one: number for one, number in counts.items() if script_of(one) == "LATIN"}
    accented = {one: number for one, number in letters.items() if not one.isascii()}
    part = sum(accented.values()) / sum(letters.values())
    if part < ACCENTED:
        return Letters("en", "LATIN", share, "the letters are those of English, as of other languages too")
    covered = {
        language: sum(number for one, number in accented.items() if one in alphabet)
        for language, alphabet in LATIN.items()
    }
    language = max(covered, key=lambda name: (covered[name], -len(LATIN[name])))
    seen = "".join(sorted(accented, key=lambda one: -accented[one])[:6])
    return Letters(language, "LATIN", share, f"{100 * part:.0f} % of the letters are such as {seen}")


def _within(script: str, counts: Counter[str]) -> str:
    for language, letters in WITHIN.get(script, {}).items():
        if sum(counts[one] for one in letters):
            return language
    return SCRIPTS[script]
