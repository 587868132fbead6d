"""A process that works for the server: started, asked, ended, started again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from training.serving import messages
from training.serving.messages import Message

STOP_SECONDS = 5.0


class ProcessEnded(Exception):
    """The process ended, or was ended because it gave no answer in time, before it answered."""


class ProcessTimeout(ProcessEnded):
    """It gave no answer in time, and was ended."""


class ProcessNotRunning(ProcessEnded):
    """The process had ended before it was asked."""


class Worker:
    """One process, which answers one message after another. A thread of its own waits for the answers.

    Args:
        module: its program, as ``python -m`` takes it; it gets the descriptor of its socket as argument.
        environment: variables that it gets beside the server's.
    """

    def __init__(self, module: str, environment: Mapping[str, str] | None = None) -> None:
        self.module, self.environment = module, dict(environment or {})
        self.starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._end: socket.socket | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=module.rpartition(".")[2])

    @property
    def pid(self) -> int | None:
        """Of the running process."""
        return self._process.pid if self.running and self._process is not None else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process, a fresh one where there is one already."""
        self.kill()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self.module, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is the server's alone, which lets the requests end
            )
        self._end = ours
        self.starts += 1

    async def call(
        self,
        head: Mapping[str, Any],
        payload: Sequence[Any] = (),
        files: Sequence[int] = (),
        *,
        timeout: float | None = None,
        longest: int = 0,
    ) -> Message:
        """Its answer to a message. Calls are answered in their order.

        Args:
            head, payload, files: of the message, see `training.serving.messages.send`.
            timeout: seconds until it is taken for one that hangs; None: never.
            longest: bytes of payload that its answer may have.

        Raises:
            ProcessEnded: it ended, or was ended.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._call, head, payload, files, timeout, longest)

    def _call(
        self,
        head: Mapping[str, Any],
        payload: Sequence[Any],
        files: Sequence[int],
        timeout: float | None,
        longest: int,
    ) -> Message:
        end = self._end
        if end is None:
            raise ProcessNotRunning(f"{self.module} does not run")
        try:
            end.settimeout(timeout)
            messages.send(end, head, payload, files)
            return messages.receive(end, longest)
        except (
            Exception
        ) as error:  # whatever it is, what comes next on this socket is no answer to the next message
            if self._end is end:  # else another has been started meanwhile
                self.kill()
            kind = ProcessTimeout if isinstance(error, TimeoutError) else ProcessEnded
            raise kind(f"{self.module}: {type(error).__name__}") from error

    def kill(self) -> None:
        """End the process at once."""
        process, end = self._process, self._end
        self._process = self._end = None
        if process is not None:
            process.kill()
            process.wait()
        if end is not None:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        """End the process and its thread for good."""
        self.kill()
        self._thread.shutdown(wait=False, cancel_futures=True)
