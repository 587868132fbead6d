"""The database behind the registry: where it is, transactions, and errors in words that help.

SQLite runs in WAL mode: readers and one writer at a time do not wait for each other, and a process that is killed
leaves the last whole transaction. Writers take the write lock when they begin: two of them queue up instead of
running into each other half-way.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, insert, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from training.base.errors import UserError
from training.base.files import rebase
from training.data.file_names import on_disk
from training.registry import migrate

BUSY_SECONDS = 30.0
"""How long a writer waits for another one."""
_WRITES = "polyvox_writes"


class Registry:
    """An open registry. ``root`` is the folder that stored paths start from (the database's; None: absolute)."""

    def __init__(self, engine: Engine, name: str, root: Path | None) -> None:
        self.engine, self.name, self.root = engine, name, root

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that sees one state of the database."""
        with self._explained(), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction: all of the block or none of it. Raises `UserError` for a lock, a full disk and the like."""
        with self._explained(), self.engine.connect() as connection:
            connection.execution_options(**{_WRITES: True})
            with connection.begin():
                yield connection

    def close(self) -> None:
        """Give the files back."""
        self.engine.dispose()

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def relative(self, path: Path) -> str:
        """``path`` as it is stored: a SQLite registry can be moved together with its recordings."""
        return rebase(str(path), self.root) if self.root is not None else path.absolute().as_posix()

    def resolve(self, stored: str) -> Path:
        """Where a stored path points."""
        path = self.root / stored if self.root is not None else Path(stored)
        return path if stored.isascii() else on_disk(path)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise UserError(f"{self.name}: {explain(error)}") from error


def open_registry(where: str | Path, *, create: bool = False, busy_seconds: float = BUSY_SECONDS) -> Registry:
    """The registry at a SQLite file or any SQLAlchemy URL; with ``create`` it is made, or brought up to date.

    Raises `UserError` where there is none, where it is of another version of the library, and where the database
    does not answer.
    """
    url = _url(where)
    name = url.database if _is_sqlite(url) and url.database else url.render_as_string(hide_password=True)
    file = Path(url.database) if _is_sqlite(url) and url.database else None
    if file is not None:
        if not create and not file.is_file():
            raise UserError(f"{file}: no such registry; make it with polyvox data prepare")
        file.parent.mkdir(parents=True, exist_ok=True)
    registry = Registry(_engine(url, busy_seconds), str(name), file.parent.absolute() if file else None)
    try:
        migrate.ensure(registry, create=create)
    except BaseException:
        registry.close()
        raise
    return registry


def _url(where: str | Path) -> URL:
    text = str(where)
    if "://" not in text:
        return URL.create("sqlite", database=text)
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise UserError(
            f"{text.split('://')[0]}://…: not a database URL: dialect://user:password@host/name"
        ) from error
    if _is_sqlite(url) and url.database in (None, "", ":memory:"):
        raise UserError(f"{text}: a registry outlives the process; name a file")
    return url


def _is_sqlite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def _engine(url: URL, busy_seconds: float) -> Engine:
    sqlite = _is_sqlite(url)
    try:
        engine = create_engine(url, connect_args={"timeout": busy_seconds} if sqlite else {})
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise UserError(
            f"{url.drivername}: its driver is not installed ({error}); for PostgreSQL: pip install 'polyvox[postgres]'"
        ) from error
    if sqlite:
        event.listen(engine, "connect", lambda connection, _: _set_up(connection, busy_seconds))
        event.listen(engine, "begin", _begin)
    return engine


def _set_up(connection: sqlite3.Connection, busy_seconds: float) -> None:
    """WAL, foreign keys, and transactions that begin where `_begin` says, not where the driver thinks."""
    connection.isolation_level = None
    _use_wal(connection, busy_seconds)
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA foreign_keys=ON")


def _use_wal(connection: sqlite3.Connection, busy_seconds: float) -> None:
    """The change of mode does not wait for its lock by itself."""
    end = time.monotonic() + busy_seconds
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "readonly" in str(error):
                return
            if "locked" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(0.05)


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def insert_new(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Insert the rows whose unique key is not there yet; what is there stays, whoever wrote it."""
    if not rows:
        return
    name = connection.dialect.name
    if name == "sqlite":
        from sqlalchemy.dialects import sqlite

        connection.execute(sqlite.insert(table).on_conflict_do_nothing(), rows)
    elif name == "postgresql":
        from sqlalchemy.dialects import postgresql

        connection.execute(postgresql.insert(table).on_conflict_do_nothing(), rows)
    elif name in ("mysql", "mariadb"):
        connection.execute(insert(table).prefix_with("IGNORE"), rows)
    else:
        raise UserError(f"{name}: registries are kept in SQLite, PostgreSQL, MySQL or MariaDB")


_REASONS = (
    (
        ("database is locked", "database table is locked"),
        "another process holds the write lock for too long; wait for it, or end it, and run the command again: what "
        "was stored until now stays",
    ),
    (
        ("disk is full", "disk i/o error", "no space left", "file too large", "could not extend file"),
        "the disk is full, or the file may not grow; make room and run the command again: what was stored until now "
        "stays, and the database is whole",
    ),
    (("readonly database", "read-only"), "it may not be written; mend its rights or name another file"),
    (("unable to open database",), "cannot be opened; is it a folder, or may it not be read?"),
    (("not a database",), "is no SQLite database; name another file"),
    (("malformed",), "is damaged; restore it from a copy, or import the data into a new one"),
    (
        ("connection", "could not translate host"),
        "the server cannot be reached, or refuses; look at host, port, user and password",
    ),
)


def explain(error: DBAPIError) -> str:
    """What a driver's error means, what to do, and the driver's own words."""
    message = " ".join(str(error.orig).split())
    for marks, meaning in _REASONS:
        if any(mark in message.lower() for mark in marks):
            return f"{meaning} ({message})"
    return f"the database refuses: {message}"
