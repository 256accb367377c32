"""The schema's version: what it is, and how it goes up and down.

Each migration runs in one transaction together with the change of its version row, so that a
process killed anywhere leaves the schema and its version as they were. Whoever migrates holds an
advisory lock and the version table itself, and reads the version under both: the second of two
finds done what the first one did. The lock on the table also keeps golang-migrate out.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

from tapes_cli.errors import SchemaError, UsageError
from tapes_cli.store.postgres.connect import PgConnection, connect
from tapes_cli.store.postgres.migration_files import (
    CREATE_VERSION_TABLE,
    LOCK_VERSION_TABLE,
    TAKE_LOCK,
    Direction,
    Migration,
    load_migrations,
    record_version,
)
from tapes_cli.store.postgres.schema_status import (
    SchemaState,
    SchemaStatus,
    explained,
    is_lost,
    message,
    read_status,
    read_version,
    require_current,
    set_lock_timeout,
    status,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "DEFAULT_LOCK_TIMEOUT",
    "NO_SCHEMA",
    "Direction",
    "Migration",
    "MigrationOptions",
    "SchemaState",
    "SchemaStatus",
    "check_current",
    "load_migrations",
    "migrate_down",
    "migrate_up",
    "read_status",
    "require_current",
    "resolve_pending",
    "resolve_target",
    "status",
]

DEFAULT_LOCK_TIMEOUT = 30.0
"""Seconds to wait for somebody else's lock."""

NO_SCHEMA = 0
"""The target of a `down` that leaves nothing; smaller than every version."""


@dataclass(frozen=True, slots=True)
class MigrationOptions:
    """How to migrate.

    `migrations` are what to go through, oldest first, None for those of this program;
    `lock_timeout` the seconds to wait for locks of others, None for as long as it takes;
    `announce` is called after each migration that was committed.
    """

    migrations: Sequence[Migration] | None = None
    lock_timeout: float | None = DEFAULT_LOCK_TIMEOUT
    announce: Callable[[Migration], None] | None = None


_DEFAULTS = MigrationOptions()


def check_current(dsn: str, *, origin: str = "") -> None:
    """Make sure that the database's schema is the one this program works on.

    Raises:
        SchemaError: it is missing, behind, ahead or dirty. See `require_current`.
        DatabaseUnavailableError: the database cannot be reached.
    """
    with connect(dsn) as conn:
        require_current(conn, origin=origin)


def migrate_up(
    dsn: str, to: int | None = None, *, options: MigrationOptions = _DEFAULTS
) -> list[Migration]:
    """Apply what is not applied yet, each migration in a transaction of its own.

    Args:
        dsn: the database.
        to: the last version to apply; None for the newest.
        options: how to go about it.

    Returns:
        What was applied, oldest first; empty where nothing was left to do.

    Raises:
        UsageError: `to` is no known version.
        SchemaError: the schema is ahead or dirty, or a migration failed and was rolled back.
        MigrationLockedError: a lock was not free in time.
        DatabaseUnavailableError: the database cannot be reached, or was lost on the way.
    """
    known = options.migrations or load_migrations()
    target = known[-1].version if to is None else to
    _check_version(target, known)
    with connect(dsn) as conn:
        return _Run(conn, known, options).to(Direction.UP, target)


def migrate_down(
    dsn: str,
    steps: int | None = None,
    *,
    to: int | None = None,
    expected: int | None = None,
    options: MigrationOptions = _DEFAULTS,
) -> list[Migration]:
    """Undo migrations, each in a transaction of its own. What they hold is lost.

    Args:
        dsn: the database.
        steps: how many to undo; one if neither this nor `to` is given.
        to: the version that remains, or `NO_SCHEMA`.
        expected: the version that a plan was made for; at a newer one nothing is done.
        options: how to go about it.

    Returns:
        What was undone, newest first.

    Raises:
        UsageError: `steps` is not positive, or `to` is unknown or newer than the schema.
        SchemaError: the schema is ahead or dirty, moved up meanwhile, or a migration failed and
            was rolled back.
        MigrationLockedError: a lock was not free in time.
        DatabaseUnavailableError: the database cannot be reached, or was lost on the way.
    """
    known = options.migrations or load_migrations()
    with connect(dsn) as conn:
        target = resolve_target(read_status(conn, known), steps, to)
        return _Run(conn, known, options).to(Direction.DOWN, target, bound=expected)


def resolve_pending(found: SchemaStatus, to: int | None = None) -> list[Migration]:
    """Return what an `up` would apply, oldest first.

    Raises:
        SchemaError: the schema is ahead or dirty.
        UsageError: `to` is no known version.
    """
    _refuse_foreign(found)
    if to is not None:
        _check_version(to, [known.migration for known in found.migrations])
    return [step for step in found.pending if to is None or step.version <= to]


def resolve_target(found: SchemaStatus, steps: int | None = None, to: int | None = None) -> int:
    """Return the version that a `down` leaves, or `NO_SCHEMA`.

    Raises:
        SchemaError: the schema is ahead or dirty.
        UsageError: `steps` is not positive, or `to` is unknown or newer than the current version.
    """
    _refuse_foreign(found)
    if to is None:
        if steps is not None and steps < 1:
            raise UsageError("The number of migrations to undo must be 1 or more.")
        versions = [NO_SCHEMA, *(migration.version for migration in found.applied)]
        return versions[max(0, len(versions) - 1 - (steps or 1))]
    if to != NO_SCHEMA:
        _check_version(to, [known.migration for known in found.migrations])
        if to > (found.current or NO_SCHEMA):
            raise UsageError(f"The schema is older than version {to} already.")
    return to


@dataclass(slots=True)
class _Run:
    """One run in one direction, through one connection."""

    conn: PgConnection
    migrations: Sequence[Migration]
    options: MigrationOptions

    def to(self, direction: Direction, target: int, bound: int | None = None) -> list[Migration]:
        """Go step by step until the target is reached.

        `bound` is the version beyond which the schema must not be found: two runs in opposite
        directions would otherwise undo each other for ever.
        """
        self._prepare()
        done: list[Migration] = []
        while step := self._step(direction, target, bound):
            done.append(step)
            bound = step.version if direction is Direction.UP else step.version - 1
            if self.options.announce:
                self.options.announce(step)
        return done

    def _prepare(self) -> None:
        self.conn.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        self.conn.read_only = False
        # The server then notices within seconds that this process was killed, and rolls back
        # while a long statement runs. Not every platform and version can.
        with suppress(psycopg.DatabaseError):
            self.conn.execute("SET client_connection_check_interval = '2s'")

    def _step(self, direction: Direction, target: int, bound: int | None) -> Migration | None:
        # A look without locks first: nothing to do needs no right to create or lock a table.
        with explained(self.conn, self.options.lock_timeout), self.conn.transaction():
            set_lock_timeout(self.conn, self.options.lock_timeout)
            if self._next(direction, target, bound) is None:
                return None
        with explained(self.conn, self.options.lock_timeout), self.conn.transaction():
            self._lift_limits()
            self.conn.execute(TAKE_LOCK)
            if direction is Direction.UP:
                self.conn.execute(CREATE_VERSION_TABLE)
            self.conn.execute(LOCK_VERSION_TABLE)
            step = self._next(direction, target, bound)
            if step is None:
                return None
            self._execute(step, direction)
            version = step.version
            if direction is Direction.DOWN:
                below = [older.version for older in self.migrations if older.version < version]
                self.conn.execute(record_version(max(below, default=None)).encode())
            else:
                self.conn.execute(record_version(version).encode())
        return step

    def _next(self, direction: Direction, target: int, bound: int | None) -> Migration | None:
        """Return what is to be done now, as far as the locks held allow to tell."""
        found = read_version(self.conn, self.migrations)
        _refuse_foreign(found)
        _refuse_crossing(found, direction, bound)
        if direction is Direction.UP:
            return next((step for step in found.pending if step.version <= target), None)
        return next((step for step in reversed(found.applied) if step.version > target), None)

    def _lift_limits(self) -> None:
        """Bound the waiting for locks, and nothing else."""
        set_lock_timeout(self.conn, self.options.lock_timeout)
        self.conn.execute(
            "SELECT set_config(name, '0', true) FROM pg_settings WHERE name IN"
            " ('statement_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout')"
        )

    def _execute(self, step: Migration, direction: Direction) -> None:
        sql = step.sql(direction)
        try:
            self.conn.execute(sql.encode(), prepare=False)
        except psycopg.errors.LockNotAvailable:
            raise
        except psycopg.Error as error:
            if is_lost(error):
                raise
            place = f"{step}.{direction}.sql"
            if position := error.diag.statement_position:
                place += f":{sql.count(chr(10), 0, int(position) - 1) + 1}"
            raise SchemaError(
                f"{place}: {message(error)}.",
                hint="Nothing of this migration was kept; the schema is as it was before it.",
            ) from error


def _check_version(version: int, known: Sequence[Migration]) -> None:
    if not any(migration.version == version for migration in known):
        versions = ", ".join(str(migration.version) for migration in known)
        raise UsageError(f"There is no migration {version}.", hint=f"There are {versions}.")


def _refuse_foreign(found: SchemaStatus) -> None:
    if found.state in {SchemaState.AHEAD, SchemaState.DIRTY}:
        raise SchemaError(found.sentence, hint=found.hint)


def _refuse_crossing(found: SchemaStatus, direction: Direction, bound: int | None) -> None:
    if bound is None:
        return
    current = found.current or NO_SCHEMA
    if current < bound if direction is Direction.UP else current > bound:
        raise SchemaError(
            f"The schema is now at version {current}: somebody went the other way meanwhile.",
            hint="Run tapes-cli migrate status, and again what is still wanted.",
        )
