"""One PostgreSQL for the whole run, and a database of its own for each test."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from hypothesis import settings

from tapes_cli.store.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator

# Nobody needs these databases after a power failure.
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}

# In bytes. Each server that a test creates takes 50 MB.
ROOMY = 6e9

# A busy machine is no failure.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

_numbers = count(1)


def _parent() -> Path:
    """Return memory that serves as a disk, where there is plenty: each database is 300 files."""
    memory = Path("/dev/shm")
    if memory.is_dir():
        found = os.statvfs(memory)
        if found.f_bavail * found.f_frsize > ROOMY and not found.f_flag & os.ST_NOEXEC:
            return memory
    return Path("/tmp")


@pytest.fixture(scope="session")
def reachable_base() -> Iterator[Path]:
    """Give a directory that root's PostgreSQL, which runs as somebody else, can enter.

    pytest's own are closed to others, and their paths too long for a socket.
    """
    made = Path(tempfile.mkdtemp(prefix="t-", dir=_parent()))
    if os.geteuid() == 0:
        made.chmod(0o711)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def reachable_path(reachable_base: Path) -> Path:
    """Give such a directory to one test."""
    made = reachable_base / str(next(_numbers))
    made.mkdir()
    made.chmod(0o711)
    return made


@pytest.fixture(scope="session")
def postgres_server(reachable_base: Path) -> Iterator[str]:
    """Give the DSN of a database to administer the server with."""
    server = EmbeddedServer(reachable_base / "shared", settings=FAST)
    with server.attach() as session:
        yield session.dsn


def _in_database(server: str, name: str) -> str:
    return f"{server.rpartition('/')[0]}/{name}"


@contextmanager
def _new_database(server: str, template: str) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
    yield _in_database(server, name)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def empty_database(postgres_server: str) -> Iterator[str]:
    """Give the DSN of a database with nothing in it."""
    with _new_database(postgres_server, "template0") as dsn:
        yield dsn


@pytest.fixture(scope="session")
def migrated_template(postgres_server: str) -> str:
    """Apply all migrations once; give the name of the database to copy."""
    from tapes_cli.store.postgres.migrations import migrate_up  # noqa: PLC0415  # few need it

    name = "migrated_template"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0".encode())
    migrate_up(_in_database(postgres_server, name))
    return name


@pytest.fixture
def database(postgres_server: str, migrated_template: str) -> Iterator[str]:
    """Give the DSN of a database with the whole schema and no rows."""
    with _new_database(postgres_server, migrated_template) as dsn:
        yield dsn
