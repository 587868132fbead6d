"""The swap test: the same utterances with the tokens of other domains than their own."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from training.api.predicting import Decoding, setting
from training.base.errors import UserError
from training.data.amounts import cells
from training.data.dataset import SpeechDataset
from training.data.example import TRANSCRIBE
from training.decoding.loading import with_domain
from training.decoding.predict import PromptsOnly
from training.evaluation.domains import OWN, predicted_domains, table
from training.evaluation.domains import swap_test as compare
from training.models.architecture import SWAP

if TYPE_CHECKING:
    from training.decoding.loading import Trained

logger = logging.getLogger(__name__)


def check_swap_test(trained: Trained, domain: str | None) -> None:
    """`UserError` where it cannot be made, before anything is decoded."""
    if domain is not None:
        raise UserError(
            f"--swap_test --domain {domain}: the test begins with the utterances' own domains; leave --domain out"
        )
    if TRANSCRIBE not in trained.architecture.tasks:
        raise UserError(
            f"--swap_test: compares transcripts, and {trained.folder} was trained to translate alone"
        )
    with_domain(trained, SWAP, "--swap_test")


def check_domains(manifest: Any) -> None:
    """`UserError` where no utterance names a domain."""
    if not any(cells(manifest, "domain")):
        raise UserError(
            "--swap_test: no utterance names a domain, and the test is scored by domain; see column domain"
        )


def swap_test(trained: Trained, dataset: Any, own: Any, how: Decoding) -> dict[str, Any]:
    """Decode the same utterances with the other prompts, compare the scores and log the table.

    Args:
        trained: a model with domain tokens.
        dataset: what was decoded.
        own: examples and hypotheses with the utterances' own domains.
        how: options of decoding.

    Returns:
        What ``{run}_swap.json`` holds.
    """
    domains = trained.architecture.domains
    assert domains is not None
    decoded = {OWN: own}
    for prompt in ("swap", "none", *(["auto"] if domains.predictable else [])):
        other = with_domain(trained, prompt)
        rows = SpeechDataset(
            dataset.manifest, PromptsOnly(other.architecture.encode), trained.architecture.sample_rate
        )
        found = how.predict(other, rows)
        decoded[prompt] = (found.examples, found.hypotheses)
    resamples = setting(trained, "resamples") or 1000
    result = compare(decoded, resamples=resamples, seed=0)
    result["heard_domains"] = (
        predicted_domains(*decoded["auto"], resamples=resamples, seed=0) if "auto" in decoded else None
    )
    logger.info(table(result))
    return result
