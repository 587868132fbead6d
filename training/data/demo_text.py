"""Sentences of the demo corpus: code-switched Vietnamese–English, with translation and word languages.

`corpus` draws from the patterns of ``training.data.demo_grammar``. It keeps every two sentences at least
two word edits apart, so that no split can put near copies on both sides, and prefers rare words, so that
each word of the vocabulary is heard in several contexts.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from training.data.demo_grammar import ENGLISH, MIXED, NAMED, PAIRS, SLOTS, VIETNAMESE
from training.data.demo_terms import NAMES, TERMS, lexicon
from training.errors import UserError

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
_CANDIDATES = 24
_DRAWS = 4000
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
        """What is said, without markup."""
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

    def marked(self, text: str) -> str:
        """``text`` (transcript or translation) with the markup that an annotator leaves in it."""
        if self.emphasis:
            text = re.sub(rf"\b{re.escape(self.emphasis)}\b", f"**{self.emphasis}**", text, count=1)
        if not self.note:
            return text
        return f"{self.note} {text}" if self.note_first else f"{text} {self.note}"


class NearDuplicates:
    """Finds texts within one word edit of a text seen before, by deletion neighbourhoods.

    Two word sequences at most one substitution, insertion or deletion apart always share a member of
    {itself, itself less one word}; some pairs two edits apart do as well and are refused too.
    Method: Garbe's symmetric delete (SymSpell), on words in place of letters.
    """

    def __init__(self) -> None:
        self._seen: set[tuple[str, ...]] = set()

    def near(self, text: str) -> bool:
        return any(key in self._seen for key in _neighbourhood(normalised_words(text)))

    def add(self, text: str) -> None:
        self._seen.update(_neighbourhood(normalised_words(text)))


def normalised_words(text: str) -> tuple[str, ...]:
    """Lower-case words without punctuation."""
    return tuple(_WORD.findall(text.lower()))


def corpus(count: int, seed: int = 42) -> list[Sentence]:
    """``count`` sentences, any two of them at least two word edits apart (transcripts, translations, cores).

    Every ten from the start hold the shares of `TENS`. Raises `UserError` where the grammar has no more.
    """
    rng = random.Random(seed)
    writer = _Writer(rng)
    kinds: list[str] = []
    while len(kinds) < count:
        for shares in TENS:
            ten = [kind for kind, share in shares.items() for _ in range(share)]
            rng.shuffle(ten)
            kinds += ten
    return [writer.write(kind, f"{number} of {count}") for number, kind in enumerate(kinds[:count], 1)]


class _Writer:
    """Draws sentences, remembering which are taken and how often each word was used."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._taken = NearDuplicates()
        self._words: Counter[str] = Counter()
        self._terms: Counter[str] = Counter()
        self._patterns: Counter[str] = Counter()

    def write(self, kind: str, which: str) -> Sentence:
        best = _annotate(max(self._candidates(kind, which), key=self._novelty), self._rng)
        for text in _texts(best):
            self._taken.add(text)
        self._words.update(normalised_words(best.transcript))
        self._terms.update(self._terms_of(best))
        self._patterns[best.pattern] += 1
        return best

    def _candidates(self, kind: str, which: str) -> list[Sentence]:
        found: list[Sentence] = []
        for _ in range(_DRAWS):
            sentence = _draw(kind, self._rng)
            if sentence is None or any(self._taken.near(text) for text in _texts(sentence)):
                continue
            found.append(sentence)
            if len(found) == _CANDIDATES:
                break
        if not found:
            raise UserError(
                f"the demo grammar has no further {kind} sentence two word edits from all others "
                f"(sentence {which}). Ask for fewer minutes."
            )
        return found

    def _novelty(self, sentence: Sentence) -> float:
        words = normalised_words(sentence.core)
        novelty = sum(1 / (1 + self._words[word]) for word in words) / len(words)
        novelty += 1 / (1 + self._patterns[sentence.pattern])
        terms = self._terms_of(sentence)
        if terms:
            novelty += 200 * sum((1 + self._terms[term]) ** -2 for term in terms) / len(terms)
        return novelty

    def _terms_of(self, sentence: Sentence) -> list[str]:
        if sentence.kind == "english":
            padded = f" {' '.join(normalised_words(sentence.transcript))} "
            return [term for term in _LEXICON if f" {term} " in padded]
        return [part.text.lower().strip(" ,.") for part in sentence.parts if part.language == "en"]


def _texts(sentence: Sentence) -> set[str]:
    return {sentence.transcript, sentence.translation, sentence.core, sentence.core_translation}


def _neighbourhood(words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    yield words
    for index in range(len(words)):
        yield words[:index] + words[index + 1 :]


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
