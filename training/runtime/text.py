"""Token ids to text, with the library `tokenizers` alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from training.base.errors import UserError
from training.data.control_marks import TIME


class Backend:
    """A tokenizer of the library `tokenizers` under the names by which `training.models.common.plain_text` asks those of
    transformers."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.backend_tokenizer = tokenizer
        self.added_tokens_decoder = tokenizer.get_added_tokens_decoder()


class Detokenizer:
    """As `training.models.common.decode.decode_text`: control tokens and timestamps are left out.

    Raises `UserError` for a file that is no tokenizer.
    """

    def __init__(self, path: Path) -> None:
        try:
            self.tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises nothing narrower
            raise UserError(f"{path}: damaged, no tokenizer ({error}); export the model again") from error
        self.added_tokens_decoder = self.tokenizer.get_added_tokens_decoder()
        added = self.added_tokens_decoder.items()
        self.times = frozenset(i for i, token in added if TIME.fullmatch(token.content))

    @property
    def backend_tokenizer(self) -> Tokenizer:
        """Under the name of transformers, so that `training.models.common.plain_text` takes this for a tokenizer."""
        return self.tokenizer

    def __call__(self, ids: Sequence[int]) -> str:
        """The text of the ids."""
        kept = [i for i in ids if i not in self.times]
        return self.tokenizer.decode(kept, skip_special_tokens=True).strip()
