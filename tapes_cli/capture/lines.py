r"""Lines of a stream, each with its place. Only `\n` ends a line: JSON may hold U+2028 raw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tapes_cli.model.checkpoint import BEGINNING, Position

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DEFAULT_MAX_LINE_BYTES = 256 << 20
"""Longest line that is collected in memory, in bytes."""

_BOM = b"\xef\xbb\xbf"
_BLANKS = b" \t\r"
_BLANK = _BLANKS + b"\n"


@dataclass(frozen=True, slots=True)
class Line:
    r"""One line of a capture.

    Attributes:
        number: counted from 1; blank lines count.
        byte_offset: where `data` begins in the decompressed stream, counted from 0.
        data: the bytes without the newline and without one trailing CR. Empty if too long.
        terminated: whether a newline ended the line.
        too_long: whether the line exceeded the limit and was passed over.
    """

    number: int
    byte_offset: int
    data: bytes
    terminated: bool = True
    too_long: bool = False


class LineSplitter:
    """Splits chunks into lines. Memory is bounded by one chunk and one line.

    Blank lines are counted and passed over; one byte order mark at the very start is dropped.

    Attributes:
        number: how many lines have ended so far, blank ones included.
        replaced: whether what is split is another file than the one that was listed.
        byte_offset: where the line begins that has not ended yet.
    """

    def __init__(
        self, max_line_bytes: int = DEFAULT_MAX_LINE_BYTES, begin: Position = BEGINNING
    ) -> None:
        self.number = begin.lines
        self.byte_offset = begin.byte_offset
        self.replaced = False
        self._ended = begin.lines
        self._max = max_line_bytes
        self._parts: list[bytes] = []
        self._length = 0

    @property
    def position(self) -> Position:
        """Where the next line begins; a last line without a newline has not ended."""
        return Position(self._ended, self.byte_offset)

    def split(self, chunks: Iterable[bytes]) -> Iterator[Line]:
        """Yield the lines of `chunks`, in order."""
        for chunk in chunks:
            start = self._pass_over_blank_lines(chunk)
            while (end := chunk.find(b"\n", start)) >= 0:
                line = self._end_line(chunk[start:end], terminated=True)
                start = end + 1
                if line is not None:
                    yield line
            if start < len(chunk):
                self._collect(chunk[start:] if start else chunk)
        if self._length:
            line = self._end_line(b"", terminated=False)
            if line is not None:
                yield line

    def _pass_over_blank_lines(self, chunk: bytes) -> int:
        """Return where the first line of a chunk begins that is not blank.

        All at once: compressed, a million of them take a kilobyte.
        """
        if self._length or len(chunk) > self._max or chunk[:1].strip(_BLANK):
            return 0
        blank = len(chunk) - len(chunk.lstrip(_BLANK))
        end = chunk.rfind(b"\n", 0, blank) + 1
        lines = chunk.count(b"\n", 0, end)
        self.byte_offset += end
        self.number += lines
        self._ended += lines
        return end

    def _collect(self, piece: bytes) -> None:
        self._length += len(piece)
        if self._length > self._max:
            self._parts.clear()
        else:
            self._parts.append(piece)

    def _end_line(self, last: bytes, *, terminated: bool) -> Line | None:
        """Close the line that `last` completes, or return None if it is blank."""
        length = self._length + len(last)
        offset = self.byte_offset
        too_long = length > self._max
        if self._parts:
            self._parts.append(last)
            data = b"".join(self._parts)
            self._parts.clear()
        else:
            data = last
        self._length = 0
        self.byte_offset += length + terminated
        self.number += 1
        self._ended += terminated
        if too_long:
            return Line(self.number, offset, b"", terminated, too_long=True)
        if offset == 0 and data.startswith(_BOM):
            data = data[len(_BOM) :]
            offset = len(_BOM)
        if data.endswith(b"\r"):
            data = data[:-1]
        if not data or (data[0] in _BLANKS and not data.strip(_BLANKS)):
            return None
        return Line(self.number, offset, data, terminated)
