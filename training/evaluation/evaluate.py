"""From references and hypotheses to ``{run}_metrics.json`` and ``{run}_predictions.csv``."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.data.example import TRANSCRIBE, TRANSLATE, Example, Hypothesis
from training.data.ledger import DropLedger
from training.data.metric import METRICS
from training.evaluation.baselines import NEAREST_RULE, nearest_training_sentences
from training.evaluation.breakdown import accuracy as word_accuracy
from training.evaluation.breakdown import by_domain, by_duration, by_vocabulary, domain_gap, drawing, worst
from training.evaluation.codeswitch import by_word_language
from training.evaluation.domains import predicted_domains
from training.evaluation.errors import confusions, degenerate, error_shares, inserted_without_speech, loops
from training.evaluation.intervals import interval, units_of
from training.evaluation.language import DESCRIPTION, accuracy
from training.evaluation.metrics import EMPTY_REFERENCE_RULE, bleu_tokenizer, signatures, task_statistics
from training.evaluation.normalize import normalizer
from training.evaluation.rows import Row, join, make_row
from training.evaluation.statistic import Statistic
from training.evaluation.summary import summarize
from training.evaluation.translation import changes, translation_section
from training.evaluation.word_alignment import align_characters, align_words
from training.evaluation.words import WordEvidence, word_sections

UNIT_RULE = (
    "95 % bootstrap, percentiles expanded for few units; whole videos (group) are drawn where there are at least 5, else "
    "speakers where there are at least 5, else utterances (too narrow an interval where few speakers or videos were recorded)"
)
_SPEED_RULE = (
    "rtf: seconds of generation for all tasks / seconds of audio; latency: seconds of generation per utterance, "
    "its share of its batch's wall time"
)
TrainTexts = Mapping[str, Iterable[str]] | Iterable[str]


@dataclass(frozen=True)
class Evaluation:
    """The scores of one run and, per hypothesis, a row of the predictions table."""

    report: dict[str, Any]
    predictions: list[dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """The content of ``{run}_metrics.json``; scores in percent, undefined ones are None."""
        return self.report

    def summary(self, *, drawn: bool = False) -> str:
        """The main figures as lines; ``drawn``: the scores as a table where standard output is a terminal."""
        return summarize(self.report, drawn=drawn)

    def write(self, output_dir: Path | str, run_name: str) -> tuple[Path, Path]:
        """Write both files (made anew at each evaluation of the run); returns their paths."""
        folder = Path(output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        metrics, table = folder / f"{run_name}_metrics.json", folder / f"{run_name}_predictions.csv"
        report = {"run": run_name, **self.report}
        text = json.dumps(report, ensure_ascii=False, indent=2, allow_nan=False)
        metrics.write_text(text + "\n", encoding="utf-8")
        with table.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(self.predictions[0]))
            writer.writeheader()
            writer.writerows(self.predictions)
        return metrics, table


@dataclass(frozen=True)
class _Draws:
    """Settings of the bootstrap, the same for all intervals of one evaluation."""

    resamples: int
    seed: int

    def intervals(self, rows: Sequence[Row], statistics: Mapping[str, Statistic]) -> dict[str, Any]:
        units = units_of([row.example for row in rows])
        return {
            name: interval(statistic, units, resamples=self.resamples, seed=self.seed).to_json()
            for name, statistic in statistics.items()
        }


def evaluate(
    examples: Sequence[Example],
    hypotheses: Sequence[Hypothesis],
    *,
    meta: Mapping[str, Any],
    train_texts: TrainTexts | None = None,
    train_speakers: Iterable[str] | None = None,
    seed: int = 0,
    resamples: int = 1000,
    silence: Mapping[str, Sequence[str]] | None = None,
    words: WordEvidence | None = None,
    dropped: Mapping[str, Any] | None = None,
    with_targets: bool = True,
) -> Evaluation:
    """Score ``hypotheses`` against the texts of ``examples``.

    meta: what the scores belong to (versions, commit, hashes), copied into the result as it is.
    train_texts: the training split's texts by task (``{"transcribe": …, "translate": …}``; a plain iterable
        counts as transcripts), for the nearest-training-sentence baseline.
    train_speakers: speakers of the training split; the other speakers are scored separately.
    silence: hypotheses for clips without speech, by kind (silence, noise, music).
    words: what is known of single words beside the hypotheses.
    dropped: what `left_out` gives; None: nobody says whether utterances were left out.
    with_targets: judge the scores by the targets of the guides, which are made for their demo corpus.

    Raises ``ValueError`` when a hypothesis is missing, doubled or of an unknown utterance.
    """
    rows = join(examples, hypotheses)
    draws = _Draws(resamples, seed)
    known = None if train_speakers is None else set(train_speakers)
    statistics = {task: task_statistics(task, found) for task, found in rows.items()}
    scores = _merge(draws.intervals(rows[task], found) for task, found in statistics.items())
    raw = _merge(
        draws.intervals(found, task_statistics(task, found, raw=True)) for task, found in rows.items()
    )
    language = next(iter(rows.values()))[0].language
    report = {
        "format": 1,
        "meta": dict(meta),
        "dropped": dict(dropped) if dropped is not None else None,
        **_rules(rows, draws),
        "scores": scores,
        "scores_raw": raw,
        "targets": _targets(scores) if with_targets else [],
        "speed": _speed(examples, hypotheses),
        **_transcription(rows.get(TRANSCRIBE, []), _texts_of(train_texts, TRANSCRIBE), draws),
        "degenerate": {task: degenerate(found) for task, found in rows.items()},
        "heard_domains": predicted_domains(examples, hypotheses, resamples=resamples, seed=seed),
        "no_speech": inserted_without_speech(silence or {}, language),
        "translation": _translation(rows, draws),
        "nearest_training_sentence": _nearest(rows, train_texts, draws),
        **_speakers(rows, statistics, known, draws),
        **word_sections(
            examples,
            hypotheses,
            words or WordEvidence(),
            train_speakers=known,
            resamples=resamples,
            seed=seed,
        ),
    }
    return Evaluation(report, [line for found in rows.values() for line in _predictions(found)])


def left_out(ledger: DropLedger, total: int, max_share: float) -> dict[str, Any]:
    """For the JSON: how many of ``total`` utterances are not scored, why, and whether that is more than allowed."""
    return {
        "utterances": len(ledger),
        "of": total,
        "share": len(ledger) / total if total else 0.0,
        "max_share": max_share,
        "too_many": ledger.exceeds(total, max_share),
        "reasons": ledger.counts(),
    }


def _merge(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return {key: value for part in parts for key, value in part.items()}


def _rules(rows: Mapping[str, Sequence[Row]], draws: _Draws) -> dict[str, Any]:
    languages = {task: sorted({row.language for row in found}) for task, found in rows.items()}
    targets = [row.language for row in rows.get(TRANSLATE, [])]
    return {
        "rows": {task: len(found) for task, found in rows.items()},
        "normalisation": {
            task: {
                language: {"name": normalizer(language).label, "rules": normalizer(language).rules}
                for language in found
            }
            for task, found in languages.items()
        },
        "raw": "as written, white space collapsed",
        "empty_references": {
            "rule": EMPTY_REFERENCE_RULE,
            **{task: sum(not row.reference for row in found) for task, found in rows.items()},
        },
        "signatures": signatures(bleu_tokenizer(targets)) if targets else {},
        "intervals": {"rule": UNIT_RULE, "resamples": draws.resamples, "seed": draws.seed},
    }


def _targets(scores: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "metric": one.name,
            "wanted": one.wanted,
            "value": (value := scores[one.name]["value"]),
            "met": one.reached(value),
        }
        for one in METRICS.values()
        if one.target is not None and one.name in scores
    ]


def _speed(examples: Sequence[Example], hypotheses: Sequence[Hypothesis]) -> dict[str, Any]:
    """Speed over all hypotheses, also those without a reference."""
    spoken = {hypothesis.id for hypothesis in hypotheses}
    durations = {example.id: example.duration for example in examples if example.id in spoken}
    seconds = sum(hypothesis.seconds for hypothesis in hypotheses)
    audio = sum(durations.values())
    measured = seconds > 0
    return {
        "rule": _SPEED_RULE,
        "audio_seconds": audio,
        "generation_seconds": seconds if measured else None,
        "rtf": seconds / audio if measured and audio else None,
        "rtfx": audio / seconds if measured else None,
        "mean_latency_seconds": seconds / len(durations) if measured else None,
    }


def _transcription(rows: Sequence[Row], train_texts: Iterable[str], draws: _Draws) -> dict[str, Any]:
    if not rows:
        return {}
    alignments = align_words([row.reference for row in rows], [row.hypothesis for row in rows])
    tagged = [
        (row.raw_reference.split(), row.example.word_languages) for row in rows if row.example.word_languages
    ]
    draw = drawing(draws.resamples, draws.seed)
    return {
        "accuracy": word_accuracy(rows, alignments, draw),
        "by_duration": by_duration(rows, draw),
        "by_domain": by_domain(rows, draw),
        "domain_gap": domain_gap(rows, resamples=draws.resamples, seed=draws.seed),
        "by_vocabulary": by_vocabulary(rows, alignments, train_texts, draw),
        "worst": worst(rows, alignments),
        "errors": {**error_shares(alignments), "most_frequent": confusions(alignments)},
        "word_languages": by_word_language(rows, alignments, resamples=draws.resamples, seed=draws.seed),
        "word_language_tagger": {"method": DESCRIPTION, "against_gold": accuracy(tagged) if tagged else None},
    }


def _translation(rows: Mapping[str, Sequence[Row]], draws: _Draws) -> dict[str, Any] | None:
    if TRANSLATE not in rows or not any(TRANSCRIBE in row.example.texts for row in rows[TRANSLATE]):
        return None
    return translation_section(
        rows[TRANSLATE], rows.get(TRANSCRIBE, []), resamples=draws.resamples, seed=draws.seed
    )


def _texts_of(texts: TrainTexts | None, task: str) -> Iterable[str]:
    by_task = texts if isinstance(texts, Mapping) else {TRANSCRIBE: texts or ()}
    return by_task.get(task) or ()


def _nearest(rows: Mapping[str, Sequence[Row]], texts: TrainTexts | None, draws: _Draws) -> dict[str, Any]:
    section: dict[str, Any] = {"rule": NEAREST_RULE}
    for task, found in rows.items():
        nearest = nearest_training_sentences(found, _texts_of(texts, task), seed=draws.seed)
        if nearest is None:
            continue
        recited = [
            make_row(row.example, task, row.raw_reference, text)
            for row, text in zip(found, nearest.texts, strict=True)
        ]
        section[task] = {
            **draws.intervals(recited, task_statistics(task, recited)),
            "training_sentences": nearest.training_sentences,
            "searched": nearest.searched,
            "references_in_training": sum(distance == 0 for distance in nearest.distances),
            "references_within_one_word": sum(distance <= 1 for distance in nearest.distances),
        }
    return section


def _speakers(
    rows: Mapping[str, Sequence[Row]],
    statistics: Mapping[str, Mapping[str, Statistic]],
    known: set[str] | None,
    draws: _Draws,
) -> dict[str, Any]:
    """Scores per speaker, and of the speakers of the training split (``known``) and of all others."""
    speakers: dict[str, dict[str, Any]] = {}
    groups: dict[str, dict[str, Any]] = {"heard": {}, "unheard": {}}
    for task, found in rows.items():
        for name in sorted({row.example.speaker for row in found if row.example.speaker}):
            chosen = [i for i, row in enumerate(found) if row.example.speaker == name]
            line = speakers.setdefault(name, {"heard_in_training": None if known is None else name in known})
            line[f"{task}_rows"] = len(chosen)
            line.update(draws.intervals([found[i] for i in chosen], _subset(statistics[task], chosen)))
        for group, scores in groups.items() if known is not None else ():
            chosen = [i for i, row in enumerate(found) if _group(row, known or set()) == group]
            scores[f"{task}_rows"] = len(chosen)
            if chosen:
                scores.update(draws.intervals([found[i] for i in chosen], _subset(statistics[task], chosen)))
    return {"by_speaker": speakers, "by_training": None if known is None else groups}


def _subset(statistics: Mapping[str, Statistic], chosen: Sequence[int]) -> dict[str, Statistic]:
    return {name: statistic.subset(chosen) for name, statistic in statistics.items()}


def _group(row: Row, known: set[str]) -> str | None:
    speaker = row.example.speaker
    return None if speaker is None else "heard" if speaker in known else "unheard"


def _predictions(rows: Sequence[Row]) -> list[dict[str, Any]]:
    words = align_words([row.reference for row in rows], [row.hypothesis for row in rows]).counts.tolist()
    characters = align_characters(
        [row.normalizer.characters(row.raw_reference) for row in rows],
        [row.normalizer.characters(row.raw_hypothesis) for row in rows],
    ).counts.tolist()
    return [_prediction(*line) for line in zip(rows, words, characters, strict=True)]


def _prediction(row: Row, words: Sequence[int], characters: Sequence[int]) -> dict[str, Any]:
    hits, substitutions, deletions, insertions = words
    audio = row.example.audio
    return {
        "id": row.example.id,
        "task": row.task,
        "language": row.language,
        "speaker": row.example.speaker or "",
        "group": row.example.group or "",
        "domain": row.example.domain or "",
        "reference": row.raw_reference,
        "hypothesis": row.raw_hypothesis,
        "normalised_reference": row.reference,
        "normalised_hypothesis": row.hypothesis,
        "words": hits + substitutions + deletions,
        "substitutions": substitutions,
        "deletions": deletions,
        "insertions": insertions,
        "characters": sum(characters[:3]),
        "character_errors": sum(characters[1:]),
        "changed": int(changes(row)) if row.task == TRANSLATE else "",
        "loops": int(loops(row)),
        "seconds": round(row.seconds, 6),
        "duration": round(row.example.duration, 6),
        "audio_path": audio.path,
        "audio_start": audio.start,
        "audio_end": "" if audio.end is None else audio.end,
    }
