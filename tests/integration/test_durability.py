"""What the store calls stored survives a server that is killed at that very moment."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import psycopg

from tapes_cli.model.turn import Usage
from tapes_cli.store.base import OutcomeKind
from tapes_cli.store.embedded import EmbeddedServer
from tapes_cli.store.postgres.migrations import migrate_up
from tapes_cli.store.postgres.store import PostgresStore
from tests.support.turns import make_turn, session

if TYPE_CHECKING:
    from pathlib import Path

_TURNS = 300


def test_stored_turns_survive_a_killed_server(reachable_path: Path) -> None:
    server = EmbeddedServer(reachable_path / "data")
    with server.attach() as attached:
        migrate_up(attached.dsn)
        store = PostgresStore(attached.dsn)
        outcomes = store.ingest([make_turn([f"q{i}", "a"], i, session()) for i in range(_TURNS)])
        pid = server.status().pid
        assert pid is not None
        os.killpg(pid, signal.SIGKILL)
    with server.attach() as attached, psycopg.connect(attached.dsn) as conn:
        found = conn.execute("SELECT count(*) FROM nodes WHERE landings = 1").fetchone()
    assert {outcome.kind for outcome in outcomes} == {OutcomeKind.STORED}
    assert found == (_TURNS,)
    store.close()


def test_turns_before_a_refused_last_one_survive_a_killed_server(reachable_path: Path) -> None:
    server = EmbeddedServer(reachable_path / "data")
    with server.attach() as attached:
        migrate_up(attached.dsn)
        store = PostgresStore(attached.dsn)
        turns = [make_turn([f"q{i}", "a"], i, session()) for i in range(_TURNS)]
        refused = make_turn(["q", "a"], 0, session(), Usage(prompt_tokens=2**63 - 1))
        outcomes = store.ingest([*turns, refused])
        pid = server.status().pid
        assert pid is not None
        os.killpg(pid, signal.SIGKILL)
    with server.attach() as attached, psycopg.connect(attached.dsn) as conn:
        found = conn.execute("SELECT count(*) FROM nodes WHERE landings = 1").fetchone()
    assert outcomes[-1].kind is OutcomeKind.REFUSED
    assert {outcome.kind for outcome in outcomes[:-1]} == {OutcomeKind.STORED}
    assert found == (_TURNS,)
    store.close()
