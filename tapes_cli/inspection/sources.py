"""What imports remember of the captures they have read: found, and forgotten."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tapes_cli.store.postgres.checkpoints import CheckpointStore
from tapes_cli.store.postgres.migrations import check_current
from tapes_cli.store.postgres.side import SideConnection

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tapes_cli.model.checkpoint import Checkpoint

_TOGETHER = 1000


@dataclass(frozen=True, slots=True)
class Which:
    """Which captures are meant.

    Attributes:
        paths: absolute paths of files, and of folders with all that is in them; None means any.
        missing_on: the name of a machine: only captures on it that are no longer there.
    """

    paths: Sequence[str] | None = None
    missing_on: str | None = None

    def means(self, checkpoint: Checkpoint) -> bool:
        """Tell whether it means this capture, of those with these paths."""
        if self.missing_on is None:
            return True
        key = checkpoint.key
        return key.host == self.missing_on and not os.path.lexists(key.location)


def remembered(dsn: str, which: Which, limit: int | None = None) -> list[Checkpoint]:
    """Return what is remembered of captures, by host and location.

    Args:
        dsn: the database.
        which: which captures.
        limit: how many at most; None for all.

    Raises:
        DatabaseUnavailableError: the database cannot be reached.
        SchemaError: its schema is not current.
    """
    check_current(dsn)
    with closing(SideConnection(dsn)) as side:
        found = CheckpointStore(side).list(which.paths, None if which.missing_on else limit)
    return [checkpoint for checkpoint in found if which.means(checkpoint)][:limit]


def forget(dsn: str, checkpoints: Sequence[Checkpoint]) -> int:
    """Forget captures, so that the next import reads them from their beginning.

    Returns:
        How many there were.

    Raises:
        DatabaseUnavailableError: the database was lost.
    """
    with closing(SideConnection(dsn)) as side:
        store = CheckpointStore(side)
        return sum(store.forget(ids) for ids in _in_parts([c.key.id for c in checkpoints]))


def _in_parts(ids: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(ids), _TOGETHER):
        yield ids[start : start + _TOGETHER]
