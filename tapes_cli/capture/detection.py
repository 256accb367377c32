"""Which format a record has, and what the beginning of a file shows."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from tapes_cli.capture.decode import decode
from tapes_cli.capture.decompress import is_compressed
from tapes_cli.capture.formats import detect
from tapes_cli.capture.formats.base import RecordFormat, SourceFormat
from tapes_cli.capture.lines import DEFAULT_MAX_LINE_BYTES, Line
from tapes_cli.capture.sources import SourceReadError
from tapes_cli.capture.values import (
    LOOK_AT_BYTES,
    LOOK_AT_LEAST,
    LOOK_AT_LINES,
    join_documents,
    pieces_of,
)
from tapes_cli.model.checkpoint import BEGINNING
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import RejectError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapes_cli.capture.sources import Source
    from tapes_cli.model.json import JSON


@dataclass(frozen=True, slots=True)
class Look:
    """What the beginning of a source shows.

    Attributes:
        format: that of the first record that has one, or None.
        lines: how many lines were looked at.
        problem: what is wrong with the first of them, and where, if no record has a format.
        document: whether an object was found that goes over several lines.
    """

    format: RecordFormat | SourceFormat | None
    lines: int
    problem: str = ""
    document: bool = False

    @property
    def hopeless(self) -> bool:
        """Whether the source is refused as a whole: a few lines are rejected one by one."""
        return self.format is None and self.lines >= LOOK_AT_LEAST


def format_of(
    value: JSON, asked: RecordFormat | SourceFormat | None
) -> RecordFormat | SourceFormat:
    """Return the format of a record: the one that was asked for, else the one that it has.

    Raises:
        RejectError: the record is no object, has no known format, or not the one asked for.
    """
    if isinstance(value, list):
        hint = "write its items on lines of their own (jq -c '.[]' FILE)"
        raise RejectError(Reason.NOT_OBJECT, f"the line is a list; {hint}")
    if not isinstance(value, dict):
        raise RejectError(Reason.NOT_OBJECT, "the line is not an object")
    if asked is None:
        return detect(value)
    if isinstance(asked, RecordFormat) and not asked.recognises(value):
        raise RejectError(
            Reason.UNRECOGNISED, f"the record is no {asked.title}, as --format has it"
        )
    return asked


def look_at(
    source: Source,
    asked: RecordFormat | SourceFormat | None = None,
    max_line_bytes: int = DEFAULT_MAX_LINE_BYTES,
) -> Look:
    """Look at the beginning of a source, until something is recognised.

    Args:
        source: a file that can be read again.
        asked: the format of everything, if one was asked for.
        max_line_bytes: longer lines are passed over.
    """
    problem, size, count = "", 0, 0
    with suppress(SourceReadError):
        lines = join_documents(source.lines(max_line_bytes), max_line_bytes)
        for count, line in enumerate(islice(lines, LOOK_AT_LINES), 1):
            for piece in _pieces(line):
                try:
                    found = format_of(decode(piece.data), asked)
                    return Look(found, count, document=b"\n" in line.data)
                except RejectError as error:
                    problem = problem or f"line {line.number}: {error.message}"
            size += len(line.data)
            if size >= LOOK_AT_BYTES and count >= LOOK_AT_LEAST:
                break
    return Look(None, count, problem)


def _pieces(line: Line) -> Iterator[Line]:
    if line.too_long:
        return
    try:
        decode(line.data)
    except RejectError as error:
        yield from pieces_of(line, error)
    else:
        yield line


def is_divisible(source: Source, asked: RecordFormat | SourceFormat | None = None) -> bool:
    """Tell whether several readers can share a source.

    They can share a plain file whose records stand for themselves. An archive would have to be
    decompressed by each, and a session file has to be seen as a whole.
    """
    if source.path is None or source.size is None or source.folder:
        return False
    if source.begin != BEGINNING:
        return True  # nothing else is read from elsewhere
    try:
        with source.path.open("rb") as stream:
            if is_compressed(stream):
                return False
    except OSError:
        return False
    look = look_at(source, asked)
    return isinstance(look.format, RecordFormat) and not look.document
