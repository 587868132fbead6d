"""What the routes of one server share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from training.base.errors import UserError
from training.serving.admission import Occupancy
from training.serving.dispatcher import Dispatcher
from training.serving.keys import Keys
from training.serving.metrics import Metrics
from training.serving.settings import Settings
from training.serving.worker import Gone

logger = logging.getLogger(__name__)


@dataclass
class State:
    """settings, keys: as the server was started. occupancy: who is inside. failed: why the models could not be loaded.
    on_failure: called then."""

    settings: Settings
    keys: Keys
    occupancy: Occupancy
    metrics: Metrics
    dispatcher: Dispatcher
    failed: str | None = None
    on_failure: Callable[[], None] = field(default=lambda: None)

    @property
    def ready(self) -> bool:
        """Whether a request would be taken and computed now."""
        return self.dispatcher.ready and not self.occupancy.stopping

    async def load(self) -> None:
        """Start the processes; a model that cannot be loaded ends the server."""
        try:
            await self.dispatcher.start()
        except (UserError, Gone) as error:
            self.failed = str(error)
            logger.error(f"the models cannot be loaded: {error}")
            self.on_failure()
        except asyncio.CancelledError:
            raise
        else:
            logger.info(
                f"ready: {', '.join(self.dispatcher.abilities)} on {', '.join(self.settings.devices)}"
            )
