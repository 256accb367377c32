"""Session files are larger than what is kept of them in memory."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import pytest

from tapes_cli.capture.reader import read
from tapes_cli.capture.sources import Source
from tapes_cli.capture.spool import IN_MEMORY_BYTES
from tapes_cli.model.records import Accepted
from tests.support.rollouts import Rollout
from tests.support.transcripts import Transcript, call, dump, text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SESSIONS = 60
"""As many conversations, each of which the harness has compacted at its end."""

WORDS = "word " * 100_000


def transcript() -> Iterator[bytes]:
    t = Transcript()
    for number in range(SESSIONS):
        t.prefix = f"u{number}-"
        t.prompt(f"{number} {WORDS}")
        t.answer(f"m{number}", call("c"))
        t.result("c", WORDS)
        t.answer(f"n{number}", text("done"))
        t.compact("so far")
        yield dump(t.lines)
        t.lines.clear()


def rollout() -> Iterator[bytes]:
    r = Rollout().meta()
    for number in range(SESSIONS):
        r.context().ask(f"{number} {WORDS}").call("c").output("c", WORDS).count().say("done")
        r.count().add("compacted", {"message": "so far"})
        yield r.data
        r.lines.clear()


@pytest.mark.parametrize("pieces", [transcript, rollout])
def test_memory_is_bounded(pieces: object, tmp_path: Path) -> None:
    assert callable(pieces)
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.writelines(pieces())
    assert path.stat().st_size > 3 * IN_MEMORY_BYTES
    tracemalloc.start()
    try:
        turns = sum(isinstance(found, Accepted) for found in read(Source("a", path)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert turns == 2 * SESSIONS
    assert peak < IN_MEMORY_BYTES + (12 << 20)
