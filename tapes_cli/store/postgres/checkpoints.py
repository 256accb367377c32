"""The table `import_sources`: how far each capture was read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tapes_cli.model.checkpoint import (
    Checkpoint,
    Fingerprint,
    Identity,
    Position,
    Reached,
    SourceKey,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from decimal import Decimal

    from tapes_cli.store.postgres.connect import PgConnection
    from tapes_cli.store.postgres.side import SideConnection

_COLUMNS = (
    "id",
    "host",
    "location",
    "reading",
    "device",
    "inode",
    "size",
    "mtime_ns",
    "format",
    "lines",
    "byte_offset",
    "head",
    "tail",
    "final",
    "version",
    "turns",
    "rejected",
    "skipped",
    "incomplete",
    "read_at",
)
_ALL = ", ".join(_COLUMNS)

_BY_ID = f"SELECT {_ALL} FROM import_sources WHERE id = ANY (%s)"  # noqa: S608  # constants
_BY_INODE = f"""
SELECT {_ALL} FROM import_sources
WHERE inode = ANY (%s::text[]::numeric[]) AND reading = %s
"""  # noqa: S608  # constants
_PAGE = f"SELECT {_ALL} FROM import_sources WHERE id > %s ORDER BY id LIMIT %s"  # noqa: S608  # as above
_LIST = f"""
SELECT {_ALL}
FROM import_sources
WHERE %(paths)s::text[] IS NULL
   OR location = ANY (%(paths)s::text[])
   OR EXISTS (
       SELECT FROM unnest(%(paths)s::text[]) AS folder WHERE starts_with(location, folder || '/')
   )
ORDER BY host, location, reading
LIMIT %(limit)s
"""  # noqa: S608  # constants

_SAVE = f"""
INSERT INTO import_sources ({_ALL})
VALUES ({", ".join(["%s"] * len(_COLUMNS))})
ON CONFLICT (id) DO UPDATE SET {", ".join(f"{c} = EXCLUDED.{c}" for c in _COLUMNS[1:])}
"""  # noqa: S608  # constants

# Only if it is still about the file that has moved: another one may have its name by now.
_FORGET_MOVED = "DELETE FROM import_sources WHERE id = %s AND inode = %s"
_FORGET = "DELETE FROM import_sources WHERE id = ANY (%s)"

_SERVER = """
SELECT pg_postmaster_start_time()::text, oid::text
FROM pg_database
WHERE datname = current_database()
"""

_PAGE_ROWS = 1000


class CheckpointStore:
    """Finds, saves and forgets checkpoints."""

    def __init__(self, side: SideConnection) -> None:
        self._side = side
        self._server: tuple[Any, ...] | None = None

    def keep_to_this_server(self) -> None:
        """Save from now on only as long as the server is the one that is there now.

        Another one, or the same after a crash, may lack turns that were stored.
        """
        self._server = self._side.run(_server)

    def holds(self) -> bool:
        """Tell whether any turn is stored: if not, it does not matter what was read."""
        row = self._side.run(lambda conn: conn.execute("SELECT FROM nodes LIMIT 1").fetchone())
        return row is not None

    def remembers_turns(self) -> bool:
        """Tell whether turns were found in any capture that is remembered."""
        query = "SELECT FROM import_sources WHERE turns > 0 LIMIT 1"
        return self._side.run(lambda conn: conn.execute(query).fetchone()) is not None

    def find(self, ids: Sequence[bytes]) -> dict[bytes, Checkpoint]:
        """Return those of these ids that are there."""
        rows = self._side.run(lambda conn: conn.execute(_BY_ID.encode(), (list(ids),)).fetchall())
        return {row[0]: _checkpoint(row) for row in rows}

    def find_files(self, inodes: Sequence[int], reading: str) -> Sequence[Checkpoint]:
        """Return those of files with these inodes, wherever they were, read in the same way."""
        numbers = list(map(str, inodes))
        rows = self._side.run(
            lambda conn: conn.execute(_BY_INODE.encode(), (numbers, reading)).fetchall()
        )
        return [_checkpoint(row) for row in rows]

    def all(self) -> Iterator[Checkpoint]:
        """Yield all, in no order that means anything, page by page."""
        after = b""
        while rows := self._page(after):
            yield from map(_checkpoint, rows)
            after = bytes(rows[-1][0])

    def _page(self, after: bytes) -> Sequence[tuple[Any, ...]]:
        return self._side.run(
            lambda conn: conn.execute(_PAGE.encode(), (after, _PAGE_ROWS)).fetchall()
        )

    def list(self, paths: Sequence[str] | None, limit: int | None) -> Sequence[Checkpoint]:
        """Return those of these files and of what is in these folders, by host and location.

        Args:
            paths: absolute paths; None for all there are.
            limit: how many at most; None for all.
        """
        values = {"paths": None if paths is None else [*paths], "limit": limit}
        rows = self._side.run(lambda conn: conn.execute(_LIST.encode(), values).fetchall())
        return [_checkpoint(row) for row in rows]

    def save(self, checkpoints: Sequence[Checkpoint], moved: Sequence[Checkpoint] = ()) -> None:
        """Save checkpoints in one transaction, and forget those of files that were renamed."""

        def act(conn: PgConnection) -> None:
            with conn.transaction(), conn.cursor() as cursor:
                if self._server not in {None, _server(conn)}:
                    return
                # One order for everybody: two imports that were told not to wait for each other.
                ordered = sorted(checkpoints, key=lambda c: c.key.id)
                cursor.executemany(_SAVE.encode(), [_row(c) for c in ordered])
                cursor.executemany(_FORGET_MOVED, [(c.key.id, c.identity.inode) for c in moved])

        self._side.run(act)

    def forget_all(self) -> None:
        """Forget all."""
        self._side.run(lambda conn: conn.execute("DELETE FROM import_sources"))

    def forget(self, ids: Sequence[bytes]) -> int:
        """Forget these; return how many there were."""
        return self._side.run(lambda conn: conn.execute(_FORGET, (list(ids),)).rowcount)


def _server(conn: PgConnection) -> tuple[Any, ...] | None:
    """Return what tells a database from others, and from itself before its server was restarted."""
    return conn.execute(_SERVER).fetchone()


def _row(checkpoint: Checkpoint) -> tuple[Any, ...]:
    key, identity, reached = checkpoint.key, checkpoint.identity, checkpoint.reached
    place: tuple[Any, ...] = (None, None, None, None)
    if reached is not None:
        at, print_ = reached.position, reached.fingerprint
        place = (at.lines, at.byte_offset, print_.head, print_.tail)
    return (
        *(key.id, key.host, key.location, key.reading),
        *(identity.device, identity.inode, identity.size, identity.mtime_ns),
        checkpoint.format,
        *place,
        *(checkpoint.final, checkpoint.version),
        *(checkpoint.turns, checkpoint.rejected, checkpoint.skipped, checkpoint.incomplete),
        checkpoint.read_at,
    )


def _checkpoint(row: tuple[Any, ...]) -> Checkpoint:
    found = dict(zip(_COLUMNS, row, strict=True))
    device: Decimal = found["device"]
    inode: Decimal = found["inode"]
    reached = None
    if found["lines"] is not None:
        position = Position(found["lines"], found["byte_offset"])
        reached = Reached(position, Fingerprint(bytes(found["head"]), bytes(found["tail"])))
    return Checkpoint(
        SourceKey(bytes(found["id"]), found["host"], found["location"], found["reading"]),
        Identity(int(device), int(inode), found["size"], found["mtime_ns"]),
        found["format"],
        reached,
        found["final"],
        found["version"],
        found["turns"],
        found["rejected"],
        found["skipped"],
        found["incomplete"],
        found["read_at"],
    )
