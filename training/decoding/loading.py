"""Loads a finished model, and everything that its use needs, from its folder."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.base.errors import UserError
from training.base.model_folder import check_model_folder
from training.decoding.attention_alignment import AttentionAligner
from training.decoding.calibrated import Calibration, read_calibration
from training.decoding.ctc_alignment import CtcAligner
from training.decoding.quiet import quietly
from training.models import lookup
from training.models.architecture import ASKED, AUTO, SWAP, BuildContext, SpeechModel
from training.models.common import SETTINGS
from training.models.safeguards import Safeguards
from training.runtime.folder import FAILED, UNDECIDED, Exported, is_exported, read_exported
from training.runtime.load import load_exported

if TYPE_CHECKING:
    from training.config.blocks import Evaluation
    from training.config.schema import Config

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """A model ready for use. ``config`` is the run's, where the folder belongs to a run; ``calibration`` that of its
    words' confidence, where there is one; ``evaluation`` its settings where they are not the run's; ``exported`` the
    record of a folder of ``polyvox export``; ``stock``: another library wrote the folder."""

    architecture: SpeechModel
    folder: Path
    model_type: str
    config: Config | None
    calibration: Calibration | None = None
    evaluation: Evaluation | None = None
    exported: Exported | None = None
    stock: bool = False

    @property
    def longest_seconds(self) -> float | None:
        """Seconds of the longest utterance of its training; None where the run's results do not state them."""
        if self.exported is not None:
            return self.exported.description.longest_seconds
        for place in (self.folder, self.folder.resolve().parent):
            path = place / "train_results.json"
            if path.is_file():
                return json.loads(path.read_text(encoding="utf8")).get("longest_seconds")
        return self.config.audio.max_length_seconds if self.config else None

    @property
    def single_utterances(self) -> bool:
        """Whether it was trained on single utterances, as models of this library are."""
        return self.exported.description.single_utterances if self.exported else self.config is not None

    @property
    def beams(self) -> int | None:
        """Beam width of the run's scores; None for a model without a run."""
        if self.exported is not None:
            return self.exported.description.beams
        return self.config.evaluation.num_beams if self.config else None

    @property
    def name(self) -> str:
        """Name of the run in result files: its folder's, or its parent's for a checkpoint."""
        parent = self.folder.resolve()
        return f"{parent.parent.name}-{parent.name}" if parent.name.startswith("checkpoint-") else parent.name


def load_model(folder: os.PathLike[str] | str) -> Trained:
    """Load a trained model for `training.evaluate` or `training.Transcriber`, or to inspect it.

    Args:
        folder: a finished run, its folder, one of its checkpoints, or any folder that stock transformers wrote.

    Returns:
        The model without dropout, on the GPU where there is one. ``.architecture.model`` is the torch module.

    Raises:
        UserError: the folder holds no model, or a damaged one.
    """
    return load_trained(Path(folder))


def load_trained(
    folder: Path, model_type: str | None = None, *, options_of_stock: Mapping[str, Any] | None = None
) -> Trained:
    """Load a run's folder, one of its checkpoints, or any folder that stock transformers wrote.

    The run's ``config.yaml`` says how it was trained; where there is none the checkpoint's ``config.json``
    does; ``options_of_stock`` are options of a folder that says nothing of them, because it is not ours. Without
    dropout, on the GPU where there is one. Raises `UserError` for a folder that is no model and for a ``model_type``
    that contradicts it.
    """
    if is_exported(folder):
        return _exported(folder, model_type)
    from safetensors import SafetensorError  # not above: an exported folder is used without it

    stock = _stock_config(folder)
    settings = stock.get(SETTINGS) or {}
    config, calibration = _run_config(folder), read_calibration(folder)
    inferred = settings.get("type") or lookup.stock_type(str(stock.get("model_type", "")))
    if inferred is None:
        raise UserError(_unknown_type(folder, stock))
    _require_type(folder, model_type, inferred)
    chosen = lookup.load(inferred)
    if config is not None and config.model is not None:
        options: Any = config.model
    else:
        options = chosen.Options.from_folder(folder, settings or options_of_stock or {})
    try:
        with quietly():
            architecture: Any = chosen.build(options, BuildContext(source=folder))
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"{folder}: the model cannot be read, a file is missing or damaged ({reason})"
        ) from error
    architecture.model.to(default_device()).eval()
    stranger = config is None and not settings
    return Trained(_with_aligner(architecture), folder, inferred, config, calibration, stock=stranger)


def _unknown_type(folder: Path, stock: Mapping[str, Any]) -> str:
    if (folder / "model.bin").is_file() and "model_type" not in stock:
        return (
            f"{folder}: model.bin and no model_type: this looks like CTranslate2's format (faster-whisper), which is read only "
            "from a folder of polyvox export; give the folder of the same model in the format of transformers"
        )
    return (
        f"{folder}: model_type {stock.get('model_type')!r} belongs to none of the architectures "
        f"{', '.join(lookup.available())}"
    )


def _exported(folder: Path, model_type: str | None) -> Trained:
    found = read_exported(folder)
    _require_type(folder, model_type, found.architecture)
    if found.checked in (FAILED, UNDECIDED):
        logger.warning(
            f"warning: {folder}: the comparison with the original did not pass ({found.checked}): it may say something else"
        )
    architecture = _with_aligner(load_exported(found))
    return Trained(architecture, folder, found.architecture, None, read_calibration(folder), exported=found)


def _require_type(folder: Path, wanted: str | None, found: str) -> None:
    if wanted is not None and wanted != found:
        raise UserError(f"--model_type {wanted}: {folder} holds a model of type {found}")


def _with_aligner(architecture: Any) -> Any:
    """The same with times of given words, where its frames can spell them."""
    frames = architecture.frames
    if frames is not None and frames.speller is not None and architecture.aligner is None:
        return replace(architecture, aligner=CtcAligner(frames))
    return architecture


def with_word_times(trained: Trained) -> Trained:
    """The same model, also with times of words from cross-attention where nothing else gives it times.

    Not part of `load_trained`: the decoder reads every text once more for them.
    """
    architecture = trained.architecture
    if architecture.aligner is not None or architecture.attention is None:
        return trained
    head = architecture.attention.head
    aligner = AttentionAligner.of(architecture) if head is None else CtcAligner(head)
    return replace(trained, architecture=replace(architecture, aligner=aligner))


def with_tasks(trained: Trained, tasks: tuple[str, ...]) -> Trained:
    """The same model for some of its tasks. Raises `UserError` for a task that it was not trained for."""
    unknown = [task for task in tasks if task not in trained.architecture.tasks]
    if unknown:
        raise UserError(
            f"{trained.folder} was trained for {', '.join(trained.architecture.tasks)}, not for {unknown[0]}"
        )
    return replace(trained, architecture=trained.architecture.with_tasks(tasks))


def with_domain(trained: Trained, asked: str | None, option: str | None = None) -> Trained:
    """The same model with another domain in its prompts.

    Args:
        trained: the model.
        asked: one of `ASKED` or a domain; None: the model is returned unchanged.
        option: name of the option in messages; default: ``--domain``.

    Raises:
        UserError: the model has no domains, does not know this one, or cannot predict it.
    """
    if asked is None:
        return trained
    domains = trained.architecture.domains
    given = option or f"--domain {asked}"
    if domains is None:
        raise UserError(f"{given}: {trained.folder} holds a {trained.model_type}, which has no domains")
    there = domains.names
    if asked not in (*ASKED, *there):
        raise UserError(f"{given}: this model knows {', '.join(there)}; or one of {', '.join(ASKED)}")
    if asked == SWAP and len(there) == 1:
        raise UserError(f"{given}: this model knows {there[0]} alone; there is no other domain")
    if asked == AUTO and not domains.predictable:
        raise UserError(
            f"{given}: this model was not trained to predict the domain (model.domain_supervised: false); "
            f"name one: {', '.join(there)}"
        )
    return replace(trained, architecture=trained.architecture.with_domain(asked))


def guarded(trained: Trained, asked: Safeguards | None) -> Safeguards | None:
    """The safeguards that a model is decoded with; `UserError` where it cannot be and some are asked for."""
    architecture = trained.architecture
    if architecture.scored is None:
        if asked is not None:
            kind = f"a {trained.model_type}"
            if trained.exported is not None:
                kind += f" exported as {trained.exported.format}"
            raise UserError(
                f"{trained.folder} holds {kind}: temperatures, their thresholds and an initial prompt need a Whisper, of "
                "transformers or exported as onnx or ctranslate2"
            )
        return None
    chosen = asked or Safeguards()
    _require_ids(trained, chosen.suppressed or ())
    if chosen.initial_prompt.strip():
        try:
            architecture.scored.before(chosen.initial_prompt)
        except ValueError as error:
            raise UserError(f"--initial_prompt: {trained.folder}: {error}") from error
    return chosen


def _require_ids(trained: Trained, ids: Sequence[int]) -> None:
    assert trained.architecture.scored is not None
    size = trained.architecture.scored.vocabulary
    if unknown := [one for one in ids if one >= size]:
        raise UserError(
            f"--suppress_tokens: {trained.folder} has no token {unknown[0]}; its ids are 0 to {size - 1}"
        )


def _stock_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        check_model_folder(folder)
        raise UserError(
            f"{folder}: no config.json, so no model; give a run's folder or one of its checkpoints"
        )
    try:
        found = json.loads(path.read_text(encoding="utf8"))
    except ValueError as error:
        raise UserError(
            f"{path}: damaged, not JSON ({error}); save the model again or take a checkpoint"
        ) from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: no model's configuration")
    return found


def _run_config(folder: Path) -> Config | None:
    from training.config.load import load_config  # not above: an exported folder is used without omegaconf

    for place in (folder, folder.resolve().parent):
        path = place / "config.yaml"
        if path.is_file() and (place == folder or folder.resolve().name.startswith("checkpoint-")):
            return load_config(path)
    return None


def default_device() -> str:
    """``cuda`` where there is a GPU, else ``cpu``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
