"""What must hold of anything that is read."""

from __future__ import annotations

import signal
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from tapes_cli.capture.expansion import expand
from tapes_cli.capture.reader import Options, Reader
from tapes_cli.capture.sources import Source
from tapes_cli.importer.prepare import Preparer
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import Accepted, Incomplete, Rejected, RejectError, Skipped
from tests.fuzz.mutate import mutated

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import FrameType

    from tapes_cli.model.records import Record
    from tapes_cli.model.turn import Turn

SECONDS = 10
"""No input of this size may take longer."""


class HangError(Exception):
    """Reading took too long."""


def try_one(captures: Mapping[str, Mapping[str, bytes]], name: str, seed: int) -> int:
    """Break the capture of a format in the way that the seed says, read it, and check.

    Args:
        captures: for each format, the files of a sound capture.
        name: the format.
        seed: says what is broken, always in the same way.

    Returns:
        How many records there were.
    """
    chance = Random(seed)
    files = dict(captures[name])
    others = [data for capture in captures.values() for data in capture.values()]
    broken = chance.choice(sorted(files))
    files[broken] = mutated(files[broken], others, chance)
    with _at_most(SECONDS):
        records = read_files(files)
    check(records)
    return len(records)


def read_files(files: Mapping[str, bytes]) -> list[Record]:
    """Return the records of these files, in a folder."""
    with tempfile.TemporaryDirectory() as folder:
        for file, data in files.items():
            (Path(folder) / file).write_bytes(data)
        return list(_read(Path(folder)))


def check(records: list[Record]) -> None:
    """Check that records are what they have to be."""
    assert all(isinstance(r, Accepted | Rejected | Skipped | Incomplete) for r in records)
    order = [record.location.order for record in records]
    assert order == sorted(order), "the records are not in order"
    assert not [r for r in records if isinstance(r, Rejected) and r.reason is Reason.FORMAT_FAILED]
    preparer, again = Preparer(), Preparer()
    for record in records:
        if isinstance(record, Accepted):
            try:
                chain = preparer.prepare(record.turn).chain.hashes
            except RejectError:
                continue
            (turn,) = read_files({"kept": record.raw().replace(b"\n", b" ") + b"\n"})
            assert isinstance(turn, Accepted), "what was kept of a turn is none"
            assert _merges(record.turn) or again.prepare(turn.turn).chain.hashes == chain


def _merges(turn: Turn) -> bool:
    """Whether the items of two answers in a row are one message when they are read again."""
    roles = [message.role for message in turn.history]
    return turn.provider == "openai" and ("assistant", "assistant") in pairwise(roles)


def _read(path: Path) -> Iterator[Record]:
    sources = [source for source in expand([path]) if isinstance(source, Source)]
    paths = tuple(s.path for s in sources if s.path and not s.folder)
    reader = Reader(Options(max_line_bytes=1 << 20, paths=paths))
    for number, source in enumerate(sources):
        yield from reader.read(replace(source, number=number))


@contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    def stop(_number: int, _frame: FrameType | None) -> None:
        raise HangError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
