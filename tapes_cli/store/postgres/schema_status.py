"""What schema a database has, and what to tell whoever finds it unfit."""

from __future__ import annotations

import shlex
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import psycopg

from tapes_cli.errors import DatabaseUnavailableError, MigrationLockedError, SchemaError
from tapes_cli.store.postgres.connect import PgConnection, connect, naming_option
from tapes_cli.store.postgres.migration_files import LOCK_KEY, Migration, load_migrations

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_READ_TIMEOUT = 5.0
_OTHER_DATABASE = "Use another database, or another schema through the DSN's search_path."
_LOST_STATES = ("08", "57P")
_HOLDER = """
    SELECT l.pid, a.application_name, a.xact_start
    FROM pg_locks AS l
    LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
    WHERE l.granted
      AND l.pid <> pg_backend_pid()
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND (l.locktype = 'advisory' AND l.objsubid = 1
               AND l.classid::bigint = %(high)s AND l.objid::bigint = %(low)s
           OR l.locktype = 'relation' AND l.relation IN (
               to_regclass('schema_migrations'), to_regclass('nodes'), to_regclass('sessions')))
    ORDER BY l.locktype, a.xact_start
    LIMIT 1
"""


class SchemaState(Enum):
    """How the schema of a database relates to the migrations of this program."""

    MISSING = "missing"
    BEHIND = "behind"
    CURRENT = "current"
    AHEAD = "ahead"
    DIRTY = "dirty"


@dataclass(frozen=True, slots=True)
class KnownMigration:
    """A migration of this program, and whether the database has it."""

    migration: Migration
    applied: bool


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """What a database's schema is.

    `current` is the version it is at, or None before the first migration; `dirty` tells that
    golang-migrate was stopped half-way through it. `migrations` are those of this program,
    oldest first.
    """

    current: int | None
    dirty: bool
    migrations: tuple[KnownMigration, ...]
    state: SchemaState

    @property
    def pending(self) -> tuple[Migration, ...]:
        """What `migrate up` would apply, oldest first."""
        return tuple(known.migration for known in self.migrations if not known.applied)

    @property
    def applied(self) -> tuple[Migration, ...]:
        """What has been applied, oldest first."""
        return tuple(known.migration for known in self.migrations if known.applied)

    @property
    def sentence(self) -> str:
        """The state, in one sentence."""
        if self.state is SchemaState.MISSING:
            return "The database has no tapes schema yet."
        if self.state is SchemaState.BEHIND:
            count, known = len(self.pending), len(self.migrations)
            return f"The schema is behind: {count} of {known} migrations are not applied."
        if self.state is SchemaState.AHEAD:
            return (
                f"The schema is at version {self.current}, which this tapes-cli does not know: "
                "another program or a newer tapes-cli made it."
            )
        if self.state is SchemaState.DIRTY:
            return (
                f"The schema is dirty: another program was stopped half-way through "
                f"migration {self.current}."
            )
        return "The schema is current."

    @property
    def hint(self) -> str:
        """What to do about a schema that this program can neither use nor migrate."""
        if self.state is SchemaState.AHEAD:
            return "Use the tapes-cli that fits, or another database; nothing was changed."
        if self.state is SchemaState.DIRTY:
            return (
                "Finish or undo that migration by hand, then set the row of schema_migrations to "
                "the last version that is whole, with dirty = false; nothing was changed."
            )
        return ""


def status(dsn: str, migrations: Sequence[Migration] | None = None) -> SchemaStatus:
    """Tell what schema a database has. Changes nothing.

    Raises:
        DatabaseUnavailableError: the database cannot be reached.
        MigrationLockedError: somebody is migrating it at the moment.
        SchemaError: its table `schema_migrations` is not golang-migrate's.
    """
    with connect(dsn) as conn:
        return read_status(conn, migrations)


def read_status(conn: PgConnection, migrations: Sequence[Migration] | None = None) -> SchemaStatus:
    """Tell what schema the connected database has; see `status`."""
    with explained(conn, _READ_TIMEOUT), conn.transaction(force_rollback=True):
        set_lock_timeout(conn, _READ_TIMEOUT)
        return read_version(conn, migrations or load_migrations())


def require_current(
    conn: PgConnection,
    *,
    origin: str = "",
    migrations: Sequence[Migration] | None = None,
) -> None:
    """Make sure that the schema is the one this program works on.

    Args:
        conn: a connection to the database.
        origin: where the DSN came from, as `settings.Connection.origin` says; a DSN given as
            `--dsn` is repeated, without its password, in the command that the error suggests.
        migrations: what to compare with; None for those of this program.

    Raises:
        SchemaError: it is missing, behind, ahead or dirty.
        MigrationLockedError: somebody is migrating it at the moment.
    """
    found = read_status(conn, migrations)
    if found.state is SchemaState.CURRENT:
        return
    raise SchemaError(found.sentence, hint=remedy_for(conn, found, origin))


def remedy_for(conn: PgConnection, found: SchemaStatus, origin: str) -> str:
    """Return what to do about a schema that is not current; see `require_current`."""
    if found.hint:
        return found.hint
    hint = "Run: tapes-cli migrate up"
    if origin == "--dsn":
        hint += f" --dsn {shlex.quote(naming_option(conn))}"
        hint += " (a password is left out here)" if conn.info.password else ""
    return hint


def read_version(conn: PgConnection, migrations: Sequence[Migration]) -> SchemaStatus:
    """Read the version in the current transaction, under whatever locks it holds.

    Raises:
        SchemaError: the table `schema_migrations` is not golang-migrate's.
    """
    rows: list[tuple[int, bool]] = []
    if has_version_table(conn):
        try:
            rows = conn.execute("SELECT version, dirty FROM schema_migrations LIMIT 2").fetchall()
        except psycopg.errors.UndefinedColumn as error:
            raise SchemaError(
                "The table schema_migrations belongs to another program.", hint=_OTHER_DATABASE
            ) from error
    if len(rows) > 1:
        raise SchemaError(
            "The table schema_migrations holds several versions, where there should be one.",
            hint=_OTHER_DATABASE,
        )
    current, dirty = rows[0] if rows else (None, False)
    applied = tuple(
        KnownMigration(step, current is not None and step.version <= current) for step in migrations
    )
    versions = [step.version for step in migrations]
    return SchemaStatus(current, dirty, applied, _state(current, versions, dirty=dirty))


def has_version_table(conn: PgConnection) -> bool:
    """Tell whether anybody has migrated this database."""
    row = conn.execute("SELECT to_regclass('schema_migrations') IS NOT NULL").fetchone()
    return bool(row and row[0])


def set_lock_timeout(conn: PgConnection, seconds: float | None) -> None:
    """Bound the waiting for locks until the transaction ends; None waits without end."""
    milliseconds = 0 if seconds is None else max(1, round(seconds * 1000))
    conn.execute("SELECT set_config('lock_timeout', %s, true)", [f"{milliseconds}ms"])


@contextmanager
def explained(conn: PgConnection, lock_timeout: float | None) -> Iterator[None]:
    """Turn what PostgreSQL refuses into an error with a sentence.

    Raises:
        MigrationLockedError: a lock was not free within `lock_timeout` seconds.
        DatabaseUnavailableError: the connection was lost.
        SchemaError: anything else that the server refused.
    """
    try:
        yield
    except psycopg.errors.LockNotAvailable as error:
        raise MigrationLockedError(
            f"{_holder(conn)} holds a lock on the schema, and did not let go within "
            f"{lock_timeout or 0:g} s.",
            hint="Wait until it is done and try again; pg_stat_activity tells what it does.",
        ) from error
    except psycopg.Error as error:
        if is_lost(error):
            raise DatabaseUnavailableError(
                "The connection was lost on the way; a migration that ran is whole or not there.",
                hint="Run tapes-cli migrate status once the database is back.",
            ) from error
        raise SchemaError(
            f"The database refused: {message(error)}.",
            hint="Nothing was changed by the step that was refused.",
        ) from error


def is_lost(error: psycopg.Error) -> bool:
    """Tell whether the connection, not the statement, failed."""
    return error.sqlstate is None or error.sqlstate.startswith(_LOST_STATES)


def message(error: psycopg.Error) -> str:
    """Return the server's main message and code: never its detail, which can quote a row."""
    return f"{(error.diag.message_primary or 'no reason given').rstrip('.')} ({error.sqlstate})"


def _state(current: int | None, versions: Sequence[int], *, dirty: bool) -> SchemaState:
    if dirty:
        return SchemaState.DIRTY
    if current is None:
        return SchemaState.MISSING
    if current not in versions:
        return SchemaState.AHEAD
    return SchemaState.CURRENT if current == versions[-1] else SchemaState.BEHIND


def _holder(conn: PgConnection) -> str:
    """Name who holds a lock on the schema, as far as can still be seen."""
    try:
        row = conn.execute(
            _HOLDER, {"high": LOCK_KEY >> 32, "low": LOCK_KEY & 0xFFFFFFFF}
        ).fetchone()
    except psycopg.Error:
        row = None
    if row is None:
        return "Another process"
    pid, application, since = row
    name = f"{application}, " if application else ""
    start = f"since {since:%Y-%m-%d %H:%M:%S} UTC" if since else "start unknown"
    return f"Process {pid} ({name}{start})"
