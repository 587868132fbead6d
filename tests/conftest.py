"""What holds for every test: no network, no hub, one thread."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest
from hypothesis import settings

# A machine that does other things as well is no reason to fail.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0")


def _refuse_outside(address: Any) -> None:
    """Unix sockets and loopback are this machine; everything else is the network."""
    host = address[0] if isinstance(address, tuple) else None
    if isinstance(host, str) and host and not host.startswith(LOOPBACK) and host != socket.gethostname():
        raise AssertionError(f"a test tried to reach {host}: tests do not use the network")


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Any:
    """Connections and look-ups that leave this machine fail the test that tries them."""
    connect, connect_ex, look_up = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def guarded_connect(self: socket.socket, address: Any) -> None:
        _refuse_outside(address)
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        _refuse_outside(address)
        return connect_ex(self, address)

    def guarded_look_up(host: Any, *args: Any, **kwargs: Any) -> Any:
        _refuse_outside((host,))
        return look_up(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded_connect)
        patch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
        patch.setattr(socket, "getaddrinfo", guarded_look_up)
        yield
