"""Names of languages: what a person calls a language, and its code.

The table is that of OpenAI's Whisper, which transformers carries; its command line takes the same names.
"""

from __future__ import annotations

from collections.abc import Mapping


def language_code(given: str) -> str:
    """The code of a language that may be given by its name.

    Args:
        given: ``German``, ``mandarin``, ``de``.

    Returns:
        The code of the name (ISO 639), whatever its case; ``given`` itself where it is no known name, as codes are.
    """
    names, _ = _tables()
    return names.get(given.strip().lower(), given)


def short_code(given: str) -> str | None:
    """The code that a tag of a language begins with: ``de`` for ``DE`` and ``de-AT``; None where no language has it."""
    _, codes = _tables()
    short = given.strip().lower().replace("_", "-").partition("-")[0]
    return short if short in codes else None


def language_name(code: str) -> str:
    """The English name of a code, in a title's case; the code where it is unknown."""
    _, codes = _tables()
    return codes.get(code, code).title()


def _tables() -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Names in lower case → codes, and codes → names; empty without transformers, which exported models do not need."""
    try:
        from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE
    except ImportError:
        return {}, {}
    return TO_LANGUAGE_CODE, LANGUAGES
