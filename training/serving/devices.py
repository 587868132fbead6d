"""The model processes: each device's takes a batch of what waits, whenever it is free."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from pathlib import Path

from training.base.errors import UserError
from training.serving.batches import QueuedWindow, WindowQueue
from training.serving.errors import ApiError, failed, too_long_a_batch, traced
from training.serving.metrics import Metrics
from training.serving.options import Abilities
from training.serving.worker import ProcessEnded, ProcessTimeout, Worker

MODULE = "training.serving.model_process"
LOADING_SECONDS = 900.0
BACKOFF_SECONDS = 2.0
"""Between two starts of a process that dies while it loads."""
FLAT_MEMORY = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "16", "MALLOC_ARENA_MAX": "2"}
"""oneDNN keeps compiled code for the last 1,024 shapes of its inputs, and each batch may have a shape of its own: without this
the demo's CTC model grows by 8 % in 1,200 requests. Its speed is the same."""
ATTEMPTS = 2
"""How often a window is computed before its request fails: once more after its process died."""

logger = logging.getLogger(__name__)


class Fault(Exception):
    """The model failed with a batch. Its text is for the log, see `training.serving.errors.traced`."""


class Device:
    """One device and its process. name: ``cpu`` or ``cuda:N``. busy: it computes. batch_seconds: of sound that are computed
    at once. batch_timeout: seconds that a batch may be computed; a process that takes longer hangs, and is started again.
    (A request's own time is shorter, and ends no process.)
    """

    def __init__(
        self, name: str, models: Mapping[str, Path], batch_seconds: float, batch_timeout: float
    ) -> None:
        visible = name.partition(":")[2] if name.startswith("cuda") else ""
        self.worker = Worker(MODULE, {"CUDA_VISIBLE_DEVICES": visible, **FLAT_MEMORY})
        self.name, self.models = name, models
        self.batch_seconds, self.batch_timeout = batch_seconds, batch_timeout
        self.ready = asyncio.Event()
        self.busy = False

    async def load(self) -> dict[str, Abilities]:
        """Start the process and load the models; what each can do. Raises `UserError`, `ProcessEnded`."""
        self.ready.clear()
        self.worker.start()
        folders = {name: str(folder.absolute()) for name, folder in self.models.items()}
        asked = {"models": folders, "batch_seconds": self.batch_seconds}
        found = await self.worker.call(asked, timeout=LOADING_SECONDS)
        if "refused" in found.head:
            raise UserError(found.head["refused"])
        self.ready.set()
        return {name: Abilities.of(one) for name, one in found.head["models"].items()}

    async def reload(self) -> None:
        """Load again, however often it takes."""
        while True:
            try:
                await self.load()
                logger.info(f"{self.name}: the model process is ready again")
                return
            except Exception as error:
                why = str(error) if isinstance(error, ProcessEnded | UserError) else traced(error)
                logger.error(f"{self.name}: the model process does not start; again: {why}")
                await asyncio.sleep(BACKOFF_SECONDS)

    async def compute(self, batch: list[QueuedWindow]) -> None:
        """Give each window its row. Raises `ProcessEnded`, `Fault`; the windows have none then."""
        key = batch[0].key
        head = {
            "model": key.model,
            "options": key.options.as_dict(),
            "samples": [len(piece.samples) for piece in batch],
            "languages": [piece.language for piece in batch],
        }
        found = await self.worker.call(head, [piece.samples for piece in batch], timeout=self.batch_timeout)
        if "fault" in found.head:
            raise Fault(found.head["fault"])
        if "refused" in found.head:
            refused = ApiError(400, found.head["refused"], code="unsupported_option")
            for piece in batch:
                fail(piece, refused)
            return
        for piece, row in list(zip(batch, found.head["rows"], strict=True)):
            if "error" in row:
                fail(piece, ApiError(400, f"the sound cannot be used: {row['error']}", param="file"))
            elif not piece.result.done():
                piece.result.set_result(row)


def fail(piece: QueuedWindow, error: ApiError) -> None:
    """The window's request gets an error."""
    if not piece.result.done():
        piece.result.set_exception(error)


async def work(device: Device, waiting: WindowQueue, metrics: Metrics) -> None:
    """Compute what waits, for as long as the server runs.

    A process that dies is started again. Its windows are tried once more, each alone, before any other; so are those of a batch
    with which the model failed. Whatever else goes wrong costs the batch. All of it is logged.
    """
    while True:
        await device.ready.wait()
        batch = await waiting.batch(device.batch_seconds)
        began = time.monotonic()
        device.busy = True
        try:
            await device.compute(batch)
        except Exception as error:
            device.busy = False  # loading the models again is no computing
            if isinstance(error, ProcessEnded) or not device.worker.running:
                await _restart(device, batch, error, waiting, metrics)
            else:
                why = str(error) if isinstance(error, Fault) else traced(error)
                logger.error(f"{device.name}: a batch of {len(batch)} windows failed: {why}")
                again = isinstance(error, Fault) and len(batch) > 1
                _again(batch, waiting, failed(), ATTEMPTS if again else 0)
        else:
            metrics.batch(batch, time.monotonic() - began)
        finally:
            device.busy = False


async def _restart(
    device: Device, batch: list[QueuedWindow], error: Exception, waiting: WindowQueue, metrics: Metrics
) -> None:
    """Start the process again; its windows wait again, or have an error where they were the cause."""
    metrics.restarts.labels("model").inc()
    said = f"took longer than {device.batch_timeout:g} s" if isinstance(error, ProcessTimeout) else "ended"
    logger.error(
        f"{device.name}: the model process {said} with {len(batch)} windows; it is started again"
        + ("" if isinstance(error, ProcessEnded) else f": {traced(error)}")
    )
    if isinstance(error, ProcessTimeout) and len(batch) == 1:  # a second time it would take as long
        _again(batch, waiting, too_long_a_batch(device.batch_timeout), 0)
    else:
        twice = ApiError(500, "the model process ended twice with this request", code="model_ended")
        _again(batch, waiting, twice, ATTEMPTS)
    await device.reload()


def _again(batch: list[QueuedWindow], waiting: WindowQueue, error: ApiError, attempts: int) -> None:
    """The windows wait again, those apart that were tried ``attempts`` times: they get the error."""
    for piece in batch:
        piece.attempts += 1
        if piece.attempts >= attempts:
            fail(piece, error)
        elif not piece.result.done():  # else its request has ended meanwhile
            waiting.add(piece)
