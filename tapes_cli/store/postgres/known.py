"""What is believed to be in the database: looked up in bulk, moved on as turns are sent.

Beliefs only save work. The statements stay right when another import has changed the database
since: they join with what they find, or fail where a belief is refuted; they do not lie.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from tapes_cli.store.postgres.rows import EnvelopeTexts, is_nearer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime
    from uuid import UUID

    import psycopg

    from tapes_cli.model.envelope import SessionKey
    from tapes_cli.store.base import ChainedTurn

# One row by key for each: a plain join tempts the planner to go through all sessions of the org.
_SESSIONS = """
SELECT s.harness_id, s.harness_session_id, s.id::text, s.placeholder, s.auth_subject_own
FROM unnest(%s::text[], %s::text[]) AS wanted (harness_id, harness_session_id)
CROSS JOIN LATERAL (
    SELECT *
    FROM sessions
    WHERE org_id = %s
      AND harness_id = wanted.harness_id
      AND harness_session_id = wanted.harness_session_id
    LIMIT 1
) AS s
"""

_NODES = """
SELECT hash, created_at, claim, landings = 1, turn_claim
FROM nodes
WHERE org_id = %s AND hash = ANY (%s)
"""

_MOST_NODES = 8_000
_MOST_SESSIONS = 4_000
_WARY_BATCHES = 20

K = TypeVar("K")
V = TypeVar("V")


class NodeFact(NamedTuple):
    """A stored node: the capture that owns it, and whether its own turn has landed."""

    created_at: datetime
    claim: int
    landed: bool
    turn_claim: int | None


class SessionFact(NamedTuple):
    """A stored session. A borrower takes times or a subject from its children."""

    id: bytes
    placeholder: bool
    borrower: bool


class Beliefs(Generic[K, V]):
    """What is believed, by key. It grows until it is aged, and then forgets the older half."""

    def __init__(self) -> None:
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def __len__(self) -> int:
        """Return how much was learned or asked for since it was last aged."""
        return len(self._young)

    def __contains__(self, key: K) -> bool:
        """Tell whether anything is believed."""
        return key in self._young or key in self._old

    def get(self, key: K) -> V | None:
        """Return what is believed."""
        belief = self._young.get(key)
        if belief is None and (belief := self._old.get(key)) is not None:
            self._young[key] = belief
        return belief

    def __setitem__(self, key: K, belief: V) -> None:
        """Believe this."""
        self._young[key] = belief

    def age(self) -> None:
        """Forget what was neither learned nor asked for since the last time."""
        self._old, self._young = self._young, {}


class Known:
    """What is believed of sessions and nodes, by org. Bounded in size between batches.

    So many nodes and sessions are remembered for certain, and up to twice as many in all.
    """

    def __init__(self, most_nodes: int = _MOST_NODES, most_sessions: int = _MOST_SESSIONS) -> None:
        self.envelope_texts = EnvelopeTexts()
        self._most_nodes = most_nodes
        self._most_sessions = most_sessions
        self._wary_batches = 0
        self.forget()

    @property
    def wary(self) -> bool:
        """Whether others change the same sessions: nothing is then taken for new."""
        return self._wary_batches > 0

    def be_wary(self) -> None:
        """Take nothing for new for some batches: a belief was refuted."""
        self._wary_batches = _WARY_BATCHES

    def forget(self) -> None:
        """Believe nothing any more."""
        self.nodes: dict[UUID, Beliefs[str, NodeFact]] = defaultdict(Beliefs)
        self.sessions: Beliefs[SessionKey, SessionFact] = Beliefs()

    def look_up(self, conn: psycopg.Connection[Any], turns: Sequence[ChainedTurn]) -> None:
        """Learn what the database holds of these turns: sessions, heads, then histories."""
        self._age()
        self._wary_batches -= self.wary
        self._look_up_sessions(conn, turns)
        self._look_up_nodes(conn, ((turn.org_id, turn.chain.head.hash) for turn in turns))
        self._look_up_nodes(conn, self._unknown_history(turns))

    def _age(self) -> None:
        if len(self.sessions) > self._most_sessions:
            self.sessions.age()
        if sum(map(len, self.nodes.values())) > self._most_nodes:
            for org_id, facts in list(self.nodes.items()):
                if facts:
                    facts.age()
                else:
                    del self.nodes[org_id]

    def unsettled(self, turn: ChainedTurn) -> int:
        """Return how many nodes before the head this turn may bring or take over: the last ones.

        A node that an earlier capture owns ends the search: every turn that contains a node
        contains those before it, so they are stored, and owned by a capture no later.
        """
        chain, facts, at = turn.chain, self.nodes[turn.org_id], turn.turn.captured.at
        last = len(chain) - 2
        for index in range(last, -1, -1):
            fact = facts.get(chain.hash_at(index))
            if fact is not None and (
                fact.created_at < at
                or (fact.created_at == at and is_nearer(fact.claim, last + 1 - index))
            ):
                return last - index
        return last + 1

    def _unknown_history(self, turns: Sequence[ChainedTurn]) -> Iterator[tuple[UUID, str]]:
        for turn in turns:
            chain = turn.chain
            head = self.nodes[turn.org_id].get(chain.head.hash)
            if head is None or not head.landed:
                last = len(chain) - 1
                for index in range(last - self.unsettled(turn), last):
                    yield turn.org_id, chain.hash_at(index)

    def _look_up_sessions(
        self, conn: psycopg.Connection[Any], turns: Sequence[ChainedTurn]
    ) -> None:
        wanted: dict[UUID, set[SessionKey]] = defaultdict(set)
        for turn in turns:
            for key in (turn.session, turn.parent):
                if key is not None and key not in self.sessions:
                    wanted[key.org_id].add(key)
        for org_id, keys in wanted.items():
            by_name = {(key.harness_id, key.harness_session_id): key for key in keys}
            names = list(by_name)
            rows = conn.execute(_SESSIONS, ([n[0] for n in names], [n[1] for n in names], org_id))
            for harness_id, session_id, row_id, placeholder, subject_own in rows:
                self.sessions[by_name[harness_id, session_id]] = SessionFact(
                    row_id.encode(), placeholder, placeholder or not subject_own
                )

    def _look_up_nodes(
        self, conn: psycopg.Connection[Any], hashes: Iterable[tuple[UUID, str]]
    ) -> None:
        wanted: dict[UUID, set[str]] = defaultdict(set)
        for org_id, node_hash in hashes:
            if node_hash not in self.nodes[org_id]:
                wanted[org_id].add(node_hash)
        for org_id, missing in wanted.items():
            facts = self.nodes[org_id]
            for row in conn.execute(_NODES, (org_id, list(missing))):
                facts[row[0]] = NodeFact(*row[1:])
