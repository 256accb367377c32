"""Transactions on their way to the server: sent one behind the other, without waiting for answers.

This is libpq's pipeline mode, used directly: each statement is prepared once a connection, values
travel as text, and a whole batch of transactions costs one round trip. A failure stops everything
behind it, so that no transaction is ever committed on top of one that was not.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, TypeAlias

import psycopg
from psycopg import errors, pq

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

Parameter: TypeAlias = bytes | None
"""A value in PostgreSQL's text form, or NULL."""

Statement: TypeAlias = tuple[str, Sequence[Parameter]]
"""SQL with `$1`, `$2`, … in it, and the values for them."""

Answer: TypeAlias = tuple[str, list[bytes | None]]
"""A statement, and the first value of each row that it returned."""

_BEGIN = "BEGIN"
_COMMIT = "COMMIT"
_COMMIT_AND_GO_ON = "COMMIT AND CHAIN"
_DURABLE: tuple[Statement, ...] = (
    ("SET LOCAL synchronous_commit = on", ()),
    ("SELECT pg_logical_emit_message(true, 'tapes-cli', '')", ()),
)
"""A commit that waits for the disk, whatever else the connection or the server does. The log is
sequential: all earlier commits are durable, too."""

NO_WAITING_HERE: tuple[Statement, ...] = (("SET LOCAL synchronous_commit = off", ()),)
"""Lets the commit of one transaction not wait for the disk."""

_FLUSH_EVERY = 16
"""Transactions that are handed to the system at a time: each time costs a call and wakes up the
server."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The transaction that failed, counted from 0, and why. Those before it are committed."""

    index: int
    error: psycopg.Error


@dataclass(frozen=True, slots=True)
class _Expected:
    """An answer that is to come: of which transaction, and what it prepares, if it does."""

    index: int
    statement: str
    prepares: bool = False


class Pipeline:
    """Runs batches of transactions through one connection, which nobody else uses meanwhile.

    Args:
        conn: the connection.
        opening: statements with which each transaction begins.
        prepares: whether statements are prepared, once each, or sent with each transaction.

    Attributes:
        statements_sent: how many statements were executed, without what prepared them.
    """

    def __init__(
        self,
        conn: psycopg.Connection[Any],
        opening: Sequence[Statement] = (),
        *,
        prepares: bool = True,
    ) -> None:
        self.statements_sent = 0
        self._opening = opening
        self._prepares = prepares
        self._pg = conn.pgconn
        self._poll = select.poll()
        # Names of statements that are sent to be prepared, and of those that are.
        self._numbers = count()
        self._names: dict[str, bytes] = {}
        self._prepared: set[str] = set()
        self._expected: deque[_Expected] = deque()
        self._failure: Failure | None = None
        self._answers: dict[int, list[Answer]] = {}

    def run(
        self, transactions: Iterable[Sequence[Statement]], answers: dict[int, list[Answer]]
    ) -> Failure | None:
        """Run the transactions in order, and return when all are durable, or the first failure.

        Transactions without statements are passed over. `answers` is given what the statements
        of each transaction returned, by the transaction's place, counted from 0.

        Raises:
            psycopg.OperationalError: the connection is lost, and with it what became of those
                transactions that were on their way.
        """
        self._failure = None
        self._expected.clear()
        self._answers = answers
        self._pg.nonblocking = 1
        self._pg.enter_pipeline_mode()
        self._send_all(transactions)
        self._pg.pipeline_sync()
        self._flush()
        while not self._is_done():
            self._consume(self._wait(select.POLLIN))
        self._pg.exit_pipeline_mode()
        self._pg.nonblocking = 0
        if self._has_failed():
            self._recover()
        return self._failure

    def _send_all(self, transactions: Iterable[Sequence[Statement]]) -> None:
        index = -1
        link = _BEGIN
        before = sent = 0
        for index, statements in enumerate(transactions):
            if not statements:
                continue
            self._send(before, link, ())
            link, before = _COMMIT_AND_GO_ON, index
            for statement, values in (*self._opening, *statements):
                self._send(index, statement, values)
            sent += 1
            if sent % _FLUSH_EVERY == 0:
                self._flush()
            if self._has_failed():
                return
        self._send(before, link, ())
        for statement, values in (*_DURABLE, (_COMMIT, ())):
            self._send(index + 1, statement, values)

    def _send(self, index: int, statement: str, values: Sequence[Parameter]) -> None:
        if self._prepares:
            self._send_prepared(index, statement, values)
        else:
            self._pg.send_query_params(statement.encode(), values)
        self._expected.append(_Expected(index, statement))
        self.statements_sent += 1

    def _send_prepared(self, index: int, statement: str, values: Sequence[Parameter]) -> None:
        name = self._names.get(statement)
        if name is None:
            name = self._names[statement] = b"tapes_%d" % next(self._numbers)
            self._pg.send_prepare(name, statement.encode())
            self._expected.append(_Expected(index, statement, prepares=True))
        self._pg.send_query_prepared(name, values)

    def _flush(self) -> None:
        """Hand over what is queued, reading answers lest the server waits for us to."""
        while self._pg.flush():
            self._consume(self._wait(select.POLLIN | select.POLLOUT))
        self._take_answers()

    def _wait(self, events: int) -> int:
        self._poll.register(self._pg.socket, events)
        ((_, ready),) = self._poll.poll()
        return ready

    def _consume(self, ready: int) -> None:
        if ready & ~select.POLLOUT:
            self._pg.consume_input()
            self._take_answers()

    def _take_answers(self) -> None:
        # libpq also reads while it sends: what has come need not be announced by the socket.
        while self._expected and not self._pg.is_busy():
            result = self._pg.get_result()
            if result is not None:
                self._take(result)

    def _take(self, result: PGresult) -> None:
        expected = self._expected.popleft()
        if self._pg.status == pq.ConnStatus.BAD:
            raise psycopg.OperationalError("the connection is lost")
        if result.status == pq.ExecStatus.FATAL_ERROR:
            self._failure = Failure(expected.index, errors.error_from_result(result))
        elif expected.prepares and result.status == pq.ExecStatus.COMMAND_OK:
            self._prepared.add(expected.statement)
        elif result.status == pq.ExecStatus.TUPLES_OK:
            rows = [result.get_value(row, 0) for row in range(result.ntuples)]
            self._answers.setdefault(expected.index, []).append((expected.statement, rows))

    def _has_failed(self) -> bool:
        return self._failure is not None

    def _is_done(self) -> bool:
        """Take what has come; tell whether the mark that ends the pipeline is there."""
        self._take_answers()
        if self._expected:
            return False
        while not self._pg.is_busy():
            result = self._pg.get_result()
            if result is not None and result.status == pq.ExecStatus.PIPELINE_SYNC:
                return True
        return False

    def _recover(self) -> None:
        """Undo the transaction that failed; believe only in what was prepared."""
        self._names = {s: name for s, name in self._names.items() if s in self._prepared}
        self._pg.exec_(b"ROLLBACK")
