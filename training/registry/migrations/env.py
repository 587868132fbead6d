"""Run by Alembic: the steps on the connection that the caller holds.

Without one (``alembic revision`` of a developer) a fresh SQLite file takes its place.
"""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, create_engine

from training.registry.migrate import VERSION_TABLE
from training.registry.schema import Base


def run(connection: Connection) -> None:
    """In the caller's transaction, which also covers SQLite's changes of tables."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        version_table=VERSION_TABLE,
        render_as_batch=True,
    )
    context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    with create_engine("sqlite://").connect() as made:
        run(made)
