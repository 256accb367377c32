"""The PostgreSQL store: batches of turns through one connection.

The turns of a batch go out in one pipeline, in which a failure stops everything behind it:
no turn is ever stored on top of one that was not. Commits inside a batch do not wait for the
disk; one that does closes the batch, before anything is reported (the log is sequential: the last
commit makes all earlier ones durable).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg

from tapes_cli.merkle.chain import check_chain
from tapes_cli.store.base import Outcome, OutcomeKind
from tapes_cli.store.postgres.connect import OptionsRefusedError, connect
from tapes_cli.store.postgres.ingest import Transaction, plan
from tapes_cli.store.postgres.known import Known
from tapes_cli.store.postgres.pipeline import NO_WAITING_HERE, Pipeline
from tapes_cli.store.postgres.refusals import refusal
from tapes_cli.store.postgres.retry import (
    NOT_PREPARED,
    Backoff,
    Fault,
    LostTurnsError,
    explained,
    fault,
    repeat,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from uuid import UUID

    from tapes_cli.store.base import ChainedTurn, SessionIngester
    from tapes_cli.store.postgres.connect import PgConnection
    from tapes_cli.store.postgres.pipeline import Answer, Statement

_NEVER_ANALYSED = """
SELECT EXISTS (
    SELECT FROM pg_class
    WHERE oid IN (to_regclass('sessions'), to_regclass('nodes')) AND reltuples <= 0
)
"""

_IS_THERE = "SELECT FROM nodes WHERE org_id = %s AND hash = %s"

_NO_WAITING = "-c synchronous_commit=off"

_MOST_DOUBTS = 5
"""How often others may change the database under a turn before it is refused."""


@dataclass(slots=True)
class _Batch:
    """Turns on their way, with what is settled of them so far, from the first on.

    `sent` holds the outcomes of turns that were sent, so that one that arrived before the
    connection broke is not taken for somebody else's when it is found there. `doubts` counts how
    often a belief about a turn was refuted. `found` are the turns that were stored at some moment.
    """

    turns: Sequence[ChainedTurn]
    settled: list[Outcome] = field(default_factory=list)
    sent: dict[int, Outcome] = field(default_factory=dict)
    doubts: Counter[int] = field(default_factory=Counter)
    found: set[int] = field(default_factory=set)

    def outcome(
        self, index: int, transaction: Transaction, answers: Sequence[Answer] | None
    ) -> Outcome:
        """Return the outcome of a turn whose transaction is committed, or needed no statement."""
        if transaction.outcome.kind is OutcomeKind.DUPLICATE and index in self.sent:
            return self.sent[index]
        outcome = transaction.outcome_by(answers) if answers else transaction.outcome
        if index in self.sent:
            self.sent[index] = outcome
        return outcome


class PostgresStore:
    """Stores turns, each in a transaction of its own. One connection; not for several threads."""

    def __init__(self, dsn: str, backoff: Backoff | None = None) -> None:
        self._dsn = dsn
        self._backoff = backoff or Backoff()
        self._known = Known()
        self._prepares = True
        self._confirmed: tuple[UUID, str] | None = None
        try:
            repeat(self._connect, lambda: None, self._backoff)
        except psycopg.Error as error:
            raise explained(error) from error

    def _connect(self) -> None:
        try:
            conn = connect(self._dsn, options=_NO_WAITING)
        except OptionsRefusedError:
            conn = connect(self._dsn)
        try:
            # A setting of the session would reach others through a proxy that pools transactions.
            row = conn.execute("SHOW synchronous_commit").fetchone()
            opening = () if row == ("off",) else NO_WAITING_HERE
            row = conn.execute(_NEVER_ANALYSED).fetchone()
            self._never_analysed = row is not None and row[0]
            self._look_for_what_was_confirmed(conn)
        except (psycopg.Error, LostTurnsError):
            conn.close()
            raise
        self._conn = conn
        self._pipeline = Pipeline(conn, opening, prepares=self._prepares)

    def _look_for_what_was_confirmed(self, conn: PgConnection) -> None:
        """Look whether this is a server that has what was reported as stored.

        The log is sequential: if the last turn is there, all before it are.
        """
        if self._confirmed is None:
            return
        if conn.execute(_IS_THERE, self._confirmed).fetchone() is None:
            raise LostTurnsError

    @property
    def statements_sent(self) -> int:
        """How many statements the turns took so far, on the present connection."""
        return self._pipeline.statements_sent

    def close(self) -> None:
        """Close the connection."""
        self._conn.close()

    def ingest(self, turns: Sequence[ChainedTurn]) -> list[Outcome]:
        """Store each turn; return when all of it is durable. See `SessionIngester.ingest`."""
        for turn in turns:
            check_chain(turn.chain)
        batch = _Batch(turns)

        def recover() -> None:
            # After a crash of the server even committed turns may be gone: look at all again.
            batch.settled.clear()
            self._known.forget()
            self._conn.close()
            self._connect()

        try:
            repeat(lambda: self._settle(batch), recover, self._backoff, lambda: len(batch.found))
        except psycopg.Error as error:
            raise explained(error) from error
        for turn, outcome in zip(batch.turns, batch.settled, strict=True):
            if outcome.kind is not OutcomeKind.REFUSED:
                self._confirmed = turn.org_id, turn.chain.head.hash
        return batch.settled

    def _settle(self, batch: _Batch) -> None:
        while len(batch.settled) < len(batch.turns):
            first = len(batch.settled)
            remaining = batch.turns[first:]
            self._known.look_up(self._conn, remaining)
            planned: list[Transaction] = []
            answers: dict[int, list[Answer]] = {}
            failure = self._pipeline.run(self._transactions(batch, planned), answers)
            committed = planned if failure is None else planned[: failure.index]
            for index, transaction in enumerate(committed):
                batch.settled.append(batch.outcome(first + index, transaction, answers.get(index)))
                batch.found.add(first + index)
            if failure is None:
                continue
            self._known.forget()
            if fault(failure.error) is Fault.CONNECTION:
                # A proxy that pools transactions mixes up what its clients have prepared.
                self._prepares = self._prepares and failure.error.sqlstate not in NOT_PREPARED
                raise failure.error
            self._settle_failure(batch, failure.error)
            if len(batch.settled) == len(batch.turns):
                self._make_durable()
        self._analyse_once()

    def _make_durable(self) -> None:
        """Wait for the disk: what stopped the last turn has stopped the commit that does, too."""
        failure = self._pipeline.run((), {})
        if failure is not None:
            raise failure.error

    def _transactions(self, batch: _Batch, planned: list[Transaction]) -> Iterator[list[Statement]]:
        """Yield the statements of turns that are not settled, keeping what is planned."""
        first = len(batch.settled)
        for index, turn in enumerate(batch.turns[first:], first):
            transaction = plan(turn, self._known)
            if transaction.outcome.kind is OutcomeKind.STORED:
                batch.sent[index] = transaction.outcome
            elif not transaction.statements:
                batch.found.add(index)
            planned.append(transaction)
            yield transaction.statements

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
        if index == len(batch.turns):
            raise error  # only the commit that makes them durable has failed
        kind = fault(error)
        for behind in range(index, len(batch.turns)):
            batch.sent.pop(behind, None)  # stopped with the one that failed
        if kind is Fault.BELIEF and batch.doubts[index] < _MOST_DOUBTS:
            batch.doubts[index] += 1
            self._known.be_wary()
        elif kind in {Fault.BELIEF, Fault.RECORD}:
            message = refusal(self._conn, error, batch.turns[index])
            batch.settled.append(Outcome(OutcomeKind.REFUSED, message=message))
        else:
            raise error


if TYPE_CHECKING:
    # The pipeline falls back to nodes without sessions where a store is no SessionIngester; this
    # one must never do so by accident.
    _INGESTER: type[SessionIngester] = PostgresStore
