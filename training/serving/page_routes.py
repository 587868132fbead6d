"""The page and what it is told of the server. Its files come from the package; the browser may load nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.responses import FileResponse, JSONResponse, Response

from training.serving.errors import ApiError

if TYPE_CHECKING:
    from training.serving.state import State

FOLDER = Path(__file__).parent / "page"
MEDIA_TYPES = {
    "index.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "media-src blob:; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


def add_page(application: FastAPI, state: State) -> None:
    """The routes ``/``, ``/page/…`` and ``/v1/settings``."""

    def file(name: str) -> Response:
        if name not in MEDIA_TYPES:
            raise ApiError(404, "there is no such file", code="not_found")
        return FileResponse(FOLDER / name, media_type=MEDIA_TYPES[name], headers=HEADERS)

    @application.head("/", include_in_schema=False)
    @application.get("/", include_in_schema=False)
    async def page() -> Response:
        return file("index.html")

    @application.head("/page/{name}", include_in_schema=False)
    @application.get("/page/{name}", include_in_schema=False)
    async def part(name: str) -> Response:
        return file(name)

    @application.get("/v1/settings", include_in_schema=False)
    async def settings() -> Response:
        asked = state.settings
        return JSONResponse(
            {"collect": asked.collect is not None, "max_mb": asked.max_mb, "max_seconds": asked.max_seconds},
            headers={"Cache-Control": "no-store"},
        )
