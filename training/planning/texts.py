"""Texts of a dry run: the longest of the data, and made-up ones where there are none."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

from training.config.schema import Config
from training.models.architecture import Architecture

ONSETS = "b c ch d đ g gi h kh l m n ng nh p ph qu r s t th tr v x"
RIMES = "a ai ao an anh ay e em en eo i iên in o oi on ong u ui un ủa ưng ươi ương âm ân ê ô ơ"
LONGEST = 32
"""Longest texts that are tokenised to find the longest labels."""


def longest_labels(architecture: Architecture, dataset: Any) -> int:
    """Label ids of the longest texts, counted with the run's own tokenizer on silence as long as their clips."""
    rows = range(len(dataset))
    longest = sorted(
        rows, key=lambda i: -max((len(t) for t in dataset.manifest[i].texts.values()), default=0)
    )
    lengths = [1]
    for i in longest[:LONGEST]:
        example = dataset.manifest[i]
        silence = np.zeros(round(example.duration * architecture.sample_rate), dtype=np.float32)
        try:
            features = architecture.encode(example, silence)
        except ValueError:  # the labels fit the sound itself, which may last a little longer than is stated
            features = dataset[i]
        lengths += [len(ids) for ids in features["labels"].values()]
    return max(lengths)


def stand_in_texts(config: Config) -> Iterator[tuple[str, str | None, str]]:
    """Made-up syllables, many enough for a tokenizer from scratch to reach the size that it is given."""
    syllables = [onset + rime for onset, rime in product(ONSETS.split(), RIMES.split())]
    drawn = np.random.default_rng(0).integers(0, len(syllables), (1500, 8, 2))
    for line in drawn:
        yield "transcribe", None, " ".join("".join(syllables[i] for i in word) for word in line)
