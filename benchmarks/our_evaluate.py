"""The same evaluation as `stock_evaluate`, by this library: what ``polyvox evaluate`` does once the model is loaded.

Its scores come with bootstrap intervals, breakdowns and error lists, and the time counts them.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace

from stock_evaluate import parser


def main() -> None:
    """Load, then by the clock: rows, hypotheses, scores."""
    args = parser().parse_args()
    from training.api.predicting import decoding, open_rows, readable
    from training.decoding.ctc_setup import SearchOptions
    from training.decoding.loading import load_trained
    from training.decoding.quiet import quiet
    from training.evaluation.evaluate import evaluate

    quiet()
    trained = load_trained(args.model)
    collate = replace(trained.architecture.collate, context=args.context)
    trained = replace(trained, architecture=replace(trained.architecture, collate=collate))
    how = decoding(trained, SearchOptions())
    how = replace(how, asked=replace(how.asked, max_new_tokens=args.max_new_tokens))
    started = time.perf_counter()
    rows, _ = open_rows(trained, args.manifest, "--manifest", "test", args.root)
    dataset = readable(trained, rows).dataset
    prepared = time.perf_counter()
    predictions = how.predict(trained, dataset)
    generated = time.perf_counter()
    evaluation = evaluate(predictions.examples, predictions.hypotheses, meta={})
    done = time.perf_counter()
    said: dict[str, list[str]] = {task: [] for task in trained.architecture.tasks}
    for found in predictions.hypotheses:
        said[found.task].append(found.text)
    report = {
        "prepare": prepared - started,
        "generate": generated - prepared,
        "score": done - generated,
        "seconds": done - started,
        "scores": {name: found["value"] for name, found in evaluation.report["scores"].items()},
        "hypotheses": said,
    }
    args.report.write_text(json.dumps(report), encoding="utf8")


if __name__ == "__main__":
    main()
