"""The table `import_leases`: who is importing, so that two imports do not overlap.

Not an advisory lock: those of a session do not hold through a proxy that pools transactions, nor
between the nodes of a distributed PostgreSQL. A lease is a row that its holder renews; who stops
renewing it has lost it after a while. Times are the server's, passed as values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tapes_cli.store.postgres.side import AT_ONCE

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from tapes_cli.store.postgres.connect import PgConnection
    from tapes_cli.store.postgres.side import SideConnection

LEASE_SECONDS = 30
"""A lease that was not renewed for so long is free."""

_NAME = "import"

_TAKE = """
INSERT INTO import_leases AS held
    (name, holder, host, pid, process, started_at, renewed_at, seconds)
VALUES (%(name)s, %(holder)s, %(host)s, %(pid)s, %(process)s, %(now)s, %(now)s, %(seconds)s)
ON CONFLICT (name) DO UPDATE SET
    holder = EXCLUDED.holder, host = EXCLUDED.host, pid = EXCLUDED.pid,
    process = EXCLUDED.process, started_at = EXCLUDED.started_at,
    renewed_at = EXCLUDED.renewed_at, seconds = EXCLUDED.seconds
WHERE held.renewed_at + held.seconds * interval '1 second' < EXCLUDED.renewed_at
   OR held.holder IN (%(dead)s, EXCLUDED.holder)
"""
_HOLDER = """
SELECT holder, host, pid, process, started_at, renewed_at FROM import_leases WHERE name = %s
"""
_RENEW = "UPDATE import_leases SET renewed_at = %s WHERE name = %s AND holder = %s"
_RELEASE = "DELETE FROM import_leases WHERE name = %s AND holder = %s"


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lease.

    Attributes:
        id: made for one run.
        host: the machine.
        pid: the process on it.
        process: what tells whether that process still lives, on the same machine.
        started_at: when it took the lease (UTC).
        renewed_at: when it was last heard of (UTC).
    """

    id: UUID
    host: str
    pid: int
    process: str
    started_at: datetime | None = None
    renewed_at: datetime | None = None


class LeaseStore:
    """Takes, renews and gives back the lease on imports."""

    def __init__(self, side: SideConnection) -> None:
        self._side = side

    def take(self, me: Holder, dead: UUID | None = None) -> bool:
        """Take the lease if it is free; tell whether it is ours now.

        Args:
            me: who wants it.
            dead: a holder of which it is known that it does not live any more.
        """

        def act(conn: PgConnection) -> bool:
            return conn.execute(_TAKE, _values(conn, me, dead)).rowcount == 1

        return self._side.run(act)

    def holder(self) -> Holder | None:
        """Return who holds the lease, or held it last."""
        row = self._side.run(lambda conn: conn.execute(_HOLDER, (_NAME,)).fetchone())
        return Holder(*row) if row else None

    def renew(self, me: Holder) -> bool:
        """Renew the lease; tell whether it is still ours, or ours again. Tried once only.

        Raises:
            DatabaseUnavailableError: the database is away.
            SchemaError: the database is not the one that was checked.
        """

        def act(conn: PgConnection) -> bool:
            renewed = conn.execute(_RENEW, (_now(conn), _NAME, me.id)).rowcount == 1
            # If nobody holds it, it was taken over and given back, or lost with the server.
            return renewed or conn.execute(_TAKE, _values(conn, me)).rowcount == 1

        return self._side.run(act, AT_ONCE)

    def release(self, me: Holder) -> None:
        """Give the lease back. Tried once only.

        Raises:
            DatabaseUnavailableError: the database is away.
            SchemaError: the database is not the one that was checked.
        """
        self._side.run(lambda conn: conn.execute(_RELEASE, (_NAME, me.id)), AT_ONCE)


def _values(conn: PgConnection, me: Holder, dead: UUID | None = None) -> dict[str, object]:
    return {
        "name": _NAME,
        "holder": me.id,
        "host": me.host,
        "pid": me.pid,
        "process": me.process,
        "now": _now(conn),
        "seconds": LEASE_SECONDS,
        "dead": dead,
    }


def _now(conn: PgConnection) -> datetime:
    row = conn.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None  # noqa: S101  # it is one row
    now: datetime = row[0]
    return now
