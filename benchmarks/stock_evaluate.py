"""A Whisper folder scored on two tasks with transformers and datasets alone: arms A and B of `evaluate_two_tasks`.

    python benchmarks/stock_evaluate.py --model FOLDER --manifest test.tsv --root DIR --work DIR --report JSON [--best]

As the documentation has it: log-mels of 30 s by ``map``, `Seq2SeqTrainer.predict` with ``predict_with_generate`` for
one task after the other, `batch_decode`, WER and CER by jiwer, BLEU and chrF by sacrebleu. ``--best`` (arm B): features
by several processes, larger batches, data workers. Nothing here comes from this library.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import jiwer
import sacrebleu
from stock_recipe import TASKS, DataCollatorSpeechSeq2SeqWithPadding, features_of, processes, rows_of
from transformers import (
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    WhisperForConditionalGeneration,
    WhisperProcessor,
)


def hypotheses(trainer: Any, rows: Any, task: str, args: argparse.Namespace) -> list[str]:
    """What the model says of every row for one task."""
    settings = trainer.model.generation_config
    settings.language, settings.task = args.language, task
    found = trainer.predict(rows, max_new_tokens=args.max_new_tokens, num_beams=1).predictions
    tokenizer = trainer.processing_class.tokenizer
    found[found == -100] = tokenizer.pad_token_id
    return [text.strip() for text in tokenizer.batch_decode(found, skip_special_tokens=True)]


def scores(said: dict[str, list[str]], references: dict[str, list[str]]) -> dict[str, float]:
    """Corpus-level, percent."""
    heard, translated = ([text.lower() for text in said[task]] for task in TASKS)
    spoken, wanted = ([text.lower() for text in references[task]] for task in TASKS)
    return {
        "wer": 100 * jiwer.wer(spoken, heard),
        "cer": 100 * jiwer.cer(spoken, heard),
        "bleu": sacrebleu.corpus_bleu(translated, [wanted]).score,
        "chrf": sacrebleu.corpus_chrf(translated, [wanted]).score,
    }


def main() -> None:
    """Load, then by the clock: features, hypotheses, scores."""
    args = parser().parse_args()
    processor = WhisperProcessor.from_pretrained(args.model)
    model = WhisperForConditionalGeneration.from_pretrained(args.model).eval()
    best: dict[str, Any] = {}
    if args.best:
        best = {"per_device_eval_batch_size": 16, "dataloader_num_workers": args.workers}
    trainer = Seq2SeqTrainer(
        model=model,
        args=Seq2SeqTrainingArguments(
            output_dir=str(args.work / "run"),
            predict_with_generate=True,
            use_cpu=args.device == "cpu",
            report_to="none",
            disable_tqdm=True,
            **best,
        ),
        data_collator=DataCollatorSpeechSeq2SeqWithPadding(processor, model.config.decoder_start_token_id),
        processing_class=processor,
    )
    started = time.perf_counter()
    rows = rows_of(args.manifest)
    features = features_of(rows, processor, args.root, processes(args))
    prepared = time.perf_counter()
    said, references = {}, {}
    for task in TASKS:
        chosen = [i for i, name in enumerate(rows["task"]) if name == task]
        said[task] = hypotheses(trainer, features.select(chosen), task, args)
        references[task] = [rows[i]["text"] for i in chosen]
    generated = time.perf_counter()
    found = scores(said, references)
    done = time.perf_counter()
    report = {
        "prepare": prepared - started,
        "generate": generated - prepared,
        "score": done - generated,
        "seconds": done - started,
        "scores": found,
        "hypotheses": said,
    }
    args.report.write_text(json.dumps(report), encoding="utf8")


def parser() -> argparse.ArgumentParser:
    """The command line, which `our_evaluate` has too."""
    result = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("--model", type=Path, required=True)
    result.add_argument("--manifest", type=Path, required=True, help="tab-separated, one row per clip")
    result.add_argument("--root", type=Path, required=True, help="what audio_path is relative to")
    result.add_argument("--work", type=Path, required=True, help="folder for all that is written")
    result.add_argument("--report", type=Path, required=True)
    result.add_argument("--language", default="vi")
    result.add_argument("--max_new_tokens", type=int, default=80)
    result.add_argument("--best", action="store_true", help="stock's flags for speed")
    result.add_argument("--workers", type=int, default=1)
    result.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    result.add_argument("--context", choices=("full", "trimmed"), default="trimmed", help="ours")
    return result


if __name__ == "__main__":
    main()
