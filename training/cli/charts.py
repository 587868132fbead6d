"""``polyvox charts``: three charts and one self-contained report from what the runs left behind."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.base.errors import UserError
from training.cli.aliases import OneValue
from training.cli.command_line import Parser

if TYPE_CHECKING:
    from training.evaluation.stored import Result

LONGEST_EXAMPLE = 30.0
"""Seconds of sound that an example of the report carries at most."""
_RATE = 16_000


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = Parser(prog="polyvox charts", description=__doc__)
    result.add_argument("--outputs", type=Path, default=Path("outputs"), help="folder of the runs")
    result.add_argument(
        "--results", type=Path, default=None, help="folder of the score files (default: OUTPUTS/results)"
    )
    result.add_argument(
        "--output",
        "--charts",
        dest="charts",
        action=OneValue,
        type=Path,
        default=None,
        help="folder that the charts go to (default: OUTPUTS/charts)",
    )
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Draw what there is; a chart that nothing is known for is named as left out."""
    args = parser().parse_args(argv)
    from training.evaluation import charts
    from training.evaluation.report import write_report
    from training.evaluation.stored import load_deployments, load_histories, load_results

    source, target = args.results or args.outputs / "results", args.charts or args.outputs / "charts"
    results, histories = load_results(source), load_histories(args.outputs)
    if not results and not histories:
        raise UserError(
            f"nothing to draw: no *_metrics.json in {source} and no <run>/metrics/*_metrics.json in {args.outputs}; "
            "train and evaluate a run first, or name the folders with --outputs and --results"
        )
    drawn = {
        "training_loss.png": charts.training_loss(histories, target / "training_loss.png"),
        "wer_comparison.png": charts.wer_comparison(results, target / "wer_comparison.png"),
        "bleu_comparison.png": charts.bleu_comparison(results, target / "bleu_comparison.png"),
    }
    write_report(
        target / "report.html",
        results,
        histories,
        audio_of(results),
        load_deployments(source),
        diagnoses_of(results),
    )
    for name, done in drawn.items():
        print(f"written: {target / name}" if done else f"left out: {name} (no run has figures for it)")
    print(f"written: {target / 'report.html'}")
    return 0


def diagnoses_of(results: Sequence[Result]) -> dict[str, list[dict[str, Any]]]:
    """Name of an evaluation → what is probably wrong, by the rules of now, also for evaluations of before."""
    from training.diagnosis.rules import diagnose
    from training.diagnosis.told import evidence_of

    folders = {
        one.run: Path(str((one.report.get("meta") or {}).get("model_dir") or one.run)) for one in results
    }
    return {
        one.run: [found.as_dict() for found in diagnose(evidence_of(folders[one.run], one))]
        for one in results
    }


def audio_of(results: Sequence[Result]) -> Callable[[str], tuple[bytes, str] | None]:
    """Sound of an utterance by id, from the places that the predictions name; None where it is gone.

    Of several test sets with one name for different utterances the first counts, as for the report's examples.
    """
    rows = [row for result in results for row in result.predictions() if row.get("audio_path")]
    places = {row["id"]: row for row in reversed(rows)}

    def load(name: str) -> tuple[bytes, str] | None:
        return _wav(places[name]) if name in places else None

    return load


def _wav(row: dict[str, str]) -> tuple[bytes, str] | None:
    import soundfile

    from training.data.audio import AudioError, load_audio
    from training.data.example import AudioRef

    end = float(row["audio_end"]) if row.get("audio_end") else None
    ref = AudioRef(path=row["audio_path"], start=float(row.get("audio_start") or 0.0), end=end)
    try:
        samples = load_audio(ref, _RATE)
    except AudioError as error:
        print(f"no sound for {row['id']} in the report: {error}", file=sys.stderr)
        return None
    buffer = io.BytesIO()
    soundfile.write(buffer, samples[: int(LONGEST_EXAMPLE * _RATE)], _RATE, format="WAV", subtype="PCM_16")
    return buffer.getvalue(), "audio/wav"
