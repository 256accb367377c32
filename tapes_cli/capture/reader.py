"""From a source to records: what it holds becomes turns, or rejects that say why not."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from tapes_cli.capture.detection import Look, format_of, look_at
from tapes_cli.capture.envelope import EnvelopeParser
from tapes_cli.capture.formats import folder_format
from tapes_cli.capture.formats.base import (
    Capture,
    Draft,
    Memory,
    RecordFormat,
    SourceFormat,
    refused,
)
from tapes_cli.capture.formats.turn_records import TurnParser
from tapes_cli.capture.headers import UnreadBytes
from tapes_cli.capture.history import DEFAULT_BUDGET_BYTES, Histories, OpenedRecord
from tapes_cli.capture.line_reader import LineReader, OpenedLine, failed
from tapes_cli.capture.lines import DEFAULT_MAX_LINE_BYTES, Line, LineSplitter
from tapes_cli.capture.sources import Source, SourceProblem, SourceReadError, describe
from tapes_cli.capture.times import Fallback, Period, utc_now
from tapes_cli.capture.values import is_cut_short, join_documents, pieces_of
from tapes_cli.model.checkpoint import BEGINNING, Position
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import (
    Accepted,
    Incomplete,
    Location,
    Record,
    Rejected,
    RejectError,
    Skipped,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from pathlib import Path
    from uuid import UUID

    from tapes_cli.capture.formats.base import FolderFormat

QUIET_FOR = timedelta(days=1)
"""A file that nobody has written to for so long is finished."""


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
        period: only turns that were captured in it are wanted; None wants all.
    """

    default_org: UUID | None = None
    project: str = ""
    max_line_bytes: int = DEFAULT_MAX_LINE_BYTES
    now: Callable[[], datetime] = utc_now
    history_bytes: int = DEFAULT_BUDGET_BYTES
    format: RecordFormat | SourceFormat | None = None
    paths: tuple[Path, ...] = ()
    period: Period | None = None


def read(source: Source | SourceProblem, options: Options | None = None) -> Iterator[Record]:
    """Yield what became of each record of one source. See `Reader.read`."""
    return Reader(options).read(source)


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
        self._memory = Memory()
        self._reading: _Reading | None = None
        self._splitter: LineSplitter | None = None

    @property
    def replaced(self) -> bool:
        """Whether the present source was another file when it was read than when it was listed."""
        return self._splitter is not None and self._splitter.replaced

    @property
    def divisible(self) -> bool:
        """Whether another reading of the present source may begin between two of its lines."""
        return self._reading is not None and self._reading.divisible

    @property
    def position(self) -> Position | None:
        """How far the present source was read, None if another reading must be a whole one."""
        return self._reading.position if self._reading and self._reading.divisible else None

    def read(self, source: Source | SourceProblem) -> Iterator[Record]:
        """Yield what became of each record, in order; a bad one does not stop the others.

        What cannot be read, or not to its end, yields a last `Rejected` with the reason
        `SOURCE_UNREADABLE`: at line 0 for an argument that leads nowhere, else at the line that
        could not be read.
        """
        records = self._read(source)
        period = self._options.period
        yield from records if period is None else map(partial(_within, period), records)

    def _read(self, source: Source | SourceProblem) -> Iterator[Record]:
        origin = Location(source.name, 0, 0, number=source.number)
        self._reading = self._splitter = None
        if isinstance(source, SourceProblem):
            yield _unreadable(origin, source.message)
            return
        try:
            yield from self._folder(source, origin) if source.folder else self._file(source, origin)
        except SourceReadError as error:
            yield _unreadable(origin.moved(error.line, error.byte_offset), error.message)

    def _file(self, source: Source, origin: Location) -> Iterator[Record]:
        if self._may_be_refused(source):
            look = look_at(source, max_line_bytes=self._options.max_line_bytes)
            if look.hopeless:
                yield refused(origin, _no_capture(look), b"")
                return
        # A format that sees a whole source has it from its first record on, or not at all.
        begun = source.share is not None or source.begin != BEGINNING
        splitter = LineSplitter(self._options.max_line_bytes, source.begin)
        self._splitter = splitter
        reading = self._reading = _Reading(splitter, begun)
        lines = self._documents(source, splitter)
        fallback = Fallback(source.mtime, self._options.now)
        unread = UnreadBytes()
        for line in lines:
            reading.note(line)
            for part in self._parts(line, origin, unread) if source.holds(line.data) else ():
                if not isinstance(part, _Part):
                    reading.note_other(part)
                    yield part
                elif isinstance(part.format, RecordFormat):
                    reading.begun = True
                    opened = OpenedLine(part.line.data, part.record, part.format)
                    yield from self._lines.read(opened, part.location, fallback)
                elif reading.begun:
                    yield refused(part.location, _among_others(part.format), part.line.data)
                else:
                    self._reading = None
                    rest = chain([_from(line, part.line)], lines)
                    yield from self._whole(part.format, source, origin, rest)
                    return

    def _documents(self, source: Source, splitter: LineSplitter) -> Iterator[Line]:
        """Yield the lines; documents over several lines, which only a beginning has, as one."""
        lines = source.split(splitter)
        whole = source.begin == BEGINNING
        return join_documents(lines, self._options.max_line_bytes) if whole else lines

    def _may_be_refused(self, source: Source) -> bool:
        """Whether the source is refused if nothing in it is recognised: it can be read again."""
        whole = source.share is None and source.begin == BEGINNING
        return source.mtime is not None and whole and self._options.format is None

    def _parts(self, line: Line, origin: Location, unread: UnreadBytes) -> Iterator[_Part | Record]:
        """Yield the records of a line, mostly one, each with its format; or why there is none."""
        location = origin.moved(line.number, line.byte_offset)
        if line.too_long:
            message = f"the line is longer than {self._options.max_line_bytes:,} bytes"
            yield refused(location, RejectError(Reason.LINE_TOO_LONG, message), line.data)
            return
        try:
            record = self._parser.histories.open(line.data)
            found = format_of(record.value, self._options.format)
        except RejectError as error:
            pieces = pieces_of(line, error)
            if len(pieces) > 1:
                for piece in pieces:
                    yield from self._parts(piece, origin, unread)
            elif is_cut_short(line, error):
                yield Incomplete(location, unread.kept(line.data))
            else:
                yield refused(location, error, unread.kept(line.data))
        else:
            yield _Part(location.of_format(found.name), line, record, found)

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
        finished = _is_quiet(source, now())
        origin = origin.of_format(found.name)
        fallback = Fallback(source.mtime, now)
        last = origin
        try:
            for item in found.read(
                Capture(origin, lines, source.path, finished, others, self._memory)
            ):
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


@dataclass(slots=True)
class _Reading:
    """How far the lines of a source were read.

    Attributes:
        splitter: what splits them.
        begun: whether a line was found that stands for itself.
        documents: whether an object goes over several lines: where the next one begins then
            depends on those before.
        unfinished: where the last line begins, if it is to be read again once it has an end.
    """

    splitter: LineSplitter
    begun: bool
    documents: bool = False
    unfinished: Position | None = None

    @property
    def divisible(self) -> bool:
        return self.begun and not self.documents

    @property
    def position(self) -> Position:
        return self.unfinished or self.splitter.position

    def note(self, line: Line) -> None:
        self.documents = self.documents or b"\n" in line.data
        if line.too_long and not line.terminated:
            self.unfinished = Position(line.number - 1, line.byte_offset)

    def note_other(self, record: Record) -> None:
        if isinstance(record, Incomplete):
            place = record.location
            self.unfinished = Position(place.line - 1, place.byte_offset)


@dataclass(frozen=True, slots=True)
class _Part:
    """A record: where it stands, its line or piece of one, as it was opened, and its format."""

    location: Location
    line: Line
    record: OpenedRecord
    format: RecordFormat | SourceFormat


def _within(period: Period, record: Record) -> Record:
    """Return the record, skipped if it is a turn that was captured outside a period."""
    if isinstance(record, Accepted) and not period.holds(record.turn.captured.at):
        return Skipped(record.location, Reason.OUTSIDE_PERIOD)
    return record


def _is_quiet(source: Source, now: datetime) -> bool:
    """Whether nobody has written to a source for long, neither when it was listed nor since."""
    if source.mtime is None or now - source.mtime < QUIET_FOR:
        return False
    if source.identity is None or source.path is None or source.folder:
        return True
    with suppress(OSError):
        return source.path.stat().st_mtime_ns == source.identity.mtime_ns
    return False


def _no_capture(look: Look) -> RejectError:
    return RejectError(
        Reason.UNRECOGNISED,
        f"none of the first {look.lines:,} lines is of a supported capture format "
        f"(`tapes-cli formats` lists them); {look.problem}",
    )


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
