"""A store that writes nothing, and says what storing would do."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import psycopg

from tapes_cli.merkle.chain import check_chain
from tapes_cli.store.postgres.connect import connect
from tapes_cli.store.postgres.ingest import plan
from tapes_cli.store.postgres.known import Known
from tapes_cli.store.postgres.retry import explained

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapes_cli.store.base import ChainedTurn, Outcome, SessionIngester

_BEGIN = "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"


class DryRunStore:
    """Plans the transaction of each turn as `PostgresStore` does, and believes it committed.

    Everything is read in one transaction that cannot write. Memory grows with what would be
    stored.
    """

    def __init__(self, dsn: str) -> None:
        self._known = Known(most_nodes=sys.maxsize, most_sessions=sys.maxsize)
        self._conn = connect(dsn)
        self._conn.execute(_BEGIN)

    def ingest(self, turns: Sequence[ChainedTurn]) -> list[Outcome]:
        """Return what storing these turns would do.

        Raises:
            DatabaseUnavailableError: the database was lost.
            SchemaError: the database is not the one that was checked.
        """
        try:
            self._known.look_up(self._conn, turns)
        except psycopg.Error as error:
            raise explained(error) from error
        outcomes = []
        for turn in turns:
            check_chain(turn.chain)
            outcomes.append(plan(turn, self._known).outcome)
        return outcomes

    def close(self) -> None:
        """Close the connection; there is nothing to undo."""
        self._conn.close()


if TYPE_CHECKING:
    _INGESTER: type[SessionIngester] = DryRunStore
