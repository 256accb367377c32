"""Sources of captures, opened as located lines."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BufferedReader
from typing import TYPE_CHECKING, cast

from tapes_cli.capture.decompress import (
    DamagedArchiveError,
    LimitedReader,
    raw_chunks,
    read_chunks,
)
from tapes_cli.capture.fingerprint import identity_of
from tapes_cli.capture.lines import DEFAULT_MAX_LINE_BYTES, Line, LineSplitter
from tapes_cli.model.checkpoint import BEGINNING, Identity, Position

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from tapes_cli.capture.decompress import ByteReader
    from tapes_cli.capture.share import Share


_REPLACED = "another file has got its name since the files were listed; import again"


@dataclass(frozen=True, slots=True)
class Source:
    """Something that captures are read from.

    Attributes:
        name: what is shown to the user; always valid UTF-8.
        path: the file, or the folder that is a capture as a whole, or None for stdin.
        mtime: when it was last modified (UTC), or None for a pipe or a device.
        size: bytes on disk, before decompression, or None for a pipe or a device.
        number: its place among all sources of a run, counted from 0.
        limit: how many bytes are read at most, None for all there are.
        share: which of its records are to be read, None for all.
        folder: whether it is a folder.
        identity: which file it is, or None for a pipe or a device.
        begin: where the reading begins; only in a plain file elsewhere than at its beginning.
    """

    name: str
    path: Path | None
    mtime: datetime | None = None
    size: int | None = None
    number: int = 0
    limit: int | None = None
    share: Share | None = None
    folder: bool = False
    identity: Identity | None = None
    begin: Position = BEGINNING

    def _is_replaced(self, stream: ByteReader) -> bool:
        """Whether another file has got the name since the files were listed, as by rotation.

        Raises:
            OSError: it has, and only the rest of the one that was listed is wanted.
        """
        if self.identity is None or not isinstance(stream, BufferedReader):
            return False
        replaced = not identity_of(os.fstat(stream.fileno())).is_file_of(self.identity)
        if replaced and self.begin != BEGINNING:
            raise OSError(_REPLACED)
        return replaced

    @property
    def left(self) -> int:
        """How many bytes are to be read, as far as is known."""
        size = self.limit if self.limit is not None else self.size
        return max((size or 0) - self.begin.byte_offset, 0)

    def shared(self, share: Share) -> Source:
        """Return the source for one of several readers: all of them see it as it is now."""
        return replace(self, limit=self.size, share=share)

    def holds(self, record: bytes) -> bool:
        """Tell whether a record, here its bytes, is among those to be read."""
        return self.share is None or self.share.holds(record)

    def file_names(self) -> list[str]:
        """Return the names of the files in a folder.

        Raises:
            OSError: the folder cannot be read.
        """
        return [] if self.path is None else [inner.name for inner in self.path.iterdir()]

    def lines(self, max_line_bytes: int = DEFAULT_MAX_LINE_BYTES) -> Iterator[Line]:
        """Open the source and yield its lines, decompressed, without the blank ones.

        Lines before a damage are yielded before the error is raised.

        Raises:
            SourceReadError: the source cannot be opened, or not be read to its end.
        """
        return self.split(LineSplitter(max_line_bytes, self.begin))

    def split(self, splitter: LineSplitter) -> Iterator[Line]:
        """Yield the lines as `lines` does, by a splitter that tells how far it has got."""
        try:
            with _open(self.path, self.begin.byte_offset) as stream:
                splitter.replaced = self._is_replaced(stream)
                limited = stream if self.limit is None else LimitedReader(stream, self.left)
                chunks = read_chunks(limited) if self.begin == BEGINNING else raw_chunks(limited)
                yield from splitter.split(chunks)
        except DamagedArchiveError as error:
            raise SourceReadError(str(error), splitter) from error
        except OSError as error:
            raise SourceReadError(describe(error), splitter) from error


@dataclass(frozen=True, slots=True)
class SourceProblem:
    """An argument, or something in a folder, that cannot be read. `message` says why."""

    name: str
    message: str
    number: int = 0


class SourceReadError(Exception):
    """A source could not be read to its end.

    Attributes:
        message: what is wrong and where, without content.
        line: the number of the line that could not be read, counted from 1.
        byte_offset: where that line begins in the decompressed stream.
    """

    def __init__(self, problem: str, splitter: LineSplitter) -> None:
        place = f" after line {splitter.number}" if splitter.number else ""
        self.message = problem + place
        self.line = splitter.number + 1
        self.byte_offset = splitter.byte_offset
        super().__init__(self.message)


def display_name(path: str | os.PathLike[str]) -> str:
    """Return the path as text that can always be encoded as UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@contextmanager
def _open(path: Path | None, byte_offset: int) -> Iterator[ByteReader]:
    if path is not None:
        with path.open("rb") as stream:
            if byte_offset:
                stream.seek(byte_offset)
            yield stream
    elif sys.stdin is None:
        # Python leaves stdin out when the process was started without one.
        raise OSError("stdin is closed")
    else:
        yield cast("ByteReader", sys.stdin.buffer)


def describe(error: Exception) -> str:
    """Return what the system says of a failure.

    Without the path, which the place in the message names already.
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[:1].lower() + error.strerror[1:]
    return str(error)
