"""The model card: YAML for the Hub's search, then what the run and its evaluations say, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from training.data.example import TRANSCRIBE, TRANSLATE
from training.data.metric import LABELS, METRICS
from training.models.architecture import NONE, SWAP
from training.publishing.facts import Facts
from training.publishing.sections import SECTIONS

NOT_STATED = "not stated"
RECOGNITION = "automatic-speech-recognition"
HUB_TASKS = {TRANSCRIBE: RECOGNITION, TRANSLATE: "translation"}
"""Task → the Hub's name of it."""
LAST_PART = re.compile(r"/(?![^\[]*\])")
"""Before the name of a manifest, of which a registry's has a slash of its own: ``data/registry.db[v1/test]``."""


def write_card(facts: Facts) -> str:
    """``README.md`` of the repository."""
    parts = [f"---\n{front_matter(facts)}\n---", f"# {facts.title}"]
    for title, section in SECTIONS.items():
        lines = list(section(facts))
        if lines:
            parts.append("\n".join([*([f"## {title}", ""] if title else []), *lines]).rstrip())
    return "\n\n".join(parts) + "\n"


def front_matter(facts: Facts) -> str:
    """The YAML block that the Hub reads: language, licence, base model, tags, scores."""
    from huggingface_hub import ModelCardData

    results = list(_scores(facts))
    data = ModelCardData(
        language=facts.languages or None,
        license=facts.licence or "other",
        license_name=None if facts.licence else NOT_STATED.replace(" ", "-"),
        base_model=list(facts.hub_bases) or None,
        library_name="transformers",
        pipeline_tag=RECOGNITION,
        tags=_tags(facts),
        metrics=list(dict.fromkeys(one.metric_type for one in results)) or None,
        eval_results=results or None,
        model_name=facts.title,
    )
    return data.to_yaml()


def _tags(facts: Facts) -> list[str]:
    return [
        "polyvox",
        str(facts.model["type"]).replace("_", "-"),
        *(["speech-translation"] if facts.translates else []),
        *(f"domain:{name}" for name in facts.model.get("domains", ())),
    ]


def _scores(facts: Facts) -> Iterator[Any]:
    """``EvalResult`` for every defined score, in all and by domain; not of a trial with wrong prompts."""
    for one in facts.evidence.scored:
        if one.report["meta"].get("domain") in (NONE, SWAP):
            continue
        groups = {None: one.report["scores"], **one.report.get("by_domain", {})}
        for domain, scores in groups.items():
            for metric in LABELS:
                if (scores.get(metric) or {}).get("value") is not None:
                    yield _result(one.report["meta"], metric, scores[metric]["value"], one.name, domain)


def _result(meta: Mapping[str, Any], metric: str, value: float, name: str, domain: str | None) -> Any:
    from huggingface_hub import EvalResult

    where = LAST_PART.split(str(meta.get("manifest") or name))[-1]
    return EvalResult(
        task_type=HUB_TASKS[METRICS[metric].task],
        dataset_type=re.sub(r"[^\w.-]+", "-", where).strip("-"),
        dataset_name=where if domain is None else f"{where}, domain {domain}",
        dataset_config=domain,
        dataset_split=meta.get("split"),
        metric_type=metric,
        metric_name=LABELS[metric],
        metric_value=round(value, 2),
    )
