"""One file from a server: whole, cut, gone on with, refused."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import file_server
import pytest
from file_server import FileServer
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.download.transfer import ATTEMPTS, Unavailable, transfer

CONTENT = bytes(range(256)) * 40
NAME = "dev-clean.tar.gz"


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server.running() as found:
        found.files[NAME] = CONTENT
        yield found


def load(server: FileServer, part: Path) -> list[tuple[int, int | None]]:
    """What `begin` was told; the blocks add up to what came after it."""
    begun: list[tuple[int, int | None]] = []
    transfer(
        f"{server.url}/{NAME}",
        part,
        begin=lambda have, total: begun.append((have, total)),
        advance=lambda count: None,
        pause=0,
    )
    return begun


def test_a_whole_file(server: FileServer, tmp_path: Path) -> None:
    counts: list[int] = []
    part = tmp_path / "x.part"
    transfer(f"{server.url}/{NAME}", part, begin=lambda have, total: None, advance=counts.append, pause=0)
    assert part.read_bytes() == CONTENT
    assert sum(counts) == len(CONTENT)
    assert server.asked == [(f"/{NAME}", None)]


def test_what_is_here_is_not_asked_for_again(server: FileServer, tmp_path: Path) -> None:
    part = tmp_path / "x.part"
    part.write_bytes(CONTENT[:1000])
    assert load(server, part) == [(1000, len(CONTENT))]
    assert part.read_bytes() == CONTENT
    assert server.asked == [(f"/{NAME}", "bytes=1000-")]
    assert server.sent == len(CONTENT) - 1000


def test_a_cut_connection_is_gone_on_with(server: FileServer, tmp_path: Path) -> None:
    server.cuts = [3000, 1, 4000]
    part = tmp_path / "x.part"
    assert [have for have, _ in load(server, part)] == [0, 3000, 3001, 7001]
    assert part.read_bytes() == CONTENT
    assert server.sent == len(CONTENT)


def test_a_server_without_ranges_adds_only_what_is_missing(server: FileServer, tmp_path: Path) -> None:
    server.ranges, server.cuts = False, [3000, 5000]
    part = tmp_path / "x.part"
    assert load(server, part) == [(have, len(CONTENT)) for have in (0, 3000, 5000)]
    assert part.read_bytes() == CONTENT


def test_a_server_that_states_no_length(server: FileServer, tmp_path: Path) -> None:
    server.lengths, server.ranges = False, False
    part = tmp_path / "x.part"
    assert load(server, part) == [(0, None)]
    assert part.read_bytes() == CONTENT


@pytest.mark.parametrize("extra", [b"", b"more"])
def test_a_part_that_is_no_shorter_is_left_to_the_checksum(
    server: FileServer, tmp_path: Path, extra: bytes
) -> None:
    part = tmp_path / "x.part"
    part.write_bytes(CONTENT + extra)
    load(server, part)
    assert part.read_bytes() == CONTENT + extra
    assert server.sent == 0


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_refusal_is_final(server: FileServer, tmp_path: Path, status: int) -> None:
    server.statuses = [status]
    with pytest.raises(Unavailable, match=f"status {status}"):
        load(server, tmp_path / "x.part")
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_server_that_is_not_well_is_asked_again(server: FileServer, tmp_path: Path, status: int) -> None:
    server.statuses = [status, status]
    load(server, tmp_path / "x.part")
    assert (tmp_path / "x.part").read_bytes() == CONTENT
    server.statuses = [status] * ATTEMPTS
    with pytest.raises(Unavailable, match=f"status {status}"):
        load(server, tmp_path / "y.part")


def test_a_server_that_always_cuts_at_one_place_is_given_up(server: FileServer, tmp_path: Path) -> None:
    server.ranges, server.cuts = False, [3000] * 20
    with pytest.raises(Unavailable, match="ended after 3,000 of 10,240 bytes"):
        load(server, tmp_path / "x.part")
    assert len(server.asked) == 1 + ATTEMPTS
    assert (tmp_path / "x.part").read_bytes() == CONTENT[:3000]


def test_other_bytes_than_asked_for_are_not_added(server: FileServer, tmp_path: Path) -> None:
    server.lies = True
    part = tmp_path / "x.part"
    part.write_bytes(CONTENT[:1000])
    with pytest.raises(Unavailable, match="asked for what follows byte 1,000"):
        load(server, part)
    assert part.read_bytes() == CONTENT[:1000]


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="refused"):
        load(FileServer(url="http://127.0.0.1:9"), tmp_path / "x.part")
    assert not (tmp_path / "x.part").exists()


def test_a_full_disk_is_no_fault_of_the_server(server: FileServer, tmp_path: Path) -> None:
    def full(have: int, total: int | None) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "x.part")

    with pytest.raises(OSError, match="No space left"):
        transfer(f"{server.url}/{NAME}", tmp_path / "x.part", begin=full, advance=lambda n: None, pause=0)
    assert len(server.asked) == 1


def test_an_error_of_tls_is_not_one_of_the_disk() -> None:
    from ssl import SSLError

    from training.data.download.transfer import _is_of_the_disk

    assert errno.EPERM == 1 and not _is_of_the_disk(SSLError(1, "wrong version number"))
    assert _is_of_the_disk(OSError(errno.ENOSPC, "No space left on device"))
    assert not _is_of_the_disk(ConnectionResetError(errno.ECONNRESET, "reset"))


@settings(max_examples=40, deadline=None)
@given(
    have=st.integers(0, 3000),
    cuts=st.lists(st.integers(1, 2000), max_size=6),
    ranges=st.booleans(),
)
def test_any_cuts_give_the_same_file(
    tmp_path_factory: pytest.TempPathFactory, have: int, cuts: list[int], ranges: bool
) -> None:
    content = CONTENT[:4000]
    part = tmp_path_factory.mktemp("cuts") / "x.part"
    part.write_bytes(content[:have])
    with file_server.running() as server:
        # Without ranges an answer that is cut before what is here brings nothing: three such are borne.
        server.files[NAME], server.ranges, server.cuts = content, ranges, cuts[: 6 if ranges else 3]
        load(server, part)
    assert part.read_bytes() == content
