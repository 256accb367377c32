"""Connections to a real server, and to none."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tapes_cli.errors import DatabaseUnavailableError
from tapes_cli.store.postgres import connect as module
from tapes_cli.store.postgres.connect import connect, describe, naming_option

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_connection_names_itself_and_speaks_utf8_in_utc(database: str) -> None:
    with connect(database) as conn:
        assert conn.autocommit
        row = conn.execute(
            "SELECT current_setting('application_name'), current_setting('client_encoding'),"
            " current_setting('TimeZone'), current_setting('search_path')"
        ).fetchone()
        assert row == ("tapes-cli", "UTF8", "UTC", '"$user", public')


def test_without_autocommit_the_settings_survive_a_rollback(database: str) -> None:
    with connect(database, autocommit=False) as conn:
        conn.rollback()
        assert conn.execute("SHOW TimeZone").fetchone() == ("UTC",)
        assert conn.info.transaction_status is psycopg.pq.TransactionStatus.INTRANS


def test_the_search_path_of_the_dsn_is_kept(database: str) -> None:
    with connect(make_conninfo(database, options="-c search_path=elsewhere")) as conn:
        assert conn.execute("SHOW search_path").fetchone() == ("elsewhere",)


def test_the_libpq_environment_is_enough(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = conninfo_to_dict(database)
    for variable, key in (("PGHOST", "host"), ("PGDATABASE", "dbname"), ("PGUSER", "user")):
        monkeypatch.setenv(variable, str(given[key]))
    with connect("") as conn:
        assert conn.info.dbname == given["dbname"]
    assert describe("") == describe(database)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dbname": "nowhere"}, "there is no such database"),
        ({"user": "nobody-known"}, "the server does not know this user"),
        ({"host": "/nonexistent"}, "no server listens there"),
        ({"sslmode": "sometimes"}, 'invalid sslmode value: "sometimes"'),
    ],
)
def test_why_there_is_no_connection_is_said(
    database: str, change: dict[str, str], reason: str
) -> None:
    dsn = make_conninfo(database, **(change | {"password": "open-sesame"}))
    with pytest.raises(DatabaseUnavailableError) as caught:
        connect(dsn)
    assert str(caught.value) == f"Cannot connect to {describe(dsn)}: {reason}."
    assert caught.value.hint
    assert "sesame" not in str(caught.value) + caught.value.hint
    assert caught.value.exit_status == 5


def test_a_refused_connection_names_host_and_port(deaf_port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert port != deaf_port
    with pytest.raises(DatabaseUnavailableError, match=f"at 127.0.0.1:{port} as ann: no server"):
        connect(f"host=127.0.0.1 port={port} user=ann password=open-sesame")


def test_a_silent_server_is_given_up(deaf_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # libpq rounds one second up to two.
    monkeypatch.setattr(module, "CONNECT_TIMEOUT", 2)
    monkeypatch.delenv("PGCONNECT_TIMEOUT", raising=False)
    with pytest.raises(DatabaseUnavailableError, match="no answer in time"):
        connect(f"host=127.0.0.1 port={deaf_port} user=ann sslmode=disable")


def test_a_time_limit_that_was_given_is_kept(database: str) -> None:
    with connect(make_conninfo(database, connect_timeout=77)) as conn:
        assert conn.info.get_parameters()["connect_timeout"] == "77"
    with connect(database) as conn:
        assert conn.info.get_parameters()["connect_timeout"] == "10"


def test_a_server_lost_at_once_is_unavailable() -> None:
    welcome = b"R\0\0\0\x08\0\0\0\0" + b"Z\0\0\0\x05I"

    def greet_and_leave(server: socket.socket) -> None:
        accepted, _ = server.accept()
        with accepted:
            accepted.recv(4096)
            accepted.sendall(welcome)
            accepted.recv(4096)

    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor() as pool:
        pool.submit(greet_and_leave, server)
        port = server.getsockname()[1]
        with pytest.raises(DatabaseUnavailableError, match=f"Cannot connect to .*:{port} as ann"):
            connect(f"host=127.0.0.1 port={port} user=ann sslmode=disable")


def test_a_naming_option_leads_to_the_same_place_without_secrets(
    database: str, tmp_path: Path
) -> None:
    secret = make_conninfo(
        database, password="open-sesame", passfile=str(tmp_path / "pass"), options="-c work_mem=4MB"
    )
    with connect(secret) as conn:
        option = naming_option(conn)
    assert "sesame" not in option
    assert "application_name" not in option
    with connect(option) as conn:
        assert conn.execute("SELECT current_setting('work_mem')").fetchone() == ("4MB",)
        assert conn.info.dbname == conninfo_to_dict(database)["dbname"]
