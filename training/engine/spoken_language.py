"""The language of rows that name none: as the configuration says, else as the other rows or the letters of the texts show.

What is taken is always said. It stands in the run's ``config.yaml``, so that the finished model keeps it.
"""

from __future__ import annotations

import logging
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

from training.config.load import RESOLVED_NAME
from training.config.schema import Config
from training.config.source import read_file
from training.data.amounts import cells
from training.data.example import TRANSCRIBE
from training.data.letters import MOST_TEXTS, Letters, contradicts, language_of
from training.models.architecture import AUTO

logger = logging.getLogger(__name__)

KEYS = ("language", "languages")
"""Fields of the ``model:`` blocks that say it: of one language, or of the letters of several (CTC)."""


def language_key(options: Any) -> str | None:
    """The field of a ``model:`` block that says which language is spoken; None where it has none."""
    return next((key for key in KEYS if key in type(options).model_fields), None)


def with_language(config: Config, rows: Any, *, resume: bool = False) -> Config:
    """The configuration with ``model.language`` (CTC: ``model.languages``), which is logged where it is not given.

    Args:
        config: what was asked for.
        rows: the training split.
        resume: the run goes on: what its folder says counts.
    """
    options = config.model
    key = None if options is None else language_key(options)
    if options is None or key is None:
        return config
    if key in options.model_fields_set:
        if told := contradiction(getattr(options, key), rows):
            logger.warning(f"warning: model.{key}: {told}")
        return config
    stored = _stored(config.output.dir, key) if resume else None
    if stored is not None:
        return _with(config, key, stored)
    found = _found(rows)
    if found is None:
        return config
    language, why = found
    value = _letters_of(language) if key == "languages" else language
    logger.info(f"model.{key}: {_shown(value)}, because {why}; --language CODE says otherwise")
    return _with(config, key, value)


def contradiction(given: Any, rows: Any, *, option: bool = True) -> str | None:
    """What the texts of the rows that name no language say against the given one; None where they agree.

    ``option``: whether the command has ``--language``.
    """
    languages = [given] if isinstance(given, str) else list(given or ())
    if not languages or AUTO in languages or (letters := _of_texts(rows)) is None:
        return None
    if not all(contradicts(language, letters) for language in languages):
        return None
    named = f"--language {letters.language}, or " if option else ""
    return (
        f"{_shown(given)}, but {letters.reason}, as of {letters.language!r}; if that is what is spoken: {named}a column "
        "language in the table"
    )


def _found(rows: Any) -> tuple[str, str] | None:
    """Language and reason: of the column, else of the letters."""
    named = Counter(name for name in cells(rows, "language") if name)
    if named:
        language, count = named.most_common(1)[0]
        return language, f"the column language says so in {count:,} of {len(rows):,} rows"
    letters = _of_texts(rows)
    return None if letters is None else (letters.language, f"no row names a language and {letters.reason}")


def _of_texts(rows: Any) -> Letters | None:
    """What the transcripts (else the other texts) of the rows that name no language show."""
    unnamed = ((task, text) for task, language, text in rows.texts() if not language)
    texts = list(islice(unnamed, 2 * MOST_TEXTS))  # of two tasks
    spoken = [text for task, text in texts if task == TRANSCRIBE]
    return language_of(spoken or [text for _, text in texts])


def _letters_of(language: str) -> tuple[str, ...]:
    """For a CTC vocabulary: the language where its letters are listed, and the English ones, of which Vietnamese texts
    may lack some; other letters come from the texts."""
    from training.models.ctc.tokenizer import LETTERS

    return tuple(dict.fromkeys((language, "en"))) if language in LETTERS else ()


def _stored(folder: Path, key: str) -> Any:
    target = folder / RESOLVED_NAME
    return (read_file(target).data.get("model") or {}).get(key) if target.is_file() else None


def _with(config: Config, key: str, value: Any) -> Config:
    assert config.model is not None
    value = tuple(value) if isinstance(value, list) else value
    return config.model_copy(update={"model": config.model.model_copy(update={key: value})})


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"[{', '.join(value)}]" if value else "[] (the letters of the texts)"
