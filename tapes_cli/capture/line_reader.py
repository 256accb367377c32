"""One record's bytes to turns: what a record format finds in a line, parsed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

import orjson

from tapes_cli.capture.decode import InexactNumberError, decode, decode_exact, dump, too_deep
from tapes_cli.capture.formats import detect
from tapes_cli.capture.formats.base import (
    Draft,
    Item,
    RecordFormat,
    SkipError,
    Unusable,
    refused,
)
from tapes_cli.capture.history import HistoryMismatchError, OpenedRecord
from tapes_cli.model.json import JSON
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import Accepted, Record, RejectError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapes_cli.capture.formats.base import Format
    from tapes_cli.capture.formats.turn_records import TurnParser
    from tapes_cli.capture.times import Fallback
    from tapes_cli.model.records import Location
    from tapes_cli.model.turn import Turn

Decoding: TypeAlias = Callable[[bytes], JSON]

# A number from 10**18 on, as orjson writes doubles; integers of 64 bits have no exponent.
_LARGE_NUMBER = re.compile(rb"\de\+?(?:1[89]|[2-9]\d|\d{3})")


@dataclass(frozen=True, slots=True)
class OpenedLine:
    """A line whose format is known, as the memory of histories has opened it."""

    data: bytes
    opened: OpenedRecord
    format: RecordFormat
    _exact: list[Item | Unusable] = field(default_factory=list, compare=False)

    def items(self) -> Iterator[Item | Unusable]:
        """Yield what the line holds. Raises as `RecordFormat.items`."""
        return self.format.items(self.opened.value)

    def again(self, place: int, decoding: Decoding) -> JSON:
        """Return the record that is the item at a place, from the line decoded anew and whole."""
        item = next(islice(self.format.items(decoding(self.data)), place, None))
        return item.record if isinstance(item, Item) else None

    def exact(self, place: int) -> JSON:
        """Return the record that is the item at a place, with all integers exact."""
        if not self._exact:
            self._exact.extend(self.format.items(decode_exact(self.data)))
        item = self._exact[place]
        return item.record if isinstance(item, Item) else None

    @property
    def kept(self) -> Callable[[], bytes]:
        """Return the bytes that are kept of the line if it is not stored."""
        return partial(self.format.kept, self.data)


class LineReader:
    """Makes records of lines, and of what source formats find. Not safe for threads."""

    def __init__(self, parser: TurnParser) -> None:
        self._parser = parser

    def read(self, line: OpenedLine, location: Location, fallback: Fallback) -> Iterator[Record]:
        """Yield what became of each record of a line."""
        done = 0
        try:
            for record in self._read(line, location, fallback):
                yield record
                done += 1
        except InexactNumberError:
            # The format hands on a number that may have been rounded.
            exact = replace(line, opened=OpenedRecord(decode_exact(line.data)))
            yield from islice(self._read(exact, location, fallback), done, None)

    def read_bytes(self, data: bytes, location: Location, fallback: Fallback) -> Iterator[Record]:
        """Yield what became of the bytes of a record that a format has made."""
        try:
            opened = self._parser.histories.open(data)
            found = _record_format(opened.value)
        except RejectError as error:
            yield refused(location, error, data)
            return
        yield from self.read(OpenedLine(data, opened, found), location, fallback)

    def draft(self, draft: Draft, fallback: Fallback) -> Iterator[Record]:
        """Yield what became of a turn that a source format has made."""
        if isinstance(draft.record, bytes):
            yield from self.read_bytes(draft.record, draft.location, fallback)
            return
        try:
            turn = self._parser.parse(draft.record, fallback)
        except RejectError as error:
            yield refused(draft.location, error, draft.raw())
        except RecursionError:
            yield refused(draft.location, too_deep(), draft.raw())
        else:
            yield Accepted(draft.location, turn, draft.raw, draft.size)

    def _read(self, line: OpenedLine, location: Location, fallback: Fallback) -> Iterator[Record]:
        try:
            for place, item in enumerate(line.items()):
                here = location if item.index is None else replace(location, index=item.index)
                if isinstance(item, Unusable):
                    raw = line.kept if item.raw is None else partial(bytes, item.raw)
                    yield _not_stored(here, item.error, raw)
                elif isinstance(item.record, bytes):
                    yield from self.read_bytes(item.record, here, fallback)
                elif item.index is None:
                    yield self._whole_line(line, place, item, here, fallback)
                else:
                    yield self._one_of_several(line, place, item, here, fallback)
        except (RejectError, SkipError) as error:
            yield _not_stored(location, error, line.kept)
        except RecursionError:
            yield _not_stored(location, too_deep(), line.kept)
        except InexactNumberError:
            raise
        except Exception as error:  # noqa: BLE001  # formats may come from anywhere
            yield _not_stored(location, failed(line.format, error), line.kept)

    def _whole_line(
        self, line: OpenedLine, place: int, item: Item, location: Location, fallback: Fallback
    ) -> Record:
        opened = OpenedRecord(item.record, line.opened.passage)
        attempt = _Attempt(line.kept, len(line.data), opened, partial(line.again, place))
        return self._attempt(attempt, location, fallback)

    def _one_of_several(
        self, line: OpenedLine, place: int, item: Item, location: Location, fallback: Fallback
    ) -> Record:
        raw = _plain_bytes(item.record)
        if raw is None:
            raw = dump(line.exact(place))
        data = raw
        try:
            opened = self._parser.histories.open(data)
        except RejectError as error:
            return refused(location, error, data)
        again = partial(_decoded, data)
        attempt = _Attempt(partial(bytes, data), len(data), opened, again)
        return self._attempt(attempt, location, fallback)

    def _attempt(self, attempt: _Attempt, location: Location, fallback: Fallback) -> Record:
        try:
            turn = self._turn(attempt, fallback)
        except RejectError as error:
            return refused(location, error, attempt.raw())
        except RecursionError:
            return refused(location, too_deep(), attempt.raw())
        return Accepted(location, turn, attempt.raw, attempt.size)

    def _turn(self, attempt: _Attempt, fallback: Fallback) -> Turn:
        parse = self._parser.parse
        try:
            try:
                return parse(attempt.opened, fallback)
            except HistoryMismatchError:
                return parse(OpenedRecord(attempt.again(decode)), fallback)
        except InexactNumberError:
            return parse(OpenedRecord(attempt.again(decode_exact)), fallback)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A turn record to be parsed.

    Attributes:
        raw: returns the bytes that are kept of it.
        size: how many bytes it has.
        opened: the record, as it was opened.
        again: decodes it anew, and in full.
    """

    raw: Callable[[], bytes]
    size: int
    opened: OpenedRecord
    again: Callable[[Decoding], JSON]


def _record_format(value: JSON) -> RecordFormat:
    found = detect(value) if isinstance(value, dict) else None
    if not isinstance(found, RecordFormat):
        raise RejectError(Reason.UNRECOGNISED, "the record is none that stands for itself")
    return found


def _plain_bytes(record: JSON) -> bytes | None:
    """Return the bytes of a record, or None where only the exact one can be written."""
    try:
        raw = orjson.dumps(record)
    except orjson.JSONEncodeError:
        # With integers beyond 64 bits, or nested deeply.
        return None
    return None if _LARGE_NUMBER.search(raw) else raw


def failed(found: Format, error: Exception) -> RejectError:
    """Return the reject of what a format could not read for a fault of its own."""
    return RejectError(
        Reason.FORMAT_FAILED, f"the format {found.name} failed with {type(error).__name__}"
    )


def _decoded(data: bytes, decoding: Decoding) -> JSON:
    return decoding(data)


def _not_stored(
    location: Location, error: RejectError | SkipError, raw: Callable[[], bytes]
) -> Record:
    """Return the record of something that is no turn. Its bytes are made if they are kept."""
    return refused(location, error, b"" if isinstance(error, SkipError) else raw())
