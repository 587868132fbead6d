"""``polyvox doctor``: what this machine and this environment have, and what to do about what is missing.

Nothing is installed or changed, and nothing is fetched. The status is 1 where something keeps every training from
working (no torch, a Python that is too old).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence

from training.base.terminal import coloured
from training.cli.command_line import Parser
from training.doctor.finding import Finding

PROBLEM = 1
MARKS = {"ok": ("ok", "green"), "note": ("note", "yellow"), "problem": ("PROBLEM", "bold red")}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = Parser(
        prog="polyvox doctor", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("--json", action="store_true", help="the findings as JSON")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Print each finding as soon as it is there; status 1 where one is a problem."""
    args = parser().parse_args(argv)
    found = []
    for one in findings():
        found.append(one)
        if not args.json:
            _show(one)
    problems = [one for one in found if one.state == "problem"]
    if args.json:
        print(json.dumps([one.as_dict() for one in found], indent=2, ensure_ascii=False))
    elif problems:
        print(
            f"\n{len(problems)} of {len(found)} findings keep trainings from working: {', '.join(one.name for one in problems)}"
        )
    else:
        print("\nready; next: polyvox init my_project, or ./run_dev.sh for the demo")
    return PROBLEM if problems else 0


def findings() -> Iterator[Finding]:
    """All of them; what takes longer (torch, the hub) is asked meanwhile."""
    from training.doctor import environment, hardware, hub

    asked, knock = hardware.start_torch(), hub.start()
    try:
        yield environment.python()
        yield environment.versions()
        yield environment.requirements()
        yield hardware.cores()
        yield hardware.memory()
        yield from hardware.disk()
        yield environment.ffmpeg()
        yield from environment.variables()
        driver = hardware.driver()
        yield driver
        yield from environment.extras()
        yield hub.hub(knock)
        yield from hardware.torch(
            asked, gpu_in_driver=driver.state == "ok" and not driver.value.startswith("none")
        )
    finally:
        if asked.poll() is None:
            asked.kill()
            asked.communicate()


def _show(one: Finding) -> None:
    word, colour = MARKS[one.state]
    print(f"{coloured(f'{word:8}', colour)}{one.name:18} {one.value}", flush=True)
    if one.advice:
        print(f"{'':26} → {one.advice}", flush=True)
