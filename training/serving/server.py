"""Runs the application under uvicorn until SIGTERM or Ctrl-C, and lets the requests inside come to their end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
import socket
from collections.abc import Iterator

import uvicorn

from training.base.errors import UserError
from training.serving.app import create_app
from training.serving.protocols import Protocol, Socket
from training.serving.settings import Settings, require_safe_address
from training.serving.state import State

BACKLOG = 1024

logger = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """Ends with status 0 after SIGTERM: it is how a server is told to end. (uvicorn would raise the signal again.)"""

    def __init__(self, config: uvicorn.Config, state: State) -> None:
        super().__init__(config)
        self.state = state

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def stop(self) -> None:
        """Take nothing new in; a second call does not wait for what is inside."""
        self.force_exit = self.should_exit
        self.should_exit = self.state.occupancy.stopping = True


def run(settings: Settings) -> int:
    """Serve until told to end; the exit status. Raises `UserError`."""
    require_safe_address(settings)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # writes addresses and queries of sockets
    _more_files()
    application = create_app(settings)
    state: State = application.state.server
    config = uvicorn.Config(
        application,
        host=settings.host,
        port=settings.port,
        http=Protocol,
        ws=Socket,
        ws_max_size=1 << 20,
        backlog=BACKLOG,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=round(settings.grace),
        lifespan="on",
    )
    server = Server(config, state)
    state.on_failure = server.stop
    with _bound(settings) as listener:
        host, port = listener.getsockname()[:2]
        logger.info(f"listening on http://{f'[{host}]' if ':' in host else host}:{port}")
        server.run(sockets=[listener])
    if state.failed is not None:
        raise UserError(state.failed)
    return 0


def _bound(settings: Settings) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[
            0
        ]
        # Named as TCP: asyncio sends answers at once (TCP_NODELAY) on such sockets alone, else each one waits for 40 ms.
        found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(BACKLOG)
        return found
    except (OSError, OverflowError, UnicodeError) as error:  # the last: no name of a host
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"--host {settings.host} --port {settings.port}: cannot listen there ({reason})"
        ) from error


def _more_files() -> None:
    """Each connection and each upload is an open file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
