"""What it costs a model in NeMo's layout that sherpa-onnx computes other log-mels than its feature extractor."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from training.data.audio import load_audio
from training.data.example import TRANSCRIBE
from training.export.decoded import Utterances, decode_all
from training.export.drift import check_drift
from training.models.architecture import Decoded, SpeechModel
from training.models.export_parts import NemoModel

NAME = "sherpa-onnx"
MOST = 1.0
"""Points of WER (CER for Korean) by which sherpa-onnx may be worse than this library on the same files."""
THREADS = 1


def sherpa_may(part: NemoModel, folder: Path, exported: SpeechModel, utterances: Utterances) -> str:
    """Whether sherpa-onnx may use a folder, with what was measured on the utterances of the comparison.

    Args:
        part: the model.
        folder: with ``model.onnx`` and ``vocab.txt``.
        exported: the folder in this library.
        utterances: of the comparison.
    """
    if importlib.util.find_spec("sherpa_onnx") is None:
        return "not measured: it computes other log-mels, and it was not installed where this was exported"
    if not any(TRANSCRIBE in utterances.rows[row].texts for row in range(len(utterances))):
        return "not measured: it computes other log-mels, and the utterances of the comparison have no transcripts"
    ours = decode_all(exported, utterances, None)
    theirs = _texts(part, folder, exported.sample_rate, utterances)
    pairs = [(one, {TRANSCRIBE: Decoded(text)}) for one, text in zip(ours, theirs, strict=True)]
    figures = check_drift(TRANSCRIBE, pairs, exported.languages, utterances, MOST).figures
    label, change = str(figures["metric"]).upper(), figures["value"]
    if change is None:
        return "not measured: it computes other log-mels, and the utterances of the comparison have empty transcripts"
    told = (
        f"its {label} is {figures['exported']:.2f} where that of polyvox is {figures['original']:.2f}, on "
        f"{len(utterances):,} utterances: it computes other log-mels"
    )
    return f"{'yes' if change <= MOST else 'no'}: {told}"


def _texts(part: NemoModel, folder: Path, sample_rate: int, utterances: Utterances) -> list[str]:
    """What sherpa-onnx makes of each utterance."""
    import sherpa_onnx

    recogniser: Any = sherpa_onnx.OfflineRecognizer.from_nemo_ctc(
        model=str(folder / "model.onnx"),
        tokens=str(folder / "vocab.txt"),
        num_threads=THREADS,
        sample_rate=sample_rate,
        feature_dim=part.mels,
    )
    found = []
    for row in range(len(utterances)):
        stream = recogniser.create_stream()
        stream.accept_waveform(sample_rate, load_audio(utterances.rows[row].audio, sample_rate))
        recogniser.decode_stream(stream)
        found.append(" ".join(stream.result.text.split()))
    return found
