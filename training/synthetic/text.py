"""Sentences of the demo corpus: code-switched Vietnamese–English, with translation and word languages.

`corpus` draws from the patterns of ``training.synthetic.grammar``. It keeps every two sentences at least
two word edits apart, so that no split can put near copies on both sides, and prefers rare words, so that
each word of the vocabulary occurs in several contexts.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, replace

from training.synthetic.grammar import ENGLISH, MIXED, NAMED, PAIRS, SLOTS, VIETNAMESE
from training.synthetic.terms import NAMES, TERMS, lexicon
from training.synthetic.writer import Writer, normalised_words

TENS: tuple[dict[str, int], ...] = (
    {"vietnamese": 7, "mixed": 2, "english": 1},
    {"vietnamese": 6, "mixed": 3, "named": 1},
)
"""Kinds of sentence in every ten, by turns. The translation changes the mixed and the English ones, three in
ten; the rest are Vietnamese only, or hold no English but a proper name."""

FILLERS = ("ờ", "à", "ừm")
_PARTICLES = {".": ("ạ", "đấy"), "~": ("nhé", "nhé", "nhé", "nha", "nha"), "?": ("ạ",), "!": ("ạ",)}
_PARTICLE_SHARE = {".": 0.15, "~": 0.9, "?": 0.1, "!": 0.0}
_FILLER_SHARE, _NOTE_SHARE, _EMPHASIS_SHARE = 0.12, 0.08, 0.05
_NOTES = ("[cười]", "[cười]", "[nhạc]")

_LEXICON = lexicon()
_MAY_REPEAT = frozenset({"vừa", "mười", "năm", "the"})
_SLOT = re.compile(r"\{([^{}]+)\}")
_TERM = re.compile("\x02([^\x03]*)\x03([^\x04]*)\x04")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Part:
    """A run of text in one language, and what the translation puts in its place."""

    text: str
    translation: str
    language: str


@dataclass(frozen=True, slots=True)
class Sentence:
    """One utterance as text.

    ``kind`` is a key of `TENS`. ``pattern`` is what the
    grammar made it from, ``core`` the sentence without fillers and particles. ``note`` is an
    annotation such as ``[cười]``, put before the text or after it; ``emphasis`` the word set in ``**``.
    """

    kind: str
    parts: tuple[Part, ...]
    pattern: str
    core: str
    core_translation: str
    note: str = ""
    note_first: bool = False
    emphasis: str = ""

    @property
    def transcript(self) -> str:
        """The spoken words, without markup."""
        return "".join(part.text for part in self.parts)

    @property
    def translation(self) -> str:
        """The transcript with its English in Vietnamese, without markup."""
        return "".join(part.translation for part in self.parts)

    @property
    def word_languages(self) -> tuple[str, ...]:
        """``vi`` or ``en`` for each whitespace-separated word of `transcript`."""
        return tuple(part.language for part in self.parts for _ in _WORD.findall(part.text))

    @property
    def changed(self) -> bool:
        return self.transcript != self.translation

    @property
    def texts(self) -> set[str]:
        return {self.transcript, self.translation, self.core, self.core_translation}

    def marked(self, text: str) -> str:
        """``text`` (transcript or translation) with the markup that an annotator leaves in it."""
        if self.emphasis:
            text = re.sub(rf"\b{re.escape(self.emphasis)}\b", f"**{self.emphasis}**", text, count=1)
        if not self.note:
            return text
        return f"{self.note} {text}" if self.note_first else f"{text} {self.note}"


def corpus(count: int, seed: int = 42) -> list[Sentence]:
    """``count`` sentences, any two of them at least two word edits apart (transcripts, translations, cores).

    Every ten from the start hold the shares of `TENS`. Raises `UserError` where the grammar has no more.
    """
    rng = random.Random(seed)
    writer = Writer(rng, _draw, _terms)
    kinds: list[str] = []
    while len(kinds) < count:
        for shares in TENS:
            ten = [kind for kind, share in shares.items() for _ in range(share)]
            rng.shuffle(ten)
            kinds += ten
    return [
        _annotate(writer.write(kind, f"{number} of {count}"), rng)
        for number, kind in enumerate(kinds[:count], 1)
    ]


def _terms(sentence: Sentence) -> list[str]:
    if sentence.kind == "english":
        padded = f" {' '.join(normalised_words(sentence.transcript))} "
        return [term for term in _LEXICON if f" {term} " in padded]
    return [part.text.lower().strip(" ,.") for part in sentence.parts if part.language == "en"]


def _draw(kind: str, rng: random.Random) -> Sentence | None:
    """One random sentence, or None where a word came out twice ("mẹ gặp mẹ")."""
    if kind == "english":
        sentence = _english(rng)
    else:
        patterns = {"vietnamese": VIETNAMESE, "mixed": MIXED, "named": NAMED}[kind]
        sentence = _mixed(kind, rng.choice(patterns), rng)
    words = [word for word in normalised_words(sentence.core) if word not in _MAY_REPEAT]
    if len(words) != len(set(words)):
        return None
    return sentence


def _mixed(kind: str, pattern: str, rng: random.Random) -> Sentence:
    mood, core = pattern[-1], _fill(pattern[:-1], rng)
    text = core
    if rng.random() < _PARTICLE_SHARE[mood]:
        text += f" {rng.choice(_PARTICLES[mood])}"
    if rng.random() < _FILLER_SHARE:
        text = f"{rng.choice(FILLERS)}, {text}"
    text += "." if mood == "~" else mood
    core_parts = _parts(core)
    return Sentence(
        kind,
        _sentence_case(_parts(text)),
        pattern,
        core="".join(part.text for part in core_parts),
        core_translation="".join(part.translation for part in core_parts),
    )


def _fill(pattern: str, rng: random.Random) -> str:
    """The pattern with its slots filled; English terms stand between control characters, see `_parts`."""
    while _SLOT.search(pattern):
        pattern = _SLOT.sub(lambda match: _filling(match.group(1), rng), pattern, count=1)
    return pattern


def _filling(slot: str, rng: random.Random) -> str:
    if slot.startswith("@="):
        return _term(slot[2:], _LEXICON[slot[2:]])
    if slot.startswith("@"):
        return _term(*rng.choice(list(TERMS[slot[1:]].items())))
    choice = rng.choice(SLOTS[slot])
    return _term(choice, choice) if choice in NAMES else choice


def _term(english: str, vietnamese: str) -> str:
    return f"\x02{english}\x03{vietnamese}\x04"


def _parts(text: str) -> list[Part]:
    parts: list[Part] = []
    end = 0
    for match in _TERM.finditer(text):
        between = text[end : match.start()]
        if between:
            parts.append(Part(between, between, "vi"))
        parts.append(Part(match.group(1), match.group(2), "en"))
        end = match.end()
    if text[end:]:
        parts.append(Part(text[end:], text[end:], "vi"))
    return parts


def _sentence_case(parts: list[Part]) -> tuple[Part, ...]:
    first = parts[0]
    return (replace(first, text=_capital(first.text), translation=_capital(first.translation)), *parts[1:])


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _english(rng: random.Random) -> Sentence:
    pattern, vietnamese = rng.choice(ENGLISH)
    english = pattern
    for slot in _SLOT.findall(english):
        source, target = rng.choice(list((TERMS.get(slot) or PAIRS[slot]).items()))
        english = english.replace(f"{{{slot}}}", source)
        vietnamese = vietnamese.replace(f"{{{slot}}}", target)
    part = Part(_capital(english), _capital(vietnamese), "en")
    return Sentence("english", (part,), pattern, core=part.text, core_translation=part.translation)


def _annotate(sentence: Sentence, rng: random.Random) -> Sentence:
    note = rng.choice(_NOTES) if rng.random() < _NOTE_SHARE else ""
    first = rng.random() < 0.5
    emphasis = ""
    if rng.random() < _EMPHASIS_SHARE:
        shared = set(_WORD.findall(sentence.translation))
        candidates = [word for word in _WORD.findall(sentence.transcript)[1:] if word in shared]
        emphasis = rng.choice(candidates) if candidates else ""
    return replace(sentence, note=note, note_first=first, emphasis=emphasis)
