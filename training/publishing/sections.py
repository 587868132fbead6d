"""The sections of a model card, each a few lines of Markdown made of what is known; none where nothing is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from training.config.arguments import DEFAULT_BATCH
from training.config.blocks import Data
from training.data.sources.source import Split
from training.engine.freezing import LoraDefaults
from training.engine.provenance import told
from training.models.lookup import load
from training.publishing.scores import comparisons, scores, table

if TYPE_CHECKING:
    from training.publishing.evidence import Scored
    from training.publishing.facts import Facts

FEW_HOURS = 10.0


def _intro(facts: Facts) -> Iterator[str]:
    kind = str(load(facts.model["type"]).__doc__).partition("\n")[0]
    yield f"{kind} Trained with Polyvox (`model.type: {facts.model['type']}`)."
    yield ""
    if facts.licence is None:
        yield "Licence: not stated. Whoever published this model named none; ask before you use it."
    else:
        yield f"Licence: {facts.licence}."


def _model(facts: Facts) -> Iterator[str]:
    results = facts.results
    total, learning = results["parameters"], results.get("trainable_parameters")
    rows = [
        ("architecture", ", ".join(facts.architectures) or facts.model["type"]),
        ("parameters", f"{total:,}"),
        ("of them trained", "not recorded" if learning is None else f"{learning:,}"),
        ("began from", ", ".join(f"`{name}`" for name in facts.bases) or "random weights (from scratch)"),
        ("languages", ", ".join(facts.languages)),
        ("task", facts.model.get("task", "transcribe")),
        ("samples per second", facts.config["audio"]["sample_rate"]),
    ]
    if domains := facts.model.get("domains"):
        rows.append(("domain tokens", ", ".join(f"`<|domain:{name}|>`" for name in domains)))
    yield from table(("", ""), rows)


def _use(facts: Facts) -> Iterator[str]:
    domain = " --domain auto" if facts.model.get("domains") else ""
    yield "```bash"
    yield f"hf download {facts.repo_id} --local-dir {facts.title}"
    yield f"polyvox transcribe recording.wav --model {facts.title}{domain}"
    yield "```"


def _data(facts: Facts) -> Iterator[str]:
    recorded = facts.results.get("data", {})
    rows = [_amount(facts, split, recorded.get(split)) for split in ("train", "dev")]
    yield from table(
        ("split", "source", "utterances", "hours", "domains"),
        [*filter(None, rows), *(_test_amount(one) for one in facts.evidence.scored)],
    )


def _amount(facts: Facts, split: Split, found: Mapping[str, Any] | None) -> tuple[object, ...] | None:
    place = f"`{Data.model_validate(facts.config['data']).source.describe(split)}`"
    if found is None:
        return (
            (split, place, f"{facts.results['utterances']:,}", "not recorded", "")
            if split == "train"
            else None
        )
    domains = [
        f"{name}: {part['utterances']:,}, {part['hours']:.2f} h" for name, part in found["domains"].items()
    ]
    return (split, place, f"{found['utterances']:,}", f"{found['hours']:.2f}", "; ".join(domains))


def _test_amount(one: Scored) -> tuple[object, ...]:
    meta, hours = one.report["meta"], one.report["speed"]["audio_seconds"] / 3600
    rows = max(one.report["rows"].values())
    domains = [f"{name}: {found['rows']:,}" for name, found in one.report.get("by_domain", {}).items()]
    split = meta.get("split") or "test"
    return (split, f"`{meta.get('manifest') or one.name}`", f"{rows:,}", f"{hours:.2f}", "; ".join(domains))


def _training(facts: Facts) -> Iterator[str]:
    training, results = facts.config["training"], facts.results
    seconds = training["max_batch_seconds"]
    rows = {
        "learns": _learns(training),
        "epochs": f"{results['epochs']:g} ({results['steps']:,} steps)",
        "learning rate": _learning_rates(training),
        "batch": f"{seconds:g} s of audio"
        if seconds
        else f"{training['batch_size'] or DEFAULT_BATCH} utterances",
        "accumulated batches": training["gradient_accumulation_steps"],
        "label smoothing": training["label_smoothing_factor"],
        "precision": _precision(facts),
        "augmentation": _augmentation(facts.config.get("augmentation") or {}),
        "seed": training["seed"],
        "time": f"{results['train_seconds'] / 60:.1f} min",
        "device": _device(facts),
        **_changed_data(results.get("data_changes") or []),
    }
    yield from table(("", ""), rows.items())


def _learning_rates(training: Mapping[str, Any]) -> str:
    own = [f"{name}: {rate:g}" for name, rate in (training.get("learning_rates") or {}).items()]
    return "; ".join([f"{training['learning_rate']:g}, {training['lr_scheduler_type']}", *own])


def _learns(training: Mapping[str, Any]) -> str:
    frozen = [
        *training["freeze"],
        *(key for key in ("freeze_encoder", "freeze_feature_encoder") if training[key]),
    ]
    parts = [f"`{training['trainable']}`", *(["frozen: " + ", ".join(frozen)] if frozen else [])]
    if training["trainable"] == "lora":
        parts.append("rank {r}, alpha {alpha:g}".format(**(training["lora"] or asdict(LoraDefaults()))))
    return "; ".join(parts)


def _precision(facts: Facts) -> str:
    """The recorded precision of the run; else that of its configuration."""
    recorded = [one["precision"] for one in facts.results.get("devices") or [] if "precision" in one]
    if recorded:
        return ", then ".join(dict.fromkeys(recorded))
    training = facts.config["training"]
    asked = next((name for name in ("bf16", "fp16") if training[name]), None)
    return asked or (facts.config["profile"]["precision"] if training["fp16"] is None else "fp32")


def _device(facts: Facts) -> str:
    """The recorded devices of the run; else those of its configuration."""
    if recorded := facts.results.get("devices"):
        return told(recorded)
    profile = facts.config["profile"]
    return f"not recorded (the configuration says: {profile['description'] or profile['device']})"


def _changed_data(changes: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """A row where the run went on with other utterances than those that it began with."""
    parts = [
        f"from step {change['from_step']}: {split} {', '.join(_counted(found))}"
        for change in changes
        for split, found in change.items()
        if split != "from_step"
    ]
    return {"data changed": "; ".join(parts)} if parts else {}


def _counted(found: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"{found[what]:,} {what}" for what in ("added", "removed", "changed") if found[what])
    if found["reordered"]:
        yield "in another order"


def _augmentation(settings: Mapping[str, Any]) -> str:
    changes = {name: one["prob"] for name, one in settings.items() if isinstance(one, dict) and one["prob"]}
    if not settings.get("enabled") or not changes:
        return "none"
    made = ", ".join(f"{name} ({share:.0%})" for name, share in changes.items())
    wait = settings.get("after_epochs")
    return f"{made}, after {wait} {'epoch' if wait == 1 else 'epochs'} without" if wait else made


def _limits(facts: Facts) -> Iterator[str]:
    written = "transcripts and translations" if facts.translates else "transcripts"
    yield f"- Made to write {written} of speech in {', '.join(facts.languages) or 'its training language'}."
    if domains := facts.model.get("domains"):
        yield f"- It is told who speaks by one of {len(domains)} tokens ({', '.join(domains)}); others are unknown to it."
    if longest := facts.results.get("longest_seconds"):
        yield f"- The longest utterance in training lasted {longest:.1f} s; cut longer recordings in pauses."
    yield from _little_data(facts)
    yield from _no_speech(facts)
    if facts.evidence.scored:
        yield "- The scores hold for speech like that of the test data, and for no other voices, rooms or topics."
    yield "- It makes mistakes and can write words that nobody said. Where an error does harm, a person has to check."


def _little_data(facts: Facts) -> Iterator[str]:
    hours = facts.results.get("data", {}).get("train", {}).get("hours")
    if hours is not None and hours < FEW_HOURS:
        origin = "" if facts.bases else " from scratch"
        yield f"- Trained{origin} on {hours:.1f} hours of speech only."


def _no_speech(facts: Facts) -> Iterator[str]:
    measured = [one.report for one in facts.evidence.scored if any(_clips(one.report))]
    if not measured:
        yield "- What it writes for silence, noise or music was not measured."
        return
    kinds = measured[0]["no_speech"]
    told = [f"{kind} {found['words_per_clip']:.1f}" for kind, found in kinds.items() if found["clips"]]
    yield f"- Words made up per four-second clip without speech: {', '.join(told)}."


def _clips(report: Mapping[str, Any]) -> Iterator[int]:
    return (found["clips"] for found in (report.get("no_speech") or {}).values())


def _versions(facts: Facts) -> Iterator[str]:
    yield ", ".join(f"{name} {number}" for name, number in facts.results["versions"].items()) + "."
    commits = {"training": facts.results.get("commit")}
    commits |= {one.name: one.report["meta"].get("commit") for one in facts.evidence.scored}
    told = [f"{what}: `{commit}`" for what, commit in commits.items() if commit]
    if told:
        yield f"Commits of Polyvox: {', '.join(told)}."
    yield "All settings are in `config.yaml`, the curves in `metrics/`."


SECTIONS: dict[str, Callable[[Facts], Iterator[str]]] = {
    "": _intro,
    "Model": _model,
    "Use": _use,
    "Intended use and limits": _limits,
    "Data": _data,
    "Training": _training,
    "Scores": scores,
    "Compared with the base": comparisons,
    "Versions": _versions,
}
"""Title → what writes the section, in the order of the card."""
