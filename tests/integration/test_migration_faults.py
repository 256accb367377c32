"""Migrations that are killed, refused, cut off, or meet others."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psycopg
import pytest

from tapes_cli.errors import DatabaseUnavailableError, MigrationLockedError, SchemaError
from tapes_cli.store.postgres import schema_status
from tapes_cli.store.postgres.connect import connect
from tapes_cli.store.postgres.migration_files import LOCK_KEY, load_migrations
from tapes_cli.store.postgres.migrations import (
    MigrationOptions,
    SchemaState,
    migrate_down,
    migrate_up,
    status,
)
from tests.support.schema import (
    CAPTURE_ORDER,
    LATEST,
    VERSIONS,
    fingerprint,
    query,
    version_rows,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE = 60.0
# Longer than any test: who waits for its end has lost.
FOR_EVER = "SELECT pg_sleep(3600);"
MIGRATE = """
import sys
from pathlib import Path
from tapes_cli.store.postgres.migrations import (
    MigrationOptions, load_migrations, migrate_down, migrate_up)
direction, dsn, folder = sys.argv[1:]
options = MigrationOptions(migrations=load_migrations(Path(folder)))
(migrate_up if direction == "up" else migrate_down)(dsn, options=options)
"""


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, looking again and again."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def write(folder: Path, version: int, up: str, down: str = "SELECT 1;") -> None:
    (folder / f"{version}_step.up.sql").write_text(up)
    (folder / f"{version}_step.down.sql").write_text(down)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three migrations, of which the second never ends in either direction."""
    write(tmp_path, 1, "CREATE TABLE first ();", "DROP TABLE first;")
    write(tmp_path, 2, f"CREATE TABLE half ();\n{FOR_EVER}", f"DROP TABLE half;\n{FOR_EVER}")
    write(tmp_path, 3, "CREATE TABLE third ();", "DROP TABLE third;")
    return tmp_path


@pytest.fixture
def watch(empty_database: str) -> Iterator[psycopg.Connection[tuple[int]]]:
    with psycopg.connect(empty_database, autocommit=True) as conn:
        yield conn


def options(folder: Path, lock_timeout: float | None = PATIENCE) -> MigrationOptions:
    return MigrationOptions(migrations=load_migrations(folder), lock_timeout=lock_timeout)


def sleeper(watch: psycopg.Connection[tuple[int]]) -> int | None:
    """Return the server process that sleeps in the middle of a migration."""
    row = watch.execute(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'tapes-cli'"
        " AND datname = current_database() AND wait_event = 'PgSleep'"
    ).fetchone()
    return row[0] if row else None


def waiting(watch: psycopg.Connection[tuple[int]]) -> int:
    """Return how many wait for the lock of those who migrate."""
    row = watch.execute(
        "SELECT count(*)::int FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    ).fetchone()
    return row[0] if row else 0


def kill_in_the_middle(
    watch: psycopg.Connection[tuple[int]], dsn: str, folder: Path, direction: str
) -> None:
    process = subprocess.Popen([sys.executable, "-c", MIGRATE, direction, dsn, str(folder)])
    try:
        until(lambda: sleeper(watch) is not None)
    finally:
        process.kill()
        assert process.wait() == -9


def test_killed_on_the_way_up_leaves_the_schema_as_it_was(
    empty_database: str, folder: Path, watch: psycopg.Connection[tuple[int]]
) -> None:
    kill_in_the_middle(watch, empty_database, folder, "up")
    write(folder, 2, "CREATE TABLE half ();", "DROP TABLE half;")
    until(lambda: sleeper(watch) is None)
    assert version_rows(empty_database) == [(1, False)]
    assert query(empty_database, "SELECT to_regclass('half')") == [(None,)]
    assert [step.version for step in migrate_up(empty_database, options=options(folder))] == [2, 3]


def test_killed_on_the_way_down_leaves_the_schema_as_it_was(
    empty_database: str, folder: Path, watch: psycopg.Connection[tuple[int]]
) -> None:
    write(folder, 2, "CREATE TABLE half ();", f"DROP TABLE half;\n{FOR_EVER}")
    migrate_up(empty_database, 2, options=options(folder))
    before = fingerprint(empty_database)
    kill_in_the_middle(watch, empty_database, folder, "down")
    until(lambda: sleeper(watch) is None)
    assert version_rows(empty_database) == [(2, False)]
    assert fingerprint(empty_database) == before
    assert query(empty_database, "SELECT to_regclass('half') IS NULL") == [(False,)]
    write(folder, 2, "CREATE TABLE half ();", "DROP TABLE half;")
    assert [step.version for step in migrate_down(empty_database, options=options(folder))] == [2]


def test_a_lost_connection_leaves_the_schema_as_it_was(
    empty_database: str, folder: Path, watch: psycopg.Connection[tuple[int]]
) -> None:
    with ThreadPoolExecutor() as pool:
        run = pool.submit(migrate_up, empty_database, options=options(folder))
        until(lambda: sleeper(watch) is not None)
        watch.execute("SELECT pg_terminate_backend(%s)", [sleeper(watch)])
        with pytest.raises(DatabaseUnavailableError, match="whole or not there") as caught:
            run.result()
    assert caught.value.exit_status == 5
    assert version_rows(empty_database) == [(1, False)]
    assert query(empty_database, "SELECT to_regclass('half')") == [(None,)]


def test_several_at_once_apply_each_migration_once(
    empty_database: str, database: str, watch: psycopg.Connection[tuple[int]]
) -> None:
    with ThreadPoolExecutor() as pool:
        with watch.transaction():
            watch.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK_KEY])
            runs = [pool.submit(migrate_up, empty_database) for _ in range(4)]
            until(lambda: waiting(watch) == len(runs))
        applied = [step.version for run in runs for step in run.result()]
    assert sorted(applied) == list(VERSIONS)
    assert version_rows(empty_database) == [(LATEST, False)]
    assert fingerprint(empty_database) == fingerprint(database)


@pytest.mark.parametrize("isolation", ["read committed", "serializable"])
def test_the_one_who_waited_finds_nothing_to_do(
    empty_database: str, folder: Path, watch: psycopg.Connection[tuple[int]], isolation: str
) -> None:
    write(folder, 2, "CREATE TABLE half ();")
    name = empty_database.rpartition("/")[2]
    query(
        empty_database,
        f"ALTER DATABASE {name} SET default_transaction_isolation = '{isolation}'",
    )
    with ThreadPoolExecutor() as pool:
        with watch.transaction():
            watch.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK_KEY])
            run = pool.submit(migrate_up, empty_database, options=options(folder))
            until(lambda: waiting(watch) == 1)
            watch.execute(
                "CREATE TABLE schema_migrations (version bigint PRIMARY KEY, dirty boolean)"
            )
            watch.execute("INSERT INTO schema_migrations VALUES (3, false)")
        assert run.result() == []


def test_a_failing_file_keeps_the_earlier_ones(empty_database: str, folder: Path) -> None:
    write(folder, 2, "CREATE TABLE half ();\nINSERT INTO half SELECT\nFROM nowhere;\n")
    announced: list[int] = []
    with pytest.raises(SchemaError) as caught:
        migrate_up(
            empty_database,
            options=MigrationOptions(
                load_migrations(folder), announce=lambda step: announced.append(step.version)
            ),
        )
    assert str(caught.value) == ('2_step.up.sql:3: relation "nowhere" does not exist (42P01).')
    assert announced == [1]
    assert version_rows(empty_database) == [(1, False)]
    assert query(empty_database, "SELECT to_regclass('half')") == [(None,)]
    write(folder, 2, "CREATE TABLE half ();")
    assert [step.version for step in migrate_up(empty_database, options=options(folder))] == [2, 3]


def test_the_first_file_failing_leaves_no_version_table(empty_database: str, folder: Path) -> None:
    write(folder, 1, "SELECT 1/0;")
    with pytest.raises(SchemaError, match=r"1_step\.up\.sql: division by zero \(22012\)"):
        migrate_up(empty_database, options=options(folder))
    assert query(empty_database, "SELECT to_regclass('schema_migrations')") == [(None,)]


def test_an_error_repeats_no_row(empty_database: str, folder: Path) -> None:
    write(
        folder,
        1,
        "CREATE TABLE first (a text PRIMARY KEY);"
        "INSERT INTO first VALUES ('private'), ('private');",
    )
    with pytest.raises(SchemaError) as caught:
        migrate_up(empty_database, options=options(folder))
    assert "23505" in str(caught.value)
    assert "private" not in str(caught.value) + caught.value.hint


def test_who_holds_the_lock_is_named(
    empty_database: str, watch: psycopg.Connection[tuple[int]]
) -> None:
    watch.execute("SET application_name = 'somebody'")
    with watch.transaction():
        watch.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK_KEY])
        with pytest.raises(MigrationLockedError) as caught:
            migrate_up(empty_database, options=MigrationOptions(lock_timeout=0))
    pid = watch.info.backend_pid
    assert str(caught.value).startswith(f"Process {pid} (somebody, since 20")
    assert caught.value.exit_status == 7
    assert status(empty_database).state is SchemaState.MISSING


def test_who_reads_in_the_way_is_named(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The step below it changes tables; the newest one makes indexes, which readers do not hinder.
    migrate_down(database, to=CAPTURE_ORDER)
    before = fingerprint(database)
    with psycopg.connect(database) as reader:
        reader.execute("SELECT count(*) FROM nodes")
        with pytest.raises(MigrationLockedError, match=f"Process {reader.info.backend_pid} "):
            migrate_down(database, options=MigrationOptions(lock_timeout=0.05))
        reader.rollback()
        reader.execute("LOCK TABLE schema_migrations")
        monkeypatch.setattr(schema_status, "_READ_TIMEOUT", 0.05)
        with pytest.raises(MigrationLockedError, match=f"Process {reader.info.backend_pid} "):
            status(database)
    assert fingerprint(database) == before


def test_a_holder_who_has_gone_is_not_named(database: str) -> None:
    with connect(database) as conn:
        conn.execute("SET application_name = ''")
        with (
            pytest.raises(MigrationLockedError, match=r"^Another process holds"),
            schema_status.explained(conn, 1),
        ):
            raise psycopg.errors.LockNotAvailable
    with (
        pytest.raises(MigrationLockedError, match=r"^Another process holds"),
        schema_status.explained(conn, 1),
    ):
        raise psycopg.errors.LockNotAvailable


def test_two_in_opposite_directions_do_not_chase_each_other(
    empty_database: str, folder: Path
) -> None:
    write(folder, 2, "CREATE TABLE half ();", "DROP TABLE half;")
    plain = options(folder)

    def back(_: object) -> None:
        migrate_down(empty_database, options=plain)

    def forth(_: object) -> None:
        migrate_up(empty_database, options=plain)

    with pytest.raises(SchemaError, match="now at version 0: somebody went the other way"):
        migrate_up(empty_database, options=MigrationOptions(plain.migrations, announce=back))
    migrate_up(empty_database, options=plain)
    with pytest.raises(SchemaError, match="now at version 3: somebody went the other way"):
        migrate_down(empty_database, 2, options=MigrationOptions(plain.migrations, announce=forth))


def test_a_plan_for_an_older_version_is_not_carried_out(database: str) -> None:
    with pytest.raises(SchemaError, match="somebody went the other way"):
        migrate_down(database, to=VERSIONS[0], expected=VERSIONS[2])
    assert version_rows(database) == [(LATEST, False)]


def test_settings_of_the_server_do_not_stop_a_migration(empty_database: str, folder: Path) -> None:
    write(folder, 2, "SELECT pg_sleep(0.2);")
    name = empty_database.rpartition("/")[2]
    for setting in (
        "statement_timeout = '50ms'",
        "default_transaction_isolation = 'serializable'",
        "default_transaction_read_only = on",
    ):
        query(
            empty_database,
            f"SET default_transaction_read_only = off; ALTER DATABASE {name} SET {setting}",
        )
    assert len(migrate_up(empty_database, options=options(folder))) == 3


def test_a_role_without_rights_can_look_and_is_refused_in_a_sentence(
    empty_database: str, database: str
) -> None:
    role = f"reader_{database.rpartition('/')[2]}"
    query(database, f"CREATE ROLE {role}")
    try:
        query(database, f"GRANT SELECT ON schema_migrations TO {role}")
        restricted = psycopg.conninfo.make_conninfo(database, options=f"-c role={role}")
        assert migrate_up(restricted) == []
        with pytest.raises(SchemaError, match=r"permission denied .*42501"):
            migrate_down(restricted)
        query(empty_database, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        restricted = psycopg.conninfo.make_conninfo(empty_database, options=f"-c role={role}")
        with pytest.raises(SchemaError, match=r"permission denied .*42501"):
            migrate_up(restricted)
    finally:
        query(database, f"DROP OWNED BY {role}")
        query(database, f"DROP ROLE {role}")
    assert fingerprint(empty_database) == set()
