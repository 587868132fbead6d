"""The Hugging Face Hub."""

from __future__ import annotations

from training.base.hub import Knock, offline
from training.doctor.finding import Finding


def start() -> Knock | None:
    """Ask the hub; None where it is switched off."""
    return None if offline() is not None else Knock()


def hub(knock: Knock | None) -> Finding:
    """Whether it answers; waits some seconds at most."""
    if knock is None:
        text = f"switched off by {offline()}: only models in the cache can be used"
        return Finding("model hub", text, "note", f"unset {offline()} to fetch pretrained models")
    why = knock.why_not()
    if why is None:
        return Finding("model hub", f"{knock.address} answers")
    advice = (
        "models in the cache still work, faster with HF_HUB_OFFLINE=1; behind a proxy set HTTPS_PROXY; without "
        "pretrained models train from scratch: ./run_dev.sh --profile demo, configs/demo_ctc.yaml"
    )
    return Finding("model hub", f"{knock.address} is not in reach ({why})", "note", advice)
