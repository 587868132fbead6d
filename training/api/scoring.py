"""Score a trained model on utterances with references; ``polyvox evaluate`` does the same."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from training.api.scoring_told import diagnosed, is_demo, next_commands, opening, what
from training.base.errors import DRAWN, UserError
from training.base.files import writable
from training.base.model_folder import check_model_folder
from training.decoding.quiet import quietly

if TYPE_CHECKING:
    from training.api.predicting import Decoding, Readable
    from training.config.schema import Config
    from training.data.ledger import DropLedger
    from training.decoding.ctc_setup import SearchOptions
    from training.decoding.loading import Trained
    from training.evaluation.evaluate import Evaluation as Evaluated
    from training.evaluation.scores import Scores

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The arguments of `evaluate`."""

    split: Literal["train", "dev", "test"]
    manifest: Path | None
    audio_root: Path | None
    columns: Mapping[str, str] | None
    output: Path | None
    name: str | None
    domain: str | None
    options: SearchOptions | None
    batch_seconds: float | None
    teacher: Path | None
    swap_test: bool
    baseline: bool
    config: Config | None = None
    """That of data and settings, in place of the run's."""


@dataclass(frozen=True)
class Place:
    """The folder of the result files, and what their names begin with."""

    folder: Path
    name: str


def evaluate(
    model: Trained | os.PathLike[str] | str | None = None,
    split: Literal["train", "dev", "test"] = "test",
    *,
    manifest: Path | str | None = None,
    audio_root: Path | str | None = None,
    columns: Mapping[str, str] | None = None,
    output: Path | str | None = None,
    name: str | None = None,
    domain: str | None = None,
    options: SearchOptions | None = None,
    batch_seconds: float | None = None,
    overrides: Sequence[str] | str = (),
    teacher: Path | str | None = None,
    swap_test: bool = False,
    model_type: str | None = None,
    baseline: bool = True,
    config: Config | None = None,
) -> Scores:
    """Decode a split, compare with its references.

    Args:
        model: a finished run, a folder (a run's, one of its checkpoints, a stock model), or what `load_model` returned.
            None, with ``config``: the pretrained weights that a run with it would start from.
        split, manifest: which of the run's own splits; the utterances of this manifest instead.
        audio_root, columns: where relative audio paths of ``manifest`` start; our names of columns → its own.
        output: folder of ``{name}_metrics.json``, ``{name}_predictions.csv`` and, where utterances are left out,
            ``{name}_dropped.tsv``; predictions go into the run's registry too. None: nothing is written.
        name: of the files; default: the run's, and the split unless that is test, unless another run's results have it.
        domain, swap_test: ``domain_whisper`` only: see ``polyvox evaluate --help``.
        options, batch_seconds: beam width, language model and the like; audio seconds of a batch; default: the run's.
        overrides: ``key=value`` texts for the run's ``evaluation:`` block, e.g. ``["resamples=200"]``.
        teacher: ``timestamps_manifest.json`` whose word times are scored beside the model's.
        model_type: refuse a folder with a model of another type.
        baseline: score the pretrained weights that the run started from too; see docs/evaluation.md.
        config: data and settings of this configuration instead of the run's; nothing needs to have been trained with it.

    Returns:
        The scores. ``scores.dropped``: utterances without; ``scores.too_many_dropped``: whether they are more than
        ``data.max_dropped_share`` allows, which is logged as an error too.

    Raises:
        UserError: the folder holds no model, no utterance can be scored, or the model cannot do what is asked.
    """
    paths = {"manifest": manifest, "audio_root": audio_root, "output": output, "teacher": teacher}
    asked = Asked(
        **{key: _path(path) for key, path in paths.items()},  # type: ignore[arg-type]
        split=split,
        columns=columns,
        name=name,
        domain=domain,
        options=options,
        batch_seconds=batch_seconds,
        swap_test=swap_test,
        baseline=baseline,
        config=config,
    )
    _check_output(asked)
    if isinstance(model, str | os.PathLike):
        check_model_folder(Path(model))
    with quietly():
        return _evaluate(model, asked, overrides, model_type)


def _check_output(asked: Asked) -> None:
    """`UserError` before anything is loaded where the results could not be written."""
    if asked.name is not None and not re.fullmatch(r"[^/\\]+", asked.name):
        raise UserError(f"--name {asked.name}: must be a name without / and \\; the folder is --output")
    if asked.output is not None:
        writable(asked.output, "--output")


def _path(given: Path | str | None) -> Path | None:
    return None if given is None else Path(given)


def _evaluate(model: Any, asked: Asked, overrides: Sequence[str] | str, model_type: str | None) -> Scores:
    from training.api.predicting import decoding, open_rows, readable
    from training.api.swapping import check_domains, swap_test
    from training.decoding.ctc_setup import SearchOptions
    from training.diagnosis.told import drawn
    from training.diagnosis.told import lines as told
    from training.evaluation.scores import Scores

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    teacher = _teacher(asked.teacher)
    given = [overrides] if isinstance(overrides, str) else overrides
    trained = _loaded(model, asked, given, model_type)
    place = _place(trained, asked)
    _check_retained(trained, asked)
    manifest, path = open_rows(
        trained, asked.manifest, "--manifest", asked.split, asked.audio_root, asked.columns
    )
    if asked.swap_test:
        check_domains(manifest)
    found = readable(trained, manifest)
    written = _write_ledger(found.ledger, place)
    found.require()
    trained = _timed(trained, found.dataset.manifest)
    how = decoding(trained, asked.options or SearchOptions(), asked.batch_seconds)
    if place is not None:
        for line in opening(trained, found.dataset, how, what(asked.split, asked.manifest)):
            logger.info(line)
    meta = _meta(trained, asked, path, manifest, how, len(found.ledger))
    evaluation, decoded = _scored(trained, how, found, meta, teacher)
    if _compares(asked):
        evaluation = _beside_start(evaluation, trained, how, found, decoded, place)
    evaluation, diagnoses = diagnosed(evaluation, trained)
    scores = Scores(evaluation.report, evaluation.predictions, found.ledger, written=written)
    if place is not None:
        scores = replace(scores, written=(*written, *evaluation.write(place.folder, place.name)))
        head = f"{trained.folder}, {what(asked.split, asked.manifest)}:\n"
        figures = {DRAWN: head + evaluation.summary(drawn=True)}
        logger.info(head + evaluation.summary(), extra=figures)
        lines = list(told(diagnoses, f"{trained.folder} on {what(asked.split, asked.manifest)}"))
        logger.info("\n".join(lines), extra={DRAWN: "\n".join(drawn(lines))})
    if asked.swap_test:
        scores = _swapped(scores, swap_test(trained, found.dataset, decoded, how), place)
    if place is not None:
        logger.info(f"written: {', '.join(map(str, scores.written))}")
        logger.info(next_commands(trained, place.folder))
        _into_registry(trained, asked, *decoded)
    if scores.too_many_dropped:
        logger.error(_too_many(scores.report["dropped"]))
    return scores


def _loaded(model: Any, asked: Asked, overrides: Sequence[str], model_type: str | None) -> Trained:
    """The model, with the settings and the domain that are asked for."""
    from training.api.predicting import with_settings
    from training.api.swapping import check_swap_test
    from training.decoding.loading import Trained, load_trained, with_domain

    if model is None and asked.config is None:
        raise UserError("which model? Give its folder (--model_dir), or a configuration (--config)")
    if asked.config is not None:
        trained = _of_configuration(model, asked.config, model_type)
    else:
        trained = model if isinstance(model, Trained) else load_trained(Path(model), model_type)
    trained = with_settings(trained, overrides)
    if asked.swap_test:
        check_swap_test(trained, asked.domain)
    return with_domain(trained, asked.domain)


def _compares(asked: Asked) -> bool:
    """Whether the start weights are scored too."""
    return asked.baseline and asked.config is None


def _check_retained(trained: Trained, asked: Asked) -> None:
    """`UserError` for a manifest that is not there, before anything is decoded; a warning where none will be scored."""
    from training.api.predicting import setting

    wanted = setting(trained, "retain") or ()
    for path in wanted:
        if not path.is_file():
            raise UserError(f"evaluation.retain: {path} is not there; mend the path, or leave it out")
    if wanted and trained.config is None:
        logger.warning(
            f"evaluation.retain: not scored: {trained.folder} is no run of ours, so its start is not known"
        )
    elif wanted and not _compares(asked):
        logger.warning(
            "evaluation.retain: not scored: the start weights are left out (--no_baseline, --config), and a comparison needs "
            "both"
        )


def _of_configuration(model: Any, config: Config, model_type: str | None) -> Trained:
    """The model with the data and the settings of a configuration: the one given, else the weights that it starts from."""
    from training.api.start import load_start, start_weights
    from training.decoding.loading import Trained

    if model is None:
        start = start_weights(config)
        if start is None:
            raise UserError(
                "--config: model: names no pretrained weights; say with --model_dir what is evaluated"
            )
        trained = start.trained
    else:
        trained = model if isinstance(model, Trained) else load_start(Path(model), config)
    if model_type is not None and model_type != trained.model_type:
        raise UserError(
            f"--model_type {model_type}: {trained.folder} holds a model of type {trained.model_type}"
        )
    return replace(trained, config=config)


def _scored(
    trained: Trained, how: Decoding, found: Readable, meta: dict[str, Any], teacher: Any
) -> tuple[Evaluated, tuple[Any, Any]]:
    """The evaluation, and the examples and hypotheses that it is of."""
    from training.api.predicting import setting
    from training.evaluation.evaluate import evaluate as score
    from training.evaluation.evaluate import left_out

    predictions = how.predict(trained, found.dataset)
    meta["detected_languages"] = predictions.detected_languages()
    hypotheses, evidence = _words(trained, how, found.dataset, predictions, teacher)
    silence = _silence(trained, how) if setting(trained, "silence_probes") is not False else None
    evaluation = score(
        predictions.examples,
        hypotheses,
        meta=meta,
        dropped=left_out(found.ledger, found.total, _max_dropped(trained)),
        **_training_split(trained),
        resamples=setting(trained, "resamples") or 1000,
        silence=None if silence is None else silence.texts,
        words=evidence,
        with_targets=is_demo(found.dataset.manifest),
    )
    evaluation.report["speed"]["probe_seconds"] = None if silence is None else silence.seconds
    return evaluation, (predictions.examples, hypotheses)


def _timed(trained: Trained, examples: Sequence[Any]) -> Trained:
    """The model, with times of words from its attention where there are reference times to score them against."""
    from training.decoding.loading import with_word_times

    return with_word_times(trained) if any(example.words for example in examples) else trained


def _write_ledger(ledger: DropLedger, place: Place | None) -> tuple[Path, ...]:
    """The ledger's file where there is something in it; what an earlier evaluation left goes otherwise."""
    if place is None:
        return ()
    path = place.folder / f"{place.name}_dropped.tsv"
    if not len(ledger):
        path.unlink(missing_ok=True)
        return ()
    ledger.write(path)
    return (path,)


def _max_dropped(trained: Trained) -> float:
    """``data.max_dropped_share`` of the run; the default for a model without one."""
    from training.config.blocks import Data

    if trained.config is not None:
        return trained.config.data.max_dropped_share
    return float(Data.model_fields["max_dropped_share"].default)


def _too_many(dropped: Mapping[str, Any]) -> str:
    return (
        f"error: {dropped['utterances']:,} of {dropped['of']:,} utterances were not scored, more than "
        f"data.max_dropped_share ({dropped['max_share']:g}) allows; the scores are those of the others. Mend the data, or "
        "raise the key in the run's config.yaml"
    )


def _swapped(scores: Scores, report: dict[str, Any], place: Place | None) -> Scores:
    """The figures of the swap test, and their file."""
    from training.evaluation.stored import SWAP_SUFFIX

    scores = replace(scores, swap_test=report)
    if place is None:
        return scores
    path = place.folder / f"{place.name}{SWAP_SUFFIX}"
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf8")
    return replace(scores, written=(*scores.written, path))


def _teacher(path: Path | None) -> Any:
    """Its labels, read before a model is loaded."""
    from training.evaluation.words import read_teacher

    return None if path is None else read_teacher(path)


def _words(trained: Trained, how: Decoding, dataset: Any, predictions: Any, teacher: Any) -> tuple[Any, Any]:
    """The hypotheses with confidences as they leave, and what else the evaluation is told of their words."""
    from training.decoding.calibrated import usable
    from training.evaluation.words import WordEvidence

    own = predictions.hypotheses
    identity = how.options.identity(trained.architecture)
    calibration, note = usable(trained.calibration, trained.folder, identity)
    timed = trained.architecture.aligner is not None and any(
        example.words for example in predictions.examples
    )
    given = how.predict(trained, dataset, given_text=True).hypotheses if timed else None
    evidence = WordEvidence(given=given, raw=own if calibration else None, note=note, teacher=teacher)
    return [calibration.apply(one) for one in own] if calibration else own, evidence


def _place(trained: Trained, asked: Asked) -> Place | None:
    """The place of the results; results of another run with that name are not overwritten by default."""
    from training.evaluation.stored import free_name, of_another

    if asked.output is None:
        return None
    sha256 = _config_sha256(trained)
    if asked.name:
        if of_another(asked.output, asked.name, trained.folder, sha256):
            logger.info(f"--name {asked.name}: replaces the results that another run has under this name")
        return Place(asked.output, asked.name)
    wanted = _name(trained, asked)
    found = free_name(asked.output, wanted, trained.folder, sha256)
    if found != wanted:
        logger.info(
            f"{asked.output}: another run has the name {wanted}; these results get the name {found} (or give --name)"
        )
    return Place(asked.output, found)


def _config_sha256(trained: Trained) -> str | None:
    return hashlib.sha256(trained.config.to_yaml().encode()).hexdigest() if trained.config else None


def _name(trained: Trained, asked: Asked) -> str:
    """The run's, with what makes this evaluation another one than that of its test split."""
    parts = [
        trained.name,
        *([asked.split] if asked.split != "test" else []),
        *([asked.domain] if asked.domain else []),
    ]
    return "_".join(parts)


def _into_registry(trained: Trained, asked: Asked, examples: Any, hypotheses: Any) -> None:
    """Store the predictions for a split of a registry in the registry too; where that fails, warn and continue."""
    config = trained.config
    database = config.data.source.database if config is not None else None
    if asked.manifest is not None or config is None or database is None:
        return
    from training.registry.recording import store_predictions
    from training.registry.store import open_registry

    try:
        with open_registry(database) as registry:
            count = store_predictions(registry, config.output.dir, asked.split, examples, hypotheses)
    except UserError as error:
        logger.warning(f"warning: the registry does not take the predictions: {error}")
        return
    logger.info(f"{database}: {count:,} predictions stored")


def _beside_start(
    evaluation: Evaluated, trained: Trained, how: Decoding, found: Readable, decoded: Any, place: Place | None
) -> Evaluated:
    """The evaluation with the sections on the start weights."""
    from training.api.start import CACHE, with_start

    cache = None if place is None else place.folder / CACHE
    sections = with_start(trained, how, found, decoded, cache)
    return replace(evaluation, report={**evaluation.report, **sections})


@dataclass(frozen=True)
class Silence:
    """Texts of a model for clips without speech, by kind, and the seconds that they took."""

    texts: dict[str, list[str]]
    seconds: float


def _silence(trained: Trained, how: Decoding) -> Silence:
    """Hypotheses of at most `training.evaluation.probes.MOST_TOKENS` tokens."""
    from training.decoding.predict import predict
    from training.evaluation.probes import KINDS, MOST_TOKENS, Probes

    domains = trained.architecture.domains
    domain = domains.names[0] if domains is not None else None
    probes = Probes(trained.architecture.encode, trained.architecture.sample_rate, domain)
    task = trained.architecture.tasks[0]
    texts: dict[str, list[str]] = {kind: [] for kind in KINDS}
    bounded = replace(how.asked, max_new_tokens=min(MOST_TOKENS, how.asked.max_new_tokens or MOST_TOKENS))
    started = time.perf_counter()
    found = predict(
        trained.architecture, probes, batch_seconds=how.batch_seconds, options=bounded, with_loss=False
    )
    seconds = time.perf_counter() - started
    for row in found.predictions:
        texts[probes.kind(row.row)].append(row.hypotheses[task].text)
    return Silence(texts, seconds)


def _training_split(trained: Trained) -> dict[str, Any]:
    """The training texts by task, for the baseline that answers with the nearest of them, and who spoke them."""
    from training.data.amounts import cells
    from training.engine.run import open_split

    if trained.config is None:
        return {}
    try:
        manifest = open_split(trained.config, "train")
    except UserError as error:
        logger.warning(f"no training split to compare with: {error}")
        return {}
    texts: dict[str, list[str]] = {task: [] for task in trained.architecture.tasks}
    for task, _, text in manifest.texts():
        if task in texts:
            texts[task].append(text)
    return {"train_texts": texts, "train_speakers": {name for name in cells(manifest, "speaker") if name}}


def _meta(
    trained: Trained, asked: Asked, path: Path | None, manifest: Any, how: Decoding, dropped: int
) -> dict[str, Any]:
    """Versions, commit, hashes and settings that the scores depend on."""
    from training.engine.versions import commit, versions

    config = trained.config
    return {
        "model_dir": str(trained.folder),
        "model_type": trained.model_type,
        "tasks": list(trained.architecture.tasks),
        "parameters": trained.architecture.parameters,
        "split": None if asked.manifest else asked.split,
        "manifest": str(path) if path else None,
        "manifest_sha256": manifest.sha256() if path else None,
        # Of a run: a configuration that a stock model is evaluated on is not what made it.
        "config_sha256": None if asked.config is not None else _config_sha256(trained),
        "config": config.as_dict() if config else None,
        "evaluation": trained.evaluation.model_dump() if trained.evaluation is not None else None,
        "generation": how.settings,
        "domain": asked.domain,
        "dropped": dropped,
        "commit": commit(),
        "versions": versions(),
    }
