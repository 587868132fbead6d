"""``polyvox transcribe``: what a trained model says about clips of up to 30 seconds."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.errors import UserError, exit_on_user_error
from training.scripts.options import count

if TYPE_CHECKING:
    from training.data.example import Example

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".m4a", ".opus")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(prog="polyvox transcribe", description=__doc__, allow_abbrev=False)
    result.add_argument("audio", nargs="+", type=Path, help="audio files, or folders of them")
    result.add_argument(
        "--model", "--model_dir", dest="model", type=Path, required=True, help="a trained model's folder"
    )
    result.add_argument(
        "--task", choices=("transcribe", "translate", "both"), default=None, help="default: all it knows"
    )
    result.add_argument("--language", default=None, help="language of the speech; default: the model's")
    result.add_argument(
        "--format", choices=("txt", "json", "tsv"), default="txt", help="one line per clip and task"
    )
    result.add_argument("--num_beams", type=count, default=1, help="beam width")
    result.add_argument("--batch_seconds", type=float, default=60.0, help="audio per batch")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Print hypotheses in the order of the arguments; status 2 where a clip cannot be heard."""
    args = parser().parse_args(argv)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    clips = find_clips(args.audio)
    from training.data.example import TASKS
    from training.inference.decoding import predict
    from training.inference.loading import load_trained, with_tasks
    from training.inference.quiet import quiet

    quiet()
    trained = load_trained(args.model)
    if args.task is not None:
        trained = with_tasks(trained, TASKS if args.task == "both" else (args.task,))
    dataset = Clips(clips, trained.bundle, args.language)
    generation = {"num_beams": args.num_beams, "do_sample": False}
    result = predict(
        trained.bundle, dataset, batch_seconds=args.batch_seconds, generation=generation, with_loss=False
    )
    for row in result.predictions:
        texts = {task: hypothesis.text for task, hypothesis in row.hypotheses.items()}
        print(line(clips[row.row], row.example.duration, texts, args.format))
    return 0


def find_clips(paths: Sequence[Path]) -> list[Path]:
    """The files named, and those of the folders named, sorted; `UserError` where there are none."""
    clips: list[Path] = []
    for path in paths:
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES)
            if not found:
                raise UserError(f"{path}: no audio files ({', '.join(AUDIO_SUFFIXES)}) in this folder")
            clips += found
        elif path.is_file():
            clips.append(path)
        else:
            raise UserError(f"{path}: no such file")
    return clips


class Clips:
    """Audio files as a dataset of encoded utterances, as `predict` takes it."""

    def __init__(self, paths: Sequence[Path], bundle: Any, language: str | None) -> None:
        import numpy as np

        self.bundle = bundle
        self.manifest = [_example(path, language) for path in paths]
        self.durations = np.array([row.duration for row in self.manifest], dtype=np.float32)

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, row: int) -> dict[str, Any]:
        from training.data.audio import load_audio

        example = self.manifest[row]
        try:
            return self.bundle.encode(example, load_audio(example.audio, self.bundle.sample_rate))
        except ValueError as error:
            raise UserError(f"{example.audio.path}: {error}") from error


def _example(path: Path, language: str | None) -> Example:
    from training.data.audio import AudioError, probe
    from training.data.example import AudioRef, Example

    try:
        seconds = probe(path).duration
    except AudioError as error:
        raise UserError(str(error)) from error
    if seconds > 30:
        raise UserError(f"{path}: {seconds:.1f} s long; clips of up to 30 s can be transcribed, cut it first")
    return Example(
        id=str(path), audio=AudioRef(path=str(path)), duration=seconds, texts={}, language=language
    )


def line(path: Path, seconds: float, texts: dict[str, str], form: str) -> str:
    """One clip's hypotheses as text, JSON or tab-separated values."""
    if form == "json":
        return json.dumps({"audio": str(path), "seconds": round(seconds, 3), **texts}, ensure_ascii=False)
    if form == "tsv":
        return "\t".join([str(path), *texts.values()])
    return "\n".join(f"{path}\t{task}\t{text}" for task, text in texts.items())


if __name__ == "__main__":
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]
    exit_on_user_error(main)
