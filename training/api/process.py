"""Settings of a process that are made before torch is imported."""

from __future__ import annotations

import os


def share_the_cores() -> None:
    """Between the threads of the libraries and the data workers.

    Has its full effect before torch is imported, which reading a configuration does. What the environment says already
    stays.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Threads that spin while they wait take the cores from the workers that they wait for.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
