"""Feature extractor and tokenizer of a speech translation model, saved so that stock transformers finds them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoFeatureExtractor, MBart50Tokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2Processor

from training.models.e2e.tokenizer import read_mbart_tokenizer

VOCABULARY_MAP = "vocabulary_map.json"


@dataclass
class SpeechProcessor:
    """The processor that is saved beside the weights.

    vocabulary_map: for each token id the id that it had in the decoder's published vocabulary, None for
    tokens that are new; None altogether where nothing was trimmed.
    """

    feature_extractor: Wav2Vec2FeatureExtractor
    tokenizer: MBart50Tokenizer
    vocabulary_map: list[int | None] | None = None

    def save_pretrained(self, folder: str | Path, **_: object) -> None:
        """``Wav2Vec2Processor``, its two parts on their own, and ``vocabulary_map.json`` where there is one."""
        Wav2Vec2Processor(self.feature_extractor, self.tokenizer).save_pretrained(folder)
        self.feature_extractor.save_pretrained(folder)
        if self.vocabulary_map is not None:
            mapping = {str(new): old for new, old in enumerate(self.vocabulary_map)}
            Path(folder, VOCABULARY_MAP).write_text(json.dumps(mapping), encoding="utf-8")

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> SpeechProcessor:
        """The counterpart of `save_pretrained`."""
        path = Path(folder, VOCABULARY_MAP)
        mapping = None
        if path.exists():
            mapping = list(json.loads(path.read_text(encoding="utf-8")).values())
        return cls(AutoFeatureExtractor.from_pretrained(folder), read_mbart_tokenizer(folder), mapping)
