"""HTTP bodies without their content codings, never larger than is sensible to hold in memory."""

from __future__ import annotations

import sys
import zlib
from base64 import b64decode
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tapes_cli.capture.decompress import GZIP_WBITS, ZlibDecoder
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import RejectError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tapes_cli.capture.decompress import Decoder

MAX_BODY_BYTES = 48 << 20
"""The largest body, before and after each coding is taken off."""

MAX_CODINGS = 8
"""Codings of one body, one around the other."""

_CHUNK_BYTES = 1 << 18
_FIRST_CHUNK_BYTES = 1 << 9
# Each member costs a decoder: tiny ones without end would take minutes.
_MAX_MEMBERS = 1 << 16
_ZLIB_METHOD = 8
_ZLIB_CHECK = 31
_SUPPORTED = "gzip, x-gzip, deflate, zstd and identity"


@dataclass(frozen=True, slots=True)
class Body:
    """A decoded body. `cut_short` says that the coded one ended early, or broke off corrupt."""

    data: bytes
    cut_short: bool = False


def from_base64(text: str, reason: Reason, pointer: str) -> bytes:
    """Return the bytes of a body that stands as base64 in a record.

    Args:
        text: the base64, in one piece or in lines.
        reason: the reason of a reject.
        pointer: where it stands in the record.

    Raises:
        RejectError: it is no base64.
    """
    try:
        return b64decode("".join(text.split()), validate=True)
    except ValueError:
        name = pointer[1:].replace("/", ".")
        raise RejectError(reason, f"{name} is not base64", pointer) from None


class _DamagedError(Exception):
    """The data ends early, or is none of the coding."""


def parse_codings(codings: Sequence[str] | str, reason: Reason, pointer: str = "") -> list[str]:
    """Return the codings of a `Content-Encoding`, in the order in which they were applied.

    Args:
        codings: the header's value, or a list of such values. `identity` and nothing stand for
            no coding.
        reason: the reason of a reject, such as `Reason.RESPONSE_DECODE`.
        pointer: where the codings stand in the record.

    Raises:
        RejectError: a coding is not supported, or there are more than `MAX_CODINGS`.
    """
    text = codings if isinstance(codings, str) else ",".join(codings)
    names = [name.strip().lower() for name in text.split(",")]
    names = [name for name in names if name not in ("", "identity")]
    if len(names) > MAX_CODINGS:
        raise RejectError(reason, f"the body has more than {MAX_CODINGS} content codings", pointer)
    if not _OPENERS.keys() >= set(names):
        raise RejectError(
            reason, f"the content coding is none of the supported {_SUPPORTED}", pointer
        )
    return names


def decode_body(
    data: bytes, codings: Sequence[str] | str, reason: Reason, pointer: str = ""
) -> Body:
    """Return a body without its content codings, the last one taken off first.

    What is cut short, or corrupt after a sound beginning, is salvaged as far as it goes.

    Args:
        data: the body as it was sent.
        codings: see `parse_codings`.
        reason: the reason of a reject, such as `Reason.RESPONSE_DECODE`.
        pointer: where the body stands in the record.

    Raises:
        RejectError: a coding is not supported, nothing can be salvaged, or (with the reason
            `Reason.BODY_TOO_LARGE`) the body, coded or not, exceeds `MAX_BODY_BYTES`.
    """
    body = Body(data)
    if len(data) > MAX_BODY_BYTES:
        raise _too_large(pointer)
    for name in reversed(parse_codings(codings, reason, pointer)):
        data, cut_short = _peeled(name, body.data, pointer)
        if cut_short and not data:
            raise RejectError(reason, f"the body is no {name} data, or cut short", pointer)
        body = Body(data, body.cut_short or cut_short)
    return body


def _peeled(name: str, data: bytes, pointer: str) -> tuple[bytes, bool]:
    """Return the data without one coding, and whether it was cut short."""
    for opener in _OPENERS[name](data):
        chunks: list[bytes] = []
        size = 0
        try:
            for chunk in _members(opener, data):
                size += len(chunk)
                if size > MAX_BODY_BYTES:
                    raise _too_large(pointer)
                chunks.append(chunk)
        except _DamagedError:
            if not chunks:
                continue
            return b"".join(chunks), True
        return b"".join(chunks), False
    return b"", True


def _members(opener: Callable[[], Decoder], data: bytes) -> Iterator[bytes]:
    """Yield what the members hold, one after the other. Zero bytes may follow a member.

    Raises:
        _DamagedError: a member is corrupt or cut short, or something else follows the last one.
    """
    position = 0
    for _ in range(_MAX_MEMBERS):
        decoder = opener()
        # Small at first: what a member leaves over is read again, by as many as there are.
        step = _FIRST_CHUNK_BYTES
        while not decoder.eof:
            fed = b""
            if hungry := decoder.needs_input:
                fed = data[position : position + step]
                position += len(fed)
                step = min(2 * step, _CHUNK_BYTES)
            chunk = _decompressed(decoder, fed)
            if chunk:
                yield chunk
            elif hungry and not fed:
                raise _DamagedError
        position -= len(decoder.unused_data)
        if _is_zero(data, position):
            return
    raise _DamagedError


def _is_zero(data: bytes, position: int) -> bool:
    """Whether there are nothing but zero bytes from there on."""
    nearest = data[position : position + _FIRST_CHUNK_BYTES]
    return not any(nearest) and not data[position:].strip(b"\0")


def _decompressed(decoder: Decoder, data: bytes) -> bytes:
    try:
        return decoder.decompress(data, _CHUNK_BYTES)
    except (zlib.error, zstd.ZstdError, EOFError) as error:
        raise _DamagedError from error


def _gzip(_data: bytes) -> list[Callable[[], Decoder]]:
    return [lambda: ZlibDecoder(GZIP_WBITS)]


def _deflate(data: bytes) -> list[Callable[[], Decoder]]:
    """Return the decoders to try: RFC 9110 means zlib's format, and some send it without."""
    raw: list[Callable[[], Decoder]] = [lambda: ZlibDecoder(-zlib.MAX_WBITS)]
    head = data[:2]
    if head and head[0] & 15 == _ZLIB_METHOD and int.from_bytes(head, "big") % _ZLIB_CHECK == 0:
        return [lambda: ZlibDecoder(zlib.MAX_WBITS), *raw]
    return raw


def _zstd(_data: bytes) -> list[Callable[[], Decoder]]:
    return [zstd.ZstdDecompressor]


_OPENERS: dict[str, Callable[[bytes], list[Callable[[], Decoder]]]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "zstd": _zstd,
}


def _too_large(pointer: str) -> RejectError:
    return RejectError(
        Reason.BODY_TOO_LARGE, f"the body is larger than {MAX_BODY_BYTES >> 20} MiB", pointer
    )
