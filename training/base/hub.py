"""Whether the Hugging Face Hub answers, known within a few seconds whatever the network does."""

from __future__ import annotations

import os
import re
import threading
import urllib.error
import urllib.request
from pathlib import Path

SECONDS = 3.0
HUB = "https://huggingface.co"
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def offline() -> str | None:
    """The variable that switches the hub off; None where none does."""
    return next(
        (name for name in OFFLINE if os.environ.get(name, "").upper() in ("1", "TRUE", "YES", "ON")), None
    )


def is_hub_id(name: str) -> bool:
    """Whether a name of weights can be one of the hub: ``NAME`` or ``OWNER/NAME``, and no folder here."""
    return _ID.fullmatch(name) is not None and not Path(name).exists() and not name.startswith(".")


def cache_folder() -> Path:
    """The folder in which huggingface_hub keeps models, by its documented variables."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()


class Knock:
    """A request to the hub that is on its way.

    Args:
        address: of the hub; default: what the variable HF_ENDPOINT says.
    """

    def __init__(self, address: str | None = None) -> None:
        self.address = address or os.environ.get("HF_ENDPOINT") or HUB
        self._why: str | None = f"no answer in {SECONDS:g} s"
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        request = urllib.request.Request(f"{self.address}/api/models?limit=1", method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as reply:
                self._why = None if reply.status < 500 else f"status {reply.status}"
        except urllib.error.HTTPError as error:
            self._why = None if error.code < 500 else f"status {error.code}"
        except (OSError, ValueError) as error:
            self._why = str(getattr(error, "reason", error))

    def why_not(self) -> str | None:
        """Why the hub is not in reach; None where it answers. Waits no longer than `SECONDS`."""
        self._thread.join(SECONDS)
        return self._why
