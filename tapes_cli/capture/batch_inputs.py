"""The requests of batch APIs, found by their `custom_id` in the files that hold them.

The output of a batch holds no request. Its input is looked for in the folder of the output first,
then among the files of the run. Of an input nothing is kept in memory but where its requests
stand; those of a compressed file, or of a document, are put aside.
"""

from __future__ import annotations

import json
import stat
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING, TypeAlias

import orjson

from tapes_cli.capture.decode import check_nesting, decode_faithfully, dump
from tapes_cli.capture.decompress import DamagedArchiveError, is_compressed, read_chunks
from tapes_cli.capture.lines import DEFAULT_MAX_LINE_BYTES, Line, LineSplitter
from tapes_cli.capture.spool import Spool
from tapes_cli.capture.values import join_document
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import RejectError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from tapes_cli.capture.spool import Piece
    from tapes_cli.model.json import JSON, JSONObject

_BEFORE_RECORD = b"\xef\xbb\xbf \t\r\n"
# Of an id that one file has several times: two that differ are as good as many.
_PLACES_PER_FILE = 2

_Key: TypeAlias = tuple[str, str]
"""The field that has the body of a request, and its `custom_id`."""


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
        length: how many bytes it has; 0 where it is put aside.
        piece: where it was put aside.
    """

    file: Path
    digest: bytes
    offset: int
    length: int
    piece: Piece | None = None


@dataclass(slots=True)
class _Index:
    """The requests of some files.

    Attributes:
        places: where the requests with a key stand.
        held: how many of the ids that are looked for a file has.
    """

    places: dict[_Key, list[_Place]] = field(default_factory=dict)
    held: dict[Path, int] = field(default_factory=dict)

    def add(self, key: _Key, place: _Place) -> None:
        places = self.places.setdefault(key, [])
        same = [other for other in places if other.file == place.file]
        if not same:
            self.held[place.file] = self.held.get(place.file, 0) + 1
        if len(same) < _PLACES_PER_FILE and all(o.digest != place.digest for o in same):
            places.append(place)


class BatchInputs:
    """Finds the requests that the lines of one output answer.

    Args:
        wanted: the ids of all lines of the output.
        output: the output's own file, or None for stdin.
        others: the files of the run.
    """

    def __init__(self, wanted: frozenset[str], output: Path | None, others: Iterable[Path]) -> None:
        self._wanted = wanted
        self._output = output
        self._others = others
        self._seen: set[tuple[int, int]] = set()
        self._spool = Spool()
        self._indexes: list[_Index] = []

    def request(self, custom_id: str, body: str) -> JSONObject:
        """Return the line of the input that has this id, decoded exactly.

        Args:
            custom_id: the id.
            body: the field that has the request's body: `body` (OpenAI) or `params` (Anthropic).

        Raises:
            RejectError: there is none, or there are several that differ, with `BATCH_UNMATCHED`.
            OSError: what was put aside cannot be read or written.
        """
        for index in self._tiers():
            if places := index.places.get((body, custom_id)):
                return self._load((body, custom_id), self._chosen(index, places))
        raise _unmatched(
            "no batch input at hand holds its custom_id; put the input file into the same folder"
        )

    def _tiers(self) -> Iterator[_Index]:
        """Yield what the nearest files hold, then what the others do, each read when it is due."""
        for number in range(2):
            if number == len(self._indexes):
                files = self._others if number else self._neighbours()
                self._indexes.append(self._index(files))
            yield self._indexes[number]

    def _neighbours(self) -> Iterable[Path]:
        if self._output is None:
            return ()
        try:
            self._is_new(self._output)
            return sorted(self._output.parent.iterdir())
        except OSError:
            return ()

    def _index(self, files: Iterable[Path]) -> _Index:
        index = _Index()
        for path in files:
            if not self._is_new(path):
                continue
            for request, place in _requests_in(path):
                custom_id = request["custom_id"]
                if isinstance(custom_id, str) and custom_id in self._wanted:
                    kept = place
                    if place.length == 0:
                        kept = replace(place, piece=self._spool.write(dump(request)))
                    index.add((_body_of(request), custom_id), kept)
        return index

    def _is_new(self, path: Path) -> bool:
        """Whether this is a file that was not looked at yet."""
        try:
            status = path.stat()
        except OSError:
            return False
        identity = (status.st_dev, status.st_ino)
        if not stat.S_ISREG(status.st_mode) or identity in self._seen:
            return False
        self._seen.add(identity)
        return True

    def _chosen(self, index: _Index, places: list[_Place]) -> _Place:
        """Return the place of the request, of several different ones that of the batch's input."""
        if len({place.digest for place in places}) > 1:
            wanted = len(self._wanted)
            places = [place for place in places if index.held[place.file] == wanted]
        if len({place.digest for place in places}) != 1:
            raise _unmatched(
                "several batch inputs hold its custom_id with different requests; leave only the "
                "batch's own input file in the folder"
            )
        return places[0]

    def _load(self, key: _Key, place: _Place) -> JSONObject:
        data = _at(place) if place.piece is None else self._spool.read(place.piece)
        try:
            value = decode_faithfully(data)
        except RejectError:
            value = None
        if not is_request(value) or (_body_of(value), value["custom_id"]) != key:
            raise _unmatched("the batch input has changed while it was read; import it again")
        request: JSONObject = value
        return request


def _requests_in(path: Path) -> Iterator[tuple[JSONObject, _Place]]:
    """Yield the requests of a file, if its first record is one, up to a damage.

    The length of the place is 0 where the request has no line of its own in the file.
    """
    try:
        with path.open("rb") as stream:
            compressed = is_compressed(stream)
            stream.seek(0)
            chunks = _if_records(read_chunks(stream))
            lines = join_document(LineSplitter().split(chunks), DEFAULT_MAX_LINE_BYTES)
            for number, line in enumerate(lines):
                value = _value(line)
                requests = requests_of(value)
                if number == 0 and not requests:
                    return
                own = is_request(value) and not compressed and b"\n" not in line.data
                for request in filter(is_request, requests):
                    length = len(line.data) if own else 0
                    yield request, _Place(path, _digest(request), line.byte_offset, length)
    except (OSError, DamagedArchiveError):
        # What stands before the damage is as good as any.
        return


def _value(line: Line) -> JSON:
    try:
        value = decode_faithfully(line.data)
        check_nesting(value, 0, "")
    except RejectError:
        return None
    return value


def _if_records(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the chunks of a file, unless it begins like no record, or with one that is too long."""
    size = 0
    for chunk in chunks:
        if not size and not chunk.lstrip(_BEFORE_RECORD).startswith(b"{"):
            return
        if size < DEFAULT_MAX_LINE_BYTES:
            size = DEFAULT_MAX_LINE_BYTES if b"\n" in chunk else size + len(chunk)
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


def _body_of(request: JSONObject) -> str:
    return "params" if "params" in request else "body"


def _digest(request: JSON) -> bytes:
    try:
        data = orjson.dumps(request, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        # With integers beyond 64 bits, lone surrogates, or nested deeply.
        data = json.dumps(request, sort_keys=True).encode()
    return sha256(data).digest()


def _unmatched(message: str) -> RejectError:
    return RejectError(Reason.BATCH_UNMATCHED, message, "/custom_id")
