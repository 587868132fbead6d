"""Counts the memory of a training step on a model of tensors with shapes and types but without contents.

torch's fake tensors run the real forward and backward pass, autograd, autocast, checkpointing and the chunked
loss included, without computing or storing a number. A dispatch mode sees every storage come and go; the most
that lives at once is the peak (the approach of ``torch.distributed._tools.mem_tracker``). No weights, no GPU
and no formulas per architecture are needed.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from training.models.batch import Batch, model_inputs
from training.models.common import losses

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
KINDS = ("gradients", "half-precision weights", "logits and vocabulary-sized buffers", "activations")
"""Kinds of memory at the peak, beside weights and optimiser states."""


_NEEDS_VALUES = "the model's forward pass depends on a number that only real data has"


class NotCountable(Exception):
    """The model does something that cannot be followed without numbers; says what."""


@dataclass(frozen=True)
class Trace:
    """Bytes that one pass held at its worst moment beside weights, buffers and optimiser states.

    peak: all of them. parts: the same by `KINDS`. kept: what the forward pass left for the backward pass.
    flops: multiplications and additions of the pass, both counted. states: shape of the encoder's last states.
    """

    peak: int
    parts: Mapping[str, int]
    kept: int
    flops: int
    states: tuple[int, ...] = ()


class FakeModel:
    """A copy of a model's structure (on any device, meta too) with fake tensors in place of its parameters.

    ``cuda``: count as on a GPU, whatever this machine is: fused dropout and attention that keep no scores, layer
    norms in float32 under autocast, the loss in chunks of a GPU's size. Parameters keep their names, their ties
    and their ``requires_grad``. Randomness that would make a step lighter (layer drop) is left out.
    """

    def __init__(self, model: torch.nn.Module, *, cuda: bool, precision: str, checkpointing: bool) -> None:
        self.cuda, self.dtype = cuda, DTYPES[precision]
        self.fakes = FakeTensorMode(allow_non_fake_inputs=True)
        self.model = self._copy(model)
        self.vocabulary = _vocabulary(self.model)
        _steady(self.model)
        if checkpointing:
            settings = {"use_reentrant": False, "preserve_rng_state": False}
            self.model.activation_checkpointing_enable(activation_checkpointing_kwargs=settings)

    def _copy(self, model: torch.nn.Module) -> Any:
        memo: dict[int, Any] = {}
        with self.fakes:
            for parameter in model.parameters():
                fake = torch.empty(parameter.shape, dtype=parameter.dtype)
                memo[id(parameter)] = torch.nn.Parameter(fake, requires_grad=parameter.requires_grad)
            for buffer in model.buffers():
                memo[id(buffer)] = torch.empty(buffer.shape, dtype=buffer.dtype)
        gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
        try:
            for parameter, _ in gradients:
                parameter.grad = None
            return copy.deepcopy(model, memo)
        finally:
            for parameter, gradient in gradients:
                parameter.grad = gradient

    @property
    def static(self) -> int:
        """Bytes of weights and buffers, shared ones once."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self._tensors())

    def _tensors(self) -> Iterator[torch.Tensor]:
        yield from self.model.parameters()
        yield from self.model.buffers()

    def step(self, batch: Batch, *, accumulated: bool) -> Trace:
        """Forward and backward pass of one batch; ``accumulated``: gradients of an earlier one are there already."""
        self.model.train()
        with self._counting(batch) as (ledger, inputs):
            if accumulated:
                self._fill_gradients(ledger)
            hooks = [
                p.register_post_accumulate_grad_hook(ledger.take_gradient)
                for p in self.model.parameters()
                if p.requires_grad
            ]
            with self._autocast():
                loss = self.model(**inputs, num_items_in_batch=1).loss
            kept = ledger.live - ledger.by_kind["gradients"]
            loss.backward()
            for hook in hooks:
                hook.remove()
        self.model.zero_grad(set_to_none=True)
        return ledger.trace(kept)

    def forward(self, batch: Batch) -> Trace:
        """Forward pass of an evaluation batch, with its loss and without gradients."""
        self.model.eval()
        with self._counting(batch) as (ledger, inputs), torch.no_grad(), self._autocast():
            states = self.model(**inputs, num_items_in_batch=1).encoder_last_hidden_state
        return replace(ledger.trace(0), states=tuple(states.shape))

    def _fill_gradients(self, ledger: _Ledger) -> None:
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.empty_like(parameter)
                ledger.take_gradient(parameter)

    @contextmanager
    def _counting(self, batch: Batch) -> Iterator[tuple[_Ledger, Batch]]:
        ledger = _Ledger(self._tensors(), self.vocabulary)
        with ExitStack() as stack:
            if self.cuda:
                stack.enter_context(_as_on_cuda(self.dtype))
            stack.enter_context(self.fakes)
            stack.enter_context(ledger)
            yield ledger, {key: _fake(value) for key, value in model_inputs(batch).items()}

    def _autocast(self) -> torch.autocast:
        reduced = self.dtype is not torch.float32
        return torch.autocast("cpu", self.dtype if reduced else torch.bfloat16, enabled=reduced)


def _fake(value: Any) -> Any:
    return torch.empty(value.shape, dtype=value.dtype) if torch.is_tensor(value) else value


def _vocabulary(model: Any) -> int:
    """Rows of the output layer: they mark logits, and gradients and copies of the matrix itself.

    A CTC model names no output embedding: its configuration has the number. 0 where neither is there.
    """
    head = model.get_output_embeddings()
    if head is None and hasattr(model, "decoder"):
        head = model.decoder.get_output_embeddings()
    return int(getattr(model.config, "vocab_size", 0) if head is None else head.weight.shape[0])


def _steady(model: torch.nn.Module) -> None:
    """No SpecAugment (it draws spans from the mask's values, which do not exist) and no layer drop."""
    for module in model.modules():
        settings = getattr(module, "config", None)
        if settings is not None and hasattr(settings, "apply_spec_augment"):
            settings.apply_spec_augment = False


@dataclass(eq=False)
class _Entry:
    """A storage that is alive; ``reference`` tells when it is not any more."""

    size: int
    kind: str
    reference: weakref.ref[Any] = field(repr=False)


class _Ledger(TorchDispatchMode):
    """Follows every storage from its first tensor to its last, and the most bytes that lived at once.

    Where a value decides what happens next, the heavier way is taken: something is there (``any``), masks are
    not all ones (``all``), every label is supervised.
    """

    def __init__(self, static: Iterator[torch.Tensor], vocabulary: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.live = self.peak = self.flops = 0
        self.by_kind = dict.fromkeys(KINDS, 0)
        self.at_peak = dict(self.by_kind)
        self.entries: dict[int, _Entry] = {}
        self.static = {id(tensor.untyped_storage()): tensor.untyped_storage() for tensor in static}
        self.certain: dict[int, Any] = {}

    def trace(self, kept: int) -> Trace:
        return Trace(peak=self.peak, parts=dict(self.at_peak), kept=kept, flops=self.flops)

    def take_gradient(self, parameter: torch.Tensor) -> None:
        """From now on the storage of the parameter's gradient counts as a gradient."""
        assert parameter.grad is not None
        storage = parameter.grad.untyped_storage()
        entry = self.entries.get(id(storage))
        if entry is None:
            self._enter(storage, "gradients")
        elif entry.kind != "gradients":
            self.by_kind[entry.kind] -= entry.size
            entry.kind = "gradients"
            self._count(entry)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default and isinstance(args[0], FakeTensor):
            return args[0].fake_device
        if func is torch.ops.aten._local_scalar_dense.default and isinstance(args[0], FakeTensor):
            return self._decide(args[0])
        if func is torch.ops.aten.index.Tensor:
            args = (args[0], [part for index in args[1] for part in _everything(index)])
        try:
            out = _WITHOUT_VALUES.get(func, func)(*args, **(kwargs or {}))
        except DynamicOutputShapeException as error:  # how many there are depends on the values
            raise NotCountable(_NEEDS_VALUES) from error
        if func in (torch.ops.aten.any.default, torch.ops.aten.any.dim):
            self.certain[id(out.untyped_storage())] = out.untyped_storage()
        self.flops += _flops(func, args, kwargs or {}, out)
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, FakeTensor):
                self._see(func, args, tensor)
        if func in _COPIES_INSIDE:
            self._scratch(sum(_bytes(t) for t in args if isinstance(t, FakeTensor) and not t.is_contiguous()))
        return out

    def _scratch(self, size: int) -> None:
        """Bytes that live within one operation only."""
        if self.live + size > self.peak:
            self.peak = self.live + size
            self.at_peak = {**self.by_kind, KINDS[3]: self.by_kind[KINDS[3]] + size}

    def _decide(self, scalar: FakeTensor) -> Any:
        if scalar.dtype is torch.bool:
            return id(scalar.untyped_storage()) in self.certain
        raise NotCountable(_NEEDS_VALUES)

    def _see(self, func: Any, args: Any, tensor: FakeTensor) -> None:
        storage = tensor.untyped_storage()
        if id(storage) not in self.entries and id(storage) not in self.static:
            self._enter(storage, self._kind(func, args, tensor))

    def _kind(self, func: Any, args: Any, tensor: FakeTensor) -> str:
        if tensor.dim() > 1 and self.vocabulary in tensor.shape:
            return KINDS[2]
        if func is torch.ops.aten._to_copy.default and isinstance(args[0], torch.nn.Parameter):
            return KINDS[1]
        return KINDS[3]

    def _enter(self, storage: Any, kind: str) -> None:
        key, size = id(storage), storage.nbytes()
        entry = _Entry(size, kind, weakref.ref(storage, lambda _: self._leave(key)))
        self.entries[key] = entry
        self.live += size
        self._count(entry)

    def _count(self, entry: _Entry) -> None:
        self.by_kind[entry.kind] += entry.size
        if self.live > self.peak:
            self.peak, self.at_peak = self.live, dict(self.by_kind)

    def _leave(self, key: int) -> None:
        entry = self.entries.pop(key)
        self.live -= entry.size
        self.by_kind[entry.kind] -= entry.size


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _everything(index: torch.Tensor | None) -> list[torch.Tensor | None]:
    """A boolean mask as the indices of all that it covers."""
    if index is None or index.dtype is not torch.bool:
        return [index]
    return [torch.empty(index.numel(), dtype=torch.long)] * index.dim()


def _ctc(
    log_probs: torch.Tensor, targets: torch.Tensor, *_: Any, **__: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Shapes of ``aten._ctc_loss``: losses ``[rows]`` and alphas ``[rows, frames, 2 · labels + 1]``."""
    frames, rows = log_probs.shape[:2]
    return log_probs.new_empty(rows), log_probs.new_empty(rows, frames, 2 * (targets.numel() // rows) + 1)


def _ctc_backward(
    grad: torch.Tensor, log_probs: torch.Tensor, targets: torch.Tensor, *rest: Any, **_: Any
) -> torch.Tensor:
    return torch.empty_like(log_probs)


_COPIES_INSIDE = frozenset(
    {
        torch.ops.aten.native_layer_norm.default,
        torch.ops.aten.native_layer_norm_backward.default,
        torch.ops.aten.native_group_norm.default,
        torch.ops.aten.native_group_norm_backward.default,
        torch.ops.aten.convolution.default,
        torch.ops.aten.convolution_backward.default,
    }
)
"""Operations whose kernels copy an operand that does not lie in one piece."""

_WITHOUT_VALUES: dict[Any, Any] = {
    torch.ops.aten._ctc_loss.Tensor: _ctc,
    torch.ops.aten._ctc_loss_backward.Tensor: _ctc_backward,
    torch.ops.aten.equal.default: lambda one, other: one.shape == other.shape,
}
"""Operations whose result has a shape that only values tell, at its largest; checks of values, which hold."""


def _flops(func: Any, args: Any, kwargs: Any, out: Any) -> int:
    packet = func.overloadpacket
    if packet is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu:
        return int(sdpa_flop_count(args[0].shape, args[1].shape, args[2].shape))
    if packet is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward:
        return int(sdpa_backward_flop_count(*(tensor.shape for tensor in args[:4])))
    if packet in flop_registry:
        return int(flop_registry[packet](*args, **kwargs, out_val=out))
    return 0


def _dropout(
    input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> torch.Tensor:
    """As fused on a GPU: a mask of bytes is kept."""
    return torch.native_dropout(input, p, True)[0] if training and p else input


def _attention(
    *args: Any, dropout_p: float = 0.0, _real: Any = F.scaled_dot_product_attention, **kwargs: Any
) -> Any:
    """The kernels of a GPU draw dropout anew in the backward pass; the CPU's would fall back to whole scores."""
    return _real(*args[:4], **kwargs)


def _in_float32(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Operations that autocast computes in float32 on a GPU but not on a CPU."""
    return lambda input, *args, **kwargs: function(input.float(), *args, **kwargs)


@contextmanager
def _as_on_cuda(dtype: torch.dtype) -> Iterator[None]:
    """CPU tensors treated as CUDA treats its own, where that changes what is kept in memory."""
    functions: dict[str, Any] = {"dropout": _dropout, "scaled_dot_product_attention": _attention}
    if dtype is not torch.float32:
        names = ("layer_norm", "group_norm", "softmax", "log_softmax")
        functions |= {name: _in_float32(getattr(F, name)) for name in names}
    chunks = {**losses.CHUNK_BYTES, "cpu": losses.CHUNK_BYTES["cuda"]}
    with (
        _replaced(F, functions),
        _replaced(losses, {"CHUNK_BYTES": chunks, "_product_dtype": lambda hidden: dtype}),
    ):
        yield


@contextmanager
def _replaced(module: Any, functions: Mapping[str, Any]) -> Iterator[None]:
    """Attributes of a module exchanged for a while. A function mode would not do: autograd leaves it behind, and
    what checkpointing computes anew would differ from what it saved."""
    before = {name: getattr(module, name) for name in functions}
    try:
        for name, function in functions.items():
            setattr(module, name, function)
        yield
    finally:
        for name, function in before.items():
            setattr(module, name, function)
