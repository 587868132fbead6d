"""Corrections that people agreed to: their sound and their text, as a manifest for the next training.

The only thing that a server writes to disk, and only where it was started with ``--collect``.
"""

from __future__ import annotations

import asyncio
import csv
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from training.data.sound.containers import HEAD_BYTES, identify
from training.serving.errors import ApiError, too_late
from training.serving.uploads import ClientGone, Form, Upload, read_form

if TYPE_CHECKING:
    from training.serving.state import State

MANIFEST = "manifest.tsv"
COLUMNS = ("id", "audio_path", "duration", "transcript", "language", "recognised")
LONGEST_TEXT = 20_000
SUFFIXES = {"mov": "m4a", "matroska": "webm", "adts": "aac"}
"""Usual suffixes of containers that are not called like them."""

_writing = asyncio.Lock()


async def store(request: Request, state: State) -> Response:
    """``POST /v1/corrections``: the form's ``file``, ``text``, ``consent``, and ``language`` and ``recognised`` where they are
    known. Raises `ApiError`."""
    folder = state.settings.collect
    if folder is None:
        raise ApiError(
            404, "this server keeps nothing (it was started without --collect)", code="not_collecting"
        )
    form = Form()
    try:
        async with asyncio.timeout(state.settings.timeout):  # a slow one holds no place of the queue
            form = await read_form(
                request.receive,
                request.headers.get("content-type", ""),
                state.settings.max_bytes,
                state.settings.max_mb,
            )
            upload, fields = _checked(form)
            seconds = await _seconds(upload, state)
        async with _writing:
            name = await asyncio.to_thread(_write, folder, upload.read(), seconds, fields)
    except TimeoutError:
        raise too_late(state.settings.timeout) from None
    except ClientGone:
        return Response(status_code=499)
    finally:
        form.close()
    return JSONResponse({"id": name}, 201)


def _checked(form: Form) -> tuple[Upload, dict[str, str]]:
    """The file, and the fields without line breaks and tabs. Raises `ApiError`."""
    if form.upload is None:
        raise ApiError(422, "file: is missing", param="file", code="missing_file")
    fields = {name: " ".join(values[0].split()) for name, values in form.fields.items()}
    if fields.get("consent") != "true":
        raise ApiError(
            400, "consent: nothing is kept without the speaker's consent", param="consent", code="no_consent"
        )
    if not fields.get("text") or len(fields["text"]) > LONGEST_TEXT:
        raise ApiError(422, f"text: 1 to {LONGEST_TEXT} characters", param="text", code="invalid_field")
    return form.upload, fields


async def _seconds(upload: Upload, state: State) -> float:
    """Of its sound. Raises `ApiError` for what is no sound."""
    abilities = next(iter(state.dispatcher.abilities.values()))
    async with state.dispatcher.decoders.opened(upload, abilities) as sound:
        return sound.seconds


def _write(folder: Path, data: bytes, seconds: float, fields: dict[str, str]) -> str:
    """Write the sound, then its row: a row never names a file that is not there."""
    name = hashlib.sha256(data).hexdigest()[:32]
    container = identify(data[:HEAD_BYTES]) or "bin"
    sound = folder / "audio" / f"{name}.{SUFFIXES.get(container, container)}"
    sound.parent.mkdir(exist_ok=True)
    if not sound.exists():
        partial = sound.with_suffix(".part")
        partial.write_bytes(data)
        partial.replace(sound)
    manifest = folder / MANIFEST
    row = (
        f"{name}-{hashlib.sha256(fields['text'].encode()).hexdigest()[:8]}",
        f"audio/{sound.name}",
        f"{seconds:.3f}",
        fields["text"],
        fields.get("language", "")[:16],
        fields.get("recognised", "")[:LONGEST_TEXT],
    )
    if manifest.is_file() and f"\n{row[0]}\t" in manifest.read_text(encoding="utf8"):
        return row[0]  # sent twice, by a second click or by a proxy
    with manifest.open("a", encoding="utf8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        if not file.tell():
            writer.writerow(COLUMNS)
        writer.writerow(row)
        file.flush()
        os.fsync(file.fileno())
    return row[0]
