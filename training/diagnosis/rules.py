"""The rules. Each looks at one thing that goes wrong often, says what it saw and which command to try next.

A rule that nothing speaks for says nothing. Where an earlier rule explains what a later one would see, the later one is
left out (`HIDES`): a model that writes nothing has every other fault too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from training.data.letters import contradicts, language_of
from training.data.metric import LOGGED, LOSS, WER
from training.diagnosis.evidence import Evidence, Row, scripts

FEWEST = 5
"""Utterances below which shares mean nothing."""
EMPTY, LOOPING, FOREIGN = 0.95, 0.1, 0.3
"""Shares of the hypotheses from which on: all are empty; loops are a fault; another script is one."""
BAD, FINE = 90.0, 15.0
"""WER in percent: from which on nothing was recognised; below which a rule about generalisation says nothing."""
FELL = 0.7
"""Loss at the end over loss at the beginning: below it the loss fell."""
GAP, ROSE = 2.5, 1.1
"""Loss on dev over loss in training, and loss on dev at the end over its smallest: above both the model learns by heart."""
UNSEEN, MISSED = 0.5, 20
"""Share of the errors that are in words which training never had; errors below which it means nothing."""
FACTOR, POINTS = 2.0, 10.0
"""A group is far worse: its WER over that of all, and the difference in points."""
WRONG_ROW, GOOD_ROW = 0.5, 0.2
"""Errors per character: an utterance that has nothing in common with its label; the median of a model that can judge that."""
LISTED = 10
AUGMENTED = ("augmentation.speed.prob=0.5", "augmentation.noise.prob=0.3")
"""Changes of the training clips that help against learning by heart."""
STOPPED_EARLY = ("training.early_stopping_patience=3", "training.load_best_model_at_end=true")


@dataclass(frozen=True)
class Diagnosis:
    """One thing that is probably wrong.

    Attributes:
        rule: its name.
        title: what is wrong, in one sentence.
        seen: the figures that say so.
        advice: what to do.
        commands: to be pasted.
        ids: utterances to look at; the report plays them.
    """

    rule: str
    title: str
    seen: str
    advice: str
    commands: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def diagnose(evidence: Evidence) -> list[Diagnosis]:
    """What is probably wrong, the most important first; empty where no rule sees anything."""
    found: list[Diagnosis] = []
    for name, rule in RULES.items():
        if not any(name in HIDES.get(one.rule, ()) for one in found):
            found += rule(evidence)
    return found


def all_empty(evidence: Evidence) -> Iterator[Diagnosis]:
    """Nearly all hypotheses are empty."""
    rows = evidence.rows
    empty = sum(not row.hypothesis for row in rows)
    if rows and (len(rows) < 2 or empty < EMPTY * len(rows)):
        return
    if rows:
        seen = f"{empty} of {len(rows)} hypotheses are empty"
    elif evidence.wer == evidence.cer == 100.0:
        seen = "WER and CER on dev are exactly 100, as when nothing is written"
    else:
        return
    if evidence.is_ctc:
        yield Diagnosis(
            "all_empty",
            "CTC has not begun: the model writes blanks alone.",
            f"{seen}, after {evidence.steps:,} steps",
            "Every CTC model passes through this. Give it more steps; begin with shorter clips; if the loss stands still, "
            "change the learning rate (3e-4 to 2e-3 for small models).",
            _train(evidence, _longer(evidence))
            + _train(evidence, "audio.max_length_seconds=6", "data.max_dropped_share=1"),
        )
        return
    advice = "The end of the text is predicted at once. Lower the learning rate, and look at the labels in the dry run"
    more = ["training.learning_rate=1e-5"] if evidence.pretrained else ["model.ctc_weight=1"]
    yield Diagnosis(
        "all_empty",
        "The model writes nothing.",
        seen,
        f"{advice}{'' if evidence.pretrained else '; a model from scratch needs a CTC loss to find the sound'}.",
        (f"polyvox train --config {evidence.folder}/config.yaml --dry_run", *_train(evidence, *more)),
    )


def loops(evidence: Evidence) -> Iterator[Diagnosis]:
    """Hypotheses repeat a phrase."""
    rows = evidence.rows
    looping = [row for row in rows if row.loops]
    if len(rows) < FEWEST or len(looping) < max(2, LOOPING * len(rows)):
        return
    guards = evidence.model_type in ("whisper", "domain_whisper")
    commands = (f"polyvox evaluate --model {evidence.folder} evaluation.fallback=true",) if guards else ()
    yield Diagnosis(
        "loops",
        "The model repeats itself.",
        f"{len(looping)} of {len(rows)} hypotheses loop, such as {looping[0].id}: {_short(looping[0].hypothesis)}",
        ("Decode with Whisper's safeguards, which cut loops. " if guards else "")
        + "If it stays: the model does not follow the sound yet (more data, more steps, a lower learning rate), or clips "
        "are longer than their texts.",
        (*commands, *_train(evidence, *_gentler(evidence))),
        _ids(looping),
    )


def wrong_language(evidence: Evidence) -> Iterator[Diagnosis]:
    """Hypotheses are in another script, or without the letters of the references' language."""
    rows = [row for row in evidence.rows if row.hypothesis]
    if len(rows) < FEWEST:
        return
    foreign = [row for row in rows if _foreign(row)]
    wanted = language_of(row.reference for row in rows)
    written = language_of(row.hypothesis for row in rows)
    if wanted is None or written is None:
        return
    if len(foreign) >= FOREIGN * len(rows):
        seen = f"{len(foreign)} of {len(rows)} hypotheses are in another script than their references ({written.reason})"
    elif wanted.language == "vi" and written.language == "en" and contradicts("en", wanted):
        seen = f"the references have Vietnamese letters ({wanted.reason}), the hypotheses have none"
    else:
        return
    example = (foreign or rows)[0]
    model = evidence.config.get("model") or {}
    told = f"; the run was told {model['language']}" if model.get("language") else ""
    yield Diagnosis(
        "wrong_language",
        "The model writes another language or script than the references.",
        f"{seen}: {_short(example.hypothesis)} for {_short(example.reference)}{told}",
        f"Say which language is spoken, in the table's column language or with --language {wanted.language}, and train "
        "again.",
        _train(evidence, f"--language {wanted.language}"),
        _ids(foreign),
    )


def nothing_recognised(evidence: Evidence) -> Iterator[Diagnosis]:
    """WER near 100 although the training loss fell: the texts were learnt, not the sound."""
    if evidence.wer is None or evidence.wer < BAD or evidence.loss is None:
        return
    first, last = evidence.loss
    if last > FELL * first:
        return
    seen = f"WER {evidence.wer:.1f}, while the training loss fell from {first:.2f} to {last:.2f}"
    if evidence.is_ctc:
        advice = (
            "The model has begun to spell and is not there yet. Give it more steps; begin with short clips."
        )
        commands = _train(evidence, _longer(evidence))
    elif evidence.pretrained:
        advice = (
            "The texts are learnt and the sound is not used. Check the language and the labels; lower the learning rate; "
            "train adapters alone."
        )
        commands = _train(evidence, *_gentler(evidence)) + _train(evidence, "training.trainable=lora")
    else:
        advice = (
            "The decoder learns the texts and does not use the sound, as models from scratch do. Add a CTC loss, start "
            "from pretrained weights, or train a CTC model, which cannot learn the texts alone."
        )
        commands = (*_train(evidence, "model.ctc_weight=1"), "polyvox train --config configs/demo_ctc.yaml")
    yield Diagnosis("nothing_recognised", "The loss falls and nothing is recognised.", seen, advice, commands)


def learns_by_heart(evidence: Evidence) -> Iterator[Diagnosis]:
    """A large and growing gap between training and dev."""
    dev = evidence.curve(f"{LOGGED}{LOSS}")
    wer = evidence.wer
    if len(dev) < 3 or evidence.loss is None or wer is None or wer < FINE:
        return
    last = evidence.loss[1]
    if dev[-1] < GAP * last or dev[-1] < ROSE * min(dev):
        return
    best = dev.index(min(dev)) + 1
    yield Diagnosis(
        "learns_by_heart",
        "The model learns the training data by heart.",
        f"training loss {last:.2f}, dev loss {dev[-1]:.2f}; dev was best at evaluation {best} of {len(dev)} "
        f"({min(dev):.2f}); WER {wer:.1f}",
        "More data helps most. With this data: change the sounds in training, train fewer weights, stop earlier.",
        _train(evidence, *AUGMENTED, *STOPPED_EARLY)
        + (_train(evidence, "training.trainable=lora") if evidence.pretrained else ()),
    )


def unseen_words(evidence: Evidence) -> Iterator[Diagnosis]:
    """At least half of the missed words never came in training."""
    bands = (evidence.report.get("by_vocabulary") or {}).get("word_errors") or {}
    missed = {name: int(band.get("count") or 0) for name, band in bands.items()}
    total = sum(missed.values())
    if total < MISSED or missed.get("unseen", 0) < UNSEEN * total:
        return
    share = 100 * missed["unseen"] / total
    text = "text.txt"
    commands: tuple[str, ...]
    if evidence.is_ctc:
        advice = f"Train an n-gram model on text of the domain ({text}), which brings these words, and decode with it."
        commands = (
            f"polyvox lm train --text {text} --output lm.arpa",
            f"polyvox evaluate --model {evidence.folder} --lm lm.arpa --beam_width 10",
        )
    else:
        advice = "Add recordings, or sentences that are read aloud, with the words of the domain; name a few beforehand."
        commands = (f"polyvox transcribe AUDIO --model {evidence.folder} --initial_prompt 'NAMES AND TERMS'",)
        if evidence.model_type not in ("whisper", "domain_whisper"):
            commands = (f"polyvox charts --outputs {evidence.folder.parent}",)
    yield Diagnosis(
        "unseen_words",
        "Half of the errors are in words that training never had.",
        f"{missed['unseen']} of {total} missed words ({share:.0f} %) are not in the training texts",
        advice,
        commands,
    )


def one_group(evidence: Evidence) -> Iterator[Diagnosis]:
    """One speaker, one length or one domain is far worse than all together."""
    scores = evidence.report.get("scores") or {}
    whole = scores.get(WER.name) or {}
    if whole.get("value") is None:
        return
    kinds = (
        ("by_speaker", "speaker", "transcribe_rows"),
        ("by_duration", "length", "rows"),
        ("by_domain", "domain", "rows"),
    )
    for section, kind, rows_key in kinds:
        groups = evidence.report.get(section) or {}
        worse = {
            name: group[WER.name]
            for name, group in groups.items()
            if len(groups) > 1
            and WER.name in group
            and _far_worse(group, int(group.get(rows_key) or 0), whole)
        }
        if not worse:
            continue
        name = max(worse, key=lambda one: worse[one]["value"])
        score = worse[name]
        ids = list(_of_group(evidence, kind, name))
        yield Diagnosis(
            f"one_{kind}",
            f"The {kind} {name} is far worse than the rest.",
            f"WER {score['value']:.1f} [{score['low']:.1f}, {score['high']:.1f}], all together {whole['value']:.1f}",
            ADVICE[kind],
            (
                f"polyvox charts --outputs {evidence.folder.parent}",
                *(_train(evidence, *AUGMENTED) if kind == "speaker" else ()),
            ),
            tuple(ids[:LISTED]),
        )


ADVICE = {
    "speaker": "Listen to it in the report: another accent, a bad microphone, wrong labels? Add recordings like it to the "
    "training split, and change the sounds in training.",
    "length": "Listen to these clips in the report: cut badly, or unlike what training had? Clips of that length should be "
    "in the training split.",
    "domain": "Add recordings of this domain to the training split, or adapt the model to it (docs/domains.md).",
}


def wrong_labels(evidence: Evidence) -> Iterator[Diagnosis]:
    """A model that is right elsewhere finds nothing of some labels in their sound."""
    rows = evidence.rows
    if len(rows) < FEWEST or evidence.median_error_rate > GOOD_ROW:
        return
    wrong = [row for row in rows if _not_this_sound(row) and evidence.median_of_its_like(row) <= GOOD_ROW]
    if len(wrong) < max(2, 0.01 * len(rows)) or len(wrong) > 0.5 * len(rows):
        return
    wrong.sort(key=lambda row: (-row.error_rate, row.id))
    first = wrong[0]
    yield Diagnosis(
        "wrong_labels",
        "Some labels do not belong to their sound.",
        f"{len(wrong)} of {len(rows)} utterances have nearly nothing in common with their label, while half of all have "
        f"at most {100 * evidence.median_error_rate:.0f} % errors; such as {first.id}: {_short(first.hypothesis)} for "
        f"{_short(first.reference)}",
        "Listen to them in the report; correct or remove these rows, and those like them in the training split.",
        (
            f"polyvox charts --outputs {evidence.folder.parent}",
            f"polyvox evaluate --model {evidence.folder} --split train",
        ),
        _ids(wrong),
    )


Rule = Callable[[Evidence], Iterator[Diagnosis]]
RULES: Mapping[str, Rule] = {
    "all_empty": all_empty,
    "loops": loops,
    "wrong_language": wrong_language,
    "nothing_recognised": nothing_recognised,
    "learns_by_heart": learns_by_heart,
    "wrong_labels": wrong_labels,
    "one_group": one_group,
    "unseen_words": unseen_words,
}
"""In the order in which they are asked and told."""
OTHERS = tuple(RULES)
HIDES: Mapping[str, tuple[str, ...]] = {
    "all_empty": OTHERS,
    "loops": ("nothing_recognised", "wrong_labels", "one_group", "unseen_words"),
    "wrong_language": ("nothing_recognised", "wrong_labels", "one_group", "unseen_words"),
    "nothing_recognised": ("wrong_labels", "one_group", "unseen_words", "learns_by_heart"),
    "wrong_labels": ("one_group",),
}
"""Rule → those that what it found explains."""


def _train(evidence: Evidence, *more: str) -> tuple[str, ...]:
    """The training command with changes, in a folder of its own; none for a model that is no run of ours."""
    if not evidence.config:
        return ()
    name = (evidence.config.get("output") or {}).get("experiment_name") or evidence.folder.name
    own = f"output.dir={evidence.folder.parent / f'{name}_again'}"
    return (f"polyvox train --config {evidence.folder}/config.yaml {' '.join(more)} {own}",)


def _longer(evidence: Evidence) -> str:
    """Three times as many steps."""
    training = evidence.config.get("training") or {}
    if (training.get("max_steps") or -1) > 0:
        return f"training.max_steps={3 * training['max_steps']}"
    return f"training.num_train_epochs={3 * float(training.get('num_train_epochs') or 3):g}"


def _gentler(evidence: Evidence) -> list[str]:
    rate = (evidence.config.get("training") or {}).get("learning_rate")
    return [f"training.learning_rate={float(rate) / 5:g}"] if isinstance(rate, int | float) else []


def _foreign(row: Row) -> bool:
    """Whether most letters of the hypothesis are of a script that the reference has none of."""
    wanted, written = scripts(row.reference), scripts(row.hypothesis)
    if not wanted or not written:
        return False
    strange = sum(count for script, count in written.items() if script not in wanted)
    return strange > 0.5 * sum(written.values())


def _far_worse(group: Mapping[str, Any], rows: int, whole: Mapping[str, Any]) -> bool:
    score = group[WER.name]
    if rows < FEWEST or score.get("value") is None or score.get("low") is None:
        return False
    above = score["value"] >= FACTOR * whole["value"] and score["value"] - whole["value"] >= POINTS
    return bool(above and score["low"] > (whole.get("high") or whole["value"]))


def _of_group(evidence: Evidence, kind: str, name: str) -> Iterator[str]:
    """Utterances of a speaker or domain, those with most errors first."""
    lines = [
        line for line in evidence.predictions if kind in ("speaker", "domain") and line.get(kind) == name
    ]
    rows = sorted(
        (Row.of(line) for line in lines if line.get("task") == "transcribe"), key=lambda row: -row.error_rate
    )
    yield from (row.id for row in rows)


def _not_this_sound(row: Row) -> bool:
    """Whether the hypothesis says something else than the reference, and not just less."""
    said = len(row.hypothesis.split())
    return (
        row.words >= 3
        and said >= 3
        and said >= 0.5 * row.words
        and row.error_rate >= WRONG_ROW
        and not row.loops
    )


def _ids(rows: list[Row]) -> tuple[str, ...]:
    return tuple(row.id for row in rows[:LISTED])


def _short(text: str) -> str:
    return f"“{text[:57]}…”" if len(text) > 60 else f"“{text}”"
