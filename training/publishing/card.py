"""The model card: YAML for the Hub's search, then what the run and its evaluations say, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.config.schema import Config
from training.data.example import TRANSLATE
from training.evaluation.metrics import NAMES
from training.models.architecture import PRETRAINED
from training.models.domain_whisper.collator import NONE, SWAP
from training.publishing.evidence import Evidence
from training.publishing.sections import SECTIONS

NOT_STATED = "not stated"
TASK_OF = {"bleu": "translation", "chrf": "translation"}
"""Score → the Hub's name of the task; the others belong to speech recognition."""
RECOGNITION = "automatic-speech-recognition"
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
LANGUAGE = re.compile(r"[a-z]{2,3}(?=$|[_-])")
LAST_PART = re.compile(r"/(?![^\[]*\])")
"""Before the name of a manifest, of which a registry's has a slash of its own: ``data/registry.db[v1/test]``."""


@dataclass(frozen=True)
class Facts:
    """What a card is written from; paths in it are relative already.

    config: the run's resolved settings. results: its ``train_results.json``. architectures: the classes of
    transformers that load it. hub_bases: of `bases`, the Hub's (`hub_bases`). licence: None where the user stated none.
    """

    repo_id: str
    config: Mapping[str, Any]
    results: Mapping[str, Any]
    architectures: tuple[str, ...]
    hub_bases: tuple[str, ...]
    evidence: Evidence
    licence: str | None = None

    @property
    def model(self) -> Mapping[str, Any]:
        """The ``model:`` block."""
        return self.config["model"]

    @property
    def title(self) -> str:
        """The repository's name without its owner."""
        return self.repo_id.partition("/")[2]

    @property
    def bases(self) -> list[str]:
        """Pretrained weights that the run began from: hub ids and folders."""
        return bases(self.model)

    @property
    def languages(self) -> list[str]:
        """ISO codes of what is spoken and written: those of the training rows, then those of the configuration."""
        recorded = self.results.get("data", {}).get("train", {}).get("languages", [])
        named = [
            self.model.get("language"),
            self.model.get("target_language"),
            *self.model.get("languages", ()),
        ]
        codes = [LANGUAGE.match(name) for name in (*recorded, *named) if name]
        return list(dict.fromkeys(code[0] for code in codes if code))

    @property
    def translates(self) -> bool:
        """Whether it writes translations, beside transcripts or alone."""
        return self.model.get("task") in ("both", TRANSLATE)


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


def bases(model: Mapping[str, Any]) -> list[str]:
    """Names of pretrained weights in a ``model:`` block; an encoder that is built by its kind's name is none."""
    named = [model.get(key) for key in PRETRAINED]
    return list(dict.fromkeys(name for name in named if name and "/" in name))


def hub_bases(config: Config) -> tuple[str, ...]:
    """Those of `bases` that are models of the Hub, not folders of this machine."""
    outputs = f"{config.paths.output_dir}/"
    found = bases(config.as_dict()["model"])
    return tuple(
        name
        for name in found
        if HUB_ID.fullmatch(name) and not name.startswith(outputs) and not Path(name).exists()
    )


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
            for metric in NAMES:
                if (scores.get(metric) or {}).get("value") is not None:
                    yield _result(one.report["meta"], metric, scores[metric]["value"], one.name, domain)


def _result(meta: Mapping[str, Any], metric: str, value: float, name: str, domain: str | None) -> Any:
    from huggingface_hub import EvalResult

    where = LAST_PART.split(str(meta.get("manifest") or name))[-1]
    return EvalResult(
        task_type=TASK_OF.get(metric, RECOGNITION),
        dataset_type=re.sub(r"[^\w.-]+", "-", where).strip("-"),
        dataset_name=where if domain is None else f"{where}, domain {domain}",
        dataset_config=domain,
        dataset_split=meta.get("split"),
        metric_type=metric,
        metric_name=NAMES[metric],
        metric_value=round(value, 2),
    )
