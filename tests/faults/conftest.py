"""One server that is made to fail again and again, and the captures that are imported meanwhile."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tapes_cli.errors import DatabaseUnavailableError
from tests.support.corpus import Corpus, turns_of, write_corpus
from tests.support.faults import Rows, Server, rows_of, run_import

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SESSIONS, TURNS = 36, 32


@pytest.fixture(scope="session")
def one_server(reachable_base: Path) -> Iterator[Server]:
    """Give the server. It waits for the disk as it does by default: fsync is on."""
    server = Server(reachable_base / "faults")
    yield server
    with suppress(DatabaseUnavailableError):
        server.stop()


@pytest.fixture
def server(one_server: Server) -> Iterator[Server]:
    """Give the server, running, with the settings that it came with afterwards."""
    one_server.start()
    yield one_server
    one_server.start()
    one_server.run("ALTER SYSTEM RESET ALL")
    one_server.run("SELECT pg_reload_conf()")


@pytest.fixture
def dsn(server: Server) -> Iterator[str]:
    """Give a new database on it."""
    with server.database() as made:
        yield made


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder for what all tests read."""
    return tmp_path_factory.mktemp("captures")


@pytest.fixture(scope="session")
def captures(shared_folder: Path) -> Corpus:
    """Give captures of which each turn can be stored."""
    return write_corpus(shared_folder / "good", turns_of(SESSIONS, TURNS))


@pytest.fixture(scope="session")
def spoiled(shared_folder: Path) -> Corpus:
    """Give the same captures with bad lines in between."""
    return write_corpus(shared_folder / "spoiled", turns_of(SESSIONS, TURNS), bad=40)


@pytest.fixture(scope="session")
def undisturbed(one_server: Server, captures: Corpus) -> tuple[Rows, float]:
    """Give the rows that an import of these captures leaves, and how many seconds it takes."""
    one_server.start()
    with one_server.database() as made:
        done = run_import(made, captures.folder, "--workers", "1")
        assert (done.status, done.summary["records"]["stored"]) == (0, captures.turns)
        return rows_of(made), done.summary["seconds"]


@pytest.fixture(scope="session")
def expected(undisturbed: tuple[Rows, float]) -> Rows:
    """Give the rows alone."""
    return undisturbed[0]
