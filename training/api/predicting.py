"""Shared by everything that scores a model: the choice of utterances and the options of decoding."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.base.errors import UserError
from training.base.nearest import did_you_mean
from training.base.progress import progress_bar
from training.decoding.ctc_setup import SearchOptions
from training.models.safeguards import Safeguards

if TYPE_CHECKING:
    from training.config.blocks import Evaluation
    from training.data.ledger import DropLedger
    from training.decoding.loading import Trained
    from training.decoding.predict import Predictions
    from training.models.architecture import DecodeOptions

logger = logging.getLogger(__name__)

SETTABLE = ("data", "audio")
"""Blocks of a run, beside ``evaluation``, that can be set when its model is used."""
READERS = min(4, os.cpu_count() or 1)
"""Threads that decode the sounds of a split."""


@dataclass(frozen=True)
class Decoding:
    """Options of decoding, the same for everything that one command decodes."""

    options: SearchOptions
    asked: DecodeOptions
    batch_seconds: float

    @property
    def settings(self) -> dict[str, Any]:
        """For the record of an evaluation."""
        if self.asked.frames:
            return self.options.as_dict()
        guards = self.asked.safeguards
        return {**self.asked.generation(), "fallback": asdict(guards) if guards is not None else False}

    def predict(self, trained: Trained, rows: Any, *, given_text: bool = False) -> Predictions:
        """Hypotheses of all rows, a bar on the terminal meanwhile."""
        from training.decoding.predict import predict

        return predict(
            trained.architecture,
            rows,
            batch_seconds=self.batch_seconds,
            options=self.asked,
            given_text=given_text,
            with_loss=False,
            progress=progress_bar(total=round(float(rows.durations.sum())), unit="s", desc="audio").update,
        )


def decoding(trained: Trained, options: SearchOptions, batch_seconds: float | None = None) -> Decoding:
    """These options; the run's own beam width and bounds where none are given.

    Args:
        trained: the model.
        options: how its frames are read, and the beam width.
        batch_seconds: audio of a batch; None: the run's.

    Raises:
        UserError: the model cannot serve an option.
    """
    options = options.of_run(trained.beams)
    if options == SearchOptions():
        options = replace(options, beam_width=setting(trained, "num_beams"))  # given to a stock folder
    asked = options.resolved(trained.architecture, setting(trained, "max_new_tokens"))
    if setting(trained, "fallback"):
        if trained.architecture.scored is None:
            raise UserError(
                f"evaluation.fallback: {trained.folder} holds a {trained.model_type}; the fallback needs a Whisper"
            )
        asked = replace(asked, safeguards=Safeguards())
    return Decoding(options, asked, batch_seconds or setting(trained, "batch_seconds") or 60.0)


def open_rows(
    trained: Trained,
    file: Path | None,
    option: str,
    split: Any,
    audio_root: Path | None,
    columns: Mapping[str, str] | None = None,
) -> tuple[Any, Path | None]:
    """The utterances of ``file`` (what ``option`` names), else of the run's own split, and the manifest's path.

    ``columns`` (ours → theirs) adds to those of the run.
    """
    from training.data.columns import COMMAND
    from training.data.manifest import load_manifest
    from training.data.sources.source import PARTS
    from training.engine.run import open_split

    if split not in PARTS:
        raise UserError(f"split: {split!r} is none of {', '.join(PARTS)}")
    config = trained.config
    if file is not None:
        columns = {**(config.data.columns if config else {}), **(columns or {})}
        rows = load_manifest(file, audio_root=audio_root, columns=columns, need_text=True, option=COMMAND)
        return rows, file
    if config is None:
        raise UserError(f"{option}: {trained.folder} is no run of ours and names no {split} split; give one")
    manifest = open_split(config, split)
    if manifest is None:
        raise UserError(f"--split {split}: the run names no data.{split}; give {option}")
    return manifest, config.data.source.manifest(split, manifest)


@dataclass(frozen=True)
class Readable:
    """The utterances that can be scored, as a dataset without references, and the ledger of the others."""

    dataset: Any
    ledger: DropLedger
    total: int

    def line(self) -> str:
        """How many there are, in one line."""
        kept = self.total - len(self.ledger)
        text = f"{kept:,} of {self.total:,} utterances can be scored"
        if not len(self.ledger):
            return text
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.ledger.counts().items())
        return f"{text}; {len(self.ledger):,} cannot and are left out: {reasons}"

    def require(self) -> None:
        """`UserError` where nothing is left."""
        if len(self.ledger) == self.total:
            raise UserError(f"no utterance can be scored\n{self.ledger.summary()}")


def readable(trained: Trained, manifest: Any, split: str = "test") -> Readable:
    """Look at every utterance, its sound decoded to the last sample, and say how many can be scored.

    The others are listed, and are not scored as if they were silent.
    """
    from training.data.control_marks import warn
    from training.data.dataset import SpeechDataset, unwritable, validate
    from training.data.ledger import DropLedger
    from training.data.tasks import check_tasks
    from training.decoding.predict import PromptsOnly

    check_tasks(manifest, trained.architecture.tasks, f"the {split} split", every=False)
    keep = trained.config.data.keep_text_markers if trained.config else ()
    encode, rate = PromptsOnly(trained.architecture.encode), trained.architecture.sample_rate
    dataset = SpeechDataset(manifest, encode, rate, keep_markers=keep)
    kept, found = validate(dataset, workers=READERS, decode=True)
    ledger = DropLedger([*getattr(manifest, "refused", ()), *found])
    result = Readable(dataset.select(kept), ledger, len(kept) + len(ledger))
    logger.info(result.line())  # the first line of all, also where both streams go to one file
    if len(ledger):
        logger.warning(ledger.summary())
    pieces, rows = unwritable(
        SpeechDataset(manifest, trained.architecture.encode, trained.architecture.sample_rate)
    )
    if pieces:
        logger.warning(
            f"{pieces} pieces of the references, in {rows} utterances, are not in the model's vocabulary: it cannot "
            "write them, and they count as errors"
        )
    texts = (text for _, _, text in manifest.texts())
    warn(texts, lambda line: logger.warning(f"the {split} split: {line}"))
    return result


def setting(trained: Trained, name: str) -> Any:
    """A value of the ``evaluation:`` block: given with the command, else the run's; None for a model without either."""
    if trained.evaluation is not None:
        return getattr(trained.evaluation, name)
    return getattr(trained.config.evaluation, name) if trained.config else None


def with_settings(trained: Trained, given: Sequence[str]) -> Trained:
    """The model with other settings than its run's or, for a stock folder, than the defaults.

    Args:
        trained: the model.
        given: ``key=value``; keys of the ``evaluation:`` block with or without its name, and of `SETTABLE`.
    """
    from training.config.blocks import Evaluation

    scored, others = _by_block(given)
    if others:
        trained = _with_blocks(trained, others)
    if not scored:
        return trained
    if trained.config is None:
        return replace(trained, evaluation=rescored(trained.evaluation or Evaluation(), scored))
    changed = {"evaluation": rescored(trained.config.evaluation, scored)}
    return replace(trained, config=trained.config.model_copy(update=changed))


def _by_block(given: Sequence[str]) -> tuple[list[str], list[str]]:
    """Pairs of the ``evaluation:`` block, without its name, and pairs of other blocks."""
    scored, others = [], []
    for pair in given:
        key = pair.partition("=")[0]
        block, dot, _ = key.partition(".")
        if not dot:
            scored.append(pair)
        elif block == "evaluation":
            scored.append(pair.removeprefix("evaluation."))
        elif block in SETTABLE:
            others.append(pair)
        else:
            raise UserError(
                f"{pair}: {block} belongs to training, and this model is trained; keys of evaluation, "
                f"{' and '.join(SETTABLE)} can be set here{did_you_mean(block, ('evaluation', *SETTABLE))}"
            )
    return scored, others


def _with_blocks(trained: Trained, given: Sequence[str]) -> Trained:
    from training.config.load import config_from

    if trained.config is None:
        raise UserError(
            f"{given[0]}: {trained.folder} is no run of ours, so it names no data (--manifest FILE)"
        )
    checked = config_from(trained.config.as_dict(), given)
    changed = {block: getattr(checked, block) for block in SETTABLE}
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
