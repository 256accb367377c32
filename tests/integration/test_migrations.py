"""The schema up and down, on empty and on populated databases."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tapes_cli.errors import SchemaError, UsageError
from tapes_cli.store.postgres import migrations
from tapes_cli.store.postgres.connect import connect
from tapes_cli.store.postgres.migration_files import Direction, load_migrations, script
from tapes_cli.store.postgres.migration_plan import DownPlan, plan_down
from tapes_cli.store.postgres.migrations import (
    NO_SCHEMA,
    SchemaState,
    migrate_down,
    migrate_up,
    require_current,
    status,
)
from tests.support.schema import (
    ANCESTRY,
    BASELINE,
    CAPTURE_ORDER,
    NIL,
    ORG_A,
    ORG_B,
    ORG_KEYS,
    OTHER,
    PARENT,
    SESSION_TRACKING,
    VERSIONS,
    fingerprint,
    populate,
    populate_baseline,
    query,
    version_rows,
)

EPOCH = datetime(2026, 5, 1, tzinfo=UTC)
REFERENCE_TABLE = (
    "CREATE TABLE schema_migrations (version bigint NOT NULL PRIMARY KEY, dirty boolean NOT NULL)"
)


def plan(dsn: str, target: int | None = None, steps: int | None = None) -> DownPlan:
    with connect(dsn) as conn:
        return plan_down(conn, target, steps=steps)


def make_reference(dsn: str, version: int) -> None:
    """Make the database as the reference service does, up to one of its versions."""
    with psycopg.connect(dsn) as conn:
        conn.execute(REFERENCE_TABLE.encode())
        for migration in load_migrations():
            if migration.version <= version:
                conn.execute(migration.up.encode())
        conn.execute("INSERT INTO schema_migrations VALUES (%s, false)", [version])


def test_up_applies_everything_and_a_second_time_nothing(empty_database: str) -> None:
    assert [step.version for step in migrate_up(empty_database)] == list(VERSIONS)
    assert version_rows(empty_database) == [(CAPTURE_ORDER, False)]
    before = fingerprint(empty_database)
    assert migrate_up(empty_database) == []
    assert fingerprint(empty_database) == before
    assert version_rows(empty_database) == [(CAPTURE_ORDER, False)]


def test_down_to_nothing_leaves_an_empty_version_table(database: str) -> None:
    undone = migrate_down(database, to=NO_SCHEMA)
    assert [step.version for step in undone] == list(reversed(VERSIONS))
    assert version_rows(database) == []
    assert fingerprint(database) == set()
    assert status(database).state is SchemaState.MISSING
    assert migrate_down(database) == []


def test_down_on_a_database_without_schema_leaves_no_table(empty_database: str) -> None:
    assert migrate_down(empty_database) == []
    assert query(empty_database, "SELECT to_regclass('schema_migrations')") == [(None,)]


def test_each_down_restores_what_its_up_found(empty_database: str) -> None:
    seen = [fingerprint(empty_database)]
    for version in VERSIONS:
        assert [step.version for step in migrate_up(empty_database, version)] == [version]
        assert version_rows(empty_database) == [(version, False)]
        seen.append(fingerprint(empty_database))
    for before, version, after in zip(
        reversed(seen[:-1]), reversed(VERSIONS), reversed(seen[1:]), strict=True
    ):
        assert fingerprint(empty_database) == after
        assert [step.version for step in migrate_down(empty_database)] == [version]
        assert fingerprint(empty_database) == before
    migrate_up(empty_database)
    assert fingerprint(empty_database) == seen[-1]


@pytest.mark.parametrize("version", VERSIONS)
def test_each_pair_goes_down_and_up_from_scratch(empty_database: str, version: int) -> None:
    migrate_up(empty_database, version)
    before = fingerprint(empty_database)
    below = max((older for older in VERSIONS if older < version), default=NO_SCHEMA)
    migrate_down(empty_database, to=below)
    assert (status(empty_database).current or NO_SCHEMA) == below
    migrate_up(empty_database, version)
    assert fingerprint(empty_database) == before


def test_steps_count_migrations(database: str) -> None:
    assert [step.version for step in migrate_down(database, 2)] == [CAPTURE_ORDER, ORG_KEYS]
    assert [step.version for step in migrate_down(database, 99)] == [
        SESSION_TRACKING,
        ANCESTRY,
        BASELINE,
    ]


@pytest.mark.parametrize("target", [NO_SCHEMA, *VERSIONS[:-1]])
def test_down_then_up_on_a_populated_database(database: str, target: int) -> None:
    before = fingerprint(database)
    populate(database)
    migrate_down(database, to=target)
    migrate_up(database)
    assert fingerprint(database) == before
    assert status(database).state is SchemaState.CURRENT


def test_what_can_be_kept_survives_down_and_up(database: str) -> None:
    populate(database)
    query(database, "UPDATE nodes SET landings = 1 WHERE stop_reason IS NOT NULL")
    columns = "org_id, hash, parent_hash, session_id, stop_reason, landings, created_at"
    nodes = query(database, f"SELECT {columns} FROM nodes ORDER BY org_id, hash")
    sessions = query(
        database,
        "SELECT id, org_id, parent_session_id, auth_subject, total_cost_usd, harness_metadata"
        " FROM sessions ORDER BY id",
    )
    migrate_down(database, to=SESSION_TRACKING)
    migrate_up(database)
    assert query(database, f"SELECT {columns} FROM nodes ORDER BY org_id, hash") == nodes
    assert sessions == query(
        database,
        "SELECT id, org_id, parent_session_id, auth_subject, total_cost_usd, harness_metadata"
        " FROM sessions ORDER BY id",
    )


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
        "current": CAPTURE_ORDER,
        "target": ANCESTRY,
        "steps": None,
        "turns": 2,
        "turns_unmarked": 1,
        "costs_rounded": 1,
        "costs_too_large": 0,
        "session_ids_shared": 0,
        "sessions": 3,
        "shared_hashes": 3,
        "nodes_collapsed": 4,
        "dangling_parents": 2,
        "nodes_unattributed": 3,
        "nodes_dropped": 0,
    }
    assert [step.version for step in found.steps] == [CAPTURE_ORDER, ORG_KEYS, SESSION_TRACKING]
    assert found.possible
    assert not found.lossless

    migrate_down(database, to=ANCESTRY, expected=CAPTURE_ORDER)
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


def test_the_plan_for_one_step_counts_that_step(database: str) -> None:
    populate(database)
    found = plan(database)
    assert [step.version for step in found.steps] == [CAPTURE_ORDER]
    assert found.lossless
    migrate_down(database)
    found = plan(database, steps=1)
    assert [step.version for step in found.steps] == [ORG_KEYS]
    assert found.lossless


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


@pytest.mark.parametrize("version", VERSIONS[:3])
def test_a_database_of_the_reference_service_is_migrated_on(
    empty_database: str, version: int
) -> None:
    make_reference(empty_database, version)
    if version < SESSION_TRACKING:
        populate_baseline(empty_database)
    else:
        populate(empty_database)
    before = query(empty_database, "SELECT hash, parent_hash, stop_reason FROM nodes ORDER BY 1")
    found = status(empty_database)
    assert (found.current, found.state) == (version, SchemaState.BEHIND)
    assert [step.version for step in migrate_up(empty_database)] == [
        newer for newer in VERSIONS if newer > version
    ]
    assert version_rows(empty_database) == [(CAPTURE_ORDER, False)]
    after = query(empty_database, "SELECT hash, parent_hash, stop_reason FROM nodes ORDER BY 1")
    assert after == before
    assert query(empty_database, "SELECT hash FROM nodes WHERE landings = 1") == [("h2",)]


def test_a_reference_database_upgraded_equals_one_made_here(
    empty_database: str, database: str
) -> None:
    make_reference(empty_database, SESSION_TRACKING)
    migrate_up(empty_database)
    assert fingerprint(empty_database) == fingerprint(database)


@pytest.mark.parametrize("version", [1, SESSION_TRACKING + 1, 1999999999])
def test_an_unknown_version_is_left_alone(empty_database: str, version: int) -> None:
    query(empty_database, REFERENCE_TABLE)
    query(empty_database, f"INSERT INTO schema_migrations VALUES ({version}, false)")
    assert status(empty_database).state is SchemaState.AHEAD
    for attempt in (migrate_up, migrate_down, plan):
        with pytest.raises(SchemaError, match=f"at version {version}, which this tapes-cli does"):
            attempt(empty_database)
    assert version_rows(empty_database) == [(version, False)]
    assert fingerprint(empty_database) == set()


def test_a_dirty_schema_is_left_alone(database: str) -> None:
    query(database, f"UPDATE schema_migrations SET version = {ORG_KEYS}, dirty = true")
    found = status(database)
    assert (found.state, found.dirty) == (SchemaState.DIRTY, True)
    for attempt in (migrate_up, migrate_down, plan):
        with pytest.raises(SchemaError, match=f"half-way through migration {ORG_KEYS}") as caught:
            attempt(database)
        assert "dirty = false" in caught.value.hint
    assert version_rows(database) == [(ORG_KEYS, True)]


def test_the_version_table_of_another_program_is_refused(empty_database: str) -> None:
    query(empty_database, "CREATE TABLE schema_migrations (version varchar PRIMARY KEY)")
    for attempt in (status, migrate_up, migrate_down):
        with pytest.raises(SchemaError, match="belongs to another program"):
            attempt(empty_database)


def test_several_versions_at_once_are_refused(database: str) -> None:
    query(database, "INSERT INTO schema_migrations VALUES (1, false)")
    with pytest.raises(SchemaError, match="several versions"):
        status(database)


def test_a_current_schema_is_good_to_work_on(database: str) -> None:
    with connect(database) as conn:
        require_current(conn)


def test_a_database_can_be_checked_by_its_dsn(database: str) -> None:
    migrations.check_current(database)
    migrate_down(database)
    with pytest.raises(SchemaError, match="1 of 5 migrations"):
        migrations.check_current(database, origin="TAPES_DSN")


def test_a_missing_schema_names_the_command(empty_database: str) -> None:
    with connect(empty_database) as conn, pytest.raises(SchemaError, match="no tapes schema") as e:
        require_current(conn, origin="TAPES_DSN")
    assert e.value.hint == "Run: tapes-cli migrate up"
    assert e.value.exit_status == 6


def test_a_schema_that_is_behind_names_the_command_without_the_password(database: str) -> None:
    migrate_down(database, 2)
    with (
        connect(psycopg.conninfo.make_conninfo(database, password="open sesame")) as conn,
        pytest.raises(SchemaError, match="2 of 5 migrations are not applied") as caught,
    ):
        require_current(conn, origin="--dsn")
    hint = caught.value.hint
    assert hint.startswith("Run: tapes-cli migrate up --dsn '")
    assert f"dbname={database.rpartition('/')[2].partition('?')[0]}" in hint
    assert "sesame" not in hint
    assert hint.endswith("(a password is left out here)")


def test_a_schema_that_is_ahead_names_no_command(database: str) -> None:
    query(database, "UPDATE schema_migrations SET version = 1999999999")
    with connect(database) as conn, pytest.raises(SchemaError, match="newer tapes-cli") as caught:
        require_current(conn, origin="--dsn")
    assert "migrate up" not in caught.value.hint


def test_reading_the_version_leaves_a_transaction_as_it_was(database: str) -> None:
    with connect(database, autocommit=False) as conn:
        before = conn.execute("SHOW lock_timeout").fetchone()
        require_current(conn)
        assert conn.execute("SHOW lock_timeout").fetchone() == before


def test_the_printed_sql_does_what_up_does(empty_database: str, database: str) -> None:
    with psycopg.connect(empty_database, autocommit=True) as conn:
        conn.execute(script(load_migrations(), Direction.UP, None).encode())
    assert fingerprint(empty_database) == fingerprint(database)
    assert version_rows(empty_database) == version_rows(database)


def test_the_printed_sql_does_what_down_does(database: str) -> None:
    steps = status(database).applied[:1:-1]
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute(script(steps, Direction.DOWN, ANCESTRY).encode())
    assert version_rows(database) == [(ANCESTRY, False)]
    printed = fingerprint(database)
    migrate_up(database)
    migrate_down(database, to=ANCESTRY)
    assert fingerprint(database) == printed
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute(script(status(database).applied[::-1], Direction.DOWN, None).encode())
    assert version_rows(database) == []


def test_unknown_targets_are_refused(database: str) -> None:
    migrate_down(database)
    with pytest.raises(UsageError, match="no migration 7"):
        migrate_up(database, 7)
    with pytest.raises(UsageError, match="no migration 7"):
        migrate_down(database, to=7)
    with pytest.raises(UsageError, match="older than version"):
        migrate_down(database, to=CAPTURE_ORDER)
    with pytest.raises(UsageError, match="1 or more"):
        migrate_down(database, 0)
    assert status(database).current == ORG_KEYS


def test_an_up_to_an_older_version_does_nothing(database: str) -> None:
    assert migrate_up(database, BASELINE) == []
    assert migrations.resolve_pending(status(database), BASELINE) == []


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
    with pytest.raises(SchemaError, match="not those of version"):
        plan(database)
