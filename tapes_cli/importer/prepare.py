"""From an accepted record to what a store takes: the chain, the session, the sessionless rule."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tapes_cli.merkle.chain import ChainBuilder
from tapes_cli.model.envelope import NIL_ORG, Envelope
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import RejectError
from tapes_cli.model.sessionless import Sessionless
from tapes_cli.store.base import ChainedTurn

if TYPE_CHECKING:
    from uuid import UUID

    from tapes_cli.model.turn import Turn


@dataclass(slots=True)
class Preparer:
    """Makes chains of turns; remembers the histories that sessions re-send."""

    sessionless: Sessionless = Sessionless.SYNTHETIC
    default_org: UUID | None = None
    _chains: ChainBuilder = field(default_factory=ChainBuilder)

    @property
    def hashes_computed(self) -> int:
        """How many hashes were worked out so far."""
        return self._chains.hashes_computed

    def prepare(self, turn: Turn) -> ChainedTurn:
        """Return the turn with its chain, session and parent.

        Raises:
            RejectError: the turn has no envelope and must have one, or its session names itself
                as its parent.
        """
        if turn.envelope is None:
            self._give_envelope(turn)
        chained = ChainedTurn.of(turn, self._chains.build(turn))
        if chained.parent is not None and chained.parent == chained.session:
            raise RejectError(
                Reason.PARENT_SELF,
                "the session names itself as its parent; omit the parent or name the right one",
                "/session/parent_harness_session_id",
            )
        return chained

    def _give_envelope(self, turn: Turn) -> None:
        if self.sessionless is Sessionless.REJECT:
            raise RejectError(
                Reason.SESSIONLESS,
                "the turn has no session envelope; add one, or use --sessionless synthetic",
                "/session",
            )
        if self.sessionless is Sessionless.SYNTHETIC:
            turn.envelope = Envelope(org_id=self.default_org or NIL_ORG)
