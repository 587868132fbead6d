"""From an empty or older database to this library's schema, by Alembic, in one transaction."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sqlalchemy import Connection, inspect, text

from training.base.errors import UserError

if TYPE_CHECKING:
    from alembic.config import Config


HEAD = "0001"
"""The schema that this library reads and writes; the newest file in ``migrations/versions``."""
VERSION_TABLE = "polyvox_registry"
_LOCK = 0x706F6C79
"""Key of the PostgreSQL lock that keeps two processes from migrating at once (any number would do)."""


class Database(Protocol):
    """What `ensure` needs of a registry."""

    name: str

    def read(self) -> AbstractContextManager[Connection]: ...
    def write(self) -> AbstractContextManager[Connection]: ...


def ensure(registry: Database, *, create: bool) -> None:
    """Make the tables where ``create`` allows it; `UserError` where the schema is not the one that is needed."""
    with registry.read() as connection:
        found = revision(connection)
    if found == HEAD:
        return
    if not create:
        _refuse(registry.name, found)
    with registry.write() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        if (found := revision(connection)) == HEAD:
            return
        _check(connection, registry.name, found)
        upgrade(connection)


def revision(connection: Connection) -> str | None:
    """The schema's revision; None where there is none."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()


def upgrade(connection: Connection, target: str = "head") -> None:
    """Apply the steps that are missing, inside the caller's transaction."""
    from alembic import command

    made = configuration()
    made.attributes["connection"] = connection
    command.upgrade(made, target)


def configuration() -> Config:
    """Alembic's configuration without an ini file: the steps are packaged with the library."""
    from alembic.config import Config

    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return made


def known_revisions() -> list[str]:
    """All revisions, oldest first."""
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(configuration())
    return [script.revision for script in scripts.walk_revisions()][::-1]


def _check(connection: Connection, name: str, found: str | None) -> None:
    from training.registry.schema import Base

    if found is None:
        there = set(inspect(connection).get_table_names()) & set(Base.metadata.tables)
        if there:
            raise UserError(
                f"{name}: holds tables of another program ({', '.join(sorted(there))}); name another database"
            )
    elif found not in known_revisions():
        _refuse(name, found)


def _refuse(name: str, found: str | None) -> None:
    if found is None:
        raise UserError(f"{name}: holds no registry; make one with polyvox data prepare")
    if found in known_revisions():
        raise UserError(
            f"{name}: its schema is {found}, this library's is {HEAD}; make a copy of it, then polyvox data upgrade"
        )
    raise UserError(
        f"{name}: was written by a newer polyvox (schema {found}, this one knows {HEAD}); update polyvox"
    )
