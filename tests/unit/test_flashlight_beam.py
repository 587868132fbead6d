"""The compiled search beside the own one, where words are those of the language model."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from training.base.errors import UserError
from training.decoding.ctc_decoding import CtcDecoder
from training.decoding.ctc_setup import SearchOptions
from training.decoding.ctc_vocabulary import CtcVocabulary
from training.decoding.flashlight_beam import LexiconSearch, installed
from training.decoding.ngram.arpa import write_arpa
from training.decoding.ngram.kneser_ney import estimate
from training.decoding.prefix_beam import Pruning
from training.decoding.word_scores import Fusion
from training.models.abilities import CtcFrames

VOCABULARY = CtcVocabulary(("<blank>", *"abcde", " "))
WORDS = ("ab", "abba", "cab", "dad", "bed", "e", "decade", "added")
needs_extra = pytest.mark.skipif(not installed(), reason="flashlight-text is not installed")


def sentences(count: int, seed: int) -> list[list[str]]:
    rng = random.Random(seed)
    return [rng.choices(WORDS, range(1, 9), k=rng.randint(2, 5)) for _ in range(count)]


def noisy(text: str, seed: int, noise: float = 1.3) -> np.ndarray:
    """Frames that spell the text, each label twice and a blank, under noise that makes the best path err."""
    path = [i for letter in text for i in (VOCABULARY.tokens.index(letter),) * 2 + (0,)]
    logits = np.random.default_rng(seed).standard_normal((len(path), len(VOCABULARY.tokens))) * noise
    logits[np.arange(len(path)), path] += 3.0
    return (logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)).astype(np.float32)


@needs_extra
def test_both_searches_hear_the_same_where_words_are_known(tmp_path: Path) -> None:
    model = estimate(sentences(200, 0), 3).model
    write_arpa(model, tmp_path / "lm.arpa")
    pruning = Pruning(50)
    fast = LexiconSearch(tmp_path / "lm.arpa", VOCABULARY, pruning, 0.6, 1.0)
    theirs = CtcDecoder(VOCABULARY, 0.02, search=fast)
    ours = CtcDecoder(VOCABULARY, 0.02, pruning, Fusion(model, 0.6, 1.0, -1e6))
    plain = CtcDecoder(VOCABULARY, 0.02)
    texts = [" ".join(words) for words in sentences(40, 1)]
    frames = [noisy(text, seed) for seed, text in enumerate(texts)]
    said = [(theirs(one).text, ours(one).text, plain(one).text) for one in frames]
    same = sum(a == b for a, b, _ in said)
    right = [sum(row[k] == text for row, text in zip(said, texts, strict=True)) for k in range(3)]
    assert same >= 36, said
    assert min(right[0], right[1]) > right[2] + 10
    assert all(set(a.split()) <= set(WORDS) for a, _, _ in said)


@needs_extra
def test_words_have_times_and_confidence(tmp_path: Path) -> None:
    write_arpa(estimate(sentences(50, 0), 2).model, tmp_path / "lm.arpa")
    made = CtcFrames(
        tokens=VOCABULARY.tokens,
        blank=0,
        seconds_per_frame=0.02,
        log_probs=lambda model, batch, states=None: [],
    )

    class Model:
        frames = made

    options = SearchOptions(lm=tmp_path / "lm.arpa", search="flashlight")
    decoder = options.decoder(Model())  # type: ignore[arg-type]
    assert decoder is not None
    said = decoder(noisy("cab dad", 0, noise=0.2))
    assert [word.text for word in said.words] == ["cab", "dad"]
    assert said.words[1].start == pytest.approx(12 * 0.02)
    assert 0.5 < said.words[0].confidence <= 1.0
    assert decoder(np.zeros((0, 7), dtype=np.float32)).text == ""
    with pytest.raises(UserError, match="--lm"):
        SearchOptions(search="flashlight", beam_width=5).decoder(Model())  # type: ignore[arg-type]


def test_what_it_cannot_serve_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_arpa(estimate(sentences(50, 0), 2).model, tmp_path / "lm.arpa")
    pieces = CtcVocabulary(("<blank>", "▁a", "b"))
    if installed():
        with pytest.raises(UserError, match="vocabulary of characters"):
            LexiconSearch(tmp_path / "lm.arpa", pieces, Pruning(5), 0.5, 0.0)
    monkeypatch.setattr("training.decoding.flashlight_beam.installed", lambda: False)
    with pytest.raises(UserError, match=r"polyvox\[beam\]"):
        LexiconSearch(tmp_path / "lm.arpa", VOCABULARY, Pruning(5), 0.5, 0.0)
