"""Reads of a real database: what is found, in which order, and what is never shown."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, LiteralString
from uuid import UUID, uuid4

import psycopg
import pytest

from tapes_cli.errors import DatabaseUnavailableError, SchemaError, UsageError
from tapes_cli.inspection.sessions import (
    PAGE_SIZE,
    Conversation,
    find_session,
    list_sessions,
    parse_cursor,
    read_conversation,
    short_id,
)
from tapes_cli.model.envelope import NIL_ORG
from tapes_cli.model.turn import Usage
from tapes_cli.store.postgres import queries as queries_module
from tapes_cli.store.postgres.queries import Queries, SessionFilter, SessionRow, open_queries
from tapes_cli.store.postgres.store import PostgresStore
from tests.support.turns import EPOCH, make_turn, session

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tapes_cli.store.base import ChainedTurn

ORG = UUID("11111111-1111-4111-8111-111111111111")
EVERYTHING = SessionFilter()


def store(dsn: str, turns: Sequence[ChainedTurn]) -> None:
    target = PostgresStore(dsn)
    target.ingest(turns)
    target.close()


def listed(dsn: str, chosen: SessionFilter = EVERYTHING, limit: int | None = None) -> list[str]:
    with open_queries(dsn) as queries:
        page = list_sessions(queries, chosen, limit)
    return [found.row.harness_session_id for found in page.sessions]


def titles(dsn: str) -> dict[str, str]:
    with open_queries(dsn) as queries:
        page = list_sessions(queries, EVERYTHING, None)
    return {found.row.harness_session_id: found.title for found in page.sessions}


def conversation(dsn: str, name: str, chosen: SessionFilter = EVERYTHING) -> Conversation:
    with open_queries(dsn) as queries:
        return read_conversation(queries, find_session(queries, name, chosen))


def said(found: Conversation) -> list[str]:
    return [" ".join(n.content[0]["text"] for n in branch.nodes) for branch in found.branches]


def test_sessions_come_newest_first_and_page_by_page(database: str) -> None:
    store(
        database, [make_turn([f"q{n}", "a"], at=n % 3, envelope=session(f"s{n}")) for n in range(7)]
    )
    everything = listed(database)
    assert sorted(everything) == [f"s{n}" for n in range(7)]
    assert [int(name[1]) % 3 for name in everything] == [2, 2, 1, 1, 0, 0, 0]
    paged, chosen = [], EVERYTHING
    with open_queries(database) as queries:
        while True:
            page = list_sessions(queries, chosen, 2)
            assert len(page.sessions) <= 2
            paged += [found.row.harness_session_id for found in page.sessions]
            if not page.next_cursor:
                break
            chosen = replace(chosen, after=parse_cursor(page.next_cursor))
    assert paged == everything


def test_all_sessions_are_read_beyond_a_page(database: str) -> None:
    count = PAGE_SIZE + 3
    with psycopg.connect(database) as conn:
        conn.execute(
            "INSERT INTO sessions (org_id, id, auth_subject, harness_id, harness_session_id,"
            " started_at, last_seen_at) SELECT %s, gen_random_uuid(), '', 'h', n, now(), now()"
            " FROM generate_series(1, %s) AS n",
            (NIL_ORG, count),
        )
    assert len(set(listed(database))) == count


def test_the_list_can_be_narrowed_down(database: str) -> None:
    mine = replace(session("mine"), org_id=ORG)
    other = replace(session("other"), harness_id="codex")
    store(
        database,
        [
            make_turn("ab", at=0, envelope=session("first")),
            make_turn("ab", at=10, envelope=mine),
            make_turn("cd", at=20, envelope=other),
        ],
    )
    assert listed(database, SessionFilter(org_id=ORG)) == ["mine"]
    assert listed(database, SessionFilter(harness_id="codex")) == ["other"]
    ten = EPOCH + timedelta(seconds=10)
    assert listed(database, SessionFilter(since=ten)) == ["other", "mine"]
    assert listed(database, SessionFilter(until=ten)) == ["first"]
    assert listed(database, SessionFilter(org_id=ORG, harness_id="codex")) == []


def test_a_title_is_the_name_or_the_first_words_of_the_first_turn(database: str) -> None:
    named = session("named", name="Its name")
    fork = session("fork", parent=("claude", "plain"))
    store(
        database,
        [
            make_turn(["x", "y"], envelope=named),
            make_turn(
                ["<system-reminder>s</system-reminder>", "ok", "hello", "b"], 5, session("plain")
            ),
            make_turn(["later", "b"], 9, session("plain")),
            make_turn(
                ["<system-reminder>s</system-reminder>", "ok", "hello", "b", "more", "c"], 20, fork
            ),
            make_turn(["x", "other org"], 1, replace(session("org"), org_id=ORG)),
            make_turn(["answer alone"], 1, session("mute", parent=("claude", "absent"))),
        ],
    )
    assert titles(database) == {
        "named": "Its name",
        "plain": "hello",
        "fork": "hello",
        "org": "x",
        "mute": "",
        "absent": "",
    }


def test_a_title_survives_content_that_others_have_written(database: str) -> None:
    store(database, [make_turn(["q", "a"], envelope=session())])
    with psycopg.connect(database) as conn:
        conn.execute("""UPDATE nodes SET content = '[{"type": "text", "text": 1}, "x"]'""")
    assert titles(database) == {"s1": ""}
    with psycopg.connect(database) as conn:
        conn.execute("UPDATE nodes SET content = NULL")
    assert titles(database) == {"s1": ""}


@pytest.fixture
def two_orgs(database: str) -> tuple[str, SessionRow, SessionRow]:
    """Give a database in which two orgs have a session of the same name."""
    here, there = session("shared-name-1"), replace(session("shared-name-1"), org_id=ORG)
    store(database, [make_turn("ab", 0, here), make_turn("ab", 1, there)])
    with open_queries(database) as queries:
        (newer, older) = queries.sessions(EVERYTHING, 10)
    return database, older, newer


@pytest.mark.parametrize(
    "name",
    [
        lambda row: str(row.id),
        lambda row: str(row.id).upper(),
        lambda row: short_id(row.id),
        lambda row: str(row.id)[:-3],
    ],
)
def test_a_session_is_found_by_its_id_or_a_part_of_it(
    two_orgs: tuple[str, SessionRow, SessionRow], name: Callable[[SessionRow], str]
) -> None:
    database, *rows = two_orgs
    with open_queries(database) as queries:
        for row in rows:
            assert find_session(queries, name(row), EVERYTHING) == row


def test_a_name_of_several_sessions_lists_them_until_it_is_narrowed_down(
    two_orgs: tuple[str, SessionRow, SessionRow],
) -> None:
    database, here, there = two_orgs
    with open_queries(database) as queries:
        for name in ("shared-name-1", "shared", "name-1"):
            with pytest.raises(UsageError, match="several sessions") as caught:
                find_session(queries, name, EVERYTHING)
            assert f"{here.id} (claude)" in str(caught.value)
            assert f"{there.id} (claude)" in str(caught.value)
            assert find_session(queries, name, SessionFilter(org_id=ORG)) == there


def test_a_whole_name_is_preferred_to_a_part_of_another(database: str) -> None:
    store(database, [make_turn("ab", 0, session("run")), make_turn("cd", 1, session("run-2"))])
    with open_queries(database) as queries:
        assert find_session(queries, "run", EVERYTHING).harness_session_id == "run"
        assert find_session(queries, "2", EVERYTHING).harness_session_id == "run-2"


@pytest.mark.parametrize("name", ["", "nobody", "%", "_", "'"])
def test_a_name_of_no_session_says_so(database: str, name: str) -> None:
    store(database, [make_turn("ab", 0, session("run"))])
    with open_queries(database) as queries, pytest.raises(UsageError, match="no session") as caught:
        find_session(queries, name, EVERYTHING)
    assert "sessions list" in caught.value.hint


def test_many_candidates_are_not_all_listed(database: str) -> None:
    store(database, [make_turn([f"q{n}", "a"], n, session(f"run-{n}")) for n in range(12)])
    with open_queries(database) as queries, pytest.raises(UsageError) as caught:
        find_session(queries, "run-", EVERYTHING)
    assert str(caught.value).count("(claude)") == 10
    assert str(caught.value).endswith("and more.")


def test_a_conversation_is_every_turn_of_the_session_with_its_history(database: str) -> None:
    usage = Usage(10, 3, 13, cache_read_input_tokens=4)
    store(
        database,
        [
            make_turn(["q", "a"], 1, session("first")),
            make_turn(["q", "a", "r", "b"], 2, session("first")),
            make_turn(["q", "a", "s", "c"], 3, session("fork", parent=("claude", "first")), usage),
            make_turn(["q", "a"], 0, replace(session("first"), org_id=ORG)),
        ],
    )
    first = conversation(database, "first", SessionFilter(org_id=NIL_ORG))
    assert said(first) == ["q a r b"]
    assert [row.harness_session_id for row in first.children] == ["fork"]
    assert first.parent is None
    assert first.owners == {}
    assert first.models == ("answered",)
    fork = conversation(database, "fork")
    assert said(fork) == ["q a s c"]
    assert fork.parent == first.session.row
    assert set(fork.owners) == {first.session.row.id}
    nodes = fork.branches[0].nodes
    assert [node.session_id == fork.session.row.id for node in nodes] == [False, False, True, True]
    turns = [node.turn for node in nodes]
    assert (turns[0], turns[2]) == (None, None)
    assert turns[1] is not None
    assert turns[1].session_id == first.session.row.id
    assert turns[3] is not None
    assert turns[3].at == EPOCH + timedelta(seconds=3)
    assert turns[3].stop_reason == "end_turn"
    assert turns[3].usage == usage


def test_forks_and_threads_of_a_session_are_branches(database: str) -> None:
    store(
        database,
        [
            make_turn(["q", "a"], 1, session()),
            make_turn(["q", "a", "r", "b"], 2, session()),
            make_turn(["q", "a", "s", "c"], 3, session()),
            make_turn(["another", "thread"], 4, session()),
        ],
    )
    found = conversation(database, "s1")
    assert said(found) == ["q a r b", "s c", "another thread"]
    assert [(b.from_branch, b.first_position) for b in found.branches] == [
        (None, 1),
        (1, 3),
        (None, 1),
    ]


def test_a_placeholder_has_children_and_no_messages(database: str) -> None:
    store(database, [make_turn("ab", 0, session("child", parent=("cursor", "never")))])
    found = conversation(database, "never")
    assert found.session.row.placeholder
    assert found.branches == ()
    assert [row.harness_session_id for row in found.children] == ["child"]
    assert conversation(database, "child").parent == found.session.row


def test_messages_without_a_session_are_history_of_nobody(database: str) -> None:
    store(database, [make_turn(["q", "a"], 0, None), make_turn(["q", "a", "r", "b"], 1, session())])
    found = conversation(database, "s1")
    assert said(found) == ["q a r b"]
    assert [node.session_id for node in found.branches[0].nodes[:2]] == [None, None]


def test_a_missing_parent_ends_the_walk(database: str) -> None:
    store(database, [make_turn(["q", "a", "r", "b"], 1, session())])
    with psycopg.connect(database) as conn:
        conn.execute("DELETE FROM nodes WHERE content -> 0 ->> 'text' = 'q'")
    found = conversation(database, "s1")
    assert said(found) == ["a r b"]
    assert found.branches[0].parent_missing


def test_a_session_that_is_its_own_parent_is_shown(database: str) -> None:
    store(database, [make_turn("ab", 0, session())])
    with psycopg.connect(database) as conn:
        conn.execute("UPDATE sessions SET parent_session_id = id")
    found = conversation(database, "s1")
    assert (found.parent, found.children) == (None, ())


def test_messages_without_a_turn_are_shown_as_well(database: str) -> None:
    store(database, [make_turn(["q", "a"], 1, session())])
    with psycopg.connect(database) as conn:
        conn.execute(
            "UPDATE nodes SET landings = 0, turn_session_id = NULL, role = NULL, model = NULL"
        )
    found = conversation(database, "s1")
    assert said(found) == ["q a"]
    assert [(n.role, n.model, n.turn) for n in found.branches[0].nodes] == [("", "", None)] * 2


@pytest.mark.parametrize("statement", [queries_module._CONVERSATION, queries_module._OPENINGS])
def test_a_walk_looks_nodes_up_by_key(database: str, statement: LiteralString) -> None:
    """A planner left to itself reads the whole table at each step: minutes for a long history."""
    words = [f"w{n}" for n in range(5_000)]
    store(
        database, [make_turn(words, 1, session("s1")), make_turn([*words, "x"], 2, session("s2"))]
    )
    with psycopg.connect(database) as conn:
        conn.execute("ANALYZE nodes")
        (session_id,) = conn.execute("SELECT id FROM sessions LIMIT 1").fetchone() or (None,)
        values = {"org": NIL_ORG, "id": session_id, "ids": [session_id] * PAGE_SIZE}
        plan = "\n".join(row[0] for row in conn.execute("EXPLAIN " + statement, values))
    walk = plan[plan.index("WorkTable Scan") :]
    assert "Index Scan using nodes_" in walk
    assert "Seq Scan on nodes" not in walk
    assert "Hash" not in walk


def test_a_long_conversation_is_read_whole(database: str) -> None:
    words = [f"w{n}" for n in range(5_000)]
    store(
        database, [make_turn(words, 1, session("s1")), make_turn([*words, "x"], 2, session("s2"))]
    )
    (branch,) = conversation(database, "s2").branches
    assert len(branch.nodes) == 5_001


def test_what_is_sensitive_is_never_read() -> None:
    assert not {field.name for field in fields(SessionRow)} & {"auth_subject", "harness_metadata"}


def test_a_schema_that_is_missing_is_refused_and_not_made(empty_database: str) -> None:
    with pytest.raises(SchemaError, match="no tapes schema"), open_queries(empty_database):
        pass
    with psycopg.connect(empty_database) as conn:
        assert conn.execute("SELECT to_regclass('sessions')").fetchone() == (None,)


def test_reads_cannot_write_and_see_one_moment(database: str) -> None:
    with open_queries(database) as queries:
        assert queries.sessions(EVERYTHING, 1) == []
        store(database, [make_turn("ab", 0, session())])
        assert queries.sessions(EVERYTHING, 1) == []
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), open_queries(database) as queries:
        _connection(queries).execute("DELETE FROM sessions")


def test_a_lost_connection_is_the_databases_fault(database: str) -> None:
    def lose() -> None:
        with open_queries(database) as queries:
            pid = _connection(queries).info.backend_pid
            with psycopg.connect(database) as conn:
                conn.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
            queries.sessions(EVERYTHING, 1)

    with pytest.raises(DatabaseUnavailableError, match="was lost"):
        lose()


def test_a_user_who_may_not_read_is_told_so(database: str) -> None:
    role = f"reader_{uuid4().hex}"

    def read() -> None:
        with open_queries(database) as queries:
            _connection(queries).execute(f"SET LOCAL ROLE {role}".encode())
            queries.sessions(EVERYTHING, 1)

    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute(f"CREATE ROLE {role}".encode())
        with pytest.raises(DatabaseUnavailableError, match="may not read"):
            read()
        conn.execute(f"DROP ROLE {role}".encode())


def _connection(queries: Queries) -> psycopg.Connection[Any]:
    return queries._conn
