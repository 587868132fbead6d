"""The aligner: what a row gives alone and in a batch, its loss by hand, and that it learns where words are."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spoken_phones import (
    PHONES,
    Language,
    aligner,
    errors,
    loss_of,
    point,
    train,
)

from training.models.common.ctc import ctc_loss
from training.models.common.targets import IGNORED
from training.models.voxlm.aligner import AlignerOutput, alignment_loss, soft_targets


@pytest.fixture
def spoken():
    return Language(seed=3).speak(5)


@pytest.mark.parametrize("layers", [0, 2])
def test_a_row_gives_the_same_alone_and_in_a_batch(spoken, layers):
    """Whatever stands in the padding of frames and words."""
    model = aligner(layers=layers).eval()
    dirty = spoken._replace(frames=spoken.frames.clone(), words=spoken.words.clone())
    for i in range(len(spoken.frames)):
        dirty.frames[i, spoken.frame_lengths[i] :] = 100.0
        dirty.words[i, spoken.word_lengths[i] :] = -100.0
    together = point(model, dirty)
    for i in range(len(spoken.frames)):
        row = spoken.row(i)
        alone, frames, words = point(model, row), row.frames.shape[1], row.words.shape[1]
        for name in ("start_logits", "end_logits"):
            logits = getattr(together, name)[i]
            torch.testing.assert_close(logits[:words, :frames], getattr(alone, name)[0], atol=1e-5, rtol=1e-4)
            assert (logits[:, frames:] == -math.inf).all()
        torch.testing.assert_close(together.ctc_logits[i, :frames], alone.ctc_logits[0], atol=1e-5, rtol=1e-4)


def test_shapes_and_a_row_without_words(spoken):
    """An empty text in a batch: no NaN anywhere, and the other rows' gradients stay finite."""
    spoken = spoken._replace(word_lengths=spoken.word_lengths.clone())
    spoken.word_lengths[1] = 0
    model = aligner()
    output = point(model, spoken)
    batch, frames, words = *spoken.frames.shape[:2], spoken.words.shape[1]
    assert output.start_logits.shape == output.end_logits.shape == (batch, words, frames)
    assert output.ctc_logits.shape == (batch, frames, PHONES + 1)
    assert not any(
        logits.isnan().any() for logits in (output.start_logits, output.end_logits, output.ctc_logits)
    )
    loss_of(output, spoken).backward()
    assert all(
        parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters()
    )


def test_frozen_parts_may_be_of_another_type(spoken):
    model = aligner().eval()
    half = spoken._replace(frames=spoken.frames.bfloat16(), words=spoken.words.bfloat16())
    assert point(model, half).start_logits.dtype == torch.float32


def test_every_parameter_belongs_to_a_layer_that_knows_how_to_initialise_itself():
    """A checkpoint without an aligner is loaded through the meta device, on which constants get lost."""
    model = aligner()
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        assert not own or hasattr(module, "reset_parameters") or hasattr(module, "_reset_parameters")
    assert not list(model.buffers())


positions = st.floats(-2.0, 12.0, width=32)


@settings(max_examples=40, deadline=None)
@given(st.lists(positions, min_size=1, max_size=3), st.integers(1, 9), st.floats(0.2, 1.0))
def test_the_mean_of_a_target_is_its_time(wanted, length, sharpness):
    rows = torch.tensor([wanted], dtype=torch.float64)
    targets = soft_targets(rows, torch.tensor([length]), 9, sharpness)
    assert targets.shape == (1, len(wanted), 9)
    torch.testing.assert_close(targets.sum(-1), torch.ones_like(rows))
    assert (targets >= 0).all() and (targets[..., length:] == 0).all()
    means = (targets * torch.arange(9)).sum(-1)
    inside = rows.clamp(0, length - 1)
    away_from_edges = (inside >= 1) & (inside <= length - 2)
    exact = away_from_edges if sharpness < 1 else torch.ones_like(away_from_edges)
    torch.testing.assert_close(means[exact], inside[exact])


def test_a_target_is_shared_by_the_two_frames_beside_it():
    row, length = torch.tensor([[2.25, 0.0]]), torch.tensor([6])
    assert soft_targets(row, length, 6).tolist() == [[[0, 0, 0.75, 0.25, 0, 0], [1, 0, 0, 0, 0, 0]]]
    torch.testing.assert_close(
        soft_targets(row, length, 6, 0.6),
        torch.tensor([[[0, 0.15, 0.5, 0.3, 0.05, 0], [0.8, 0.2, 0, 0, 0, 0]]]),
    )


def by_hand() -> tuple[AlignerOutput, dict[str, torch.Tensor]]:
    """Two clips of 4 and 3 frames; two words and one."""
    torch.manual_seed(1)
    start, end = torch.randn(2, 2, 2, 4)
    start[1, :, 3] = end[1, :, 3] = -math.inf
    output = AlignerOutput(start, end, torch.randn(2, 4, 6))
    times = {
        "starts": torch.tensor([[0.0, 0.05], [0.02, math.nan]]),
        "ends": torch.tensor([[0.04, 0.08], [0.06, 1e9]]),
        "frame_lengths": torch.tensor([4, 3]),
        "word_lengths": torch.tensor([2, 1]),
    }
    return output, times


def test_the_loss_is_the_sum_of_both_pointers_and_ctc():
    output, times = by_hand()
    labels = torch.tensor([[1, 2], [3, IGNORED]])
    loss = alignment_loss(
        output, **times, frame_seconds=0.02, ctc_labels=labels, alignment_weight=0.5, ctc_weight=0.25
    )
    start, end = (
        logits.log_softmax(-1) for logits in (output.start_logits, output.end_logits)
    )  # a start at 0.05 s is half way from frame 2 to 3; an end at 0.04 s is the end of frame 1
    pointers = -(
        start[0, 0, 0] + 0.5 * (start[0, 1, 2] + start[0, 1, 3]) + start[1, 0, 1]
        + end[0, 0, 1] + end[0, 1, 3] + end[1, 0, 2]
    )  # fmt: skip
    characters = ctc_loss(output.ctc_logits, times["frame_lengths"], labels)
    torch.testing.assert_close(loss, 0.5 * pointers + 0.25 * characters)


def test_without_labels_there_are_the_pointers_alone():
    output, times = by_hand()
    both = alignment_loss(output, **times, frame_seconds=0.02)
    rows = [
        alignment_loss(
            AlignerOutput(output.start_logits[i : i + 1], output.end_logits[i : i + 1], output.ctc_logits),
            **{name: value[i : i + 1] for name, value in times.items()},
            frame_seconds=0.02,
        )
        for i in range(2)
    ]
    torch.testing.assert_close(both, sum(rows))
    none = {**times, "word_lengths": torch.tensor([0, 0])}
    assert alignment_loss(output, **none, frame_seconds=0.02).item() == 0.0


def test_it_learns_where_words_are():
    """Boundaries lie between frames, noise is on every frame, words come twice in a clip; unseen clips are scored."""
    language, model = Language(), aligner()
    spoken = language.speak(64)
    before = np.abs(errors(model, spoken)).mean()
    train(model, language, 100, clips=12)
    found = np.abs(errors(model, spoken))
    assert before > 5
    assert found[:, 0].mean() < 1.0 and (found[:, 0] < 1.0).mean() > 0.9
    assert found[:, 1].mean() < 1.0
