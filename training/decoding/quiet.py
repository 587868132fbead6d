"""Keep the libraries' chatter out of the commands' output."""

from __future__ import annotations


def quiet() -> None:
    """Errors only from transformers, and no bars for loading or writing weights."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
