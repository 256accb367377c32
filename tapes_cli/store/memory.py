"""A store in memory, for checks without a database. It knows nodes, not sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uuid import UUID

    from tapes_cli.merkle.chain import Node


class MemoryStore:
    """Remembers which nodes it has been given, per org."""

    def __init__(self) -> None:
        self._hashes: set[tuple[UUID, str]] = set()

    def __len__(self) -> int:
        """Return how many distinct nodes are held."""
        return len(self._hashes)

    def put(self, org_id: UUID, node: Node) -> bool:
        """Store one node unless it is there; tell whether it was new."""
        key = (org_id, node.hash)
        if key in self._hashes:
            return False
        self._hashes.add(key)
        return True
