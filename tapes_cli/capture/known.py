"""A history as bytes, and where it stands in the bytes of a record."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from tapes_cli.capture.decode import end_of_value, may_hold_surrogates

if TYPE_CHECKING:
    from tapes_cli.model.history import Mark
    from tapes_cli.model.json import JSON, JSONObject

_SEPARATOR = re.compile(r"[ \t\r\n]*[,\]][ \t\r\n]*")

_OVERHEAD_BYTES = 1000
_MESSAGE_BYTES = 200
"""Of a message, its address and where it ends are remembered as well."""

HistoryKey: TypeAlias = tuple[str, bytes, bytes]
"""Under which histories are remembered: the list, the session, how the list begins."""


@dataclass(slots=True, eq=False)
class KnownHistory:
    """A history as the last record had it.

    Attributes:
        provider: whose messages they are.
        mark: stands for all of them.
        text: their bytes, up to the end of the last message that is complete in itself.
        ends: where in `text` such a message ends.
        counts: how many messages end there.
        unread: the only record so far, where its messages begin, and how many items each has.
        exact: whether records with this text may have to be decoded exactly.
    """

    provider: str
    mark: Mark
    text: bytearray = field(default_factory=bytearray)
    ends: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    unread: tuple[bytes, int, list[int]] | None = None
    exact: bool = False

    @property
    def cost(self) -> int:
        """How many bytes of memory it takes, about."""
        if self.unread is not None:
            data, _, sizes = self.unread
            return _OVERHEAD_BYTES + len(data) + _MESSAGE_BYTES * len(sizes)
        return _OVERHEAD_BYTES + len(self.text) + _MESSAGE_BYTES * len(self.ends)

    def read_in(self) -> None:
        """Find the ends of messages, now that the history is seen again."""
        if self.unread is not None:
            data, start, sizes = self.unread
            self.unread = None
            self.extend(data[start:], sizes)

    def extend(self, data: bytes, sizes: list[int]) -> None:
        """Append messages, the first at the beginning of `data` or behind a comma there.

        `sizes` says of how many items each consists; 0 is one item that is a message by itself.
        A message that consists of items in a row may go on in the next record; it is complete
        once another one follows.
        """
        text = data.decode("latin-1")  # a character a byte; what JSON is made of stays as it is
        count = self.counts[-1] if self.counts else 0
        separator = _SEPARATOR.match(text) if self.ends else None
        position = separator.end() if separator else 0
        ends, counts, offset = [], [], len(self.text)
        try:
            for size in sizes:
                for _ in range(size or 1):
                    end = end_of_value(text, position)
                    separator = _SEPARATOR.match(text, end)
                    position = separator.end() if separator else len(text)
                count += 1
                if not size:
                    ends.append(offset + end)
                    counts.append(count)
        except (RecursionError, ValueError):
            pass  # nested too deeply for this decoder: what comes after is read anew each time
        if ends:
            added = data[: ends[-1] - offset]
            self.text += added
            # Without the text, nobody would know that its escapes of surrogates may be lone ones.
            self.exact = self.exact or may_hold_surrogates(added)
        self.ends += ends
        self.counts += counts

    def shorten(self, boundaries: int) -> None:
        """Keep only so many of the places where a message ends."""
        del self.ends[boundaries:], self.counts[boundaries:]
        del self.text[self.ends[-1] if self.ends else 0 :]

    def fork(self) -> KnownHistory:
        """Return a copy."""
        return replace(self, text=self.text[:], ends=self.ends[:], counts=self.counts[:])

    def match(self, data: bytes, start: int) -> int:
        """Return at how many of the places where a message ends `data` is still the same."""
        if data.startswith(self.text, start):
            return len(self.ends)
        known = memoryview(self.text)
        low, high = 0, len(self.ends)
        while low < high:
            middle = (low + high) // 2
            if data.startswith(known[: self.ends[middle]], start):
                low = middle + 1
            else:
                high = middle
        return low


@dataclass(slots=True)
class Passage:
    """The history in the bytes of a record: `data[start:end]` is known, what follows is not.

    Attributes:
        name: of the list in the request.
        key: under which it is remembered.
        known: the history that it continues, if there is one.
        boundaries: at how many places where a message ends it is still the same.
        items: the items of the list that are not known.
        request: the object that has the list.
    """

    name: str
    key: HistoryKey
    data: bytes
    start: int
    end: int
    known: KnownHistory | None
    boundaries: int
    items: list[JSON] = field(default_factory=list)
    request: JSONObject = field(default_factory=dict)

    @property
    def shared(self) -> int:
        """How many messages are known."""
        return self.known.counts[self.boundaries - 1] if self.known else 0
