"""Lines that are not one JSON value each: values glued together, and one over several lines."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tapes_cli.capture.decode import end_of_value
from tapes_cli.model.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapes_cli.capture.lines import Line
    from tapes_cli.model.records import RejectError

CUT_SHORT = frozenset({Reason.NOT_JSON, Reason.NOT_UTF8})
"""What is wrong with a line that somebody is still writing."""

LOOK_AT_LINES = 10_000
LOOK_AT_BYTES = 64 << 20
"""How far into a file something is looked for that can be recognised; five lines in any case."""

LOOK_AT_LEAST = 5

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
    comes last, as it is. Empty if the line does not hold two objects, be the second one cut short.
    """
    text = line.data.decode("latin-1")  # a character a byte
    found: list[Line] = []
    position = _after_blanks(line.data, 0)
    while line.data.startswith(b"{", position):
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
        document = _joined(collected)
        if document is None:
            yield from collected
            break
        yield document
    yield from lines


def _goes_on(data: bytes) -> bool:
    data = data.strip(_BLANKS)
    return data.startswith((b"{", b"[")) and data.endswith(_OPENINGS)


def _collect(first: Line, lines: Iterator[Line], max_bytes: int) -> list[Line]:
    """Return the lines up to where all brackets are closed, or to where that cannot be."""
    collected, size, brackets = [first], len(first.data), _Brackets()
    brackets.take(first.data)
    for line in lines:
        collected.append(line)
        size += len(line.data) + 1
        brackets.take(line.data)
        if line.too_long or size > max_bytes or brackets.depth <= 0:
            break
        if line.data.startswith(b"{") and line.data.endswith(b"}") and brackets.depth == 1:
            # A record of its own behind a damaged first line: a document's lines are set in.
            break
    return collected


def _joined(collected: list[Line]) -> Line | None:
    first, last = collected[0], collected[-1]
    data = b"\n".join(line.data for line in collected)
    try:
        whole = end_of_value(data.decode("latin-1"), _after_blanks(data, 0)) == len(data.rstrip())
    except (RecursionError, ValueError):
        return None
    return replace(first, data=data, terminated=last.terminated) if whole else None


class _Brackets:
    """How many brackets are open. A JSON string does not go over lines."""

    def __init__(self) -> None:
        self.depth = 0

    def take(self, data: bytes) -> None:
        unescaped = data.replace(rb"\\", b"").replace(rb"\"", b"")
        for outside in unescaped.split(b'"')[::2]:
            self.depth += outside.count(b"{") + outside.count(b"[")
            self.depth -= outside.count(b"}") + outside.count(b"]")
