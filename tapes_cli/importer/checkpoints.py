"""What an import remembers for the next one: which captures it has read, and how far.

A capture that did not change is not read again. One that has grown is read from where it was left,
if its lines stand for themselves. Anything else is read from its beginning, and what is stored
already is found to be there: a checkpoint saves work, no turn depends on it.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from importlib.metadata import version
from typing import TYPE_CHECKING

from tapes_cli.capture.fingerprint import Beginning, beginning, goes_on, reached
from tapes_cli.capture.formats import added_formats
from tapes_cli.capture.reader import QUIET_FOR
from tapes_cli.capture.sources import Source, display_name
from tapes_cli.capture.times import utc_now
from tapes_cli.model.checkpoint import BEGINNING, Checkpoint, Position, SourceKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from tapes_cli.capture.sources import SourceProblem
    from tapes_cli.importer.report import SourceReport
    from tapes_cli.model.checkpoint import Identity, Reached
    from tapes_cli.store.postgres.checkpoints import CheckpointStore

_TOGETHER = 1000
_SAVE_EVERY_SECONDS = 1.0
_MARK_EVERY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Way:
    """How an import reads: captures that were read in another way are read again.

    Attributes:
        host: the machine that the paths are on.
        reading: the options that decide what is stored, in words.
        again: whether everything is to be read from its beginning.
    """

    host: str
    reading: str
    again: bool = False

    def key(self, path: Path) -> SourceKey:
        """Return the key of a capture that is read in this way."""
        location = os.path.abspath(path)  # noqa: PTH100  # resolve() would follow links
        whole = b"\0".join(
            (os.fsencode(location), self.host.encode(), self.reading.encode("utf-8", "replace"))
        )
        return SourceKey(
            blake2b(whole, digest_size=16).digest(), self.host, display_name(location), self.reading
        )


@dataclass(frozen=True, slots=True)
class _File:
    """A source that can be found again: as it was found, and where."""

    source: Source
    path: Path
    identity: Identity
    key: SourceKey


@dataclass(slots=True)
class _Watched:
    """A source that is being read.

    Attributes:
        file: the source.
        begun: how it began when it was found, None of a folder.
        finished: whether nobody had written to it for long then.
        before: what was remembered of the part that is not read again.
        moved: what was remembered of it under the name that it had before.
        marked: when its position was last saved.
    """

    file: _File
    begun: Beginning | None
    finished: bool
    before: Checkpoint | None = None
    moved: Checkpoint | None = None
    marked: float = field(default_factory=time.monotonic)

    @property
    def begin(self) -> Position:
        """Where the reading began."""
        place = self.before.reached if self.before else None
        return place.position if place else BEGINNING


class Checkpoints:
    """Chooses what is to be read, and remembers what was.

    Attributes:
        unchanged: how many sources need not be read.
    """

    def __init__(
        self, store: CheckpointStore, way: Way, now: Callable[[], datetime] = utc_now
    ) -> None:
        self.unchanged = 0
        self._store = store
        self._way = way
        self._now = now
        self._version = " ".join([version("tapes-cli"), *added_formats()])
        self._watched: dict[int, _Watched] = {}
        self._unsaved: dict[bytes, Checkpoint] = {}
        self._moved: list[Checkpoint] = []
        self._saved = time.monotonic()

    def choose(self, sources: Sequence[Source | SourceProblem]) -> list[Source | SourceProblem]:
        """Return what is to be read, each source with the place where its reading begins.

        Raises:
            DatabaseUnavailableError: the database was lost.
        """
        # Somebody may have emptied the database, to begin anew.
        emptied = not self._store.holds() and self._store.remembers_turns()
        again = self._way.again or emptied
        chosen: list[Source | SourceProblem] = []
        for start in range(0, len(sources), _TOGETHER):
            chosen.extend(self._choose(sources[start : start + _TOGETHER], again=again))
        self._store.keep_to_this_server()
        return chosen

    def _choose(
        self, sources: Sequence[Source | SourceProblem], *, again: bool
    ) -> Iterator[Source | SourceProblem]:
        files = {s.number: file for s in sources if (file := self._file(s))}
        found = {} if again else self._found(files)
        for source in sources:
            file = files.get(source.number)
            if file is None:
                yield source
                continue
            candidates = found.get(source.number, [])
            settled = next((c for c in candidates if self._is_settled(file, c)), None)
            if settled is None:
                yield self._watch(file, candidates)
                continue
            self.unchanged += 1
            if settled.key != file.key:
                moved = replace(settled, key=file.key, identity=file.identity)
                self._unsaved[file.key.id] = moved
                self._moved.append(settled)

    def _file(self, source: Source | SourceProblem) -> _File | None:
        """Return what is remembered of, if it is anything that can be found again."""
        if not isinstance(source, Source) or source.path is None or source.identity is None:
            return None
        return _File(source, source.path, source.identity, self._way.key(source.path))

    def _found(self, files: dict[int, _File]) -> dict[int, list[Checkpoint]]:
        """Return by number what is remembered of sources: under their names, then of the files."""
        named = self._store.find([file.key.id for file in files.values()])
        found: dict[int, list[Checkpoint]] = defaultdict(list)
        elsewhere: dict[int, list[int]] = defaultdict(list)
        for number, file in files.items():
            checkpoint = named.get(file.key.id)
            if checkpoint is not None:
                found[number].append(checkpoint)
            if checkpoint is None or not checkpoint.identity.is_file_of(file.identity):
                elsewhere[file.identity.inode].append(number)
        for checkpoint in self._store.find_files(list(elsewhere), self._way.reading):
            for number in elsewhere[checkpoint.identity.inode]:
                found[number].append(checkpoint)
        return found

    def _is_settled(self, file: _File, checkpoint: Checkpoint) -> bool:
        """Tell whether reading the source again would say what was said before."""
        same_file = file.identity.is_unchanged(checkpoint.identity)
        said = same_file and checkpoint.final and self._is_trusted(checkpoint)
        return said and _is_known(file, checkpoint)

    def _is_trusted(self, checkpoint: Checkpoint) -> bool:
        """Tell whether this program would say the same of what was read."""
        passed_over = checkpoint.rejected or checkpoint.skipped
        return checkpoint.version == self._version or not passed_over

    def _watch(self, file: _File, candidates: list[Checkpoint]) -> Source:
        source = file.source
        try:
            begun = None if source.folder else beginning(file.path)
            before = _continued(file, [c for c in candidates if self._is_trusted(c)])
        except OSError:
            return source  # whoever reads it says so
        moved = before if before is not None and before.key != file.key else None
        finished = self._is_finished(source)
        self._watched[source.number] = _Watched(file, begun, finished, before, moved)
        if before is None or before.reached is None:
            return source
        return replace(source, begin=before.reached.position)

    def is_marked(self, number: int) -> bool:
        """Tell whether the position in a source was saved a moment ago, or never will be."""
        watched = self._watched.get(number)
        if watched is None or watched.begun is None or watched.begun.compressed:
            return True
        return time.monotonic() - watched.marked < _MARK_EVERY_SECONDS

    def mark(self, account: SourceReport, position: Position) -> None:
        """Remember that every record of a source before a position is durably stored."""
        watched = self._watched.get(account.number)
        if watched is None or position <= watched.begin or account.may_change:
            return
        watched.marked = time.monotonic()
        place = self._reached(watched, position)
        if place is not None:
            self._remember(watched, account, place, final=False)

    def done(self, account: SourceReport) -> None:
        """Remember a source that was read to its end, every record of it durably stored."""
        watched = self._watched.pop(account.number, None)
        if watched is None or account.unreadable or account.replaced:
            return
        # What may go otherwise another time has to be read again.
        known = account.position if not account.may_change else None
        place = self._reached(watched, known) if known else None
        unfinished = account.accounts.incomplete > 0 and not watched.finished
        final = not (account.may_change or unfinished)
        self._remember(watched, account, place, final=final)

    def _is_finished(self, source: Source) -> bool:
        """Tell whether nobody will write to a source any more, as its reader will see it, too."""
        return source.mtime is not None and self._now() - source.mtime >= QUIET_FOR

    def _reached(self, watched: _Watched, position: Position) -> Reached | None:
        file, begun = watched.file, watched.begun
        if begun is None or begun.compressed:
            return None
        try:
            return reached(file.path, position, file.identity, begun)
        except OSError:
            return None

    def _remember(
        self, watched: _Watched, account: SourceReport, place: Reached | None, *, final: bool
    ) -> None:
        now, before, file = account.accounts, watched.before, watched.file
        self._unsaved[file.key.id] = Checkpoint(
            file.key,
            file.identity,
            account.format or (before.format if before else ""),
            place,
            final,
            self._version,
            now.stored + now.duplicate + (before.turns if before else 0),
            now.rejected + (before.rejected if before else 0),
            now.skipped + (before.skipped if before else 0),
            now.incomplete,
            self._now(),
        )
        if watched.moved is not None:
            self._moved.append(watched.moved)
            watched.moved = None

    @property
    def due(self) -> bool:
        """Whether it is time to save."""
        return bool(self._unsaved) and time.monotonic() - self._saved >= _SAVE_EVERY_SECONDS

    def save(self) -> None:
        """Save what is to be remembered.

        Raises:
            DatabaseUnavailableError: the database was lost.
        """
        self._saved = time.monotonic()
        unsaved, self._unsaved = self._unsaved, {}
        moved, self._moved = self._moved, []
        if unsaved:
            self._store.save(list(unsaved.values()), moved)


def _is_known(file: _File, checkpoint: Checkpoint) -> bool:
    """Tell whether a file that looks unchanged is the one that was read.

    Under another name, or on another machine, numbers that are the same prove too little.
    """
    if checkpoint.key == file.key or checkpoint.reached is None:
        return True
    try:
        return goes_on(file.path, checkpoint.reached)
    except OSError:
        return False  # whoever reads it says so


def _continued(file: _File, candidates: list[Checkpoint]) -> Checkpoint | None:
    """Return the checkpoint from which the reading of a source goes on, if there is one.

    A file of the same size that was written since was rewritten, or only touched: nobody can
    tell. One that is larger and holds what it held has grown.
    """
    for found in candidates:
        place = found.reached
        if place is None or place.position == BEGINNING:
            continue
        grown = file.identity.size > found.identity.size
        unchanged = file.identity.is_unchanged(found.identity)
        if (grown or unchanged) and goes_on(file.path, place):
            return found
    return None
