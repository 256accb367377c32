"""The store on a real server: single rules, refuted beliefs, refusals, broken connections."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
import pytest

from tapes_cli.errors import DatabaseUnavailableError, SchemaError
from tapes_cli.merkle.chain import ChainError
from tapes_cli.model.envelope import Envelope
from tapes_cli.model.turn import CaptureTime, TimeSource, Usage
from tapes_cli.store.base import ChainedTurn, Outcome, OutcomeKind
from tapes_cli.store.postgres.pipeline import Pipeline
from tapes_cli.store.postgres.retry import Backoff
from tapes_cli.store.postgres.store import PostgresStore
from tests.support.turns import EPOCH, make_turn, rows, session

if TYPE_CHECKING:
    from collections.abc import Iterator

ORG = UUID("11111111-1111-4111-8111-111111111111")
STORED, DUPLICATE, REFUSED = OutcomeKind.STORED, OutcomeKind.DUPLICATE, OutcomeKind.REFUSED


@pytest.fixture
def conn(database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


@pytest.fixture
def store(database: str) -> Iterator[PostgresStore]:
    made = PostgresStore(database)
    yield made
    made.close()


def _kinds(outcomes: list[Outcome]) -> list[OutcomeKind]:
    return [outcome.kind for outcome in outcomes]


def _session(conn: psycopg.Connection[Any], session_id: str = "s1") -> dict[str, Any]:
    return next(s for s in rows(conn)["sessions"] if s["harness_session_id"] == session_id)


def _nodes(conn: psycopg.Connection[Any]) -> dict[str, dict[str, Any]]:
    return {n["content"][0]["text"]: n for n in rows(conn)["nodes"]}


def test_a_turn_becomes_a_session_and_its_nodes(
    store: PostgresStore, conn: psycopg.Connection[Any]
) -> None:
    usage = Usage(10, 3, 13, 4, 5, 2**40, 7)
    turn = make_turn(["q", "a"], 5, session(cwd="/x", name="n"), usage)
    assert store.ingest([turn]) == [Outcome(STORED, new_nodes=2, new_session=True)]
    question, answer = _nodes(conn)["q"], _nodes(conn)["a"]
    stored = _session(conn)
    assert (stored["turn_count"], stored["cwd"], stored["name"]) == (1, "/x", "n")
    assert (stored["total_input_tokens"], stored["total_output_tokens"]) == (10, 3)
    assert stored["started_at"] == stored["last_seen_at"] == "2025-01-01T00:00:05+00:00"
    assert question["bucket"] == {
        "type": "message",
        "role": "user",
        "content": [{"type": "text", "text": "q"}],
        "model": "asked",
        "provider": "anthropic",
        "agent_name": "",
    }
    assert (question["parent_hash"], question["landings"]) == (None, 0)
    assert question["stop_reason"] is None
    assert question["prompt_tokens"] is None
    assert answer["parent_hash"] == question["hash"]
    assert (answer["model"], answer["stop_reason"], answer["landings"]) == (
        "answered",
        "end_turn",
        1,
    )
    assert (answer["prompt_tokens"], answer["cache_creation_input_tokens"]) == (10, 4)
    assert (answer["total_duration_ns"], answer["prompt_duration_ns"]) == (2**40, 7)
    assert answer["session_id"] == answer["turn_session_id"] == question["session_id"]


def test_ids_are_uuid7_and_kept(store: PostgresStore, conn: psycopg.Connection[Any]) -> None:
    store.ingest([make_turn("ab", 1, session())])
    first = conn.execute("SELECT id FROM sessions").fetchone()
    store.ingest([make_turn("abcd", 2, session())])
    assert conn.execute("SELECT id FROM sessions").fetchone() == first
    assert first is not None
    assert first[0].version == 7


def test_a_later_turn_that_came_first_leaves_the_earlier_one_to_count(
    store: PostgresStore, conn: psycopg.Connection[Any]
) -> None:
    store.ingest([make_turn("abcd", 2, session())])
    assert _nodes(conn)["b"]["landings"] == 0
    assert _kinds(store.ingest([make_turn("ab", 1, session())])) == [STORED]
    landed = _nodes(conn)["b"]
    assert (landed["stop_reason"], landed["model"]) == ("end_turn", "answered")
    assert landed["turn_at"] == "2025-01-01T00:00:01+00:00"
    assert _session(conn)["turn_count"] == 2


def test_the_earliest_capture_owns_shared_nodes(
    store: PostgresStore, conn: psycopg.Connection[Any]
) -> None:
    store.ingest([make_turn("abc", 2, session("late"))])
    store.ingest([make_turn("abd", 1, session("early"), project="p")])
    owned = _nodes(conn)
    assert owned["a"]["session_id"].endswith("/early")
    assert owned["a"]["project"] == "p"
    assert owned["c"]["session_id"].endswith("/late")


def test_an_identical_turn_in_another_session_counts_once(
    store: PostgresStore, conn: psycopg.Connection[Any]
) -> None:
    store.ingest([make_turn("ab", 2, session("s1"))])
    assert _kinds(store.ingest([make_turn("ab", 1, session("s2"))])) == [DUPLICATE]
    assert _session(conn, "s1")["turn_count"] == 1
    assert _session(conn, "s2")["turn_count"] == 0
    assert _session(conn, "s2")["placeholder"] is False


def test_identical_content_of_two_orgs_is_two_rows(
    store: PostgresStore, conn: psycopg.Connection[Any]
) -> None:
    outcomes = store.ingest(
        [make_turn("ab", 1, session()), make_turn("ab", 1, session(org_id=ORG))]
    )
    assert _kinds(outcomes) == [STORED, STORED]
    assert len(rows(conn)["nodes"]) == 4


def test_a_placeholder_is_filled_in_and_keeps_its_id(
    store: PostgresStore, conn: psycopg.Connection[Any]
) -> None:
    child = session("child", parent=("claude", "s1"), auth_subject="of the child")
    store.ingest([make_turn("xy", 5, child)])
    borrowed = _session(conn)
    assert borrowed["placeholder"] is True
    assert (borrowed["turn_count"], borrowed["auth_subject"]) == (0, "of the child")
    before = conn.execute("SELECT id FROM sessions WHERE placeholder").fetchone()
    (outcome,) = store.ingest([make_turn("ab", 9, session(auth_subject="own"))])
    assert outcome.new_session
    own = _session(conn)
    assert (own["placeholder"], own["auth_subject"]) == (False, "own")
    assert own["started_at"] == "2025-01-01T00:00:09+00:00"
    assert (
        conn.execute("SELECT id FROM sessions WHERE harness_session_id = 's1'").fetchone() == before
    )
    assert _session(conn, "child")["parent_session_id"].endswith("/claude/s1")


def test_a_parent_without_a_subject_of_its_own_borrows_one_later_too(
    store: PostgresStore, conn: psycopg.Connection[Any]
) -> None:
    child = session("child", parent=("claude", "s1"), auth_subject="of the child")
    store.ingest([make_turn("ab", 1, session(auth_subject=" ")), make_turn("xy", 5, child)])
    assert _session(conn)["auth_subject"] == "of the child"
    assert _session(conn)["last_seen_at"] == "2025-01-01T00:00:01+00:00"


def test_the_parent_may_be_of_another_harness(
    store: PostgresStore, conn: psycopg.Connection[Any]
) -> None:
    store.ingest([make_turn("xy", 5, session("child", parent=("cursor", "p")))])
    assert _session(conn, "p")["harness_id"] == "cursor"


def test_the_newest_capture_describes_the_session_field_by_field(
    store: PostgresStore, conn: psycopg.Connection[Any]
) -> None:
    store.ingest(
        [
            make_turn("ab", 3, session(name="newest", harness_metadata={"k": 3})),
            make_turn("abcd", 2, session(name="old", cwd="/c", harness_metadata={"k": 2, "l": 2})),
            make_turn("abcdef", 4, session(harness_metadata={"k": "", "m": None})),
        ]
    )
    described = _session(conn)
    assert (described["name"], described["cwd"]) == ("newest", "/c")
    assert described["harness_metadata"] == {"k": 3, "l": 2, "m": None}


def test_legacy_turns_have_no_session(store: PostgresStore, conn: psycopg.Connection[Any]) -> None:
    (outcome,) = store.ingest([make_turn("ab", 1, None)])
    assert outcome == Outcome(STORED, new_nodes=2)
    assert rows(conn)["sessions"] == []
    assert {n["session_id"] for n in rows(conn)["nodes"]} == {None}


def test_token_columns_are_clamped_and_counters_are_not(
    store: PostgresStore, conn: psycopg.Connection[Any]
) -> None:
    store.ingest([make_turn("ab", 1, session(), Usage(prompt_tokens=2**40))])
    assert _nodes(conn)["b"]["prompt_tokens"] == 2**31 - 1
    assert _session(conn)["total_input_tokens"] == 2**40


def test_an_undated_turn_is_recognised_whatever_the_clock_says(
    store: PostgresStore, conn: psycopg.Connection[Any]
) -> None:
    def captured(seconds: int) -> ChainedTurn:
        turn = make_turn("ab", 0, session())
        at = EPOCH + timedelta(seconds=seconds)
        turn.turn.captured = CaptureTime(at, TimeSource.CLOCK)
        return turn

    store.ingest([captured(1)])
    before = rows(conn)
    assert _kinds(store.ingest([captured(2)])) == [DUPLICATE]
    assert rows(conn) == before


def test_a_broken_chain_is_never_repaired(store: PostgresStore) -> None:
    turn = make_turn("abcd", 1, session())
    broken = ChainedTurn(turn.turn, replace(turn.chain, fresh=turn.chain.fresh[1:]), turn.session)
    with pytest.raises(ChainError):
        store.ingest([broken])


def test_a_refused_turn_is_refused_alone(
    store: PostgresStore, conn: psycopg.Connection[Any]
) -> None:
    huge = Usage(prompt_tokens=2**63 - 1)
    outcomes = store.ingest(
        [
            make_turn("ab", 1, session()),
            make_turn("abcd", 2, session(), huge),
            make_turn("abcdef", 3, session()),
        ]
    )
    assert _kinds(outcomes) == [STORED, REFUSED, STORED]
    assert "total_input_tokens" in outcomes[1].message
    assert outcomes[2].new_nodes == 4  # with the nodes that the refused turn did not bring
    missing = conn.execute(
        """
        SELECT count(*) FROM nodes AS n
        WHERE parent_hash IS NOT NULL
          AND NOT EXISTS (
              SELECT FROM nodes AS p WHERE p.org_id = n.org_id AND p.hash = n.parent_hash)
        """
    ).fetchone()
    assert missing == (0,)


def test_many_refusals_in_one_batch_are_refused_each_alone(
    store: PostgresStore, conn: psycopg.Connection[Any]
) -> None:
    huge = Usage(prompt_tokens=2**63 - 1)
    turns = [
        make_turn([f"q{i}", *"abcdefgh"[: i % 8], "a"], i, session(), huge if i % 3 else None)
        for i in range(60)
    ]
    outcomes = store.ingest(turns)
    assert _kinds(outcomes) == [REFUSED if i % 3 else STORED for i in range(60)]
    assert _session(conn)["turn_count"] == 20


def test_turns_behind_a_refuted_belief_are_not_called_ours(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = PostgresStore(database), PostgresStore(database)
    turns = [make_turn([f"q{i}", "a"], i, session("s1")) for i in range(5)]
    second.ingest([make_turn("xy", 9, session("s1"))])
    first.ingest(turns)
    _blind(second, monkeypatch)
    assert _kinds(second.ingest(turns)) == [DUPLICATE] * 5
    first.close()
    second.close()


def test_an_undated_duplicate_never_moves_a_session_that_is_there(
    store: PostgresStore, conn: psycopg.Connection[Any]
) -> None:
    def captured(name: str, seconds: int) -> ChainedTurn:
        turn = make_turn("ab", 0, session(name=name))
        turn.turn.captured = CaptureTime(EPOCH + timedelta(seconds=seconds), TimeSource.CLOCK)
        return turn

    store.ingest([captured("one", 1), captured("two", 2)])
    before = rows(conn)
    store.ingest([captured("one", 3), captured("two", 4)])
    assert rows(conn) == before


def test_a_blank_subject_or_value_never_erases(
    store: PostgresStore, conn: psycopg.Connection[Any]
) -> None:
    store.ingest(
        [
            make_turn("ab", 1, session(auth_subject="me", harness_metadata={"k": "v"})),
            make_turn("abcd", 2, session(auth_subject="  ", harness_metadata={"k": " "})),
        ]
    )
    assert _session(conn)["auth_subject"] == "me"
    assert _session(conn)["harness_metadata"] == {"k": "v"}


def test_parents_are_told_apart_whatever_is_in_their_names(
    store: PostgresStore, conn: psycopg.Connection[Any]
) -> None:
    parents = [("a\x1fb", "c"), ("a", "b\x1fc")]
    found = []
    for order in (parents, parents[::-1]):
        conn.execute("TRUNCATE nodes, sessions")
        store._known.forget()
        store.ingest([make_turn([p[0], "x"], 1, session(parent=p)) for p in order])
        found.append(rows(conn)["sessions"])
    assert found[0] == found[1]


def test_a_duplicate_that_makes_a_session_says_so(store: PostgresStore) -> None:
    store.ingest([make_turn("ab", 1, session("s1"))])
    assert store.ingest([make_turn("ab", 1, session("s2"))]) == [
        Outcome(DUPLICATE, new_session=True)
    ]


def test_the_planner_knows_the_tables_after_the_first_batch(
    store: PostgresStore, conn: psycopg.Connection[Any]
) -> None:
    store.ingest([make_turn([f"q{i}", "a"], i, session(f"s{i}")) for i in range(200)])
    checked = conn.execute(
        "EXPLAIN SELECT 1 FROM ONLY sessions WHERE org_id = gen_random_uuid()"
        " AND id = gen_random_uuid() FOR KEY SHARE"
    ).fetchall()
    assert any("sessions_pkey" in row[0] or "Seq Scan" in row[0] for row in checked)
    known = conn.execute(
        "SELECT reltuples FROM pg_class WHERE relname IN ('sessions', 'nodes') ORDER BY relname"
    ).fetchall()
    assert known == [(400,), (200,)]


def _blind(store: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the store at its beliefs until one is refuted, as if it had looked just before."""
    forget = store._known.forget

    def see_again() -> None:
        monkeypatch.undo()
        forget()

    monkeypatch.setattr(store._known, "look_up", lambda *_: None)
    monkeypatch.setattr(store._known, "forget", see_again)


def test_what_another_import_stored_meanwhile_is_looked_at_again(
    database: str, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = PostgresStore(database), PostgresStore(database)
    first.ingest([make_turn("xy", 1, session("s1"))])
    second.ingest([make_turn("xy", 1, session("s1"))])
    outcomes = first.ingest([make_turn("ab", 2, session("s1"))])
    _blind(second, monkeypatch)
    outcomes += second.ingest([make_turn("ab", 2, session("s1"))])
    assert _kinds(outcomes) == [STORED, DUPLICATE]
    assert _session(conn)["turn_count"] == 2
    first.close()
    second.close()


def test_a_session_that_another_import_made_meanwhile_is_used(
    database: str, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = PostgresStore(database), PostgresStore(database)
    first.ingest([make_turn("ab", 2, session("s1"))])
    _blind(second, monkeypatch)
    assert _kinds(second.ingest([make_turn("xy", 3, session("s1"))])) == [STORED]
    assert _session(conn)["turn_count"] == 2
    first.close()
    second.close()


def test_a_cut_connection_is_made_again(
    store: PostgresStore, conn: psycopg.Connection[Any]
) -> None:
    store.ingest([make_turn("ab", 1, session())])
    conn.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    outcomes = store.ingest([make_turn("ab", 1, session()), make_turn("abcd", 2, session())])
    assert _kinds(outcomes) == [DUPLICATE, STORED]
    assert _session(conn)["turn_count"] == 2


def test_a_server_that_stays_away_is_given_up(database: str) -> None:
    store = PostgresStore(database, Backoff(limit=0.2, first=0.01))
    store._dsn = "host=/nonexistent dbname=none"
    store._conn.close()
    with pytest.raises(DatabaseUnavailableError, match="did not come back"):
        store.ingest([make_turn("ab", 1, session())])


def test_turns_that_arrived_before_the_connection_broke_are_ours(
    database: str, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PostgresStore(database, Backoff(limit=5, first=0.01))
    run = Pipeline.run
    calls = []

    def broken_after_sending(pipeline: Pipeline, transactions: Any, answers: Any) -> Any:
        done = run(pipeline, transactions, answers)
        calls.append(done)
        if len(calls) == 1:
            store._conn.close()
            raise psycopg.OperationalError("the connection broke after the last commit")
        return done

    monkeypatch.setattr(Pipeline, "run", broken_after_sending)
    outcomes = store.ingest([make_turn("ab", 1, session()), make_turn("ab", 1, session())])
    assert _kinds(outcomes) == [STORED, DUPLICATE]
    assert outcomes[0].new_nodes == 2
    assert _session(conn)["turn_count"] == 1
    store.close()


def test_a_schema_that_goes_away_is_told(
    store: PostgresStore, conn: psycopg.Connection[Any]
) -> None:
    conn.execute("DROP TABLE nodes")
    with pytest.raises(SchemaError, match="42P01"):
        store.ingest([make_turn("ab", 1, session())])


def test_a_server_that_turns_read_only_is_told(
    store: PostgresStore, conn: psycopg.Connection[Any]
) -> None:
    store._conn.execute("SET default_transaction_read_only = on")
    with pytest.raises(DatabaseUnavailableError, match="25006"):
        store.ingest([make_turn("ab", 1, session())])
    assert rows(conn) == {"sessions": [], "nodes": []}


def test_the_envelope_may_say_nothing(store: PostgresStore, conn: psycopg.Connection[Any]) -> None:
    turn = make_turn("ab", 1, Envelope())
    store.ingest([turn])
    (stored,) = rows(conn)["sessions"]
    assert stored["harness_id"] == "unknown"
    assert stored["harness_session_id"] == turn.chain.root_hash[:16]
    assert stored["name"] is None
