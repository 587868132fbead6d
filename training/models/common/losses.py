"""Losses over large vocabularies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from training.models.common.targets import IGNORED

CHUNK_BYTES = {"cpu": 384 * 2**20, "cuda": 64 * 2**20}
"""Logits held at once. Each chunk reads the weight and its gradient, and writes the latter: fewer chunks are
faster where memory is slow. On a CPU, with width 1,024, 128 MiB took longer than plain cross entropy, see
benchmarks/large_vocabulary_loss.py."""

_SOFTMAX_BYTES = 32 * 2**20
"""Float32 probabilities made at once: a fraction of a chunk, yet enough that threads seldom wait for each other."""

_HALF_SCALE = 2.0**15
"""Lifts a probability's gradient (at most 1) out of float16's subnormal numbers and stays below its largest."""

_SMALL = 1e-30
"""Above it a probability is far from float32's subnormal numbers, and its logarithm is exact."""

_WEIGHT_ROWS = 2**14
"""Rows of a low-precision weight gradient that are multiplied at once before they go into the float32 sum."""


def token_loss(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    *,
    bias: torch.Tensor | None = None,
    smoothing: float = 0.0,
    chunk: int | None = None,
) -> torch.Tensor:
    """Sum of the cross entropies of ``hidden @ weight.T + bias`` against ``labels``.

    hidden ``[..., width]``, weight ``[vocabulary, width]``, labels ``[...]`` with `IGNORED` where nothing is
    supervised. Returns a float32 scalar (0 with a gradient when nothing is supervised); float64 weights give
    float64. Under autocast the matrix products run in its type, softmax and sums in float32.

    Ignored positions are dropped first; then the logits of ``chunk`` positions at a time (by default as many
    as fit `CHUNK_BYTES`) are turned into a loss and into gradients before the next ones are computed, so that
    neither all logits nor their gradient ever exist (the idea of Liger Kernel's fused linear cross entropy).
    The price is that the weight's gradient exists from the forward pass on. Second derivatives are not there.
    """
    keep = labels.reshape(-1) != IGNORED
    rows, targets = hidden.reshape(-1, hidden.shape[-1])[keep], labels.reshape(-1)[keep]
    needs = tuple(
        torch.is_grad_enabled() and tensor is not None and tensor.requires_grad
        for tensor in (rows, weight, bias)
    )
    product = _product_dtype(hidden)
    plan = _Plan(
        smoothing=smoothing,
        chunk=chunk or _default_chunk(len(targets), len(weight), product, hidden.device.type),
        product=product,
        needs=needs,
    )
    loss: torch.Tensor = _ChunkedLoss.apply(rows, weight, bias, targets, plan)
    return loss


def _default_chunk(rows: int, vocabulary: int, dtype: torch.dtype, device: str) -> int:
    """Chunks of one size, as few as `CHUNK_BYTES` allows."""
    most = _rows_within(CHUNK_BYTES.get(device, CHUNK_BYTES["cuda"]), vocabulary, dtype)
    return math.ceil(rows / math.ceil(rows / most)) if rows else 1


def _rows_within(size: int, columns: int, dtype: torch.dtype) -> int:
    return max(1, size // (dtype.itemsize * columns))


@dataclass(frozen=True)
class _Plan:
    """Settings of one loss: positions per chunk, type of the products, tensors that need a gradient."""

    smoothing: float
    chunk: int
    product: torch.dtype
    needs: tuple[bool, ...]


Gradients = tuple["torch.Tensor | None", "torch.Tensor | None", "torch.Tensor | None", float]
"""Gradients of hidden, weight and bias as far as they are needed, and the factor that they are too large by."""


class _ChunkedLoss(torch.autograd.Function):
    """The forward pass leaves the gradients behind; the backward pass scales and hands them out."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        labels: torch.Tensor,
        plan: _Plan,
    ) -> torch.Tensor:
        loss, ctx.gradients = _loss_and_gradients(hidden, weight, bias, labels, plan)
        ctx.plan = plan
        ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in (hidden, weight, bias)]
        ctx.save_for_backward(hidden, weight, bias, labels)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        # Scaled in place and let go of: a second weight gradient would undo what was saved. A graph that is
        # walked again (retain_graph) computes them anew.
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            hidden, weight, bias, labels = ctx.saved_tensors
            _, gradients = _loss_and_gradients(hidden, weight, bias, labels, ctx.plan)
        *tensors, factor = gradients
        del gradients
        scale = grad_output / factor
        for i, dtype in enumerate(ctx.dtypes):
            if tensors[i] is not None:
                tensors[i] = tensors[i].mul_(scale).to(dtype)
        return (*tensors, None, None)


def _product_dtype(hidden: torch.Tensor) -> torch.dtype:
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    # A CPU multiplies float16 slowly and cannot sum the products in a float32 result.
    return torch.float32 if device == "cpu" and dtype is torch.float16 else dtype


def _loss_and_gradients(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, labels: torch.Tensor, plan: _Plan
) -> tuple[torch.Tensor, Gradients]:
    with torch.autocast(hidden.device.type, enabled=False):
        return _Pass(hidden, weight, bias, labels, plan).run()


class _Pass:
    """One walk over the supervised positions, ``plan.chunk`` at a time, in buffers that are made once."""

    def __init__(
        self,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        labels: torch.Tensor,
        plan: _Plan,
    ) -> None:
        self.exact = torch.promote_types(torch.promote_types(hidden.dtype, weight.dtype), torch.float32)
        self.plan, self.labels, self.vocabulary = plan, labels, len(weight)
        self.hidden, self.weight = hidden.to(plan.product), weight.to(plan.product)
        self.bias = None if bias is None else bias.to(plan.product)
        self.logits = hidden.new_empty((self._at_most(plan.chunk), self.vocabulary), dtype=plan.product)
        self.block = min(len(self.logits), _rows_within(_SOFTMAX_BYTES, self.vocabulary, self.exact))
        self.probabilities = hidden.new_empty((self.block, self.vocabulary), dtype=self.exact)
        self.loss = hidden.new_zeros((), dtype=self.exact)
        # What smoothing adds to loss and gradients depends on sums over the vocabulary alone: h · Σw is the sum
        # of a row's logits. Two walks over all logits less.
        self.column_sums = self.weight.sum(0, dtype=self.exact) if plan.smoothing else None

    def run(self) -> tuple[torch.Tensor, Gradients]:
        sums = _GradientSums(self)
        self.loss += self._uniform_part()
        for start in range(0, len(self.labels), self.plan.chunk):
            part = slice(start, start + self.plan.chunk)
            logits = self._logits_of(self.hidden[part])
            for i in range(0, len(logits), self.block):
                rows = logits[i : i + self.block]
                self._turn_into_gradient(rows, self.labels[start + i : start + i + len(rows)], sums.factor)
            sums.add(part, logits)
        return self.loss, sums.result()

    def _at_most(self, rows: int) -> int:
        return min(rows, max(1, len(self.labels)))

    def _logits_of(self, hidden: torch.Tensor) -> torch.Tensor:
        out = self.logits[: len(hidden)]
        if self.bias is None:
            return torch.mm(hidden, self.weight.t(), out=out)
        return torch.addmm(self.bias, hidden, self.weight.t(), out=out)

    def _turn_into_gradient(self, logits: torch.Tensor, labels: torch.Tensor, factor: float) -> None:
        """Add the rows' loss; leave in ``logits`` softmax less target, times ``factor``.

        The uniform part of smoothed targets is in neither: `_uniform_part` and `_GradientSums` add it.
        """
        chances = torch.softmax(logits, 1, dtype=self.exact, out=self.probabilities[: len(logits)])
        self.loss += self._cross_entropy(logits, chances, labels)
        if any(self.plan.needs):
            chances[torch.arange(len(labels), device=labels.device), labels] -= 1 - self.plan.smoothing
            logits.copy_(chances if factor == 1 else chances.mul_(factor))

    def _uniform_part(self) -> torch.Tensor:
        """The share of the loss of the uniform part of the smoothed targets: minus the mean logit of each row, summed."""
        if self.column_sums is None:
            return torch.zeros_like(self.loss)
        logits = self.hidden.sum(0, dtype=self.exact) @ self.column_sums
        if self.bias is not None:
            logits = logits + len(self.hidden) * self.bias.sum(dtype=self.exact)
        return -self.plan.smoothing / self.vocabulary * logits

    def _cross_entropy(
        self, logits: torch.Tensor, chances: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """The sum of the cross entropies of the rows, without the `_uniform_part`."""
        picked = logits.gather(1, labels[:, None]).to(self.exact)
        chance = chances.gather(1, labels[:, None])
        if bool((chance < _SMALL).any()):
            # The largest probability is at least 1 / vocabulary: its logarithm loses nothing.
            normaliser = logits.amax(1, keepdim=True).to(self.exact) - chances.amax(1, keepdim=True).log()
        else:
            normaliser = picked - chance.log()
        return (normaliser - (1 - self.plan.smoothing) * picked).sum()


class _GradientSums:
    """Gradients of hidden, weight and bias, summed over chunks in at least float32.

    float16 products read their operands in float16, scaled up by ``factor``, and write float32.
    """

    def __init__(self, of: _Pass) -> None:
        self.hidden, self.weight = of.hidden, of.weight
        self.factor = _HALF_SCALE if of.plan.product is torch.float16 else 1.0
        uniform = -self.factor * of.plan.smoothing / of.vocabulary
        new, exact, needs = self.hidden.new_empty, of.exact, of.plan.needs
        self.to_hidden = new(self.hidden.shape, dtype=exact) if needs[0] else None
        self.to_weight = new(self.weight.shape, dtype=exact) if needs[1] else None
        self.to_bias = new(of.vocabulary, dtype=exact) if needs[2] else None
        if self.to_hidden is not None:
            self.to_hidden.copy_(
                uniform * of.column_sums
            ) if of.column_sums is not None else self.to_hidden.zero_()
        if self.to_bias is not None:
            self.to_bias.fill_(uniform * len(self.hidden))
        # The large one is not filled with zeros when the first product can be written over it.
        self.overwrite = uniform == 0 and len(self.hidden) > 0
        if self.to_weight is not None and not self.overwrite:
            self.to_weight.copy_(uniform * self.hidden.sum(0, dtype=exact))

    def add(self, part: slice, to_logits: torch.Tensor) -> None:
        """to_logits ``[positions, vocabulary]``: the gradient of the logits of the positions ``part``."""
        if self.to_bias is not None:
            self.to_bias += to_logits.sum(0, dtype=self.to_bias.dtype)
        if self.to_hidden is not None:
            _add_product(self.to_hidden[part], to_logits, self.weight)
        if self.to_weight is not None:
            _add_product(self.to_weight, to_logits.t(), self.hidden[part], overwrite=self.overwrite)
        self.overwrite = False

    def result(self) -> Gradients:
        return self.to_hidden, self.to_weight, self.to_bias, self.factor


def _add_product(
    total: torch.Tensor, left: torch.Tensor, right: torch.Tensor, *, overwrite: bool = False
) -> None:
    """``total += left @ right``, whatever the types; low precision goes block by block over the rows."""
    if left.dtype == total.dtype:
        total.addmm_(left, right, beta=0 if overwrite else 1)
        return
    for i in range(0, len(total), _WEIGHT_ROWS):
        block = slice(i, i + _WEIGHT_ROWS)
        if total.is_cuda:
            product = torch.mm(left[block], right, out_dtype=total.dtype)
        else:
            product = left[block] @ right
        if overwrite:
            total[block] = product
        else:
            total[block] += product
