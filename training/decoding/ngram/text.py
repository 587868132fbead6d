"""Sentences for a language model, spelled as the model that it will help spells them."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from training.base.errors import UserError

Spell = Callable[[str], str]


def audible(text: str) -> str:
    """Letters, digits and marks in lower case: what CTC heads of this library write."""
    from training.models.common.ctc_characters import CtcCharacters

    return CtcCharacters.audible(text)


def as_written(text: str) -> str:
    """The text with single spaces."""
    return " ".join(text.split())


SPELLINGS: dict[str, Spell] = {"audible": audible, "as_written": as_written}


def sentences(lines: Iterable[str], spell: Spell) -> Iterator[list[str]]:
    """Lists of words; empty lines are left out."""
    for line in lines:
        words = spell(line).split()
        if words:
            yield words


def read_lines(path: Path) -> Iterator[str]:
    """Lines of a UTF-8 text (also ``.gz``). Raises `UserError` with the line that is not UTF-8."""
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                yield line.decode("utf-8-sig" if number == 1 else "utf8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}:{number}: not UTF-8 ({error.reason}); convert the file to UTF-8") from error
    except (OSError, EOFError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
