"""A response's body as the objects that it consists of: one, or those of a stream.

What the body is, is told by how it begins and whether it parses: servers, and what records them,
often name another content type, or none. A stream is made of server-sent events, of lines with
one object each, or is a list of objects that may have been cut short.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tapes_cli.capture.decode import decode_faithfully, end_of_value
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import RejectError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapes_cli.model.json import JSONObject

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BLANKS = b" \t\r\n"
# A line and its end, or the ends of blank lines in a row.
_LINE = re.compile(rb"([^\r\n]+)(\r\n|\r|\n|\Z)|[\r\n]+")
_NOT_BLANK = re.compile(rb"[^\r\n]+")
_FIELD = re.compile(rb"(?:\A|[\r\n])(?:data|event|id|retry)?:")
_DATA = re.compile(rb"(?:\A|[\r\n])data:")
_BETWEEN = re.compile(r"[ \t\r\n,]*")
_DONE = b"[DONE]"
# Small and compressed, a body can hold millions that say nothing. No provider sends so many.
_MOST_FRUITLESS = 10_000


@dataclass(frozen=True, slots=True)
class Event:
    """One object of a stream. `name` is that of a server-sent event, else empty."""

    name: str
    value: JSONObject


class Events:
    """The objects of a stream, in order. To be iterated once.

    Attributes:
        count: how many there were so far.
        unreadable: how many so far could not be read, or are no objects; the rest of a stream in
            which thousands say nothing is one.
        finished: whether the stream said itself that it has ended.
    """

    def __init__(self, values: Iterator[tuple[str, bytes]]) -> None:
        self._values = values
        self.count = 0
        self.unreadable = 0
        self.finished = False

    def __iter__(self) -> Iterator[Event]:
        """Yield the objects; what cannot be read is counted and passed over."""
        fruitless = 0
        for name, data in self._values:
            value = self._read(data)
            if not value:
                fruitless += 1
                if fruitless > _MOST_FRUITLESS:
                    self.unreadable += 1
                    return
            if value is not None:
                self.count += 1
                yield Event(name, value)

    def _read(self, data: bytes) -> JSONObject | None:
        """Return the object that an event is, or None for what is none."""
        data = data.strip(_BLANKS)
        if data == _DONE:
            self.finished = True
        if data in (b"", _DONE):
            return None
        try:
            value = decode_faithfully(data)
        except RejectError:
            value = None
        if not isinstance(value, dict):
            self.unreadable += 1
            return None
        return value


def read_reply(body: bytes, content_type: str) -> JSONObject | Events:
    """Return the object that a response is, or those of a stream.

    Args:
        body: the body, without content codings.
        content_type: what the response says that the body is; believed where the body itself
            leaves room for doubt.

    Raises:
        RejectError: the body is empty, or neither JSON nor a stream.
    """
    body = body.removeprefix(_BYTE_ORDER_MARK)
    opening = body.lstrip(_BLANKS)[:1]
    if not opening:
        raise RejectError(Reason.EMPTY_RESPONSE, "the response is empty")
    if opening == b"[":
        return Events(_listed(body))
    if opening != b"{":
        return _server_sent(body)
    try:
        value: JSONObject = decode_faithfully(body)
    except RejectError:
        sent = "event-stream" in content_type and _DATA.search(body) is not None
        return Events(_server_sent_events(body) if sent else _lines(body))
    return value


def _server_sent(body: bytes) -> Events:
    if _FIELD.search(body) is None:
        raise RejectError(
            Reason.RESPONSE_DECODE, "the response is neither JSON nor a stream of events"
        )
    return Events(_server_sent_events(body))


def _server_sent_events(body: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the data of server-sent events, as the HTML standard reads them.

    Unlike there, an event that the body breaks off in counts: the recording may end early. One
    without data is empty.
    """
    name = b""
    data: list[bytes] = []
    for match in _LINE.finditer(body):
        line = match[1]
        if not line:
            yield name.decode("utf-8", "replace"), b"\n".join(data)
            name, data = b"", []
        elif line.startswith(b"event:"):
            name = line[6:].strip(b" ")
        elif line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
    yield name.decode("utf-8", "replace"), b"\n".join(data)


def _lines(body: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the lines, one object each."""
    for match in _NOT_BLANK.finditer(body):
        yield "", match[0]


def _listed(body: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the items of a list that may be cut short."""
    text = body.decode("utf-8", "replace")
    position = text.index("[") + 1
    while True:
        position = _after(_BETWEEN, text, position)
        if position == len(text) or text[position] == "]":
            return
        try:
            end = end_of_value(text, position)
        except (RecursionError, ValueError):
            # Where the next item begins cannot be told.
            yield "", text[position : position + 1].encode()
            return
        yield "", text[position:end].encode()
        position = end


def _after(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    return match.end() if match else position
