"""The schema up and down, on empty and on populated databases."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import psycopg
import pytest

from tapes_cli.errors import SchemaError, UsageError
from tapes_cli.store.base import OutcomeKind
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
from tapes_cli.store.postgres.queries import SessionFilter, open_queries
from tapes_cli.store.postgres.store import PostgresStore
from tests.support.schema import (
    ANCESTRY,
    BASELINE,
    CAPTURE_ORDER,
    FLUSH_COUNTERS,
    IMPORT_STATE,
    LATEST,
    NEEDED_INDEXES,
    ORG_A,
    ORG_KEYS,
    SESSION_TRACKING,
    VERSIONS,
    fingerprint,
    populate,
    populate_baseline,
    populate_widely,
    query,
    version_rows,
)
from tests.support.turns import make_turn, session

if TYPE_CHECKING:
    from uuid import UUID

    from tapes_cli.store.base import ChainedTurn


def plan(dsn: str) -> DownPlan:
    with connect(dsn) as conn:
        return plan_down(conn)


INDEXES = {
    "nodes_pkey",
    "nodes_session_idx",
    "nodes_turn_idx",
    "sessions_pkey",
    "sessions_harness_uq",
    "sessions_org_lastseen_idx",
    "sessions_parent_idx",
}

REFERENCE_TABLE = (
    "CREATE TABLE schema_migrations (version bigint NOT NULL PRIMARY KEY, dirty boolean NOT NULL)"
)


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
    assert version_rows(empty_database) == [(LATEST, False)]
    before = fingerprint(empty_database)
    assert migrate_up(empty_database) == []
    assert fingerprint(empty_database) == before
    assert version_rows(empty_database) == [(LATEST, False)]


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
    assert [step.version for step in migrate_down(database, 2)] == [IMPORT_STATE, NEEDED_INDEXES]
    assert [step.version for step in migrate_down(database, 99)] == [
        CAPTURE_ORDER,
        ORG_KEYS,
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
    assert version_rows(empty_database) == [(LATEST, False)]
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
    assert status(database).state is SchemaState.CURRENT


def test_a_database_can_be_checked_by_its_dsn(database: str) -> None:
    migrations.check_current(database)
    migrate_down(database)
    with pytest.raises(SchemaError, match=f"1 of {len(VERSIONS)} migrations"):
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
        pytest.raises(
            SchemaError, match=f"2 of {len(VERSIONS)} migrations are not applied"
        ) as caught,
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
        migrate_down(database, to=LATEST)
    with pytest.raises(UsageError, match="1 or more"):
        migrate_down(database, 0)
    assert status(database).current == NEEDED_INDEXES


def test_there_is_no_index_beyond_those_that_are_needed(database: str) -> None:
    found = query(
        database,
        "SELECT indexname FROM pg_indexes"
        " WHERE schemaname = 'public' AND tablename IN ('nodes', 'sessions')",
    )
    assert {name for (name,) in found} == INDEXES


def ingest(dsn: str, *turns: ChainedTurn) -> list[OutcomeKind]:
    """Import turns through a store that knows nothing of the database yet."""
    with closing(PostgresStore(dsn)) as store:
        outcomes = store.ingest(turns)
        store._conn.execute(FLUSH_COUNTERS)
    return [outcome.kind for outcome in outcomes]


def read_everything(dsn: str, org_id: UUID) -> None:
    """Run the queries that `sessions list` and `sessions show` run in an org."""
    with open_queries(dsn) as queries:
        page = queries.sessions(SessionFilter(org_id=org_id), 20)
        assert len(page) == 20
        child = next(row for row in page if row.parent_session_id)
        assert child.parent_session_id is not None
        (parent,) = queries.relatives(child, [child.parent_session_id])
        assert len(queries.relatives(parent, [])) == 9
        assert len(queries.openings(org_id, [row.id for row in page])) == 20
        assert len(queries.conversation(child)) == 4
        queries._conn.execute(FLUSH_COUNTERS)


def test_each_index_serves_a_query_of_the_program(database: str) -> None:
    populate_widely(database)
    envelope = session("known", parent=("claude", "its parent"), org_id=ORG_A)
    known, new = make_turn("ab", 1, envelope), make_turn("abcd", 2, envelope)
    assert ingest(database, known) == [OutcomeKind.STORED]
    query(database, "SELECT pg_stat_reset()")
    assert ingest(database, known, new) == [OutcomeKind.DUPLICATE, OutcomeKind.STORED]
    read_everything(database, ORG_A)
    scans = dict(
        query(
            database,
            "SELECT indexrelname, idx_scan FROM pg_stat_user_indexes"
            " WHERE schemaname = 'public' AND relname IN ('nodes', 'sessions')",
        )
    )
    assert {name for name, count in scans.items() if not count} == set()
    assert set(scans) == INDEXES


def test_an_up_to_an_older_version_does_nothing(database: str) -> None:
    assert migrate_up(database, BASELINE) == []
    assert migrations.resolve_pending(status(database), BASELINE) == []
