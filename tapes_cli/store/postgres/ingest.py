"""The transaction of a turn: what storing one turn does to `sessions` and `nodes`.

A turn is one transaction of at most three steps:

1. PLACEHOLDER: the parent, where one is named and not yet there, so that it can be referred to;
2. the session of the turn, its counters moved by a turn that lands: INSERT_SESSION where it is
   believed to be new, else JOIN_SESSION, which joins it field by field with what is stored;
3. the nodes of the chain that are new, that this capture owns because it is earlier, and the head,
   on which the turn lands: `insert_nodes` where all are believed to be new, else `join_nodes`.

What joins never depends on the order in which turns arrive, and what inserts finds nothing, so
`sessions` and `nodes` are a function of the set of turns imported. Only an identical whole turn
(one whose head has landed before) leaves nodes and counters as they are: it counts once.

A turn counts because its head is believed not to have landed. Should another import have been
faster, a key would stand there twice or `landings` become 2, which the schema refuses; the
transaction is undone, the database looked at again, and the turn planned anew, now with statements
that join.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import TYPE_CHECKING

from uuid6 import uuid7

from tapes_cli.store.base import ChainedTurn, Outcome, OutcomeKind
from tapes_cli.store.postgres.known import Known, NodeFact, SessionFact
from tapes_cli.store.postgres.rows import (
    NodeRow,
    NodeRows,
    Said,
    Sanitised,
    counters,
    is_nearer,
    landing,
    placeholder_row,
    session_row,
    turn_claim,
    uuid_text,
)
from tapes_cli.store.postgres.statements import (
    INSERT_SESSION,
    JOIN_SESSION,
    PLACEHOLDER,
    insert_nodes,
    join_nodes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tapes_cli.model.envelope import SessionKey
    from tapes_cli.store.postgres.pipeline import Answer, Parameter, Statement

_MOST_ROWS_WITH_HEAD = 8
_ROWS_OF_HISTORY = (64, 16, 4, 1)
"""So many statements at most are prepared, and few are needed for a long history."""


@dataclass(slots=True)
class Transaction:
    """The statements of one turn's transaction, and the outcome once it is committed.

    Attributes:
        outcome: what is believed to come of it.
        statements: in their order.
        first_turn: whether the turn is believed to be the first of a session that counts.
    """

    outcome: Outcome
    statements: list[Statement] = field(default_factory=list)
    first_turn: bool = False

    def outcome_by(self, answers: Sequence[Answer]) -> Outcome:
        """Return the outcome by what the joining statements said: others may have been faster."""
        outcome = self.outcome
        told = [statement is JOIN_SESSION for statement, _ in answers]
        if False in told:
            new_nodes = sum(rows.count(b"new") for s, rows in answers if s is not JOIN_SESSION)
            outcome = replace(outcome, new_nodes=new_nodes)
        if True in told and outcome.kind is OutcomeKind.STORED:
            rows = answers[told.index(True)][1]
            is_new = rows == [b"new"] or (self.first_turn and rows == [b"1"])
            outcome = replace(outcome, new_session=is_new)
        return outcome


def plan(turn: ChainedTurn, known: Known) -> Transaction:
    """Decide what a turn does to the database, by what is believed to be stored.

    The beliefs are moved on as if the transaction had been committed: the next turn of the
    session is planned on top of it.
    """
    return _Planner(turn, known).plan()


class _Planner:
    """Goes through the steps of one turn's transaction."""

    def __init__(self, turn: ChainedTurn, known: Known) -> None:
        self._turn = turn
        self._known = known
        self._chain = turn.chain
        self._facts = known.nodes[turn.org_id]
        self._note = Sanitised()
        self._said = Said.of(turn)
        self._transaction = Transaction(Outcome(OutcomeKind.DUPLICATE))

    def plan(self) -> Transaction:
        head = self._facts.get(self._chain.head.hash)
        envelope_text = self._known.envelope_texts.of(self._turn.envelope)
        digest = turn_claim(self._turn.turn, self._said, envelope_text)
        landed = head is not None and head.landed
        if landed and head is not None and (head.turn_claim == digest or self._tells_nothing()):
            return self._transaction
        session_id, new_session = self._session(counts=not landed)
        self._transaction.first_turn = new_session
        kind, new_nodes = OutcomeKind.DUPLICATE, 0
        if not landed:
            kind, new_nodes = OutcomeKind.STORED, self._insert_nodes(session_id, digest)
        self._transaction.outcome = Outcome(kind, new_nodes, new_session, self._note.seen)
        return self._transaction

    def _tells_nothing(self) -> bool:
        """Tell whether a duplicate has no time of its own, so that nothing it says is newer."""
        session = self._turn.session
        fact = self._known.sessions.get(session) if session else None
        return not self._turn.turn.captured.dated and fact is not None and not fact.placeholder

    def _session(self, *, counts: bool) -> tuple[bytes | None, bool]:
        """Take steps 3, 4 and 6: parent, session, counters. Return the id, and if it is new."""
        turn = self._turn
        if turn.session is None:
            return None, False
        parent_id = self._parent(turn.parent) if turn.parent else None
        fact = self._known.sessions.get(turn.session)
        session_id = fact.id if fact else uuid_text(uuid7())
        borrows = not turn.envelope.auth_subject.strip() and (fact is None or fact.borrower)
        self._known.sessions[turn.session] = SessionFact(
            session_id, placeholder=False, borrower=borrows
        )
        row = session_row(turn, (session_id, parent_id), self._said.at, self._note)
        is_new = fact is None and not self._known.wary
        statement = INSERT_SESSION if is_new else JOIN_SESSION
        self._add(statement, (*row, *counters(turn.turn, counts=counts)))
        return session_id, fact is None or fact.placeholder

    def _parent(self, parent: SessionKey) -> bytes:
        fact = self._known.sessions.get(parent) or SessionFact(
            uuid_text(uuid7()), placeholder=True, borrower=True
        )
        if fact.borrower:
            self._add(PLACEHOLDER, placeholder_row(self._turn, fact.id, self._said.at, self._note))
            self._known.sessions[parent] = fact
        return fact.id

    def _insert_nodes(self, session_id: bytes | None, digest: int) -> int:
        """Take step 5: nodes that are new, taken over or landed on. Return how many are new."""
        rows = NodeRows(self._turn, session_id, self._said, self._note)
        head = len(self._chain) - 1
        first = head - self._known.unsettled(self._turn)
        needed = [rows.row(i) for i in range(first, head) if self._is_needed(rows, i)]
        needed.append(rows.row(head))
        new_nodes = sum(row.hash not in self._facts for row in needed)
        are_new = new_nodes == len(needed) and not self._known.wary
        nodes_statement = insert_nodes if are_new else join_nodes
        for row in needed:
            self._believe(row)
        self._believe_landed(digest)
        landed = landing(self._turn.turn, digest, self._note)
        for part in _in_parts(needed):
            place, values = self._node_values(rows.shared, part, landed)
            self._add(nodes_statement(len(part), place), values)
        return new_nodes

    def _is_needed(self, rows: NodeRows, index: int) -> bool:
        fact = self._facts.get(self._chain.hash_at(index))
        if fact is None:
            return True
        at = self._turn.turn.captured.at
        if at != fact.created_at:
            return at < fact.created_at
        if is_nearer(fact.claim, len(self._chain) - 1 - index):
            return False
        return rows.row(index).claim < fact.claim

    def _believe(self, row: NodeRow) -> None:
        fact, at = self._facts.get(row.hash), self._turn.turn.captured.at
        if fact is None:
            self._facts[row.hash] = NodeFact(at, row.claim, landed=False, turn_claim=None)
        elif (at, row.claim) < (fact.created_at, fact.claim):
            self._facts[row.hash] = fact._replace(created_at=at, claim=row.claim)

    def _believe_landed(self, digest: int) -> None:
        head = self._chain.head.hash
        fact = self._facts.get(head)
        assert fact is not None  # noqa: S101  # believed a moment ago
        self._facts[head] = fact._replace(landed=True, turn_claim=digest)

    def _node_values(
        self, shared: Sequence[Parameter], rows: list[NodeRow], landed: Sequence[Parameter]
    ) -> tuple[int | None, list[Parameter]]:
        """Return the place of the head among the rows, if it is there, and the values of all."""
        values = [*shared]
        place = None
        for index, row in enumerate(rows):
            values += row.values
            if row.hash == self._chain.head.hash:
                place = index
                values += landed
        return place, values

    def _add(self, statement: str, values: Sequence[Parameter]) -> None:
        self._transaction.statements.append((statement, values))


def _in_parts(rows: list[NodeRow]) -> Iterator[list[NodeRow]]:
    """Yield the rows in as many parts as there are to be statements; the last row is the head's.

    One order for everybody, so that two imports of one history cannot wait for each other.
    """
    head = rows[-1].hash
    ordered = sorted(rows, key=attrgetter("hash"))
    if len(rows) <= _MOST_ROWS_WITH_HEAD:
        yield ordered
        return
    before = [row for row in ordered if row.hash < head]
    yield from _history_parts(before)
    yield [rows[-1]]
    yield from _history_parts(ordered[len(before) + 1 :])


def _history_parts(rows: list[NodeRow]) -> Iterator[list[NodeRow]]:
    start = 0
    for size in _ROWS_OF_HISTORY:
        while len(rows) - start >= size:
            yield rows[start : start + size]
            start += size
