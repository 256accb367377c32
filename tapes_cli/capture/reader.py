"""From a source to records: every line becomes turns, or a reject that says why not."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import orjson

from tapes_cli.capture.decode import InexactNumberError, decode, decode_exact, too_deep
from tapes_cli.capture.envelope import EnvelopeParser
from tapes_cli.capture.formats import Item, detect
from tapes_cli.capture.formats.turn_records import TurnParser
from tapes_cli.capture.history import (
    DEFAULT_BUDGET_BYTES,
    Histories,
    HistoryMismatchError,
    OpenedRecord,
)
from tapes_cli.capture.lines import DEFAULT_MAX_LINE_BYTES, Line
from tapes_cli.capture.sources import Source, SourceProblem, SourceReadError
from tapes_cli.capture.times import Fallback, utc_now
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import (
    Accepted,
    Incomplete,
    Location,
    Record,
    Rejected,
    RejectError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from uuid import UUID

    from tapes_cli.model.json import JSON
    from tapes_cli.model.turn import Turn

# What a line looks like that somebody is still writing.
_CUT_SHORT = frozenset({Reason.NOT_JSON, Reason.NOT_UTF8})

# A number from 10**18 on, as orjson writes doubles; integers of 64 bits have no exponent.
_LARGE_NUMBER = re.compile(rb"\de\+?(?:1[89]|[2-9]\d|\d{3})")


@dataclass(frozen=True, slots=True)
class Options:
    """How captures are read.

    Attributes:
        default_org: the org of envelopes that name none; None is the nil UUID.
        project: the tag of every turn.
        max_line_bytes: longer lines are rejected unread.
        now: the clock, asked for turns that nothing else dates.
        history_bytes: how much is remembered of the histories that sessions re-send.
    """

    default_org: UUID | None = None
    project: str = ""
    max_line_bytes: int = DEFAULT_MAX_LINE_BYTES
    now: Callable[[], datetime] = utc_now
    history_bytes: int = DEFAULT_BUDGET_BYTES


def read(source: Source | SourceProblem, options: Options | None = None) -> Iterator[Record]:
    """Yield what became of each record of one source. See `Reader.read`."""
    return Reader(options).read(source)


class Reader:
    """Reads sources, and remembers across them what their sessions re-send.

    Memory is bounded by the longest line and the budget of `Histories`. Not safe for threads:
    make one for each.
    """

    def __init__(self, options: Options | None = None) -> None:
        self._options = options or Options()
        self._parser = TurnParser(
            project=self._options.project,
            envelopes=EnvelopeParser(self._options.default_org),
            histories=Histories(self._options.history_bytes),
        )

    def read(self, source: Source | SourceProblem) -> Iterator[Record]:
        """Yield what became of each record, in order; a bad one does not stop the others.

        What cannot be read, or not to its end, yields a last `Rejected` with the reason
        `SOURCE_UNREADABLE`: at line 0 for an argument that leads nowhere, else at the line that
        could not be read.
        """
        if isinstance(source, SourceProblem):
            yield _unreadable(Location(source.name, 0, 0, number=source.number), source.message)
            return
        fallback = Fallback(source.mtime, self._options.now)
        try:
            for line in source.lines(self._options.max_line_bytes):
                if source.holds(line.data):
                    yield from self._line(source, line, fallback)
        except SourceReadError as error:
            place = Location(source.name, error.line, error.byte_offset, number=source.number)
            yield _unreadable(place, error.message)

    def _line(self, source: Source, line: Line, fallback: Fallback) -> Iterator[Record]:
        location = Location(source.name, line.number, line.byte_offset, number=source.number)
        if line.too_long:
            message = f"the line is longer than {self._options.max_line_bytes:,} bytes"
            yield Rejected(location, Reason.LINE_TOO_LONG, message, "", line.data)
            return
        opened = _OpenedLine(line.data, self._parser.histories)
        try:
            items = opened.items()
        except RejectError as error:
            if not line.terminated and error.reason in _CUT_SHORT:
                yield Incomplete(location, line.data)
            else:
                yield _rejected(location, error, line.data)
            return
        for item in items:
            yield self._item(location, opened, item, fallback)

    def _item(
        self, line_location: Location, opened: _OpenedLine, item: Item, fallback: Fallback
    ) -> Record:
        location, raw = line_location, opened.raw(item)
        if item.index is not None:
            location = replace(location, index=item.index)
        try:
            return Accepted(location, self._turn(opened, item, raw, fallback), raw)
        except RejectError as error:
            return _rejected(location, error, raw)
        except RecursionError:
            return _rejected(location, too_deep(), raw)

    def _turn(self, opened: _OpenedLine, item: Item, raw: bytes, fallback: Fallback) -> Turn:
        try:
            try:
                return self._parser.parse(opened.record(item, raw), fallback)
            except HistoryMismatchError:
                return self._parser.parse(OpenedRecord(decode(raw)), fallback)
        except InexactNumberError:
            return self._parser.parse(OpenedRecord(opened.exact(item).record), fallback)


@dataclass(slots=True)
class _OpenedLine:
    """A decoded line, and its exact form if that is asked for."""

    data: bytes
    histories: Histories
    _opened: OpenedRecord = field(default_factory=lambda: OpenedRecord(None))
    _exact: list[Item] = field(default_factory=list)

    def items(self) -> list[Item]:
        """Return the turn records of the line.

        Raises:
            RejectError: the line as a whole is no capture.
        """
        self._opened = self.histories.open(self.data)
        return _items(self._opened.value)

    def record(self, item: Item, raw: bytes) -> OpenedRecord:
        """Return the same turn record as the memory of histories has opened it."""
        return self._opened if item.record is self._opened.value else self.histories.open(raw)

    def exact(self, item: Item) -> Item:
        """Return the same turn record with all integers exact."""
        if not self._exact:
            self._exact = _items(decode_exact(self.data))
        return self._exact[item.index or 0]

    def raw(self, item: Item) -> bytes:
        """Return the turn record's own bytes: the line, or what would be a line of its own.

        No integer is rounded.
        """
        if item.record is self._opened.value:
            return self.data
        try:
            raw = orjson.dumps(item.record)
        except orjson.JSONEncodeError:
            # With integers beyond 64 bits, or nested deeply, which only the exact writer can write.
            return _dump_exact(self.exact(item).record)
        return _dump_exact(self.exact(item).record) if _LARGE_NUMBER.search(raw) else raw


def _items(value: JSON) -> list[Item]:
    if not isinstance(value, dict):
        raise RejectError(Reason.NOT_OBJECT, "the line is not an object")
    return list(detect(value).items(value))


def _dump_exact(value: JSON) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _rejected(location: Location, error: RejectError, raw: bytes) -> Rejected:
    return Rejected(location, error.reason, error.message, error.pointer, raw)


def _unreadable(location: Location, message: str) -> Rejected:
    return Rejected(location, Reason.SOURCE_UNREADABLE, message, "", b"")
