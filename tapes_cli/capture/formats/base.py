"""What a capture format is: how it is told from others, and what turns it holds.

There are three kinds. Of a `RecordFormat` each line stands for itself. A `SourceFormat` has to see
a whole source, since its lines make sense together. A `FolderFormat` keeps a capture in several
files of one folder.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, TypeAlias, TypeVar

from tapes_cli.model.records import Incomplete, Rejected, Skipped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from tapes_cli.capture.history import OpenedRecord
    from tapes_cli.capture.lines import Line
    from tapes_cli.model.json import JSON, JSONObject
    from tapes_cli.model.reasons import Reason
    from tapes_cli.model.records import Location, RejectError


_Kept = TypeVar("_Kept")


class SkipError(Exception):
    """What was read is sound but holds nothing to store. `reason` says why."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Item:
    """One record inside a line.

    Attributes:
        record: a turn record, decoded; or the bytes of what could be a line of its own.
        index: its place in the line, or None where it is the line.
    """

    record: JSON
    index: int | None = None


@dataclass(frozen=True, slots=True)
class Unusable:
    """Something inside a line that is no turn: it is rejected or skipped, the others are not.

    Attributes:
        error: why it is none.
        index: its place in the line, or None where it is the line.
        raw: the bytes that are kept of it, or None for those of the line.
    """

    error: RejectError | SkipError
    index: int | None = None
    raw: bytes | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """A turn that a source format has made.

    Attributes:
        location: where it stands.
        record: a turn record, decoded, without any number that may have been rounded; or its
            bytes.
        raw: returns the bytes of a turn record that says the same, to be kept if it is rejected.
        size: how many bytes were read for it, about.
    """

    location: Location
    record: OpenedRecord | bytes
    raw: Callable[[], bytes]
    size: int


Found: TypeAlias = Draft | Rejected | Skipped | Incomplete
"""What a source format finds."""


class Memory:
    """What formats remember from one source to the next: an object of a class of their own.

    It lasts as long as the reader. How large it gets is up to that class. Not safe for threads.
    """

    def __init__(self) -> None:
        self._kept: dict[type, object] = {}

    def of(self, kind: type[_Kept]) -> _Kept:
        """Return the object of a class; the first time, it is made, without arguments."""
        kept = self._kept.get(kind)
        if not isinstance(kept, kind):
            kept = self._kept[kind] = kind()
        return kept


@dataclass(frozen=True, slots=True)
class Capture:
    """A source, as formats see it that have to see all of it.

    Attributes:
        origin: the place before its first line; see `at`.
        lines: its lines, decompressed, in order; blank ones and those too long are left out.
        path: the file or folder, or None for stdin.
        finished: whether nobody has written to it for so long that nobody will.
        others: the files of the same run, to look for what belongs together.
        memory: what formats remember of the sources before.
    """

    origin: Location
    lines: Iterator[Line]
    path: Path | None = None
    finished: bool = False
    others: Iterable[Path] = ()
    memory: Memory = field(default_factory=Memory)

    def at(self, line: int, byte_offset: int = 0, index: int | None = None) -> Location:
        """Return a place in it. `line` counts from 1, `byte_offset` from 0."""
        return self.origin.moved(line, byte_offset, index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """What all capture formats have.

    Attributes:
        name: what `--format` and the machine output call it: lower case, with hyphens.
        title: what people call one record or file of it.
        sign: what identifies it, as a noun phrase.
        recognises: tells by its keys whether a record is of this format: for a source format, the
            first one of the source; for a folder format, one of a file that is named alone.
        lossy: whether its turns are rebuilt, and differ from what went over the wire.
        unit: what it recognises and reads at a time: a record, a source or a folder.
    """

    unit: ClassVar[str]
    name: str
    title: str
    sign: str
    recognises: Callable[[JSONObject], bool]
    lossy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFormat(Format):
    """A format whose lines stand for themselves.

    Attributes:
        items: yields what a line holds; raises `RejectError` or `SkipError` for the line as a
            whole.
        kept: returns the bytes that are kept of a line that was not stored: it takes out secrets.
    """

    unit = "record"
    items: Callable[[JSONObject], Iterator[Item | Unusable]]
    kept: Callable[[bytes], bytes] = bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFormat(Format):
    """A format that has to see a whole source.

    Attributes:
        read: yields what a source holds, in the order of places. Whatever is in the source, it
            raises nothing but `SourceReadError` from the lines.
    """

    unit = "source"
    read: Callable[[Capture], Iterator[Found]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderFormat(Format):
    """A format that keeps a capture in several files of one folder.

    Attributes:
        files: the names that a folder must hold to be such a capture.
        optional: other names that belong to it.
        read: yields what the folder holds; `path` is the folder, and there are no lines.
    """

    unit = "folder"
    files: frozenset[str]
    optional: frozenset[str] = frozenset()
    read: Callable[[Capture], Iterator[Found]]


AnyFormat: TypeAlias = RecordFormat | SourceFormat | FolderFormat
"""A format of whatever kind."""


def refused(location: Location, error: RejectError | SkipError, raw: bytes) -> Rejected | Skipped:
    """Return what became of something that is no turn. `raw` is what is kept of it."""
    if isinstance(error, SkipError):
        return Skipped(location, error.reason)
    return Rejected(location, error.reason, error.message, error.pointer, raw)
