"""The cost of a turn is what is new in it: counted, not timed."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tapes_cli.capture.reader import read
from tapes_cli.capture.sources import Source
from tapes_cli.importer.prepare import Preparer
from tapes_cli.model.records import Accepted
from tapes_cli.store.postgres.store import PostgresStore
from tests.support.captures import line, record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tapes_cli.store.base import ChainedTurn

_BATCH = 20
_CLOSING = 4
"""BEGIN at the beginning of a batch; at its end two statements and a COMMIT, which waits for the
disk."""


_STILL_THERE = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'tapes-cli'
"""


def _session(turns: int, **meta: Any) -> str:
    """Return a session as a capture has it: each turn with the whole history."""
    messages: list[dict[str, str]] = []
    lines = []
    for turn in range(turns):
        messages.append({"role": "user", "content": f"question {turn}"})
        captured = {"captured_at": f"2026-03-02T{turn // 60:02}:{turn % 60:02}:00Z"} | meta
        request = {"model": "m", "messages": messages}
        lines.append(line(record(answer=f"answer {turn}", request=request, meta=captured)))
        messages.append({"role": "assistant", "content": f"answer {turn}"})
    return "".join(lines)


def _turns(path: Path, preparer: Preparer) -> list[ChainedTurn]:
    found = list(read(Source(str(path), path)))
    assert all(isinstance(r, Accepted) for r in found)
    return [preparer.prepare(r.turn) for r in found if isinstance(r, Accepted)]


def _import(dsn: str, turns: list[ChainedTurn]) -> int:
    """Import in batches; return how many statements were executed, without look-ups."""
    store = PostgresStore(dsn)
    for start in range(0, len(turns), _BATCH):
        store.ingest(turns[start : start + _BATCH])
    store.close()
    return store.statements_sent


@pytest.fixture
def conn(database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


def _written(conn: psycopg.Connection[Any]) -> dict[str, tuple[int, int]]:
    """Return for each table how many rows were inserted and updated."""
    # A backend reports what it wrote when it ends, which may be a moment after its connection.
    while conn.execute(_STILL_THERE).fetchone() != (0,):
        time.sleep(0.01)
    found = conn.execute("SELECT relname, n_tup_ins, n_tup_upd FROM pg_stat_user_tables")
    return {name: (inserted, updated) for name, inserted, updated in found}


@pytest.mark.parametrize("turns", [20, 40, 80])
def test_a_turn_is_hashed_sent_and_written_as_far_as_it_is_new(
    database: str, conn: psycopg.Connection[Any], tmp_path: Path, turns: int
) -> None:
    capture = tmp_path / "session.jsonl"
    capture.write_text(_session(turns))
    preparer = Preparer()
    statements = _import(database, _turns(capture, preparer))
    # The question, the answer, and the answer once more as the next request repeats it.
    assert preparer.hashes_computed == 3 * turns - 1
    # The session, the nodes, and the end of the transaction, which begins the next one.
    assert statements == 3 * turns + (turns // _BATCH) * _CLOSING
    written = _written(conn)
    assert written["nodes"] == (2 * turns, 0)
    assert written["sessions"] == (1, turns - 1)


@pytest.mark.parametrize("turns", [20, 40])
def test_undated_turns_cost_no_more(
    database: str, conn: psycopg.Connection[Any], tmp_path: Path, turns: int
) -> None:
    capture = tmp_path / "session.jsonl"
    capture.write_text(_session(turns, captured_at=None))
    statements = _import(database, _turns(capture, Preparer()))
    assert statements == 3 * turns + (turns // _BATCH) * _CLOSING
    assert _written(conn)["nodes"] == (2 * turns, 0)


def test_a_turn_that_is_there_costs_no_statement(
    database: str, conn: psycopg.Connection[Any], tmp_path: Path
) -> None:
    turns = 40
    capture = tmp_path / "session.jsonl"
    capture.write_text(_session(turns))
    _import(database, _turns(capture, Preparer()))
    before = _written(conn)
    again = Preparer()
    statements = _import(database, _turns(capture, again))
    assert statements == (turns // _BATCH) * _CLOSING
    assert _written(conn) == before
    assert again.hashes_computed == 3 * turns - 1


def test_a_history_that_was_never_seen_costs_few_statements(database: str, tmp_path: Path) -> None:
    capture = tmp_path / "last.jsonl"
    capture.write_text(_session(150).splitlines()[-1])
    statements = _import(database, _turns(capture, Preparer()))
    with psycopg.connect(database) as conn:
        assert conn.execute("SELECT count(*) FROM nodes").fetchone() == (300,)
    assert statements < 40


def test_a_known_history_is_not_even_parsed(tmp_path: Path) -> None:
    capture = tmp_path / "session.jsonl"
    lines = _session(30).splitlines()
    capture.write_text("\n".join(lines))
    for found, text in zip(read(Source("s", capture)), lines, strict=True):
        assert isinstance(found, Accepted)
        assert len(found.turn.history) == len(json.loads(text)["request"]["messages"])
        assert len(found.turn.history.fresh) <= 2
