"""What a `down` is said to lose, and what it loses."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tapes_cli.cli.migrate import plan_lines
from tapes_cli.errors import SchemaError
from tapes_cli.store.postgres.connect import connect
from tapes_cli.store.postgres.migration_plan import DownPlan, plan_down
from tapes_cli.store.postgres.migrations import (
    NO_SCHEMA,
    migrate_down,
    migrate_up,
)
from tests.support.schema import (
    ANCESTRY,
    CAPTURE_ORDER,
    IMPORT_STATE,
    LATEST,
    NEEDED_INDEXES,
    NIL,
    ORG_A,
    ORG_B,
    ORG_KEYS,
    OTHER,
    PARENT,
    SESSION_TRACKING,
    fingerprint,
    populate,
    query,
    version_rows,
)

EPOCH = datetime(2026, 5, 1, tzinfo=UTC)


def plan(dsn: str, target: int | None = None, steps: int | None = None) -> DownPlan:
    with connect(dsn) as conn:
        return plan_down(conn, target, steps=steps)


def test_the_plan_counts_what_goes(database: str) -> None:
    populate(database)
    query(
        database,
        "UPDATE nodes SET landings = 1, turn_at = created_at"
        f" WHERE org_id = '{ORG_A}' AND hash IN ('h2', 'h3')",
    )
    query(database, f"UPDATE sessions SET total_cost_usd = 0.123456 WHERE id = '{PARENT}'")
    found = plan(database, ANCESTRY)
    assert dataclasses.asdict(found) | {"steps": None} == {
        "current": LATEST,
        "target": ANCESTRY,
        "steps": None,
        "turns": 2,
        "turns_unmarked": 1,
        "costs_rounded": 1,
        "costs_too_large": 0,
        "values_too_long": 0,
        "captures": 0,
        "session_ids_shared": 0,
        "sessions": 3,
        "shared_hashes": 3,
        "nodes_collapsed": 4,
        "dangling_parents": 2,
        "nodes_unattributed": 3,
        "nodes_dropped": 0,
    }
    assert [step.version for step in found.steps] == [
        IMPORT_STATE,
        NEEDED_INDEXES,
        CAPTURE_ORDER,
        ORG_KEYS,
        SESSION_TRACKING,
    ]
    assert found.possible
    assert not found.lossless

    migrate_down(database, to=ANCESTRY, expected=LATEST)
    assert query(database, "SELECT hash, parent_hash FROM nodes ORDER BY hash") == [
        ("h1", None),
        ("h2", "h1"),
        ("h3", None),
        ("h4", "h2"),
        ("h5", None),
    ]
    assert query(database, "SELECT to_regclass('sessions')") == [(None,)]
    migrate_up(database)
    assert query(database, "SELECT hash FROM nodes WHERE landings = 1") == [("h2",)]


def test_the_plan_for_everything_counts_every_row(database: str) -> None:
    populate(database)
    found = plan(database, NO_SCHEMA)
    assert (found.nodes_collapsed, found.nodes_dropped, found.sessions) == (4, 5, 3)
    assert not found.lossless


_A_CAPTURE = (
    "INSERT INTO import_sources VALUES ('a', 'host', '/a', '', 1, 2, 3, 4, 'har', NULL, NULL,"
    " NULL, NULL, true, '0', 5, 6, 7, 8, '2026-05-01T00:00:00Z')"
)


def test_the_plan_for_one_step_counts_that_step(database: str) -> None:
    populate(database)
    query(database, _A_CAPTURE)
    found = plan(database)
    assert [step.version for step in found.steps] == [IMPORT_STATE]
    assert (found.lossless, found.captures) == (True, 1)
    assert plan_lines(found)[1:] == [
        "  1 captures will be read from their beginning by the next import"
    ]
    migrate_down(database)
    found = plan(database)
    assert [step.version for step in found.steps] == [NEEDED_INDEXES]
    assert found.lossless
    migrate_down(database)
    found = plan(database)
    assert [step.version for step in found.steps] == [CAPTURE_ORDER]
    assert found.lossless
    migrate_down(database)
    found = plan(database, steps=1)
    assert [step.version for step in found.steps] == [ORG_KEYS]
    assert found.lossless


def test_indexes_alone_lose_nothing_of_what_the_step_below_loses(database: str) -> None:
    populate(database)
    query(database, "UPDATE nodes SET landings = 1, turn_at = created_at WHERE hash = 'h3'")
    query(database, f"UPDATE sessions SET total_cost_usd = 1e9 WHERE id = '{PARENT}'")
    query(database, f"UPDATE sessions SET total_cost_usd = 0.123456 WHERE id = '{OTHER}'")
    rows = "SELECT to_jsonb(n) FROM nodes AS n ORDER BY org_id, hash"
    sessions = "SELECT to_jsonb(s) FROM sessions AS s ORDER BY org_id, id"
    before = (query(database, rows), query(database, sessions))

    found = plan(database, CAPTURE_ORDER)
    assert found == DownPlan(LATEST, CAPTURE_ORDER, found.steps)
    assert [step.version for step in found.steps] == [IMPORT_STATE, NEEDED_INDEXES]
    assert (found.lossless, found.possible) == (True, True)
    assert plan_lines(found) == ["Nothing that is stored will be lost."]
    further = plan(database, ORG_KEYS)
    assert (further.turns, further.costs_rounded, further.costs_too_large) == (2, 1, 1)
    assert (further.lossless, further.possible) == (False, False)

    migrate_down(database, to=CAPTURE_ORDER, expected=LATEST)
    assert (query(database, rows), query(database, sessions)) == before
    migrate_up(database)
    assert (query(database, rows), query(database, sessions)) == before


def test_there_is_nothing_to_plan_without_a_schema(empty_database: str) -> None:
    assert plan(empty_database) == DownPlan(None, NO_SCHEMA, ())


NODES = st.dictionaries(
    st.tuples(st.sampled_from([NIL, ORG_A, ORG_B]), st.sampled_from("abcd")),
    st.tuples(st.sampled_from([None, *"abcdxy"]), st.integers(0, 2), st.booleans()),
    max_size=12,
)


@given(nodes=NODES)
@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_whatever_is_stored_the_plan_is_what_goes(
    database: str, nodes: dict[tuple[object, str], tuple[str | None, int, bool]]
) -> None:
    migrate_up(database)
    query(database, "TRUNCATE nodes, sessions")
    with psycopg.connect(database) as conn:
        conn.cursor().executemany(
            "INSERT INTO nodes (org_id, hash, parent_hash, created_at, landings)"
            " VALUES (%s, %s, %s, %s, %s)",
            [
                (org, digest, parent, EPOCH + timedelta(days=day), int(landed))
                for (org, digest), (parent, day, landed) in nodes.items()
            ],
        )
    found = plan(database, ANCESTRY)
    unpaired = set(query(database, "SELECT hash, parent_hash FROM nodes"))
    migrate_down(database, to=ANCESTRY)
    left = query(database, "SELECT hash, parent_hash FROM nodes")
    assert found.turns == sum(landed for _, _, landed in nodes.values())
    assert found.nodes_collapsed == len(nodes) - len(left)
    # The parent of a remaining row is either one that was stored under its hash, or cut.
    assert {row for row in left if row[1]} <= unpaired
    hashes = {digest for _, digest in nodes}
    assert {digest for digest, _ in left} == hashes
    survivors = {
        digest: min(
            (org != NIL, day, org, parent)
            for (org, other), (parent, day, _) in nodes.items()
            if other == digest
        )[3]
        for digest in hashes
    }
    cut = {digest for digest, parent in left if parent != survivors[digest]}
    assert found.dangling_parents == len(cut)
    assert cut == {
        digest for digest, parent in survivors.items() if parent and parent not in hashes
    }


def test_a_session_id_of_two_orgs_stands_in_the_way(database: str) -> None:
    populate(database)
    query(
        database,
        "INSERT INTO sessions (id, org_id, auth_subject, harness_id, harness_session_id,"
        f" started_at, last_seen_at) VALUES ('{OTHER}', '{ORG_A}', '', 'h', 's', now(), now())",
    )
    found = plan(database, SESSION_TRACKING)
    assert (found.session_ids_shared, found.possible) == (1, False)
    before = fingerprint(database)
    with pytest.raises(SchemaError, match=r"1795305600_org_keys\.down\.sql: .*23505") as caught:
        migrate_down(database, to=ORG_KEYS) and migrate_down(database)
    assert str(OTHER) not in str(caught.value)
    assert version_rows(database) == [(ORG_KEYS, False)]
    migrate_up(database)
    assert fingerprint(database) == before


def test_a_cost_too_large_stands_in_the_way(database: str) -> None:
    migrate_down(database, to=CAPTURE_ORDER)
    populate(database)
    query(database, f"UPDATE sessions SET total_cost_usd = 99999999.99999 WHERE id = '{OTHER}'")
    found = plan(database)
    assert (found.costs_too_large, found.costs_rounded, found.possible) == (1, 1, False)
    before = fingerprint(database)
    with pytest.raises(SchemaError, match="22003"):
        migrate_down(database)
    assert fingerprint(database) == before


def test_tables_that_do_not_fit_their_version_cannot_be_planned_for(database: str) -> None:
    query(database, "ALTER TABLE nodes DROP COLUMN landings")
    with pytest.raises(SchemaError, match=f"not those of version {LATEST}"):
        plan(database, ORG_KEYS)


@pytest.mark.parametrize(
    ("table", "column"),
    [
        *(("nodes", c) for c in ("role", "model", "provider", "agent_name", "project")),
        ("sessions", "auth_subject"),
    ],
)
def test_a_value_too_long_for_an_older_index_stands_in_the_way(
    database: str, table: str, column: str
) -> None:
    populate(database)
    # Bytes that cannot be compressed, as in an index.
    noise = "SELECT string_agg(md5(n::text), '') FROM generate_series(1, 200) AS n"
    query(database, f"UPDATE {table} SET {column} = ({noise}) WHERE org_id = '{ORG_B}'")
    with connect(database) as conn:
        found = plan_down(conn, to_version := CAPTURE_ORDER)
    assert to_version == found.target
    assert found.values_too_long > 0
    assert found.lossless
    assert not found.possible
    with pytest.raises(SchemaError):
        migrate_down(database, to=CAPTURE_ORDER)
