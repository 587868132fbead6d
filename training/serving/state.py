"""What the routes of one server share."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field

from training.base.errors import UserError
from training.serving.admission import Occupancy
from training.serving.dispatcher import Dispatcher
from training.serving.errors import traced
from training.serving.keys import Keys
from training.serving.metrics import Metrics
from training.serving.settings import Settings
from training.serving.worker import ProcessEnded

logger = logging.getLogger(__name__)


@dataclass
class State:
    """settings, keys: as the server was started. occupancy: who is inside. failed: why the models could not be loaded.
    on_failure: called then. segmenting: the thread that cuts live speech into windows."""

    settings: Settings
    keys: Keys
    occupancy: Occupancy
    metrics: Metrics
    dispatcher: Dispatcher
    failed: str | None = None
    on_failure: Callable[[], None] = field(default=lambda: None)
    segmenting: Executor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="segmenting")
    )

    @property
    def ready(self) -> bool:
        """Whether a request would be taken and computed now."""
        return self.dispatcher.ready and not self.occupancy.stopping

    async def load(self) -> None:
        """Start the processes; a model that cannot be loaded ends the server."""
        models, devices = ", ".join(self.settings.models), ", ".join(self.settings.devices)
        logger.info(f"loading {models} on {devices}")
        try:
            await self.dispatcher.start()
        except (UserError, ProcessEnded) as error:
            self.failed = str(error)
            logger.error(f"the models cannot be loaded: {error}")
            self.on_failure()
        except Exception as error:
            self.failed = f"the models cannot be loaded ({type(error).__name__}); the log says where"
            logger.error(f"the models cannot be loaded: {traced(error)}")
            self.on_failure()
        else:
            logger.info(f"ready: {models} on {devices}")
