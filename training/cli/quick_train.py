"""``polyvox quick-train``: data, word times, both phases of a VoxLM, scores, export; what is finished is not done again.

Which of these there is to do follows from the configuration and from what is there. After Ctrl-C the same command goes
on where it stopped.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.base.errors import UserError
from training.cli.command_line import Parser
from training.cli.options import add_hardware, hardware_override

if TYPE_CHECKING:
    from training.recipes.resolve import Run
    from training.recipes.rules import Context
    from training.recipes.word_labels import Label

COMMANDS = ("demo", "llm", "timestamps")
"""Commands whose options can be overridden, as in ``demo:minutes=5``; for the encoder, configuration keys can be."""
ENCODER = "encoder"
SHARED = ("paths", "data", "audio", "profile", "dataloader")
"""Blocks whose overrides count for the encoder's training too."""
DEFAULTS = {"timestamps": {"model": "small"}}
"""Default options of the other commands."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = Parser(prog="polyvox quick-train", description=__doc__)
    result.add_argument(
        "config", type=Path, metavar="CONFIG", help="of a VoxLM, such as configs/voxlm-2b.yaml"
    )
    result.add_argument(
        "--export", type=Path, metavar="DIR", help="folder that gets the finished model, for use elsewhere"
    )
    add_hardware(result)
    result.add_argument("--fresh", action="store_true", help="do every step again")
    result.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="for both phases; encoder:key=value, and options of other commands: demo:minutes=5, llm:steps=200, "
        "timestamps:model=tiny",
    )
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0: done; that of the step that failed; 128 + n: stopped by signal n."""
    args = parser().parse_intermixed_args(argv)
    began = time.monotonic()
    from training.recipes.plan import places, steps
    from training.recipes.walker import Walker, say

    context = plan(args)
    check_export(context)
    walker = Walker(steps(context), context.state, say, fresh=context.fresh)
    status = walker.call()
    if status == 0:
        say(walker.closing(time.monotonic() - began, places(context)))
    return status


def plan(args: argparse.Namespace) -> Context:
    """Resolve all configurations, so that a mistake shows before anything is done."""
    from training.recipes.recipe import load, ours
    from training.recipes.resolve import addressed, runs_of
    from training.recipes.rules import Context
    from training.recipes.walker import say
    from training.recipes.word_labels import labels, overrides

    given = [*hardware_override(args), *args.overrides]
    told = [addressed(override, (*COMMANDS, ENCODER)) for override in given]
    own = tuple(override for name, override in told if name is None)
    (phase1,) = runs_of([(args.config, own)])
    values = phase1.resolved.values
    _check_model(args.config, values["model"])
    found = labels(phase1)
    asked = [(args.config, (*own, *of_phase2(phase1), *overrides(found, values)))]
    maker = encoder_config(args.config, values)
    phase2, *encoders = runs_of([*asked, *([(maker, of_encoder(told))] if maker else [])])
    for run in encoders:
        _check_folder(run, values)
    return Context(
        recipe=load(ours("quick_voxlm")),
        runs=dict(zip(("phase1", "phase2", ENCODER), (phase1, phase2, *encoders), strict=False)),
        say=say,
        given={
            **data_variables(values, found),
            **{f"{name}_options": options(name, told) for name in COMMANDS},
            "llm": to_be_made(values, "llm"),
            "export": args.export,
        },
        fresh=args.fresh,
    )


def data_variables(values: Mapping[str, Any], found: Sequence[Label]) -> dict[str, Any]:
    """The recipe's variables about data: what is downloaded, what is synthesised, which splits get word times."""
    named = [one.names() for one in found]
    variables = {"labels": named, "corpus": demo_corpus(Path(values["paths"]["manifest_path"]))}
    if not (libri := values["data"].get("librispeech")):
        return variables
    from training.data.sources.librispeech import corpus_folder

    splits = dict.fromkeys(split for part in ("train", "dev", "test") for split in libri[part])
    return {
        **variables,
        "tested_labels": [one for one in named if one["part"] == "test"],
        "downloads": list(splits),
        "download_folder": corpus_folder(Path(libri["root"])),
    }


def demo_corpus(manifest: Path) -> str | None:
    """The demo corpus with word times in whose folder the manifest lies (``data/english``: english); None: none does."""
    from training.synthetic.demo import CORPORA

    timed = {name: one for name, one in CORPORA.items() if "words" in one.columns}
    return next((name for name, one in timed.items() if one.folder == manifest.parent.name), None)


def check_export(context: Context) -> None:
    """`UserError` for an export folder that the last step would refuse, before the hours of the others."""
    export = context.scope().value("export")
    if export is None:
        return
    trained = [context.runs[name].resolved.folder.resolve() for name in ("phase1", "phase2")]
    if export.resolve() in trained:
        raise UserError(f"--export {export}: is the folder of a training; name another")
    if export.exists() and not export.is_dir():
        raise UserError(f"--export {export}: is a file; name a folder")
    made = context.state.record(f"export {export}") is not None
    if not made and export.is_dir() and any(export.iterdir()):
        raise UserError(f"--export {export}: holds files already; name an empty folder, or empty this one")


def _check_model(config: Path, model: Mapping[str, Any]) -> None:
    if model["type"] != "voxlm":
        raise UserError(f"{config}: model.type is {model['type']}; quick-train is for voxlm")
    if model["phase"] != 1:
        raise UserError(f"{config}: training.phase is {model['phase']}; leave it out, quick-train does both")


def of_phase2(phase1: Run) -> tuple[str, ...]:
    """Overrides that turn the configuration of phase 1 into that of phase 2: the model, the folder and the name."""
    from training.recipes.word_labels import quoted

    folder, name = phase1.resolved.folder, phase1.resolved.name
    return (
        "training.phase=2",
        f"model.name={quoted(folder)}",
        f"output.experiment_name={quoted(f'{name}_phase2')}",
        f"output.dir={quoted(f'{folder}_phase2')}",
    )


def of_encoder(told: Sequence[tuple[str | None, str]]) -> tuple[str, ...]:
    """The overrides that say where things are and what the machine is, and those for the encoder alone."""
    shared = [one for name, one in told if name is None and one.partition(".")[0] in SHARED]
    return (*shared, *(one for name, one in told if name == ENCODER))


def options(name: str, told: Sequence[tuple[str | None, str]]) -> tuple[str, ...]:
    """``minutes=5`` → ``--minutes 5``, for one of the other commands."""
    given = dict(DEFAULTS.get(name, {}))
    for addressee, text in told:
        if addressee == name:
            key, equals, value = text.partition("=")
            if not equals:
                raise UserError(f"{name}:{text}: must be {name}:option=value")
            given[key] = value
    return tuple(word for key, value in given.items() for word in (f"--{key}", value))


def to_be_made(values: Mapping[str, Any], part: str) -> Path | None:
    """The folder of a part, where it lies among the runs: then it is made here. Any other has been made elsewhere."""
    name = values["model"][part]
    inside = name is not None and Path(name).parent == Path(values["paths"]["output_dir"])
    return Path(name) if inside else None


def encoder_config(config: Path, values: Mapping[str, Any]) -> Path | None:
    """The configuration beside ``config`` whose run is the encoder: it has the name of the encoder's folder."""
    folder = to_be_made(values, "audio_encoder")
    maker = folder and config.with_name(f"{folder.name}.yaml")
    if folder is None or maker is None or maker.is_file():
        return maker
    if not folder.exists():
        raise UserError(
            f"model.audio_encoder: {folder} is not there, and no {maker} that would make it; name a Whisper that is there"
        )
    return None


def _check_folder(encoder: Run, values: Mapping[str, Any]) -> None:
    wanted, made = to_be_made(values, "audio_encoder"), encoder.resolved.folder
    if wanted != made:
        raise UserError(
            f"model.audio_encoder: {wanted}, but {encoder.config} trains in {made}; let both be one"
        )
