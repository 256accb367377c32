"""Through a proxy that pools transactions, a session is whoever's comes next."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tapes_cli.store.base import OutcomeKind
from tapes_cli.store.postgres.store import PostgresStore
from tests.support.captures import line, record
from tests.support.command import tapes
from tests.support.turns import make_turn, session

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tapes_cli.store.base import ChainedTurn, Outcome

_POOLER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


def _turns(name: str) -> list[ChainedTurn]:
    return [make_turn([f"{name}{i}", "a"], i, session()) for i in range(5)]


def _kinds(outcomes: Sequence[Outcome]) -> set[OutcomeKind]:
    return {outcome.kind for outcome in outcomes}


@pytest.fixture
def store(database: str) -> Iterator[PostgresStore]:
    made = PostgresStore(database)
    yield made
    made.close()


def test_statements_that_somebody_else_has_prepared_are_not_taken_for_ours(
    store: PostgresStore,
) -> None:
    store._conn.execute("PREPARE tapes_0 AS SELECT 1")
    assert _kinds(store.ingest(_turns("q"))) == {OutcomeKind.STORED}


def test_statements_that_are_gone_are_sent_anew(store: PostgresStore) -> None:
    store.ingest(_turns("q"))
    store._conn.execute("DEALLOCATE ALL")
    assert _kinds(store.ingest(_turns("r"))) == {OutcomeKind.STORED}
    prepared = store._conn.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()
    assert prepared == (0,)
    assert _kinds(store.ingest(_turns("s"))) == {OutcomeKind.STORED}
    assert _kinds(store.ingest(_turns("q"))) == {OutcomeKind.DUPLICATE}


def test_no_setting_outlives_the_transactions(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute(f"ALTER ROLE postgres IN DATABASE {conn.info.dbname} SET jit = off".encode())
        store = PostgresStore(database)
        store._conn.execute("DISCARD ALL")  # all that a session has set, but not how it began
        found = store._conn.execute("SHOW synchronous_commit").fetchone()
        store.close()
    assert found == ("off",)


@pytest.fixture
def pooled(database: str, reachable_path: Path) -> Iterator[str]:
    """Give the DSN of the database behind PgBouncer."""
    if _POOLER is None:
        pytest.skip("PgBouncer is not installed")
    where = conninfo_to_dict(database)
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute(f"ALTER DATABASE {where['dbname']} SET synchronous_commit = on".encode())
    sockets = Path(unquote(str(where["host"])))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (reachable_path / "ini").write_text(
        f"[databases]\n* = host={sockets} port={where['port']} user={where['user']}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\n"
        f"pool_mode = transaction\nunix_socket_dir =\n"
    )
    owner = sockets.stat()
    as_owner = {"user": owner.st_uid, "group": owner.st_gid} if os.geteuid() == 0 else {}
    process = subprocess.Popen(
        [_POOLER, str(reachable_path / "ini")],
        stderr=subprocess.DEVNULL,
        **as_owner,  # type: ignore[call-overload]  # two numbers
    )
    dsn = f"postgresql://{where['user']}@127.0.0.1:{port}/{where['dbname']}"
    for _ in range(100):
        with suppress(psycopg.OperationalError), psycopg.connect(dsn):
            break
        time.sleep(0.05)
    yield dsn
    process.terminate()
    process.wait()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_imports_go_through_a_proxy_that_pools_transactions(
    pooled: str, tmp_path: Path, workers: str
) -> None:
    capture = tmp_path / "a.jsonl"
    capture.write_text("".join(line(record(f"q{i}")) for i in range(1100)))
    asked = ("--workers", workers, "--reread", "--retry-for", "5", "-o", "jsonl")
    for outcome in ("stored", "duplicate", "duplicate"):
        done = tapes("import", *asked, "--dsn", pooled, capture)
        assert done.status == 0, done.err
        assert done.summary["records"][outcome] == 1100
    with psycopg.connect(pooled, prepare_threshold=None) as conn:
        assert conn.execute("SHOW synchronous_commit").fetchone() == ("on",)
