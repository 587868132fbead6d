"""Keep the libraries' messages and bars out of the output."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


def quiet() -> None:
    """Errors only from transformers, and no bars for loading or writing weights. For commands."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


@contextmanager
def quietly() -> Iterator[None]:
    """`quiet` inside the ``with`` block; what was set before is set again after it. For functions."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    quiet()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
