"""A domain_whisper folder in stock transformers, beside our own transcripts of the same utterances.

    python benchmarks/stock_whisper.py --model_dir outputs/demo_domain_whisper \\
        --predictions outputs/results/adapted_predictions.csv [--rows 40] [--work outputs/stock]

Whisper's own classes load the folder, get the prompt with the utterance's domain, and hear each clip padded to 30 s
and on a context trimmed as ours (the clip and half a second). Each way's transcripts are a predictions table in
``--work``; `polyvox compare` sets them against ours, in all and by domain.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import soundfile
import torch
from real_speech import polyvox
from transformers import WhisperForConditionalGeneration, WhisperProcessor

FRAMES_PER_SECOND = 50
Row = dict[str, str]


class Stock:
    """Whisper's classes on one folder. margin: seconds of silence after each clip; None: all of it up to 30 s."""

    def __init__(self, folder: Path, margin: float | None) -> None:
        self.model = WhisperForConditionalGeneration.from_pretrained(folder)
        self.processor = WhisperProcessor.from_pretrained(folder)
        self.positions = self.model.model.encoder.embed_positions.weight.detach()
        self.margin = margin

    def __call__(self, row: Row) -> str:
        """What the utterance of a row of a predictions table says."""
        sound, rate = soundfile.read(row["audio_path"], dtype="float32")
        features = self.processor(sound, sampling_rate=rate, return_tensors="pt").input_features
        if self.margin is not None:
            features = self.trimmed(features, len(sound) / rate + self.margin)
        names = f"<|startoftranscript|> <|{row['language']}|> <|transcribe|> <|domain:{row['domain']}|> <|notimestamps|>"
        prompt = self.processor.tokenizer.convert_tokens_to_ids(names.split())
        ids = self.model.generate(
            features, decoder_input_ids=torch.tensor([prompt]), language=row["language"], num_beams=1
        )
        return self.processor.batch_decode(ids, skip_special_tokens=True)[0].strip()

    def trimmed(self, features: torch.Tensor, seconds: float) -> torch.Tensor:
        """The first ``seconds`` of log-mels ``[1, mels, frames]``, and an encoder that takes no more."""
        count = min(round(seconds * FRAMES_PER_SECOND), len(self.positions))
        self.model.config.max_source_positions = count
        self.model.model.encoder.embed_positions = torch.nn.Embedding.from_pretrained(self.positions[:count])
        return features[:, :, : 2 * count]


def chosen(predictions: Path, rows: int) -> list[Row]:
    """``rows`` whole files of each domain, from all over the table."""
    with predictions.open(encoding="utf8", newline="") as file:
        whole = [row for row in csv.DictReader(file) if not row["audio_end"]]
    groups = [
        [row for row in whole if row["domain"] == name] for name in sorted({r["domain"] for r in whole})
    ]
    return [row for group in groups for row in group[:: max(1, len(group) // rows)][:rows]]


def table(path: Path, rows: Sequence[Row], say: Callable[[Row], str]) -> Path:
    """A predictions table of ``rows`` with what ``say`` says of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "hypothesis": say(row)} for row in rows)
    return path


def main(argv: Sequence[str] | None = None) -> int:
    """0; the status of a comparison that fails."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model_dir", type=Path, required=True)
    parser.add_argument("--predictions", type=Path, required=True, help="of an evaluation of that folder")
    parser.add_argument("--rows", type=int, default=40, help="utterances of each domain (40)")
    parser.add_argument("--work", type=Path, default=Path("outputs/stock"))
    args = parser.parse_args(argv)
    rows = chosen(args.predictions, args.rows)
    ours = table(args.work / "ours_predictions.csv", rows, lambda row: row["hypothesis"])
    for name, margin in (("full", None), ("trimmed", 0.5)):
        stock = table(args.work / f"{name}_predictions.csv", rows, Stock(args.model_dir, margin))
        print(f"B: stock transformers, {name} context", flush=True)
        polyvox("compare", ours, stock)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
