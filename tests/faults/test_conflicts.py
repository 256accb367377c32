"""Others who write to the same rows: deadlocks, and transactions that cannot be put in order."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.support.faults import Rows, Run, Server, eventually, query, rows_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.corpus import Corpus

pytestmark = pytest.mark.faults

_LOCK = "SELECT FROM sessions WHERE harness_session_id = %s FOR UPDATE"
_WAITS = (
    "SELECT pid FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))"
)


@contextmanager
def _beside(act: Callable[[], None]) -> Iterator[None]:
    """Do something again and again while the block runs."""
    done = threading.Event()
    failures: list[BaseException] = []

    def repeat() -> None:
        try:
            while not done.is_set():
                act()
        except BaseException as error:  # noqa: BLE001  # told below
            failures.append(error)

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    assert failures == []


def _run(conn: psycopg.Connection[Any], statement: str) -> None:
    conn.execute(statement.encode())


def _cross(conn: psycopg.Connection[Any], run: Run, told: list[str]) -> None:
    """Lock a session, wait until the import waits for it, then lock its parent before it does."""
    try:
        with conn.transaction():
            conn.execute(_LOCK, ("s1",))
            eventually(lambda: conn.execute(_WAITS).fetchone() or not run.lives(), "a waiting turn")
            conn.execute(_LOCK, ("s2",))
        told.append("went first")
    except psycopg.errors.DeadlockDetected:
        told.append("was the victim")


def _wait_for_more(server: Server, run: Run, words: str, times: int) -> None:
    eventually(lambda: server.log.count(words) > times or not run.lives(), words)
    assert server.log.count(words) > times, run.told


def test_a_turn_that_a_deadlock_has_undone_is_stored_again(
    server: Server, dsn: str, captures: Corpus, expected: Rows
) -> None:
    told: list[str] = []
    # The import looks first for what it waits, and finds itself in the circle.
    query(dsn, f"ALTER DATABASE {dsn.rpartition('/')[2]} SET deadlock_timeout = '50ms'")
    before = server.log.count("deadlock detected")
    with (
        psycopg.connect(dsn, autocommit=True, options="-c deadlock_timeout=20s") as conn,
        Run(dsn, captures.folder) as run,
    ):
        run.wait_for_turns(80)
        with _beside(lambda: _cross(conn, run, told)):
            _wait_for_more(server, run, "deadlock detected", before + 2)
        done = run.result()
    assert "was the victim" not in told
    assert done.status == 0, done.err
    assert rows_of(dsn) == expected


def test_turns_that_cannot_be_put_in_order_with_others_are_stored_again(
    server: Server, dsn: str, captures: Corpus, expected: Rows
) -> None:
    name = dsn.rpartition("/")[2]
    query(dsn, f"ALTER DATABASE {name} SET default_transaction_isolation = serializable")
    before = server.log.count("could not serialize access")
    touch = "UPDATE sessions SET cwd = cwd WHERE harness_session_id IN ('s3', 's7', 's20')"
    options = "-c default_transaction_isolation=read\\ committed"
    with (
        psycopg.connect(dsn, autocommit=True, options=options) as conn,
        Run(dsn, captures.folder, "--workers", "2") as run,
    ):
        run.wait_for_turns(1)
        with _beside(lambda: _run(conn, touch)):
            _wait_for_more(server, run, "could not serialize access", before + 2)
        done = run.result()
    assert done.status == 0, done.err
    assert rows_of(dsn) == expected
