"""The CTC head's characters and its loss, against all alignments counted one by one."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.models.common.ctc import check_feasible, ctc_loss, frames_needed, head_characters
from training.models.common.ctc_characters import CtcCharacters


def collapse(path: tuple[int, ...]) -> list[int]:
    """A path of frame labels without repeats and blanks."""
    return [label for i, label in enumerate(path) if label and (i == 0 or label != path[i - 1])]


def by_counting(logits: torch.Tensor, targets: list[int]) -> float:
    """-log of the summed probability of every path that collapses to the targets."""
    probabilities = logits.softmax(-1)
    frames, labels = probabilities.shape
    total = 0.0
    for path in itertools.product(range(labels), repeat=frames):
        if collapse(path) == targets:
            total += math.prod(probabilities[i, label].item() for i, label in enumerate(path))
    return -math.log(total)


@pytest.mark.parametrize("targets", [[1], [1, 2], [1, 1], [2, 1, 2]])
def test_loss_is_that_of_all_alignments(targets):
    torch.manual_seed(0)
    logits = torch.randn(1, 4, 3)
    loss = ctc_loss(logits, torch.tensor([4]), torch.tensor([targets]))
    assert loss.item() == pytest.approx(by_counting(logits[0], targets), rel=1e-5)


def test_padding_frames_and_rows_without_a_transcript_add_nothing():
    torch.manual_seed(0)
    logits = torch.randn(2, 6, 3)
    alone = ctc_loss(logits[:1, :4], torch.tensor([4]), torch.tensor([[1, 2]]))
    both = ctc_loss(logits, torch.tensor([4, 6]), torch.tensor([[1, 2, -100], [-100, -100, -100]]))
    assert both.item() == pytest.approx(alone.item(), rel=1e-6)


# Trap 9.
def test_what_cannot_be_aligned_is_told_before_training():
    assert frames_needed([1, 1, 2]) == 4
    check_feasible(4, [1, 1, 2])
    with pytest.raises(ValueError, match="needs 4 frames"):
        check_feasible(3, [1, 1, 2])


# Trap 15.
def test_characters_keep_english_letters_and_vietnamese_tones():
    characters = CtcCharacters.of(["Fix jazz with Zalo!", "mà má mả mã mạ"])
    assert set("fjwzàáảãạ") <= set(characters.characters)
    assert len(set(map(tuple, map(characters.encode, ["ma", "mà", "má", "mả", "mã", "mạ"])))) == 6


@given(st.text(max_size=40))
def test_audible_text_is_stable_and_has_single_spaces(text):
    once = CtcCharacters.audible(text)
    assert CtcCharacters.audible(once) == once
    assert "  " not in once and once == once.strip()


def test_blank_is_no_character_and_a_checkpoint_keeps_its_own():
    characters = CtcCharacters.of(["Ba, bà."])
    assert characters.characters == " abà"
    assert characters.encode("BÀ ba?") == [3, 4, 1, 3, 2]
    assert len(characters) == 5
    rows = [("transcribe", "vi", "xyz"), ("translate", "vi", "q")]
    assert head_characters(1.0, None, lambda: rows) == "xyz"
    assert head_characters(1.0, {"ctc_characters": " ab"}, lambda: rows) == " ab"
    assert head_characters(0.0, {"ctc_characters": " ab"}, lambda: rows) == ""
