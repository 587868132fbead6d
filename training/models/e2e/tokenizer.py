"""mBART-50 tokenizers: made from the training texts, trimmed to them, and extended by task and language tokens."""

from __future__ import annotations

import base64
import copy
import json
import re
import string
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, cast

from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import Unigram
from tokenizers.trainers import UnigramTrainer
from transformers import MBart50Tokenizer
from transformers.models.mbart50.tokenization_mbart50 import FAIRSEQ_LANGUAGE_CODES

from training.data.example import TRANSCRIBE, TRANSLATE
from training.models.common import plain_text

TASK_TOKENS = {TRANSCRIBE: "<2transcribe>", TRANSLATE: "<2translate>"}
_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
_LANGUAGE = re.compile(r"[a-z]{2,3}_[A-Z]{2}")
_SPACE = "▁"


def normalise(text: str) -> str:
    """NFC: a letter and its tone mark are one character. mBART's own charsmap does more; nothing does less."""
    return unicodedata.normalize("NFC", text)


def text_ids(tokenizer: MBart50Tokenizer, text: str) -> list[int]:
    """Ids of the text alone, composed: ``<2translate>``, ``</s>`` and ``vi_VN`` in it are spelled (`plain_text`)."""
    return plain_text.text_ids(tokenizer, normalise(text))


def read_mbart_tokenizer(name: str | Path, *, local: bool = False) -> MBart50Tokenizer:
    """The tokenizer of a folder or hub id; ``local``: never from the network.

    Raises ``OSError`` where there is none. The stock class raises nothing: without files it becomes a
    tokenizer of 58 ids that turns every text into ``<unk>``.
    """
    tokenizer = MBart50Tokenizer.from_pretrained(name, local_files_only=local)
    if len(tokenizer) <= len(MBart50Tokenizer()):
        raise OSError(f"no tokenizer files (tokenizer.json or sentencepiece.bpe.model) in {name}")
    return tokenizer


def train_mbart_tokenizer(texts: Iterable[str], vocab_size: int) -> MBart50Tokenizer:
    """A unigram tokenizer (Kudo, 2018) of about ``vocab_size`` text pieces in mBART-50's layout.

    Every character of the texts is a piece, and so are the ASCII letters and digits: a Vietnamese text alone
    would lack f, j, w and z, and the English words of other texts would lose them. The ids are mBART's:
    ``<s> <pad> </s> <unk>``, the pieces, the 52 language codes (the stock class adds any that are missing),
    ``<mask>``. A small corpus may not yield ``vocab_size`` pieces; then there are fewer.
    """
    lines = [normalise(text) for text in texts]
    alphabet = sorted(set(string.ascii_letters + string.digits).union(*lines) - {" "})
    trainer = UnigramTrainer(
        vocab_size=max(vocab_size, len(alphabet) + 2),
        special_tokens=[],
        unk_token="<unk>",
        initial_alphabet=alphabet,
        show_progress=False,
    )
    trained = Tokenizer(Unigram())
    trained.normalizer = normalizers.NFC()
    trained.pre_tokenizer = pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="always", split=True)
    trained.train_from_iterator(lines or [" ".join(alphabet)], trainer)
    control = {*_SPECIALS, "<mask>", *FAIRSEQ_LANGUAGE_CODES, *TASK_TOKENS.values()}
    pieces = {piece: score for piece, score in _vocabulary(trained) if piece not in control}
    rarest = min(pieces.values())
    pieces = {**dict.fromkeys([_SPACE, *alphabet], rarest), **pieces}
    return _assemble([*((token, 0.0) for token in _SPECIALS), *pieces.items()])


def trim_tokenizer(
    tokenizer: MBart50Tokenizer, texts: Iterable[str]
) -> tuple[MBart50Tokenizer, list[int | None]]:
    """The tokenizer with the pieces that the texts need, and for each of its ids the id that it had before.

    Kept: every piece of the texts' tokenisation (which therefore stays the same), the single characters of
    the scripts that occur in them (so that unseen words can be spelled), special tokens and language codes. The id
    is None for a language code that only the stock class has added.
    Method: vocabulary trimming, Ushio et al., 2023.
    """
    used, characters = _usage(tokenizer, texts)
    scripts = set(map(_script, characters))
    vocabulary = _vocabulary(tokenizer.backend_tokenizer)
    special = set(_SPECIALS) | set(tokenizer.all_special_tokens)
    kept = [
        (i, piece, score)
        for i, (piece, score) in enumerate(vocabulary)
        if i in used or piece in special or piece == _SPACE or _spells(piece, scripts)
    ]
    trimmed = _assemble([(piece, score) for _, piece, score in kept], _charsmap(tokenizer))
    old_ids = tokenizer.get_vocab()
    extra = [token for token in tokenizer.all_special_tokens if old_ids[token] >= len(vocabulary)]
    trimmed = extend_tokenizer(trimmed, sorted(extra, key=old_ids.__getitem__))
    return trimmed, [old_ids.get(token) for token in trimmed.convert_ids_to_tokens(list(range(len(trimmed))))]


def extend_tokenizer(tokenizer: MBart50Tokenizer, tokens: Sequence[str]) -> MBart50Tokenizer:
    """The tokenizer with further special tokens at its end; those that it has already keep their ids."""
    new = [token for token in tokens if token not in tokenizer.all_special_tokens]
    if not new:
        return tokenizer
    extended = copy.deepcopy(tokenizer)
    known = [str(token) for token in tokenizer.extra_special_tokens]
    extended.add_special_tokens({"extra_special_tokens": [*known, *new]})
    return _reloaded(extended)


def token_id(tokenizer: MBart50Tokenizer, token: str) -> int:
    """The id of one token."""
    return cast(int, tokenizer.convert_tokens_to_ids(token))


def language_codes(tokenizer: MBart50Tokenizer) -> dict[str, str]:
    """ISO 639 code → the tokenizer's own token (``vi`` → ``vi_VN``): ids are looked up by name, never written down."""
    tokens = sorted(token for token in tokenizer.all_special_tokens if _LANGUAGE.fullmatch(token))
    return {token.split("_")[0]: token for token in tokens}


def language_token(code: str) -> str:
    """The token of a language: mBART-50's own, or a new one in its style (``mdw`` → ``mdw_XX``)."""
    known = {token.split("_")[0]: token for token in FAIRSEQ_LANGUAGE_CODES}
    if _LANGUAGE.fullmatch(code):
        return code
    return known.get(code, f"{code}_XX")


def unseen(tokenizer: MBart50Tokenizer, texts: Iterable[str]) -> Iterator[str]:
    """The texts, among these, that the tokenizer cannot write without ``<unk>``."""
    return (text for text in texts if tokenizer.unk_token_id in text_ids(tokenizer, text))


def _usage(tokenizer: MBart50Tokenizer, texts: Iterable[str]) -> tuple[set[int], set[str]]:
    """Ids and characters that occur in the texts; a thousand of them at a time, a million take seconds."""
    used: set[int] = set()
    characters: set[str] = set()
    rest = iter(texts)
    while chunk := [normalise(text) for text in islice(rest, 1000)]:
        characters.update(*chunk)
        used.update(*plain_text.many_text_ids(tokenizer, chunk))
    return used, characters


def _script(character: str) -> str:
    """The first word of the character's Unicode name (``LATIN``, ``CJK``, …), its category where that says more."""
    if unicodedata.category(character)[0] != "L":
        return unicodedata.category(character)
    return unicodedata.name(character, "UNNAMED").split()[0]


def _spells(piece: str, scripts: set[str]) -> bool:
    return len(piece) == 1 and _script(piece) in scripts


def _vocabulary(backend: Tokenizer) -> list[tuple[str, float]]:
    return [(piece, score) for piece, score in json.loads(backend.to_str())["model"]["vocab"]]


def _charsmap(tokenizer: MBart50Tokenizer) -> Any:
    """SentencePiece's normalisation table, where the tokenizer came with one."""
    normaliser = json.loads(tokenizer.backend_tokenizer.to_str())["normalizer"] or {}
    for part in normaliser.get("normalizers", [normaliser]):
        if part.get("type") == "Precompiled":
            return base64.b64decode(part["precompiled_charsmap"])
    return None


def _assemble(pieces: list[tuple[str, float]], charsmap: Any = None) -> MBart50Tokenizer:
    present = {piece for piece, _ in pieces}
    tail = [(token, 0.0) for token in (*FAIRSEQ_LANGUAGE_CODES, "<mask>") if token not in present]
    return _reloaded(MBart50Tokenizer(vocab=[*pieces, *tail], _spm_precompiled_charsmap=charsmap))


def _reloaded(tokenizer: MBart50Tokenizer) -> MBart50Tokenizer:
    """As loading makes it: the stock class declares its language codes special only on that way."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return MBart50Tokenizer.from_pretrained(folder)
