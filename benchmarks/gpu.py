"""Training on a GPU: Whisper against stock's recipe, memory at equal batches, and how much of the GPU is used.

    python benchmarks/gpu.py [--shape openai/whisper-medium] [--steps 20] [--output gpu.json]

Random weights in the public shape, bf16, clips that the script makes itself, once short ones (1-4 s) and once 12 s;
the arms B, C and F of `train_whisper_multitask`, interleaved, each in a process of its own, equal batches.
Beside the ratio: the peak of allocated memory; MFU, the model's own floating-point operations on real frames alone
(padding earns nothing, nor does what a task computes a second time; forward, and twice that backward)
over what the GPU could have done; and what 50 hours × 10 epochs would take at that rate, which is an extrapolation.
Quality gate: every loss on held-out clips is finite (the clips are noise; what is learnt is compared in
`train_whisper_multitask`).

Where there is no GPU it says so, measures nothing, and ends well.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from common import Round, Spread, command_line, count, finish, in_turns, new_file, ratio, table, values
from stock_recipe import PROMPT, RATE, TASKS
from train_whisper_multitask import arm
from whisper_runs import WHISPERS, Clips, make_model, step_rows, write_rows

from training.base.errors import exit_on_user_error
from training.models.common.sizes import SIZES

LENGTHS = {"short": (1.0, 4.0), "12 s": (12.0, 12.0)}
PEAK_TFLOPS = {"H100": 989.0, "H200": 989.0, "A100": 312.0, "L40S": 362.0, "4090": 165.0, "3090": 71.0}
"""Dense bfloat16 of the data sheets, by a part of the GPU's name."""
WORDS = ("một", "hai", "ba", "okay", "meeting", "deadline", "không", "rồi")
WANTED_HOURS = 50 * 10


def main(argv: Sequence[str] | None = None) -> int:
    """1 where the quality gate is shut."""
    parser = command_line(__doc__)
    parser.add_argument("--shape", choices=WHISPERS, default="openai/whisper-medium")
    parser.add_argument("--steps", type=count, default=20)
    parser.add_argument("--batch", type=step_rows, default=32, help="rows (clips × tasks) of a step")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: to try the script")
    parser.add_argument("--precision", choices=("bf16", "fp16", "fp32"), default="bf16")
    parser.add_argument("--peak_tflops", type=float, help="of this GPU, where its name is not known")
    args = parser.parse_args(argv)
    for name in LENGTHS if args.output else ():
        try:
            new_file(str(result_of(args.output, name)))
        except argparse.ArgumentTypeError as error:
            parser.error(f"argument --output: {error}")
    if args.device == "cuda" and not torch.cuda.is_available():
        print("not measured: this machine has no GPU")
        return 0
    status = 0
    for name, (low, high) in LENGTHS.items():
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            clips = made_clips(work, args.steps * args.batch // len(TASKS), 16, low, high)
            model = make_model(work / "model", clips, SIZES[args.shape]["config"])
            operations = sum(flops(args.shape, *sizes) for sizes in lengths(clips, model))
            arms = {arm_name: partial(arm, arm_name, args, clips, model, work) for arm_name in "BCF"}
            rounds = in_turns(arms, args.repeats)
        status |= report(args, name, clips, operations, rounds)
    return status


def result_of(output: Path, name: str) -> Path:
    """Where the figures of the clips of this length go: beside ``--output``, with their name at its end."""
    return output.with_stem(f"{output.stem}_{name.replace(' ', '')}")


def made_clips(work: Path, count: int, held_out: int, low: float, high: float) -> Clips:
    """Noise of ``low`` to ``high`` seconds with as many words as people say in that time."""
    import soundfile

    rng = np.random.default_rng(0)
    rows = []
    for number in range(count + held_out):
        seconds = float(rng.uniform(low, high))
        path = work / f"{number}.wav"
        soundfile.write(path, rng.standard_normal(round(RATE * seconds)) * 0.05, RATE)
        text = " ".join(rng.choice(WORDS, max(1, round(2.5 * seconds))))
        rows.append(
            {
                "audio_path": str(path),
                "duration": f"{seconds:.3f}",
                "transcript": text,
                "translation": text,
                "language": "vi",
            }
        )
    return Clips(
        root=work,
        train=write_rows(work / "train.tsv", rows[:count]),
        held_out=write_rows(work / "held_out.tsv", rows[count:]),
        seconds=sum(float(row["duration"]) for row in rows[:count]),
        count=count,
    )


def lengths(clips: Clips, model: Path) -> list[tuple[float, int]]:
    """Seconds of each training clip, and tokens that the decoder reads for one task (both texts are the same)."""
    from transformers import WhisperProcessor

    tokenizer = WhisperProcessor.from_pretrained(model).tokenizer
    with clips.train.open(encoding="utf8", newline="") as file:
        return [
            (
                float(row["duration"]),
                # Behind the start token and the prompt; the end is said and not read.
                1 + PROMPT + len(tokenizer(f" {row['transcript']}", add_special_tokens=False).input_ids),
            )
            for row in csv.DictReader(file, delimiter="\t")
        ]


def flops(shape: str, seconds: float, tokens: int) -> float:
    """Matrix products of forward and backward (twice the forward) of one clip for both tasks, without padding.

    The encoder counts once, and so do the keys and values that both tasks attend to. A product of ``[n, a]`` and ``[a, b]`` is ``2·n·a·b`` operations.
    """
    sizes = SIZES[shape]["config"]
    d, n, m = sizes["d_model"], round(50 * seconds), tokens
    stem = 2 * 3 * sizes["num_mel_bins"] * d * 2 * n + 2 * 3 * d * d * n
    # Four projections, two feed-forward layers of four times the width, scores and weighted sums.
    encoder = sizes["encoder_layers"] * (8 * n * d * d + 16 * n * d * d + 4 * n * n * d)
    keys = sizes["decoder_layers"] * 4 * n * d * d
    across = 4 * m * d * d + 4 * m * n * d
    decoder = sizes["decoder_layers"] * (8 * m * d * d + 16 * m * d * d + 4 * m * m * d + across)
    output = 2 * m * d * sizes["vocab_size"]
    return 3.0 * (stem + encoder + keys + len(TASKS) * (decoder + output))


def peak(args: argparse.Namespace) -> float | None:
    """Floating-point operations a second that the GPU promises; None where nobody says."""
    if args.peak_tflops:
        return args.peak_tflops * 1e12
    name = torch.cuda.get_device_name() if args.device == "cuda" else ""
    return next((1e12 * value for key, value in PEAK_TFLOPS.items() if key in name), None)


def report(
    args: argparse.Namespace, name: str, clips: Clips, operations: float, rounds: Sequence[Round]
) -> int:
    """Table of one kind of clips, JSON beside the other's."""
    failures = [
        f"{label}: held-out loss {found['held_out_loss']}"
        for one in rounds
        for label, found in one.arms.items()
        if not np.isfinite(found["held_out_loss"])
    ]
    most = peak(args)
    lines = []
    for label in rounds[0].arms:
        rate = values(rounds, label, "rate")
        # Steps are equal, clips not quite: our batches at the end of a bucket are smaller.
        used = Spread.of(one.arms[label]["rate"] * operations / clips.seconds / len(TASKS) for one in rounds)
        memory = [one.arms[label]["gpu_bytes"] or one.arms[label]["resident_bytes"] for one in rounds]
        lines.append(
            [
                label,
                f"{rate:.0f}",
                f"{max(memory) / 2**30:.1f}",
                f"{used.median / most:.1%}" if most else "peak unknown",
                f"{WANTED_HOURS * 3600 * len(TASKS) / rate.median / 3600:.1f}",
                "" if failures else f"{ratio(rounds, 'rate', label, 'B'):.2f}",
            ]
        )
    print(f"{args.shape}, {args.precision}, clips: {name}, {args.steps} steps of {args.batch} rows")
    head = ["arm", "audio s × tasks / s", "GiB", "MFU", f"h for {WANTED_HOURS} h of audio", "times B"]
    print(table(head, lines))
    output = args.output and result_of(args.output, name)
    return finish(output, args, rounds, failures, clips=name, flops=operations, peak_flops=most)


if __name__ == "__main__":
    exit_on_user_error(main)
