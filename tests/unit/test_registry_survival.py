"""What a registry outlives: kills, a full disk, locks, several writers at once. On SQLite, and on PostgreSQL where

``POLYVOX_TEST_DATABASE`` names an empty database (``postgresql+psycopg://user@host/name``).
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from registry_files import corpus, imported, opened, settings
from sqlalchemy import create_engine, func, select, text

from training.base.errors import UserError
from training.cli import prepare_data
from training.registry import versions
from training.registry.prepare import prepare
from training.registry.schema import AudioFile, Base, Transcript
from training.registry.source import load_version
from training.registry.store import open_registry

SCRIPT = Path(prepare_data.__file__)
ROWS = 40

DRIVER = """
import os, resource, signal, sys
import training.registry.importing as importing
from training.scripts import prepare_data
importing.BATCH = 8
limit, kill_at = int(sys.argv[1]), int(sys.argv[2])
add, batches = importing.shelf.add_transcripts, []
def watched(connection, rows):
    result = add(connection, rows)
    batches.append(1)
    if len(batches) == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)   # inside the transaction, before it is committed
    return result
importing.shelf.add_transcripts = watched
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
from training.base.errors import exit_on_user_error
exit_on_user_error(lambda: prepare_data.main(sys.argv[3:]))
"""


def options(source: Path) -> list[str]:
    database = str(source.parent / "registry.db")
    return [
        "--csv_path",
        str(source),
        "--database",
        database,
        "--auto_split",
        "--split_strategy",
        "text",
        "--workers",
        "1",
    ]


def driven(source: Path, *, limit: int = 0, kill_at: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", DRIVER, str(limit), str(kill_at), *options(source)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def state(source: Path) -> tuple[str, int, int, list[str]]:
    """Integrity, recordings, transcripts, versions; by the sqlite3 module alone."""
    with sqlite3.connect(source.parent / "registry.db") as connection:
        whole = connection.execute("PRAGMA integrity_check").fetchone()[0]
        broken = connection.execute("PRAGMA foreign_key_check").fetchall()
        count = [
            connection.execute(f"SELECT count(*) FROM {t}").fetchone()[0]
            for t in ("audio_files", "transcripts")
        ]
        names = [row[0] for row in connection.execute("SELECT name FROM dataset_versions")]
    assert not broken
    return whole, count[0], count[1], names


def content(source: Path, name: str = "v1") -> str:
    with opened(source) as registry:
        return versions.content_hash(versions.items(registry, name))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The version that an import leaves which nothing disturbs."""
    source = corpus(tmp_path_factory.mktemp("whole"), ROWS)
    imported(source)
    return content(source)


def test_kill_in_the_middle_leaves_whole_batches_and_the_next_import_goes_on(
    tmp_path: Path, undisturbed: str
) -> None:
    source = corpus(tmp_path, ROWS)
    assert driven(source, kill_at=3).returncode == -signal.SIGKILL
    assert state(source) == (
        "ok",
        16,
        16,
        [],
    )  # two batches of eight; the third left no trace, and no version
    done = imported(source)
    assert done.imported.added_files == ROWS - 16
    assert state(source) == ("ok", ROWS, ROWS, ["v1"])
    assert content(source) == undisturbed


def test_full_disk_is_said_and_leaves_the_database_whole(tmp_path: Path, undisturbed: str) -> None:
    source = corpus(tmp_path, ROWS)
    done = driven(source, limit=150_000)
    assert done.returncode == 2, done.stderr
    assert "registry.db: the disk is full" in done.stderr and "Traceback" not in done.stderr
    whole, files, transcripts, names = state(source)
    assert (whole, names) == ("ok", []) and files == transcripts < ROWS and files % 8 == 0
    imported(source)
    assert content(source) == undisturbed


def test_locked_database_is_said_and_what_was_stored_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = corpus(tmp_path)
    imported(source)
    holder = sqlite3.connect(tmp_path / "registry.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        assert len(load_version(str(tmp_path / "registry.db"), "v1", "train"))  # readers do not wait
        started = time.monotonic()
        with (
            pytest.raises(UserError, match=r"registry.db: another process holds the write lock"),
            open_registry(tmp_path / "registry.db", busy_seconds=0.3) as registry,
            registry.write(),
        ):
            raise AssertionError("got the lock")
        assert 0.2 < time.monotonic() - started < 10
    finally:
        holder.execute("ROLLBACK")
        holder.close()
    assert state(source)[1:] == (12, 12, ["v1"])


def test_writer_waits_for_another_one(tmp_path: Path) -> None:
    source = corpus(tmp_path)
    imported(source)
    code = (
        "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1], isolation_level=None); "
        "c.execute('BEGIN IMMEDIATE'); print('held', flush=True); time.sleep(1); c.execute('ROLLBACK')"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "registry.db")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with opened(source) as registry, registry.write():
            assert holder.wait(30) == 0


def test_parallel_imports_lose_and_double_nothing(tmp_path: Path, undisturbed: str) -> None:
    source = corpus(tmp_path, ROWS)
    command = [sys.executable, "-c", DRIVER, "0", "0", *options(source)]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert state(source) == ("ok", ROWS, ROWS, ["v1"])
    assert content(source) == undisturbed
    assert sum("is frozen now" in text for text in said) == 1


def test_file_that_is_no_registry_is_left_alone(tmp_path: Path) -> None:
    source = corpus(tmp_path)
    database = tmp_path / "registry.db"
    database.write_bytes(b"these are my notes, not a database" * 100)
    with pytest.raises(UserError, match="is no SQLite database"):
        imported(source)
    database.unlink()
    with sqlite3.connect(database) as other:
        other.execute("CREATE TABLE runs (distance REAL)")
    with pytest.raises(UserError, match=r"tables of another program \(runs\)"):
        imported(source)
    with pytest.raises(UserError, match="holds no registry"):
        load_version(str(database), "v1", "train")
    with pytest.raises(UserError, match="no such registry"):
        load_version(str(tmp_path / "nowhere.db"), "v1", "train")


@pytest.fixture
def server() -> str:
    """The URL of an empty PostgreSQL database; it is emptied again."""
    url = os.environ.get("POLYVOX_TEST_DATABASE")
    if not url:
        pytest.skip("POLYVOX_TEST_DATABASE names no server's database")
    yield url
    engine = create_engine(url)
    with engine.begin() as connection:
        Base.metadata.drop_all(connection)
        connection.execute(text("DROP TABLE IF EXISTS polyvox_registry"))
    engine.dispose()


def test_server_takes_the_same_import_from_two_processes_at_once(
    tmp_path: Path, server: str, undisturbed: str
) -> None:
    source = corpus(tmp_path, ROWS)
    chosen = [server if value.endswith("registry.db") else value for value in options(source)]
    command = [sys.executable, "-c", DRIVER, "0", "0", *chosen]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    again = prepare(settings(source, database=server))
    assert again.imported.added_files == 0 and again.version == versions.Frozen("v1", False)
    with open_registry(server) as registry:
        assert versions.content_hash(versions.items(registry, "v1")) == undisturbed
        with registry.read() as connection:
            stored = [
                connection.execute(select(func.count()).select_from(t)).scalar_one()
                for t in (AudioFile, Transcript)
            ]
    assert stored == [ROWS, ROWS]
    assert len(load_version(server, "v1", "train").waveform(0, 16_000)) == 16_000


def test_kill_in_the_middle_leaves_whole_batches_on_a_server(
    tmp_path: Path, server: str, undisturbed: str
) -> None:
    source = corpus(tmp_path, ROWS)
    chosen = [server if value.endswith("registry.db") else value for value in options(source)]
    killed = subprocess.run(
        [sys.executable, "-c", DRIVER, "0", "3", *chosen], capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert prepare(settings(source, database=server)).imported.added_files == ROWS - 16
    with open_registry(server) as registry:
        assert versions.content_hash(versions.items(registry, "v1")) == undisturbed


def test_server_that_does_not_answer_is_said() -> None:
    pytest.importorskip("psycopg")
    url = "postgresql+psycopg://nobody:secret@127.0.0.1:9/none?connect_timeout=2"
    with pytest.raises(UserError, match="server cannot be reached") as caught:
        open_registry(url)
    assert "secret" not in str(caught.value)
