"""WER and CER by jiwer, BLEU and chrF by sacrebleu, as statistics that add up over utterances.

All four are corpus-level: counts are summed over the utterances first and the score is taken of the sums
(the mean of utterance scores is something else). An empty reference adds nothing to the number of reference
words; words of a hypothesis where it is empty are insertions and count as errors.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from training.data import metric as metrics
from training.data.example import TRANSCRIBE, TRANSLATE
from training.data.metric import Metric
from training.evaluation.rows import Row
from training.evaluation.statistic import Statistic
from training.evaluation.word_alignment import align_characters, align_words

EMPTY_REFERENCE_RULE = (
    "an empty reference adds no reference words; every word said for it is an insertion; "
    "a score over empty references only is undefined (null)"
)
_TOKENIZERS = {"zh": "zh", "ja": "char", "ko": "char"}


@functools.lru_cache(maxsize=8)
def bleu_metric(tokenizer: str = "13a") -> BLEU:
    return BLEU(tokenize=tokenizer, force=True)


@functools.lru_cache(maxsize=1)
def chrf_metric() -> CHRF:
    return CHRF()


def bleu_tokenizer(languages: Sequence[str]) -> str:
    """sacrebleu's tokenizer for a target language; 13a unless all rows share a language that needs another."""
    found = {_TOKENIZERS.get(language, "13a") for language in languages}
    return found.pop() if len(found) == 1 else "13a"


def bleu_statistic(references: Sequence[str], hypotheses: Sequence[str], tokenizer: str = "13a") -> Statistic:
    """sacrebleu's sentence counts (lengths, n-grams matched and n-grams of the hypothesis); the score of a sum is sacrebleu's own."""
    metric = bleu_metric(tokenizer)
    return _sacrebleu(
        metric, references, hypotheses, lengths=2 + 2 * metric.max_ngram_order, reference_length=1
    )


def chrf_statistic(references: Sequence[str], hypotheses: Sequence[str]) -> Statistic:
    metric = chrf_metric()
    return _sacrebleu(metric, references, hypotheses, lengths=3 * metric.order, reference_length=1)


def _sacrebleu(
    metric: BLEU | CHRF,
    references: Sequence[str],
    hypotheses: Sequence[str],
    lengths: int,
    reference_length: int,
) -> Statistic:
    # sacrebleu offers per-sentence statistics only through these two methods, which its own significance
    # tests are built on; a test compares the result with `corpus_score`.
    stats = metric._extract_corpus_statistics(list(hypotheses), [list(references)]) if references else []
    matrix = np.array(stats, dtype=np.int64).reshape(-1, lengths)

    def score(counts: Sequence[int]) -> float:
        if not counts[reference_length]:
            return math.nan
        return float(metric._compute_score_from_stats(list(counts)).score)

    return Statistic(matrix, score)


def signatures(tokenizer: str = "13a") -> dict[str, str]:
    """sacrebleu's signatures of the two metrics as they are computed here."""
    bleu, chrf = BLEU(tokenize=tokenizer, force=True), CHRF()
    for metric in (bleu, chrf):
        metric.corpus_score(["a"], [["a"]])  # the signature is only known after a first use
    return {metrics.BLEU.name: str(bleu.get_signature()), metrics.CHRF.name: str(chrf.get_signature())}


def word_errors(rows: Sequence[Row], raw: bool = False) -> Statistic:
    """Word errors of transcription rows, normalised or as written."""
    return align_words(*_texts(rows, raw)).error_rate()


def character_errors(rows: Sequence[Row], raw: bool = False) -> Statistic:
    """Character errors, without spaces in rows whose language has none. As written, with all spaces."""
    references, hypotheses = (
        [_spaced(row, text, raw) for row, text in zip(rows, texts, strict=True)]
        for texts in _texts(rows, raw)
    )
    return align_characters(references, hypotheses).error_rate()


def character_errors_with_spaces(rows: Sequence[Row], raw: bool = False) -> Statistic | None:
    """Character errors with spaces; None where `character_errors` has them already."""
    if raw or all(row.normalizer.spaces_in_cer for row in rows):
        return None
    return align_characters(*_texts(rows, raw)).error_rate()


def translation_bleu(rows: Sequence[Row], raw: bool = False) -> Statistic:
    """BLEU of translation rows with the tokenizer of their language."""
    return bleu_statistic(*_texts(rows, raw), bleu_tokenizer([row.language for row in rows]))


def translation_chrf(rows: Sequence[Row], raw: bool = False) -> Statistic:
    """chrF of translation rows."""
    return chrf_statistic(*_texts(rows, raw))


STATISTICS: Mapping[Metric, Callable[[Sequence[Row], bool], Statistic | None]] = {
    metrics.WER: word_errors,
    metrics.CER: character_errors,
    metrics.CER_SPACES: character_errors_with_spaces,
    metrics.BLEU: translation_bleu,
    metrics.CHRF: translation_chrf,
}
"""Score of texts → how it is computed of rows, normalised or (True) as written; None: these rows have no such score."""


def task_statistics(task: str, rows: Sequence[Row], raw: bool = False) -> dict[str, Statistic]:
    """The scores that belong to the task, by name: `STATISTICS` of ``rows``, normalised or as written."""
    found = {one.name: compute(rows, raw) for one, compute in STATISTICS.items() if one.task == task}
    return {name: statistic for name, statistic in found.items() if statistic is not None}


def transcript_statistics(rows: Sequence[Row], raw: bool = False) -> dict[str, Statistic]:
    """The scores of transcription rows."""
    return task_statistics(TRANSCRIBE, rows, raw)


def translation_statistics(rows: Sequence[Row], raw: bool = False) -> dict[str, Statistic]:
    """The scores of translation rows."""
    return task_statistics(TRANSLATE, rows, raw)


def domain_rows(rows: Sequence[Row]) -> dict[str, list[int]]:
    """Domain → indices of its rows, by name; rows without a domain are in none."""
    found: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        if row.example.domain:
            found.setdefault(row.example.domain, []).append(index)
    return dict(sorted(found.items()))


def _texts(rows: Sequence[Row], raw: bool) -> tuple[list[str], list[str]]:
    if raw:
        return [row.raw_reference for row in rows], [row.raw_hypothesis for row in rows]
    return [row.reference for row in rows], [row.hypothesis for row in rows]


def _spaced(row: Row, text: str, raw: bool) -> str:
    return text if raw or row.normalizer.spaces_in_cer else text.replace(" ", "")
