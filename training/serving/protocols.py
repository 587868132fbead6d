"""uvicorn's protocols, so that a client cannot hold a connection for nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

HEAD_SECONDS = 30.0
"""A connection on which no request has come for so long is closed; uvicorn itself would wait for the rest of one for ever."""
LINGER_SECONDS = 5.0
"""So long what comes of a body is thrown away after its request was answered, so that the client can read the answer (a
connection that is closed before all has been read is reset, and the answer may be lost); then the connection is closed."""

TURN_SECONDS, PART_BYTES = 0.002, 512
"""How long frames of one socket are taken apart before others have their turn, and how much is given to the parser until the
clock is looked at."""


class Protocol(H11Protocol):
    """HTTP/1.1."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect(None)
        super().connection_lost(exc)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._expect(None)
        super().handle_websocket_upgrade(event)

    def on_response_complete(self) -> None:
        answered = self.cycle
        super().on_response_complete()
        if self.cycle is answered and not self.transport.is_closing():
            self._expect(LINGER_SECONDS if self.conn.their_state is h11.SEND_BODY else HEAD_SECONDS)

    def _expect(self, seconds: float | None) -> None:
        """Close the connection where no request begins by then; None: nothing is expected."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if seconds is not None:
            self._deadline = self.loop.call_later(seconds, self._close_unless_begun, self.cycle)

    def _close_unless_begun(self, before: Any) -> None:
        if self.cycle is before and not self.transport.is_closing():
            self.transport.close()


class Socket(WebSocketsSansIOProtocol):
    """A WebSocket whose frames are read in turns with everything else, and no sooner than they are wanted.

    One read can bring thousands of frames; uvicorn would take them apart at once. And the answer to a ping can lie behind sound
    that has not been read yet: who sends is there.
    """

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._came = 0.0
        self._unread = bytearray()
        self._turn: asyncio.Handle | None = None

    def data_received(self, data: bytes) -> None:
        self._came = self.loop.time()
        self._unread += data
        if self._turn is None:
            self._read()

    async def receive(self) -> Any:
        message = await self.queue.get()
        if self.queue.empty() and self._turn is None:
            self._turn = self.loop.call_soon(self._read)
        return message

    def _read(self) -> None:
        """One turn: what was sent is taken apart, until there is a message for the application."""
        self._turn = None
        until = self.loop.time() + TURN_SECONDS
        while self._unread and self._is_wanted and self.loop.time() < until:
            part = bytes(self._unread[:PART_BYTES])
            del self._unread[:PART_BYTES]
            super().data_received(part)
            if self.disconnected or self.transport.is_closing() or self.conn.parser_exc is not None:
                self._unread.clear()
        if self._is_wanted and self._unread:
            self._turn = self.loop.call_soon(self._read)
        self._pause(bool(self._unread) or not self._is_wanted)

    @property
    def _is_wanted(self) -> bool:
        """Whether the application waits for a message, or the socket for the end of its client."""
        return self.queue.empty() or self.close_sent

    def _pause(self, on: bool) -> None:
        if on != self.read_paused:
            self.read_paused = on
            (self.transport.pause_reading if on else self.transport.resume_reading)()

    def keepalive_timeout(self) -> None:
        patience = self.ping_timeout or 0.0
        if self.read_paused or self._came > self.loop.time() - patience:
            self.pong_timer = self.loop.call_later(patience, self.keepalive_timeout)
        else:
            super().keepalive_timeout()
