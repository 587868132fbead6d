"""Modified Kneser–Ney: counts and probabilities worked out by hand, and sums of one for every context."""

from __future__ import annotations

import gzip
import math
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.base.errors import UserError
from training.decoding.ngram.arpa import LN10, NgramModel, read_arpa, write_arpa
from training.decoding.ngram.counts import BOS, EOS, UNK, adjusted_counts, count_ngrams
from training.decoding.ngram.kneser_ney import NEVER, estimate

SENTENCES = [["a", "b", "a"], ["a", "b"], ["b"]]


def vocabulary(model: NgramModel) -> list[str]:
    """All that can come next."""
    return [word for (word,) in model.tables[0] if word != BOS]


def contexts(model: NgramModel) -> list[tuple[str, ...]]:
    """Every context that some n-gram has, and the empty one."""
    return [(), *{ngram[:-1] for table in model.tables[1:] for ngram in table}]


def total(model: NgramModel, context: tuple[str, ...]) -> float:
    """Sum of p(word | context) over the vocabulary."""
    return sum(math.exp(model.score(context, word)[0]) for word in vocabulary(model))


def test_counts_by_hand() -> None:
    raw, sentences = count_ngrams([*SENTENCES, [], ["<s>"]], 2)
    assert sentences == 3
    assert raw[0] == {(BOS,): 3, ("a",): 3, ("b",): 3, (EOS,): 3}
    assert raw[1] == {
        (BOS, "a"): 2,
        ("a", "b"): 2,
        ("b", "a"): 1,
        ("a", EOS): 1,
        ("b", EOS): 2,
        (BOS, "b"): 1,
    }
    unigrams, bigrams = adjusted_counts(raw)
    # Left of "a": <s>, b. Left of "b": a, <s>. Left of </s>: a, b.
    assert unigrams == {("a",): 2, ("b",): 2, (EOS,): 2}
    assert bigrams == raw[1]


def test_trigram_counts_that_start_a_sentence_stay_raw() -> None:
    raw, _ = count_ngrams([["a", "b"], ["a", "b"], ["c", "a", "b"]], 3)
    bigrams = adjusted_counts(raw)[1]
    assert bigrams[BOS, "a"] == 2  # raw: nothing stands to its left
    assert bigrams["a", "b"] == 2  # <s> and c
    assert bigrams["b", EOS] == 1  # only a


def test_probabilities_by_hand() -> None:
    """Too little text for own discounts: 0.5, 1, 1.5. Every figure below is worked out from the counts above."""
    found = estimate(SENTENCES, 2)
    assert [d.estimated for d in found.discounts] == [False, False]
    assert (found.sentences, found.words) == (3, 6)
    # Unigrams: counts 2, 2, 2 of 6; discount 1 each, so half is shared among a, b, </s>, <unk>.
    p = dict.fromkeys(("a", "b", EOS), 1 / 6 + 0.5 / 4) | {UNK: 0.5 / 4}
    model = found.model
    for word, value in p.items():
        assert math.exp(model.score((), word)[0]) == pytest.approx(value)
    # After <s>: a twice, b once, of 3; discounts 1 and 0.5, so 0.5 goes to the unigrams.
    assert math.exp(model.score((BOS,), "a")[0]) == pytest.approx((2 - 1) / 3 + 0.5 * p["a"])
    assert math.exp(model.score((BOS,), "b")[0]) == pytest.approx((1 - 0.5) / 3 + 0.5 * p["b"])
    assert math.exp(model.score((BOS,), EOS)[0]) == pytest.approx(0.5 * p[EOS])
    assert math.exp(model.score((BOS,), "never seen")[0]) == pytest.approx(0.5 * p[UNK])
    assert model.tables[0][BOS,] == (NEVER, pytest.approx(math.log10(0.5)))


def test_discounts_by_hand() -> None:
    """Counts of counts n1 = 4, n2 = 2, n3 = 1, n4 = 1: Y = 4 / (4 + 4); 1 − 2Y·2/4, 2 − 3Y·1/2, 3 − 4Y·1/1."""
    words = [w for word, n in zip("abcdefgh", (1, 1, 1, 1, 2, 2, 3, 4), strict=True) for w in [word] * n]
    found = estimate([words], 1)
    # </s> is counted too, once: n1 = 5, so Y = 5 / 9.
    y = 5 / 9
    expected = (1 - 2 * y * 2 / 5, 2 - 3 * y * 1 / 2, 3 - 4 * y * 1 / 1)
    assert found.discounts[0].estimated
    assert (found.discounts[0].once, found.discounts[0].twice, found.discounts[0].more) == pytest.approx(
        expected
    )


def corpus(sentences: int, seed: int, words: int = 40) -> list[list[str]]:
    """Sentences whose words follow Zipf's law, as real ones do."""
    rng = random.Random(seed)
    names = [f"w{i}" for i in range(words)]
    weights = [1 / (i + 1) for i in range(words)]
    return [rng.choices(names, weights, k=rng.randint(1, 9)) for _ in range(sentences)]


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_sums_to_one_for_every_seen_context(order: int) -> None:
    found = estimate(corpus(150, seed=order, words=200), order)
    assert any(discounts.estimated for discounts in found.discounts)
    for context in contexts(found.model):
        assert total(found.model, context) == pytest.approx(1.0, abs=1e-9), context


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abcde"), min_size=1, max_size=6), min_size=1, max_size=12),
    st.integers(1, 4),
)
def test_sums_to_one_for_any_text(sentences: list[list[str]], order: int) -> None:
    model = estimate(sentences, order).model
    for context in contexts(model):
        assert total(model, context) == pytest.approx(1.0, abs=1e-9), context
    assert total(model, ("zzz",)) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("name", ["lm.arpa", "lm.arpa.gz"])
def test_arpa_file_keeps_the_model(tmp_path: Path, name: str) -> None:
    model = estimate(corpus(60, seed=5), 3).model
    path = tmp_path / name
    write_arpa(model, path)
    again = read_arpa(path)
    assert again.order == 3
    assert [table.keys() for table in again.tables] == [table.keys() for table in model.tables]
    for words in corpus(20, seed=6, words=50):
        assert again.sentence(words) == pytest.approx(model.sentence(words), abs=1e-4)
    text = (gzip.decompress(path.read_bytes()) if name.endswith("gz") else path.read_bytes()).decode()
    assert text.startswith("\\data\\\nngram 1=")
    assert text.endswith("\\end\\\n")
    assert not list(tmp_path.glob("*.part"))


def test_states_are_as_long_as_they_matter() -> None:
    model = estimate([["a", "b", "c"], ["b", "c", "a"]], 3).model
    _, state = model.score(model.start, "a")
    assert state == (BOS, "a")
    _, state = model.score(state, "b")
    assert state == ("a", "b")
    _, state = model.score(state, "what")
    assert state == (UNK,)


def test_known_text_is_likelier_than_unknown() -> None:
    model = estimate(corpus(200, seed=1), 3).model
    held_out = corpus(50, seed=2)
    shuffled = [[f"w{random.Random(n).randrange(40)}" for _ in words] for n, words in enumerate(held_out)]
    assert model.perplexity(held_out) < model.perplexity(shuffled)
    assert estimate(corpus(200, seed=1), 1).model.perplexity(held_out) < 60


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text.replace("ngram 2=", "ngram 2=9"), "incomplete"),
        (lambda text: text.replace("\\end\\", ""), "incomplete"),
        (lambda text: text[: len(text) // 2], r"lm\.arpa"),
        (lambda text: text.replace("\\1-grams:\n", "\\1-grams:\nabc\tdef\n"), r"lm\.arpa:6"),
        (lambda text: "hello\n", "no n-grams"),
        (lambda text: "", "no n-grams"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, damage: object, message: str) -> None:
    path = tmp_path / "lm.arpa"
    write_arpa(estimate(SENTENCES, 2).model, path)
    path.write_text(damage(path.read_text()))  # type: ignore[operator]
    with pytest.raises(UserError, match=message):
        read_arpa(path)


def test_no_text_no_model() -> None:
    with pytest.raises(UserError, match="no words"):
        estimate([[], ["<s>"]], 3)


def test_closed_vocabularies_of_other_tools_are_read(tmp_path: Path) -> None:
    path = tmp_path / "closed.arpa"
    path.write_text(
        "made by hand\n\n\\data\\\nngram 1=3\nngram 2=1\n\n\\1-grams:\n-99\t<s>\t-0.1\n-0.5\ta\t-0.2\n-0.3\t</s>\n\n"
        "\\2-grams:\n-0.1\t<s> a\n\n\\end\\\n"
    )
    model = read_arpa(path)
    assert model.score((BOS,), "a")[0] == pytest.approx(-0.1 * LN10)
    assert model.score(("a",), EOS)[0] == pytest.approx((-0.2 - 0.3) * LN10)
    assert model.score((BOS,), "q")[0] < -2 * LN10
