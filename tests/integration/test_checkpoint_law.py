"""The law of checkpoints: whatever is done to files, what is stored is what a whole reading stores.

TAPES_FAULT_EXAMPLES sequences of operations are tried.
"""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
import time
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.corpus import setting, turns_of
from tests.support.importing import How, import_here
from tests.support.turns import rows

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = ("a", "b")


class Folder:
    """A folder to which things are done, each at a moment of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # Several steps fall within one tick of the file system's clock.
        self._moments = count(int(time.time()) - 3600)
        self._numbers = count(1)
        self._turns = count()
        self._rests: dict[str, bytes] = {}
        self._given: set[float] = set()

    def do(self, operation: str, name: str, number: int) -> None:
        """Do something to the file of this name, as far as that can be done."""
        act: Callable[[Path, int], None] = getattr(self, operation)
        act(self.path / name, number)
        moment = next(self._moments)
        self._given.add(moment)
        for path in self.path.iterdir():
            if path.stat().st_mtime not in self._given:
                os.utime(path, (moment, moment))

    def _lines(self, number: int) -> list[bytes]:
        """Return the next turns of a few sessions."""
        turns = [next(self._turns) for _ in range(number)]
        return [turns_of(n % 3 + 1, 1, n // 3)[-1].encode() for n in turns]

    def append(self, path: Path, number: int) -> None:
        with path.open("ab") as file:
            file.writelines(self._lines(number))

    def append_bad(self, path: Path, number: int) -> None:
        with path.open("ab") as file:
            file.write(b'{"provider": "nobody", "request": {}}\n' * number)

    def append_unended(self, path: Path, number: int) -> None:
        """Append a whole record without the end of its line."""
        with path.open("ab") as file:
            file.write(b"".join(self._lines(number)).removesuffix(b"\n"))

    def append_half(self, path: Path, number: int) -> None:
        line = self._lines(1)[0]
        cut = len(line) * number // 5
        with path.open("ab") as file:
            file.write(line[:cut])
        self._rests[path.name] = line[cut:]

    def finish(self, path: Path, _number: int) -> None:
        rest = self._rests.pop(path.name, b"\n")
        if path.exists():
            with path.open("ab") as file:
                file.write(rest)

    def rewrite(self, path: Path, number: int) -> None:
        """Write a file anew in its place, without its first lines and with others."""
        if path.exists():
            kept = path.read_bytes().splitlines(keepends=True)[number:]
            path.write_bytes(b"".join([*self._lines(2 * number), *kept]))

    def edit(self, path: Path, _number: int) -> None:
        """Change an answer in its place: the file is no longer and no shorter."""
        if path.exists():
            path.write_bytes(path.read_bytes().replace(b'"text": "session', b'"text": "Session', 1))

    def shorten(self, path: Path, number: int) -> None:
        if path.exists():
            os.truncate(path, path.stat().st_size * number // 5)

    def rotate(self, path: Path, _number: int) -> None:
        if path.exists():
            path.rename(self._aside(path))

    def copy_and_truncate(self, path: Path, number: int) -> None:
        if path.exists():
            shutil.copyfile(path, self._aside(path))
            os.truncate(path, 0)
            if number > 2:
                self.append(path, number)

    def delete(self, path: Path, _number: int) -> None:
        path.unlink(missing_ok=True)

    def touch(self, path: Path, _number: int) -> None:
        if path.exists():
            path.touch()

    def swap(self, path: Path, number: int) -> None:
        """Let two files change their names."""
        other = self.path / NAMES[number % len(NAMES)]
        if path != other and path.exists() and other.exists():
            aside = self._aside(path)
            path.rename(aside)
            other.rename(path)
            aside.rename(other)

    def compress(self, path: Path, _number: int) -> None:
        if path.exists():
            data = path.read_bytes()
            path.unlink()
            self._aside(path).write_bytes(gzip.compress(data))

    def _aside(self, path: Path) -> Path:
        self._rests.pop(path.name, None)
        return path.with_name(f"{path.name}.{next(self._numbers)}")


OPERATIONS = (
    *("append",) * 3,
    "append_bad",
    "append_unended",
    "append_half",
    "finish",
    *("rewrite", "edit") * 2,
    "shorten",
    "rotate",
    "copy_and_truncate",
    "delete",
    "touch",
    "swap",
    "compress",
)
steps = st.tuples(st.sampled_from(OPERATIONS), st.sampled_from(NAMES), st.integers(1, 4))


@pytest.fixture
def other_database(empty_database: str) -> str:
    """Give another database with the whole schema."""
    from tapes_cli.store.postgres.migrations import migrate_up  # noqa: PLC0415  # few need it

    migrate_up(empty_database)
    return empty_database


@given(sequence=st.lists(steps, min_size=4, max_size=10))
@settings(
    max_examples=setting("TAPES_FAULT_EXAMPLES", 15),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_what_is_remembered_changes_nothing_that_is_stored(
    sequence: list[tuple[str, str, int]], database: str, other_database: str
) -> None:
    with (
        tempfile.TemporaryDirectory() as made,
        psycopg.connect(database, autocommit=True) as remembering,
        psycopg.connect(other_database, autocommit=True) as reading_all,
    ):
        for conn in (remembering, reading_all):
            conn.execute("TRUNCATE nodes, sessions, import_sources")
        folder = Folder(Path(made))
        folder.do("append", "a", 2)
        for step in sequence:
            folder.do(*step)
            import_here(database, [folder.path])
            import_here(other_database, [folder.path], How(remembers=False))
            assert rows(remembering) == rows(reading_all), step
