"""What became of the turns of a capture: small values that can travel between processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from tapes_cli.model.envelope import SessionKey
    from tapes_cli.model.records import Location
    from tapes_cli.store.base import ChainedTurn, Outcome


@dataclass(slots=True)
class TurnSummary:
    """What a report says of a turn.

    Attributes:
        provider: who answered.
        session: the session it belongs to, None where it is stored without one.
        synthetic: whether that session was derived from the conversation's root.
        captured_at: the capture time (UTC).
        dated: whether the record itself says when that was.
        lossy: whether it was rebuilt from a harness's own notes.
        input_tokens: as the provider counted them, 0 where it did not.
        output_tokens: likewise.
        chain: the hashes of its nodes, root first, if anybody is to see them.
    """

    provider: str
    session: SessionKey | None
    synthetic: bool
    captured_at: datetime
    dated: bool
    lossy: bool
    input_tokens: int
    output_tokens: int
    chain: list[str]

    @classmethod
    def of(cls, turn: ChainedTurn, *, with_chain: bool = True) -> TurnSummary:
        """Return the summary of a turn."""
        captured, session = turn.turn, turn.session
        return cls(
            captured.provider,
            session,
            session is not None and turn.envelope.synthetic,
            captured.captured.at,
            captured.captured.dated,
            captured.lossy,
            captured.usage.prompt_tokens or 0,
            captured.usage.completion_tokens or 0,
            turn.chain.hashes if with_chain else [],
        )


@dataclass(slots=True)
class Settled:
    """A turn that is durably stored or was there before."""

    location: Location
    turn: TurnSummary
    outcome: Outcome
