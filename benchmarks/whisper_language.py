"""Does a stock Whisper recognise which language is spoken, and does text for no speech ever reach the user unmarked?

    python benchmarks/whisper_language.py --model WHISPER --english …/speechocean762/manifest.tsv \
        --korean …/pansori_tedxkr/manifest.tsv --french …/mboshi_french/manifest.tsv [--own DEMO_WHISPER] [--output FILE]

Recordings of 3 to 30 s, as many of each language: English and Korean recorded (clips of one speaker, joined), Vietnamese
(the demo corpus's grammar) and French (the column ``translation``) spoken by espeak-ng. Then clips without speech: white
and pink noise, silence, hum, chords, clipped noise. Everything goes through ``polyvox transcribe --format json``. A loop is
what `training.decoding.repetition` calls one, or a segment that zlib compresses by more than 2.4; it is unmarked where its
segment carries no ``suspect``. ``--own``: a model with an own vocabulary, which has to keep its language.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from common import new_file

from training.base.errors import UserError
from training.cli import transcribe
from training.data.audio import load_audio
from training.data.example import TRANSCRIBE, Example
from training.data.manifest import load_manifest
from training.decoding.fallback import compression_ratio
from training.decoding.repetition import loops
from training.evaluation.probes import probe_waveform
from training.synthetic.codeswitched import SPEAKERS
from training.synthetic.espeak import Espeak, ssml
from training.synthetic.plan import Speaker
from training.synthetic.text import corpus

RATE = 16_000
SHORTEST, LONGEST = 3.0, 30.0
PAUSE = 0.3
RATIO = 2.4
FRENCH = tuple(
    Speaker(voice, voice, rate, pitch)
    for voice, rate, pitch in (("fr+f2", 150, 50), ("fr", 160, 45), ("fr+m3", 145, 60), ("fr+f4", 165, 48))
)


def main() -> int:
    """Make the recordings, transcribe them, print what was right, write JSON where asked."""
    args = _arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results = {}
        if args.recordings:
            spoken = _spoken(args, folder / "spoken")
            results["languages"] = _languages(args.model, spoken, folder)
            if args.own:
                results["own_vocabulary"] = _own(args.own, spoken, folder)
        if args.silent:
            results["no_speech"] = _loops(args.model, _silent(args, folder / "silent"), folder)
    print(json.dumps({key: value["summary"] for key, value in results.items()}, indent=2, ensure_ascii=False))
    if args.output:
        content = {"arguments": sys.argv[1:], **results}
        args.output.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf8")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="folder of a stock Whisper")
    for language in ("english", "korean", "french"):
        parser.add_argument(f"--{language}", type=Path, required=True, help="manifest")
    parser.add_argument("--own", type=Path, help="a Whisper with an own vocabulary")
    parser.add_argument("--recordings", type=int, default=10, help="of each language (10)")
    parser.add_argument(
        "--tune",
        type=int,
        default=0,
        help="recordings of each language that are looked at instead: of other speakers and texts, for choosing a rule (0)",
    )
    parser.add_argument("--silent", type=int, default=100, help="clips without speech (100)")
    parser.add_argument(
        "--from_clip", type=int, default=0, help="leave out the clips without speech before this one"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=new_file)
    return parser.parse_args()


def _spoken(args: argparse.Namespace, folder: Path) -> dict[Path, str]:
    """The recordings, and the language of each; with ``--tune`` those that come after them, of other speakers and texts."""
    folder.mkdir()
    rng = np.random.default_rng(args.seed)
    vietnamese = [one.transcript for one in corpus(40 * args.recordings) if set(one.word_languages) == {"vi"}]
    rows = load_manifest(args.french)
    french = list(dict.fromkeys(row.texts["translate"] for row in rows if row.texts.get("translate")))
    espeak = Espeak(0)
    makers: dict[str, Callable[[float], np.ndarray]] = {
        "en": _Recorded(args.english, rng),
        "ko": _Recorded(args.korean, rng),
        "vi": _Synthesised(espeak, SPEAKERS, vietnamese, rng),
        "fr": _Synthesised(espeak, FRENCH, french, rng),
    }
    found: dict[Path, str] = {}
    for first, count in ((0, args.recordings), (args.recordings, args.tune)):
        if count:
            found = {}  # the recordings before these were made for their draws alone
        for language, make in makers.items():
            for n in range(first, first + count):
                sound = make(float(rng.uniform(SHORTEST, 0.6 * LONGEST)))
                assert SHORTEST <= len(sound) / RATE <= LONGEST
                found[_write(folder / f"{language}{n}.wav", sound)] = language
    return found


class _Recorded:
    """Recordings of clips of one speaker, another one each time."""

    def __init__(self, manifest: Path, rng: np.random.Generator) -> None:
        by_speaker: dict[str, list[Example]] = {}
        for row in load_manifest(manifest):
            by_speaker.setdefault(row.speaker or "", []).append(row)
        self.rng = rng
        self.speakers = [rows for rows in by_speaker.values() if sum(row.duration for row in rows) > LONGEST]
        rng.shuffle(self.speakers)

    def __call__(self, seconds: float) -> np.ndarray:
        rows = self.speakers.pop(0)
        self.speakers.append(rows)
        parts = (load_audio(rows[n].audio, RATE) for n in self.rng.permutation(len(rows)))
        return _joined(parts, seconds)


class _Synthesised:
    """Recordings of sentences that no other recording has."""

    def __init__(
        self, espeak: Espeak, speakers: Sequence[Speaker], texts: Sequence[str], rng: np.random.Generator
    ) -> None:
        self.espeak, self.speakers, self.rng = espeak, speakers, rng
        self.texts = [texts[n] for n in rng.permutation(len(texts))]

    def __call__(self, seconds: float) -> np.ndarray:
        speaker = self.speakers[int(self.rng.integers(len(self.speakers)))]
        self.espeak.set_voice(speaker.voice, rate=speaker.rate, pitch=speaker.pitch)
        return _joined(self._clips(), seconds)

    def _clips(self) -> Iterator[np.ndarray]:
        while True:
            sound = self.espeak.speak(ssml([(self.texts.pop(), None)]))
            yield soxr.resample(sound.astype(np.float32) / 32768, self.espeak.sample_rate, RATE)


def _joined(parts: Iterator[np.ndarray], seconds: float) -> np.ndarray:
    """Clips with `PAUSE` between them, so many that they last so long at least; a clip that is too long is left out."""
    pieces: list[np.ndarray] = []
    done = 0.0
    for part in parts:
        if done + len(part) / RATE + PAUSE > LONGEST:
            continue
        pieces += [part, np.zeros(round(PAUSE * RATE), np.float32)]
        done += len(part) / RATE + PAUSE
        if done - PAUSE >= seconds:
            break
    return np.concatenate(pieces[:-1])


def _silent(args: argparse.Namespace, folder: Path) -> dict[Path, str]:
    """Clips without speech of 2 to 30 s, and the kind of each."""
    folder.mkdir()
    rng = np.random.default_rng(args.seed + 1)
    kinds = list(NOISES)
    found = {}
    for n in range(args.silent):
        kind = kinds[n % len(kinds)]
        samples = round(float(rng.uniform(2.0, 30.0)) * RATE)
        level = 10 ** float(rng.uniform(-2.5, -0.3))
        sound = NOISES[kind](rng, samples) * level
        if n >= args.from_clip:
            found[_write(folder / f"{kind}{n}.wav", sound)] = kind
    return found


def _pink(rng: np.random.Generator, samples: int) -> np.ndarray:
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 1))
    sound = np.fft.irfft(spectrum, samples)
    return sound / np.abs(sound).max()


def _hum(rng: np.random.Generator, samples: int) -> np.ndarray:
    time, base = np.arange(samples) / RATE, float(rng.choice([50.0, 60.0]))
    return sum(np.sin(2 * np.pi * base * k * time) / k for k in range(1, 8)) / 3 + 0.01 * rng.standard_normal(
        samples
    )


def _chords(rng: np.random.Generator, samples: int) -> np.ndarray:
    parts = [probe_waveform("music", int(rng.integers(1000)), RATE) for _ in range(samples // (4 * RATE) + 1)]
    return 5 * np.concatenate(parts)[:samples]


NOISES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "white": lambda rng, samples: 0.3 * rng.standard_normal(samples),
    "pink": _pink,
    "silence": lambda rng, samples: np.zeros(samples),
    "faint": lambda rng, samples: 0.003 * rng.standard_normal(samples),
    "hum": _hum,
    "chords": _chords,
    "clipped": lambda rng, samples: np.clip(5 * rng.standard_normal(samples), -1, 1),
}


def _write(path: Path, samples: np.ndarray) -> Path:
    soundfile.write(path, np.clip(samples, -1, 1), RATE, subtype="PCM_16")
    return path


def _transcribed(model: Path, files: Sequence[Path], folder: Path, *more: str) -> dict[Path, dict[str, Any]]:
    """What ``polyvox transcribe`` writes for each file."""
    output = folder / f"out{len(list(folder.iterdir()))}"
    arguments = ["--model", str(model), "--task", TRANSCRIBE, "--format", "json", "--output_dir", str(output)]
    status = transcribe.main([*map(str, files), *arguments, *more])
    assert status == 0, status
    return {path: json.loads((output / f"{path.stem}.json").read_text(encoding="utf8")) for path in files}


def _languages(model: Path, spoken: dict[Path, str], folder: Path) -> dict[str, Any]:
    found = _transcribed(model, list(spoken), folder)
    rows = [
        {
            "recording": path.stem,
            "seconds": found[path]["seconds"],
            "language": language,
            "detected": found[path]["language"],
            "probability": found[path]["language_probability"],
        }
        for path, language in spoken.items()
    ]
    right = Counter(row["language"] for row in rows if row["language"] == row["detected"])
    return {"summary": {"right": right.total(), "of": len(rows), "by_language": dict(right)}, "rows": rows}


def _loops(model: Path, silent: dict[Path, str], folder: Path) -> dict[str, Any]:
    found = _transcribed(model, list(silent), folder)
    rows = [{"clip": path.stem, "kind": kind, **found[path]} for path, kind in silent.items()]
    unmarked = [row["clip"] for row in rows if _unmarked(row)]
    marked = [row["clip"] for row in rows if any("suspect" in one for one in row["segments"])]
    sure = [row["clip"] for row in rows if any("suspect" not in one for one in row["segments"])]
    summary = {
        "clips": len(rows),
        "with_text": sum(bool(row["text"]) for row in rows),
        "left_out_by_no_speech": sum("no_speech" in row for row in rows),
        "marked": len(marked),
        "unmarked_texts": sure,
        "unmarked_loops": unmarked,
    }
    return {"summary": summary, "rows": rows}


def _unmarked(row: dict[str, Any]) -> bool:
    if loops(row["text"]) and not any("suspect" in one for one in row["segments"]):
        return True
    return any(
        "suspect" not in one and (loops(one[TRANSCRIBE]) or compression_ratio(one[TRANSCRIBE]) > RATIO)
        for one in row["segments"]
    )


def _own(model: Path, spoken: dict[Path, str], folder: Path) -> dict[str, Any]:
    """The language of one recording of each language, and what is said of ``--language auto``."""
    files = [path for path in spoken if path.stem.endswith("0")]
    found = _transcribed(model, files, folder)
    message = ""
    with contextlib.suppress(SystemExit):
        try:
            _transcribed(model, files, folder, "--language", "auto")
        except UserError as error:
            message = str(error)
    languages = {path.stem: found[path]["language"] for path in files}
    return {"summary": {"languages": languages, "auto": message}}


if __name__ == "__main__":
    sys.exit(main())
