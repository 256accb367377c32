"""What the arguments of a command name: files, folders, globs, stdin."""

from __future__ import annotations

import glob
import os
import stat
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from tapes_cli.capture.fingerprint import identity_of
from tapes_cli.capture.formats import folder_format
from tapes_cli.capture.sources import Source, SourceProblem, describe, display_name
from tapes_cli.model.checkpoint import Identity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

STDIN_ARGUMENT = "-"
STDIN_NAME = "<stdin>"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_IGNORED_FOLDERS = frozenset({".git"})


def expand(arguments: Iterable[str | os.PathLike[str]]) -> Iterator[Source | SourceProblem]:
    """Yield what the arguments name, each file once, in the order of the arguments.

    An argument is a file, a folder (read recursively, in the order of names), a glob that the
    shell left alone, or `-` for stdin. What is found without being named leaves out pipes, sockets,
    devices, `.git`, and links to a folder that holds them. A folder whose files are one capture
    together is one source. A file that is named twice, through links too, is yielded the first
    time only.
    """
    return _Expansion().expand(arguments)


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
                path = Path(text)
                yield from self._walk([path], path)

    def _glob(self, pattern: str) -> Iterator[Source | SourceProblem]:
        matches = sorted(_matches(pattern), reverse=True)
        if not matches:
            yield SourceProblem(display_name(pattern), "no file matches the pattern")
        yield from self._walk([Path(match) for match in matches])

    def _walk(
        self, pending: list[Path], named: Path | None = None
    ) -> Iterator[Source | SourceProblem]:
        """Yield what is at the paths, the last one first, and below them.

        Without recursion: folders nest deeply.
        """
        while pending:
            path = pending.pop()
            try:
                status = path.stat()
                above = path is not named and _leads_above(path)
                inside = [] if above else self._inside(path, status)
                if inside and (capture := self._folder(path, status, inside)):
                    yield capture
            except (OSError, ValueError) as error:
                yield SourceProblem(display_name(path), describe(error))
                continue
            if inside is not None:
                pending.extend(reversed(inside))
            # Pipes and devices are read only if the user named them.
            elif path is named or stat.S_ISREG(status.st_mode):
                identity = (status.st_dev, status.st_ino)
                if identity not in self._files:
                    self._files.add(identity)
                    yield _file_source(path, status)

    def _folder(self, path: Path, folder: os.stat_result, inside: list[Path]) -> Source | None:
        """Return the source that a folder is as a whole, if it is a capture of several files.

        These files are not yielded again.
        """
        found = folder_format(inner.name for inner in inside)
        if found is None:
            return None
        names = found.files | found.optional
        statuses = [inner.stat() for inner in inside if inner.name in names]
        self._files.update((status.st_dev, status.st_ino) for status in statuses)
        latest = max(status.st_mtime_ns for status in statuses)
        size = sum(status.st_size for status in statuses)
        identity = Identity(folder.st_dev, folder.st_ino, size, latest)
        name = display_name(path)
        return Source(name, path, _utc(latest), size, folder=True, identity=identity)

    def _inside(self, path: Path, status: os.stat_result) -> list[Path] | None:
        """Return what a folder holds, nothing if it was seen before; None for a file."""
        if not stat.S_ISDIR(status.st_mode):
            return None
        identity = (status.st_dev, status.st_ino)
        if identity in self._folders:
            return []
        self._folders.add(identity)
        return sorted(inner for inner in path.iterdir() if inner.name not in _IGNORED_FOLDERS)


def _matches(pattern: str) -> set[str]:
    """Return what matches a glob. Links to folders are no part of `**`: they may lead back."""
    before, recursive, after = f"/{pattern}/".partition("/**/")
    if not recursive:
        return set(glob.glob(pattern))  # noqa: PTH207  pathlib's refuses absolute patterns
    before, after = f"{before}/"[1:], after[:-1]
    tops = _matches(before) if before else {""}
    if not after:
        return tops if before else _matches("*")
    found: set[str] = set()
    for top in tops:
        for folder in _folders_below(top):
            found |= _matches(os.path.join(glob.escape(folder), after))  # noqa: PTH118  as below
    return found


def _folders_below(top: str) -> Iterator[str]:
    """Yield a folder and those below it, without hidden ones; "" is the current one."""
    pending = [top]
    while pending:
        folder = pending.pop()
        yield folder
        with suppress(OSError), os.scandir(folder or os.curdir) as entries:
            pending += [
                os.path.join(folder, entry.name)  # noqa: PTH118  paths as they were given
                for entry in entries
                if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
            ]


def _leads_above(path: Path) -> bool:
    """Whether a path is a link to a folder that holds the link, such as `/`."""
    return path.is_symlink() and Path(os.path.realpath(path.parent)).is_relative_to(
        os.path.realpath(path)
    )


def _file_source(path: Path, status: os.stat_result) -> Source:
    name = display_name(path)
    if not stat.S_ISREG(status.st_mode):
        return Source(name, path)
    identity = identity_of(status)
    return Source(name, path, _utc(identity.mtime_ns), identity.size, identity=identity)


def _utc(nanoseconds: int) -> datetime | None:
    try:
        return _EPOCH + timedelta(microseconds=nanoseconds // 1000)
    except OverflowError:
        return None
