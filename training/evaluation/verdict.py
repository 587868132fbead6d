"""Whether an adapted model is better where it should be, and no worse elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from training.base.errors import UserError
from training.data.metric import DOMAIN_METRIC, LABELS

METRIC = DOMAIN_METRIC.name
RULE = (
    "better: the 95 % paired interval of B minus A lies below zero on the target; no worse: its upper end is at most "
    "the margin on each of the others; all of them must hold, so that no correction for their number is needed"
)


def judge(
    comparison: Mapping[str, Any], target: str, others: Sequence[str] | None, margin: float
) -> dict[str, Any]:
    """The verdict on a comparison (`training.evaluation.compare`) of a base A and an adapted model B by `RULE`.

    ``others`` None: all other domains. ``margin`` is in points of CER. ``line`` of the result says it in words.
    Raises `UserError` for domains that the comparison does not have.
    """
    if not (math.isfinite(margin) and margin >= 0):
        raise UserError(f"--margin {margin:g}: give points of {LABELS[METRIC]} from 0 on")
    metrics = _metrics(comparison)
    chosen = [name for name in metrics if name != target] if others is None else list(dict.fromkeys(others))
    _require(comparison, metrics, target, chosen)
    better = _below(metrics[target]["high"], 0.0)
    worse = [name for name in chosen if not _at_most(metrics[name]["high"], margin)]
    return {
        "rule": RULE,
        "metric": METRIC,
        "target": target,
        "others": chosen,
        "margin": margin,
        "better_on_target": better,
        "no_worse_elsewhere": not worse,
        "failed_on": [*([] if better else [target]), *worse],
        "holds": better and not worse,
        "line": _line(metrics, target, chosen, margin, better, worse),
    }


def _metrics(comparison: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    found = {
        name: part["metrics"][METRIC]
        for name, part in comparison["by_domain"].items()
        if METRIC in part["metrics"]
    }
    if not found:
        raise UserError(
            f"--target: {comparison['a']} names no domain of any transcript; the manifest needs the column domain, "
            "and the runs a new evaluation"
        )
    return found


def _require(
    comparison: Mapping[str, Any], known: Mapping[str, Any], target: str, others: Sequence[str]
) -> None:
    for option, names in (("--target", [target]), ("--others", others)):
        for name in names:
            if name not in known:
                raise UserError(f"{option} {name}: {comparison['a']} has the domains {', '.join(known)}")
    if target in others:
        raise UserError(f"--others {target}: is the --target; leave it out")
    if not others:
        raise UserError(f"--target {target}: is the only domain of {comparison['a']}; nothing is elsewhere")


def _below(high: float | None, bound: float) -> bool:
    return high is not None and high < bound


def _at_most(high: float | None, bound: float) -> bool:
    return high is not None and high <= bound


def _line(
    metrics: Mapping[str, Any],
    target: str,
    others: Sequence[str],
    margin: float,
    better: bool,
    worse: Sequence[str],
) -> str:
    first = "better where it should be" if better else f"not shown to be better on {target}"
    second = "no worse elsewhere" if not worse else f"not shown to be no worse on {', '.join(worse)}"
    told = "; ".join(f"{name} {_told(metrics[name])}" for name in (target, *others))
    joint = "but" if better == bool(worse) else "and"
    return f"{first}, {joint} {second} ({LABELS[METRIC]}, B − A: {told}; margin {margin:g})"


def _told(found: Mapping[str, Any]) -> str:
    if found["difference"] is None:
        return "undefined"
    return f"{found['difference']:+.2f} [{found['low']:+.2f}, {found['high']:+.2f}]"
