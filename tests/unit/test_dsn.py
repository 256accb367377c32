"""What is said of a DSN: where it leads, and nothing secret."""

from __future__ import annotations

from urllib.parse import quote

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import make_conninfo

from tapes_cli.errors import UsageError
from tapes_cli.store.postgres import connect as module
from tapes_cli.store.postgres.connect import connect, describe

SECRET = "open%20sesame"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOST", "HOSTADDR", "PORT", "USER", "DATABASE", "SERVICE", "PASSWORD"):
        monkeypatch.delenv(f"PG{name}", raising=False)


@pytest.mark.parametrize(
    ("dsn", "said"),
    [
        ("postgresql://ann:s@db.example:5433/tapes", "database tapes at db.example:5433 as ann"),
        (
            "postgresql://ann@db.example/tapes?password=s&sslmode=require",
            "database tapes at db.example:5432 as ann",
        ),
        ("postgresql:///tapes?host=/run/pg&user=ann", "database tapes at /run/pg:5432 as ann"),
        ("host=a,b port=1,2 dbname=tapes user=ann", "database tapes at a:1,b:2 as ann"),
        ("host=a,b port=7 dbname=tapes user=ann", "database tapes at a:7,b:7 as ann"),
        ("hostaddr=127.0.0.1 user=ann password=s", "database ann at 127.0.0.1:5432 as ann"),
        ("dbname=tapes user=ann password=s", "database tapes at the local socket as ann"),
        ("service=prod dbname=tapes user=ann", "database tapes at service prod as ann"),
        # What an unescaped @ or / of a password does to a URI.
        ("postgresql://ann:s@cret@db.example/tapes", "database tapes at db.example:5432 as ann"),
        ("postgresql://ann:12/s@db.example/tapes?user=x", "database db.example/tapes at ann as x"),
        ("nonsense " + SECRET, "a database whose DSN cannot be read"),
        ("postgresql://ann:%zz@db/tapes", "a database whose DSN cannot be read"),
        ("host=\udc80", "a database whose DSN cannot be read"),
    ],
)
def test_a_description_says_where_a_dsn_leads(dsn: str, said: str) -> None:
    assert describe(dsn) == said


def test_an_empty_dsn_leads_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "db.example")
    monkeypatch.setenv("PGPORT", "6000")
    monkeypatch.setenv("PGDATABASE", "tapes")
    monkeypatch.setenv("PGUSER", "ann")
    monkeypatch.setenv("PGPASSWORD", SECRET)
    assert describe("") == "database tapes at db.example:6000 as ann"


PASSWORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=6)


@given(password=PASSWORDS)
def test_a_description_never_holds_a_password(password: str) -> None:
    known = describe("postgresql://ann@db.example/tapes")
    assert (
        describe(make_conninfo("host=db.example dbname=tapes user=ann", password=password)) == known
    )
    quoted = quote(password, safe="")
    assert describe(f"postgresql://ann:{quoted}@db.example/tapes") == known
    assert describe(f"postgresql://ann@db.example/tapes?password={quoted}") == known


@pytest.mark.parametrize(
    "dsn", ["nonsense " + SECRET, f"postgresql://ann:{SECRET}%zz@db/tapes", "host=\udc80"]
)
def test_a_dsn_that_cannot_be_read_is_not_repeated(dsn: str) -> None:
    with pytest.raises(UsageError) as caught:
        connect(dsn)
    assert SECRET not in str(caught.value) + caught.value.hint
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_bad_value_in_a_dsn_is_not_repeated() -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        connect("host=127.0.0.1 connect_timeout=soon")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ('FATAL:  database "x" does not exist', "there is no such database"),
        ('FATAL:  role "x" does not exist', "the server does not know this user"),
        ('FATAL:  password authentication failed for user "x"', "refuses this user or"),
        ("fe_sendauth: no password supplied", "asks for a password"),
        ('FATAL:  no pg_hba.conf entry for host "1.2.3.4"', "lets nobody in"),
        ('FATAL:  Peer authentication failed for user "x"', "refuses this user"),
        ("failed to resolve host 'x': [Errno -2]", "no such host"),
        ("Connection refused\n\tIs the server running?", "no server listens"),
        ("No such file or directory", "no server listens"),
        ("FATAL:  sorry, too many clients already", "all connections of the server are taken"),
        ("FATAL:  the database system is starting up", "starting or stopping"),
        ("timeout expired", "no answer in time"),
        ("FATAL:  die Datenbank ist weg", "FATAL:  die Datenbank ist weg"),
        ("", "the connection failed"),
        (f"something about {SECRET}", "the connection failed"),
    ],
)
def test_a_failure_to_connect_is_explained(said: str, reason: str) -> None:
    error = psycopg.OperationalError(f'connection to server at "h", port 1 failed: {said}')
    explained, _ = module._explain(error, {"password": SECRET})
    assert reason in explained
    assert SECRET not in explained


def test_a_timeout_is_explained() -> None:
    reason, hint = module._explain(psycopg.errors.ConnectionTimeout("x"), {})
    assert reason == "no answer in time"
    assert hint


def test_nothing_is_repeated_of_a_uri_that_was_cut_in_its_password() -> None:
    error = psycopg.OperationalError("connection failed: some words about cret")
    assert module._explain(error, {"host": "cret@h"})[0] == "the connection failed"
