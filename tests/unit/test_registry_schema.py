"""The schema and its migrations say the same; older, newer and foreign databases are told apart."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from training.base.errors import UserError
from training.cli.data import main
from training.registry import migrate
from training.registry.schema import Base
from training.registry.store import open_registry


def test_migrations_make_what_the_models_say(tmp_path: Path) -> None:
    with open_registry(tmp_path / "r.db", create=True) as registry, registry.read() as connection:
        options = {"target_metadata": Base.metadata, "version_table": migrate.VERSION_TABLE}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata) == []


def test_head_is_the_newest_step() -> None:
    assert migrate.known_revisions()[-1] == migrate.HEAD


def test_registry_of_a_newer_library_is_refused(tmp_path: Path) -> None:
    open_registry(tmp_path / "r.db", create=True).close()
    with sqlite3.connect(tmp_path / "r.db") as connection:
        connection.execute(f"UPDATE {migrate.VERSION_TABLE} SET version_num = '9999'")
    for create in (False, True):
        with pytest.raises(UserError, match="written by a newer polyvox"):
            open_registry(tmp_path / "r.db", create=create)


def test_registry_of_an_older_library_asks_for_the_upgrade(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_registry(tmp_path / "r.db", create=True).close()
    monkeypatch.setattr(migrate, "HEAD", "0002")
    with pytest.raises(UserError, match="polyvox data upgrade"):
        open_registry(tmp_path / "r.db")


def test_a_step_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upgrade = migrate.upgrade

    def half(connection: object) -> None:
        upgrade(connection)  # type: ignore[arg-type]
        raise RuntimeError("pulled the plug")

    monkeypatch.setattr(migrate, "upgrade", half)
    with pytest.raises(RuntimeError):
        open_registry(tmp_path / "r.db", create=True)
    with sqlite3.connect(tmp_path / "r.db") as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


def test_upgrade_makes_no_registry_of_a_mistyped_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such registry"):
        main(["upgrade", "--registry", str(tmp_path / "r.db")])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("oracle9://x/y", "driver is not installed"),
        ("sqlite://", "name a file"),
        ("://", "not a database URL"),
    ],
)
def test_urls_that_lead_nowhere(where: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        open_registry(where, create=True)
