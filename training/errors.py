"""The one exception that means "the user can mend this": shown without a traceback, exit status 2."""

from __future__ import annotations

import sys
from collections.abc import Callable

USER_ERROR = 2


class UserError(ValueError):
    """What is wrong, where (``file:line``), why, and what to do about it.

    Raise it for anything that a person using the commands can mend. Everything else is a defect of the
    library and keeps its traceback.
    """


def exit_on_user_error(main: Callable[[], int | None]) -> None:
    """Run a command's ``main``; print a `UserError` as one message and leave with status 2."""
    try:
        status = main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(USER_ERROR)
    sys.exit(status or 0)
