"""``polyvox evaluate``: score a trained model on a test split, once."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.errors import UserError, exit_on_user_error
from training.folders import writable
from training.scripts.options import add_domain, add_options, from_arguments, to_arguments

if TYPE_CHECKING:
    from training.config.schema import Evaluation
    from training.inference.loading import Trained

SPLITS = ("test", "dev", "train")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(prog="polyvox evaluate", description=__doc__, allow_abbrev=False)
    result.add_argument(
        "--model_dir",
        "--model_path",
        dest="model_dir",
        type=Path,
        required=True,
        help="a run's folder, a checkpoint, or a stock model",
    )
    result.add_argument(
        "--model_type", default=None, help="inferred from the folder; refused where it contradicts it"
    )
    result.add_argument("--test_csv", type=Path, default=None, help="manifest; default: the run's own split")
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
        "--audio_root", type=Path, default=None, help="folder that relative audio paths start from"
    )
    result.add_argument(
        "--batch_seconds", type=float, default=None, help="audio per batch; default: the run's"
    )
    result.add_argument(
        "--audio_file", type=Path, nargs="+", default=None, help="transcribe these files, score nothing"
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
    """Load, decode, score, write ``{name}_metrics.json`` and ``{name}_predictions.csv``."""
    args = parser().parse_args(argv)
    writable(args.output, "--output")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if args.audio_file:
        return _transcribe(args)
    from training.evaluation.evaluate import evaluate
    from training.inference.decoding import predict
    from training.inference.loading import load_trained, with_domain
    from training.inference.quiet import quiet

    quiet()
    trained = _with_settings(load_trained(args.model_dir, args.model_type), args.evaluation)
    if args.swap_test:
        _check_swap_test(trained, args.domain)
    trained = with_domain(trained, args.domain)
    name = args.name or _name(trained, args)
    manifest, path = _manifest(trained, args)
    dataset, ledger = _dataset(trained, manifest)
    options = _decoding(trained, args)
    decoder = options.decoder(trained.bundle)
    generation: dict[str, Any] = {"num_beams": options.width, "do_sample": False}
    if limit := _setting(trained, "max_new_tokens"):
        generation["max_new_tokens"] = limit

    def decode(model: Trained, rows: Any) -> Any:
        return predict(
            model.bundle,
            rows,
            batch_seconds=args.batch_seconds or _setting(trained, "batch_seconds") or 60.0,
            generation=generation,
            decoder=decoder,
            with_loss=False,
            progress=_progress(float(rows.durations.sum())),
        )

    predictions = decode(trained, dataset)
    settings = options.as_dict() if decoder else generation
    meta = _meta(trained, args, path, manifest, settings, len(ledger))
    evaluation = evaluate(
        predictions.examples,
        predictions.hypotheses,
        meta=meta,
        **_training_split(trained),
        resamples=_setting(trained, "resamples") or 1000,
        silence=_silence(trained, generation, decoder)
        if _setting(trained, "silence_probes") is not False
        else None,
    )
    ledger.write(args.output / f"{name}_dropped.tsv") if len(ledger) else None
    written = [*evaluation.write(args.output, name)]
    print(evaluation.summary())
    if args.swap_test:
        written.append(_swap_test(trained, dataset, predictions, decode, args.output / f"{name}_swap.json"))
    print(f"written: {', '.join(map(str, written))}")
    _into_registry(trained, args, predictions.examples, predictions.hypotheses)
    return 0


def _name(trained: Trained, args: argparse.Namespace) -> str:
    """The run's, with what makes this evaluation another one than that of its test split."""
    parts = [
        trained.name,
        *([args.split] if args.split != "test" else []),
        *([args.domain] if args.domain else []),
    ]
    return "_".join(parts)


def _check_swap_test(trained: Trained, domain: str | None) -> None:
    """`UserError` where it cannot be made, before anything is decoded."""
    from training.inference.loading import with_domain

    if domain is not None:
        raise UserError(
            f"--swap_test --domain {domain}: the test begins with the utterances' own domains; leave --domain out"
        )
    with_domain(trained, "swap", "--swap_test")


def _swap_test(trained: Trained, dataset: Any, own: Any, decode: Any, path: Path) -> Path:
    """The same utterances with the other prompts; prints the table, writes the figures."""
    import json

    from training.data.dataset import SpeechDataset
    from training.evaluation.domains import OWN, heard, swap_test, table
    from training.inference.decoding import PromptsOnly
    from training.inference.loading import says_domain, with_domain

    said = {OWN: (own.examples, own.hypotheses)}
    for prompt in ("swap", "none", *(["auto"] if says_domain(trained) else [])):
        other = with_domain(trained, prompt)
        rows = SpeechDataset(dataset.manifest, PromptsOnly(other.bundle.encode), trained.bundle.sample_rate)
        found = decode(other, rows)
        said[prompt] = (found.examples, found.hypotheses)
    resamples = _setting(trained, "resamples") or 1000
    result = swap_test(said, resamples=resamples, seed=0)
    result["heard_domains"] = heard(*said["auto"], resamples=resamples, seed=0) if "auto" in said else None
    print(table(result))
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf8")
    return path


def _transcribe(args: argparse.Namespace) -> int:
    """The same model on files of no split: `polyvox transcribe`."""
    from training.scripts import transcribe

    files = [str(path) for path in args.audio_file]
    domain = ["--domain", args.domain] if args.domain else []
    return transcribe.main([*files, "--model", str(args.model_dir), *domain, *to_arguments(args)])


def _decoding(trained: Trained, args: argparse.Namespace) -> Any:
    """The command line's options; the run's own beam width where none is given."""
    from dataclasses import replace

    options = from_arguments(args)
    if options.beam_width is None and not (options.lm or options.hot_words):
        return replace(options, beam_width=_setting(trained, "num_beams") or 1)
    return options


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


def _manifest(trained: Trained, args: argparse.Namespace) -> tuple[Any, Path | None]:
    from training.data.manifest import load_manifest
    from training.run import open_split

    config = trained.config
    if args.test_csv is not None:
        columns = config.data.columns if config else None
        return load_manifest(args.test_csv, audio_root=args.audio_root, columns=columns), args.test_csv
    if config is None:
        raise UserError(f"--test_csv: {args.model_dir} is no run of ours and names no test split; give one")
    manifest = open_split(config, args.split)
    if manifest is None:
        raise UserError(f"--split {args.split}: the run names no data.{args.split}; give --test_csv")
    if config.data.from_files:
        return manifest, getattr(config.data, args.split)
    return manifest, manifest.path if config.data.dataset is None else None


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


def _dataset(trained: Trained, manifest: Any) -> tuple[Any, Any]:
    """Every utterance that can be read; the others are listed, and are not scored as if they were silent."""
    from training.data.dataset import SpeechDataset, unwritable, validate
    from training.data.tasks import check_tasks
    from training.inference.decoding import PromptsOnly

    check_tasks(manifest, trained.bundle.tasks, "the test split", every=False)
    dataset = SpeechDataset(manifest, PromptsOnly(trained.bundle.encode), trained.bundle.sample_rate)
    kept, ledger = validate(dataset, workers=0)
    if len(ledger):
        print(
            f"{len(ledger)} of {len(manifest)} utterances cannot be scored\n{ledger.summary()}",
            file=sys.stderr,
        )
    if not len(kept):
        raise UserError("no utterance can be scored; see the list above")
    pieces, rows = unwritable(SpeechDataset(manifest, trained.bundle.encode, trained.bundle.sample_rate))
    if pieces:
        print(
            f"{pieces} pieces of the references, in {rows} utterances, are not in the model's vocabulary: it cannot "
            "write them, and they count as errors",
            file=sys.stderr,
        )
    return dataset.select(kept), ledger


def _silence(trained: Trained, generation: dict[str, Any], decoder: Any) -> dict[str, list[str]]:
    """What the model transcribes on clips without speech, by kind."""
    from training.inference.decoding import predict
    from training.inference.probes import KINDS, Probes

    domain = next(iter(getattr(trained.bundle.encode, "domains", ())), None)
    probes = Probes(trained.bundle.encode, trained.bundle.sample_rate, domain)
    task = trained.bundle.tasks[0]
    said: dict[str, list[str]] = {kind: [] for kind in KINDS}
    found = predict(trained.bundle, probes, generation=generation, decoder=decoder, with_loss=False)
    for row in found.predictions:
        said[probes.kind(row.row)].append(row.hypotheses[task].text)
    return said


def _training_split(trained: Trained) -> dict[str, Any]:
    """The training texts by task, for the baseline that answers with the nearest of them, and who spoke them."""
    from training.run import open_split

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
    speakers = manifest.column("speaker") if "speaker" in manifest.column_names else []
    return {"train_texts": texts, "train_speakers": {speaker for speaker in speakers if speaker}}


def _meta(
    trained: Trained,
    args: argparse.Namespace,
    path: Path | None,
    manifest: Any,
    generation: dict[str, Any],
    dropped: int,
) -> dict[str, Any]:
    """What the figures depend on: versions, commit, hashes, settings."""
    import hashlib

    from training.versions import commit, versions

    config = trained.config
    return {
        "model_dir": str(args.model_dir),
        "model_type": trained.model_type,
        "tasks": list(trained.bundle.tasks),
        "parameters": sum(p.numel() for p in trained.bundle.model.parameters()),
        "split": None if args.test_csv else args.split,
        "manifest": str(path) if path else None,
        "manifest_sha256": manifest.sha256() if path else None,
        "config_sha256": hashlib.sha256(config.to_yaml().encode()).hexdigest() if config else None,
        "config": config.as_dict() if config else None,
        "generation": generation,
        "domain": args.domain,
        "dropped": dropped,
        "commit": commit(),
        "versions": versions(),
    }


def _setting(trained: Trained, name: str) -> Any:
    return getattr(trained.config.evaluation, name) if trained.config else None


def _progress(total: float) -> Any:
    from tqdm import tqdm

    bar = tqdm(total=round(total), unit="s", desc="audio", disable=not sys.stderr.isatty())
    return bar.update


if __name__ == "__main__":
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]
    exit_on_user_error(main)
