"""A Whisper tokenizer made from the training texts, for models that start from scratch."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import AddedToken, WhisperTokenizer
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from training.data.control_marks import TIME

END = "<|endoftext|>"
START = "<|startoftranscript|>"
PREVIOUS = "<|startofprev|>"
FIRST_TIME = "<|0.00|>"
SECONDS_PER_TIMESTAMP = 0.02
LAST_TIMESTAMP = 1500
"""Number of the last timestamp, ``<|30.00|>``."""
CONTROLS = (
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    PREVIOUS,
    "<|nospeech|>",
    "<|notimestamps|>",
)

DOMAIN = "<|domain:"
_OTHERS = frozenset((START, END, *CONTROLS, "<|nocaptions|>"))


def train_whisper_tokenizer(
    texts: Iterable[str], vocab_size: int, languages: Iterable[str]
) -> WhisperTokenizer:
    """Byte-level BPE of ``vocab_size`` text tokens, followed by Whisper's control tokens in Whisper's order.

    Every byte is in the alphabet, so no text is out of reach. The stock tokenizer computes the id of a
    language from its rank in Whisper's list, so the whole list is there; languages that Whisper does not
    know follow the control tokens. There are no timestamp tokens: the texts
    carry no times to learn them from. Stock ``WhisperTokenizer.from_pretrained`` loads the saved folder.
    """
    trained = Tokenizer(BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # The trained texts begin with a space, as every text that is encoded later does.
    trained.train_from_iterator((f" {text}" for text in texts), trainer)
    vocab, merges = _vocab_and_merges(trained)
    vocab[END] = len(vocab)
    tokenizer = WhisperTokenizer(vocab=vocab, merges=merges, pad_token=END)
    unlisted = sorted(set(languages) - set(LANGUAGES))
    controls = [START, *map(language_token, LANGUAGES), *CONTROLS, *map(language_token, unlisted)]
    tokenizer.add_special_tokens(
        {"extra_special_tokens": [AddedToken(token, special=True, normalized=False) for token in controls]}
    )
    tokenizer.set_prefix_tokens()  # the constructor made the prefix before these tokens had their ids
    return tokenizer


def language_token(code: str) -> str:
    """The token of an ISO 639 code, as Whisper writes it."""
    return f"<|{code}|>"


def languages_of(tokenizer: WhisperTokenizer) -> dict[str, int]:
    """Code → token id of the languages in Whisper's list that the tokenizer has a token for."""
    known = tokenizer.get_vocab()
    return {code: known[token] for code in LANGUAGES if (token := language_token(code)) in known}


def names_language(token: str) -> bool:
    """Whether a token of `language_token` is no other control token of Whisper: a table's cell may name any of them."""
    return token not in _OTHERS and not token.startswith(DOMAIN) and not TIME.fullmatch(token)


def has_timestamps(tokenizer: Any) -> bool:
    """Whether a tokenizer has Whisper's tokens ``<|0.00|>`` to ``<|30.00|>``, one after the other."""
    first, last = tokenizer.convert_tokens_to_ids([FIRST_TIME, "<|30.00|>"])
    return first not in (None, tokenizer.unk_token_id) and last == first + LAST_TIMESTAMP


def timestamp_ids(tokenizer: Any, start: float, end: float) -> tuple[int, int]:
    """The tokens of two times in seconds, in steps of 20 ms, within 30 s."""
    first = tokenizer.convert_tokens_to_ids(FIRST_TIME)
    numbers = [min(LAST_TIMESTAMP, round(t / SECONDS_PER_TIMESTAMP)) for t in (start, end)]
    return first + numbers[0], first + numbers[1]


def _vocab_and_merges(tokenizer: Tokenizer) -> tuple[dict[str, int], list[tuple[str, str]]]:
    model = json.loads(tokenizer.to_str())["model"]
    return dict(model["vocab"]), [tuple(pair) for pair in model["merges"]]
