"""Text to token ids as text alone: what is written like a control token in it is spelled, never obeyed.

``split_special_tokens=True`` of transformers does not serve: added tokens that are not called special, such as the
timestamps of Whisper's stock tokenizer or ``<think>`` of some language models, are matched all the same.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from typing import Any
from weakref import WeakKeyDictionary

from tokenizers import Encoding, Tokenizer

_PLAIN: WeakKeyDictionary[Any, Tokenizer] = WeakKeyDictionary()


def text_ids(tokenizer: Any, text: str) -> list[int]:
    """Ids of ``text``, none of them an added token's; without control tokens around it."""
    return text_encoding(tokenizer, text).ids


def text_encoding(tokenizer: Any, text: str) -> Encoding:
    """The same with the place of each token in the text (``offsets``)."""
    return plain_backend(tokenizer).encode(text, add_special_tokens=False)


def many_text_ids(tokenizer: Any, texts: Iterable[str]) -> list[list[int]]:
    """Ids of each text."""
    return [
        found.ids for found in plain_backend(tokenizer).encode_batch(list(texts), add_special_tokens=False)
    ]


def plain_backend(tokenizer: Any) -> Tokenizer:
    """The pipeline of a tokenizer of transformers, its ids too, without any added token. Made once for each tokenizer."""
    if (found := _PLAIN.get(tokenizer)) is None:
        found = _PLAIN[tokenizer] = _made(tokenizer)
    return found


def control_tokens_in(tokenizer: Any, text: str) -> list[str]:
    """The added tokens, white space apart, that a text is written with: for texts that go into a chat template."""
    added = (token.content for token in tokenizer.added_tokens_decoder.values())
    return sorted(token for token in added if token.strip() and token in text)


def _made(tokenizer: Any) -> Tokenizer:
    backend = tokenizer.backend_tokenizer
    added = {i: token.content for i, token in tokenizer.added_tokens_decoder.items()}
    plain = _with_model(backend, backend.model)
    tried = plain.encode_batch(list(added.values()), add_special_tokens=False)
    if any(i in added for found in tried for i in found.ids):
        # Pieces of the model's own vocabulary, as those of SentencePiece are: there they get names that no text has.
        described = json.loads(backend.to_str())["model"]
        renamed = _renamed(described, {token: f"\0{i}\0" for i, token in added.items()})
        plain = _with_model(backend, _model(renamed))
    return plain


def _with_model(backend: Tokenizer, model: Any) -> Tokenizer:
    plain = Tokenizer(model)
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        if (found := getattr(backend, part)) is not None:
            setattr(plain, part, found)
    return plain


def _model(described: dict[str, Any]) -> Any:
    parts = ("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder")
    bare: dict[str, Any] = {**dict.fromkeys(parts), "version": "1.0", "added_tokens": [], "model": described}
    return Tokenizer.from_str(json.dumps(bare)).model


def _renamed(model: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """The description of a model whose pieces ``names`` are called otherwise, at the same ids."""
    kept = {model.get("unk_token")} - {
        None
    }  # found by its name in some models; no sequence of merges leads to it
    names = {old: new for old, new in names.items() if old not in kept}
    if isinstance(model["vocab"], list):
        return {**model, "vocab": [[names.get(piece, piece), score] for piece, score in model["vocab"]]}
    vocabulary = {names.get(piece, piece): i for piece, i in model["vocab"].items()}
    changed = {**model, "vocab": vocabulary}
    if "merges" in model:
        changed["merges"] = [pair for pair in model["merges"] if not _touches(pair, names)]
    return changed


def _touches(pair: Any, names: Collection[str]) -> bool:
    left, right = pair.split(" ") if isinstance(pair, str) else pair
    return left in names or right in names or left + right in names
