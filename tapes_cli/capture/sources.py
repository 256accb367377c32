"""Sources of captures: what the arguments name, opened as located lines."""

from __future__ import annotations

import glob
import os
import stat
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, cast

from tapes_cli.capture.decompress import (
    DamagedArchiveError,
    LimitedReader,
    is_compressed,
    read_chunks,
)
from tapes_cli.capture.lines import DEFAULT_MAX_LINE_BYTES, Line, LineSplitter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tapes_cli.capture.decompress import ByteReader
    from tapes_cli.capture.share import Share

STDIN_ARGUMENT = "-"
STDIN_NAME = "<stdin>"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_IGNORED_FOLDERS = frozenset({".git"})


@dataclass(frozen=True, slots=True)
class Source:
    """Something that captures are read from.

    Attributes:
        name: what is shown to the user; always valid UTF-8.
        path: the file, or None for stdin.
        mtime: when the file was last modified (UTC), or None for what is no regular file.
        size: bytes on disk, before decompression, or None for what is no regular file.
        number: its place among all sources of a run, counted from 0.
        limit: how many bytes are read at most, None for all there are.
        share: which of its records are to be read, None for all.
    """

    name: str
    path: Path | None
    mtime: datetime | None = None
    size: int | None = None
    number: int = 0
    limit: int | None = None
    share: Share | None = None

    def shared(self, share: Share) -> Source:
        """Return the source for one of several readers: all of them see it as it is now."""
        return replace(self, limit=self.size, share=share)

    def holds(self, record: bytes) -> bool:
        """Tell whether a record, here its bytes, is among those to be read."""
        return self.share is None or self.share.holds(record)

    def lines(self, max_line_bytes: int = DEFAULT_MAX_LINE_BYTES) -> Iterator[Line]:
        """Open the source and yield its lines, decompressed, without the blank ones.

        Lines before a damage are yielded before the error is raised.

        Raises:
            SourceReadError: the source cannot be opened, or not be read to its end.
        """
        splitter = LineSplitter(max_line_bytes)
        try:
            with _open(self.path) as stream:
                limited = stream if self.limit is None else LimitedReader(stream, self.limit)
                yield from splitter.split(read_chunks(limited))
        except DamagedArchiveError as error:
            raise SourceReadError(str(error), splitter) from error
        except OSError as error:
            raise SourceReadError(_describe(error), splitter) from error


def is_divisible(source: Source) -> bool:
    """Tell whether several readers can share a source: a file that is not compressed."""
    if source.path is None or source.size is None:
        return False
    try:
        with source.path.open("rb") as stream:
            return not is_compressed(stream)
    except OSError:
        return False


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


def expand(arguments: Iterable[str | os.PathLike[str]]) -> Iterator[Source | SourceProblem]:
    """Yield what the arguments name, each file once, in the order of the arguments.

    An argument is a file, a folder (read recursively, in the order of names, without pipes,
    sockets, devices and `.git`), a glob that the shell left alone, or `-` for stdin. A file that
    is named twice, through links too, is yielded the first time only.
    """
    return _Expansion().expand(arguments)


def display_name(path: str | os.PathLike[str]) -> str:
    """Return the path as text that can always be encoded as UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


class _Expansion:
    """One walk over the arguments. Remembers what has been seen."""

    def __init__(self) -> None:
        self._files: set[tuple[int, int]] = set()
        self._folders: set[tuple[int, int]] = set()
        self._stdin = False

    def expand(
        self, arguments: Iterable[str | os.PathLike[str]]
    ) -> Iterator[Source | SourceProblem]:
        for argument in arguments:
            text = os.fspath(argument)
            if text == STDIN_ARGUMENT:
                if not self._stdin:
                    self._stdin = True
                    yield Source(STDIN_NAME, None)
            elif not text:
                # As a path, it would mean the current folder.
                yield SourceProblem(text, "the path is empty")
            elif glob.has_magic(text) and not os.path.lexists(text):
                yield from self._glob(text)
            else:
                yield from self._path(Path(text))

    def _glob(self, pattern: str) -> Iterator[Source | SourceProblem]:
        matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207  pathlib's refuses absolute patterns
        if not matches:
            yield SourceProblem(display_name(pattern), "no file matches the pattern")
        for match in matches:
            yield from self._path(Path(match))

    def _path(self, named: Path) -> Iterator[Source | SourceProblem]:
        """Yield what is at the path and below it, without recursion: folders nest deeply."""
        pending = [named]
        while pending:
            path = pending.pop()
            try:
                status = path.stat()
                inside = self._inside(path, status)
            except (OSError, ValueError) as error:
                yield SourceProblem(display_name(path), _describe(error))
                continue
            if inside is not None:
                pending.extend(reversed(inside))
            # Pipes and devices are read only if the user named them.
            elif path is named or stat.S_ISREG(status.st_mode):
                identity = (status.st_dev, status.st_ino)
                if identity not in self._files:
                    self._files.add(identity)
                    yield _file_source(path, status)

    def _inside(self, path: Path, status: os.stat_result) -> list[Path] | None:
        """Return what a folder holds, nothing if it was seen before; None for a file."""
        if not stat.S_ISDIR(status.st_mode):
            return None
        identity = (status.st_dev, status.st_ino)
        if identity in self._folders:
            return []
        self._folders.add(identity)
        return sorted(inner for inner in path.iterdir() if inner.name not in _IGNORED_FOLDERS)


def _file_source(path: Path, status: os.stat_result) -> Source:
    name = display_name(path)
    if not stat.S_ISREG(status.st_mode):
        return Source(name, path)
    return Source(name, path, _utc(status.st_mtime_ns), status.st_size)


def _utc(nanoseconds: int) -> datetime | None:
    try:
        return _EPOCH + timedelta(microseconds=nanoseconds // 1000)
    except OverflowError:
        return None


@contextmanager
def _open(path: Path | None) -> Iterator[ByteReader]:
    if path is not None:
        with path.open("rb") as stream:
            yield stream
    elif sys.stdin is None:
        # Python leaves stdin out when the process was started without one.
        raise OSError("stdin is closed")
    else:
        yield cast("ByteReader", sys.stdin.buffer)


def _describe(error: Exception) -> str:
    """Return what the system says, without the path that the message's place names already."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[:1].lower() + error.strerror[1:]
    return str(error)
