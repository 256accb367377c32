"""Bytes put aside while a whole session is read: in memory while they are few, then on disk."""

from __future__ import annotations

import tempfile
import weakref
from dataclasses import dataclass
from threading import Lock

IN_MEMORY_BYTES = 16 << 20
"""So much is kept in memory; beyond it, everything goes to a temporary file."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Where something lies in a spool."""

    offset: int
    length: int


class Spool:
    """Bytes that are written once and read again. May be read by one thread while another writes.

    The temporary file has no name, and is gone with the last reference to the spool.
    """

    def __init__(self, in_memory_bytes: int = IN_MEMORY_BYTES) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=in_memory_bytes)  # noqa: SIM115  # lives as long as the spool
        self._end = 0
        self._lock = Lock()
        weakref.finalize(self, self._file.close)

    def write(self, data: bytes) -> Piece:
        """Put bytes aside.

        Raises:
            OSError: the temporary file cannot be written.
        """
        with self._lock:
            piece = Piece(self._end, len(data))
            self._file.seek(self._end)
            self._file.write(data)
            self._end += len(data)
        return piece

    def read(self, piece: Piece) -> bytes:
        """Return what was put aside.

        Raises:
            OSError: the temporary file cannot be read.
        """
        with self._lock:
            self._file.seek(piece.offset)
            return self._file.read(piece.length)
