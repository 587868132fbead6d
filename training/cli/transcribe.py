"""``polyvox transcribe``: transcribes recordings of any length with a trained model."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.base.errors import USER_ERROR, UserError
from training.base.model_folder import check_model_folder
from training.base.nearest import path_hint
from training.base.system_files import listed, summary_of
from training.cli.aliases import OneValue
from training.cli.command_line import Parser
from training.cli.options import add_domain, add_options, add_safeguards, from_arguments, safeguards
from training.cli.overrides import as_options
from training.data.file_names import on_disk

if TYPE_CHECKING:
    from training.transcription.recordings import Recording
    from training.transcription.transcriber import Transcriber
    from training.transcription.transcript import Transcript

FORMATS = ("txt", "json", "srt", "vtt", "tsv", "words", "ctm", "textgrid")
ONE_FILE = ("srt", "vtt", "textgrid")
"""Formats whose files cannot be printed one after another."""
ENDINGS = {"words": "words.json", "textgrid": "TextGrid"}
"""Suffixes of file names that are not the name of the format."""
KEYS: dict[str, str | dict[bool, str | None]] = {
    "evaluation.num_beams": "--beam_width",
    "evaluation.batch_seconds": "--batch_seconds",
    "evaluation.fallback": {True: None, False: "--no_fallback"},
    "audio.channel": "--channel",
    "model.language": "--language",
    "model.task": "--task",
    "model.domain": "--domain",
}
"""Keys of a configuration that can be set as ``key=value`` → the option that each stands for."""
SURE = 0.5
"""Probability of a detected language below which the message says how to name it."""
SOME_BROKEN = 1
"""Exit status where some files could be transcribed and some could not."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = Parser(prog="polyvox transcribe", description=__doc__)
    result.add_argument(
        "audio",
        nargs="*",
        type=Path,
        metavar="AUDIO|key=value",
        help=f"audio files, or folders of them; settings by their keys: {', '.join(KEYS)}",
    )
    result.add_argument("--audio_file", type=Path, action="append", default=[], help="the same, by name")
    result.add_argument(
        "--model",
        "--model_dir",
        "--model_path",
        dest="model",
        action=OneValue,
        type=Path,
        required=True,
        help="a trained model",
    )
    result.add_argument(
        "--task",
        choices=("transcribe", "translate", "both"),
        default=None,
        help="default: all that it was trained for; of a stock model transcribe",
    )
    result.add_argument(
        "--language",
        default=None,
        help="language of the speech (an ISO 639 code or a name: de, German), or auto: detected for each recording; default: the model's own, auto "
        "where its folder names none (a stock Whisper)",
    )
    result.add_argument(
        "--format",
        choices=FORMATS,
        default="txt",
        help="default: txt, a line for each file and task; words: JSON of text and words, ctm: NIST, textgrid: Praat",
    )
    result.add_argument(
        "--output",
        "--output_dir",
        dest="output_dir",
        action=OneValue,
        type=Path,
        default=None,
        help="folder; write NAME.FORMAT (NAME.TextGrid, NAME.words.json) there instead of printing",
    )
    result.add_argument("--overwrite", action="store_true", help="replace files in --output_dir")
    result.add_argument("--batch_seconds", type=float, default=60.0, help="audio per batch")
    result.add_argument(
        "--channel",
        default=None,
        help="of files with several: a number from 0, left or right; default: their mean, or the loudest where they "
        "cancel each other",
    )
    add_options(result)
    add_safeguards(result)
    add_domain(result)
    _add_cutting(result)
    return result


def _add_cutting(result: argparse.ArgumentParser) -> None:
    group = result.add_argument_group("long recordings")
    group.add_argument(
        "--longest", type=float, default=None, help="longest window in seconds; default: the model's"
    )
    group.add_argument("--pause", type=float, default=0.7, help="seconds of silence that always part (0.7)")
    group.add_argument("--pad", type=float, default=0.1, help="seconds of silence kept around speech (0.1)")
    group.add_argument(
        "--pack", type=float, default=None, help="join what pauses part, up to so many seconds"
    )
    group.add_argument("--always_cut", action="store_true", help="also cut recordings that fit one window")
    group.add_argument(
        "--detector",
        choices=("energy", "silero"),
        default="energy",
        help="who finds the pauses: the level of the sound (default), or Silero's network (extra vad)",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Transcribe what can be read, then name and count what cannot: the status is 1, or 2 where nothing can be read."""
    given = list(sys.argv[1:] if argv is None else argv)
    args = parser().parse_intermixed_args(as_options(given, KEYS))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    files = find_clips([*args.audio, *args.audio_file])
    outputs = _outputs(args, files)
    transcriber = _transcriber(args)
    _say_what_it_tells(transcriber, args.format)
    recordings, broken = _planned(transcriber, files)
    total = sum(window.seconds for one in recordings.values() for window in one.windows)
    with _bar(total) as bar:
        transcripts = transcriber.finish(list(recordings.values()), bar.update)
    for warning in transcriber.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for place, transcript in zip(recordings, transcripts, strict=True):
        if isinstance(transcript, UserError):
            broken.append(str(transcript))
        else:
            _tell(transcript)
            _write(transcript, args, outputs.get(files[place]))
    return _say_broken(broken, len(files))


def find_clips(paths: Sequence[Path]) -> list[Path]:
    """The files named, and those of the folders named, sorted; `UserError` where there are none."""
    from training.data.audio import SOUND_SUFFIXES

    if not paths:
        raise UserError("nothing to transcribe: name audio files, or folders of them")
    clips: list[Path] = []
    for path in map(on_disk, paths):
        if path.is_dir():
            system_files: list[str] = []
            below = listed(path, "**/*", system_files)
            found = sorted(p for p in below if p.suffix.lower() in SOUND_SUFFIXES)
            if line := summary_of(system_files):
                print(f"{path}: {line}", file=sys.stderr)
            if not found:
                raise UserError(
                    f"{path}: no audio files ({', '.join(sorted(SOUND_SUFFIXES))}) in this folder"
                )
            clips += found
        elif path.is_file():
            clips.append(path)
        else:
            raise UserError(f"{path}: no such file{path_hint(path)}")
    return clips


def _outputs(args: argparse.Namespace, files: Sequence[Path]) -> dict[Path, Path]:
    """Where each transcript goes; nothing that is there already is replaced unasked."""
    if args.output_dir is None:
        if args.format in ONE_FILE and len(files) > 1:
            raise UserError(f"--format {args.format}: {len(files)} files need --output_dir")
        return {}
    names, ending = [path.stem for path in files], ENDINGS.get(args.format, args.format)
    outputs = {
        path: args.output_dir / f"{path.stem if names.count(path.stem) == 1 else path.name}.{ending}"
        for path in files
    }
    if len(set(outputs.values())) < len(set(files)):
        raise UserError("--output_dir: two files of the same name; transcribe their folders one by one")
    there = [str(path) for path in outputs.values() if path.exists()]
    if there and not args.overwrite:
        raise UserError(f"{there[0]} exists ({len(there)} such files); --overwrite replaces them")
    args.output_dir.mkdir(parents=True, exist_ok=True)
    return outputs


def _transcriber(args: argparse.Namespace) -> Transcriber:
    check_model_folder(args.model)
    from training.data.example import TASKS
    from training.decoding.quiet import quiet
    from training.runtime.folder import is_exported
    from training.transcription.transcriber import Transcriber

    if not is_exported(
        args.model
    ):  # which is used without transformers, where that may not even be installed
        quiet()
    tasks = TASKS if args.task == "both" else (args.task,) if args.task else None
    return Transcriber(
        args.model,
        tasks=tasks,
        language=args.language,
        domain=args.domain,
        options=from_arguments(args),
        safeguards=safeguards(args),
        longest=args.longest,
        pause=args.pause,
        pad=args.pad,
        pack=args.pack,
        always_cut=args.always_cut,
        detector=args.detector,
        batch_seconds=args.batch_seconds,
        channel=_channel(args.channel),
    )


def _channel(given: str | None) -> int | None:
    from training.data.sound.channel import parse_channel

    try:
        return parse_channel(given)
    except ValueError as error:
        raise UserError(f"--channel: {error}") from error


def _say_what_it_tells(transcriber: Transcriber, format_: str) -> None:
    """Words without times are refused where the format is made of them, and told of where it has a place for them."""
    if not transcriber.timed and format_ == "ctm":
        raise UserError(
            f"--format ctm: {transcriber.trained.folder} tells no times of words, and they are not guessed here; take "
            "txt, json, srt or vtt"
        )
    if not transcriber.timed and format_ in ("words", "textgrid"):
        print(f"{transcriber.trained.folder} tells no times of words", file=sys.stderr)
    if transcriber.timed and transcriber.trained.calibration and not transcriber.calibration:
        print(transcriber.note, file=sys.stderr)


def _planned(transcriber: Transcriber, files: Sequence[Path]) -> tuple[dict[int, Recording], list[str]]:
    """What can be read, by its place, and what is wrong with the others."""
    recordings: dict[int, Recording] = {}
    broken: list[str] = []
    for place, path in enumerate(files):
        try:
            recordings[place] = transcriber.plan(path)
        except UserError as error:
            broken.append(str(error))
        except OSError as error:
            broken.append(f"{path}: cannot be read: {error.strerror or error}")
    return recordings, broken


def _say_broken(broken: Sequence[str], total: int) -> int:
    """Name what could not be transcribed, and the number of it; the command's status."""
    for message in broken:
        print(f"error: {message}", file=sys.stderr)
    if broken and total > 1:
        print(f"{len(broken):,} of {total:,} files could not be transcribed", file=sys.stderr)
    if len(broken) == total:
        return USER_ERROR
    return SOME_BROKEN if broken else 0


def _tell(transcript: Transcript) -> None:
    """What was detected, and what is not to be trusted, on stderr."""
    from training.transcription.suspects import lines

    language = transcript.language
    if language is not None and language.probability is not None:
        hint = "" if language.probability >= SURE else "; unsure, --language CODE names it"
        print(
            f"{transcript.audio}: language {language.code}, detected ({language.probability:.2f}){hint}",
            file=sys.stderr,
        )
    if not transcript.segments:
        print(f"{transcript.audio}: no speech found", file=sys.stderr)
    for line in lines(transcript):
        print(f"warning: {line}", file=sys.stderr)


def _write(transcript: Transcript, args: argparse.Namespace, output: Path | None) -> None:
    from training.transcription.formats import FORMATS as WRITERS

    if output is not None:
        output.write_text(WRITERS[args.format](transcript), encoding="utf8")
    elif args.format == "txt":
        for task, text in transcript.texts.items():
            print(f"{transcript.audio}\t{task}\t{text}")
    else:
        print(WRITERS[args.format](transcript), end="")


def _bar(total: float) -> Any:
    from training.base.progress import progress_bar

    return progress_bar(total=round(total), unit="s", desc="audio")
