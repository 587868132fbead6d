"""Tokens of a CTC model: characters, or byte-pair pieces, of the training split alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import Metaspace
from tokenizers.trainers import BpeTrainer

from training.base.errors import UserError
from training.data.spelling import audible

BLANK = "<blank>"
WORD_START = "▁"
FILE = "tokenizer.json"

_PLAIN = "abcdefghijklmnopqrstuvwxyz"
_VIETNAMESE = "aàáảãạăằắẳẵặâầấẩẫậbcdđeèéẻẽẹêềếểễệfghiìíỉĩịjklmnoòóỏõọôồốổỗộơờớởỡợpqrstuùúủũụưừứửữựvwxyỳýỷỹỵz"
LETTERS = {"en": _PLAIN, "vi": _VIETNAMESE}
"""Letters that a vocabulary always holds: Vietnamese texts alone may lack f, j, w, z,
and English words would lose letters."""


class CtcTokenizer:
    """Text to ids and ids to text; blank at 0. Case and punctuation have no sound and are left out; tones are kept.

    Characters are byte-pair encoding without merges, so that one file format (``tokenizer.json`` of
    `tokenizers`) serves both. A word starts at ``▁``, which stands between words of characters and begins the
    first piece of a word otherwise.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        self.tokens = tuple(sorted(vocabulary, key=lambda token: vocabulary[token]))
        if self.tokens[0] != BLANK or sorted(vocabulary.values()) != list(range(len(vocabulary))):
            raise ValueError(f"not the vocabulary of a CTC model: {BLANK} must be token 0")

    @classmethod
    def characters(cls, texts: Iterable[str], languages: Sequence[str] = ()) -> CtcTokenizer:
        """Every character of the texts and every letter of the languages, in code-point order."""
        alphabet = sorted(_alphabet(languages).union(chain.from_iterable(map(audible, texts))) - {" "})
        vocabulary = {token: i for i, token in enumerate((BLANK, WORD_START, *alphabet))}
        tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[]))
        tokenizer.add_special_tokens([BLANK])
        tokenizer.pre_tokenizer = Metaspace(prepend_scheme="never")
        tokenizer.decoder = decoders.Metaspace(prepend_scheme="never")
        return cls(tokenizer)

    @classmethod
    def bpe(cls, texts: Iterable[str], size: int, languages: Sequence[str] = ()) -> CtcTokenizer:
        """``size`` pieces at most (Sennrich et al., 2016), the blank among them.

        Raises `UserError` where the letters alone are more.
        """
        lines = [audible(text) for text in texts]
        alphabet = sorted(_alphabet(languages).union(*lines) - {" "})
        if size < len(alphabet) + 2:
            raise UserError(
                f"model.vocab_size: {size}, but the letters alone are {len(alphabet) + 2}; take that or more"
            )
        tokenizer = Tokenizer(BPE())
        tokenizer.pre_tokenizer = Metaspace(prepend_scheme="always")
        tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
        trainer = BpeTrainer(
            vocab_size=size,
            special_tokens=[BLANK],
            initial_alphabet=[*alphabet, WORD_START],
            show_progress=False,
        )
        tokenizer.train_from_iterator(lines, trainer)
        return cls(tokenizer)

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, text: str) -> list[int]:
        """Ids of the letters and digits of the text; a character that is not in the vocabulary is left out."""
        return self.tokenizer.encode(audible(text), add_special_tokens=False).ids

    def unknown(self, text: str) -> list[str]:
        """Characters of the text that are not in the vocabulary, sorted."""
        return sorted(set(audible(text)) - {" "} - set(self.tokens))

    def decode(self, ids: Iterable[int]) -> str:
        """The words that the labels spell, blanks left out."""
        letters = "".join(self.tokens[i] for i in ids if i != 0)
        return " ".join(letters.replace(WORD_START, " ").split())

    def save_pretrained(self, folder: str | Path) -> None:
        """``tokenizer.json`` and the configuration by which stock transformers finds it."""
        from transformers import ParakeetTokenizer  # not above: exported folders are used without it

        ParakeetTokenizer(tokenizer_object=self.tokenizer, pad_token=BLANK).save_pretrained(folder)

    def save_file(self, folder: str | Path) -> None:
        """``tokenizer.json`` alone."""
        self.tokenizer.save(str(Path(folder, FILE)))

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> CtcTokenizer:
        """The counterpart of `save_pretrained`. Raises `UserError` where the file is absent or damaged."""
        path = Path(folder, FILE)
        if not path.is_file():
            raise UserError(f"{path} is not there: {folder} is no CTC model of ours")
        try:
            return cls(Tokenizer.from_file(str(path)))
        except Exception as error:  # tokenizers raises nothing narrower for a damaged file
            raise UserError(f"{path} is damaged: {error}") from error

    def __getstate__(self) -> str:
        return self.tokenizer.to_str()

    def __setstate__(self, state: str) -> None:
        self.__init__(Tokenizer.from_str(state))  # type: ignore[misc]


def _alphabet(languages: Sequence[str]) -> set[str]:
    unknown = [language for language in languages if language not in LETTERS]
    if unknown:
        raise UserError(
            f"model.languages: the letters of {unknown[0]!r} are not listed (there are: {', '.join(LETTERS)}); leave "
            "it out, and the training texts decide"
        )
    return {letter for language in languages for letter in LETTERS[language]}
