"""Recognises, in the bytes of a record, the history that a session re-sends with every request.

A conversation of n turns sends its first message n times. What the record before it had, byte for
byte, is cut out before the record is decoded: neither the decoder nor the parser nor the hasher
sees it again, and the cost of a turn is what is new in it. The result is the same as reading
everything anew; only the work differs.

Why cutting is sound: where the list of messages begins, a mark that no capture can hold is put in
the place of the messages that are known. If the mark is then found as the first of the request's
messages, it stood where a message may stand, and so did the bytes that it replaced, which have
been read as whole messages before. If it is found anywhere else, the record is read in full.
"""

from __future__ import annotations

import json
import re
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from itertools import chain
from operator import is_
from typing import TYPE_CHECKING, TypeAlias

from tapes_cli.capture.decode import check_nesting, decode, decode_exact
from tapes_cli.model.history import History, Mark
from tapes_cli.model.records import RejectError

if TYPE_CHECKING:
    from tapes_cli.capture.providers.base import Provider
    from tapes_cli.model.blocks import Message
    from tapes_cli.model.json import JSON, JSONObject

DEFAULT_BUDGET_BYTES = 48 << 20
"""Bytes of histories that are remembered, in all."""

MAX_HISTORIES = 16
"""Histories remembered of one session that begin alike: its forks take turns."""

_REWRITTEN_TAIL = 4
"""Harnesses move cache marks along the last messages: a conversation that differs in no more than
these has gone on, and is no fork."""

_LEVELS_ABOVE = 3
"""A message lies in the list of messages, in the request, in the record."""

_FIELDS = (("messages", b'"messages"'), ("input", b'"input"'))
_LIST = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*\[[ \t\r\n]*")
_SEPARATOR = re.compile(r"[ \t\r\n]*[,\]][ \t\r\n]*")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_SESSION_ID = b'"harness_session_id"'
_OPENING_BYTES = 96

# Only where a value ends is asked, not what its numbers are.
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str)

_Key: TypeAlias = tuple[str, bytes, bytes]


class HistoryMismatchError(Exception):
    """What was cut out of a record does not fit it after all: it has to be read in full."""


@dataclass(slots=True, eq=False)
class _Known:
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
        return len(self.unread[0]) if self.unread else len(self.text)

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
                    end = _DECODER.raw_decode(text, position)[1]
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
            self.exact = self.exact or _SURROGATE.search(added) is not None
        self.ends += ends
        self.counts += counts

    def shorten(self, boundaries: int) -> None:
        """Keep only so many of the places where a message ends."""
        del self.ends[boundaries:], self.counts[boundaries:]
        del self.text[self.ends[-1] if self.ends else 0 :]

    def fork(self) -> _Known:
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
class _Passage:
    """The history in the bytes of a record: `data[start:end]` is known, what follows is not.

    Attributes:
        name: of the list in the request.
        key: under which it is remembered.
        known: the history that it continues, if there is one.
        boundaries: at how many places where a message ends it is still the same.
        items: the items of the list that are not known.
    """

    name: str
    key: _Key
    data: bytes
    start: int
    end: int
    known: _Known | None
    boundaries: int
    items: list[JSON] = field(default_factory=list)

    @property
    def shared(self) -> int:
        """How many messages are known."""
        return self.known.counts[self.boundaries - 1] if self.known else 0


@dataclass(slots=True)
class OpenedRecord:
    """A decoded record. Of its history it has only what is not known, if there is a passage."""

    value: JSON
    passage: _Passage | None = None


class Histories:
    """A bounded memory of the histories seen last. Not safe for threads."""

    def __init__(self, budget_bytes: int = DEFAULT_BUDGET_BYTES) -> None:
        self._budget = budget_bytes
        self._spent = 0
        self._mark = secrets.token_hex(16)
        # By list, session and opening bytes, least recently used first; and the histories of each.
        self._histories: OrderedDict[_Key, list[_Known]] = OrderedDict()

    def open(self, data: bytes) -> OpenedRecord:
        """Decode a record, without the part of its history that is known.

        Raises:
            RejectError: as `decode`.
        """
        passage = self._locate(data)
        if passage is not None and (value := self._decode_around(passage)) is not None:
            return OpenedRecord(value, passage)
        return OpenedRecord(decode(data))

    def messages(self, opened: OpenedRecord, request: JSONObject, provider: Provider) -> History:
        """Return the history of a record's request, parsing only what no earlier request had.

        Raises:
            RejectError: the request or a message is refused, or nested too deeply.
            InexactNumberError: a message keeps a number that may have been rounded.
            HistoryMismatchError: the record has to be read in full.
        """
        passage = opened.passage
        try:
            return self._messages(passage, request, provider)
        except RejectError:
            if passage is not None and passage.known is not None:
                # Read in full, it is told where the fault stands.
                raise HistoryMismatchError from None
            raise

    def _messages(
        self, passage: _Passage | None, request: JSONObject, provider: Provider
    ) -> History:
        raw = provider.request_messages(request)
        if passage is None or not _consists_of(raw, passage.items):
            if passage is not None and passage.known is not None:
                raise HistoryMismatchError
            return History(_parsed(provider, raw, 0))
        known, shared = passage.known, passage.shared
        if known is not None and known.provider != provider.name:
            raise HistoryMismatchError
        fresh = _parsed(provider, raw, shared)
        history = History(fresh)
        if known is not None:
            history = History(fresh, shared, known.mark, _Loader(passage, shared, provider))
        self._remember(passage, provider.name, history.mark, [*map(_size, raw)])
        return history

    def _locate(self, data: bytes) -> _Passage | None:
        """Find where the messages begin, and the known history that goes on for longest."""
        for name, quoted in _FIELDS:
            found = data.find(quoted)
            while found >= 0:
                if opening := _LIST.match(data, found + len(quoted)):
                    return self._passage(name, data, opening.end())
                found = data.find(quoted, found + 1)
        return None

    def _passage(self, name: str, data: bytes, start: int) -> _Passage | None:
        if data.startswith(b"]", start):
            return None
        key = name, _session_of(data), _opening(data, start)
        best, boundaries = None, 0
        for known in reversed(self._histories.get(key, ())):
            matched = self._matched(known, data, start)
            if matched > boundaries:
                best, boundaries = known, matched
                if matched == len(known.ends):
                    break
        end = start + best.ends[boundaries - 1] if best else start
        return _Passage(name, key, data, start, end, best, boundaries)

    def _matched(self, known: _Known, data: bytes, start: int) -> int:
        if known.unread is not None:
            self._spent -= known.cost
            known.read_in()
            self._spent += known.cost
        matched = known.match(data, start)
        # The last message is read anew even if it is known: providers may ask if there is any.
        if matched and not data.startswith(b",", start + known.ends[matched - 1]):
            matched -= 1
        return matched

    def _decode_around(self, passage: _Passage) -> JSON:
        """Return the record with only the unknown items in its list, or None if that fails."""
        data, joint = passage.data, "" if passage.known else ","
        mark = f'"{self._mark}"{joint}'.encode()
        decoding = decode_exact if passage.known is not None and passage.known.exact else decode
        try:
            value = decoding(data[: passage.start] + mark + data[passage.end :])
            items = value["request"][passage.name]
            if items[0] != self._mark:
                return None
        except (RejectError, LookupError, TypeError):
            return None
        del items[0]
        passage.items = items
        return value

    def _remember(self, passage: _Passage, provider: str, mark: Mark, sizes: list[int]) -> None:
        known, boundaries = passage.known, passage.boundaries
        if known is None:
            known = _Known(provider, mark, unread=(passage.data, passage.start, sizes))
        else:
            if len(known.ends) - boundaries <= _REWRITTEN_TAIL:
                self._forget(passage.key, known)
            else:
                known = known.fork()
            known.shorten(boundaries)
            known.extend(passage.data[passage.end :], sizes)
            known.mark = mark
        self._keep(passage.key, known)

    def _keep(self, key: _Key, known: _Known) -> None:
        """Put the history at the fresh end, and forget the stalest beyond the budget."""
        histories = self._histories.setdefault(key, [])
        histories.append(known)
        self._histories.move_to_end(key)
        self._spent += known.cost
        if len(histories) > MAX_HISTORIES:
            self._forget(key, histories[0])
        while self._spent > self._budget:
            stalest, candidates = next(iter(self._histories.items()))
            self._forget(stalest, candidates[0])

    def _forget(self, key: _Key, known: _Known) -> None:
        """Drop the history, and the key with its last one."""
        histories = self._histories[key]
        histories.remove(known)
        self._spent -= known.cost
        if not histories:
            del self._histories[key]


@dataclass(slots=True)
class _Loader:
    """Reads the known messages of a record after all."""

    passage: _Passage
    shared: int
    provider: Provider

    def __call__(self) -> list[Message]:
        passage = self.passage
        items = decode_exact(b"[%b]" % passage.data[passage.start : passage.end])
        raw = self.provider.request_messages({passage.name: items})
        return _parsed(self.provider, raw[: self.shared], 0)


def _parsed(provider: Provider, raw: list[JSON], first: int) -> list[Message]:
    messages = []
    for index, item in enumerate(raw, first):
        pointer = f"/request/messages/{index}"
        for part in _items_of(item):
            check_nesting(part, _LEVELS_ABOVE, pointer)
        messages.append(provider.parse_message(item, pointer))
    return messages


def _consists_of(raw: list[JSON], items: list[JSON]) -> bool:
    """Whether the messages are these items, one each or several in a row."""
    if raw is items:
        return True
    made_of = [*chain.from_iterable(map(_items_of, raw))]
    return len(made_of) == len(items) and all(map(is_, made_of, items))


def _items_of(message: JSON) -> tuple[JSON, ...]:
    """Return the items that a message consists of: itself, unless it is several in a row."""
    return message if isinstance(message, tuple) else (message,)


def _size(message: JSON) -> int:
    return len(message) if isinstance(message, tuple) else 0


def conversation_of(data: bytes) -> bytes:
    """Return what tells conversations apart, as well as bytes that are not decoded can do it.

    The session's id; where there is none, how the messages begin; else the record's beginning.
    """
    if session := _session_of(data):
        return session
    for _, quoted in _FIELDS:
        found = data.find(quoted)
        if found >= 0:
            return _opening(data, found)
    return data[:_OPENING_BYTES]


def _opening(data: bytes, start: int) -> bytes:
    """Return the beginning of what starts there: no more than what is sent again."""
    end = data.find(b"}", start, start + _OPENING_BYTES)
    return data[start : end if end >= 0 else start + _OPENING_BYTES]


def _session_of(data: bytes) -> bytes:
    """Return what tells the sessions of records apart; any bytes will do, the same each time."""
    found = data.rfind(_SESSION_ID)
    if found < 0:
        return b""
    opening = data.find(b'"', found + len(_SESSION_ID))
    return data[opening : data.find(b'"', opening + 1)]
