"""A conversation that is put together message by message, as session files hold it.

Session files do not re-send the history: each message stands there once. Here a turn gets its
history without looking at earlier messages again, so that the cost of a turn is what is new in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

from tapes_cli.capture.decode import decode_exact, dump
from tapes_cli.capture.history import OpenedRecord, parsed_messages
from tapes_cli.model.history import History, Mark
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import RejectError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapes_cli.capture.providers.base import Provider
    from tapes_cli.capture.spool import Piece, Spool
    from tapes_cli.model.blocks import Message
    from tapes_cli.model.json import JSON, JSONObject

MAX_HISTORY_BYTES = 64 << 20
"""Larger histories are rejected: no provider accepts so large a request."""


def too_large(what: str, most_bytes: int = MAX_HISTORY_BYTES) -> RejectError:
    """Return the reject of a turn of which something (`what`) exceeds so many bytes."""
    return RejectError(Reason.HISTORY_TOO_LARGE, f"{what} is larger than {most_bytes:,} bytes")


@dataclass(frozen=True, slots=True)
class _Entry:
    """A message that was put aside, alone or as several items in a row, which were a tuple."""

    piece: Piece
    several: bool


class Conversation:
    """The messages of one thread of a session, in order. Not safe for threads.

    Args:
        provider: whose messages they are.
        field: what the provider's request calls their list, such as `messages`.
        spool: where they are put aside.
        max_bytes: how large the history of a turn may be.
    """

    def __init__(
        self, provider: Provider, field: str, spool: Spool, max_bytes: int = MAX_HISTORY_BYTES
    ) -> None:
        self._provider = provider
        self._field = field
        self._spool = spool
        self._max = max_bytes
        # Turns hold on to it, the longest to so many: of these, none is ever taken out.
        self._entries: list[_Entry] = []
        self._held = 0
        self._size = 0
        self._fresh: list[Message] = []
        self._mark: Mark | None = None
        self._too_large = False

    def __len__(self) -> int:
        """Return how many messages there are."""
        return len(self._entries)

    def reserve(self, size: int) -> bool:
        """Tell whether there is room for so many bytes. If not, the history is too large."""
        self._too_large = self._too_large or self._size + size > self._max
        return not self._too_large

    def check(self) -> None:
        """Check that a turn can have all messages so far as its history.

        Raises:
            RejectError: the history is too large.
        """
        if self._too_large:
            raise too_large("what was said before the turn", self._max)

    def append(self, raw: JSON) -> None:
        """Add a raw message, without any number that may have been rounded.

        A tuple is a message that consists of several items: see `Provider.request_messages`.

        Raises:
            RejectError: the provider's parser refuses it; it is left out.
        """
        if self._too_large:
            return
        several = isinstance(raw, tuple)
        data = dump(list(raw) if several else raw)
        if not self.reserve(len(data)):
            return
        self._fresh += parsed_messages(self._provider, [raw], len(self._entries))
        self._entries.append(_Entry(self._spool.write(data), several))
        self._size += len(data)

    def keep(self, count: int) -> None:
        """Forget all but the first `count` messages: the harness has rolled back, or compacted."""
        shared = len(self._entries) - len(self._fresh)
        del self._fresh[max(count - shared, 0) :]
        if count == 0:
            self._mark = None
        self._size -= sum(entry.piece.length for entry in self._entries[count:])
        if self._held > count:
            self._entries, self._held = self._entries[:count], 0
        else:
            del self._entries[count:]
        self._too_large = False

    def open(self, record: JSONObject) -> OpenedRecord:
        """Return a turn record with all messages so far as its history.

        Args:
            record: the record; its `request` lacks the messages.

        Raises:
            RejectError: the history is too large.
        """
        self.check()
        history = History(self._fresh)
        if self._mark is not None:
            shared = len(self._entries) - len(self._fresh)
            earlier = _Earlier(self._spool, self._hold(shared), shared, self._provider)
            history = History(self._fresh, shared, self._mark, lambda: earlier)
        self._fresh, self._mark = [], history.mark
        return OpenedRecord(record, history=history)

    def raw(self, record: JSONObject) -> Callable[[], bytes]:
        """Return what makes the bytes of a turn record with all messages so far in its request."""
        count = len(self._entries)
        return _Whole(self._spool, self._hold(count), count, record, self._field)

    def _hold(self, count: int) -> list[_Entry]:
        """Return the entries to somebody who looks at the first `count` of them."""
        self._held = max(self._held, count)
        return self._entries


class _Earlier(Sequence["Message"]):
    """The first messages of a conversation. Each is read again when it is asked for.

    None is kept: many turns may be under way that have long histories.
    """

    def __init__(self, spool: Spool, entries: list[_Entry], count: int, provider: Provider) -> None:
        self._spool = spool
        self._entries = entries
        self._count = count
        self._provider = provider

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> list[Message]: ...
    def __getitem__(self, index: int | slice) -> Message | list[Message]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(self._count))]
        place = range(self._count)[index]
        entry = self._entries[place]
        value = decode_exact(self._spool.read(entry.piece))
        raw = tuple(value) if entry.several else value
        (message,) = parsed_messages(self._provider, [raw], place)
        return message


@dataclass(frozen=True, slots=True)
class _Whole:
    """Puts a turn record together with its messages."""

    spool: Spool
    entries: list[_Entry]
    count: int
    record: JSONObject
    field: str

    def __call__(self) -> bytes:
        messages: list[JSON] = []
        for entry in self.entries[: self.count]:
            value = decode_exact(self.spool.read(entry.piece))
            messages += value if entry.several else [value]
        request = {**self.record["request"], self.field: messages}
        return dump({**self.record, "request": request})
