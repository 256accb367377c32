"""Lines that are not one JSON value each: values glued together, and one over several lines."""

from __future__ import annotations

from array import array
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from tapes_cli.capture.decode import end_of_value, outside_strings
from tapes_cli.capture.lines import Line
from tapes_cli.model.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapes_cli.model.records import RejectError

CUT_SHORT = frozenset({Reason.NOT_JSON, Reason.NOT_UTF8})
"""What is wrong with a line that somebody is still writing."""

LOOK_AT_LINES = 10_000
LOOK_AT_BYTES = 64 << 20
"""How far into a file something is looked for that can be recognised; five lines in any case."""

LOOK_AT_LEAST = 5

MOST_GLUED = 1_000_000
"""Objects that are told apart on one line: where they are tiny, they take far more memory than it.
"""

MOST_DOCUMENT_LINES = 4_000_000
"""Lines of one object. No capture has so many, and tiny ones would take minutes."""

_MAY_BE_GLUED = CUT_SHORT | {Reason.NUMBER_OVERFLOW}
_BLANKS = b" \t\r\n"
_OPENINGS = (b"{", b"[", b",", b":")
"""How a line of a document ends that goes on; a line that was cut short mostly ends elsewhere."""


def is_cut_short(line: Line, error: RejectError) -> bool:
    """Whether a line that cannot be read for this reason may be one that is still being written."""
    return not line.terminated and error.reason in CUT_SHORT


def pieces_of(line: Line, error: RejectError) -> list[Line]:
    """Return the objects glued together on a line that cannot be read for this reason.

    The line itself if there are none.
    """
    pieces = glued(line) if error.reason in _MAY_BE_GLUED else []
    return pieces if len(pieces) > 1 else [line]


def glued(line: Line) -> list[Line]:
    """Return the objects that stand one after the other on a line, as lines of the same number.

    Two processes that write to one file can lose the newline between them. What is left over
    comes last, as it is. Empty if the line does not hold two objects, be the second one cut short,
    or if it holds more than `MOST_GLUED`.
    """
    text = line.data.decode("latin-1")  # a character a byte
    found: list[Line] = []
    position = _after_blanks(line.data, 0)
    while line.data.startswith(b"{", position):
        if len(found) == MOST_GLUED:
            return []
        try:
            end = end_of_value(text, position)
        except (RecursionError, ValueError):
            break
        found.append(_part(line, position, end))
        position = _after_blanks(line.data, end)
    if position == len(line.data):
        return found
    if len(found) > 1 or (found and line.data.startswith(b"{", position)):
        return [*found, _part(line, position, len(line.data))]
    return []


def _after_blanks(data: bytes, position: int) -> int:
    while position < len(data) and data[position] in _BLANKS:
        position += 1
    return position


def _part(line: Line, start: int, end: int) -> Line:
    terminated = line.terminated or end < len(line.data)
    return replace(
        line,
        byte_offset=line.byte_offset + start,
        data=line.data[start:end],
        terminated=terminated,
    )


def join_documents(lines: Iterator[Line], max_bytes: int) -> Iterator[Line]:
    """Yield the lines; objects at the beginning that go over several lines, each as one line.

    So are documents read that were written to be looked at. From the first line on that does not
    belong to one, the lines are yielded as they are.

    Args:
        lines: the lines of a source, from the beginning.
        max_bytes: how long such a document may be.
    """
    for first in lines:
        if first.too_long or not first.terminated or not _goes_on(first.data):
            yield first
            break
        collected = _collect(first, lines, max_bytes)
        document = collected.joined()
        if document is None:
            yield from collected.lines()
            break
        yield document
    yield from lines


def _goes_on(data: bytes) -> bool:
    data = data.strip(_BLANKS)
    return data.startswith((b"{", b"[")) and data.endswith(_OPENINGS)


def _collect(first: Line, lines: Iterator[Line], max_bytes: int) -> _Collected:
    """Return the lines up to where all brackets are closed, or to where that cannot be."""
    collected = _Collected(first)
    for line in lines:
        collected.add(line)
        depth = collected.brackets.depth
        if line.too_long or collected.size > max_bytes or depth <= 0:
            break
        if collected.count >= MOST_DOCUMENT_LINES:
            break
        if line.data.startswith(b"{") and line.data.endswith(b"}") and depth == 1:
            # A record of its own behind a damaged first line: a document's lines are set in.
            break
    return collected


class _Collected:
    """Lines that may be one document.

    They are many where they are short, so there is no object for each.

    Attributes:
        brackets: which are open.
        count: how many lines there are.
    """

    def __init__(self, first: Line) -> None:
        self.brackets = _Brackets()
        self.count = 0
        self._first = self._last = first
        # Of all but the last line, what is in them, the number, the place, and the end in `_data`.
        self._data = bytearray()
        self._numbers, self._offsets, self._ends = array("Q"), array("Q"), array("Q", [0])
        self._take(first)

    @property
    def size(self) -> int:
        """How many bytes the document would have."""
        return len(self._data) + len(self._last.data)

    def add(self, line: Line) -> None:
        """Add the next line."""
        before = self._last
        self._data += before.data + b"\n"
        self._numbers.append(before.number)
        self._offsets.append(before.byte_offset)
        self._ends.append(len(self._data))
        self._take(line)

    def _take(self, line: Line) -> None:
        self._last = line
        self.count += 1
        self.brackets.take(line.data)

    def lines(self) -> Iterator[Line]:
        """Yield the lines as they were."""
        places = zip(self._numbers, self._offsets, pairwise(self._ends), strict=True)
        for number, offset, (start, end) in places:
            # Only the last one may lack its end, or be too long.
            yield Line(number, offset, bytes(self._data[start : end - 1]))
        yield self._last

    def joined(self) -> Line | None:
        """Return the document that the lines are, or None if they are none."""
        data = bytes(self._data) + self._last.data
        try:
            text = data.decode("latin-1")
            whole = end_of_value(text, _after_blanks(data, 0)) == len(data.rstrip())
        except (RecursionError, ValueError):
            return None
        return replace(self._first, data=data, terminated=self._last.terminated) if whole else None


class _Brackets:
    """How many brackets are open. A JSON string does not go over lines."""

    def __init__(self) -> None:
        self.depth = 0

    def take(self, data: bytes) -> None:
        for outside in outside_strings(data) if b'"' in data else (data,):
            self.depth += outside.count(b"{") + outside.count(b"[")
            self.depth -= outside.count(b"}") + outside.count(b"]")
