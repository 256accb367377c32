"""Streams of bytes, decompressed as they are read. Compression is told by content, not by name."""

from __future__ import annotations

import bz2
import lzma
import sys
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHUNK_BYTES = 1 << 18
"""Upper bound of one chunk, compressed or not."""

XZ_MEMORY_BYTES = 512 << 20
"""What an xz header may make us allocate; the largest preset of xz needs 65 MiB."""

GZIP_WBITS = 16 + zlib.MAX_WBITS
"""What zlib calls the format of gzip."""

_ZIP_MAGIC = b"PK\x03\x04"


class ByteReader(Protocol):
    """What is needed of an open file: `io.BufferedReader` and `io.BytesIO` have it."""

    def read1(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes with at most one call of the system; empty at the end."""
        ...


class LimitedReader:
    """Reads so many bytes of a stream at most."""

    def __init__(self, stream: ByteReader, limit: int) -> None:
        self._stream = stream
        self._left = limit

    def read1(self, size: int = -1, /) -> bytes:
        """See `ByteReader.read1`."""
        data = self._stream.read1(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        return data


class DamagedArchiveError(Exception):
    """The archive is cut short, corrupt, or followed by something else."""


class Decoder(Protocol):
    """Decodes one member of an archive or body, in the manner of `bz2.BZ2Decompressor`."""

    @property
    def eof(self) -> bool:
        """Whether the end of the member was reached."""
        ...

    @property
    def needs_input(self) -> bool:
        """Whether nothing more comes of what was given so far."""
        ...

    @property
    def unused_data(self) -> bytes:
        """What stands behind the end of the member."""
        ...

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Return at most so many bytes of what the data, added to what was given before, hold."""
        ...


class ZlibDecoder:
    """zlib's decompressor with the interface of the others. `wbits` are zlib's."""

    def __init__(self, wbits: int) -> None:
        self._zlib = zlib.decompressobj(wbits=wbits)

    @property
    def eof(self) -> bool:
        """Whether the end of the member was reached."""
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        """Whether nothing more comes of what was given so far."""
        return not self._zlib.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        """What stands behind the end of the member."""
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Return at most so many bytes of what the data, added to what was given before, hold."""
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)


@dataclass(frozen=True, slots=True)
class _Codec:
    """A kind of archive: how it begins, and how one member is decompressed."""

    name: str
    magics: tuple[bytes, ...]
    decoder: Callable[[], Decoder]
    # gzip and xz allow zero bytes after a member, as tapes and block devices leave them.
    padded: bool = False

    def begins(self, data: bytes) -> bool:
        return data.startswith(self.magics)


# A bz2 stream is followed by a block or by the end mark, which keeps the word "BZh1" apart.
_BZ2_MAGICS = tuple(
    b"BZh%d" % level + mark
    for level in range(1, 10)
    for mark in (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90")
)
_ZSTD_MAGICS = (b"\x28\xb5\x2f\xfd", *(bytes([n]) + b"\x2a\x4d\x18" for n in range(0x50, 0x60)))

_CODECS = (
    _Codec("gzip", (b"\x1f\x8b",), lambda: ZlibDecoder(GZIP_WBITS), padded=True),
    _Codec("bz2", _BZ2_MAGICS, bz2.BZ2Decompressor),
    _Codec(
        "xz",
        (b"\xfd7zXZ\x00",),
        lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY_BYTES),
        padded=True,
    ),
    _Codec("zstd", _ZSTD_MAGICS, zstd.ZstdDecompressor),
)

_MAGICS = (_ZIP_MAGIC, *(magic for codec in _CODECS for magic in codec.magics))
_LONGEST_MAGIC = max(map(len, _MAGICS))

_DECODER_ERRORS = (zlib.error, lzma.LZMAError, zstd.ZstdError, OSError, ValueError, EOFError)


def read_chunks(stream: ByteReader) -> Iterator[bytes]:
    """Yield the content of `stream` in chunks of at most `CHUNK_BYTES`, decompressed.

    The stream is never asked to seek, so pipes will do. Whatever precedes a damage is yielded
    before the error is raised.

    Raises:
        DamagedArchiveError: the archive is cut short, corrupt, or of an unsupported kind.
        OSError: the stream cannot be read.
    """
    head = _read_head(stream)
    if head.startswith(_ZIP_MAGIC):
        raise DamagedArchiveError("zip archives are not supported")
    for codec in _CODECS:
        if codec.begins(head):
            yield from _decompress(codec, raw_chunks(stream, head))
            return
    yield from raw_chunks(stream, head)


def is_compressed(stream: ByteReader) -> bool:
    """Tell whether an archive begins here, of whatever kind."""
    return _read_head(stream).startswith(_MAGICS)


def _read_head(stream: ByteReader) -> bytes:
    # A pipe may deliver a byte at a time: the first read need not hold the whole magic.
    head = b""
    while any(len(magic) > len(head) and magic.startswith(head) for magic in _MAGICS):
        more = stream.read1(CHUNK_BYTES)
        if not more:
            break
        head += more
    return head


def raw_chunks(stream: ByteReader, head: bytes = b"") -> Iterator[bytes]:
    """Yield the content of `stream` as it is, in chunks; `head` has been read from it already.

    Raises:
        OSError: the stream cannot be read.
    """
    if head:
        yield head
    while chunk := stream.read1(CHUNK_BYTES):
        yield chunk


def _decompress(codec: _Codec, chunks: Iterator[bytes]) -> Iterator[bytes]:
    decoder = codec.decoder()
    data = next(chunks)
    head = b""
    while True:
        try:
            out = decoder.decompress(data, CHUNK_BYTES)
        except _DECODER_ERRORS as error:
            raise _undecodable(codec, error) from error
        data = b""
        if len(head) < _LONGEST_MAGIC:
            head += out[:_LONGEST_MAGIC]
            if head.startswith(_MAGICS):
                raise DamagedArchiveError(
                    f"the {codec.name} archive holds another archive, which is not unpacked"
                )
        if out:
            yield out
        if decoder.eof:
            data = _next_member(codec, decoder.unused_data, chunks)
            if not data:
                return
            decoder = codec.decoder()
        elif decoder.needs_input:
            data = next(chunks, b"")
            if not data and not out:
                raise DamagedArchiveError(f"the {codec.name} archive is cut short")


def _undecodable(codec: _Codec, error: Exception) -> DamagedArchiveError:
    # The decoders have no class for it.
    if "memory" in str(error).lower():
        return DamagedArchiveError(f"the {codec.name} archive takes too much memory to unpack")
    return DamagedArchiveError(f"the {codec.name} archive is corrupt")


def _next_member(codec: _Codec, rest: bytes, chunks: Iterator[bytes]) -> bytes:
    """Return the first bytes of the member that follows, or nothing at the archive's end."""
    longest = max(map(len, codec.magics))
    while True:
        if codec.padded:
            rest = rest.lstrip(b"\0")
        if len(rest) >= longest:
            break
        more = next(chunks, b"")
        if not more:
            break
        rest += more
    if rest and not codec.begins(rest):
        if any(magic.startswith(rest) for magic in codec.magics):
            raise DamagedArchiveError(f"the {codec.name} archive is cut short")
        raise DamagedArchiveError(f"something else follows the {codec.name} archive")
    return rest
