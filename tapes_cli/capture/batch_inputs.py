"""The requests of batch APIs, found by their `custom_id` in the files that hold them.

The output of a batch holds no request. Its input is looked for in the folder of the output first,
then among the files of the run. Of an input nothing is kept in memory but where its requests
stand; those of a compressed file, or of a document, are put aside once it is chosen.
"""

from __future__ import annotations

import stat
import sys
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tapes_cli.capture.batch_requests import (
    bytes_at,
    digest_of,
    is_request,
    key_of,
    requests_in,
    value_of,
)
from tapes_cli.capture.decode import dump
from tapes_cli.capture.spool import Spool
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import RejectError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tapes_cli.capture.batch_requests import Key, Place
    from tapes_cli.capture.spool import Piece
    from tapes_cli.model.json import JSONObject

INDEX_BYTES = 64 << 20
"""So much is remembered of where requests stand, about, in bytes."""

# Of an id that occurs several times: two requests that differ are as good as many.
_PLACES_PER_ID = 2
# What an id costs in an index besides its text, about: measured.
_ID_BYTES = 310
_FILE_BYTES = 400


@dataclass(frozen=True, slots=True)
class _File:
    """A file as it was: `identity` is the device, the inode, the time of change and the size."""

    path: Path
    identity: tuple[int, ...]


@dataclass(slots=True)
class _Index:
    """Where requests stand: of each key, the places of different requests.

    Attributes:
        places: the places by key.
        size: how many bytes that takes, about.
    """

    places: dict[Key, tuple[Place, ...]] = field(default_factory=dict)
    size: int = _FILE_BYTES

    def add(self, key: Key, place: Place) -> None:
        others = self.places.get(key, ())
        if len(others) < _PLACES_PER_ID and all(o.digest != place.digest for o in others):
            self.places[key] = (*others, place)
            self.size += _ID_BYTES + sys.getsizeof(key[1])

    def take(self, other: _Index, keys: Iterable[Key]) -> None:
        """Add what another one has of these keys, which it has."""
        for key in keys:
            for place in other.places[key]:
                self.add(key, place)

    @property
    def doubtful(self) -> bool:
        """Whether there are different requests with the same key."""
        return any(len(places) > 1 for places in self.places.values())


class Indexes:
    """Where the requests of files stand: of those that were asked for last it is remembered.

    Args:
        most_bytes: how much is remembered, about.
    """

    def __init__(self, most_bytes: int = INDEX_BYTES) -> None:
        self._most = most_bytes
        self._size = 0
        self._kept: OrderedDict[tuple[int, ...], _Index] = OrderedDict()

    def find(self, file: _File, wanted: frozenset[Key]) -> _Index:
        """Return where the requests of a file stand: those with these keys, if not all."""
        index = self._kept.get(file.identity)
        if index is None:
            return self._read(file, wanted)
        self._kept.move_to_end(file.identity)
        return index

    def _read(self, file: _File, wanted: frozenset[Key]) -> _Index:
        found, every = _Index(), _Index()
        for request, place in requests_in(file.path):
            key = key_of(request)
            if key is None:
                continue
            if key in wanted:
                found.add(key, place)
            if every.size <= self._most:
                every.add(key, place)
            else:
                # It would not be kept, nor counts to its end: only what is wanted is held.
                every.places.clear()
        self._keep(file.identity, every)
        return found

    def _keep(self, identity: tuple[int, ...], index: _Index) -> None:
        if index.size > self._most:
            return
        self._kept[identity] = index
        self._size += index.size
        while self._size > self._most:
            _, oldest = self._kept.popitem(last=False)
            self._size -= oldest.size


class BatchInputs:
    """Finds the requests that the lines of one output answer.

    A file that holds all of them is the input; the nearest one is. Without one, the input may have
    been split over several files: then an id may stand in any, but not for different requests.

    Args:
        wanted: the keys of all lines of the output.
        output: the output's own file, or None for stdin.
        others: the files of the run.
        indexes: what is remembered of the files.
    """

    def __init__(
        self, wanted: frozenset[Key], output: Path | None, others: Iterable[Path], indexes: Indexes
    ) -> None:
        self._wanted = wanted
        self._output = output
        self._others = others
        self._indexes = indexes
        self._seen: set[tuple[int, int]] = set()
        self._spool = Spool()
        self._aside: dict[Key, Piece] = {}
        self._places: dict[Key, tuple[Place, ...]] | None = None

    def request(self, key: Key) -> JSONObject:
        """Return the line of the input that has this key, decoded exactly.

        Raises:
            RejectError: there is none, or there are several that differ, with `BATCH_UNMATCHED`.
            OSError: what was put aside cannot be read or written.
        """
        if self._places is None:
            self._places = self._choose().places
            self._put_aside(self._places)
        places = self._places.get(key)
        if not places:
            raise _unmatched(
                "no batch input at hand holds its custom_id; put the input file into the same "
                "folder"
            )
        if len(places) > 1:
            raise _unmatched(
                "several batch inputs hold its custom_id with different requests; leave only the "
                "batch's own input file in the folder"
            )
        return self._load(key, places[0])

    def _choose(self) -> _Index:
        near, files = self._search(self._neighbours())
        if near.places:
            return near
        far, others = self._search(self._others)
        split = self._in_any(files)
        if len(split.places) == len(self._wanted) and not split.doubtful:
            # Or pieces of several inputs, where a file farther off is the output's own.
            split.take(far, far.places.keys())
            return split
        return far if far.places else self._in_any([*files, *others])

    def _search(self, files: Iterable[Path]) -> tuple[_Index, list[_File]]:
        """Return what those files hold that have all requests, and all files that there are."""
        whole = _Index()
        found: list[_File] = []
        for path in files:
            file = self._new(path)
            if file is None:
                continue
            found.append(file)
            index = self._indexes.find(file, self._wanted)
            if index.places.keys() >= self._wanted:
                whole.take(index, self._wanted)
        return whole, found

    def _in_any(self, files: list[_File]) -> _Index:
        """Return what the files hold of the requests."""
        found = _Index()
        for file in files:
            index = self._indexes.find(file, self._wanted)
            found.take(index, index.places.keys() & self._wanted)
        return found

    def _neighbours(self) -> Iterable[Path]:
        if self._output is None:
            return ()
        try:
            self._new(self._output)
            return sorted(self._output.parent.iterdir())
        except OSError:
            return ()

    def _new(self, path: Path) -> _File | None:
        """Return a file that was not looked at yet, or None for anything else."""
        try:
            status = path.stat()
        except OSError:
            return None
        file = (status.st_dev, status.st_ino)
        if not stat.S_ISREG(status.st_mode) or file in self._seen:
            return None
        self._seen.add(file)
        return _File(path, (*file, status.st_mtime_ns, status.st_size))

    def _put_aside(self, places: dict[Key, tuple[Place, ...]]) -> None:
        """Put the requests aside that cannot be read where they stand."""
        chosen: dict[Path, dict[Key, bytes]] = {}
        for key, (place, *others) in places.items():
            if not others and place.length == 0:
                chosen.setdefault(place.file, {})[key] = place.digest
        for path, digests in chosen.items():
            for request, place in requests_in(path):
                key_ = key_of(request)
                if key_ is not None and digests.get(key_) == place.digest:
                    del digests[key_]
                    self._aside[key_] = self._spool.write(dump(request))
                if not digests:
                    break

    def _load(self, key: Key, place: Place) -> JSONObject:
        piece = self._aside.get(key)
        data = bytes_at(place) if piece is None else self._spool.read(piece)
        try:
            value = value_of(data)
        except RejectError:
            value = None
        if not is_request(value) or digest_of(value) != place.digest:
            raise _unmatched("the batch input has changed while it was read; import it again")
        request: JSONObject = value
        return request


def _unmatched(message: str) -> RejectError:
    return RejectError(Reason.BATCH_UNMATCHED, message, "/custom_id")
