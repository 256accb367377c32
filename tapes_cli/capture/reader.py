"""From a source to records: what it holds becomes turns, or rejects that say why not."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import chain, islice
from typing import TYPE_CHECKING

from tapes_cli.capture.decode import decode
from tapes_cli.capture.decompress import is_compressed
from tapes_cli.capture.envelope import EnvelopeParser
from tapes_cli.capture.formats import detect, folder_format
from tapes_cli.capture.formats.base import Capture, Draft, RecordFormat, SourceFormat
from tapes_cli.capture.formats.turn_records import TurnParser
from tapes_cli.capture.headers import kept_bytes
from tapes_cli.capture.history import DEFAULT_BUDGET_BYTES, Histories, OpenedRecord
from tapes_cli.capture.line_reader import LineReader, OpenedLine, failed, refused
from tapes_cli.capture.lines import DEFAULT_MAX_LINE_BYTES, Line
from tapes_cli.capture.sources import Source, SourceProblem, SourceReadError, describe
from tapes_cli.capture.times import Fallback, utc_now
from tapes_cli.capture.values import glued, join_document
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
    from pathlib import Path
    from uuid import UUID

    from tapes_cli.capture.formats.base import FolderFormat
    from tapes_cli.model.json import JSON

QUIET_FOR = timedelta(days=1)
"""A file that nobody has written to for so long is finished."""

REFUSE_FROM_LINES = 5
"""A file with fewer lines, none of which is recognised, has them rejected one by one."""

LOOK_AT_LINES = 1000
LOOK_AT_BYTES = 16 << 20
"""How far into a file something is looked for that can be recognised."""

# What a line looks like that somebody is still writing.
_CUT_SHORT = frozenset({Reason.NOT_JSON, Reason.NOT_UTF8})


@dataclass(frozen=True, slots=True)
class Options:
    """How captures are read.

    Attributes:
        default_org: the org of envelopes that name none; None is the nil UUID.
        project: the tag of every turn.
        max_line_bytes: longer lines are rejected unread.
        now: the clock, asked for turns that nothing else dates.
        history_bytes: how much is remembered of the histories that sessions re-send.
        format: the format of everything that is read; None finds it by content.
        paths: the files of the run, among which formats look for what belongs together.
    """

    default_org: UUID | None = None
    project: str = ""
    max_line_bytes: int = DEFAULT_MAX_LINE_BYTES
    now: Callable[[], datetime] = utc_now
    history_bytes: int = DEFAULT_BUDGET_BYTES
    format: RecordFormat | SourceFormat | None = None
    paths: tuple[Path, ...] = ()


def read(source: Source | SourceProblem, options: Options | None = None) -> Iterator[Record]:
    """Yield what became of each record of one source. See `Reader.read`."""
    return Reader(options).read(source)


def is_divisible(source: Source) -> bool:
    """Tell whether several readers can share a source.

    They can share a plain file whose records stand for themselves. An archive would have to be
    decompressed by each, and a session file has to be seen as a whole.
    """
    if source.path is None or source.size is None or source.folder:
        return False
    try:
        with source.path.open("rb") as stream:
            if is_compressed(stream):
                return False
        return isinstance(_first_format(source), RecordFormat)
    except OSError:
        return False


def _first_format(source: Source) -> RecordFormat | SourceFormat | None:
    """Return the format of the first record that has one."""
    size = 0
    with suppress(SourceReadError):
        for line in islice(join_document(source.lines(), DEFAULT_MAX_LINE_BYTES), LOOK_AT_LINES):
            for part in glued(line) or [line]:
                with suppress(RejectError):
                    value = decode(part.data)
                    if isinstance(value, dict):
                        return detect(value)
            size += len(line.data)
            if size >= LOOK_AT_BYTES:
                break
    return None


class Reader:
    """Reads sources, and remembers across them what their sessions re-send.

    Memory is bounded by the longest line, the budget of `Histories`, and what a format that has
    to see a whole source keeps of it. Not safe for threads: make one for each.
    """

    def __init__(self, options: Options | None = None) -> None:
        self._options = options or Options()
        self._parser = TurnParser(
            project=self._options.project,
            envelopes=EnvelopeParser(self._options.default_org),
            histories=Histories(self._options.history_bytes),
        )
        self._lines = LineReader(self._parser)

    def read(self, source: Source | SourceProblem) -> Iterator[Record]:
        """Yield what became of each record, in order; a bad one does not stop the others.

        What cannot be read, or not to its end, yields a last `Rejected` with the reason
        `SOURCE_UNREADABLE`: at line 0 for an argument that leads nowhere, else at the line that
        could not be read.
        """
        origin = Location(source.name, 0, 0, number=source.number)
        if isinstance(source, SourceProblem):
            yield _unreadable(origin, source.message)
            return
        try:
            yield from self._folder(source, origin) if source.folder else self._file(source, origin)
        except SourceReadError as error:
            yield _unreadable(origin.moved(error.line, error.byte_offset), error.message)

    def _file(self, source: Source, origin: Location) -> Iterator[Record]:
        most = self._options.max_line_bytes
        lines = join_document(source.lines(most), most)
        fallback = Fallback(source.mtime, self._options.now)
        unknown = _Unknown(origin, can_refuse=self._can_refuse(source))
        # A format that sees a whole source has it from its first record on, or not at all.
        begun = source.share is not None
        try:
            for line in lines:
                for part in self._parts(line, origin) if source.holds(line.data) else ():
                    if not isinstance(part, _Part):
                        yield from unknown.take(part)
                        continue
                    yield from unknown.end()
                    if isinstance(part.format, RecordFormat):
                        begun = True
                        opened = OpenedLine(part.line.data, part.record, part.format)
                        yield from self._lines.read(opened, part.location, fallback)
                    elif begun:
                        yield refused(part.location, _among_others(part.format), part.line.data)
                    else:
                        rest = chain([_from(line, part.line)], lines)
                        yield from self._whole(part.format, source, origin, rest)
                        return
                if unknown.refused:
                    break
        except SourceReadError:
            yield from unknown.close()
            raise
        yield from unknown.close()

    def _can_refuse(self, source: Source) -> bool:
        """Whether a file in which nothing is recognised may be refused as a whole."""
        regular = source.mtime is not None  # a pipe cannot be read again
        return regular and source.share is None and self._options.format is None

    def _parts(self, line: Line, origin: Location) -> Iterator[_Part | Record]:
        """Yield the records of a line, mostly one, each with its format; or why there is none."""
        location = origin.moved(line.number, line.byte_offset)
        if line.too_long:
            message = f"the line is longer than {self._options.max_line_bytes:,} bytes"
            yield Rejected(location, Reason.LINE_TOO_LONG, message, "", line.data)
            return
        try:
            record = self._parser.histories.open(line.data)
            found = self._format_of(record.value)
        except RejectError as error:
            pieces = glued(line) if error.reason is Reason.NOT_JSON else []
            if len(pieces) > 1:
                for piece in pieces:
                    yield from self._parts(piece, origin)
            elif not line.terminated and error.reason in _CUT_SHORT:
                yield Incomplete(location, kept_bytes(line.data))
            else:
                yield refused(location, error, kept_bytes(line.data))
        else:
            yield _Part(location.of_format(found.name), line, record, found)

    def _format_of(self, value: JSON) -> RecordFormat | SourceFormat:
        if not isinstance(value, dict):
            raise RejectError(Reason.NOT_OBJECT, "the line is not an object")
        asked = self._options.format
        if asked is None:
            return detect(value)
        if isinstance(asked, RecordFormat) and not asked.recognises(value):
            raise RejectError(
                Reason.UNRECOGNISED, f"the record is no {asked.title}, as --format has it"
            )
        return asked

    def _folder(self, source: Source, origin: Location) -> Iterator[Record]:
        try:
            found = folder_format(source.file_names())
        except OSError as error:
            yield _unreadable(origin, describe(error))
            return
        if found is None:
            yield _unreadable(origin, "the folder's files are gone")
        else:
            yield from self._whole(found, source, origin, iter(()))

    def _whole(
        self,
        found: SourceFormat | FolderFormat,
        source: Source,
        origin: Location,
        lines: Iterator[Line],
    ) -> Iterator[Record]:
        now, others = self._options.now, self._options.paths
        finished = source.mtime is not None and now() - source.mtime >= QUIET_FOR
        origin = origin.of_format(found.name)
        fallback = Fallback(source.mtime, now)
        last = origin
        try:
            for item in found.read(Capture(origin, lines, source.path, finished, others)):
                last = item.location
                if not isinstance(item, Draft):
                    yield item
                    continue
                for record in self._lines.draft(item, fallback):
                    if found.lossy and isinstance(record, Accepted):
                        record.turn.lossy = True
                    yield record
        except OSError as error:
            yield _unreadable(last, f"what was put aside of it cannot be kept: {describe(error)}")
        except SourceReadError:
            raise
        except Exception as error:  # noqa: BLE001  # formats may come from anywhere
            yield refused(last, failed(found, error), b"")


@dataclass(frozen=True, slots=True)
class _Part:
    """A record: where it stands, its line or piece of one, as it was opened, and its format."""

    location: Location
    line: Line
    record: OpenedRecord
    format: RecordFormat | SourceFormat


class _Unknown:
    """What was read before anything was recognised: held back, since it may be no capture at all.

    Attributes:
        refused: whether the source is refused as a whole.
    """

    def __init__(self, origin: Location, *, can_refuse: bool) -> None:
        self.refused = False
        self._origin = origin
        self._holds = can_refuse
        self._held: list[Record] = []
        self._size = 0

    def take(self, record: Record) -> Iterator[Record]:
        """Take something that was not recognised; yield it if it is not to be held back."""
        if not self._holds:
            yield record
            return
        self._held.append(record)
        self._size += len(record.raw) if isinstance(record, Rejected | Incomplete) else 0
        self.refused = len(self._held) >= LOOK_AT_LINES or self._size >= LOOK_AT_BYTES

    def end(self) -> Iterator[Record]:
        """Yield what was held back: there is something in the source."""
        yield from self._held
        self._held.clear()
        self._holds = False

    def close(self) -> Iterator[Record]:
        """Yield what was held back at the end of the source, or that it is refused."""
        first = next((held for held in self._held if isinstance(held, Rejected)), None)
        if first is None or (len(self._held) < REFUSE_FROM_LINES and not self.refused):
            yield from self.end()
            return
        message = (
            "the file is of no supported capture format (`tapes-cli formats` lists them); "
            f"line {first.location.line}: {first.message}"
        )
        yield Rejected(self._origin, Reason.UNRECOGNISED, message, "", b"")


def _from(line: Line, piece: Line) -> Line:
    """Return a line from one of its pieces on."""
    start = piece.byte_offset - line.byte_offset
    return replace(line, byte_offset=piece.byte_offset, data=line.data[start:])


def _among_others(found: SourceFormat) -> RejectError:
    return RejectError(
        Reason.FORMAT_UNSUPPORTED,
        f"the line of a {found.title} stands behind records of another format; "
        "move such lines to a file of their own",
    )


def _unreadable(location: Location, message: str) -> Rejected:
    return Rejected(location, Reason.SOURCE_UNREADABLE, message, "", b"")
