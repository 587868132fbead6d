"""Tags the language of each word. A tagger for Vietnamese–English text that needs no gold tags.

A written Vietnamese word is one syllable, and nearly all syllables follow one orthographic grammar: an
initial, a rime from a closed list, one tone, with rules on which may stand together (stops take only the
acute or the dot below; k, gh and ngh stand before front vowels only). What does not parse and is plain Latin
is English here. What parses and carries a Vietnamese mark is Vietnamese. The rest ("the", "can", "hot" does
not parse, "to" does) is decided by its neighbours: the cheapest sequence of tags, where a change of language
costs something (Viterbi). The short word lists below are all the vocabulary it knows.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache

VIETNAMESE, ENGLISH, OTHER = "vi", "en", "other"
DESCRIPTION = (
    "Vietnamese syllable grammar, short lists of ambiguous words, and a cost of 1 for each change of language"
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ONSETS = (
    "ngh", "ch", "gh", "gi", "kh", "ng", "nh", "ph", "qu", "th", "tr",
    "b", "c", "d", "đ", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "x", "",
)  # fmt: skip
_RIMES = _words(
    """
    a ac ach ai am an ang anh ao ap at au ay ăc ăm ăn ăng ăp ăt âc âm ân âng âp ât âu ây
    e ec em en eng eo ep et ê êch êm ên ênh êp êt êu
    i ia ich im in inh ip it iu iêc iêm iên iêng iêp iêt iêu yêm yên yêng yêt yêu
    o oc oi om on ong op ot oong ooc oa oac oach oai oam oan oang oanh oao oap oat oay oăc oăm oăn oăng oăt
    oe oen oeo oet ô ôc ôi ôm ôn ông ôp ôt ơ ơi ơm ơn ơp ơt
    u ua uc ui um un ung up ut uân uâng uât uây uê uêch uênh uơ uôc uôi uôm uôn uông uôt
    uy uya uych uyn uynh uyt uyp uyu uyên uyêt
    ư ưa ưc ưi ưm ưng ưt ưu ươc ươi ươm ươn ương ươp ươt ươu y
    """
)
_AFTER_QU = _words(
    """
    a ac ach ai an ang anh ao ap at au ay ăc ăm ăn ăng ăp ăt ân âng ât ây e en eng eo et ê ên ênh êt êch
    i it inh y ynh yt ych yên yêt ơ ôc
    """
)
_Y_AFTER = frozenset(("", "h", "k", "l", "m", "s", "t", "v"))
_FRONT = ("i", "e", "ê", "y")
_TONES = {"\u0300": "grave", "\u0301": "acute", "\u0309": "hook", "\u0303": "tilde", "\u0323": "dot"}

# Syllables that are words of both languages: the neighbours decide.
_BOTH = _words(
    """
    a an ban be can den do ham hang hi ho in lo long ma man may me my no on pa pin ran sang say sin so son
    ta tan ten than tin to tram van
    """
)
# Syllables that parse but are far more often English in mixed speech.
_ENGLISH_WORDS = _words(
    """
    am bun day don gum gun he hen him hum i men mom pan pay pen ray run sen sum sun the them then thin ton u
    """
)

_CERTAIN, _LIKELY, _WEAK, _SWITCH = 4.0, 1.5, 0.5, 1.0


def tag_words(words: Sequence[str]) -> tuple[str, ...]:
    """``vi``, ``en`` or ``other`` (another script) for each word; numbers go with their neighbours."""
    leanings = [_leaning(word) for word in words]
    latin = [index for index, leaning in enumerate(leanings) if leaning is not None]
    tags = [OTHER] * len(words)
    for index, tag in zip(latin, _cheapest([leanings[index] or 0.0 for index in latin]), strict=True):
        tags[index] = tag
    return tuple(tags)


def is_vietnamese_syllable(word: str) -> bool:
    """Does the word follow the orthographic grammar of one Vietnamese syllable (any case, NFC or NFD)?"""
    plain, tone = _split_tone(word)
    return plain is not None and any(
        _fits(onset, plain[len(onset) :], tone) for onset in _ONSETS if plain.startswith(onset)
    )


def accuracy(tagged: Iterable[tuple[Sequence[str], Sequence[str]]]) -> dict[str, float | int | None]:
    """The tagger against gold tags: pairs of (words of an utterance, their gold tags), in percent.

    Words tagged ``other`` in gold (numbers, fillers) do not count. Tagging sees the whole utterance.
    """
    found: list[tuple[str, str]] = []
    for words, gold in tagged:
        assert len(words) == len(gold), "one gold tag per word"
        found += [
            pair for pair in zip(tag_words(words), gold, strict=True) if pair[1] in (VIETNAMESE, ENGLISH)
        ]
    right = sum(ours == gold for ours, gold in found)
    both = sum(ours == gold == ENGLISH for ours, gold in found)
    return {
        "words": len(found),
        "accuracy": _share(right, len(found)),
        "english_recall": _share(both, sum(gold == ENGLISH for _, gold in found)),
        "english_precision": _share(both, sum(ours == ENGLISH for ours, _ in found)),
    }


def _share(part: int, whole: int) -> float | None:
    return 100.0 * part / whole if whole else None


def _split_tone(word: str) -> tuple[str | None, str]:
    """The word without its tone mark (NFC) and the tone's name; None where there is more than one."""
    letters = unicodedata.normalize("NFD", word.casefold())
    tones = [_TONES[letter] for letter in letters if letter in _TONES]
    bare = "".join(letter for letter in letters if letter not in _TONES)
    if len(tones) > 1:
        return None, ""
    return unicodedata.normalize("NFC", bare), (tones[0] if tones else "level")


def _fits(onset: str, rime: str, tone: str) -> bool:
    if not _rime_follows(onset, rime):
        return False
    stopped = rime.endswith(("c", "ch", "p", "t"))
    return not stopped or tone in ("acute", "dot")


def _rime_follows(onset: str, rime: str) -> bool:
    if onset == "qu":
        return rime in _AFTER_QU
    if rime not in _RIMES:
        return False
    if rime == "y":
        return onset in _Y_AFTER
    if rime.startswith("yê"):
        return onset == ""
    front = rime.startswith(_FRONT)
    if onset in ("k", "gh", "ngh"):
        return front
    if onset in ("c", "ng"):
        return not front
    return onset != "g" or not front or rime.startswith("i")  # "gì", "giêng": gi and i share a letter


@lru_cache(maxsize=65536)
def _leaning(word: str) -> float | None:
    """Evidence of the word alone for Vietnamese (positive) or English (negative); None for another script."""
    text = unicodedata.normalize("NFC", word.casefold())
    letters = [letter for letter in text if letter.isalpha()]
    if not letters:
        return 0.0
    if not all("LATIN" in unicodedata.name(letter, "") for letter in letters):
        return None
    bare = "".join(letters)
    marked = not bare.isascii()
    if is_vietnamese_syllable(bare):
        return _CERTAIN if marked else _unmarked(bare)
    return _WEAK if marked else -_CERTAIN


def _unmarked(bare: str) -> float:
    if bare in _ENGLISH_WORDS:
        return -_WEAK
    if bare in _BOTH:
        return 0.0
    return _LIKELY


def _cheapest(leanings: Sequence[float]) -> list[str]:
    """Viterbi over two tags: the word's leaning is gained or lost, a change costs `_SWITCH`."""
    if not leanings:
        return []
    best = {VIETNAMESE: leanings[0], ENGLISH: -leanings[0]}
    came_from: list[dict[str, str]] = []
    for leaning in leanings[1:]:
        step, scores = {}, {}
        for tag, sign in ((VIETNAMESE, 1.0), (ENGLISH, -1.0)):
            other = ENGLISH if tag == VIETNAMESE else VIETNAMESE
            step[tag] = tag if best[tag] >= best[other] - _SWITCH else other
            scores[tag] = max(best[tag], best[other] - _SWITCH) + sign * leaning
        best = scores
        came_from.append(step)
    tag = VIETNAMESE if best[VIETNAMESE] >= best[ENGLISH] else ENGLISH
    tags = [tag]
    for step in reversed(came_from):
        tag = step[tag]
        tags.append(tag)
    return tags[::-1]
