"""The weights that a run started from, as a model of their own: the first row of its evaluation."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.base.errors import UserError
from training.base.files import atomic_text, sha256

if TYPE_CHECKING:
    from training.api.predicting import Decoding, Readable
    from training.config.schema import Config
    from training.data.example import Example, Hypothesis
    from training.decoding.loading import Trained

Decoded = tuple["Sequence[Example]", "Sequence[Hypothesis]"]
"""Utterances, and what a model says of them."""

logger = logging.getLogger(__name__)

CACHE = ".start_weights"
"""Folder, in that of the results, of the hypotheses of start weights; they can be removed at any time."""
MODEL_FILES = "*.safetensors", "*.bin", "*.json", "*.txt", "*.model", "*.jinja"
"""Weights, configurations, tokenizer and the like of a model's folder, whatever they are called."""
CODE = "data", "decoding", "models"
"""Packages whose code decides what a model says of a sound."""
SAME = "these are the start weights themselves"
OTHER = "the run has no start weights to forget anything of (random weights, or times of words alone)"
SAME_IN_BOTH = ("task", "language", "target_language")
"""Options of the run that the start weights are asked with too, where they have them."""


@dataclass(frozen=True)
class Start:
    """The start weights. ``name``: as the configuration writes them."""

    name: str
    trained: Trained

    @property
    def context(self) -> str:
        """What its encoder sees of a clip, in words."""
        padding = self.trained.architecture.collate.padding
        return "30 s context" if padding == "full" else "trimmed context"


class NoStart(UserError):
    """There are no start weights to score, and the message says why."""


def start_weights(config: Config) -> Start | None:
    """The model that a run with this configuration starts from.

    None where it begins with random weights, and where it learns the times of words alone and leaves the text as it is.

    Raises:
        NoStart: the weights are parts of the model only, or are not here.
    """
    named = config.model.weights if config.model is not None else {}
    if not named or (config.model is not None and config.model.scored_by_word_times):
        return None
    if len(named) > 1:
        raise NoStart(
            f"{', '.join(named.values())} are parts, which say nothing before they are trained together"
        )
    (name,) = named.values()
    return Start(name, load_start(_folder(name), config))


def load_start(folder: Path, config: Config) -> Trained:
    """A model that a run may start from, with the language and the tasks of ``config``.

    Raises:
        NoStart: the folder holds no model that can be asked as it is.
    """
    from training.decoding.loading import load_trained, with_tasks
    from training.models.lookup import options_class

    options: Any = config.model
    asked = {name: value for name in SAME_IN_BOTH if (value := getattr(options, name, None)) is not None}
    try:
        trained = load_trained(folder, options_of_stock=asked)
        if not isinstance(options, options_class(trained.model_type)):
            raise UserError(f"a {trained.model_type}, of which a {options.type} takes a part")
        return with_tasks(trained, options.tasks)
    except UserError as error:
        raise NoStart(f"{folder} is no model that can be asked as it is ({error})") from error


def _folder(name: str) -> Path:
    """A folder, or the place of a hub model in the cache; nothing is fetched."""
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        found = None
    if not isinstance(found, str):
        raise NoStart(f"{name} is not here: no such folder, and not in the hub's cache (nothing is fetched)")
    return Path(found).parent


def hypotheses(start: Start, rows: Any, how: Decoding, cache: Path | None) -> tuple[list[Hypothesis], bool]:
    """What the start weights say of the utterances ``rows``; utterances that they cannot take are left out.

    Args:
        start: the model.
        rows: a table of utterances whose sound was found readable.
        how: options of decoding.
        cache: folder of earlier answers, by the hashes of weights, utterances and options; None: they are not kept.

    Returns:
        The hypotheses, and whether they come from the cache.
    """
    from training.data.dataset import SpeechDataset, validate
    from training.decoding.predict import PromptsOnly

    path = None if cache is None else cache / f"{_key(start.trained, rows, how)}.json"
    if path is not None and (kept := _read(path)) is not None:
        return kept, True
    architecture = start.trained.architecture
    dataset = SpeechDataset(rows, PromptsOnly(architecture.encode), architecture.sample_rate)
    usable, ledger = validate(dataset)
    if len(ledger):
        logger.warning(f"start weights: {len(ledger)} utterances cannot be asked\n{ledger.summary()}")
    found = how.predict(start.trained, dataset.select(usable)).hypotheses
    if path is not None:
        _write(path, start.name, found)
    return found, False


def _key(trained: Trained, rows: Any, how: Decoding) -> str:
    """The hash of all that decides what the model says: its files, the options, the utterances, our code and the libraries."""
    from training.engine.versions import versions

    digest = hashlib.sha256()
    for path in sorted(file for pattern in MODEL_FILES for file in trained.folder.glob(pattern)):
        digest.update(f"{path.name} {sha256(path)}\n".encode())
    architecture = trained.architecture
    settings = {
        "generation": how.settings,
        "batch_seconds": how.batch_seconds,
        "tasks": architecture.tasks,
        "languages": architecture.languages,
        "padding": architecture.collate.padding,
        "margin": getattr(architecture.collate, "margin", None),
        "device": next((one.device.type for one in architecture.model.parameters()), None),
        "versions": versions(),
        "code": code_hash(),
    }
    digest.update(json.dumps(settings, sort_keys=True).encode())
    for line in _utterances(rows):
        digest.update(line.encode())
    return digest.hexdigest()


def code_hash() -> str:
    """The hash of our own code that decodes; that of a commit would miss what is changed in a checkout."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[1]
    for path in sorted(file for package in CODE for file in (root / package).rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()} {sha256(path)}\n".encode())
    return digest.hexdigest()


def _utterances(rows: Any) -> Iterator[str]:
    """What a hypothesis depends on of each utterance: its sound (by path, size and time), its languages and domain, its id."""
    for number in range(len(rows)):
        one = rows[number]
        file = Path(str(one.audio.path))
        state = (file.stat().st_size, file.stat().st_mtime_ns) if file.is_file() else None
        yield f"{one.id}\t{one.audio}\t{state}\t{one.duration}\t{one.language}\t{one.target_language}\t{one.domain}\n"


def _read(path: Path) -> list[Hypothesis] | None:
    """The hypotheses of a file; None where it is not there or is damaged."""
    from training.data.example import Hypothesis

    try:
        return [Hypothesis(**one) for one in json.loads(path.read_text(encoding="utf8"))["hypotheses"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(path: Path, name: str, found: Sequence[Hypothesis]) -> None:
    told = [{"id": one.id, "task": one.task, "text": one.text, "seconds": one.seconds} for one in found]
    with atomic_text(path) as handle:
        handle.write(json.dumps({"model": name, "hypotheses": told}, ensure_ascii=False))


def with_start(
    trained: Trained, how: Decoding, found: Readable, own: Decoded, cache: Path | None
) -> dict[str, Any]:
    """The sections ``start`` and ``retained`` of an evaluation; no ``start`` for a run from random weights.

    Args:
        trained: the run's model.
        how: options of its decoding.
        found: the utterances that were scored.
        own: their examples and the run's hypotheses.
        cache: folder of the start weights' earlier answers; None: they are not kept.
    """
    config = trained.config
    if config is None:
        return {}
    try:
        start = start_weights(config)
    except NoStart as reason:
        return {"start": {"note": str(reason)}, **_not_retained(config, str(reason))}
    if start is None or start.trained.folder.resolve() == trained.folder.resolve():
        return _not_retained(config, SAME if start is not None else OTHER)
    pair = _Pair(trained, start, how, _decoding_of(start, trained, how), cache)
    sections: dict[str, Any] = {"start": pair.scored(found.dataset.manifest, *own)}
    if config.evaluation.retain:
        sections["retained"] = [pair.retained(path) for path in config.evaluation.retain]
    return sections


def _not_retained(config: Config, reason: str) -> dict[str, Any]:
    """The section ``retained`` where nothing can be compared: why, for each manifest that was asked for."""
    found = [{"name": path.name, "note": f"not scored: {reason}"} for path in config.evaluation.retain]
    return {"retained": found} if found else {}


def _decoding_of(start: Start, trained: Trained, how: Decoding) -> Decoding:
    """As wide as the run's; language models and hot words are of the run."""
    from training.api.predicting import decoding
    from training.decoding.ctc_setup import SearchOptions

    asked = replace(start.trained, config=trained.config)
    return decoding(asked, SearchOptions(beam_width=how.options.beam_width), how.batch_seconds)


@dataclass(frozen=True)
class _Pair:
    """The run and its start weights, each with its options of decoding."""

    trained: Trained
    start: Start
    how: Decoding
    how_start: Decoding
    cache: Path | None

    def scored(self, rows: Any, examples: Sequence[Example], own: Sequence[Hypothesis]) -> dict[str, Any]:
        """Both on the same utterances: `training.evaluation.start.beside_start`, and what it is of."""
        from training.api.predicting import setting
        from training.evaluation.start import beside_start

        said, kept = hypotheses(self.start, rows, self.how_start, self.cache)
        audio = sum(example.duration for example in examples)
        return {
            "name": Path(self.start.name).name if Path(self.start.name).is_dir() else self.start.name,
            "context": self.start.context,
            "from_cache": kept,
            "rtf": sum(one.seconds for one in said) / audio if audio else None,
            **beside_start(examples, said, own, resamples=setting(self.trained, "resamples") or 1000),
        }

    def retained(self, path: Path) -> dict[str, Any]:
        """Both on a manifest of ``evaluation.retain``."""
        from training.api.predicting import readable
        from training.data.manifest import load_manifest

        data = self.trained.config.data  # type: ignore[union-attr]
        rows = load_manifest(path, audio_root=data.audio_root, columns=data.columns, need_text=True)
        found = readable(self.trained, rows, path.name)
        if len(found.ledger) == found.total:
            return {"name": path.name, "note": "no utterance can be scored"}
        own = self.how.predict(self.trained, found.dataset)
        scored = self.scored(found.dataset.manifest, own.examples, own.hypotheses)
        return {**scored, "start": scored["name"], "name": _title(path, scored), "manifest": str(path)}


def _title(path: Path, scored: Mapping[str, Any]) -> str:
    """``English (librispeech.tsv)``."""
    from training.base.language_names import language_name

    codes = sorted({code for found in scored["languages"].values() for code in found})
    return f"{', '.join(language_name(code) for code in codes)} ({path.name})"
