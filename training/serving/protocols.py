"""uvicorn's protocols, so that a client cannot hold a connection for nothing."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

HEAD_SECONDS = 30.0
"""A connection on which no request has come for so long is closed; uvicorn itself would wait for the rest of one for ever."""
LINGER_SECONDS = 5.0
"""So long what comes of a body is thrown away after its request was answered, so that the client can read the answer (a
connection that is closed before all has been read is reset, and the answer may be lost); then the connection is closed."""
WRITE_SECONDS = 60.0
"""A connection whose client does not read the answer for so long is given up, and its request with it."""
TURN_SECONDS = 0.002
"""How long what one connection sent is taken apart before others have their turn."""
PART_BYTES, MOST_PART_BYTES = 512, 8_192
"""How much is given to the parser until the clock is looked at: little at first, more where that took hardly any time."""


class Turns:
    """Connections that have more to read: one of them in each turn of the event loop, however many there are."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()

    def wait(self, turn: Callable[[], None]) -> None:
        """``turn`` is called when all that wait already had theirs."""
        self._waiting.append(turn)
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._one)

    def _one(self) -> None:
        turn = self._waiting.popleft()
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._one)
        turn()


_TURNS: WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = WeakKeyDictionary()


def turns_of(loop: asyncio.AbstractEventLoop) -> Turns:
    """Of the connections of an event loop."""
    return _TURNS.setdefault(loop, Turns())


def _larger(size: int, seconds: float) -> int:
    """Bytes of the next part of a turn that has taken so long."""
    return min(2 * size, MOST_PART_BYTES) if seconds < TURN_SECONDS / 4 else size


class Protocol(H11Protocol):
    """HTTP/1.1 whose heads and chunks are read in turns with everything else: one read can bring thousands of chunks."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._deadline: asyncio.TimerHandle | None = None
        self._write_deadline: asyncio.TimerHandle | None = None
        self._unread = bytearray()
        self._waits = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect(None)
        self._stop_write_deadline()
        self._forget()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_deadline = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_write_deadline()

    def _stop_write_deadline(self) -> None:
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._expect(None)
        self._stop_write_deadline()
        self._forget()
        super().handle_websocket_upgrade(event)

    def data_received(self, data: bytes) -> None:
        if not self._unread and not self._is_in_pieces:
            super().data_received(data)
            return
        self._unread += data
        if not self._waits:
            self._read()

    def _next(self) -> None:
        if self._waits:  # else the connection has ended, or is a socket's by now
            self._read()

    def _read(self) -> None:
        """One turn."""
        waited, self._waits = self._waits, False
        began, size = self.loop.time(), PART_BYTES
        while self._unread and self.loop.time() < began + TURN_SECONDS:
            size = _larger(size, self.loop.time() - began) if self._is_in_pieces else len(self._unread)
            part = bytes(self._unread[:size])
            del self._unread[:size]
            super().data_received(part)
            if self.transport.is_closing():
                self._unread.clear()
        if self._unread:
            self._waits = True
            self.transport.pause_reading()
            turns_of(self.loop).wait(self._next)
        elif waited and not self.flow.read_paused:
            self.transport.resume_reading()

    def _forget(self) -> None:
        """What was sent and not read."""
        self._unread.clear()
        if self._waits:
            self._waits = False
            self.transport.resume_reading()

    @property
    def _is_in_pieces(self) -> bool:
        """Whether a head is expected, or chunks; of another body all is taken at once."""
        between = self.cycle is None or self.cycle.response_complete
        return between or any(name == b"transfer-encoding" for name, _ in self.headers)

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
        self._waits = False

    def data_received(self, data: bytes) -> None:
        self._came = self.loop.time()
        self._unread += data
        if not self._waits:
            self._read()

    async def receive(self) -> Any:
        message = await self.queue.get()
        if self.queue.empty() and not self._waits:
            self._go_on()
        return message

    def _go_on(self) -> None:
        """Wait for a turn where there is something to read, else for more."""
        self._waits = bool(self._unread) and self._is_wanted
        if self._waits:
            turns_of(self.loop).wait(self._read)
        self._pause(bool(self._unread) or not self._is_wanted)

    def _read(self) -> None:
        """One turn: what was sent is taken apart, until there is a message for the application."""
        began, size = self.loop.time(), PART_BYTES
        while self._unread and self._is_wanted and self.loop.time() < began + TURN_SECONDS:
            if self.disconnected or self.transport.is_closing() or self.conn.parser_exc is not None:
                self._unread.clear()
                break
            size = _larger(size, self.loop.time() - began)
            part = bytes(self._unread[:size])
            del self._unread[:size]
            super().data_received(part)
        self._go_on()

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
