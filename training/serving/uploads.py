"""A form with a file, read while it arrives: the file into memory that no folder knows, the fields as text.

Starlette's own reader writes files above one megabyte into a temporary folder; nothing is written to disk here.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, MultipartState, parse_options_header

from training.serving.errors import ApiError, too_large

FIELD_BYTES = 65_536
"""Of all fields but the file together."""
FIELDS = 100
STALL_SECONDS = 20.0
"""A body of which nothing comes for so long is given up."""
OVERHEAD = 2 * FIELD_BYTES
"""Bytes of a body beside its file."""


@dataclass(eq=False)
class Upload:
    """A file in memory. file: its descriptor. size: bytes."""

    file: int = field(default_factory=lambda: os.memfd_create("upload", os.MFD_CLOEXEC))
    size: int = 0

    def write(self, data: bytes) -> None:
        """Append bytes."""
        view = memoryview(data)
        while view:
            view = view[os.write(self.file, view) :]
        self.size += len(data)

    def read(self) -> bytes:
        """All of it."""
        return os.pread(self.file, self.size, 0)

    def close(self) -> None:
        """Forget it."""
        if self.file >= 0:
            os.close(self.file)
            self.file = -1

    def __del__(self) -> None:
        """A stream whose client left before its first line never comes to its end."""
        self.close()


@dataclass
class Form:
    """fields: each with its values in order. upload: the part ``file``; None where there is none."""

    fields: dict[str, list[str]] = field(default_factory=dict)
    upload: Upload | None = None

    def close(self) -> None:
        if self.upload is not None:
            self.upload.close()


class _Reader:
    """The calls of the parser, which come while the body arrives."""

    def __init__(self, max_bytes: int, max_mb: float) -> None:
        self.form = Form()
        self.max_bytes, self.max_mb = max_bytes, max_mb
        self.headers: dict[bytes, bytes] = {}
        self.name: str | None = None
        self.value = bytearray()
        self.is_file = False
        self.spent = self.count = 0
        self._field, self._value = bytearray(), bytearray()

    def callbacks(self) -> dict[str, Callable[..., None]]:
        return {
            "on_part_begin": self.begin,
            "on_header_field": lambda data, start, end: self._field.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self.header,
            "on_headers_finished": self.headers_finished,
            "on_part_data": self.data,
            "on_part_end": self.end,
        }

    def begin(self) -> None:
        self.count += 1
        if self.count > FIELDS:
            raise ApiError(400, f"the form has more than {FIELDS} parts", code="invalid_form")
        self.headers, self.value, self.name, self.is_file = {}, bytearray(), None, False

    def header(self) -> None:
        self.headers[bytes(self._field).lower()] = bytes(self._value)
        self._field.clear()
        self._value.clear()

    def headers_finished(self) -> None:
        _, options = parse_options_header(self.headers.get(b"content-disposition", b""))
        name = options.get(b"name")
        if name is None:
            raise ApiError(400, "a part of the form has no name", code="invalid_form")
        self.name = name.decode("utf8", "replace")
        self.is_file = self.name == "file" and b"filename" in options
        if self.is_file:
            if self.form.upload is not None:
                raise ApiError(400, "file: give one file", param="file", code="several_files")
            self.form.upload = Upload()

    def data(self, data: bytes, start: int, end: int) -> None:
        if self.is_file and self.form.upload is not None:
            if self.form.upload.size + end - start > self.max_bytes:
                raise too_large(self.max_mb)
            self.form.upload.write(data[start:end])
            return
        self.spent += end - start
        if self.spent > FIELD_BYTES:
            raise ApiError(413, f"the fields hold more than {FIELD_BYTES} bytes", code="fields_too_large")
        self.value += data[start:end]

    def end(self) -> None:
        if self.is_file or self.name is None:
            return
        try:
            text = self.value.decode("utf8")
        except UnicodeDecodeError:
            raise ApiError(422, f"{self.name}: is not UTF-8", param=self.name, code="invalid_field") from None
        self.form.fields.setdefault(self.name, []).append(text)


async def read_form(
    receive: Callable[[], Awaitable[Mapping[str, Any]]], content_type: str, max_bytes: int, max_mb: float
) -> Form:
    """Read a form.

    Args:
        receive: of ASGI.
        content_type: the header.
        max_bytes: of the file.
        max_mb: the same as messages name it.

    Raises:
        ApiError: it is no form, too large, or does not arrive.
        ClientGone: the client left.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise ApiError(
            415,
            "the body must be multipart/form-data with the sound in the part file",
            code="unsupported_media_type",
        )
    reader = _Reader(max_bytes, max_mb)
    try:
        parser = MultipartParser(boundary, reader.callbacks())  # type: ignore[arg-type]
        arrived, more = 0, True
        while more:
            message = await _within(receive)
            if message["type"] == "http.disconnect":
                raise ClientGone
            body = message.get("body", b"")
            arrived += len(body)
            if arrived > max_bytes + OVERHEAD:
                raise too_large(max_mb)
            parser.write(body)
            more = message.get("more_body", False)
        parser.finalize()
    except FormParserError as error:
        reader.form.close()
        raise ApiError(400, f"the form cannot be read: {error}", code="invalid_form") from error
    except BaseException:
        reader.form.close()
        raise
    if parser.state != MultipartState.END:
        reader.form.close()
        raise ApiError(400, "the form ends before its last boundary", code="invalid_form")
    return reader.form


class ClientGone(Exception):
    """The client has left, and nobody waits for an answer."""


async def _within(receive: Callable[[], Awaitable[Mapping[str, Any]]]) -> Mapping[str, Any]:
    try:
        async with asyncio.timeout(STALL_SECONDS):
            return await receive()
    except TimeoutError:
        raise ApiError(
            408, f"nothing of the body came for {STALL_SECONDS:g} s", code="body_timeout"
        ) from None
