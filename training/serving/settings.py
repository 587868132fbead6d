"""What a server is told when it starts."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from training.base.errors import UserError

MODEL_VARIABLE = "POLYVOX_MODEL"
RESULTS = "train_results.json"
"""A run that has come to its end has this file."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Options of a server.

    models: folder of each model, by the name that requests give; the first is taken for names of OpenAI's models.
    devices: ``cpu``, or a number of GPUs (``cuda:0``); one process each. decoders: processes that decode sound.
    queue: requests that are inside at once (arriving, waiting, computed); more are refused. batch_seconds: sound that a model
    computes at once. timeout: seconds until a request is given up. batch_timeout: seconds until a model that computes a batch
    is taken for one that hangs, and its process is started again. max_mb: of an upload, in units of 10^6 bytes.
    max_seconds: of sound in a request. grace: seconds that running requests have after SIGTERM. sockets: live connections.
    keys: file of the keys; None: nobody is asked. origins: addresses whose pages may ask. strict: refuse parameters without
    effect. ffmpeg: whether ffmpeg may decode. collect: folder for corrected recordings; None: nothing is ever kept.
    """

    models: Mapping[str, Path]
    devices: tuple[str, ...] = ("cpu",)
    host: str = "127.0.0.1"
    port: int = 8000
    queue: int = 64
    decoders: int = 2
    batch_seconds: float = 30.0
    timeout: float = 120.0
    batch_timeout: float = 300.0
    max_mb: float = 25.0
    max_seconds: float = 3600.0
    grace: float = 30.0
    sockets: int = 64
    keys: Path | None = None
    no_auth: bool = False
    origins: tuple[str, ...] = field(default=())
    strict: bool = False
    ffmpeg: bool = False
    collect: Path | None = None

    @property
    def max_bytes(self) -> int:
        return round(self.max_mb * 1_000_000)


def require_safe_address(settings: Settings) -> None:
    """`UserError` where others could reach the server and nobody is asked for a key."""
    if settings.keys is None and not settings.no_auth and not is_loopback(settings.host):
        raise UserError(
            f"--host {settings.host}: other machines could use this server, and no keys are asked for; give --keys FILE "
            "(polyvox serve --new_key NAME --keys FILE makes one), or --no_auth where something in front of it asks"
        )


def is_loopback(host: str) -> bool:
    """Whether an address is this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def newest_run(folder: Path = Path("outputs")) -> Path:
    """The run below ``folder`` that ended last. Raises `UserError` where there is none."""
    found = sorted(folder.glob(f"*/{RESULTS}"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise UserError(
            f"{folder.resolve()}: no finished run in it; name a model: {MODEL_VARIABLE}=FOLDER, or polyvox serve --model "
            "NAME=FOLDER"
        )
    return found[-1].parent


def from_environment() -> Settings:
    """For ``uvicorn training.serving.app:app``: the model of `MODEL_VARIABLE`, else the newest finished run."""
    named = os.environ.get(MODEL_VARIABLE)
    folder = Path(named) if named else newest_run()
    return Settings(models={folder.resolve().name: folder})


def require_model(folder: Path) -> None:
    """`UserError` for a folder that holds no model, before a process is started for it."""
    if not folder.is_dir():
        raise UserError(f"--model: {folder}: no such folder")
    if not any((folder / name).is_file() for name in ("config.json", "polyvox.json")):
        raise UserError(
            f"--model: {folder}: neither config.json nor polyvox.json, so no model; give a finished run, one of its "
            "checkpoints, or a folder of polyvox export"
        )
