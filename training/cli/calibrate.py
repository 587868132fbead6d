"""``polyvox calibrate``: calibrate the confidence of a model's words, on utterances that it was not trained on.

Writes ``calibration.json`` into the model's folder; from then on ``polyvox evaluate`` and ``polyvox transcribe`` use it
wherever they decode with these options and these weights.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.api.predicting import decoding, open_rows, readable
from training.base.errors import UserError, shown
from training.cli.command_line import Parser
from training.cli.options import add_columns, add_model, add_options, from_arguments

if TYPE_CHECKING:
    from training.evaluation.calibration import Judged

FEWEST = 50
"""Words; fewer tell nothing."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = Parser(prog="polyvox calibrate", description=__doc__)
    add_model(result, "a run's folder")
    result.add_argument(
        "--manifest", type=Path, default=None, help="utterances; default: the run's dev split"
    )
    add_columns(result)
    result.add_argument(
        "--if_possible",
        action="store_true",
        help="where there are too few words, say so and write nothing: the confidence stays the model's own",
    )
    result.add_argument("--seed", type=int, default=0, help="of the cross-validation (default: 0)")
    add_options(result)
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Decode, fit both maps, keep the better one, say what it does."""
    args = parser().parse_args(argv)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with shown(warnings_apart=True):
        return _calibrate(args)


def _calibrate(args: argparse.Namespace) -> int:
    from training.data.columns import column_names
    from training.decoding.calibrated import weights_of
    from training.decoding.loading import load_trained
    from training.decoding.quiet import quiet
    from training.evaluation.calibration import fit, judge_words

    quiet()
    trained = load_trained(args.model_dir)
    if trained.architecture.frames is None and trained.architecture.aligner is None:
        raise UserError(
            f"--model_dir {args.model_dir}: a {trained.model_type} tells no confidence of words that this command can calibrate"
        )
    columns = column_names(args.column)
    manifest, path = open_rows(trained, args.manifest, "--manifest", "dev", args.audio_root, columns)
    found = readable(trained, manifest, "dev")
    found.require()
    how = decoding(trained, from_arguments(args), args.batch_seconds)
    predictions = how.predict(trained, found.dataset)
    judged = judge_words(predictions.examples, predictions.hypotheses)
    if few := _too_few(judged, path):
        if not args.if_possible:
            raise UserError(few)
        print(f"not calibrated: {few}")
        return 0
    calibration, figures = fit(judged, seed=args.seed)
    calibration = replace(
        calibration,
        decoding=how.options.identity(trained.architecture),
        weights=weights_of(trained.folder),
        fitted=_record(judged, figures, path, manifest),
    )
    print(table(judged, figures, calibration.method))
    print(f"written: {calibration.write(trained.folder)}")
    return 0


def _too_few(judged: Judged, path: Path | None) -> str | None:
    """What is wrong where there are too few words; None where there are enough."""
    if len(judged.right) >= FEWEST:
        return None
    return (
        f"{path or 'the dev split'}: {len(judged.right)} recognised words are too few to fit a confidence; at least "
        f"{FEWEST} are needed (--manifest FILE)"
    )


def _record(judged: Judged, figures: Mapping[str, Any], path: Path | None, manifest: Any) -> dict[str, Any]:
    return {
        "words": len(judged.right),
        "right": int(judged.right.sum()),
        "utterances": len(judged.examples),
        "manifest": path.name if path else None,
        "manifest_sha256": manifest.sha256() if path else None,
        "cross_validation": dict(figures),
    }


def table(judged: Judged, figures: Mapping[str, Mapping[str, float]], chosen: str) -> str:
    """What each map does, for a terminal."""
    share = 100 * judged.right.mean()
    lines = [f"{len(judged.right)} words of {len(judged.examples)} utterances, {share:.1f} % right"]
    lines.append(f"{'confidence':24} {'calibration error':>17} {'Brier score':>12}")
    for name, scores in figures.items():
        told = "the model's own" if name == "raw" else f"{name}, cross-validated"
        mark = "  chosen" if name == chosen else ""
        lines.append(f"{told:24} {scores['ece']:17.4f} {scores['brier']:12.4f}{mark}")
    return "\n".join(lines)
