"""The seam between the line and what keeps its turns.

Every store takes nodes one by one. A store that also knows sessions is a `SessionIngester` and
takes whole turns. The pipeline asks for that capability, and falls back to nodes without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from tapes_cli.model.envelope import NIL_ORG, Envelope, SessionKey
from tapes_cli.store.sanitise import clean_key

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from tapes_cli.merkle.chain import Chain, Node
    from tapes_cli.model.turn import Turn


@dataclass(slots=True)
class ChainedTurn:
    """A turn with its chain and the session it belongs to: what a store takes.

    `session` is None for a turn that is stored without one (the nil org, no session row).
    Keys are as they are stored: see `ChainedTurn.of`.
    """

    turn: Turn
    chain: Chain
    session: SessionKey | None
    parent: SessionKey | None = None

    @classmethod
    def of(cls, turn: Turn, chain: Chain) -> ChainedTurn:
        """Resolve the session and the parent that the turn's envelope names, if it has one."""
        if turn.envelope is None:
            return cls(turn, chain, None)
        parent = turn.envelope.parent_key()
        return cls(
            turn,
            chain,
            clean_key(turn.envelope.session_key(chain.root_hash)),
            clean_key(parent) if parent else None,
        )

    @property
    def org_id(self) -> UUID:
        """The org whose nodes these are."""
        return self.session.org_id if self.session else NIL_ORG

    @property
    def envelope(self) -> Envelope:
        """The envelope, or an empty one where the capture had none."""
        return self.turn.envelope or Envelope()


class OutcomeKind(StrEnum):
    """What became of a turn."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What storing one turn did.

    `new_nodes` counts nodes that were not there before; `new_session` tells whether the turn's
    session was created. `message` says why a turn was refused, without any of its content.
    """

    kind: OutcomeKind
    new_nodes: int = 0
    new_session: bool = False
    sanitised: bool = False
    message: str = ""


class Store(Protocol):
    """Keeps nodes."""

    def put(self, org_id: UUID, node: Node) -> bool:
        """Store one node unless it is there; tell whether it was new."""
        ...


@runtime_checkable
class SessionIngester(Protocol):
    """Keeps sessions and turns as well."""

    def ingest(self, turns: Sequence[ChainedTurn]) -> list[Outcome]:
        """Store each turn in a transaction of its own; return when all of it is durable.

        Raises:
            DatabaseUnavailableError: the database was lost for good. Turns of this batch may
                be stored; storing them again does no harm.
            SchemaError: the database is not the one that was checked.
        """
        ...
