"""The PostgreSQL store: batches of turns through one connection.

The turns of a batch go out in one pipeline, in which a failure stops everything behind it:
no turn is ever stored on top of one that was not. Commits inside a batch do not wait for the
disk; one that does closes the batch, before anything is reported (the log is sequential: the last
commit makes all earlier ones durable).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
from psycopg import pq

from tapes_cli.merkle.chain import check_chain
from tapes_cli.store.base import Outcome, OutcomeKind
from tapes_cli.store.postgres.connect import connect
from tapes_cli.store.postgres.ingest import Transaction, plan
from tapes_cli.store.postgres.known import Known
from tapes_cli.store.postgres.refusals import refusal
from tapes_cli.store.postgres.retry import Backoff, Fault, explained, fault, repeat

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapes_cli.store.base import ChainedTurn, SessionIngester

_DURABLE: tuple[LiteralString, ...] = (
    "BEGIN",
    "SET LOCAL synchronous_commit TO DEFAULT",
    "SELECT pg_logical_emit_message(true, 'tapes-cli', '')",
    "COMMIT",
)


_NEVER_ANALYSED = """
SELECT EXISTS (
    SELECT FROM pg_class
    WHERE oid IN (to_regclass('sessions'), to_regclass('nodes')) AND reltuples <= 0
)
"""

_MOST_DOUBTS = 5
"""How often others may change the database under a turn before it is refused."""


@dataclass(slots=True)
class _Batch:
    """Turns on their way, with what is settled of them so far, from the first on.

    `sent` holds the outcomes of turns that were sent, so that one that arrived before the
    connection broke is not taken for somebody else's when it is found there. `doubts` counts how
    often a belief about a turn was refuted.
    """

    turns: Sequence[ChainedTurn]
    settled: list[Outcome] = field(default_factory=list)
    sent: dict[int, Outcome] = field(default_factory=dict)
    doubts: Counter[int] = field(default_factory=Counter)


class PostgresStore:
    """Stores turns, each in a transaction of its own. One connection; not for several threads."""

    def __init__(self, dsn: str, backoff: Backoff | None = None) -> None:
        self._dsn = dsn
        self._backoff = backoff or Backoff()
        self._known = Known()
        self._conn = self._connect()
        row = self._conn.execute(_NEVER_ANALYSED).fetchone()
        self._never_analysed = row is not None and row[0]

    def _connect(self) -> psycopg.Connection[Any]:
        conn = connect(self._dsn)
        conn.execute("SET synchronous_commit = off")
        return conn

    def close(self) -> None:
        """Close the connection."""
        self._conn.close()

    def ingest(self, turns: Sequence[ChainedTurn]) -> list[Outcome]:
        """Store each turn; return when all of it is durable. See `SessionIngester.ingest`."""
        for turn in turns:
            check_chain(turn.chain.nodes)
        batch = _Batch(turns)

        def recover() -> None:
            # After a crash of the server even committed turns may be gone: look at all again.
            batch.settled.clear()
            self._known.forget()
            self._conn.close()
            self._conn = self._connect()

        try:
            repeat(lambda: self._settle(batch), recover, self._backoff)
        except psycopg.Error as error:
            raise explained(error) from error
        return batch.settled

    def _settle(self, batch: _Batch) -> None:
        while len(batch.settled) < len(batch.turns):
            first = len(batch.settled)
            remaining = batch.turns[first:]
            self._known.look_up(self._conn, remaining)
            plans = [plan(turn, self._known) for turn in remaining]
            for index, planned in enumerate(plans, first):
                if planned.outcome.kind is OutcomeKind.STORED:
                    batch.sent[index] = planned.outcome
                elif index in batch.sent:
                    planned.outcome = batch.sent[index]
            committed, error = self._send(plans)
            batch.settled.extend(planned.outcome for planned in plans[:committed])
            if error is not None:
                self._known.forget()
                self._settle_failure(batch, error)
        for statement in _DURABLE:
            self._conn.execute(statement)
        self._analyse_once()

    def _analyse_once(self) -> None:
        """Tell the planner what the tables hold, once the first batch is in them.

        Without statistics it takes every index that begins with the org for equally good, goes
        through all sessions of the org for each reference it checks, and keeps to that plan.
        """
        if self._never_analysed:
            self._never_analysed = False
            self._conn.execute("ANALYZE sessions, nodes")

    def _settle_failure(self, batch: _Batch, error: psycopg.Error) -> None:
        """Decide about the first turn that is not settled: again, refused, or not ours to say."""
        index = len(batch.settled)
        kind = fault(error)
        for behind in range(index, len(batch.turns)):
            batch.sent.pop(behind, None)  # stopped with the one that failed
        if kind is Fault.BELIEF and batch.doubts[index] < _MOST_DOUBTS:
            batch.doubts[index] += 1
        elif kind in {Fault.BELIEF, Fault.RECORD}:
            message = refusal(self._conn, error, batch.turns[index])
            batch.settled.append(Outcome(OutcomeKind.REFUSED, message=message))
        else:
            raise error

    def _send(self, plans: Sequence[Transaction]) -> tuple[int, psycopg.Error | None]:
        """Run the transactions in order; return how many were committed, and what stopped them."""
        commits: list[psycopg.Cursor[Any] | None] = []
        try:
            with self._conn.pipeline(), psycopg.RawCursor(self._conn) as cursor:
                commits.extend(self._queue(cursor, planned) for planned in plans)
        except psycopg.Error as error:
            if fault(error) is Fault.CONNECTION:
                raise
            # What psycopg believes to be prepared went down with the pipeline.
            self._conn.close()
            self._conn = self._connect()
            committed = next(
                (i for i, commit in enumerate(commits) if commit and not _is_committed(commit)),
                len(commits),
            )
            return committed, error
        return len(plans), None

    def _queue(
        self, cursor: psycopg.RawCursor[Any], planned: Transaction
    ) -> psycopg.Cursor[Any] | None:
        """Send a transaction without waiting; return the cursor of its commit, if it has any."""
        if not planned.statements:
            return None
        cursor.execute("BEGIN")
        for statement, values in planned.statements:
            cursor.execute(statement, values)
        return self._conn.execute("COMMIT")


def _is_committed(commit: psycopg.Cursor[Any]) -> bool:
    result = commit.pgresult
    return (
        result is not None
        and result.status == pq.ExecStatus.COMMAND_OK
        and result.command_status == b"COMMIT"
    )


if TYPE_CHECKING:
    # The pipeline falls back to nodes without sessions where a store is no SessionIngester; this
    # one must never do so by accident.
    _INGESTER: type[SessionIngester] = PostgresStore
