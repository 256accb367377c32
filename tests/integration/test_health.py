"""Each thing that can be out of place, put out of place on a real server."""

from __future__ import annotations

import os
import socket
import time
from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tapes_cli.errors import DatabaseUnavailableError
from tapes_cli.inspection import health
from tapes_cli.inspection.health import Verdict, examine, exit_status
from tapes_cli.inspection.health.database import NAMES
from tapes_cli.settings import Connection
from tapes_cli.store.embedded import EmbeddedServer
from tapes_cli.store.postgres import health as store
from tapes_cli.store.postgres.health import HealthQueries
from tapes_cli.store.postgres.migrations import migrate_down

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tapes_cli.inspection.health import Check

FAST = {"fsync": "off"}


def look(dsn: str, folder: Path) -> dict[str, Check]:
    """Return the checks of a server that was named, by name."""
    return {check.name: check for check in examine(Connection(dsn, "--dsn"), folder)}


def verdicts(checks: dict[str, Check]) -> dict[str, Verdict]:
    """Return what is not ok, without the settings: those of the tests' server are for speed."""
    return {
        name: check.verdict
        for name, check in checks.items()
        if check.verdict is not Verdict.OK and name != "settings"
    }


def do(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        for statement in statements:
            conn.execute(statement.encode())


def row(dsn: str, query: str) -> Any:
    with psycopg.connect(dsn, autocommit=True) as conn:
        return conn.execute(query.encode()).fetchone()


def quoted_name(dsn: str) -> str:
    with psycopg.connect(dsn) as conn:
        return f'"{conn.info.dbname}"'


@pytest.fixture
def stranger(database: str) -> Iterator[str]:
    """Give the DSN of a user who may connect to the database, and nothing else."""
    name = f"Ann {os.getpid()}"
    do(database, f'CREATE ROLE "{name}" LOGIN')
    yield make_conninfo(database, user=name)
    do(database, f'DROP OWNED BY "{name}"', f'DROP ROLE "{name}"')


def test_a_server_that_is_in_order(database: str, tmp_path: Path) -> None:
    checks = look(database, tmp_path)
    assert list(checks) == ["program", "data_directory", *NAMES]
    assert verdicts(checks) == {}
    assert exit_status([*checks.values()]) == 0
    assert "(from --dsn)" in checks["connection"].found
    assert checks["encoding"].found == "UTF8"
    assert "import_leases" in checks["rights"].found
    assert "free on its disk" in checks["disk"].found
    assert "fsync" in checks["settings"].found


def test_nothing_is_changed(empty_database: str, tmp_path: Path) -> None:
    look(empty_database, tmp_path / "data")
    assert row(empty_database, "SELECT count(*) FROM pg_class WHERE relnamespace = 2200") == (0,)
    assert not (tmp_path / "data").exists()


def test_a_schema_that_is_missing(empty_database: str, tmp_path: Path) -> None:
    checks = look(empty_database, tmp_path)
    assert verdicts(checks) == {"schema": Verdict.FAILED}
    assert checks["schema"].exit_status == 6
    assert checks["schema"].remedy.startswith("Run: tapes-cli migrate up --dsn ")


def test_a_schema_that_is_behind(database: str, tmp_path: Path) -> None:
    migrate_down(database, 1)
    checks = look(database, tmp_path)
    assert verdicts(checks) == {"schema": Verdict.FAILED}
    assert "is behind: 1 of" in checks["schema"].found


@pytest.mark.parametrize(
    ("statement", "found", "remedy"),
    [
        ("UPDATE schema_migrations SET dirty = true", "is dirty", "by hand"),
        ("UPDATE schema_migrations SET version = version + 1", "does not know", "that fits"),
        ("ALTER TABLE schema_migrations DROP dirty", "another program", "another schema"),
    ],
)
def test_a_schema_that_is_not_ours(
    statement: str, found: str, remedy: str, database: str, tmp_path: Path
) -> None:
    do(database, statement)
    checks = look(database, tmp_path)
    assert verdicts(checks) == {"schema": Verdict.FAILED}
    assert checks["schema"].exit_status == 6
    assert found in checks["schema"].found
    assert remedy in checks["schema"].remedy


def test_a_user_without_rights(stranger: str, tmp_path: Path) -> None:
    checks = look(stranger, tmp_path)
    assert verdicts(checks) == {
        "schema": Verdict.FAILED,
        "rights": Verdict.FAILED,
        "import_lock": Verdict.WARNING,
    }
    assert exit_status([*checks.values()]) == 6
    assert "permission denied" not in str(checks)


def test_the_rights_that_are_named_are_enough(stranger: str, database: str, tmp_path: Path) -> None:
    remedy = look(stranger, tmp_path)["rights"].remedy
    do(database, remedy.partition("run: ")[2])
    checks = look(stranger, tmp_path)
    assert verdicts(checks) == {}
    # Where the data are is told to the privileged only.
    assert "not visible" in checks["disk"].found
    do(database, f'REVOKE UPDATE ON nodes FROM "Ann {os.getpid()}"')
    checks = look(stranger, tmp_path)
    assert verdicts(checks) == {"rights": Verdict.FAILED}
    assert checks["rights"].exit_status == 5
    assert "lacks UPDATE on nodes" in checks["rights"].found


def test_a_schema_that_may_not_be_used(stranger: str, database: str, tmp_path: Path) -> None:
    do(database, "REVOKE USAGE ON SCHEMA public FROM PUBLIC")
    checks = look(stranger, tmp_path)
    assert verdicts(checks) == {"schema": Verdict.FAILED, "rights": Verdict.FAILED}
    assert "may not use the schema public" in checks["rights"].found
    do(database, checks["rights"].remedy.partition("run: ")[2])
    assert "lacks" in look(stranger, tmp_path)["rights"].found


def test_a_user_who_may_not_migrate(stranger: str, database: str, tmp_path: Path) -> None:
    migrate_down(database, to=0)
    do(database, "GRANT SELECT ON schema_migrations TO PUBLIC")
    checks = look(stranger, tmp_path)
    assert verdicts(checks) == {"schema": Verdict.FAILED, "rights": Verdict.WARNING}
    assert "may not create tables in the schema public" in checks["rights"].found


def test_a_database_that_takes_no_writes(database: str, tmp_path: Path) -> None:
    do(database, f"ALTER DATABASE {quoted_name(database)} SET default_transaction_read_only = on")
    checks = look(database, tmp_path)
    assert verdicts(checks) == {"server": Verdict.FAILED}
    assert checks["server"].exit_status == 5


def test_a_database_of_bytes(postgres_server: str, tmp_path: Path) -> None:
    name = f"bytes_{os.getpid()}"
    do(
        postgres_server,
        f"CREATE DATABASE {name} TEMPLATE template0 ENCODING SQL_ASCII LOCALE_PROVIDER libc "
        "LOCALE 'C'",
    )
    try:
        checks = look(make_conninfo(postgres_server, dbname=name), tmp_path)
    finally:
        do(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")
    assert verdicts(checks) == {"encoding": Verdict.FAILED, "schema": Verdict.FAILED}
    assert checks["encoding"].exit_status == 1


@pytest.mark.parametrize(
    "setting",
    ["statement_timeout = '2s'", "transaction_timeout = 4999", "synchronous_commit = off"],
)
def test_settings_that_hurt(setting: str, database: str, tmp_path: Path) -> None:
    if setting.startswith("transaction") and row(database, "SHOW server_version_num") < ("17",):
        pytest.skip("this server has no such setting")
    do(database, f"ALTER DATABASE {quoted_name(database)} SET {setting}")
    checks = look(database, tmp_path)
    assert checks["settings"].verdict is Verdict.WARNING
    assert setting.partition(" ")[0] in checks["settings"].found
    assert verdicts(checks) == {}


def test_connections_are_counted(database: str) -> None:
    queries = HealthQueries(database)
    before = queries.connections()
    held = [psycopg.connect(database) for _ in range(5)]
    after = queries.connections()
    queries.close()
    for conn in held:
        conn.close()
    assert before.limit == after.limit == 97
    assert after.used >= before.used + 3  # others may leave meanwhile


def lease(seconds_ago: int) -> str:
    return (
        "INSERT INTO import_leases (name, holder, host, pid, process, started_at, renewed_at,"
        " seconds) VALUES ('import', gen_random_uuid(), 'night', 4711, '', now(),"
        f" now() - interval '{seconds_ago} s', 30)"
    )


def test_who_holds_the_import_lock(database: str, tmp_path: Path) -> None:
    assert look(database, tmp_path)["import_lock"].found == "free"
    do(database, lease(5))
    held = look(database, tmp_path)["import_lock"]
    assert held.verdict is Verdict.OK
    assert "held by process 4711 on night, since " in held.found
    do(database, "TRUNCATE import_leases", lease(31))
    gone = look(database, tmp_path)["import_lock"]
    assert gone.verdict is Verdict.WARNING
    assert "gone" in gone.found


@contextmanager
def holding(dsn: str, *statements: str) -> Iterator[int]:
    """Leave a transaction open; give the process that serves it."""
    with psycopg.connect(dsn, application_name="idler") as conn:
        for statement in statements:
            conn.execute(statement.encode())
        yield conn.info.backend_pid
        conn.rollback()


def test_locked_tables_are_not_waited_for(database: str, tmp_path: Path) -> None:
    tables = ", ".join(store.TABLES)
    with holding(database, f"LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE"):
        began = time.monotonic()
        checks = look(database, tmp_path)
        assert time.monotonic() - began < 10
    assert verdicts(checks) == {"schema": Verdict.FAILED, "import_lock": Verdict.WARNING}
    assert checks["schema"].exit_status == 7


def test_who_keeps_locks_is_named(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with holding(database, "UPDATE nodes SET role = role") as pid:
        assert verdicts(look(database, tmp_path)) == {}
        monkeypatch.setattr(store, "LONG_OPEN_SECONDS", 0)
        checks = look(database, tmp_path)
    assert verdicts(checks) == {"long_transactions": Verdict.WARNING}
    assert f"process {pid} (idler) for " in checks["long_transactions"].found
    with holding(database, "SELECT FROM nodes"):
        assert verdicts(look(database, tmp_path)) == {}


def test_no_server(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    checks = look(f"host=127.0.0.1 port={port} user=ann password=open-sesame", tmp_path)
    assert checks["connection"].verdict is Verdict.FAILED
    assert {checks[name].verdict for name in NAMES[1:]} == {Verdict.SKIPPED}
    assert exit_status([*checks.values()]) == 5
    assert "sesame" not in str(checks)


def test_a_dsn_that_cannot_be_read(tmp_path: Path) -> None:
    checks = look("postgresql://ann:open-sesame@[db/x", tmp_path)
    assert checks["connection"].verdict is Verdict.FAILED
    assert exit_status([*checks.values()]) == 2
    assert "sesame" not in str(checks)


def test_a_server_that_falls_silent_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "CONNECT_PATIENCE_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        checks = look(f"host=127.0.0.1 port={port} user=ann sslmode=disable", tmp_path)
    assert checks["connection"].found == "no answer for 0.3 s"
    assert checks["long_transactions"].verdict is Verdict.SKIPPED
    assert exit_status([*checks.values()]) == 5


def test_a_server_that_falls_silent_later(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = Event()

    def silent(_queries: HealthQueries) -> dict[str, str]:
        go_on.wait()
        return {}

    monkeypatch.setattr(health, "PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr(HealthQueries, "settings", silent)
    checks = look(database, tmp_path)
    go_on.set()
    assert checks["disk"].verdict is Verdict.OK
    assert checks["settings"].found == "no answer for 0.3 s"
    assert checks["import_lock"].verdict is Verdict.SKIPPED
    assert list(checks)[2:] == list(NAMES)


def test_a_connection_that_is_lost(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = HealthQueries.schema

    def lose(queries: HealthQueries) -> Any:
        do(database, f"SELECT pg_terminate_backend({queries._conn.info.backend_pid})")
        return ask(queries)

    monkeypatch.setattr(HealthQueries, "schema", lose)
    checks = look(database, tmp_path)
    assert checks["encoding"].verdict is Verdict.OK
    assert "lost" in checks["schema"].found
    assert checks["schema"].exit_status == 5
    assert {checks[name].verdict for name in NAMES[4:]} == {Verdict.SKIPPED}


def test_what_takes_too_long_is_ended(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "STATEMENT_SECONDS", 0.2)
    monkeypatch.setattr(store, "_SIZE", "SELECT pg_sleep(20)")
    monkeypatch.setattr(store, "_CONNECTIONS", "SELECT pg_sleep(20)")
    checks = look(database, tmp_path)
    assert verdicts(checks) == {"free_connections": Verdict.WARNING}
    assert "did not answer" in checks["free_connections"].found
    assert checks["disk"].found.endswith("free on its disk")
    assert "database" not in checks["disk"].found


def test_what_a_server_says_is_not_repeated(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_WRITES", "SELECT 'open-sesame'::integer")
    checks = look(database, tmp_path)
    assert verdicts(checks) == {"server": Verdict.FAILED, "encoding": Verdict.FAILED}
    assert "InvalidTextRepresentation, SQLSTATE 22P02" in checks["server"].found
    assert "sesame" not in str(checks)


def test_no_question_can_write(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_SETTINGS", "DELETE FROM nodes WHERE hash = ANY (%s)")
    queries = HealthQueries(database)
    with pytest.raises(store.UnansweredError, match="ReadOnlySqlTransaction"):
        queries.settings()
    queries.close()


def test_what_nobody_foresaw_is_not_swallowed(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_queries: HealthQueries) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(HealthQueries, "rights", fail)
    with pytest.raises(ZeroDivisionError):
        look(database, tmp_path)


def look_at_embedded(folder: Path) -> dict[str, Check]:
    return {check.name: check for check in examine(Connection(None, "embedded"), folder)}


def test_the_embedded_server_through_its_life(reachable_path: Path) -> None:
    folder = reachable_path / "data"
    checks = look_at_embedded(folder)
    assert list(checks) == ["program", "data_directory", "embedded_server", *NAMES]
    assert "the first import creates it" in checks["embedded_server"].found
    assert {checks[name].verdict for name in NAMES} == {Verdict.SKIPPED}
    assert exit_status([*checks.values()]) == 0
    assert not folder.exists()

    server = EmbeddedServer(folder, settings=FAST)
    with server.attach():
        checks = look_at_embedded(folder)
        assert "runs, pid " in checks["embedded_server"].found
        assert verdicts(checks) == {}
        assert "the next import brings it up to date" in checks["schema"].found
        assert "from" not in checks["connection"].found

    checks = look_at_embedded(folder)
    assert "is stopped" in checks["embedded_server"].found
    assert "server.log" in checks["embedded_server"].found
    assert {checks[name].verdict for name in NAMES} == {Verdict.SKIPPED}
    assert not server.status().running


def test_root_cannot_start_a_server_behind_a_closed_door(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("the server runs as whoever starts it")
    tmp_path.chmod(0o700)
    server = EmbeddedServer(tmp_path / "data")
    with pytest.raises(DatabaseUnavailableError, match="cannot enter"):
        server.check_startable()
    assert list(tmp_path.iterdir()) == []
