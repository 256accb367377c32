"""A connection beside those that store turns: for what an import remembers, and for its lease."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, TypeVar

import psycopg

from tapes_cli.store.postgres.connect import PgConnection, connect
from tapes_cli.store.postgres.retry import Backoff, explained, repeat

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

AT_ONCE = Backoff(limit=0.0)
"""Try once."""


class SideConnection:
    """Runs short statements, one after the other, for several threads; connects again as needed.

    Each statement is a transaction of its own, so that it works through a proxy that pools them.
    """

    def __init__(self, dsn: str, backoff: Backoff | None = None) -> None:
        self._dsn = dsn
        self._backoff = backoff or Backoff()
        self._lock = Lock()
        self._conn: PgConnection | None = None

    def run(self, act: Callable[[PgConnection], T], backoff: Backoff | None = None) -> T:
        """Return what `act` returns, which is called again when the database was away.

        Args:
            act: what to do; doing it twice must do no harm.
            backoff: how long to go on trying; None as long as the connection was told to.

        Raises:
            DatabaseUnavailableError: the database did not come back in time.
            SchemaError: the database is not the one that was checked.
        """
        with self._lock:
            try:
                return repeat(lambda: act(self._open()), self._drop, backoff or self._backoff)
            except psycopg.Error as error:
                raise explained(error) from error
            except BaseException:
                self._drop()  # a signal may have come in the middle of a statement
                raise

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._drop()

    def _open(self) -> PgConnection:
        if self._conn is None or self._conn.closed:
            self._conn = connect(self._dsn)
        return self._conn

    def _drop(self) -> None:
        if self._conn is not None:
            self._conn.close()
            self._conn = None
