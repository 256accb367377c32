"""Fingerprints of files: what tells one that has grown from one that was rewritten."""

from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import blake2b
from io import BytesIO
from typing import TYPE_CHECKING

from tapes_cli.capture.decompress import is_compressed
from tapes_cli.model.checkpoint import Fingerprint, Identity, Position, Reached

if TYPE_CHECKING:
    from pathlib import Path

LOOKED_AT_BYTES = 64 << 10
"""So many bytes at most are looked at, at the beginning and before a position."""

_DIGEST_BYTES = 16


def identity_of(status: os.stat_result) -> Identity:
    """Return which file it is that has this status."""
    return Identity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class Beginning:
    """How a file begins, so that it is noticed if it is rewritten while it is read.

    Attributes:
        size: how many bytes that is.
        digest: a digest of them.
        compressed: whether it is an archive, of which no part can be read alone.
    """

    size: int
    digest: bytes
    compressed: bool


def beginning(path: Path) -> Beginning:
    """Look how a file begins.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb", buffering=0) as file:
        data = os.pread(file.fileno(), LOOKED_AT_BYTES, 0)
    return Beginning(len(data), _digest(data), is_compressed(BytesIO(data)))


def reached(path: Path, position: Position, identity: Identity, begun: Beginning) -> Reached | None:
    """Return the fingerprint of a file at a position.

    Args:
        path: where it is.
        position: how far it was read.
        identity: which file was to be read.
        begun: how that one began.

    Returns:
        None if it is no longer that file, or shorter than it was, or rewritten.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb", buffering=0) as file:
        number = file.fileno()
        now = identity_of(os.fstat(number))
        if not now.is_file_of(identity) or now.size < position.byte_offset:
            return None
        if _digest(os.pread(number, begun.size, 0)) != begun.digest:
            return None
        return Reached(position, _fingerprint(number, position))


def goes_on(path: Path, expected: Reached) -> bool:
    """Tell whether a file still holds what was read of it, as far as that can be seen.

    Raises:
        OSError: it cannot be read.
    """
    position = expected.position
    with path.open("rb", buffering=0) as file:
        if os.fstat(file.fileno()).st_size < position.byte_offset:
            return False
        return _fingerprint(file.fileno(), position) == expected.fingerprint


def _fingerprint(number: int, position: Position) -> Fingerprint:
    size = min(LOOKED_AT_BYTES, position.byte_offset)
    head = os.pread(number, size, 0)
    tail = os.pread(number, size, position.byte_offset - size)
    return Fingerprint(_digest(head), _digest(tail))


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=_DIGEST_BYTES).digest()
