"""Whether the Hugging Face Hub answers, within a few seconds whatever the network does."""

from __future__ import annotations

import os
import threading
import urllib.error
import urllib.request

from training.doctor.finding import Finding

SECONDS = 3.0
HUB = "https://huggingface.co"
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def offline() -> str | None:
    """The variable that switches the hub off; None where none does."""
    return next(
        (name for name in OFFLINE if os.environ.get(name, "").upper() in ("1", "TRUE", "YES", "ON")), None
    )


class Knock:
    """A request that is on its way; ask `finding` for the answer."""

    def __init__(self, address: str | None = None) -> None:
        self.address = address or os.environ.get("HF_ENDPOINT") or HUB
        self.answer: str | None = None
        self.thread: threading.Thread | None = None
        if offline() is None:
            self.thread = threading.Thread(target=self._ask, daemon=True)
            self.thread.start()

    def _ask(self) -> None:
        request = urllib.request.Request(f"{self.address}/api/models?limit=1", method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as reply:
                self.answer = "" if reply.status < 500 else f"status {reply.status}"
        except urllib.error.HTTPError as error:
            self.answer = "" if error.code < 500 else f"status {error.code}"
        except (OSError, ValueError) as error:
            self.answer = str(getattr(error, "reason", error))

    def finding(self) -> Finding:
        """The answer; waits no longer than `SECONDS`."""
        if self.thread is None:
            text = f"switched off by {offline()}=1: only models in the cache can be used"
            return Finding("model hub", text, "note", f"unset {offline()} to fetch pretrained models")
        self.thread.join(SECONDS)
        if self.answer == "":
            return Finding("model hub", f"{self.address} answers")
        why = self.answer or f"no answer in {SECONDS:g} s"
        advice = (
            "models in the cache still work, faster with HF_HUB_OFFLINE=1; behind a proxy set HTTPS_PROXY; without "
            "pretrained models train from scratch: ./run_dev.sh --profile demo, configs/demo_ctc.yaml"
        )
        return Finding("model hub", f"{self.address} is not in reach ({why})", "note", advice)
