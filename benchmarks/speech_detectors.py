"""Which detector loses words? Energy beside Silero's network, on joined clips whose word times are known.

    python benchmarks/speech_detectors.py --manifest data/splits/test.csv [--noise none 20 10 5]

Clips are joined with pauses to a recording, at several signal-to-noise ratios (white noise, dB over the whole
recording). A clip without word times counts as one word: right for trimmed single words. Counted, by the energy of the
clean sound, since times of words hold silence too: words of which more than half lies in no region (lost), of which 5
to 50 % does (clipped); joins, from the last word of a clip to the first of the next, in which a region ends (found);
the share of the recording that is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import new_file

from training.data.audio import load_audio
from training.data.manifest import load_manifest
from training.transcription.speech_regions import Detector, Region, make_detector, padded, regions_of
from training.transcription.windows import Cutting, group

RATE = 16_000
LOST, CLIPPED = 0.5, 0.05


def main() -> int:
    """Measure both at every noise, print a table, write JSON where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--manifest", type=Path, required=True, help="of single words, or with a column words"
    )
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--pause", type=float, default=0.8, help="seconds of silence between clips (0.8)")
    parser.add_argument(
        "--noise", nargs="+", default=["none", "20", "10", "5"], help="signal-to-noise ratios, dB"
    )
    parser.add_argument("--detectors", nargs="+", default=["energy", "silero"])
    parser.add_argument("--output", type=new_file)
    args = parser.parse_args()
    sound, words, joins = build(args.manifest, args.seconds, args.pause)
    print(f"{len(sound) / RATE:.0f} s, {len(words)} words, {len(joins)} joins, load {os.getloadavg()[0]:.1f}")
    print(
        f"{'SNR':>5} {'detector':>9} {'lost %':>7} {'clipped %':>10} {'found %':>8} {'kept %':>7} {'x real time':>12}"
    )
    results = []
    for level in args.noise:
        noisy = add_noise(sound, level)
        for name in args.detectors:
            found = measure(make_detector(name), sound, noisy, words, joins)
            results.append({"snr": level, "detector": name, **found})
            print(
                f"{level:>5} {name:>9} {found['lost']:>7.2f} {found['clipped']:>10.2f} {found['found']:>8.1f} "
                f"{found['kept']:>7.1f} {found['speed']:>12.0f}"
            )
    if args.output:
        content = {"manifest": args.manifest.name, "load": os.getloadavg()[0], "results": results}
        args.output.write_text(json.dumps(content, indent=2) + "\n", encoding="utf8")
    return 0


def build(manifest: Path, seconds: float, pause: float) -> tuple[np.ndarray, list[Region], list[Region]]:
    """Sound of the joined clips, the words in it, the pauses between clips."""
    pieces: list[np.ndarray] = []
    words: list[Region] = []
    joins: list[Region] = []
    now = 0.0
    for example in load_manifest(manifest):
        samples = load_audio(example.audio, RATE)
        whole = [Region(now, now + len(samples) / RATE)]
        placed = [Region(now + word.start, now + word.end) for word in example.words] or whole
        if words:
            joins.append(Region(words[-1].end, placed[0].start))
        words += placed
        now += len(samples) / RATE + pause
        pieces += [samples, np.zeros(round(pause * RATE), dtype=np.float32)]
        if now >= seconds:
            break
    return np.concatenate(pieces), words, joins


def add_noise(sound: np.ndarray, level: str) -> np.ndarray:
    """White noise at the signal-to-noise ratio."""
    if level == "none":
        return sound
    power = float(np.mean(np.square(sound, dtype=np.float64))) / 10 ** (float(level) / 10)
    noise = np.random.default_rng(0).standard_normal(len(sound)) * np.sqrt(power)
    return (sound + noise).astype(np.float32)


def measure(
    detector: Detector,
    clean: np.ndarray,
    sound: np.ndarray,
    words: Sequence[Region],
    joins: Sequence[Region],
) -> dict[str, Any]:
    started = time.perf_counter()
    detector.start()
    track = detector.track(sound)
    regions = regions_of(detector.speech(track), detector.hop)
    regions = padded(group(regions, 30.0, Cutting.pause), len(sound) / RATE, Cutting.pad)
    seconds = time.perf_counter() - started
    covered = np.zeros(len(sound), dtype=bool)
    for region in regions:
        covered[round(region.start * RATE) : round(region.end * RATE)] = True
    ends = np.array([region.end for region in regions])
    gone = np.array([_uncovered(clean, covered, word) for word in words])
    return {
        "lost": 100 * float((gone > LOST).mean()),
        "clipped": 100 * float(((gone > CLIPPED) & (gone <= LOST)).mean()),
        "found": 100 * float(np.mean([((ends >= j.start) & (ends <= j.end)).any() for j in joins])),
        "kept": 100 * float(covered.mean()),
        "regions": len(regions),
        "speed": len(sound) / RATE / seconds,
    }


def _uncovered(clean: np.ndarray, covered: np.ndarray, word: Region) -> float:
    """Share of a word's energy that no region holds."""
    stretch = slice(round(word.start * RATE), round(word.end * RATE))
    energy = np.square(clean[stretch], dtype=np.float64)
    return float(energy[~covered[stretch]].sum() / max(energy.sum(), 1e-12))


if __name__ == "__main__":
    sys.exit(main())
