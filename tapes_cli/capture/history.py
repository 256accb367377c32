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

import re
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from itertools import chain
from operator import is_
from typing import TYPE_CHECKING

import orjson

from tapes_cli.capture.decode import check_nesting, decode, decode_exact
from tapes_cli.capture.known import HistoryKey, KnownHistory, Passage
from tapes_cli.capture.tools import Tools
from tapes_cli.model.history import History, Mark
from tapes_cli.model.records import RejectError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapes_cli.capture.providers.base import Provider
    from tapes_cli.model.blocks import Message
    from tapes_cli.model.json import JSON, JSONObject

DEFAULT_BUDGET_BYTES = 16 << 20
"""Bytes of memory that histories may take, in all."""

MAX_HISTORIES = 16
"""Histories remembered of one session that begin alike: its forks take turns."""

_REWRITTEN_TAIL = 4
"""Harnesses move cache marks along the last messages: a conversation that differs in no more than
these has gone on, and is no fork."""

_LEVELS_ABOVE = 3
"""A message lies in the list of messages, in the request, in the record."""

_FIELDS = (("messages", b'"messages"'), ("input", b'"input"'), ("contents", b'"contents"'))
_REQUESTS = (("request",), ("raw_request",), ("request", "body"))
"""Where the request stands in the records of the formats that re-send a history."""
_LIST = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*\[[ \t\r\n]*")
_SESSION_ID = b'"harness_session_id"'
_OPENING_BYTES = 96


class HistoryMismatchError(Exception):
    """What was cut out of a record does not fit it after all: it has to be read in full."""


@dataclass(slots=True)
class OpenedRecord:
    """A decoded record. Of its history it has only what is not known, if there is a passage.

    Attributes:
        value: the record.
        passage: where its history stands in its bytes.
        history: the history, where it is not in the record at all.
    """

    value: JSON
    passage: Passage | None = None
    history: History | None = None


class Histories:
    """A bounded memory of the histories seen last. Not safe for threads."""

    def __init__(self, budget_bytes: int = DEFAULT_BUDGET_BYTES) -> None:
        self._budget = budget_bytes
        self._spent = 0
        self._mark = secrets.token_hex(16)
        self._tools = Tools(f'"{self._mark}"'.encode())
        # By list, session and opening bytes, least recently used first; and the histories of each.
        self._histories: OrderedDict[HistoryKey, list[KnownHistory]] = OrderedDict()

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
        self, passage: Passage | None, request: JSONObject, provider: Provider
    ) -> History:
        raw = provider.request_messages(request)
        if passage is None or not _consists_of(raw, passage.items):
            if passage is not None and passage.known is not None:
                raise HistoryMismatchError
            return History(parsed_messages(provider, raw, 0))
        known, shared = passage.known, passage.shared
        if known is not None and known.provider != provider.name:
            raise HistoryMismatchError
        fresh = parsed_messages(provider, raw, shared)
        history = History(fresh)
        if known is not None:
            history = History(fresh, shared, known.mark, _Loader(passage, shared, provider))
        self._remember(passage, provider.name, history.mark, [*map(_size, raw)])
        return history

    def _locate(self, data: bytes) -> Passage | None:
        """Find where the messages begin, and the known history that goes on for longest."""
        for name, quoted in _FIELDS:
            found = data.find(quoted)
            while found >= 0:
                if opening := _LIST.match(data, found + len(quoted)):
                    return self._passage(name, data, opening.end())
                found = data.find(quoted, found + 1)
        return None

    def _passage(self, name: str, data: bytes, start: int) -> Passage | None:
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
        return Passage(name, key, data, start, end, best, boundaries)

    def _matched(self, known: KnownHistory, data: bytes, start: int) -> int:
        if known.unread is not None:
            self._spent -= known.cost
            known.read_in()
            self._spent += known.cost
        matched = known.match(data, start)
        # The last message is read anew even if it is known: providers may ask if there is any.
        if matched and not data.startswith(b",", start + known.ends[matched - 1]):
            matched -= 1
        return matched

    def _decode_around(self, passage: Passage) -> JSON:
        """Return the record with only the unknown items in its list, or None if that fails."""
        data, known = passage.data, passage.known
        mark = f'"{self._mark}"{"" if known else ","}'.encode()
        rest = data[: passage.start] + mark + data[passage.end :]
        if known is not None and known.exact:
            return self._decode_marked(rest, passage, decode_exact)
        cut = self._tools.cut_known(rest)
        if cut is None and known is not None:
            cut = self._tools.cut_new(rest)
        if cut is not None:
            # What has to be decoded exactly has limits that are the whole record's.
            value = self._decode_marked(cut.data, passage, orjson.loads)
            if value is not None and passage.request.get("tools") == self._mark:
                passage.request["tools"] = []
                self._tools.keep(cut.tools)
                return value
        return self._decode_marked(rest, passage, decode)

    def _decode_marked(
        self, data: bytes, passage: Passage, decoding: Callable[[bytes], JSON]
    ) -> JSON:
        """Return a record if the mark is the first item of its list, which is taken out."""
        try:
            value = decoding(data)
        except (RejectError, ValueError):
            return None
        for path in _REQUESTS:
            request = _at(value, path)
            items = request.get(passage.name)
            if isinstance(items, list) and items and items[0] == self._mark:
                del items[0]
                passage.items, passage.request = items, request
                return value
        return None

    def _remember(self, passage: Passage, provider: str, mark: Mark, sizes: list[int]) -> None:
        known, boundaries = passage.known, passage.boundaries
        if known is None:
            known = KnownHistory(provider, mark, unread=(passage.data, passage.start, sizes))
        else:
            if len(known.ends) - boundaries <= _REWRITTEN_TAIL:
                self._forget(passage.key, known)
            else:
                known = known.fork()
            known.shorten(boundaries)
            known.extend(passage.data[passage.end :], sizes)
            known.mark = mark
        self._keep(passage.key, known)

    def _keep(self, key: HistoryKey, known: KnownHistory) -> None:
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

    def _forget(self, key: HistoryKey, known: KnownHistory) -> None:
        """Drop the history, and the key with its last one."""
        histories = self._histories[key]
        histories.remove(known)
        self._spent -= known.cost
        if not histories:
            del self._histories[key]


@dataclass(slots=True)
class _Loader:
    """Reads the known messages of a record after all."""

    passage: Passage
    shared: int
    provider: Provider

    def __call__(self) -> list[Message]:
        passage = self.passage
        items = decode_exact(b"[%b]" % passage.data[passage.start : passage.end])
        raw = self.provider.request_messages({passage.name: items})
        return parsed_messages(self.provider, raw[: self.shared], 0)


def _at(value: JSON, path: tuple[str, ...]) -> JSONObject:
    """Return the object at a path, or an empty one."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def parsed_messages(provider: Provider, raw: list[JSON], first: int) -> list[Message]:
    """Return raw messages in the provider-neutral form. `first` is the place of the first one.

    Raises:
        RejectError: a message is refused, or nested too deeply.
        InexactNumberError: a message keeps a number that may have been rounded.
    """
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
