"""Files that have grown are told from files that were rewritten."""

from __future__ import annotations

import gzip
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tapes_cli.capture.fingerprint import (
    LOOKED_AT_BYTES,
    beginning,
    goes_on,
    identity_of,
    reached,
)
from tapes_cli.model.checkpoint import Identity, Position, Reached

if TYPE_CHECKING:
    from pathlib import Path

_SEEN = 3 * LOOKED_AT_BYTES


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "a"
    made.write_bytes(os.urandom(_SEEN))
    return made


def _reached(file: Path, byte_offset: int = _SEEN) -> Reached:
    found = reached(file, Position(1, byte_offset), identity_of(file.stat()), beginning(file))
    assert found is not None
    return found


def _overwrite(file: Path, offset: int, data: bytes) -> None:
    with file.open("r+b") as stream:
        stream.seek(offset)
        stream.write(data)


def test_a_file_that_has_grown_goes_on(file: Path) -> None:
    place = _reached(file)
    with file.open("ab") as stream:
        stream.write(b"more")
    assert goes_on(file, place)


@pytest.mark.parametrize("offset", [0, LOOKED_AT_BYTES - 1, _SEEN - LOOKED_AT_BYTES, _SEEN - 1])
def test_a_file_with_another_beginning_or_end_does_not(file: Path, offset: int) -> None:
    place = _reached(file)
    before = file.read_bytes()[offset]
    _overwrite(file, offset, bytes([before ^ 1]))
    assert not goes_on(file, place)


def test_a_file_that_is_shorter_does_not(file: Path) -> None:
    place = _reached(file)
    os.truncate(file, _SEEN - 1)
    assert not goes_on(file, place)
    assert reached(file, Position(1, _SEEN), identity_of(file.stat()), beginning(file)) is None


def test_a_file_that_was_replaced_while_it_was_read_has_reached_nothing(file: Path) -> None:
    identity, begun = identity_of(file.stat()), beginning(file)
    copy = file.with_name("b")
    copy.write_bytes(file.read_bytes())
    copy.rename(file)
    assert reached(file, Position(1, 10), identity, begun) is None


def test_a_file_that_was_rewritten_while_it_was_read_has_reached_nothing(file: Path) -> None:
    identity, begun = identity_of(file.stat()), beginning(file)
    file.write_bytes(os.urandom(_SEEN))
    assert identity_of(file.stat()).is_file_of(identity)
    assert reached(file, Position(1, 10), identity, begun) is None


def test_a_file_that_grew_while_it_was_read_has_reached_its_position(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"one\n")
    identity, begun = identity_of(file.stat()), beginning(file)
    file.write_bytes(b"one\ntwo\n")
    place = reached(file, Position(2, 8), identity, begun)
    assert place is not None
    assert goes_on(file, place)


def test_an_archive_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(gzip.compress(b"x"))
    (tmp_path / "b").write_bytes(b"x")
    assert beginning(tmp_path / "a").compressed
    assert not beginning(tmp_path / "b").compressed


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=st.binary(max_size=40), after=st.binary(max_size=60), offset=st.integers(0, 40))
def test_what_goes_on_holds_what_it_held(
    tmp_path: Path, before: bytes, after: bytes, offset: int
) -> None:
    file = tmp_path / "small"
    file.write_bytes(before)
    offset = min(offset, len(before))
    place = _reached(file, offset)
    file.write_bytes(after)
    assert goes_on(file, place) == (after[:offset] == before[:offset] and len(after) >= offset)


def test_a_file_under_another_name_or_device_number_is_unchanged() -> None:
    before = Identity(device=1, inode=2, size=3, mtime_ns=4)
    assert Identity(9, 2, 3, 4).is_unchanged(before)
    for other in (Identity(1, 9, 3, 4), Identity(1, 2, 9, 4), Identity(1, 2, 3, 9)):
        assert not other.is_unchanged(before)
