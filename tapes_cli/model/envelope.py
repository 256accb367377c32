"""The session envelope: who spoke to which agent, in which session."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from tapes_cli.model.json import JSONObject

NIL_ORG = UUID(int=0)
"""The org of captures that name none."""

UNKNOWN_HARNESS = "unknown"
"""The harness of captures that name none."""

SYNTHETIC_ID_DIGITS = 16
"""Hex digits of the root hash that make a synthetic session id: 64 bits, still grep-able."""


@dataclass(frozen=True, slots=True)
class SessionKey:
    """The natural key of a session. Two turns with equal keys belong to one session."""

    org_id: UUID
    harness_id: str
    harness_session_id: str


@dataclass(frozen=True, slots=True)
class Envelope:
    """A validated session envelope. Text that was absent is empty.

    `harness_id` is never empty: an absent one is `unknown`. `parent` is the parent session's
    (harness, harness session id).
    """

    org_id: UUID = NIL_ORG
    auth_subject: str = ""
    harness_id: str = UNKNOWN_HARNESS
    harness_session_id: str = ""
    harness_version: str = ""
    cwd: str = ""
    name: str = ""
    parent: tuple[str, str] | None = None
    harness_metadata: JSONObject = field(default_factory=dict)

    @property
    def synthetic(self) -> bool:
        """Whether the session id has to be derived from the conversation's root."""
        return self.harness_id == UNKNOWN_HARNESS or not self.harness_session_id

    def session_key(self, root_hash: str) -> SessionKey:
        """Return the key of the session that a turn with this root belongs to."""
        session_id = root_hash[:SYNTHETIC_ID_DIGITS] if self.synthetic else self.harness_session_id
        return SessionKey(self.org_id, self.harness_id, session_id)

    def parent_key(self) -> SessionKey | None:
        """Return the key of the parent session, if one is named."""
        return SessionKey(self.org_id, *self.parent) if self.parent else None
