"""How far captures were read, as an import remembers it for the next one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class Identity:
    """Which file it was, and when it was last written.

    Attributes:
        device: the number of the file system.
        inode: the number of the file in it.
        size: bytes on disk; of a folder that is a capture, those of its files together.
        mtime_ns: the time of the last modification, in nanoseconds since 1970; of a folder, the
            latest of its files.
    """

    device: int
    inode: int
    size: int
    mtime_ns: int

    def is_file_of(self, other: Identity) -> bool:
        """Tell whether both are the same file, perhaps with more in it."""
        return (self.device, self.inode) == (other.device, other.inode)

    def is_unchanged(self, other: Identity) -> bool:
        """Tell whether it is the file that the other one was, under whatever name.

        Numbers of devices change when a machine starts again, so they say nothing here.
        """
        then = (other.inode, other.size, other.mtime_ns)
        return (self.inode, self.size, self.mtime_ns) == then


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place between two lines: how many were ended before it, and where the next one begins.

    Attributes:
        lines: lines before it.
        byte_offset: bytes before it, in the decompressed stream.
    """

    lines: int
    byte_offset: int


BEGINNING = Position(0, 0)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Digests by which a file that has grown is told from one that was rewritten.

    Attributes:
        head: of its first bytes.
        tail: of the bytes before a position.
    """

    head: bytes
    tail: bytes


@dataclass(frozen=True, slots=True)
class Reached:
    """A position in a file up to which every record is durably stored, with its fingerprint."""

    position: Position
    fingerprint: Fingerprint


@dataclass(frozen=True, slots=True)
class SourceKey:
    """Where a capture is, and how it was read.

    Attributes:
        id: a digest of all of it.
        host: the machine that the location is on.
        location: the absolute path, as it is shown.
        reading: the options that decide what is stored of it.
    """

    id: bytes
    host: str
    location: str
    reading: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What is remembered of a capture.

    Attributes:
        key: where it is, and how it was read.
        identity: which file it was, when the reading began.
        format: what was found in it.
        reached: where reading may go on, None if only from the beginning.
        final: whether reading it again, unchanged, says the same.
        version: that of the program that read it.
        turns: turns found in it, stored or known before.
        rejected: records that were rejected.
        skipped: records that were skipped.
        incomplete: records that somebody was still writing.
        read_at: when (UTC).
    """

    key: SourceKey
    identity: Identity
    format: str
    reached: Reached | None
    final: bool
    version: str
    turns: int
    rejected: int
    skipped: int
    incomplete: int
    read_at: datetime
