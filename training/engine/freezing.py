"""Which parameters are trained (all, layer norms and attention, or adapters) and which are frozen."""

from __future__ import annotations

import difflib
import importlib.util
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, cast

import torch

from training.base.errors import UserError
from training.models.architecture import Architecture, ParameterGroups

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Mode = Literal["all", "lna", "blocks", "lora"]

MODULE_GROUPS = ("lora", "lora_save", "lora_within")
"""Groups of module names; all others are patterns of parameter names."""

_ADAPTER = re.compile(
    r"\.(base_layer|lora_[A-Za-z_]+(\.default)?|modules_to_save\.default|original_module)(?=\.)"
)
_WRAPPER = re.compile(r"^(module\.|_orig_mod\.|base_model\.model\.)+")


class LoraOptions(Protocol):
    """Rank, scale (the update is multiplied by ``alpha / r``) and dropout of the adapters (Hu et al. 2021), and for how
    many epochs they wait."""

    @property
    def r(self) -> int: ...
    @property
    def alpha(self) -> float: ...
    @property
    def dropout(self) -> float: ...
    @property
    def after_epochs(self) -> float: ...


@dataclass(frozen=True)
class LoraDefaults:
    """`LoraOptions` where a configuration describes none."""

    r: int = 16
    alpha: float = 32.0
    dropout: float = 0.05
    after_epochs: float = 0.0


@dataclass(frozen=True)
class TrainablePlan:
    """The result of `apply`; names are `short_name`s of the model that it returned.

    frozen: parameter names by the first reason that froze them; a reason that added nothing has none.
    unfreeze: parameters that are frozen at first and trained after ``unfreeze_epochs``. `apply` leaves their
        ``requires_grad`` on, so that the optimiser is built with them; `freeze_for_now` turns it off.
    rows: parameters of which these rows alone learn. Weight decay must leave them out: it would move all rows.
    rates: peak learning rates of parameters that have their own (`training.engine.learning_rates`).
    """

    mode: Mode
    frozen: Mapping[str, tuple[str, ...]]
    unfreeze: tuple[str, ...] = ()
    unfreeze_epochs: float = 0.0
    rows: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)


class Row(NamedTuple):
    """One line of the parameter table: tensors and the numbers in them."""

    what: str
    tensors: int
    parameters: int


def apply(
    architecture: Architecture,
    *,
    mode: Mode = "all",
    freeze: Sequence[str] = (),
    freeze_encoder: bool = False,
    freeze_feature_encoder: bool = False,
    freeze_encoder_epochs: float = 0,
    lora: LoraOptions | None = None,
    rates: Mapping[str, float] | None = None,
) -> tuple[PreTrainedModel, TrainablePlan]:
    """Set ``requires_grad`` on the architecture's model; returns the model to train (with adapters: around it).

    ``mode``: ``all``; ``lna``, layer norms and attention only (Li et al. 2021); ``blocks``, the last blocks that the
    architecture names and the rows of its new tokens; ``lora``, adapters (and those rows) only.
    ``freeze``: ``fnmatch`` patterns of parameter names, or names of the architecture's groups.
    ``freeze_encoder_epochs`` freezes the encoder for that long and unfreezes it then, with ``freeze_encoder`` or
    without. ``rates``: learning rates by pattern or group.
    Raises `UserError` for a pattern that matches nothing, a group that the architecture has not, rates of parameters that
    do not learn or that have one already, and when nothing is left to train.
    """
    names, groups = _Names(architecture.model), architecture.parameter_groups()
    reasons = _architecture(architecture, groups, names)
    reasons |= {
        f"training.freeze: {entry}": _chosen(entry, groups, names, "training.freeze") for entry in freeze
    }
    rated = {entry: _chosen(entry, groups, names, "training.learning_rates") for entry in rates or {}}
    later: set[str] = set()
    if freeze_feature_encoder:
        key = "training.freeze_feature_encoder"
        reasons[key] = _group(groups, names, "feature_encoder", key)
    if freeze_encoder_epochs > 0:
        later = _group(groups, names, "encoder", "training.freeze_encoder_epochs")
    elif freeze_encoder:
        reasons["training.freeze_encoder"] = _group(groups, names, "encoder", "training.freeze_encoder")
    model = _switched(architecture, groups, names, mode, set().union(*reasons.values()), lora)
    frozen = _by_reason(model, reasons, f"training.trainable: {mode}")
    waits = float(freeze_encoder_epochs)
    unfreezes = tuple(n for n, p in _short_parameters(model) if p.requires_grad and plain_name(n) in later)
    if mode == "lora" and lora is not None and lora.after_epochs:
        if unfreezes:
            raise UserError(
                "training.lora.after_epochs: not together with training.freeze_encoder_epochs; set one of them"
            )
        unfreezes, waits = tuple(n for n, p in _short_parameters(model) if "lora_" in n), lora.after_epochs
    rows = _rows(model, groups.rows) if mode == "blocks" else {}
    own = _own_rates(model, rated, rates or {})
    plan = TrainablePlan(mode, frozen, unfreezes, waits if unfreezes else 0.0, rows, own)
    _check_anything_learns(model, plan)
    return model, plan


def freeze_for_now(model: torch.nn.Module, plan: TrainablePlan) -> int:
    """Freeze what unfreezes later; returns how many numbers that is.

    To be called when the optimiser exists: it holds these parameters, and skips them as long as they have no
    gradient, weight decay included; their states begin at the first step after `unfreeze`. Under DDP the backward
    pass then needs ``find_unused_parameters``.
    """
    return _set_later(model, plan, False)


def unfreeze(model: torch.nn.Module, plan: TrainablePlan) -> int:
    """Give back the gradient that `freeze_for_now` took; returns how many numbers are trained from now on."""
    return _set_later(model, plan, True)


def merge(model: PreTrainedModel) -> PreTrainedModel:
    """The model with its adapters added into its weights; a model without adapters as it is.

    Changes the model in place: for the final export. Tied weights stay tied.
    """
    if not hasattr(model, "merge_and_unload"):
        return model
    return cast("PreTrainedModel", cast(Any, model).merge_and_unload(safe_merge=True))


def table(model: torch.nn.Module, plan: TrainablePlan) -> list[Row]:
    """The parameter table: the first row is the sum of the others. Shared parameters count once."""
    parameters = dict(_short_parameters(model))
    listed = {
        f"trainable after {plan.unfreeze_epochs:g} epochs": plan.unfreeze,
        **{f"frozen by {reason}": names for reason, names in plan.frozen.items()},
    }
    elsewhere = {name for names in listed.values() for name in names} | set(plan.rows)
    rows = {"trainable": tuple(name for name in parameters if name not in elsewhere), **listed}
    sizes = [
        Row(what, len(names), sum(parameters[name].numel() for name in names))
        for what, names in rows.items()
        if names or what.startswith("frozen")
    ]
    partly = [row for name, ids in plan.rows.items() for row in _partly(name, parameters[name], ids)]
    return [Row("total", len(parameters), sum(p.numel() for p in parameters.values())), *sizes, *partly]


def _partly(name: str, parameter: torch.Tensor, ids: Sequence[int]) -> list[Row]:
    learning = len(ids) * parameter[0].numel()
    return [
        Row(f"trainable: {len(ids)} of {len(parameter):,} rows of {name}", 1, learning),
        Row(f"frozen: the other rows of {name}", 0, parameter.numel() - learning),
    ]


def counts(rows: Iterable[Row]) -> tuple[int, int]:
    """Parameters in all, and those that are trained, now or when they unfreeze, by the rows of `table`."""
    rows = list(rows)
    return rows[0].parameters, sum(row.parameters for row in rows if row.what.startswith("trainable"))


def format_table(rows: Iterable[Row]) -> str:
    """The rows as aligned text, with each row's share of the first."""
    rows = list(rows)
    total = max(1, rows[0].parameters)
    width = max(len(row.what) for row in rows)
    lines = [
        f"{row.what:<{width}}  {row.tensors:>7,}  {row.parameters:>13,}  {row.parameters / total:>6.1%}"
        for row in rows
    ]
    return "\n".join([f"{'':<{width}}  {'tensors':>7}  {'parameters':>13}  {'share':>6}", *lines])


def optimizer_name(requested: str, device: str | torch.device) -> str:
    """``training.optim`` as it was asked for, once it is known to run here.

    8-bit and other bitsandbytes optimisers need the package and CUDA; `UserError` otherwise.
    """
    if not _of_bitsandbytes(requested):
        return requested
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            f"training.optim: {requested} needs bitsandbytes, which is not installed; "
            "pip install -e '.[bnb]' in Polyvox's folder, or choose adamw_torch"
        )
    if torch.device(device).type != "cuda":
        raise UserError(
            f"training.optim: {requested} runs on CUDA only and this run is on {device}; choose adamw_torch"
        )
    return requested


def short_name(name: str) -> str:
    """A parameter's name without the wrappers around the whole model (adapters', DDP's, torch.compile's)."""
    return _WRAPPER.sub("", name)


def plain_name(name: str) -> str:
    """The name before there were adapters; an adapter's matrices get that of the weight that they change."""
    return _ADAPTER.sub("", short_name(name))


def _short_parameters(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Parameter]]:
    return ((short_name(name), parameter) for name, parameter in model.named_parameters())


class _Names:
    """Names of a model's parameters; one that is shared answers to all of its names, and is one."""

    def __init__(self, model: torch.nn.Module) -> None:
        first = {id(parameter): name for name, parameter in model.named_parameters()}
        every = model.named_parameters(remove_duplicate=False)
        self.first_of = {name: first[id(parameter)] for name, parameter in every}
        self.all = set(first.values())

    def matching(self, patterns: Iterable[str]) -> set[str]:
        """First names of the parameters that any pattern matches under any of their names."""
        patterns = tuple(patterns)
        return {
            first
            for name, first in self.first_of.items()
            if any(fnmatchcase(name, pattern) for pattern in patterns)
        }


def _architecture(architecture: Architecture, groups: ParameterGroups, names: _Names) -> dict[str, set[str]]:
    """Parameters that are never trained: the architecture's own patterns, and those that were built without gradient."""
    result = {f"the architecture: {pattern}": names.matching([pattern]) for pattern in groups.frozen}
    built = {name for name, parameter in architecture.model.named_parameters() if not parameter.requires_grad}
    if rest := built - names.matching(groups.frozen):
        result["the architecture"] = rest
    return result


def _chosen(entry: str, known: ParameterGroups, names: _Names, key: str) -> set[str]:
    """Parameters of one entry of ``training.freeze`` and the like: a group's name or a pattern."""
    groups = {name: patterns for name, patterns in known.patterns.items() if name not in MODULE_GROUPS}
    found = names.matching(groups.get(entry, (entry,)))
    if not found:
        near = difflib.get_close_matches(entry, names.first_of, n=3, cutoff=0.0)
        raise UserError(
            f"{key}: {entry!r} matches no parameter; the nearest are {', '.join(near)}. Patterns are "
            f"matched with the whole name (* for any part of it); groups: {', '.join(sorted(groups))}"
        )
    return found


def _group(groups: ParameterGroups, names: _Names, group: str, key: str) -> set[str]:
    found = names.matching(groups.patterns.get(group, ()))
    if not found:
        have = ", ".join(sorted(name for name in groups.patterns if name not in MODULE_GROUPS))
        raise UserError(f"{key}: this architecture has no {group} group of parameters (it has: {have})")
    return found


def _by_reason(
    model: torch.nn.Module, reasons: Mapping[str, set[str]], otherwise: str
) -> dict[str, tuple[str, ...]]:
    """Parameters without gradient under the first reason that names them, or under ``otherwise``."""
    frozen: dict[str, list[str]] = {reason: [] for reason in reasons}
    for name, parameter in _short_parameters(model):
        if not parameter.requires_grad:
            plain = plain_name(name)
            reason = next((reason for reason, names in reasons.items() if plain in names), otherwise)
            frozen.setdefault(reason, []).append(name)
    return {reason: tuple(names) for reason, names in frozen.items()}


def _switched(
    architecture: Architecture,
    groups: ParameterGroups,
    names: _Names,
    mode: Mode,
    frozen: set[str],
    lora: LoraOptions | None,
) -> PreTrainedModel:
    """The model to train, with ``requires_grad`` where something learns."""
    if mode == "lora":
        return _with_adapters(architecture, groups, frozen, lora or LoraDefaults())
    learning = names.all - frozen
    if mode in ("lna", "blocks"):
        partly = names.matching(groups.rows) if mode == "blocks" else set()
        learning &= _group(groups, names, mode, f"training.trainable: {mode}") | partly
    for name, parameter in architecture.model.named_parameters():
        parameter.requires_grad_(name in learning)
    return architecture.model


def _own_rates(
    model: torch.nn.Module, rated: Mapping[str, set[str]], rates: Mapping[str, float]
) -> dict[str, float]:
    """Rates of the parameters that learn, by `short_name`. rated: entry → names before there were adapters."""
    found: dict[str, float] = {}
    entry_of: dict[str, str] = {}
    for entry, names in rated.items():
        key = f"training.learning_rates: {entry}"
        chosen = [n for n, p in _short_parameters(model) if p.requires_grad and plain_name(n) in names]
        if not chosen:
            raise UserError(f"{key}: none of its parameters learns; take the entry out, or unfreeze them")
        if twice := next((name for name in chosen if name in found), None):
            raise UserError(
                f"{key}: {twice} has a rate by {entry_of[twice]!r} already; name each parameter once"
            )
        found |= dict.fromkeys(chosen, rates[entry])
        entry_of |= dict.fromkeys(chosen, entry)
    return found


def _rows(model: torch.nn.Module, rows: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Take the gradient from all other rows of these parameters, where they learn at all."""
    found = {}
    for name, parameter in _short_parameters(model):
        if name in rows and parameter.requires_grad:
            parameter.register_hook(_OnlyRows(rows[name]))
            found[name] = rows[name]
    return found


@dataclass(frozen=True)
class _OnlyRows:
    """A gradient with zeros in all other rows."""

    rows: tuple[int, ...]

    def __call__(self, gradient: torch.Tensor) -> torch.Tensor:
        index = torch.tensor(self.rows, device=gradient.device)
        return torch.zeros_like(gradient).index_copy_(0, index, gradient[index])


def _with_adapters(
    architecture: Architecture, groups: ParameterGroups, frozen: set[str], options: LoraOptions
) -> PreTrainedModel:
    """A PEFT model around the architecture's; adapters only where the weight is not frozen by name."""
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise UserError(
            f"training.trainable: lora needs peft ({error}); pip install -e '.[lora]' in Polyvox's folder, "
            "or choose trainable: lna"
        ) from error
    within = groups.patterns.get("lora_within", ("*",))
    targets = _modules(architecture.model, groups.patterns.get("lora", ()), frozen, within)
    if not targets:
        raise UserError(
            "training.trainable: lora: this architecture has no module for adapters that is not frozen"
        )
    config = LoraConfig(
        r=options.r,
        lora_alpha=cast(int, options.alpha),
        lora_dropout=options.dropout,
        target_modules=targets,
        modules_to_save=_modules(architecture.model, groups.patterns.get("lora_save", ()), frozen) or None,
        trainable_token_indices=_tokens(groups.rows, frozen) or None,
        task_type=None,  # the sequence-to-sequence type puts input_ids into the forward of speech models
    )
    return cast("PreTrainedModel", get_peft_model(architecture.model, config))


def _tokens(rows: Mapping[str, tuple[int, ...]], frozen: set[str]) -> dict[str, list[int]]:
    """Embeddings of which PEFT trains these rows."""
    return {name.removesuffix(".weight"): list(ids) for name, ids in rows.items() if name not in frozen}


def _modules(
    model: torch.nn.Module, suffixes: Sequence[str], frozen: set[str], within: Sequence[str] = ("*",)
) -> list[str]:
    """Modules with one of these last names and a parameter that may learn, where ``within`` matches."""
    found = []
    for name, module in model.named_modules():
        own = {f"{name}.{parameter}" for parameter, _ in module.named_parameters()}
        there = any(fnmatchcase(name, pattern) for pattern in within)
        if there and name.rsplit(".", 1)[-1] in suffixes and own - frozen:
            found.append(name)
    return found


def _check_anything_learns(model: torch.nn.Module, plan: TrainablePlan) -> None:
    learning = {name for name, parameter in _short_parameters(model) if parameter.requires_grad}
    reasons = ", ".join(reason for reason, names in plan.frozen.items() if names)
    if not learning:
        raise UserError(f"training: nothing is left to train; everything is frozen by {reasons}")
    if learning == set(plan.unfreeze):
        key, what = "training.freeze_encoder_epochs", "the encoder is"
        if plan.mode == "lora" and any("lora_" in name for name in plan.unfreeze):
            key, what = "training.lora.after_epochs", "the adapters is"
        raise UserError(
            f"{key}: nothing learns in the first {plan.unfreeze_epochs:g} epochs, because all but {what} frozen by {reasons}; set it to 0"
        )


def _set_later(model: torch.nn.Module, plan: TrainablePlan, value: bool) -> int:
    later = set(plan.unfreeze)
    parameters = [parameter for name, parameter in _short_parameters(model) if name in later]
    assert len(parameters) == len(later), "the plan is another model's"
    for parameter in parameters:
        parameter.requires_grad_(value)
        if not value:
            parameter.grad = None
    return sum(parameter.numel() for parameter in parameters)


def _of_bitsandbytes(name: str) -> bool:
    """Told by transformers' names for them; torchao's 8-bit AdamW is called adamw_torch_8bit."""
    families = ("paged_", "ademamix", "rmsprop_bnb", "galore_adamw_8bit")
    return name.startswith(families) or ("8bit" in name and "torch" not in name)
