"""``polyvox evaluate``: score a trained model on a test split, once."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.cli.options import add_domain, add_model, add_options, to_arguments
from training.cli.predicting import Decoding, add_columns, decoding, open_rows, readable, setting
from training.errors import UserError, exit_on_user_error
from training.files import writable

if TYPE_CHECKING:
    from training.config.blocks import Evaluation
    from training.data.ledger import DropLedger
    from training.decoding.loading import Trained

SPLITS = ("test", "dev", "train")
SCORING = ("test_csv", "name", "teacher", "swap_test", "evaluation")
"""Options that say how utterances with references are scored."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(prog="polyvox evaluate", description=__doc__, allow_abbrev=False)
    add_model(result, "a run's folder, a checkpoint, or a stock model")
    result.add_argument(
        "--model_type", default=None, help="inferred from the folder; refused where it contradicts it"
    )
    result.add_argument("--test_csv", type=Path, default=None, help="manifest; default: the run's own split")
    add_columns(result)
    result.add_argument(
        "--split", choices=SPLITS, default="test", help="which of the run's own splits (default: test)"
    )
    result.add_argument(
        "--output", type=Path, default=Path("outputs/results"), help="folder of the result files"
    )
    result.add_argument(
        "--name",
        default=None,
        help="of the result files; default: the run's, and the split unless that is test",
    )
    result.add_argument(
        "--audio_file", type=Path, nargs="+", default=None, help="transcribe these files, score nothing"
    )
    result.add_argument(
        "--teacher",
        type=Path,
        default=None,
        help="timestamps_manifest.json whose labels of the reference words are scored beside the model's times",
    )
    add_options(result)
    add_domain(result)
    result.add_argument(
        "--swap_test",
        action="store_true",
        help="domain_whisper: score once more with another domain's token, with none, and with the one it hears",
    )
    result.add_argument(
        "--evaluation",
        nargs="*",
        default=[],
        metavar="key=value",
        help="settings of the evaluation: block other than the run's, e.g. resamples=200",
    )
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Load, decode, score, write ``{name}_metrics.json`` and ``{name}_predictions.csv``.

    1: scored, but more than ``data.max_dropped_share`` of the utterances could not be.
    """
    args = parser().parse_args(argv)
    _check_options(args)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if args.audio_file:
        return _transcribe(args)
    writable(args.output, "--output")
    from training.data.amounts import cells
    from training.data.columns import column_names
    from training.decoding.loading import load_trained, with_domain
    from training.decoding.quiet import quiet
    from training.evaluation.evaluate import evaluate, left_out
    from training.evaluation.stored import SWAP_SUFFIX

    quiet()
    teacher = _teacher(args)
    trained = _with_settings(load_trained(args.model_dir, args.model_type), args.evaluation)
    if args.swap_test:
        _check_swap_test(trained, args.domain)
    trained = with_domain(trained, args.domain)
    name = _free_name(trained, args)
    columns = column_names(args.column)
    manifest, path = open_rows(trained, args.test_csv, "--test_csv", args.split, args.audio_root, columns)
    if args.swap_test and not any(cells(manifest, "domain")):
        raise UserError(
            "--swap_test: no utterance names a domain, and the test is scored by domain; see column domain"
        )
    found = readable(trained, manifest)
    dropped = _write_ledger(found.ledger, args.output / f"{name}_dropped.tsv")
    found.require()
    dataset, how = found.dataset, decoding(trained, args)
    predictions = how.predict(trained, dataset)
    hypotheses, evidence = _words(trained, how, dataset, predictions, teacher)
    evaluation = evaluate(
        predictions.examples,
        hypotheses,
        meta=_meta(trained, args, path, manifest, how.settings, len(found.ledger)),
        dropped=left_out(found.ledger, found.total, _max_dropped(trained)),
        **_training_split(trained),
        resamples=setting(trained, "resamples") or 1000,
        silence=_silence(trained, how) if setting(trained, "silence_probes") is not False else None,
        words=evidence,
    )
    written = [*dropped, *evaluation.write(args.output, name)]
    print(evaluation.summary())
    if args.swap_test:
        said = (predictions.examples, hypotheses)
        written.append(_swap_test(trained, dataset, said, how, args.output / f"{name}{SWAP_SUFFIX}"))
    print(f"written: {', '.join(map(str, written))}")
    _into_registry(trained, args, predictions.examples, hypotheses)
    return _status(found.ledger, found.total, _max_dropped(trained))


def _write_ledger(ledger: DropLedger, path: Path) -> list[Path]:
    """The ledger's file where there is something in it; what an earlier evaluation left goes otherwise."""
    if not len(ledger):
        path.unlink(missing_ok=True)
        return []
    ledger.write(path)
    return [path]


def _max_dropped(trained: Trained) -> float:
    """``data.max_dropped_share`` of the run; the default for a model without one."""
    from training.config.blocks import Data

    if trained.config is not None:
        return trained.config.data.max_dropped_share
    return float(Data.model_fields["max_dropped_share"].default)


def _status(ledger: DropLedger, total: int, share: float) -> int:
    """1 and a line on stderr where too many utterances are left out."""
    if not ledger.exceeds(total, share):
        return 0
    print(
        f"error: {len(ledger):,} of {total:,} utterances were not scored, more than data.max_dropped_share ({share:g}) "
        "allows; the scores are those of the others. Mend the data, or raise the key in the run's config.yaml",
        file=sys.stderr,
    )
    return 1


def _check_options(args: argparse.Namespace) -> None:
    """`UserError` for what would be ignored, and for a name that is a path."""
    if args.name is not None and not re.fullmatch(r"[^/\\]+", args.name):
        raise UserError(f"--name {args.name}: must be a name without / and \\; the folder is --output")
    given = [name for name in SCORING if getattr(args, name)]
    if args.audio_file and given:
        raise UserError(
            f"--{given[0]}: --audio_file only transcribes, nothing is scored; leave out one of them"
        )


def _teacher(args: argparse.Namespace) -> Any:
    """Its labels, read before a model is loaded."""
    from training.evaluation.words import read_teacher

    return None if args.teacher is None else read_teacher(args.teacher)


def _words(trained: Trained, how: Decoding, dataset: Any, predictions: Any, teacher: Any) -> tuple[Any, Any]:
    """The hypotheses with confidences as they leave, and what else the evaluation is told of their words."""
    from training.decoding.calibrated import usable
    from training.evaluation.words import WordEvidence

    own = predictions.hypotheses
    identity = how.options.identity(trained.bundle)
    calibration, note = usable(trained.calibration, trained.folder, identity)
    timed = trained.bundle.aligner is not None and any(example.words for example in predictions.examples)
    given = how.predict(trained, dataset, given_text=True).hypotheses if timed else None
    evidence = WordEvidence(given=given, raw=own if calibration else None, note=note, teacher=teacher)
    return [calibration.apply(one) for one in own] if calibration else own, evidence


def _name(trained: Trained, args: argparse.Namespace) -> str:
    """The run's, with what makes this evaluation another one than that of its test split."""
    parts = [
        trained.name,
        *([args.split] if args.split != "test" else []),
        *([args.domain] if args.domain else []),
    ]
    return "_".join(parts)


def _free_name(trained: Trained, args: argparse.Namespace) -> str:
    """``--name`` or `_name`; one that another run's results have is not taken unasked."""
    from training.evaluation.stored import free_name, of_another

    sha256 = _config_sha256(trained)
    if args.name:
        if of_another(args.output, args.name, args.model_dir, sha256):
            print(f"--name {args.name}: replaces the results that another run has under this name")
        return str(args.name)
    wanted = _name(trained, args)
    found = free_name(args.output, wanted, args.model_dir, sha256)
    if found != wanted:
        print(
            f"{args.output}: another run has the name {wanted}; these results get the name {found} (or give --name)"
        )
    return found


def _config_sha256(trained: Trained) -> str | None:
    import hashlib

    return hashlib.sha256(trained.config.to_yaml().encode()).hexdigest() if trained.config else None


def _check_swap_test(trained: Trained, domain: str | None) -> None:
    """`UserError` where it cannot be made, before anything is decoded."""
    from training.data.example import TRANSCRIBE
    from training.decoding.loading import with_domain
    from training.models.architecture import SWAP

    if domain is not None:
        raise UserError(
            f"--swap_test --domain {domain}: the test begins with the utterances' own domains; leave --domain out"
        )
    if TRANSCRIBE not in trained.bundle.tasks:
        raise UserError(
            f"--swap_test: compares transcripts, and {trained.folder} was trained to translate alone"
        )
    with_domain(trained, SWAP, "--swap_test")


def _swap_test(trained: Trained, dataset: Any, own: Any, how: Decoding, path: Path) -> Path:
    """The same utterances with the other prompts; prints the table, writes the figures."""
    import json

    from training.data.dataset import SpeechDataset
    from training.decoding.loading import with_domain
    from training.decoding.predict import PromptsOnly
    from training.evaluation.domains import OWN, heard, swap_test, table

    domains = trained.bundle.domains
    assert domains is not None
    said = {OWN: own}
    for prompt in ("swap", "none", *(["auto"] if domains.predictable else [])):
        other = with_domain(trained, prompt)
        rows = SpeechDataset(dataset.manifest, PromptsOnly(other.bundle.encode), trained.bundle.sample_rate)
        found = how.predict(other, rows)
        said[prompt] = (found.examples, found.hypotheses)
    resamples = setting(trained, "resamples") or 1000
    result = swap_test(said, resamples=resamples, seed=0)
    result["heard_domains"] = heard(*said["auto"], resamples=resamples, seed=0) if "auto" in said else None
    print(table(result))
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf8")
    return path


def _transcribe(args: argparse.Namespace) -> int:
    """The same model on files of no split: `polyvox transcribe`."""
    from training.cli import transcribe

    files = [str(path) for path in args.audio_file]
    domain = ["--domain", args.domain] if args.domain else []
    return transcribe.main([*files, "--model", str(args.model_dir), *domain, *to_arguments(args)])


def _with_settings(trained: Trained, given: Sequence[str]) -> Trained:
    from dataclasses import replace

    if not given:
        return trained
    if trained.config is None:
        raise UserError(f"--evaluation: {trained.folder} is no run of ours and has no such settings")
    changed = {"evaluation": rescored(trained.config.evaluation, given)}
    return replace(trained, config=trained.config.model_copy(update=changed))


def rescored(evaluation: Evaluation, given: Sequence[str]) -> Evaluation:
    """The run's settings with ``key=value`` ones in their place; `UserError` for one that is not there or wrong."""
    import yaml
    from pydantic import ValidationError

    from training.config.explain import suggestion

    values = evaluation.model_dump()
    for pair in given:
        key, equals, text = pair.partition("=")
        if not equals or key not in values:
            hint = suggestion(key, values) or f"; the keys are {', '.join(values)}"
            raise UserError(f"--evaluation {pair}: must be key=value{hint}")
        try:
            values[key] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UserError(f"--evaluation {pair}: {text!r} is not a value") from error
    try:
        return type(evaluation).model_validate(values)
    except ValidationError as error:
        wrong = error.errors()[0]
        key = ".".join(map(str, wrong["loc"]))
        raise UserError(f"--evaluation {key}={wrong['input']}: {wrong['msg']}") from error


def _into_registry(trained: Trained, args: argparse.Namespace, examples: Any, hypotheses: Any) -> None:
    """What was said about a split of a registry is kept there too; a database that refuses spoils no evaluation."""
    config = trained.config
    if args.test_csv is not None or config is None or config.data.registry is None:
        return
    from training.registry.recording import store_predictions
    from training.registry.store import open_registry

    try:
        with open_registry(config.data.registry) as registry:
            count = store_predictions(registry, config.output.dir, args.split, examples, hypotheses)
    except UserError as error:
        print(f"warning: the registry does not take the predictions: {error}", file=sys.stderr)
        return
    print(f"{config.data.registry}: {count:,} predictions stored")


def _silence(trained: Trained, how: Decoding) -> dict[str, list[str]]:
    """What the model transcribes on clips without speech, by kind."""
    from training.decoding.predict import predict
    from training.evaluation.probes import KINDS, Probes

    domains = trained.bundle.domains
    domain = domains.names[0] if domains is not None else None
    probes = Probes(trained.bundle.encode, trained.bundle.sample_rate, domain)
    task = trained.bundle.tasks[0]
    said: dict[str, list[str]] = {kind: [] for kind in KINDS}
    found = predict(trained.bundle, probes, options=how.asked, with_loss=False)
    for row in found.predictions:
        said[probes.kind(row.row)].append(row.hypotheses[task].text)
    return said


def _training_split(trained: Trained) -> dict[str, Any]:
    """The training texts by task, for the baseline that answers with the nearest of them, and who spoke them."""
    from training.data.amounts import cells
    from training.engine.run import open_split

    if trained.config is None:
        return {}
    try:
        manifest = open_split(trained.config, "train")
    except UserError as error:
        print(f"no training split to compare with: {error}", file=sys.stderr)
        return {}
    texts: dict[str, list[str]] = {task: [] for task in trained.bundle.tasks}
    for task, _, text in manifest.texts():
        if task in texts:
            texts[task].append(text)
    return {"train_texts": texts, "train_speakers": {name for name in cells(manifest, "speaker") if name}}


def _meta(
    trained: Trained,
    args: argparse.Namespace,
    path: Path | None,
    manifest: Any,
    generation: dict[str, Any],
    dropped: int,
) -> dict[str, Any]:
    """What the figures depend on: versions, commit, hashes, settings."""
    from training.engine.versions import commit, versions

    config = trained.config
    return {
        "model_dir": str(args.model_dir),
        "model_type": trained.model_type,
        "tasks": list(trained.bundle.tasks),
        "parameters": sum(p.numel() for p in trained.bundle.model.parameters()),
        "split": None if args.test_csv else args.split,
        "manifest": str(path) if path else None,
        "manifest_sha256": manifest.sha256() if path else None,
        "config_sha256": _config_sha256(trained),
        "config": config.as_dict() if config else None,
        "generation": generation,
        "domain": args.domain,
        "dropped": dropped,
        "commit": commit(),
        "versions": versions(),
    }


if __name__ == "__main__":
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]
    exit_on_user_error(main)
