"""A stand-in for the Hugging Face Hub on this machine: the few routes that making a repository and a commit use."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_" + "fakeToken" * 4


@dataclass
class Repository:
    """What the fake holds of one: sizes do not matter here."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[list[str]] = field(default_factory=list)

    @property
    def sha(self) -> str:
        return f"{len(self.commits):040x}"


@dataclass
class Request:
    """What was asked, and with which headers."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class FakeHub:
    """``answers``: path pattern → (status, body) instead of the usual; ``held``: uploads of more than so many large
    files wait until ``go``."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self.answers: dict[str, tuple[int, dict[str, Any]]] = {}
        self.held: int | None = None
        self.go, self.waiting = threading.Event(), threading.Event()
        self.lock = threading.Lock()
        self.url = ""

    def asked(self, pattern: str) -> list[Request]:
        """Requests whose path holds the pattern."""
        return [one for one in self.requests if re.search(pattern, one.path)]

    def answer(self, request: Request) -> tuple[int, dict[str, Any]]:
        """Status and body."""
        for pattern, answer in self.answers.items():
            if re.search(pattern, request.path):
                return answer
        path = request.path.partition("?")[0]
        if path.startswith("/large/"):
            return self._store(path.removeprefix("/large/"), request.body)
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return 401, {"error": "Invalid username or password."}
        if path == "/api/whoami-v2":
            return 200, {"type": "user", "name": "clinic"}
        if path == "/api/repos/create":
            return self._create(json.loads(request.body))
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if found := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            return self._batch(json.loads(request.body))
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(preupload|commit|revision)/main)?", path)
        if not found or found[1] not in self.repositories:
            return 404, {"error": "Repository not found"}
        repository = self.repositories[found[1]]
        if found[2] == "preupload":
            return self._modes(repository, json.loads(request.body))
        if found[2] == "commit":
            return self._commit(found[1], repository, request.body)
        return 200, {"id": found[1], "private": repository.private, "sha": repository.sha}

    def _create(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        name = f"{asked['organization']}/{asked['name']}"
        answer = {"url": f"{self.url}/{name}", "name": name}
        if name in self.repositories:
            return 409, {**answer, "error": "You already created this model repo"}
        self.repositories[name] = Repository(asked.get("visibility") == "private")
        return 200, answer

    def _modes(self, repository: Repository, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        answers = []
        for file in asked["files"]:
            large = file["path"].endswith(".safetensors")
            there = repository.files.get(file["path"])
            oid = None if there is None else (sha256 if large else git_hash)(there)
            mode = "lfs" if large else "regular"
            answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return 200, {"files": answers}

    def _batch(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        objects = []
        for one in asked["objects"]:
            action = {"upload": {"href": f"{self.url}/large/{one['oid']}"}}
            objects.append(one if one["oid"] in self.large else {**one, "actions": action})
        return 200, {"transfer": "basic", "objects": objects}

    def _store(self, oid: str, body: bytes) -> tuple[int, dict[str, Any]]:
        with self.lock:
            held = self.held is not None and len(self.large) >= self.held
            if not held:
                assert sha256(body) == oid
                self.large[oid] = body
        if held:
            self.waiting.set()
            self.go.wait(60)
        return (503, {}) if held else (200, {})

    def _commit(self, name: str, repository: Repository, body: bytes) -> tuple[int, dict[str, Any]]:
        lines = [json.loads(line) for line in body.splitlines()]
        sent = {}
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                sent[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                sent[value["path"]] = self.large[value["oid"]]
        repository.files |= sent
        repository.commits.append(sorted(sent))
        url = f"{self.url}/{name}/commit/{repository.sha}"
        return 200, {"success": True, "commitOid": repository.sha, "commitUrl": url, "hookOutput": ""}


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.command, self.path, headers, self._body())
            with hub.lock:
                hub.requests.append(request)
            status, answer = hub.answer(request)
            body = json.dumps(answer).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                self.close_connection = True  # the client is gone: it was killed

        do_GET = do_POST = do_PUT = do_HEAD = _any

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def log_message(self, *_: object) -> None:
            """Quiet."""

    return Handler


@contextmanager
def running() -> Iterator[FakeHub]:
    """The fake, listening on a port of this machine."""
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.go.set()
        server.shutdown()
        server.server_close()
