"""Whether a model can spell the words of a language model or of a hot-word list, and whether another case mends it."""

from __future__ import annotations

import heapq
import math
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from training.base.errors import UserError
from training.data.spelling import audible
from training.decoding.ctc_vocabulary import CtcVocabulary
from training.decoding.ngram.arpa import NgramModel
from training.decoding.ngram.counts import SPECIAL, Ngram

LEAST_SHARE = 0.9
"""Smallest share of a language model's unigram probability that the model must be able to spell."""
EXAMPLES = 8
LETTERS_SHOWN = 60
Fold = Callable[[str], str]


def as_it_is(word: str) -> str:
    """The word."""
    return word


def nfc(word: str) -> str:
    """Letters and their marks as one character where Unicode has one."""
    return unicodedata.normalize("NFC", word)


def nfd(word: str) -> str:
    """Letters and their marks as characters of their own."""
    return unicodedata.normalize("NFD", word)


FOLDS: Mapping[str, Fold] = {
    "as it is": as_it_is,
    "NFC": nfc,
    "lower case": lambda word: nfc(word.lower()),
    "upper case": lambda word: nfc(word.upper()),
    "NFD": nfd,
    "lower case, NFD": lambda word: nfd(word.lower()),
    "upper case, NFD": lambda word: nfd(word.upper()),
}
"""Other ways to write a word, the least change first. Of two that serve equally the first is taken."""


@dataclass(frozen=True)
class Fit:
    """How the words of a language model are written for the search.

    fold: a key of `FOLDS`. share: of the unigram probability without markers that the model can spell, written so.
    spelled: each word of the language model that can be spelled, and how it is written. lost: examples of words
    that cannot, the likeliest first. notes: lines for the user.
    """

    fold: str
    share: float
    spelled: Mapping[str, str]
    lost: tuple[str, ...]
    notes: tuple[str, ...] = ()


def fit_language_model(
    model: NgramModel, vocabulary: CtcVocabulary, path: Path, *, accept: bool = False
) -> Fit:
    """Measure the language model of ``path`` against the vocabulary, folding case and composition where that mends it.

    Two words that would become one are never folded: their probabilities, back-off weights included, would be wrong.
    Raises `UserError` where the share is below `LEAST_SHARE` and ``accept`` does not say to go on all the same.
    """
    weights = _unigrams(model, path)
    plain = best = _fit(weights, vocabulary, "as it is")
    for name in FOLDS:
        if best.lost:
            best = max(best, _fit(weights, vocabulary, name), key=lambda one: one.share)
    twins = {} if best is plain else _twins(weights, FOLDS[best.fold])
    chosen = plain if twins else best
    if chosen.share < LEAST_SHARE and not accept:
        raise UserError(_refusal(path, chosen, vocabulary, best, twins))
    notes = _notes(path, plain, chosen, best, twins)
    return Fit(chosen.fold, chosen.share, chosen.spelled, chosen.lost, notes)


def folded(model: NgramModel, fit: Fit) -> NgramModel:
    """The language model with its words written as ``fit`` says; no two of them become one."""
    if FOLDS[fit.fold] is as_it_is:
        return model
    fold = FOLDS[fit.fold]
    written = {word: fold(word) for word in model.words()}

    def renamed(ngram: Ngram) -> Ngram:
        return tuple(written.get(word, word) for word in ngram)

    return NgramModel([{renamed(ngram): value for ngram, value in table.items()} for table in model.tables])


def fit_hot_words(
    weights: Mapping[str, float], vocabulary: CtcVocabulary, *, accept: bool = False
) -> tuple[dict[str, float], tuple[str, ...]]:
    """The hot words as the model spells them, with their weights, and lines for the user about what was changed.

    Beside the ways of `FOLDS` a word may lose its punctuation, which no transcript of a CTC model has.
    Raises `UserError` for one that the model cannot spell (unless ``accept``), and for two that become one with
    different weights.
    """
    written = {phrase: _writable(phrase, vocabulary) for phrase in weights}
    if (lost := [phrase for phrase, form in written.items() if form is None]) and not accept:
        raise UserError(_unspelled(lost, vocabulary))
    found: dict[str, float] = {}
    origin: dict[str, str] = {}
    for phrase, weight in weights.items():
        form = written[phrase] or phrase
        if found.get(form, weight) != weight:
            raise UserError(
                f"--hot_words: {origin[form]!r} and {phrase!r} are both written {form!r} by this model, with "
                "different weights; leave one of them out"
            )
        found[form], origin[form] = weight, phrase
    return found, _hot_notes(written, lost)


def _hot_notes(written: Mapping[str, str | None], lost: Sequence[str]) -> tuple[str, ...]:
    changed = [f"{phrase!r} as {form!r}" for phrase, form in written.items() if form not in (None, phrase)]
    notes = [f"--hot_words: cannot be spelled by this model, so never found: {_listed(lost)}"] if lost else []
    if changed:
        more = f" and {len(changed) - EXAMPLES} more" if len(changed) > EXAMPLES else ""
        notes.append(
            f"--hot_words: looked for as this model writes them: {', '.join(changed[:EXAMPLES])}{more}"
        )
    return tuple(notes)


def _unigrams(model: NgramModel, path: Path) -> dict[str, float]:
    """Probability of each word, markers left out."""
    weights = {word: 10.0 ** value[0] for (word,), value in model.tables[0].items() if word not in SPECIAL}
    if not math.fsum(weights.values()) > 0:
        raise UserError(f"--lm {path}: has no words; write it anew with polyvox lm train")
    return weights


def _fit(weights: Mapping[str, float], vocabulary: CtcVocabulary, name: str) -> Fit:
    fold = FOLDS[name]
    written = {word: fold(word) for word in weights}
    spelled = {word: form for word, form in written.items() if vocabulary.spells(form)}
    lost = heapq.nsmallest(EXAMPLES, weights.keys() - spelled.keys(), key=lambda word: (-weights[word], word))
    share = math.fsum(weights[word] for word in spelled) / math.fsum(weights.values())
    return Fit(name, 1.0 if not lost else share, spelled, tuple(lost))


def _twins(words: Iterable[str], fold: Fold) -> dict[str, tuple[str, str]]:
    """Words that would become one: how it would be written, and two of those that are now."""
    first: dict[str, str] = {}
    twins: dict[str, tuple[str, str]] = {}
    for word in words:
        before = first.setdefault(fold(word), word)
        if before != word:
            twins.setdefault(fold(word), (before, word))
    return twins


def _notes(
    path: Path, plain: Fit, chosen: Fit, best: Fit, twins: Mapping[str, tuple[str, str]]
) -> tuple[str, ...]:
    notes = []
    if chosen is not plain:
        notes.append(
            f"--lm {path}: the words of the LM are read in {chosen.fold}, as this model writes: it can spell "
            f"{_percent(chosen.share)} of them so, {_percent(plain.share)} as they are (shares of probability)"
        )
    elif best.share > plain.share:
        notes.append(
            f"--lm {path}: the LM is not read in {best.fold}, although the model could spell {_percent(best.share)} so: {_pair(twins)}"
        )
    if chosen.lost:
        notes.append(
            f"--lm {path}: the model cannot spell {_percent(1 - chosen.share)} of the LM's words by probability, for example "
            f"{_listed(chosen.lost)}"
        )
    return tuple(notes)


def _refusal(
    path: Path, fit: Fit, vocabulary: CtcVocabulary, best: Fit, twins: Mapping[str, tuple[str, str]]
) -> str:
    lines = [
        f"--lm {path}: the model can spell {_percent(fit.share)} of the language model's words by probability; "
        f"{_percent(LEAST_SHARE)} are needed",
        f"  words of the language model: {_listed(fit.lost)}",
        f"  what the model spells with: {_letters(vocabulary)}",
    ]
    if twins and best.share > fit.share:
        lines.append(
            f"  in {best.fold} it could spell {_percent(best.share)}, but {_pair(twins)}; write the text in {best.fold} "
            "and estimate the language model anew"
        )
    lines.append(
        "  take a language model of text that is spelled like the transcripts (polyvox lm train --spelling audible "
        "writes it so), or go on all the same with --accept_lm"
    )
    return "\n".join(lines)


def _pair(twins: Mapping[str, tuple[str, str]]) -> str:
    one, other = next(iter(twins.values()))
    return f"{one!r} and {other!r} would become one word ({len(twins):,} such), and their n-grams cannot be added up"


def _writable(phrase: str, vocabulary: CtcVocabulary) -> str | None:
    """The phrase as the model spells it; None where it cannot."""
    for fold in (*FOLDS.values(), audible):
        words = fold(phrase).split()
        if words and all(map(vocabulary.spells, words)):
            return " ".join(words)
    return None


def _unspelled(lost: Sequence[str], vocabulary: CtcVocabulary) -> str:
    known = set("".join(vocabulary.letters))
    missing = sorted({c for phrase in lost for c in audible(phrase) or phrase if not c.isspace()} - known)
    why = f"it has no {_listed(missing)}" if missing else "its pieces do not add up to them"
    return (
        f"--hot_words: cannot be spelled by this model: {_listed(lost)}: {why}\n"
        f"  what the model spells with: {_letters(vocabulary)}\n"
        "  write them as the training transcripts do (numbers in words, for example), leave them out, or go on all the "
        "same with --accept_lm: they are never found then"
    )


def _letters(vocabulary: CtcVocabulary) -> str:
    there = sorted({letters for letters in vocabulary.letters if letters}, key=lambda one: (len(one), one))
    more = f" … ({len(there)} in all)" if len(there) > LETTERS_SHOWN else ""
    return " ".join(islice(there, LETTERS_SHOWN)) + more


def _listed(words: Sequence[str]) -> str:
    more = f" and {len(words) - EXAMPLES} more" if len(words) > EXAMPLES else ""
    return ", ".join(map(repr, words[:EXAMPLES])) + more


def _percent(share: float) -> str:
    """To a tenth, and never rounded up to a figure that the share does not reach."""
    return f"{math.floor(1000 * share + 1e-9) / 10:.1f} %"
