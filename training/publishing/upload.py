"""The upload: a repository of one's own, private unless asked otherwise, and one commit with the files."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from training.base.errors import UserError
from training.publishing.contents import Item

REASONS = {
    401: "it does not take the token; set HF_TOKEN to one with the right to write, or log in with hf auth login",
    403: "the token may not write there; take one with the right to write, or another owner",
    404: "it has no such owner or repository, or shows it to nobody with this token; check --repo_id",
    409: "something else is changing the repository at this moment; call again",
    412: "the repository has changed meanwhile; call again",
    413: "a file is too large for it",
    429: "too many requests; call again later",
}
"""What the Hub's status codes mean here."""


@dataclass(frozen=True)
class Published:
    """Where the files are now; ``changed`` is false where all of them were there already."""

    url: str
    private: bool
    changed: bool


def check_repo_id(repo_id: str) -> None:
    """`UserError` unless it is OWNER/NAME as the Hub allows it."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UserError(f"--repo_id {repo_id}: {error}") from error
    if "/" not in repo_id:
        raise UserError(
            f"--repo_id {repo_id}: give OWNER/NAME, your name on the Hub or an organisation's first"
        )


def upload(items: Sequence[Item], repo_id: str, *, public: bool, message: str) -> Published:
    """Make the repository where there is none, and commit the files.

    What is there with the same hash is not sent again, large files of an interrupted call included. The token is that
    of ``HF_TOKEN`` or of ``hf auth login``, the server that of ``HF_ENDPOINT``. Raises `UserError` without a token,
    offline, for whatever the Hub refuses, and for a repository that is public although ``public`` is false.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.utils import disable_progress_bars

    api = HfApi()
    check_access()
    if not sys.stderr.isatty():
        disable_progress_bars()
    with explained(f"{api.endpoint}: {repo_id}"):
        api.create_repo(repo_id, private=not public, exist_ok=True)
        before = api.repo_info(repo_id)
        if not (before.private or public):
            raise UserError(
                f"--repo_id {repo_id}: is a public repository, so everybody would see the files; say --public if that "
                "is meant, or take another name"
            )
        operations = [CommitOperationAdd(item.name, item.content) for item in items]
        done = api.create_commit(repo_id, operations, commit_message=message)
    return Published(f"{api.endpoint}/{repo_id}", bool(before.private), done.oid != before.sha)


def check_access() -> None:
    """`UserError` where there is no token, or the network is not to be used."""
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise UserError("publishing needs the network, and HF_HUB_OFFLINE is set; call again without it")
    if get_token() is None:
        raise UserError(
            "publishing needs a token with the right to write: set the variable HF_TOKEN, or log in with hf auth login"
        )


def account() -> str:
    """The name on the Hub of whoever the token belongs to. Raises `UserError` without a token that the Hub takes."""
    from huggingface_hub import HfApi

    check_access()
    api = HfApi()
    with explained(api.endpoint):
        return str(api.whoami()["name"])


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Whatever the Hub or the network says, as a `UserError` that begins with ``what``."""
    from huggingface_hub.errors import HTTPError

    try:
        yield
    except UserError:
        raise
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        if getattr(error, "filename", None) is not None:
            raise  # a file of this machine; what Xet storage refuses is an OSError too, without a file
        # Workers that send large files wrap what went wrong.
        cause = error.__cause__ if type(error) is RuntimeError and error.__cause__ else error
        raise UserError(f"{what}: {reason(cause)}") from error


def reason(error: BaseException) -> str:
    """What went wrong, and what to do about it."""
    response = getattr(error, "response", None)
    if response is None:
        told = str(error) or type(error).__name__
        hint = "" if isinstance(error, ValueError) else "; the same command goes on where it stopped"
        return without_token(f"{told}{hint}")
    code = response.status_code
    message = getattr(error, "server_message", None)
    meaning = REASONS.get(code, "the Hub is not well; call again later" if code >= 500 else "it refuses")
    return without_token(f"{meaning} (status {code}{f': {message}' if message else ''})")


def without_token(text: str) -> str:
    """The text without the token, which a server may have repeated in its message."""
    from huggingface_hub import get_token

    token: Any = get_token()
    return text.replace(token, "…") if token else text
