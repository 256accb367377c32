"""The requests of batch APIs, found by their `custom_id` in the files that hold them.

The output of a batch holds no request. Its input is looked for in the folder of the output first,
then among the files of the run. Of an input nothing is kept in memory but where its requests
stand; those of a compressed file, or of a document, are put aside once it is chosen.
"""

from __future__ import annotations

import json
import stat
import sys
from collections import OrderedDict
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, TypeAlias

import orjson

from tapes_cli.capture.decode import check_nesting, decode_faithfully, dump
from tapes_cli.capture.decompress import DamagedArchiveError, is_compressed, read_chunks
from tapes_cli.capture.lines import DEFAULT_MAX_LINE_BYTES, Line, LineSplitter
from tapes_cli.capture.spool import Spool
from tapes_cli.capture.values import join_documents, pieces_of
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import RejectError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from tapes_cli.capture.spool import Piece
    from tapes_cli.model.json import JSON, JSONObject

INDEX_BYTES = 64 << 20
"""So much is remembered of where requests stand, about, in bytes."""

_BEFORE_RECORD = b"\xef\xbb\xbf \t\r\n"
# Of an id that occurs several times: two requests that differ are as good as many.
_PLACES_PER_ID = 2
_DIGEST_BYTES = 16
# What an id costs in an index besides its text, about: measured.
_ID_BYTES = 310
_FILE_BYTES = 400
# How far into a file a first record is looked for that can be read; five lines in any case.
_LOOK_AT_LINES = 10_000
_LOOK_AT_BYTES = 64 << 20
_LOOK_AT_LEAST = 5

Key: TypeAlias = tuple[str, str]
"""The field that has the body of a request, `body` (OpenAI) or `params`, and its `custom_id`."""


def is_request(record: JSON) -> bool:
    """Whether a record is one request of a batch: OpenAI's form, or Anthropic's."""
    if not isinstance(record, dict) or "custom_id" not in record:
        return False
    return "params" in record or record.keys() >= {"url", "body"}


def requests_of(record: JSON) -> list[JSON]:
    """Return the requests that a record holds: itself, or those of a document; empty if none."""
    if is_request(record):
        return [record]
    requests = record.get("requests") if isinstance(record, dict) else None
    if isinstance(requests, list) and requests and is_request(requests[0]):
        return requests
    return []


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a request stands.

    Attributes:
        file: the file.
        digest: of the request; equal ones are the same request.
        offset: where it begins in the file.
        length: how many bytes it has; 0 where it has no line of its own in the file.
    """

    file: Path
    digest: bytes
    offset: int
    length: int


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

    places: dict[Key, tuple[_Place, ...]] = field(default_factory=dict)
    size: int = _FILE_BYTES

    def add(self, key: Key, place: _Place) -> None:
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
        for request, place in _requests_in(file.path):
            key = _key_of(request)
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
        self._places: dict[Key, tuple[_Place, ...]] | None = None

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

    def _put_aside(self, places: dict[Key, tuple[_Place, ...]]) -> None:
        """Put the requests aside that cannot be read where they stand."""
        chosen: dict[Path, dict[Key, bytes]] = {}
        for key, (place, *others) in places.items():
            if not others and place.length == 0:
                chosen.setdefault(place.file, {})[key] = place.digest
        for path, digests in chosen.items():
            for request, place in _requests_in(path):
                key_ = _key_of(request)
                if key_ is not None and digests.get(key_) == place.digest:
                    del digests[key_]
                    self._aside[key_] = self._spool.write(dump(request))
                if not digests:
                    break

    def _load(self, key: Key, place: _Place) -> JSONObject:
        piece = self._aside.get(key)
        data = _at(place) if piece is None else self._spool.read(piece)
        try:
            value = _value(data)
        except RejectError:
            value = None
        if not is_request(value) or _digest(value) != place.digest:
            raise _unmatched("the batch input has changed while it was read; import it again")
        request: JSONObject = value
        return request


def _requests_in(path: Path) -> Iterator[tuple[JSONObject, _Place]]:
    """Yield the requests of a file, if the first record that can be read is one, up to a damage."""
    try:
        with path.open("rb") as stream:
            compressed = is_compressed(stream)
            stream.seek(0)
            chunks = _if_records(read_chunks(stream))
            lines = join_documents(LineSplitter().split(chunks), DEFAULT_MAX_LINE_BYTES)
            for line, record in _if_requests(lines):
                own = is_request(record) and not compressed and b"\n" not in line.data
                for request in filter(is_request, requests_of(record)):
                    length = len(line.data) if own else 0
                    yield request, _Place(path, _digest(request), line.byte_offset, length)
    except (OSError, DamagedArchiveError):
        # What stands before the damage is as good as any.
        return


def _if_requests(lines: Iterator[Line]) -> Iterator[tuple[Line, JSON]]:
    """Yield the records of the lines, unless the first of them is no request of a batch."""
    recognised, unread_lines, unread_bytes = False, 0, 0
    for line in lines:
        for piece, record in _records_of(line):
            if not recognised and not requests_of(record):
                return
            recognised = True
            yield piece, record
        if not recognised:
            unread_lines += 1
            unread_bytes += len(line.data)
            far = unread_bytes >= _LOOK_AT_BYTES and unread_lines >= _LOOK_AT_LEAST
            if far or unread_lines >= _LOOK_AT_LINES:
                return


def _records_of(line: Line) -> Iterator[tuple[Line, JSON]]:
    """Yield the records of a line that can be read: one, or those that are glued together."""
    try:
        yield line, _value(line.data)
    except RejectError as error:
        pieces = pieces_of(line, error)
        for piece in pieces if len(pieces) > 1 else ():
            yield from _records_of(piece)


def _value(data: bytes) -> JSON:
    """Return what a record says.

    Raises:
        RejectError: it cannot be read, or is nested too deeply.
    """
    value = decode_faithfully(data)
    check_nesting(value, 0, "")
    return value


def _if_records(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the chunks of a file, unless it begins like no record, or with one that is too long."""
    begun, size = False, 0
    for chunk in chunks:
        text = chunk if begun else chunk.lstrip(_BEFORE_RECORD)
        if text and not begun and not text.startswith(b"{"):
            return
        begun = begun or bool(text)
        if size < DEFAULT_MAX_LINE_BYTES:
            size = DEFAULT_MAX_LINE_BYTES if b"\n" in text else size + len(text)
            if size > DEFAULT_MAX_LINE_BYTES:
                return
        yield chunk


def _at(place: _Place) -> bytes:
    try:
        with place.file.open("rb") as stream:
            stream.seek(place.offset)
            return stream.read(place.length)
    except OSError:
        return b""


def _key_of(request: JSONObject) -> Key | None:
    """Return the key of a request, or None if its id is none."""
    custom_id = request["custom_id"]
    if not isinstance(custom_id, str):
        return None
    return "params" if "params" in request else "body", custom_id


def _digest(request: JSON) -> bytes:
    try:
        data = orjson.dumps(request, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        # With integers beyond 64 bits, lone surrogates, or nested deeply.
        data = json.dumps(request, sort_keys=True).encode()
    return blake2b(data, digest_size=_DIGEST_BYTES).digest()


def _unmatched(message: str) -> RejectError:
    return RejectError(Reason.BATCH_UNMATCHED, message, "/custom_id")
