"""How readers share a capture: each conversation belongs to exactly one of them."""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

from tapes_cli.capture.history import conversation_of


@dataclass(frozen=True, slots=True)
class Share:
    """One of `count` equal shares, counted from 0.

    Conversations are divided, not stretches of the file: whoever reads a turn has read the one
    before, and what it re-sends need be neither read nor stored again.
    """

    index: int
    count: int

    def holds(self, record: bytes) -> bool:
        """Tell whether the bytes of a record are in this share; they are in no other then."""
        return crc32(conversation_of(record)) % self.count == self.index
