"""What an operator sees: Prometheus' counters, without a text, a name or a key in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from training.serving.batches import QueuedWindow

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """One registry for each server: several in one program do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "polyvox_requests", "Answered requests", ["route", "status"], registry=self.registry
        )
        self.latency = Histogram(
            "polyvox_request_seconds",
            "From the headers to the end of the answer",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.audio = Counter("polyvox_audio_seconds", "Sound that was transcribed", registry=self.registry)
        self.gone = Counter(
            "polyvox_clients_gone", "Clients that left before their answer", registry=self.registry
        )
        self.refused = Counter(
            "polyvox_refused", "Requests refused on their headers", ["reason"], registry=self.registry
        )
        self.restarts = Counter(
            "polyvox_process_restarts",
            "Processes that ended and were started again",
            ["kind"],
            registry=self.registry,
        )
        self.batches = Counter("polyvox_batches", "Batches that models computed", registry=self.registry)
        self.windows = Counter("polyvox_windows", "Windows that models computed", registry=self.registry)
        self.model_seconds = Counter(
            "polyvox_model_seconds", "Time that models computed", registry=self.registry
        )
        self.batch_audio = Counter(
            "polyvox_batch_audio_seconds", "Sound of the windows that models computed", registry=self.registry
        )

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A gauge that asks ``value`` whenever it is read."""
        Gauge(name, text, registry=self.registry).set_function(value)

    def batch(self, pieces: Sequence[QueuedWindow], seconds: float) -> None:
        """A batch was computed."""
        self.batches.inc()
        self.windows.inc(len(pieces))
        self.model_seconds.inc(seconds)
        self.batch_audio.inc(sum(piece.seconds for piece in pieces))

    def text(self) -> bytes:
        """As Prometheus reads it."""
        return generate_latest(self.registry)
