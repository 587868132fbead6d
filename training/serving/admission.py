"""Who gets in: decided on the headers, before anything of a body is read.

A plain ASGI middleware. A request that is refused has its answer at once, however busy the server is; what its client still
sends is thrown away, and its connection is closed (see `training.serving.protocols`).
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from training.serving.errors import ApiError, failed, loading, stopping, too_large, traced
from training.serving.keys import Key, Keys
from training.serving.metrics import Metrics
from training.serving.settings import Settings
from training.serving.uploads import OVERHEAD

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = ("/", "/healthz", "/readyz", "/openapi.json")
"""Routes that need no key: health, and the page, which asks for one itself."""
PAGE = "/page/"
COUNTED = ("/v1/audio/transcriptions", "/v1/audio/translations", "/v1/corrections")
"""Routes that take a place in the queue."""
ROUTES = (*OPEN, *COUNTED, "/v1/models", "/metrics", "/v1/settings", "/v1/realtime")
SUBPROTOCOL = "polyvox-key."
"""Browsers' sockets cannot send the header: ``new WebSocket(url, ["realtime", "polyvox-key." + key])``."""
OPENAI_SUBPROTOCOL = "openai-insecure-api-key."
"""The same as OpenAI's browsers' examples write it."""
MEAN = 0.9
"""Share of the earlier requests in the running mean of their time."""

logger = logging.getLogger("training.serving.access")


@dataclass
class Occupancy:
    """How many requests are inside. sockets: live connections. seconds: that a request takes, a running mean. stopping: nobody
    gets in any more."""

    most: int
    inside: int = 0
    sockets: int = 0
    seconds: float = 1.0
    stopping: bool = False

    def left(self, began: float) -> None:
        """A request has its answer."""
        self.inside -= 1
        self.seconds = MEAN * self.seconds + (1 - MEAN) * (time.monotonic() - began)

    @property
    def retry_after(self) -> int:
        """Seconds after which a place is likely to be free."""
        return max(1, min(60, math.ceil(self.seconds)))


class Admission:
    """The middleware. loaded: whether there are models to ask."""

    def __init__(
        self,
        app: App,
        settings: Settings,
        keys: Keys,
        occupancy: Occupancy,
        metrics: Metrics,
        loaded: Callable[[], bool],
    ) -> None:
        self.app, self.settings, self.keys = app, settings, keys
        self.occupancy, self.metrics, self.loaded = occupancy, metrics, loaded

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.monotonic()
        status = [0]

        async def watched(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
            await send(message)

        try:
            await self._answer(scope, receive, watched, began)
        except Exception as error:  # uvicorn would log its message too, which can hold a request's words
            logger.error(f"a request failed: {traced(error)}")
            if not status[0]:
                await refuse(watched, failed())
        finally:
            self._log(scope, status[0], time.monotonic() - began)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, began: float) -> None:
        counted = scope["method"] == "POST" and scope["path"] in COUNTED
        try:
            if counted and not same_origin(scope, self.settings.origins):
                raise ApiError(403, "a page of another address asks (--allow_origin)", code="origin")
            key = self._key(scope)
            if counted:
                self._require_room(scope, key)
        except ApiError as error:
            self.metrics.refused.labels(error.code or str(error.status)).inc()
            await refuse(send, error)
            return
        scope.setdefault("state", {})["began"] = began
        if not counted:
            await self.app(scope, receive, send)
            return
        self.occupancy.inside += 1
        if key is not None:
            key.begin(began)
        try:
            await self.app(scope, receive, send)
        finally:
            self.occupancy.left(began)
            if key is not None:
                key.end()

    def _key(self, scope: Scope) -> Key | None:
        path = scope["path"]
        if not self.keys.asked or path in OPEN or path.startswith(PAGE) or scope["method"] == "OPTIONS":
            return None
        return require_key(self.keys, bearer(scope))

    def _require_room(self, scope: Scope, key: Key | None) -> None:
        if self.occupancy.stopping:
            raise stopping()
        if not self.loaded():
            raise loading()
        if key is not None and (wait := key.wait(time.monotonic())) is not None:
            raise ApiError(429, "this key's limit is reached", code="key_limit", retry_after=wait)
        length = header(scope, b"content-length")
        if length.isdigit() and int(length) > self.settings.max_bytes + OVERHEAD:
            raise too_large(self.settings.max_mb)
        if self.occupancy.inside >= self.occupancy.most:
            raise ApiError(
                503,
                f"{self.occupancy.most} requests are inside, as many as this server takes; ask again",
                code="queue_full",
                retry_after=self.occupancy.retry_after,
            )

    def _log(self, scope: Scope, status: int, seconds: float) -> None:
        route = scope["path"] if scope["path"] in ROUTES else "other"
        self.metrics.requests.labels(route, str(status)).inc()
        self.metrics.latency.labels(route).observe(seconds)
        if route not in ("/healthz", "/readyz", "/metrics"):
            logger.info(f"{scope['method']} {route} {status} {seconds:.3f} s")


def header(scope: Scope, name: bytes) -> str:
    """A header's value; empty where it is not there."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


def same_origin(scope: Scope, allowed: Sequence[str]) -> bool:
    """Whether a request is the page's own, of an allowed address, or of no page.

    Browsers say whose page asks, and send forms and open sockets for every page: the server has to look.
    """
    origin = header(scope, b"origin")
    if not origin or origin in allowed or "*" in allowed:
        return True
    try:
        return urlsplit(origin).netloc == header(scope, b"host")
    except ValueError:
        return False


def bearer(scope: Scope) -> str | None:
    """The key of the header ``Authorization``; None where there is none."""
    kind, _, token = header(scope, b"authorization").partition(" ")
    return token.strip() if kind.lower() == "bearer" and token.strip() else None


def offered_key(scope: Scope) -> str | None:
    """The key of a socket: of the header, else of its subprotocols."""
    if (token := bearer(scope)) is not None:
        return token
    for name in scope.get("subprotocols", ()):
        for prefix in (SUBPROTOCOL, OPENAI_SUBPROTOCOL):
            if name.startswith(prefix):
                return name.removeprefix(prefix)
    return None


def require_key(keys: Keys, token: str | None) -> Key:
    """The key, or an `ApiError` of status 401."""
    if token is None:
        raise ApiError(
            401, "this server asks for a key: send the header Authorization: Bearer KEY", code="missing_key"
        )
    if (key := keys.find(token)) is None:
        raise ApiError(401, "this key is not known here", code="invalid_api_key")
    return key


async def refuse(send: Send, error: ApiError) -> None:
    """Answer with an error."""
    body = json.dumps(error.body).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **error.headers}
    await send(
        {
            "type": "http.response.start",
            "status": error.status,
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        }
    )
    await send({"type": "http.response.body", "body": body})
