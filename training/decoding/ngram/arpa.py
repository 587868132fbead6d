"""The ARPA file of an n-gram model, read and written, and the back-off rule that it stands for."""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from training.base.errors import UserError
from training.decoding.ngram.counts import BOS, EOS, UNK, Ngram

LN10 = math.log(10.0)
_UNK_IN_CAPITALS = "<UNK>"
"""Other tools write the marker so; KenLM reads both."""
State = tuple[str, ...]
"""The words that the next probability depends on; never longer than the order less one."""


@dataclass(frozen=True)
class NgramModel:
    """``tables[n - 1]`` maps n-grams to (log10 probability, log10 back-off weight)."""

    tables: Sequence[Mapping[Ngram, tuple[float, float]]]

    @property
    def order(self) -> int:
        """The longest n-grams."""
        return len(self.tables)

    @property
    def start(self) -> State:
        """The state at the beginning of a sentence."""
        return (BOS,)[: self.order - 1]

    def words(self) -> Iterator[str]:
        """The vocabulary without the markers."""
        return (word for (word,) in self.tables[0] if word not in (BOS, EOS, UNK))

    def __contains__(self, word: str) -> bool:
        return (word,) in self.tables[0]

    def score(self, state: State, word: str) -> tuple[float, State]:
        """Natural log of p(word | state), and the state after it. An unknown word counts as ``<unk>``."""
        if (word,) not in self.tables[0]:
            word = UNK
        state = state[max(0, len(state) - self.order + 1) :]
        weight = 0.0
        for start in range(len(state) + 1):
            ngram = (*state[start:], word)
            found = self.tables[len(ngram) - 1].get(ngram)
            if found is not None:
                return (found[0] + weight) * LN10, self._shortened((*state, word))
            if len(ngram) > 1:
                weight += self.tables[len(ngram) - 2].get(ngram[:-1], (0.0, 0.0))[1]
        raise AssertionError("read_arpa and the estimator see to it that <unk> is there")

    def sentence(self, words: Sequence[str]) -> float:
        """Natural log of the probability of a whole sentence, its end included."""
        total, state = 0.0, self.start
        for word in (*words, EOS):
            value, state = self.score(state, word)
            total += value
        return total

    def perplexity(self, sentences: Sequence[Sequence[str]]) -> float:
        """Per word and sentence end, unknown words included."""
        total = sum(self.sentence(words) for words in sentences)
        return math.exp(-total / max(1, sum(len(words) + 1 for words in sentences)))

    def _shortened(self, history: State) -> State:
        """The longest end of the history that some n-gram starts with."""
        history = history[len(history) - self.order + 1 :] if len(history) >= self.order else history
        while history and history not in self.tables[len(history) - 1]:
            history = history[1:]
        return history


def write_arpa(model: NgramModel, path: Path) -> None:
    """Write the file (gzip where it ends in ``.gz``), n-grams in text order, so that equal models are equal files.

    It stands under its name only when it is whole.
    """
    part = path.with_name(f".{path.name}.part{path.suffix}")
    try:
        _write(model, part)
        part.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        part.unlink(missing_ok=True)


def _write(model: NgramModel, path: Path) -> None:
    with _open(path, "wt") as file:
        file.write("\\data\\\n")
        file.writelines(f"ngram {n}={len(table)}\n" for n, table in enumerate(model.tables, start=1))
        for n, table in enumerate(model.tables, start=1):
            file.write(f"\n\\{n}-grams:\n")
            last = n == model.order
            for ngram, (probability, backoff) in sorted(table.items()):
                tail = "" if last else f"\t{backoff:.7g}"
                file.write(f"{probability:.7g}\t{' '.join(ngram)}{tail}\n")
        file.write("\n\\end\\\n")


def read_arpa(path: Path) -> NgramModel:
    """Read an ARPA file (also ``.gz``). Raises `UserError` with the line that is wrong."""
    tables: list[dict[Ngram, tuple[float, float]]] = []
    stated: list[int] = []
    begun = ended = False
    try:
        with _open(path, "rt") as file:
            for number, line in enumerate(file, start=1):
                text = line.strip(" \r\n")
                if not begun or not text:  # what stands before the mark is a comment
                    begun = begun or text == "\\data\\"
                    continue
                if text == "\\end\\":
                    ended = True
                    break
                _take(text, tables, stated, f"{path}:{number}")
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
        raise UserError(f"{path}: not a readable ARPA file ({error})") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    _check(path, tables, stated, ended)
    return NgramModel(tables)


def _take(text: str, tables: list[dict[Ngram, tuple[float, float]]], stated: list[int], place: str) -> None:
    """One line of the file into the tables."""
    try:
        if text.startswith("ngram ") and not tables:
            stated.append(int(text.split("=")[1]))
        elif text.startswith("\\") and text.endswith("-grams:"):
            tables.append({})
        else:
            _ngram(text, tables)
    except (ValueError, IndexError) as error:
        raise UserError(
            f"{place}: not a line of an ARPA file: {text[:60]!r}; write the model anew with polyvox lm train"
        ) from error


def _ngram(text: str, tables: list[dict[Ngram, tuple[float, float]]]) -> None:
    fields = text.replace("\t", " ").split(" ")
    order = len(tables)
    if not order or len(fields) not in (order + 1, order + 2):
        raise ValueError("wrong number of fields")
    backoff = float(fields[order + 1]) if len(fields) == order + 2 else 0.0
    words = (UNK if word == _UNK_IN_CAPITALS else word for word in fields[1 : order + 1])
    tables[-1][tuple(words)] = (float(fields[0]), backoff)


def _check(
    path: Path, tables: list[dict[Ngram, tuple[float, float]]], stated: list[int], ended: bool
) -> None:
    if not tables or not tables[0]:
        raise UserError(f"{path}: holds no n-grams; is it an ARPA file?")
    if not ended or [len(table) for table in tables] != stated:
        raise UserError(
            f"{path}: incomplete: {[len(table) for table in tables]} n-grams where the head says {stated}"
        )
    if (EOS,) not in tables[0]:
        raise UserError(f"{path}: has no {EOS}: it was not made from sentences; use polyvox lm train")
    if (UNK,) not in tables[0]:  # a closed vocabulary: an unknown word is all but impossible
        tables[0][UNK,] = (min(p for p, _ in tables[0].values() if p > -90) - 2.0, 0.0)


def _open(path: Path, mode: str) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, mode, encoding="utf8")  # type: ignore[return-value]
    return path.open(mode[0], encoding="utf8")
