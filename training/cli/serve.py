"""``polyvox serve``: OpenAI's transcription API, live speech and a page with a microphone, over trained models."""

from __future__ import annotations

import argparse
import functools
import importlib.util
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from training.base.errors import UserError
from training.cli.command_line import Parser
from training.cli.options import count

NEEDED = ("fastapi", "uvicorn", "python_multipart", "prometheus_client", "websockets")
"""Packages of the extra ``serve``."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = Parser(prog="polyvox serve", description=__doc__)
    result.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="a trained or exported model, and the name that requests give; may be repeated; default: the newest run",
    )
    result.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine alone)"
    )
    result.add_argument("--port", type=int, default=8000, help="0: any free one (8000)")
    result.add_argument(
        "--devices",
        default=None,
        help="cpu, or GPUs: cuda:0,cuda:1; a process each; default: the first GPU, else cpu",
    )
    _add_limits(result)
    group = result.add_argument_group("who may ask")
    group.add_argument(
        "--keys", type=Path, default=None, help="JSON file of the keys; every request needs one then"
    )
    group.add_argument(
        "--new_key", default=None, metavar="NAME", help="make a key, write its hash to --keys, and end"
    )
    group.add_argument(
        "--no_auth", action="store_true", help="no keys although other machines reach the server"
    )
    group.add_argument(
        "--allow_origin",
        action="append",
        default=[],
        metavar="URL",
        help="pages of this address may ask; repeatable",
    )
    group = result.add_argument_group("behaviour")
    group.add_argument(
        "--strict", action="store_true", help="refuse parameters that have no effect on the model"
    )
    group.add_argument("--ffmpeg", action="store_true", help="let ffmpeg decode M4A, WebM, video and others")
    group.add_argument(
        "--collect",
        type=Path,
        default=None,
        metavar="DIR",
        help="keep corrected recordings of the page there",
    )
    return result


def _add_limits(result: argparse.ArgumentParser) -> None:
    group = result.add_argument_group("limits")
    group.add_argument("--queue", type=count, default=64, help="requests inside at once; more get 503 (64)")
    group.add_argument("--decoders", type=count, default=2, help="processes that decode sound (2)")
    group.add_argument(
        "--batch_seconds", type=_positive, default=30.0, help="sound that is computed at once (30)"
    )
    group.add_argument(
        "--timeout", type=_positive, default=120.0, help="seconds of a request, then 504 (120)"
    )
    group.add_argument(
        "--batch_timeout",
        type=_positive,
        default=300.0,
        help="seconds that a model may compute a batch, then its process is started again (300)",
    )
    group.add_argument("--max_mb", type=_positive, default=25.0, help="of an upload, more is 413 (25)")
    group.add_argument("--max_seconds", type=_positive, default=3600.0, help="of sound, more is 413 (3600)")
    group.add_argument("--sockets", type=count, default=64, help="live connections at once (64)")
    group.add_argument(
        "--grace", type=_positive, default=30.0, help="seconds for running requests at the end (30)"
    )


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0 (got {text})")
    return number


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or Ctrl-C; exit status 0 then."""
    args = parser().parse_args(argv)
    if args.new_key is not None:
        return _new_key(args)
    _require_packages()
    from training.serving.server import run
    from training.serving.settings import Settings

    settings = Settings(
        models=_models(args.model),
        devices=_devices(args.devices),
        host=args.host,
        port=args.port,
        queue=args.queue,
        decoders=args.decoders,
        batch_seconds=args.batch_seconds,
        timeout=args.timeout,
        batch_timeout=args.batch_timeout,
        max_mb=args.max_mb,
        max_seconds=args.max_seconds,
        grace=args.grace,
        sockets=args.sockets,
        keys=args.keys,
        no_auth=args.no_auth,
        origins=tuple(args.allow_origin),
        strict=args.strict,
        ffmpeg=_ffmpeg(args.ffmpeg),
        collect=_collect(args.collect),
    )
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    return run(settings)


def _new_key(args: argparse.Namespace) -> int:
    from training.serving.keys import add_key

    if args.keys is None:
        raise UserError("--new_key: name the file with --keys FILE")
    print(add_key(args.keys, args.new_key))
    print(f"this is shown once; {args.keys} has its hash alone", file=sys.stderr)
    return 0


def _require_packages() -> None:
    if sys.platform != "linux":
        raise UserError(
            f"polyvox serve runs on Linux (a container, WSL), not on {sys.platform}: it holds uploads in memory that only "
            "Linux offers"
        )
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"polyvox serve needs its packages ({missing[0]} is missing): pip install 'polyvox[serve]'"
        )


def _models(given: Sequence[str]) -> dict[str, Path]:
    from training.serving.settings import MODEL_VARIABLE, newest_run

    if not given:
        named = os.environ.get(MODEL_VARIABLE)
        folder = Path(named) if named else newest_run()
        return {folder.resolve().name: folder}
    models: dict[str, Path] = {}
    for one in given:
        name, equals, path = one.partition("=")
        if not equals:
            name, path = Path(one).resolve().name, one
        if not name or not path:
            raise UserError(f"--model {one}: must be NAME=FOLDER")
        if name in models:
            raise UserError(f"--model {one}: two models of the name {name}")
        models[name] = Path(path)
    return models


def _devices(given: str | None) -> tuple[str, ...]:
    """``cpu``, or GPUs; the first GPU where none is named and there is one."""
    if given is None:
        return ("cuda:0",) if _gpus() else ("cpu",)
    names = tuple(one.strip() for one in given.split(",") if one.strip())
    wrong = [one for one in names if one != "cpu" and not (one.startswith("cuda:") and one[5:].isdecimal())]
    if wrong or not names:
        raise UserError(f"--devices {given}: must be cpu, or GPUs such as cuda:0,cuda:1")
    if len(set(names)) < len(names):
        raise UserError(
            f"--devices {given}: a device stands there twice; one process each computes in batches"
        )
    gpus = [one for one in names if one != "cpu"]
    if missing := [one for one in gpus if int(one[5:]) >= _gpus()]:
        raise UserError(f"--devices {missing[0]}: this machine has {_gpus()} GPUs that torch can use")
    return names


@functools.cache
def _gpus() -> int:
    """How many torch can use; asked in a process of its own, because torch would stay in this one."""
    if not any(Path(path).exists() for path in ("/dev/nvidiactl", "/dev/dxg")):
        return 0
    code = "import torch; print(torch.cuda.device_count())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return int(done.stdout) if done.returncode == 0 else 0


def _ffmpeg(asked: bool) -> bool:
    from training.data.audio import find_ffmpeg

    if asked and find_ffmpeg() is None:
        raise UserError(
            "--ffmpeg: there is none here: apt-get install ffmpeg, or pip install 'polyvox[ffmpeg]'"
        )
    return asked


def _collect(folder: Path | None) -> Path | None:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise UserError(f"--collect {folder}: cannot be written to")
    return folder
