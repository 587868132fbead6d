from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from e2e_tiny import TRANSCRIPTS, batch, clip, example, tiny
from hypothesis import given
from hypothesis import strategies as st
from transformers import Wav2Vec2Config, Wav2Vec2Model

from training.models.architecture import Architecture
from training.models.common.ctc import check_feasible, ctc_loss, frames_needed
from training.models.common.targets import IGNORED
from training.models.e2e.collator import E2EEncode, Frames
from training.models.e2e.tokenizer import text_ids, token_id


@pytest.fixture(scope="module")
def architecture() -> Architecture:
    return tiny(ctc_weight=0.3)


def ids(architecture: Architecture, *tokens: str) -> list[int]:
    return [token_id(architecture.processor.tokenizer, token) for token in tokens]


# Trap 3.
def test_and_04_whole_label_and_input_tensors(architecture: Architecture) -> None:
    """Prompt in the input, never in the labels; the first text token supervised; EOS supervised."""
    made = batch(architecture, (1.0, 1.0))
    eos, pad = ids(architecture, "</s>", "<pad>")
    longest = made["labels"].shape[-1]
    for row in range(2):
        texts = example(row).texts
        for column, (task, token) in enumerate(
            (("transcribe", "<2transcribe>"), ("translate", "<2translate>"))
        ):
            text = text_ids(architecture.processor.tokenizer, texts[task])
            inputs = [eos, *ids(architecture, "vi_VN", token), *text]
            labels = [IGNORED, IGNORED, *text, eos]
            assert len(inputs) == len(labels)
            assert made["decoder_input_ids"][row, column].tolist() == inputs + [pad] * (longest - len(inputs))
            assert made["labels"][row, column].tolist() == labels + [IGNORED] * (longest - len(labels))
    assert made["prompt_length"] == 3


def test_each_row_is_prompted_in_its_own_languages(architecture: Architecture) -> None:
    encoded = architecture.encode(example(0, language="en", target_language="fr_XX"), clip())
    assert encoded["labels"]["transcribe"][:2] == ids(architecture, "en_XX", "<2transcribe>")
    assert encoded["labels"]["translate"][:2] == ids(architecture, "fr_XX", "<2translate>")


def test_a_row_without_texts_can_still_be_generated(architecture: Architecture) -> None:
    made = architecture.collate([architecture.encode(example(0, texts={}), clip())])
    eos, *prompt = ids(architecture, "</s>", "vi_VN", "<2translate>")
    assert made["decoder_input_ids"][0, 1, : made["prompt_length"]].tolist() == [eos, *prompt]
    assert (made["labels"] == IGNORED).all()
    assert made["ctc_labels"].shape == (1, 0)


def test_waveforms_are_padded_with_zeros_and_their_lengths_kept(architecture: Architecture) -> None:
    made = batch(architecture, (0.75, 1.0))
    assert made["input_values"].shape == made["attention_mask"].shape == (2, 16_000)
    assert made["attention_mask"].sum(dim=1).tolist() == [12_000, 16_000]
    assert not made["input_values"][0, 12_000:].any()
    np.testing.assert_allclose(
        made["input_values"][0, :12_000], architecture.encode(example(0), clip(0, 0.75))["input_values"]
    )
    assert made["ids"] == ["u0", "u1"]
    assert made["seconds"] == pytest.approx(1.75)


@pytest.mark.parametrize("norm", ["layer", "group"])
def test_a_clip_is_normalised_on_its_own(norm: str) -> None:
    architecture = tiny({"feat_extract_norm": norm})
    values = architecture.encode(example(), 7 * clip() + 1)["input_values"]
    assert abs(values.mean()) < 1e-5
    assert values.std() == pytest.approx(1.0, abs=1e-3)


# Trap 9.
def test_a_transcript_that_ctc_cannot_align_is_refused(architecture: Architecture) -> None:
    with pytest.raises(ValueError, match="CTC cannot align"):
        architecture.encode(example(2), clip(2, 0.2))
    assert tiny().encode(example(2), clip(2, 0.2))["labels"]


# Trap 6.
def test_too_many_label_tokens_are_refused_with_the_count(architecture: Architecture) -> None:
    long = example(texts={"transcribe": "em " * 80})
    with pytest.raises(ValueError, match=r"transcribe: \d+ label tokens, at most 64"):
        architecture.encode(long, clip(0, 9.0))


def test_a_clip_shorter_than_a_frame_is_refused(architecture: Architecture) -> None:
    with pytest.raises(ValueError, match="100 samples of audio, one frame takes"):
        architecture.encode(example(), np.zeros(100, dtype=np.float32))


def test_a_language_without_a_token_is_refused(architecture: Architecture) -> None:
    with pytest.raises(ValueError, match="'xyz' has no token"):
        architecture.encode(example(language="xyz"), clip())


def test_what_the_tokenizer_cannot_write_is_counted(architecture: Architecture) -> None:
    assert architecture.encode(example(), clip())["unknown"] == 0
    unknown = example(texts={"transcribe": "em 火 em 你", "translate": "em"})
    assert architecture.encode(unknown, clip())["unknown"] == 2
    assert architecture.encode.unwritable(unknown) == 2


def test_the_check_before_training_refuses_what_encoding_refuses(
    architecture: Architecture, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = example(texts={"transcribe": "em " * 80})
    cases = [(example(), 1.0), (example(), 0.005), (example(language="xyz"), 1.0), (long, 1.0)]
    encoded = [problem_of(architecture.encode, row, clip(seconds=seconds)) for row, seconds in cases]
    monkeypatch.setattr(E2EEncode, "values", lambda *args: pytest.fail("the check needs no sound"))
    checked = [problem_of(architecture.encode.check, row, seconds) for row, seconds in cases]
    assert checked == encoded
    assert [bool(problem) for problem in encoded] == [False, True, True, True]


def problem_of(act: Callable[..., Any], *arguments: Any) -> str | None:
    try:
        act(*arguments)
    except ValueError as error:
        return str(error)
    return None


def test_encode_and_collate_travel_to_spawned_workers(architecture: Architecture) -> None:
    encode, collate = pickle.loads(pickle.dumps((architecture.encode, architecture.collate)))
    row = encode(example(), clip())
    assert torch.equal(collate([row])["labels"], batch(architecture, (1.0,))["labels"])
    assert architecture.text(row["labels"]["transcribe"]) == TRANSCRIPTS[0]


LAYERS = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 6)), min_size=1, max_size=5)


@given(layers=LAYERS, samples=st.integers(1, 5_000))
def test_frames_are_counted_as_the_encoder_counts_them(layers: list[tuple[int, int]], samples: int) -> None:
    frames = Frames(tuple(layers))
    kernels, strides = zip(*layers, strict=True)
    config = Wav2Vec2Config(conv_dim=[4] * len(layers), conv_kernel=list(kernels), conv_stride=list(strides))
    stock = Wav2Vec2Model._get_feat_extract_output_lengths
    holder = type("Encoder", (), {"config": config})()
    if frames.of(samples):
        assert frames.of(samples) == int(stock(holder, torch.tensor(samples)))
        shortest = frames.samples(frames.of(samples))
        assert shortest <= samples
        assert frames.of(shortest) == frames.of(samples) != frames.of(shortest - 1)
    else:
        assert samples < frames.samples(1)


def test_ctc_needs_a_blank_between_equal_tokens() -> None:
    assert frames_needed([5, 5, 7, 7, 7]) == 8
    check_feasible(8, [5, 5, 7, 7, 7])
    with pytest.raises(ValueError, match="needs 8 frames"):
        check_feasible(7, [5, 5, 7, 7, 7])


@given(targets=st.lists(st.integers(1, 3), min_size=1, max_size=6), spare=st.integers(-2, 1))
def test_feasible_is_what_the_loss_finds_finite(targets: list[int], spare: int) -> None:
    frames = max(1, frames_needed(targets) + spare)
    loss = ctc_loss(torch.zeros(1, frames, 4), torch.tensor([frames]), torch.tensor([targets]), blank=0)
    assert bool(loss.isfinite()) == (frames >= frames_needed(targets))


def test_ctc_sums_rows_and_leaves_out_rows_without_a_transcript() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 9, 6, requires_grad=True)
    lengths = torch.tensor([9, 5, 7])
    targets = torch.tensor([[2, 2, 3], [4, IGNORED, IGNORED], [IGNORED] * 3])
    total = ctc_loss(logits, lengths, targets, blank=1)
    alone = ctc_loss(logits[:1], lengths[:1], targets[:1], blank=1) + ctc_loss(
        logits[1:2, :5], lengths[1:2], targets[1:2, :1], blank=1
    )
    torch.testing.assert_close(total, alone)
    total.backward()
    assert not logits.grad[2].any()
    assert not logits.grad[1, 5:].any()
    nothing = ctc_loss(logits, lengths, targets[:, :0], blank=1)
    assert nothing.item() == 0
    assert nothing.requires_grad
