"""Requests of batch APIs, and where they stand in the files that hold them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, TypeAlias

import orjson

from tapes_cli.capture.decode import check_nesting, decode_faithfully
from tapes_cli.capture.decompress import DamagedArchiveError, is_compressed, read_chunks
from tapes_cli.capture.lines import DEFAULT_MAX_LINE_BYTES, Line, LineSplitter
from tapes_cli.capture.values import (
    LOOK_AT_BYTES,
    LOOK_AT_LEAST,
    LOOK_AT_LINES,
    join_documents,
    pieces_of,
)
from tapes_cli.model.records import RejectError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tapes_cli.model.json import JSON, JSONObject

_BEFORE_RECORD = b"\xef\xbb\xbf \t\r\n"
_DIGEST_BYTES = 16

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
class Place:
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


def requests_in(path: Path) -> Iterator[tuple[JSONObject, Place]]:
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
                    yield request, Place(path, digest_of(request), line.byte_offset, length)
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
            far = unread_bytes >= LOOK_AT_BYTES and unread_lines >= LOOK_AT_LEAST
            if far or unread_lines >= LOOK_AT_LINES:
                return


def _records_of(line: Line) -> Iterator[tuple[Line, JSON]]:
    """Yield the records of a line that can be read: one, or those that are glued together."""
    try:
        yield line, value_of(line.data)
    except RejectError as error:
        pieces = pieces_of(line, error)
        for piece in pieces if len(pieces) > 1 else ():
            yield from _records_of(piece)


def value_of(data: bytes) -> JSON:
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


def bytes_at(place: Place) -> bytes:
    """Return the bytes of a request that has a line of its own; nothing if they are gone."""
    try:
        with place.file.open("rb") as stream:
            stream.seek(place.offset)
            return stream.read(place.length)
    except OSError:
        return b""


def key_of(request: JSONObject) -> Key | None:
    """Return the key of a request, or None if its id is none."""
    custom_id = request["custom_id"]
    if not isinstance(custom_id, str):
        return None
    return "params" if "params" in request else "body", custom_id


def digest_of(request: JSON) -> bytes:
    """Return what is equal of equal requests only, in whatever order their fields stand."""
    try:
        data = orjson.dumps(request, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        # With integers beyond 64 bits, lone surrogates, or nested deeply.
        data = json.dumps(request, sort_keys=True).encode()
    return blake2b(data, digest_size=_DIGEST_BYTES).digest()
