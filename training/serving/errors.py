"""What a client is told when a request fails: OpenAI's form of errors."""

from __future__ import annotations

import traceback
from typing import Any

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class ApiError(Exception):
    """A request that is not answered.

    status: of HTTP. message: what is wrong and what to do. param: the field that is wrong. code: for programs.
    retry_after: seconds after which it may be tried again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param = status, message, param
        self.code, self.retry_after = code, retry_after

    @property
    def body(self) -> dict[str, Any]:
        """As JSON."""
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """That the answer has beside its body."""
        found = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return found | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})


def traced(error: BaseException) -> str:
    """Where a fault of ours came from, for the log: its type and its lines of code.

    Its message is left out: it can hold a request's words.
    """
    return "".join([*traceback.format_tb(error.__traceback__), type(error).__name__])


def failed() -> ApiError:
    """A fault of the server, which its log tells of."""
    return ApiError(500, "the server failed; its log says where", code="internal")


def loading() -> ApiError:
    """The server has just begun."""
    return ApiError(503, "the models are being loaded; ask again", code="loading", retry_after=5)


def stopping() -> ApiError:
    """The server ends."""
    return ApiError(503, "the server is stopping; ask another one, or again", code="stopping", retry_after=5)


def too_large(max_mb: float) -> ApiError:
    """The body is larger than ``max_mb``."""
    return ApiError(
        413,
        f"the upload is larger than {max_mb:g} MB, which is the most that this server takes: compress it (FLAC, OGG, MP3), "
        "or cut it",
        param="file",
        code="file_too_large",
    )


def too_long_a_batch(seconds: float) -> ApiError:
    """The model did not come to an end with this request alone."""
    return ApiError(
        504,
        f"the model computed for {seconds:g} s without a result, the time that this server gives it (--batch_timeout): send "
        "shorter recordings, or a smaller beam_width",
        code="batch_timeout",
    )


def too_late(timeout: float) -> ApiError:
    """The request's time is over."""
    return ApiError(
        504,
        f"no answer within {timeout:g} s, the time that this server gives a request: send shorter recordings, or ask again",
        code="timeout",
    )
