"""A VoxLM of some 100,000 weights, its Whisper and its language model made by code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import whisper_assets

from training.data.example import AudioRef, Example, Word
from training.models.architecture import Architecture, BuildContext
from training.models.lookup import load
from training.models.voxlm import causal_lm as causal

TEXTS = ("a cat sat on the mat", "the dog ran home", "we met at noon", "she sells sea shells")


def parts(folder: Path) -> tuple[Path, Path]:
    """Folders of a tiny Whisper and of a tiny language model."""
    whisper, llm = folder / "whisper", folder / "llm"
    architecture = whisper_assets.tiny(task="transcribe", language="en")
    architecture.model.save_pretrained(whisper)
    architecture.processor.save_pretrained(whisper)
    architecture.processor.feature_extractor.save_pretrained(whisper)
    sizes = causal.Sizes(
        vocab_size=300, hidden_size=32, layers=2, heads=2, intermediate_size=64, positions=512
    )
    causal.train(TEXTS, llm, sizes=sizes, steps=2, batch_size=2, report=lambda text: None)
    return whisper, llm


def context() -> BuildContext:
    return BuildContext(texts=lambda: (("transcribe", "en", text) for text in TEXTS))


def tiny(folder: Path, **options: Any) -> Architecture:
    """A new one of the two folders in ``folder`` (see `parts`), or what ``name`` says."""
    module = load("voxlm")
    known = {"encoder_context": "trimmed", "context_margin_seconds": 0.5, "max_label_tokens": 64}
    if "name" not in options:
        known |= {"audio_encoder": str(folder / "whisper"), "llm": str(folder / "llm")}
    return module.build(module.Options(**{**known, **options}), context())


def saved(architecture: Architecture, folder: Path) -> Path:
    """The architecture's folder, as a run writes it."""
    architecture.model.save_pretrained(folder)
    architecture.processor.save_pretrained(folder)
    architecture.processor.feature_extractor.save_pretrained(folder)
    return folder


def example(name: str, seconds: float, text: str | None = None) -> Example:
    """An utterance whose words fill its time evenly."""
    words = (text or "").split()
    step = seconds / max(1, len(words))
    times = tuple(Word(text=word, start=i * step, end=(i + 1) * step) for i, word in enumerate(words))
    texts = {} if text is None else {"transcribe": text}
    return Example(
        id=name, audio=AudioRef(path=f"{name}.wav"), duration=seconds, texts=texts, language="en", words=times
    )


def features(
    architecture: Architecture, lengths: tuple[float, ...] = (1.0, 2.5), texts: tuple[str, ...] = TEXTS
) -> list[Any]:
    """Encoded noise of the given lengths in seconds, with these texts."""
    return [
        architecture.encode(example(f"u{i}", n, text), whisper_assets.noise(n, i))
        for i, (n, text) in enumerate(zip(lengths, texts, strict=False))
    ]
