from __future__ import annotations

import gzip
import sys
import time
import zlib
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapes_cli.capture import bodies
from tapes_cli.capture.bodies import MAX_BODY_BYTES, Body, decode_body, parse_codings
from tapes_cli.capture.providers import PROVIDERS
from tapes_cli.capture.providers.raw_response import reduce_raw
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import RejectError
from tests.support.provider_bodies import stream

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Callable


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "x-gzip": lambda data: gzip.compress(data, mtime=0),
    "deflate": zlib.compress,
    "zstd": zstd.compress,
}
PACKERS = [*CODINGS.items(), ("deflate", raw_deflate)]


def decoded(data: bytes, codings: Any) -> Body:
    return decode_body(data, codings, Reason.RESPONSE_DECODE, "/x")


def rejected(data: bytes, codings: Any) -> tuple[Reason, str]:
    with pytest.raises(RejectError) as caught:
        decoded(data, codings)
    return caught.value.reason, caught.value.pointer


@given(st.binary(max_size=200), st.lists(st.sampled_from(PACKERS), max_size=8))
def test_codings_are_taken_off_from_the_last_to_the_first(
    data: bytes, packers: list[tuple[str, Callable[[bytes], bytes]]]
) -> None:
    packed = data
    for _, pack in packers:
        packed = pack(packed)
    names = [name for name, _ in packers]
    assert decoded(packed, names) == Body(data)
    assert decoded(packed, " , ".join(["identity", *names, ""]).upper()) == Body(data)


@pytest.mark.parametrize(("name", "pack"), PACKERS)
@given(data=st.data())
def test_what_is_cut_short_is_salvaged(
    name: str, pack: Callable[[bytes], bytes], data: st.DataObject
) -> None:
    whole = bytes(range(256)) * 40
    packed = pack(whole)
    piece = packed[: data.draw(st.integers(0, len(packed) - 1))]
    try:
        body = decoded(piece, name)
    except RejectError as error:
        assert (error.reason, error.pointer) == (Reason.RESPONSE_DECODE, "/x")  # noqa: PT017
    else:
        assert body.cut_short
        assert body.data
        assert whole.startswith(body.data)


@pytest.mark.parametrize(("name", "pack"), PACKERS)
def test_most_of_what_is_cut_short_is_there(name: str, pack: Callable[[bytes], bytes]) -> None:
    lines = b"".join(b"%d said %d\n" % (n, n * n) for n in range(100_000))
    packed = pack(lines)
    body = decoded(packed[: len(packed) * 3 // 4], name)
    assert body.cut_short
    assert len(body.data) > len(lines) // 2
    assert lines.startswith(body.data)


@pytest.mark.parametrize("name", CODINGS)
@given(data=st.binary(max_size=60))
def test_anything_gives_a_body_or_a_reject(name: str, data: bytes) -> None:
    magic = {
        "gzip": b"\x1f\x8b\x08",
        "x-gzip": b"",
        "deflate": b"\x78",
        "zstd": b"\x28\xb5\x2f\xfd",
    }
    for head in (b"", magic[name]):
        try:
            decoded(head + data, name)
        except RejectError as error:
            assert error.reason is Reason.RESPONSE_DECODE  # noqa: PT017


@pytest.mark.parametrize(("name", "pack"), PACKERS)
def test_what_is_none_of_the_coding(name: str, pack: Callable[[bytes], bytes]) -> None:
    assert rejected(b"", name) == (Reason.RESPONSE_DECODE, "/x")
    assert rejected(b"\xff\xff\xff\xff not packed", name) == (Reason.RESPONSE_DECODE, "/x")
    assert decoded(pack(b""), name) == Body(b"")


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_members_are_joined(name: str) -> None:
    pack = CODINGS[name]
    assert decoded(pack(b"a") + pack(b"") + pack(b"b" * 1000), name) == Body(b"a" + b"b" * 1000)
    assert decoded(pack(b"a") + bytes(2000), name) == Body(b"a")
    assert decoded(pack(b"a") + b"else", name) == Body(b"a", cut_short=True)
    assert decoded(pack(b"a") + bytes(2000) + pack(b"b"), name) == Body(b"a", cut_short=True)


def test_what_breaks_off_corrupt_is_salvaged() -> None:
    packed = bytearray(gzip.compress(bytes(range(256)) * 4000, 0))
    packed[len(packed) // 2] ^= 255
    body = decoded(bytes(packed), "gzip")
    assert body.cut_short
    assert len(body.data) > 0


def test_a_cut_inside_another_coding_is_told() -> None:
    inner = gzip.compress(b"x" * 100_000)
    assert decoded(zstd.compress(inner[:-9]), "gzip, zstd").cut_short
    outer = zstd.compress(gzip.compress(b"x"))
    assert decoded(outer[:-1], ["gzip", "zstd"]) == Body(b"x", cut_short=True)
    assert rejected(outer[:9], ["gzip", "zstd"]) == (Reason.RESPONSE_DECODE, "/x")


@pytest.mark.parametrize(("name", "pack"), PACKERS)
def test_the_largest_body(name: str, pack: Callable[[bytes], bytes]) -> None:
    assert len(decoded(pack(bytes(MAX_BODY_BYTES)), name).data) == MAX_BODY_BYTES
    assert rejected(pack(bytes(MAX_BODY_BYTES + 1)), name) == (Reason.BODY_TOO_LARGE, "/x")


def test_a_body_that_is_not_coded_is_limited_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MAX_BODY_BYTES", 5)
    assert decoded(b"12345", "") == Body(b"12345")
    assert rejected(b"123456", "") == (Reason.BODY_TOO_LARGE, "/x")
    # Each layer is: the inner one is larger than what it holds.
    assert rejected(zstd.compress(gzip.compress(b"")), "gzip, zstd")[0] is Reason.BODY_TOO_LARGE


def test_tiny_members_without_end_take_no_time() -> None:
    begun = time.process_time()
    packed = gzip.compress(b"", mtime=0) * 1_000_000
    assert rejected(packed, "gzip")[0] is Reason.RESPONSE_DECODE
    assert rejected(zstd.compress(b"") * 1_000_000, "zstd")[0] is Reason.RESPONSE_DECODE
    assert time.process_time() - begun < 8


@pytest.mark.parametrize("codings", ["br", "gzip, br", ["gzip", "compress"], "gzip;q=1"])
def test_codings_that_are_not_supported(codings: Any) -> None:
    with pytest.raises(RejectError) as caught:
        parse_codings(codings, Reason.REQUEST_DECODE, "/y")
    assert (caught.value.reason, caught.value.pointer) == (Reason.REQUEST_DECODE, "/y")
    assert "zstd" in caught.value.message


def test_too_many_codings() -> None:
    assert parse_codings(["gzip"] * 8, Reason.RESPONSE_DECODE) == ["gzip"] * 8
    assert rejected(b"", "gzip," * 9) == (Reason.RESPONSE_DECODE, "/x")


ANTHROPIC = PROVIDERS["anthropic"]
STREAM = stream("anthropic", [{"type": "text", "text": "hello"}])


def record(body: bytes, encoding: Any) -> dict[str, Any]:
    return {"raw_response": b64encode(body).decode(), "raw_response_encoding": encoding}


@pytest.mark.parametrize("encoding", [None, "", "base64", "identity", [], ["base64"]])
def test_a_raw_response_without_codings(encoding: Any) -> None:
    assert reduce_raw(record(STREAM, encoding), ANTHROPIC) == ANTHROPIC.reduce(STREAM)


@pytest.mark.parametrize("encoding", ["gzip, zstd", ["gzip", "zstd"], "gzip,zstd, Base64"])
def test_a_raw_response_with_codings(encoding: Any) -> None:
    packed = zstd.compress(gzip.compress(STREAM))
    assert reduce_raw(record(packed, encoding), ANTHROPIC) == ANTHROPIC.reduce(STREAM)


def test_a_raw_response_that_is_cut_short_says_so() -> None:
    packed = gzip.compress(STREAM)
    found = reduce_raw(record(packed[:-4], "gzip"), ANTHROPIC)
    assert found["extra"].pop("cut_short") is True
    assert found == ANTHROPIC.reduce(STREAM)


@pytest.mark.parametrize(
    ("raw", "reason", "pointer"),
    [
        ({}, Reason.RESPONSE_DECODE, "/raw_response"),
        ({"raw_response": 5}, Reason.RESPONSE_DECODE, "/raw_response"),
        ({"raw_response": "Y Q=="}, Reason.RESPONSE_DECODE, "/raw_response"),
        ({"raw_response": "YQ==\n"}, Reason.RESPONSE_DECODE, "/raw_response"),
        ({"raw_response": "YQ"}, Reason.RESPONSE_DECODE, "/raw_response"),
        ({"raw_response": "é"}, Reason.RESPONSE_DECODE, "/raw_response"),
        ({"raw_response": "\ud800"}, Reason.RESPONSE_DECODE, "/raw_response"),
        (record(b"x", "gzip"), Reason.RESPONSE_DECODE, "/raw_response"),
        (record(b"x", "br"), Reason.RESPONSE_DECODE, "/raw_response_encoding"),
        (record(b"x", 5), Reason.RESPONSE_DECODE, "/raw_response_encoding"),
        (record(b"x", ["gzip", None]), Reason.RESPONSE_DECODE, "/raw_response_encoding"),
        (record(b"", ""), Reason.EMPTY_RESPONSE, "/raw_response"),
        (record(b"{}", ""), Reason.REDUCER_ERROR, "/raw_response"),
        (
            record(gzip.compress(bytes(MAX_BODY_BYTES + 1)), "gzip"),
            Reason.BODY_TOO_LARGE,
            "/raw_response",
        ),
    ],
)
def test_what_is_no_raw_response(raw: dict[str, Any], reason: Reason, pointer: str) -> None:
    with pytest.raises(RejectError) as caught:
        reduce_raw(raw, ANTHROPIC)
    assert (caught.value.reason, caught.value.pointer) == (reason, pointer)
