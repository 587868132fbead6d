"""A server of files on this machine that behaves as servers do: with ranges or without, cut off, out of order."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """``files``: path → content. ``cuts``: bytes after which an answer ends too early, one for each of the next
    answers. ``statuses``: what the next requests get in place of the file. ``held``: answers stop before their end
    until ``go``."""

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    lengths: bool = True
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    lies: bool = False
    held: bool = False
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    sent: int = 0
    url: str = ""
    go: threading.Event = field(default_factory=threading.Event)
    waiting: threading.Event = field(default_factory=threading.Event)

    def answer(self, path: str, wanted: str | None) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body."""
        if self.statuses:
            return self.statuses.pop(0), {}, b""
        content = self.files.get(path.lstrip("/"))
        if content is None:
            return 404, {}, b"nothing here"
        stated = re.fullmatch(r"bytes=(\d+)-", wanted or "")
        if stated is None or not self.ranges:
            return 200, {}, content
        start = 0 if self.lies else int(stated[1])
        if start >= len(content):
            return 416, {"Content-Range": f"bytes */{len(content)}"}, b""
        return (
            206,
            {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"},
            content[start:],
        )


def _handler(server: FileServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            server.asked.append((self.path, wanted))
            status, headers, body = server.answer(self.path, wanted)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if server.lengths:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if status in (200, 206) and server.cuts:
                body = body[: server.cuts.pop(0)]
            self._send(body)

        def _send(self, body: bytes) -> None:
            half = len(body) // 2
            if server.held:
                self.wfile.write(body[:half])
                self.wfile.flush()
                server.waiting.set()
                server.go.wait(30)
                body = body[half:]
            server.sent += len(body)  # before it is on its way: who has all of it may ask at once
            try:
                self.wfile.write(body)
            except OSError:
                server.sent -= len(body)
                self.close_connection = True  # the client is gone: it was killed

        def log_message(self, *_: object) -> None:
            """Quiet."""

    return Handler


@contextmanager
def running() -> Iterator[FileServer]:
    """A server that listens on a port of this machine."""
    files = FileServer()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(files))
    server.daemon_threads = True
    files.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield files
    finally:
        files.go.set()
        server.shutdown()
        server.server_close()
