"""The pipelines that others use a Whisper folder with: stock transformers and faster-whisper."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from training.base.errors import UserError

RATE = 16_000
INSTALL = (
    "faster-whisper is not installed: pip install 'polyvox[deploy]', or leave it out with --no_faster_whisper"
)


@dataclass(frozen=True)
class Output:
    """What a pipeline wrote for one sound.

    text: without times. spans: (start, end) in seconds of the segments that have text. seconds: wall time.
    """

    text: str
    spans: tuple[tuple[float, float], ...]
    seconds: float


class Pipeline(Protocol):
    """``pipeline(waveform, language, long)``: float32 ``[samples]`` at 16 kHz, ISO 639 code, whether it is a long file."""

    name: str
    settings: dict[str, Any]

    def __call__(self, waveform: np.ndarray, language: str, *, long: bool) -> Output: ...


class StockTransformers:
    """``WhisperForConditionalGeneration.generate`` of transformers as its documentation calls it.

    Short sounds: padded to 30 s, greedy, no timestamps. Long ones: its sequential long-form decoding with timestamps,
    greedy; no temperature fallback and no previous text, which are off by default there.
    """

    name = "transformers"

    def __init__(self, folder: Path, device: str) -> None:
        import torch
        from transformers import WhisperForConditionalGeneration, WhisperProcessor

        self.processor = WhisperProcessor.from_pretrained(str(folder))
        model: Any = WhisperForConditionalGeneration.from_pretrained(str(folder), dtype=torch.float32)
        self.model, self.device = model.to(device).eval(), device
        self.settings = {"precision": "float32", "beams": 1, "fallback": False, "previous_text": False}

    def __call__(self, waveform: np.ndarray, language: str, *, long: bool) -> Output:
        import torch

        started = time.perf_counter()
        extractor = self.processor.feature_extractor
        whole = len(waveform) > extractor.n_samples
        inputs = extractor(
            waveform,
            sampling_rate=RATE,
            return_tensors="pt",
            return_attention_mask=True,
            **({"truncation": False, "padding": "longest"} if whole else {}),
        ).to(self.device)
        with torch.inference_mode():
            found = self.model.generate(
                **inputs,
                language=language,
                task="transcribe",
                num_beams=1,
                do_sample=False,
                **({"return_timestamps": True, "return_segments": True} if long else {}),
            )
        return self._output(found, len(waveform) / RATE, started, long)

    def _output(self, found: Any, duration: float, started: float, long: bool) -> Output:
        tokenizer = self.processor.tokenizer
        ids = found["sequences"][0] if long else found[0]
        text = tokenizer.decode(ids, skip_special_tokens=True).strip()
        if not long:
            return Output(text, ((0.0, duration),) if text else (), time.perf_counter() - started)
        spans = tuple(
            (float(one["start"]), float(one["end"]))
            for one in found["segments"][0]
            if tokenizer.decode(one["tokens"], skip_special_tokens=True).strip()
        )
        return Output(text, spans, time.perf_counter() - started)


class FasterWhisper:
    """faster-whisper on the folder that CTranslate2's own converter makes, float32, as many threads as torch has.

    Greedy (``beam_size=1``); all else is its default: temperature fallback, previous text as prompt, timestamps.
    """

    name = "faster_whisper"

    def __init__(self, folder: Path, work: Path, device: str, seed: int = 0) -> None:
        import ctranslate2
        import torch
        from faster_whisper import WhisperModel

        ctranslate2.set_random_seed(seed)  # the fallback draws tokens
        threads = torch.get_num_threads()
        self.model = WhisperModel(
            str(convert(folder, work)), device=device, compute_type="float32", cpu_threads=threads
        )
        self.settings = {
            "precision": "float32",
            "beams": 1,
            "fallback": True,
            "previous_text": True,
            "threads": threads,
        }

    def __call__(self, waveform: np.ndarray, language: str, *, long: bool) -> Output:
        started = time.perf_counter()
        segments, _ = self.model.transcribe(waveform, language=language, task="transcribe", beam_size=1)
        found = [one for one in segments if one.text.strip()]
        spans = tuple((float(one.start), float(one.end)) for one in found)
        text = "".join(one.text for one in found).strip()
        return Output(text, spans, time.perf_counter() - started)


def require_faster_whisper() -> None:
    """`UserError` that says how to install it."""
    if importlib.util.find_spec("faster_whisper") is None or importlib.util.find_spec("ctranslate2") is None:
        raise UserError(INSTALL)


def convert(folder: Path, work: Path) -> Path:
    """The folder in CTranslate2's format, float32, in ``work``, with the files that faster-whisper looks for."""
    from ctranslate2.converters import TransformersConverter

    copied = [name for name in ("tokenizer.json", "preprocessor_config.json") if (folder / name).is_file()]
    target = work / "ctranslate2"
    TransformersConverter(str(folder), copy_files=copied).convert(str(target), quantization="float32")
    return target


def without_text(spans: Sequence[tuple[float, float]], seconds: float) -> float:
    """Seconds that no span covers, of a sound of ``seconds``."""
    covered, reached = 0.0, 0.0
    for start, end in sorted(spans):
        start, end = max(start, reached), min(end, seconds)
        if end > start:
            covered, reached = covered + end - start, end
    return max(0.0, seconds - covered)
