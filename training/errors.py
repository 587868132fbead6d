"""What a command shows when it fails: a message where the user can mend it, with exit status 2."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable

USER_ERROR = 2
INTERRUPTED = 130
BROKEN_PIPE = 141

MENDABLE = frozenset(
    getattr(errno, name)
    for name in (
        *("EACCES", "EPERM", "EROFS", "ENOSPC", "EDQUOT", "EFBIG"),
        *("ENOTDIR", "EISDIR", "EEXIST", "ENAMETOOLONG", "EMFILE"),
    )
    if hasattr(errno, name)
)
"""What the system refuses because of rights, space or what lies there. ENOENT is not among them: a path that the
user gave is looked for before it is opened, so one that is missing later is a defect."""

_WORKER = re.compile(r"Caught (\w+) in DataLoader worker process \d+\.\nOriginal Traceback")


class UserError(ValueError):
    """What is wrong, where (``file:line``), why, and what to do about it.

    Raise it for anything that a person using the commands can mend. Everything else is a defect of the
    library and keeps its traceback.
    """


class NotInReach(UserError):
    """Weights or a tokenizer that this machine cannot get at now: another machine, or this one later, may."""


def status_of(main: Callable[[], int | None], *, stopped: str = "stopped") -> int:
    """Run a command's ``main`` and hand back its exit status.

    A `UserError`, and what the system refuses (`MENDABLE`), become one message and status 2; Ctrl-C becomes
    ``stopped`` and status 130; a reader that closed the pipe is status 141, as in a shell. Any other exception passes.
    """
    try:
        status = main() or 0
        sys.stdout.flush()
        return status
    except UserError as error:
        text = _message(error)
    except BrokenPipeError:
        # Whoever read our output (head, say) has had enough. What is still held back must not be tried again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:
        if error.errno not in MENDABLE:
            raise
        text = _refusal(error)
    except KeyboardInterrupt:
        print(stopped, file=sys.stderr)
        return INTERRUPTED
    print(f"error: {text}", file=sys.stderr)
    return USER_ERROR


def exit_on_user_error(main: Callable[[], int | None], *, stopped: str = "stopped") -> None:
    """Run a command's ``main`` and leave with its `status_of`."""
    sys.exit(status_of(main, stopped=stopped))


def _message(error: UserError) -> str:
    """The message alone, also where a worker raised it: torch wraps the worker's traceback around it."""
    text = str(error)
    wrapped = _WORKER.match(text)
    if wrapped is None:
        return text
    # The traceback's lines are indented; those of exceptions are not, and name the class with its module. The
    # last one is the error itself, those before it are its causes.
    said = re.split(rf"^(?:[\w.]+\.)?{wrapped[1]}: ", text, flags=re.MULTILINE)
    return said[-1].rstrip("\n") if len(said) > 1 else text


def _refusal(error: OSError) -> str:
    place = " → ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    hint = "check the path, the rights and the space there"
    return f"{place or 'a file'}: {error.strerror}; {hint}, and call again"
