"""Training step for two tasks: rows doubled and padded to 30 s, against one encoding on a full or trimmed context.

    python benchmarks/multitask_step.py [--repeats 3] [--output step.json]
    python benchmarks/multitask_step.py --quality [--steps 800] [--output quality.json]

Arms, interleaved, same weights, clips and target tokens, whisper-tiny's shape, fp32, forward, backward and
AdamW: ``doubled`` is stock Whisper on a batch in which each clip stands twice, padded to 30 s; ``full`` encodes
once at 30 s; ``trimmed`` encodes once on the longest clip and a second of margin. ``shipped`` is what a run
with the shipped configuration pays: trimmed batches, and the configured share of full ones. No ratio is
printed unless loss and gradients of ``doubled`` and ``full`` agree to 1e-5.

``--quality`` trains small models from scratch on spoken digit strings, three seeds, equal steps, trimmed
against padded, and lets stock ``generate`` transcribe at 30 s from the trimmed model's folder.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from common import new_file
from transformers import WhisperForConditionalGeneration, WhisperProcessor
from transformers.utils import logging

from training.data.batch_policy import longest_first
from training.data.example import TASKS, AudioRef, Example
from training.data.sampler import DurationBatchSampler
from training.engine.versions import versions
from training.models.architecture import Architecture, BuildContext
from training.models.batch import model_inputs
from training.models.common.sizes import SIZES
from training.models.lookup import load

CLIPS, TOKENS_PER_SECOND, MARGIN = 4, 4, 1.0


def main() -> None:
    """Run the timing or the quality gate and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batches", type=int, default=4, help="batches of 2-10 s clips per repeat")
    parser.add_argument("--quality", action="store_true")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=new_file)
    args = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    result = quality(args.steps, args.seeds) if args.quality else timing(args.repeats, args.batches)
    result["machine"] = {"cores": os.cpu_count(), "load": os.getloadavg(), "versions": versions()}
    if args.output:
        args.output.write_text(json.dumps(result, indent=1), encoding="utf8")


# Timing


def shipped_share() -> float:
    """``full_context_share`` of the shipped configuration."""
    return load("whisper").Options(name="openai/whisper-tiny").full_context_share


def tiny_architecture(context: str) -> Architecture:
    """whisper-tiny's shape with random weights; text ids are drawn from its real range."""
    module = load("whisper")
    config = {k: v for k, v in SIZES["openai/whisper-tiny"]["config"].items() if not k.endswith("token_id")}
    del config["vocab_size"]
    options = module.Options(
        sizes={**config, "dropout": 0.0, "vocab_size": 256},
        encoder_context=context,
        context_margin_seconds=MARGIN,
        full_context_share=0.0,
    )
    architecture = module.build(options, BuildContext(texts=lambda: iter([("transcribe", "vi", "a b")])))
    architecture.model.resize_token_embeddings(51_865, mean_resizing=False)
    return architecture


def stock_of(architecture: Architecture) -> Any:
    """Stock Whisper with the architecture's weights."""
    stock = WhisperForConditionalGeneration(architecture.model.config)
    stock.load_state_dict(architecture.model.state_dict())
    return stock


def clips(batch: int) -> list[tuple[float, np.ndarray, list[list[int]]]]:
    """Clips of 2-10 s and their target tokens for both tasks."""
    rng = np.random.default_rng(batch)
    rows = []
    for _ in range(CLIPS):
        seconds = rng.uniform(2, 10)
        sound = rng.standard_normal(int(16_000 * seconds)).astype(np.float32) * 0.1
        tokens = [rng.integers(600, 50_000, int(TOKENS_PER_SECOND * seconds)).tolist() for _ in TASKS]
        rows.append((seconds, sound, tokens))
    return rows


def collate(architecture: Architecture, batch: int) -> dict[str, Any]:
    """The architecture's own collator over the batch's clips, with the drawn tokens as texts."""
    rows = []
    for i, (seconds, sound, tokens) in enumerate(clips(batch)):
        features = architecture.encode(
            Example(id=f"{batch}-{i}", audio=AudioRef(path=""), duration=seconds, texts={}), sound
        )
        for task, ids in zip(TASKS, tokens, strict=True):
            features["labels"][task] += [*ids, 256]
        rows.append(features)
    return architecture.collate(rows)


def doubled_step(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Loss as the usual recipe has it: each clip once for either task."""
    return model(
        input_features=batch["input_features"].repeat_interleave(2, dim=0),
        decoder_input_ids=batch["decoder_input_ids"].flatten(0, 1),
        labels=batch["labels"].flatten(0, 1),
    ).loss


def our_step(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Loss of one encoding for both tasks."""
    return model(**model_inputs(batch)).loss


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    """Gradients by parameter name."""
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def check(full: Architecture, stock: Any) -> dict[str, float]:
    """Relative differences of loss and gradients between the doubled rows and one encoding at 30 s."""
    batch = collate(full, 0)
    theirs, ours = doubled_step(stock, batch), our_step(full.model, batch)
    expected, got = gradients(stock, theirs), gradients(full.model, ours)
    # The scale of a gradient is the largest of its tensor; keys' biases have none but rounding noise.
    largest = max(g.abs().max() for g in expected.values())
    worst = max(
        float(
            (got[name] - expected[name]).abs().max()
            / max(float(expected[name].abs().max()), 1e-4 * float(largest))
        )
        for name in expected
    )
    return {"loss": abs(ours.item() - theirs.item()) / theirs.item(), "gradient": worst}


def timing(repeats: int, batches: int) -> dict[str, Any]:
    """Seconds per step of each arm, and the ratios; refuses to give ratios where the gradients differ."""
    full, trimmed = tiny_architecture("full"), tiny_architecture("trimmed")
    trimmed.model.load_state_dict(full.model.state_dict())
    stock = stock_of(full)
    difference = check(full, stock)
    print(
        f"difference to stock: loss {difference['loss']:.1e}, gradients {difference['gradient']:.1e} (relative)"
    )
    if max(difference.values()) > 1e-5:
        raise SystemExit("loss or gradients differ by more than 1e-5: no ratio is worth printing")
    arms: dict[str, tuple[Any, Callable[..., torch.Tensor], Architecture]] = {
        "doubled": (stock, doubled_step, full),
        "full": (full.model, our_step, full),
        "trimmed": (trimmed.model, our_step, trimmed),
    }
    seconds = measure(arms, repeats, batches)
    share = shipped_share()
    rows = [{**row, "shipped": (1 - share) * row["trimmed"] + share * row["full"]} for row in seconds]
    names = (*arms, "shipped")
    print(f"\n{'arm':<10}{'median s/step':>15}{'range':>20}{'times faster':>14}")
    medians = {name: statistics.median(row[name] for row in rows) for name in names}
    ratios = {name: statistics.median(row["doubled"] / row[name] for row in rows) for name in names}
    for name in names:
        values = [row[name] for row in rows]
        spread = f"{min(values):.2f}-{max(values):.2f}"
        print(f"{name:<10}{medians[name]:>15.2f}{spread:>20}{ratios[name]:>14.1f}")
    print(f"shipped: {1 - share:.0%} trimmed and {share:.0%} full batches; load {os.getloadavg()[0]:.1f}")
    return {"difference": difference, "seconds": rows, "ratios": ratios, "full_context_share": share}


def measure(arms: dict[str, Any], repeats: int, batches: int) -> list[dict[str, float]]:
    """Mean seconds per step of each arm in each repeat; arms take turns batch by batch."""
    optimizers = {
        name: torch.optim.AdamW(model.parameters(), lr=1e-6) for name, (model, _, _) in arms.items()
    }
    rows = []
    for repeat in range(repeats + 1):
        spent = dict.fromkeys(arms, 0.0)
        for number in range(batches if repeat else 1):
            for name, (model, step, architecture) in arms.items():
                batch = collate(architecture, number)
                started = time.perf_counter()
                step(model, batch).backward()
                optimizers[name].step()
                optimizers[name].zero_grad()
                spent[name] += time.perf_counter() - started
        if repeat:  # the first round warms up
            rows.append({name: value / batches for name, value in spent.items()})
    return rows


# Quality

DIGITS = ("không", "một", "hai", "ba", "bốn", "năm", "sáu", "bảy", "tám", "chín")
ENGLISH = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def digit_strings(count: int, seed: int) -> list[tuple[str, str, np.ndarray]]:
    """(transcript, translation, sound) of strings of three to five digits, one of them now and then in English."""
    import librosa

    from training.synthetic.espeak import Espeak, ssml

    rng = np.random.default_rng(seed)
    speaker = Espeak(seed)
    rows = []
    for _ in range(count):
        digits = rng.integers(0, 10, rng.integers(3, 6)).tolist()
        foreign = int(rng.integers(0, len(digits))) if rng.random() < 0.5 else -1
        words = [ENGLISH[d] if i == foreign else DIGITS[d] for i, d in enumerate(digits)]
        speaker.set_voice(str(rng.choice(["vi", "vi+f2", "vi+m3"])), rate=int(rng.integers(150, 210)))
        parts = [(word, "en" if i == foreign else None) for i, word in enumerate(words)]
        sound = speaker.speak(ssml(parts)).astype(np.float32) / 32768
        sound = librosa.resample(sound, orig_sr=speaker.sample_rate, target_sr=16_000)
        sound += rng.standard_normal(len(sound)).astype(np.float32) * 0.003
        rows.append((" ".join(words), " ".join(DIGITS[d] for d in digits), sound))
    return rows


def small_architecture(context: str, seed: int, rows: list[tuple[str, str, np.ndarray]]) -> Architecture:
    """A Whisper of some 400,000 weights from scratch."""
    module = load("whisper")
    sizes = {
        "vocab_size": 320,
        "d_model": 96,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 192,
        "decoder_ffn_dim": 192,
    }
    options = module.Options(
        sizes=sizes,
        encoder_context=context,
        full_context_share=shipped_share() if context == "trimmed" else 0.0,
        ctc_weight=0.3,
    )
    texts = [(task, "vi", row[i]) for row in rows for i, task in enumerate(TASKS)]
    torch.manual_seed(seed)
    return module.build(options, BuildContext(texts=lambda: iter(texts), seed=seed))


def train(architecture: Architecture, rows: list[tuple[str, str, np.ndarray]], steps: int, seed: int) -> None:
    """AdamW, one-cycle, batches of 8 by duration: the same batches for the same seed."""
    torch.manual_seed(seed)
    collate = architecture.train_collate or architecture.collate  # with the share of full batches
    features = [
        architecture.encode(
            Example(
                id=str(i),
                audio=AudioRef(path=""),
                duration=len(row[2]) / 16_000,
                texts=dict(zip(TASKS, row[:2], strict=True)),
            ),
            row[2],
        )
        for i, row in enumerate(rows)
    ]
    sampler = DurationBatchSampler([f["seconds"] for f in features], batch_size=8, seed=seed)
    optimizer = torch.optim.AdamW(architecture.model.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps)
    architecture.model.train()
    done = 0
    while done < steps:
        sampler.set_epoch(done)
        for indices in sampler:
            loss = our_step(architecture.model, collate([features[i] for i in indices]))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(architecture.model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            done += 1
            if done == steps:
                break
    architecture.model.eval()


def word_error_rate(references: list[str], hypotheses: list[str]) -> float:
    """Corpus-level, percent."""
    import jiwer

    return 100 * jiwer.wer(references, hypotheses)


def our_hypotheses(architecture: Architecture, rows: list[tuple[str, str, np.ndarray]]) -> list[str]:
    """Transcripts by the architecture's own generation."""
    said: list[str] = [""] * len(rows)
    for indices in longest_first([len(row[2]) / 16_000 for row in rows], 60.0):
        features = [
            architecture.encode(Example(id=str(i), audio=AudioRef(path=""), duration=1, texts={}), rows[i][2])
            for i in indices
        ]
        ids = architecture.generate(architecture.collate(features), max_new_tokens=60, do_sample=False)[
            "transcribe"
        ]
        for i, row in zip(indices, ids.tolist(), strict=True):
            said[i] = architecture.text(row)
    return said


def stock_hypotheses(architecture: Architecture, rows: list[tuple[str, str, np.ndarray]]) -> list[str]:
    """Transcripts by stock transformers at 30 s, from the saved folder."""
    with tempfile.TemporaryDirectory() as folder:
        architecture.model.save_pretrained(folder)
        architecture.processor.save_pretrained(folder)
        model = WhisperForConditionalGeneration.from_pretrained(folder).eval()
        processor = WhisperProcessor.from_pretrained(folder)
    said = []
    for i in range(0, len(rows), 10):
        sounds = [row[2] for row in rows[i : i + 10]]
        mels = processor(sounds, sampling_rate=16_000, return_tensors="pt").input_features
        ids = model.generate(mels, language="vi", task="transcribe", max_new_tokens=60, do_sample=False)
        said += processor.batch_decode(ids, skip_special_tokens=True)
    return [text.strip() for text in said]


def quality(steps: int, seeds: int) -> dict[str, Any]:
    """WER of padded and trimmed training at equal steps, and of stock generation from the trimmed folder.

    The CTC head beside the decoder brings both to where they listen in a few hundred steps.
    """
    rows, test = digit_strings(1600, 1), digit_strings(150, 2)
    known = {row[0] for row in rows}
    test = [row for row in test if row[0] not in known]
    references = [row[0] for row in test]
    results = []
    print(f"{len(rows)} training strings, {len(test)} unseen ones, {steps} steps\n")
    print(
        f"{'seed':<6}{'padded WER':>12}{'trimmed WER':>13}{'stock, 30 s':>13}{'padded s':>10}{'trimmed s':>11}"
    )
    for seed in range(seeds):
        row: dict[str, float] = {}
        for context in ("full", "trimmed"):
            architecture = small_architecture(context, seed, rows)
            started = time.perf_counter()
            train(architecture, rows, steps, seed)
            row[f"{context}_seconds"] = time.perf_counter() - started
            row[context] = word_error_rate(references, our_hypotheses(architecture, test))
        row["stock"] = word_error_rate(references, stock_hypotheses(architecture, test))
        results.append(row)
        print(
            f"{seed:<6}{row['full']:>12.1f}{row['trimmed']:>13.1f}{row['stock']:>13.1f}"
            f"{row['full_seconds']:>10.0f}{row['trimmed_seconds']:>11.0f}",
            flush=True,
        )
    padded, trimmed = ([row[key] for row in results] for key in ("full", "trimmed"))
    noise = statistics.stdev(padded) + statistics.stdev(trimmed) if seeds > 1 else float("nan")
    gap = statistics.mean(trimmed) - statistics.mean(padded)
    stock_gap = max(abs(row["stock"] - row["trimmed"]) for row in results)
    print(f"\ntrimmed - padded: {gap:+.1f} points, seed noise (sum of deviations) {noise:.1f}")
    print(f"stock generate at 30 s against ours: at most {stock_gap:.1f} points apart")
    return {"steps": steps, "rows": results, "gap": gap, "noise": noise, "stock_gap": stock_gap}


if __name__ == "__main__":
    main()
