"""The application: ``uvicorn training.serving.app:app``, or `create_app` with settings of one's own."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.websockets import WebSocket

from training import __version__
from training.base.errors import UserError
from training.data.example import TRANSCRIBE, TRANSLATE
from training.serving.admission import Admission, Occupancy
from training.serving.collect import store
from training.serving.dispatcher import Dispatcher
from training.serving.errors import ApiError
from training.serving.errors import failed as server_failed
from training.serving.fields import named_model
from training.serving.keys import read_keys
from training.serving.metrics import Metrics
from training.serving.openapi import TRANSCRIPTION
from training.serving.options import Abilities
from training.serving.page_routes import add_page
from training.serving.realtime import talk
from training.serving.settings import Settings, from_environment, require_model
from training.serving.state import State
from training.serving.transcriptions import answer

NO_STORE = {"Cache-Control": "no-store"}


def create_app(settings: Settings) -> FastAPI:
    """The application of a server. ``app.state.server`` is its `State`. Raises `UserError`."""
    for folder in settings.models.values():
        require_model(folder)
    metrics, occupancy, keys = Metrics(), Occupancy(settings.queue), read_keys(settings.keys)
    state = State(settings, keys, occupancy, metrics, Dispatcher(settings, metrics))
    _watch(state)
    application = FastAPI(
        title="Polyvox", version=__version__, docs_url=None, redoc_url=None, lifespan=_life(state)
    )
    application.state.server = state
    _routes(application, state)
    add_page(application, state)
    _errors(application)
    application.add_middleware(
        Admission,  # type: ignore[arg-type]
        settings=settings,
        keys=keys,
        occupancy=occupancy,
        metrics=metrics,
        loaded=lambda: bool(state.dispatcher.abilities),
    )
    if settings.origins:
        application.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["Polyvox-Ignored", "Content-Language", "Retry-After"],
        )
    return application


def _life(state: State) -> Any:
    @asynccontextmanager
    async def life(application: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(state.load())
        try:
            yield
        finally:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
            await state.dispatcher.close()
            state.segmenting.shutdown(wait=False, cancel_futures=True)

    return life


def _watch(state: State) -> None:
    watch, dispatcher = state.metrics.watch, state.dispatcher
    watch(
        "polyvox_requests_inside",
        "Requests that arrive, wait or are computed",
        lambda: state.occupancy.inside,
    )
    watch("polyvox_sockets", "Open live connections", lambda: state.occupancy.sockets)
    watch("polyvox_windows_waiting", "Windows that wait for a model", lambda: len(dispatcher.waiting))
    watch("polyvox_waiting_audio_seconds", "Their sound", lambda: dispatcher.waiting.seconds)
    watch("polyvox_ready", "1: requests are taken", lambda: float(state.ready))
    watch(
        "polyvox_models_busy",
        "Model processes that compute",
        lambda: sum(one.busy for one in dispatcher.devices),
    )


def _routes(application: FastAPI, state: State) -> None:
    @application.post("/v1/audio/transcriptions", openapi_extra=TRANSCRIPTION)
    async def transcriptions(request: Request) -> Response:
        """The text of a recording, in the language that is spoken."""
        return await answer(request, state, TRANSCRIBE)

    @application.post("/v1/audio/translations", openapi_extra=TRANSCRIPTION)
    async def translations(request: Request) -> Response:
        """The text of a recording, in the model's target language."""
        return await answer(request, state, TRANSLATE)

    @application.post("/v1/corrections", include_in_schema=False)
    async def corrections(request: Request) -> Response:
        return await store(request, state)

    @application.websocket("/v1/realtime")
    async def realtime(socket: WebSocket) -> None:
        await talk(socket, state)

    @application.head("/v1/models", include_in_schema=False)
    @application.get("/v1/models")
    async def models() -> Response:
        """The models that can be asked."""
        listed = [_listed(name, one) for name, one in state.dispatcher.abilities.items()]
        return JSONResponse({"object": "list", "data": listed}, headers=NO_STORE)

    @application.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        """One of them."""
        name, abilities = named_model(name, state.dispatcher.abilities)
        return JSONResponse(_listed(name, abilities), headers=NO_STORE)

    @application.head("/healthz", include_in_schema=False)
    @application.get("/healthz")
    async def health() -> Response:
        """Whether the server lives."""
        return JSONResponse({"status": "ok"}, headers=NO_STORE)

    @application.head("/readyz", include_in_schema=False)
    @application.get("/readyz")
    async def ready() -> Response:
        """Whether it takes requests."""
        if state.ready:
            return JSONResponse({"status": "ready"}, headers=NO_STORE)
        reason = "stopping" if state.occupancy.stopping else "failed" if state.failed else "loading"
        return JSONResponse({"status": reason}, 503, headers=NO_STORE)

    @application.head("/metrics", include_in_schema=False)
    @application.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(state.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _listed(name: str, abilities: Abilities) -> dict[str, Any]:
    """A model as OpenAI's API lists it, and what it can do."""
    return {
        "id": name,
        "object": "model",
        "created": abilities.created,
        "owned_by": "polyvox",
        "tasks": list(abilities.tasks),
        "word_times": abilities.timed,
        "live": abilities.live,
        "domains": list(abilities.domains),
    }


def _errors(application: FastAPI) -> None:
    @application.exception_handler(ApiError)
    async def told(request: Request, error: ApiError) -> Response:
        return JSONResponse(error.body, error.status, headers=error.headers)

    @application.exception_handler(HTTPException)
    async def routed(request: Request, error: HTTPException) -> Response:
        found = ApiError(error.status_code, str(error.detail), code=None)
        return JSONResponse(found.body, error.status_code, headers=error.headers)

    @application.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return JSONResponse(server_failed().body, 500)


class _Lazy:
    """The application of the environment, made when the server starts: importing this module needs no model."""

    def __init__(self) -> None:
        self._made: FastAPI | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._made is None:
            logging.basicConfig(level=logging.INFO, format="%(message)s")
            # They write addresses and queries, which can hold a key; this application has lines of its own.
            logging.getLogger("uvicorn.access").disabled = True
            logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
            try:
                self._made = create_app(from_environment())
            except UserError as error:
                await receive()
                await send({"type": "lifespan.startup.failed", "message": f"error: {error}"})
                return
            self._made.state.server.on_failure = lambda: os.kill(os.getpid(), signal.SIGTERM)
        await self._made(scope, receive, send)


app = _Lazy()
"""For ``uvicorn training.serving.app:app``: serves the model of ``POLYVOX_MODEL``, or the newest finished run."""
