"""What a person sees of the work: the message and exit status 2 of a mistake, and log lines.

The library logs through the standard ``logging``, each module in its own logger below ``training``. A program decides
what becomes of the lines; the commands print them as they are (`shown`). Imports nothing heavy.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from training.base.terminal import is_plain, marked

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

LOGGER = logging.getLogger("training")
"""Parent of the loggers of all modules."""

DRAWN = "drawn"
"""Attribute of a log record: its text with colours, for a terminal."""

_WORKER = re.compile(r"Caught (\w+) in DataLoader worker process \d+\.\nOriginal Traceback")


class UserError(ValueError):
    """What is wrong, where (``file:line``), why, and what to do about it.

    Raise it for anything that a user of the commands can correct. Everything else is a defect of the
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
    print(marked(f"error: {text}", sys.stderr), file=sys.stderr)
    return USER_ERROR


def exit_on_user_error(main: Callable[[], int | None], *, stopped: str = "stopped") -> None:
    """Run a command's ``main`` and leave with its `status_of`."""
    _forget_the_scripts_folder()
    sys.exit(status_of(main, stopped=stopped))


def _forget_the_scripts_folder() -> None:
    """Nothing is imported from the folder of a script of ours that was started by its path: its files are no libraries."""
    package = Path(__file__).resolve().parents[1]

    def inside(entry: str) -> bool:
        return Path(entry).is_absolute() and Path(entry).resolve().is_relative_to(package)

    sys.path[:] = [entry for entry in sys.path if not inside(entry)]


def _message(error: UserError) -> str:
    """The message alone, also where a worker raised it: torch wraps the worker's traceback around it."""
    text = str(error)
    wrapped = _WORKER.match(text)
    if wrapped is None:
        return text
    # The traceback's lines are indented; those of exceptions are not, and name the class with its module. The
    # last one is the error itself, those before it are its causes.
    parts = re.split(rf"^(?:[\w.]+\.)?{wrapped[1]}: ", text, flags=re.MULTILINE)
    return parts[-1].rstrip("\n") if len(parts) > 1 else text


def _refusal(error: OSError) -> str:
    place = " → ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    hint = "check the path, the rights and the space there"
    return f"{place or 'a file'}: {error.strerror}; {hint}, and call again"


def first_rank() -> bool:
    """Whether this process is the one that writes and prints (the launcher of several processes sets ``RANK``)."""
    return os.environ.get("RANK", "0") == "0"


class Lines(logging.Handler):
    """Hands each message, without level or time, to a function.

    Args:
        write: takes the record and its text. What it raises (a closed pipe, a full disk) ends the work.
    """

    def __init__(self, write: Callable[[logging.LogRecord, str], None]) -> None:
        super().__init__(logging.INFO)
        self.write = write

    def emit(self, record: logging.LogRecord) -> None:
        """Called by ``logging``."""
        self.write(record, self.format(record))


class LogFile(Lines):
    """Appends the lines to a file, whose folder it makes.

    Args:
        path: the file.
        held: keep the lines until `write_waiting`; for a file in a folder that does not exist yet.
    """

    def __init__(self, path: Path, *, held: bool = False) -> None:
        super().__init__(self._keep)
        self.path, self.held = path, held
        self.waiting: list[str] = []

    def _keep(self, record: logging.LogRecord, text: str) -> None:
        self.waiting.append(text)
        if not self.held:
            self.write_waiting()

    def write_waiting(self) -> None:
        """Write what was held, and every further line at once."""
        self.held = False
        lines, self.waiting = self.waiting, []
        if lines:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf8") as file:
                file.writelines(f"{line}\n" for line in lines)


@contextmanager
def handled(*handlers: logging.Handler, logger: logging.Logger = LOGGER) -> Iterator[None]:
    """The lines of the library, or of one ``logger``, go to these handlers inside the ``with`` block, from level INFO on."""
    level = logger.level
    logger.setLevel(logging.INFO)
    for handler in handlers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
        logger.setLevel(level)


@contextmanager
def shown(*, warnings_apart: bool = False) -> Iterator[None]:
    """The library's lines are printed at once inside the ``with`` block. Of several ranks the first prints.

    On a terminal a record's own text for terminals (``extra={DRAWN: …}``) takes the place of its message.

    Args:
        warnings_apart: warnings go to standard error instead of standard output.
    """

    def out(record: logging.LogRecord, text: str) -> None:
        if first_rank():
            apart = warnings_apart and record.levelno >= logging.WARNING
            stream = sys.stderr if apart else sys.stdout
            drawn = text if is_plain(stream) else getattr(record, DRAWN, text)
            print(marked(drawn, stream), file=stream, flush=True)

    with handled(Lines(out)):
        yield
