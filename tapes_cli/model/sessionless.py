"""What an operator may choose for turns that have no session envelope."""

from __future__ import annotations

from enum import StrEnum


class Sessionless(StrEnum):
    """What to do with a turn that has no session envelope."""

    SYNTHETIC = "synthetic"
    """Give it an `unknown` session, whose id is derived from the conversation's root."""

    LEGACY = "legacy"
    """Store its nodes in the nil org, without a session."""

    REJECT = "reject"
    """Do not store it."""
