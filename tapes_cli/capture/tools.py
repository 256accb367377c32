"""Cuts the definitions of tools out of a record's bytes before it is decoded.

A harness sends its tools with every request, often more of them than messages. They are no part of
a chain, so nothing that is read asks for them, and the same bytes need be looked at only once.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass

import orjson

from tapes_cli.capture.decode import end_of_value, may_hold_surrogates

LEAST_BYTES = 2048
"""Shorter lists are decoded as quickly as they are found."""

_MOST_BYTES = 4 << 20
_NAME = b'"tools"'
_LIST = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*(?=\[)")


@dataclass(frozen=True, slots=True)
class Cut:
    """A record's bytes with a mark in the place of the list, and the list's own bytes."""

    data: bytes
    tools: bytes


class Tools:
    """The lists of tools seen last, as bytes. Bounded in size.

    Args:
        mark: a JSON string, quotes included, that no capture can hold.
    """

    def __init__(self, mark: bytes) -> None:
        self._mark = mark
        self._spent = 0
        # Least recently used first.
        self._known: OrderedDict[bytes, None] = OrderedDict()

    def cut_known(self, data: bytes) -> Cut | None:
        """Return the record without its first list called tools, if that is known.

        Whether the list is the request's own is for the caller to see, by where the mark is.
        """
        start = _find(data)
        for tools in reversed(self._known) if start else ():
            if data.startswith(tools, start):
                return self._cut(data, start, tools)
        return None

    def cut_new(self, data: bytes) -> Cut | None:
        """Return the record without its first list called tools, if that is worth keeping."""
        start = _find(data)
        tools = _list_at(data, start) if start else b""
        return self._cut(data, start, tools) if len(tools) >= LEAST_BYTES else None

    def keep(self, tools: bytes) -> None:
        """Remember a list that was the request's own."""
        if tools not in self._known:
            self._spent += len(tools)
            self._known[tools] = None
        self._known.move_to_end(tools)
        while self._spent > _MOST_BYTES:
            self._spent -= len(self._known.popitem(last=False)[0])

    def _cut(self, data: bytes, start: int, tools: bytes) -> Cut:
        return Cut(data[:start] + self._mark + data[start + len(tools) :], tools)


def _find(data: bytes) -> int:
    """Return where the first list called tools begins, or 0."""
    found = data.find(_NAME)
    while found >= 0:
        if opening := _LIST.match(data, found + len(_NAME)):
            return opening.end()
        found = data.find(_NAME, found + 1)
    return 0


def _list_at(data: bytes, start: int) -> bytes:
    """Return the bytes of the list that begins there, or nothing if they are not to be cut out."""
    text = data[start:].decode("latin-1")  # a character a byte
    try:
        tools = data[start : start + end_of_value(text, 0)]
        # What this decoder takes and JSON does not, such as NaN, must be seen by the reader.
        orjson.loads(tools)
    except (RecursionError, ValueError):
        return b""
    # Lone surrogates would have the record decoded exactly: without them, it might be read in
    # another way.
    return b"" if may_hold_surrogates(tools) else tools
