"""`token_loss` against torch's own cross entropy, in value, gradients, memory and under every regime of use."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from datetime import timedelta

import e2e_tiny
import pytest
import torch
import torch.nn.functional as F
import whisper_assets
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from training.models.batch import model_inputs
from training.models.common.losses import CHUNK_BYTES, token_loss
from training.models.common.targets import IGNORED


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def reference(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    bias: torch.Tensor | None = None,
    smoothing: float = 0.0,
) -> torch.Tensor:
    logits = (
        F.linear(hidden, weight, bias).float()
        if hidden.dtype != torch.float64
        else F.linear(hidden, weight, bias)
    )
    return F.cross_entropy(
        logits.flatten(0, -2),
        labels.flatten(),
        reduction="sum",
        label_smoothing=smoothing,
        ignore_index=IGNORED,
    )


def problem(
    seed: int,
    shape: tuple[int, ...],
    vocabulary: int,
    width: int,
    *,
    ignored: float = 0.3,
    dtype=torch.float32,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """hidden ``[*shape, width]``, weight, bias and labels with about that share ignored."""
    random = torch.Generator().manual_seed(seed)
    hidden = torch.randn(*shape, width, generator=random, dtype=dtype).requires_grad_()
    weight = (torch.randn(vocabulary, width, generator=random, dtype=dtype) * 0.3).requires_grad_()
    bias = torch.randn(vocabulary, generator=random, dtype=dtype).requires_grad_()
    labels = torch.randint(vocabulary, shape, generator=random)
    labels[torch.rand(shape, generator=random) < ignored] = IGNORED
    return hidden, weight, bias, labels


def gradients(loss: torch.Tensor, *tensors: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, tensors))


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    scale = b.abs().max().item()
    return (a - b).abs().max().item() / (scale or 1.0)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**16),
    shape=st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple),
    vocabulary=st.integers(2, 90),
    width=st.integers(1, 17),
    ignored=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    smoothing=st.sampled_from([0.0, 0.1, 0.9]),
    chunk=st.one_of(st.none(), st.integers(1, 40)),
    with_bias=st.booleans(),
)
def test_equals_cross_entropy(seed, shape, vocabulary, width, ignored, smoothing, chunk, with_bias):
    hidden, weight, bias, labels = problem(seed, shape, vocabulary, width, ignored=ignored)
    tensors = (hidden, weight, bias) if with_bias else (hidden, weight)
    used = bias if with_bias else None
    ours = token_loss(hidden, weight, labels, bias=used, smoothing=smoothing, chunk=chunk)
    theirs = reference(hidden, weight, labels, used, smoothing)
    assert ours.dtype is torch.float32 and ours.shape == ()
    assert relative(ours, theirs) < 1e-5
    # A gradient is a sum over positions whose terms may cancel: its rounding is judged by the terms.
    term = max(1.0, *(tensor.abs().max().item() for tensor in tensors))
    for a, b in zip(gradients(ours * 0.37, *tensors), gradients(theirs * 0.37, *tensors), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=3e-7 * term * labels.numel())


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("chunk", [1, 3, None])
def test_gradcheck(smoothing, chunk):
    hidden, weight, bias, labels = problem(1, (2, 4), 7, 3, dtype=torch.float64)

    def loss(hidden, weight, bias):
        return token_loss(hidden, weight, labels, bias=bias, smoothing=smoothing, chunk=chunk)

    assert loss(hidden, weight, bias).dtype is torch.float64
    assert torch.autograd.gradcheck(loss, (hidden, weight, bias))


class LargestTensor(TorchDispatchMode):
    """Elements of the largest tensor that any operation allocates (views of its inputs do not count).

    ``columns``: of those only whose last axis is as long as that.
    """

    def __init__(self, columns: int | None = None) -> None:
        super().__init__()
        self.columns = columns
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        known = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if torch.is_tensor(t)}
        for tensor in tree_leaves(out):
            if not torch.is_tensor(tensor) or self.columns not in (None, *tensor.shape[-1:]):
                continue
            if tensor.untyped_storage().data_ptr() not in known:
                self.elements = max(self.elements, tensor.numel())
        return out


# Trap 8.
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_smoothing_keeps_the_chunks_and_ignored_positions_cost_nothing(smoothing):
    tokens, vocabulary, width, chunk = 600, 2000, 4, 50
    hidden, weight, _, labels = problem(2, (tokens,), vocabulary, width, ignored=0.0)
    with LargestTensor() as seen:
        token_loss(hidden, weight, labels, smoothing=smoothing, chunk=chunk).backward()
    assert seen.elements == chunk * vocabulary
    labels[3:] = IGNORED
    with LargestTensor() as seen:
        token_loss(hidden, weight, labels, smoothing=smoothing).backward()
    assert seen.elements == max(3 * vocabulary, weight.numel())


def whisper():
    architecture = whisper_assets.tiny()
    return architecture.model, architecture.collate(whisper_assets.features(architecture))


def e2e():
    architecture = e2e_tiny.tiny()
    return architecture.model, e2e_tiny.batch(architecture)


# Trap 8.
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("make", [whisper, e2e])
def test_no_model_holds_all_its_logits(make, smoothing, monkeypatch):
    model, batch = make()
    vocabulary = model.get_output_embeddings().weight.shape[0]
    monkeypatch.setitem(CHUNK_BYTES, "cpu", 4 * vocabulary * 3)
    model.label_smoothing = smoothing
    with LargestTensor(columns=vocabulary) as seen:
        model.train()(**model_inputs(batch)).loss.backward()
    assert (batch["labels"] != IGNORED).sum() > 9
    assert 0 < seen.elements <= 3 * vocabulary


def test_default_chunk_is_bounded_in_bytes(monkeypatch):
    monkeypatch.setitem(CHUNK_BYTES, "cpu", 4 * 1000 * 10)
    hidden, weight, _, labels = problem(3, (64,), 1000, 4, ignored=0.0)
    with LargestTensor() as seen:
        token_loss(hidden, weight, labels).backward()
    assert seen.elements == 10 * 1000


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_autocast_keeps_float32_softmax_and_gradients(dtype, smoothing):
    hidden, weight, bias, labels = problem(4, (3, 20), 300, 32)
    exact = reference(hidden, weight, labels, bias, smoothing)
    with torch.autocast("cpu", dtype=dtype):
        ours = token_loss(hidden, weight, labels, bias=bias, smoothing=smoothing, chunk=16)
        stock = reference(hidden, weight, labels, bias, smoothing)
    assert ours.dtype is torch.float32
    assert relative(ours, exact) < 3e-3
    truth = gradients(exact, hidden, weight, bias)
    found = zip(
        gradients(ours, hidden, weight, bias), gradients(stock, hidden, weight, bias), truth, strict=True
    )
    for a, b, t in found:
        assert a.dtype is torch.float32
        assert (a - t).norm() <= 1.5 * (b - t).norm() + 1e-6 * t.norm()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_cuda_equals_cross_entropy(dtype):
    hidden, weight, bias, labels = (t.detach().cuda() for t in problem(5, (700,), 40_000, 64))
    tensors = [t.requires_grad_() for t in (hidden, weight, bias)]
    truth = reference(hidden, weight, labels, bias, 0.1)
    with torch.autocast("cuda", dtype=dtype, enabled=dtype is not torch.float32):
        ours = token_loss(hidden, weight, labels, bias=bias, smoothing=0.1)
    limit = 1e-5 if dtype is torch.float32 else 2e-2
    assert relative(ours, truth) < limit
    scale = 2.0**16 / 700  # what a gradient scaler and the mean over tokens make of it
    for a, b in zip(gradients(ours * scale, *tensors), gradients(truth * scale, *tensors), strict=True):
        assert ((a - b).norm() / b.norm()).item() < limit


def test_bfloat16_model_gets_bfloat16_gradients():
    hidden, weight, _, labels = problem(6, (40,), 50, 8)
    low = [t.detach().bfloat16().requires_grad_() for t in (hidden, weight)]
    loss = token_loss(low[0], low[1], labels, chunk=7)
    assert loss.dtype is torch.float32
    for a, b in zip(
        gradients(loss, *low), gradients(reference(hidden, weight, labels), hidden, weight), strict=True
    ):
        assert a.dtype is torch.bfloat16
        assert relative(a.float(), b) < 3e-2


def test_nothing_supervised_gives_zero_with_zero_gradients():
    hidden, weight, bias, labels = problem(7, (2, 5), 11, 3, ignored=1.0)
    assert (labels == IGNORED).all()
    loss = token_loss(hidden, weight, labels, bias=bias, smoothing=0.1)
    assert loss.item() == 0.0
    for grad, tensor in zip(gradients(loss, hidden, weight, bias), (hidden, weight, bias), strict=True):
        assert grad.shape == tensor.shape and not grad.any()


def test_frozen_weight_gets_no_gradient_and_no_buffer():
    hidden, weight, _, labels = problem(8, (6,), 5000, 40, ignored=0.0)
    frozen = weight.detach()
    with LargestTensor() as seen:
        loss = token_loss(hidden, frozen, labels, chunk=2)
        loss.backward()
    assert frozen.grad is None
    assert seen.elements < weight.numel()
    expected = gradients(reference(hidden, frozen, labels), hidden)[0]
    assert relative(hidden.grad, expected) < 1e-5


def test_frozen_hidden_trains_the_weight():
    hidden, weight, _, labels = problem(9, (12,), 30, 4)
    ours = gradients(token_loss(hidden.detach(), weight, labels), weight)[0]
    assert relative(ours, gradients(reference(hidden, weight, labels), weight)[0]) < 1e-5


def test_no_grad_computes_the_loss_without_gradients():
    hidden, weight, _, labels = problem(10, (6,), 5000, 40, ignored=0.0)
    with torch.no_grad(), LargestTensor() as seen:
        loss = token_loss(hidden, weight, labels, chunk=2, smoothing=0.1)
    assert not loss.requires_grad
    assert seen.elements < weight.numel()
    assert relative(loss, reference(hidden, weight, labels, smoothing=0.1).detach()) < 1e-5


def test_gradient_scales_with_the_outer_factor_and_can_be_asked_for_twice():
    hidden, weight, _, labels = problem(11, (9,), 21, 5)
    loss = token_loss(hidden, weight, labels, chunk=4)
    first = torch.autograd.grad(loss, (hidden, weight), retain_graph=True)
    again = torch.autograd.grad(loss * 3, (hidden, weight))
    for a, b in zip(first, again, strict=True):
        assert relative(b, 3 * a) < 1e-6


def test_gradients_accumulate_over_backward_calls():
    hidden, weight, _, labels = problem(12, (10,), 21, 5, ignored=0.0)
    whole = gradients(token_loss(hidden, weight, labels), weight)[0]
    for part in (slice(0, 4), slice(4, 10)):
        token_loss(hidden[part], weight, labels[part]).backward()
    assert weight.grad is not None
    assert relative(weight.grad, whole) < 1e-6


class Tied(torch.nn.Module):
    """Embedding and output share one matrix, as decoders do."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(40, 8)
        self.layer = torch.nn.Linear(8, 8)

    def hidden(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.layer(self.embedding(ids)))

    def forward(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return token_loss(self.hidden(ids), self.embedding.weight, labels, chunk=3)


def tied_problem() -> tuple[Tied, torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    torch.manual_seed(0)
    model, ids = Tied(), torch.randint(40, (2, 7))
    labels = torch.randint(40, (2, 7))
    labels[0, 4:] = IGNORED
    stock = reference(model.hidden(ids), model.embedding.weight, labels)
    return model, ids, labels, gradients(stock, *model.parameters())


def test_tied_weights_get_both_shares():
    model, ids, labels, expected = tied_problem()
    for a, b in zip(gradients(model(ids, labels), *model.parameters()), expected, strict=True):
        assert relative(a, b) < 1e-5


@pytest.mark.parametrize("reentrant", [False, True])
def test_under_activation_checkpointing(reentrant):
    model, ids, labels, expected = tied_problem()
    hidden = model.hidden(ids)
    loss = checkpoint(
        lambda states: token_loss(torch.sin(states), model.embedding.weight, labels, chunk=3),
        hidden,
        use_reentrant=reentrant,
    )
    stock = reference(torch.sin(model.hidden(ids)), model.embedding.weight, labels)
    expected = gradients(stock, *model.parameters())
    loss.backward()
    for parameter, b in zip(model.parameters(), expected, strict=True):
        assert relative(parameter.grad, b) < 1e-5


def test_in_distributed_data_parallel(tmp_path):
    model, ids, labels, expected = tied_problem()
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    limit = timedelta(seconds=60)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1, timeout=limit)
    try:
        parallel = torch.nn.parallel.DistributedDataParallel(copy.deepcopy(model))
        parallel(ids, labels).backward()
        parallel(ids, torch.full_like(labels, IGNORED)).backward()  # an empty share must not hang the others
        for parameter, b in zip(parallel.parameters(), expected, strict=True):
            assert relative(parameter.grad, b) < 1e-5
        del parallel, parameter
    finally:
        torch.distributed.destroy_process_group()


def test_confident_logits_neither_overflow_nor_vanish():
    hidden = torch.tensor([[300.0, -300.0], [-300.0, 300.0]], requires_grad=True)
    weight = torch.eye(2, requires_grad=True)
    for labels in (torch.tensor([0, 1]), torch.tensor([1, 0])):
        loss = token_loss(hidden, weight, labels)
        assert loss.item() == pytest.approx(reference(hidden, weight, labels).item())
        assert all(torch.isfinite(grad).all() for grad in gradients(loss, hidden, weight))


def test_a_label_outside_the_vocabulary_is_an_error():
    hidden, weight, _, labels = problem(13, (3,), 5, 2, ignored=0.0)
    labels[1] = 5
    with pytest.raises((IndexError, RuntimeError)):
        token_loss(hidden, weight, labels)
