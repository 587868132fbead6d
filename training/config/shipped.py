"""The configurations that come with polyvox: in a checkout's ``configs/``, or where a wheel was installed."""

from __future__ import annotations

import sysconfig
from pathlib import Path

CONFIGS = Path("configs")
INSTALLED = Path("share/polyvox/configs")
"""Their folder in an environment that a wheel was installed in (``data-files`` of pyproject.toml)."""


def folder() -> Path:
    """The folder of the shipped configurations, with ``profiles`` in it."""
    checkout = Path(__file__).parents[2] / CONFIGS
    return checkout if checkout.is_dir() else Path(sysconfig.get_path("data")) / INSTALLED


def located(path: Path) -> Path:
    """The path itself where it is there; for ``configs/NAME.yaml`` outside of a checkout the shipped file."""
    if path.exists() or path.is_absolute() or path.parts[:1] != CONFIGS.parts:
        return path
    ours = folder() / path.relative_to(CONFIGS)
    return ours if ours.is_file() else path


def base_of(path: Path, name: str) -> Path:
    """What ``_base_: name`` means in the file ``path``: a file beside it, else a shipped one."""
    beside = path.parent / name
    ours = folder() / name
    return ours if not beside.is_file() and not Path(name).is_absolute() and ours.is_file() else beside


def names() -> list[str]:
    """Names of the configurations in ``configs/`` here, or of those that are shipped."""
    here = CONFIGS if CONFIGS.is_dir() else folder()
    return sorted(one.stem for one in here.glob("*.yaml"))
