"""What a server can be asked about its fitness: each question short, bounded and read-only.

What is asked of is the catalogue, which nobody locks for long; of the tables only two small ones
are read, and a lock on them is waited for no longer than `LOCK_SECONDS`. What a server says of its
own errors is never repeated: it is told by SQLSTATE.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg

from tapes_cli.errors import (
    DatabaseUnavailableError,
    MigrationLockedError,
    SchemaError,
    TapesError,
)
from tapes_cli.store.postgres.connect import connect
from tapes_cli.store.postgres.migration_files import load_migrations
from tapes_cli.store.postgres.retry import Fault, fault
from tapes_cli.store.postgres.schema_status import read_version, remedy_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from tapes_cli.store.postgres.schema_status import SchemaStatus

STATEMENT_SECONDS = 5.0
"""How long the server may think about one question."""

LOCK_SECONDS = 1.0
"""How long a lock of somebody else is waited for."""

LONG_OPEN_SECONDS = 60
"""A transaction that keeps its locks for longer is worth mentioning."""

_STORED_IN = ("SELECT", "INSERT", "UPDATE")
TABLES: Mapping[str, Sequence[str]] = {
    "schema_migrations": ("SELECT",),
    "sessions": _STORED_IN,
    "nodes": _STORED_IN,
    "import_sources": (*_STORED_IN, "DELETE"),
    "import_leases": (*_STORED_IN, "DELETE"),
}
"""The tables of the program, and what an import does with each."""

SETTINGS = (
    "statement_timeout",
    "transaction_timeout",
    "synchronous_commit",
    "fsync",
    "full_page_writes",
)
"""The parameters that can hurt an import. Not every version has all."""

_MOST_NAMED = 5

_LIMITS: LiteralString = """
SELECT set_config('statement_timeout', %s, true), set_config('lock_timeout', %s, true)
"""
_WRITES: LiteralString = """
SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only') = 'on'
"""
# A schema that the user may not use is passed over in a search path without a word.
_SCHEMAS: LiteralString = """
SELECT n.nspname, has_schema_privilege(n.oid, 'USAGE')
FROM pg_namespace AS n
WHERE n.nspname IN (
    SELECT btrim(replace(part, '$user', current_user), ' "')
    FROM unnest(string_to_array(current_setting('search_path'), ',')) AS part
)
ORDER BY n.nspname
"""
_MAY_CREATE: LiteralString = """
SELECT quote_ident(current_user), current_schema(),
       coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)
"""
_TABLE_RIGHTS: LiteralString = """
SELECT wanted.name, wanted.privilege,
       has_table_privilege(to_regclass(wanted.name)::oid, wanted.privilege)
FROM unnest(%s::text[], %s::text[]) AS wanted (name, privilege)
WHERE to_regclass(wanted.name) IS NOT NULL
"""
_SIZE: LiteralString = "SELECT pg_database_size(current_database())"
# Who may not see it gets no row here, where SHOW would fail.
_DATA_DIRECTORY: LiteralString = "SELECT setting FROM pg_settings WHERE name = 'data_directory'"
# What a session begins with, whatever the transaction that asks has set for itself.
_SETTINGS: LiteralString = "SELECT name, reset_val FROM pg_settings WHERE name = ANY (%s)"
_CONNECTIONS: LiteralString = """
SELECT (SELECT coalesce(sum(numbackends), 0)::integer FROM pg_stat_database WHERE datid <> 0),
       current_setting('max_connections')::integer
       - current_setting('superuser_reserved_connections')::integer
       - coalesce(current_setting('reserved_connections', true)::integer, 0)
"""
_HAS_LEASES: LiteralString = "SELECT to_regclass('import_leases') IS NOT NULL"
_LEASES: LiteralString = """
SELECT host, pid, started_at, renewed_at + seconds * interval '1 second' < clock_timestamp()
FROM import_leases
ORDER BY started_at DESC
LIMIT %s
"""
# Whoever only reads is in nobody's way. Of users that we may not watch the time is hidden.
_LONG_OPEN: LiteralString = """
SELECT a.pid, a.application_name,
       extract(epoch FROM clock_timestamp() - min(a.xact_start))::integer
FROM pg_locks AS l
JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'relation'
  AND l.granted
  AND l.mode <> 'AccessShareLock'
  AND l.pid <> pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.relation = ANY (ARRAY(SELECT to_regclass(name)::oid FROM unnest(%s::text[]) AS name))
  AND a.xact_start < clock_timestamp() - %s * interval '1 second'
GROUP BY a.pid, a.application_name
ORDER BY min(a.xact_start)
LIMIT %s
"""


@dataclass(frozen=True, slots=True)
class Server:
    """What answers.

    Attributes:
        version: as libpq counts, for example 180006.
        version_text: as people write it, for example `18.6`.
        encoding: of the database.
        in_recovery: whether it is a standby, or still replaying its log.
        read_only: whether a transaction of ours may not write unless it asks to.
    """

    version: int
    version_text: str
    encoding: str
    in_recovery: bool
    read_only: bool


@dataclass(frozen=True, slots=True)
class Rights:
    """What the user may do.

    Attributes:
        role: the user, quoted as SQL wants it.
        closed_schemas: those of the search path that it may not use.
        schema: where new tables go, if there is such a place.
        may_create: whether it may make tables there.
        tables: those of the program that are there and that it can see.
        missing: what it may not do with them though an import does: table to privileges.
    """

    role: str
    closed_schemas: tuple[str, ...]
    schema: str | None
    may_create: bool
    tables: tuple[str, ...]
    missing: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Disk:
    """How large the database is, in bytes, and where it is if that is on this machine.

    Either is None where the server does not say.
    """

    database_bytes: int | None
    data_directory: str | None


@dataclass(frozen=True, slots=True)
class Connections:
    """How many connections there are, and how many there can be without special rights."""

    used: int
    limit: int


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """Who is importing, or was: `expired` tells that it was not heard of for too long."""

    host: str
    pid: int
    started_at: datetime
    expired: bool


@dataclass(frozen=True, slots=True)
class LongTransaction:
    """A transaction of somebody else that may be in an import's way."""

    pid: int
    application: str
    seconds: int


class UnansweredError(TapesError):
    """The server did not answer a question; the connection is still good."""


class HealthQueries:
    """The questions, through a connection of their own.

    Each may raise DatabaseUnavailableError, if the connection is lost, MigrationLockedError, if
    somebody keeps a table locked, and UnansweredError.
    """

    def __init__(self, dsn: str) -> None:
        """Connect.

        Raises:
            UsageError: the DSN is not well-formed.
            DatabaseUnavailableError: no connection came about.
        """
        self._conn = connect(dsn)
        self._conn.read_only = True
        # A proxy may give each transaction another connection, which does not know it.
        self._conn.prepare_threshold = None

    def close(self) -> None:
        """Close the connection."""
        self._conn.close()

    def server(self) -> Server:
        """Ask what server this is, and whether it takes writes."""
        in_recovery, read_only = self._rows(_WRITES)[0]
        info = self._conn.info
        return Server(
            version=info.server_version,
            version_text=(info.parameter_status("server_version") or "").partition(" ")[0],
            encoding=info.parameter_status("server_encoding") or "",
            in_recovery=in_recovery,
            read_only=read_only,
        )

    def schema(self) -> SchemaStatus:
        """Ask which schema there is.

        Raises:
            SchemaError: its version cannot be told, or is another program's.
        """
        try:
            with self._bounded():
                return read_version(self._conn, load_migrations())
        except UnansweredError as error:
            raise SchemaError(str(error), hint=error.hint) from error

    def schema_remedy(self, found: SchemaStatus, origin: str) -> str:
        """Return what to do about the schema; `origin` is where the DSN came from."""
        return remedy_for(self._conn, found, origin)

    def rights(self) -> Rights:
        """Ask what the user may do with schema and tables. Needs no lock on any."""
        wanted = [(table, privilege) for table, all_ in TABLES.items() for privilege in all_]
        names, privileges = zip(*wanted, strict=True)
        with self._bounded():
            schemas = self._conn.execute(_SCHEMAS).fetchall()
            role, schema, may_create = self._conn.execute(_MAY_CREATE).fetchall()[0]
            found = self._conn.execute(_TABLE_RIGHTS, [[*names], [*privileges]]).fetchall()
        missing: dict[str, tuple[str, ...]] = {}
        for table, privilege, granted in found:
            if not granted:
                missing[table] = (*missing.get(table, ()), privilege)
        return Rights(
            role=role,
            closed_schemas=tuple(name for name, usable in schemas if not usable),
            schema=schema,
            may_create=may_create,
            tables=tuple(dict.fromkeys(table for table, _, _ in found)),
            missing=missing,
        )

    def disk(self) -> Disk:
        """Ask for size and place of the database."""
        size = directory = None
        # Of a very large one it takes too long to tell.
        with suppress(UnansweredError):
            size = self._rows(_SIZE)[0][0]
        if self._conn.info.host.startswith("/"):
            directory = next((row[0] for row in self._rows(_DATA_DIRECTORY)), None)
        return Disk(size, directory)

    def settings(self) -> dict[str, str]:
        """Ask for the parameters in `SETTINGS` with which a session begins; times in ms."""
        return dict(self._rows(_SETTINGS, [list(SETTINGS)]))

    def connections(self) -> Connections:
        """Ask how many connections there are, ours among them."""
        return Connections(*self._rows(_CONNECTIONS)[0])

    def leases(self) -> list[LeaseRow]:
        """Ask who is importing, the latest first; nobody where there is no table for it."""
        if not self._rows(_HAS_LEASES)[0][0]:
            return []
        return [LeaseRow(*row) for row in self._rows(_LEASES, [_MOST_NAMED])]

    def long_transactions(self) -> list[LongTransaction]:
        """Ask who keeps locks on the program's tables for long, the longest first."""
        values = [list(TABLES), LONG_OPEN_SECONDS, _MOST_NAMED]
        return [LongTransaction(*row) for row in self._rows(_LONG_OPEN, values)]

    def _rows(self, sql: LiteralString, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._bounded():
            return self._conn.execute(sql, values).fetchall()

    @contextmanager
    def _bounded(self) -> Iterator[None]:
        """Ask in a transaction that cannot write and cannot take long."""
        limits = [f"{round(seconds * 1000)}ms" for seconds in (STATEMENT_SECONDS, LOCK_SECONDS)]
        try:
            with self._conn.transaction(force_rollback=True):
                self._conn.execute(_LIMITS, limits)
                yield
        except psycopg.Error as error:
            raise _explained(error) from error


def _explained(error: psycopg.Error) -> TapesError:
    if isinstance(error, psycopg.errors.LockNotAvailable):
        return MigrationLockedError(
            f"Somebody keeps a table locked, longer than {LOCK_SECONDS:g} s.",
            hint="Wait until it is done, as a migration will be; pg_stat_activity tells who it is.",
        )
    if isinstance(error, psycopg.errors.QueryCanceled):
        return UnansweredError(
            f"The server did not answer within {STATEMENT_SECONDS:g} s.",
            hint="See what keeps it busy; pg_stat_activity tells.",
        )
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return UnansweredError(
            "This user may not read the table that tells it.",
            hint="Grant what the check of rights says.",
        )
    if fault(error) is Fault.CONNECTION:
        return DatabaseUnavailableError(
            "The connection was lost while the server was asked.", hint="Run the command again."
        )
    return UnansweredError(
        f"The server refuses to answer ({type(error).__name__}, SQLSTATE {error.sqlstate}).",
        hint="The server's log may tell more.",
    )
