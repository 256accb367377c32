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


def read_broken(captures: Mapping[str, Mapping[str, bytes]], name: str, seed: int) -> list[Record]:
    """Break the capture of a format in the way that the seed says, and return its records.

    Args:
        captures: for each format, the files of a sound capture.
        name: the format.
        seed: says what is broken, always in the same way.

    Raises:
        HangError: reading takes longer than `SECONDS`.
    """
    chance = Random(seed)
    files = dict(captures[name])
    others = [data for capture in captures.values() for data in capture.values()]
    broken = chance.choice(sorted(files))
    files[broken] = mutated(files[broken], others, chance)
    with _at_most(SECONDS):
        return read_files(files)


def read_files(files: Mapping[str, bytes]) -> list[Record]:
    """Return the records of these files, in a folder."""
    with tempfile.TemporaryDirectory() as folder:
        for file, data in files.items():
            (Path(folder) / file).write_bytes(data)
        return list(_read(Path(folder)))


def faults(records: list[Record]) -> list[str]:
    """Return what is wrong with records, whatever they were read from."""
    found = []
    if not all(isinstance(r, Accepted | Rejected | Skipped | Incomplete) for r in records):
        found.append("something is no record")
    order = [record.location.order for record in records]
    if order != sorted(order):
        found.append("the records are not in order")
    if any(isinstance(r, Rejected) and r.reason is Reason.FORMAT_FAILED for r in records):
        found.append("a format has failed")
    return found + _faults_of_turns([found for found in records if isinstance(found, Accepted)])


def _faults_of_turns(records: list[Accepted]) -> list[str]:
    """Return what is wrong with what is kept of turns: read again, it is to be the same turn."""
    found = []
    preparer, again = Preparer(), Preparer()
    for record in records:
        try:
            chain = preparer.prepare(record.turn).chain.hashes
        except RejectError:
            continue
        (kept,) = read_files({"kept": record.raw().replace(b"\n", b" ") + b"\n"})
        if not isinstance(kept, Accepted):
            found.append("what was kept of a turn is none")
        elif not _merges(record.turn) and again.prepare(kept.turn).chain.hashes != chain:
            found.append("what was kept of a turn is another one")
    return found


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
