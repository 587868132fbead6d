"""Cells that say "nothing is known" in a word: ``nan``, ``None``, ``N/A`` and the like, as other programs write them.

In a column of seconds they count as empty. In a column of text they may also be a spoken word ("null" is a German
number), so a row is never trained on them in silence: it goes into the ledger, unless the user says that the word stays.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from training.base.errors import UserError

MARKERS = frozenset(
    {
        *(
            "nan",
            "NaN",
            "NAN",
            "-nan",
            "-NaN",
            "NaT",
            "None",
            "null",
            "NULL",
            "<NULL>",
            "<null>",
            "<None>",
            "\\N",
        ),
        *("N/A", "n/a", "NA", "<NA>", "<na>", "<nan>", "<NaN>", "#N/A", "#N/A N/A", "#NA", "#n/a"),
        *("1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
        *("#VALUE!", "#REF!", "#DIV/0!", "#NAME?", "#NULL!", "#NUM!"),
    }
)
"""What pandas, databases and spreadsheets write for a cell without a value. Case counts: ``none`` and ``Null`` are words."""

REASON = "missing_text_marker"
"""In ledgers."""
KEEP = "--keep_text_marker"
"""The option of commands; the key of the configuration is ``data.keep_text_markers``."""


def is_marker(text: str | None, keep: Collection[str] = ()) -> bool:
    """Whether a whole text is one of `MARKERS` (white space around it aside), and none of ``keep``."""
    word = (text or "").strip()
    return word in MARKERS and word not in keep


def problem(name: str, text: str, option: str) -> str:
    """The ledger's detail of such a row, with the option that keeps it; ``option`` precedes the word."""
    word = text.strip()
    return f"{name}: {word!r} stands for no value; if it is a spoken word: {option}{word!r}"


def warnings(columns: Mapping[str, Iterable[str | None]]) -> list[str]:
    """A line for each of our columns of texts that holds such words: for commands that pass all rows on."""
    found = {name: [text for text in cells if is_marker(text)] for name, cells in columns.items()}
    return [
        f"warning: the {name} of {len(texts):,} utterances is only {(texts[0] or '').strip()!r} or the like, a word for "
        "no value; polyvox preprocess lists them"
        for name, texts in found.items()
        if texts
    ]


def checked(words: Sequence[str], option: str) -> tuple[str, ...]:
    """The words that a user keeps. `UserError` for one that is no marker: it is kept anyway."""
    unknown = [word for word in words if word not in MARKERS]
    if unknown:
        raise UserError(
            f"{option}: {unknown[0]!r} is not taken for a missing text; these are: {', '.join(sorted(MARKERS))}"
        )
    return tuple(words)
