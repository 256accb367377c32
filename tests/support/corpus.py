"""Folders of captures: sessions that grow side by side, with bad lines sprinkled over."""

from __future__ import annotations

import gzip
import os
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from tests.support.captures import line, record

if TYPE_CHECKING:
    from collections.abc import Sequence


def setting(name: str, default: int) -> int:
    """Return a number from the environment, by which the tests are made longer."""
    return int(os.environ.get(name) or default)


def chance(*what: object) -> Random:
    """Return a source of randomness that is the same each time, unless TAPES_FAULT_SEED differs."""
    return Random(f"{setting('TAPES_FAULT_SEED', 0)} {what}")


def turn(session: int, number: int, **changes: Any) -> dict[str, Any]:
    """Return a turn of a session that re-sends its whole history. All of it is dated."""
    said = [f"session {session}, message {i}: {i * 7919 % 1009}" for i in range(2 * number + 2)]
    messages = [
        {"role": ("user", "assistant")[i % 2], "content": words} for i, words in enumerate(said)
    ]
    envelope = {
        "harness_id": "claude",
        "harness_session_id": f"s{session}",
        "parent_harness_session_id": f"s{session + 1}",
        "name": f"after turn {number}",
    }
    captured = {"captured_at": f"2026-03-{1 + number // 24:02}T{number % 24:02}:{session:02}:00Z"}
    request = {"model": "m", "messages": messages[:-1]}
    return record(answer=said[-1], request=request, session=envelope, meta=captured) | changes


def turns_of(sessions: int, turns: int, first: int = 0) -> list[str]:
    """Return the lines of sessions that grow side by side."""
    return [line(turn(s, t)) for t in range(first, first + turns) for s in range(sessions)]


@dataclass(frozen=True, slots=True)
class Corpus:
    """A folder of captures.

    Attributes:
        folder: where.
        turns: how many turns are in it.
        bad: the places of lines that are none, as file name and line.
    """

    folder: Path
    turns: int
    bad: frozenset[tuple[str, int]]


_BAD = ("{oops\n", line(turn(1, 3, provider="nobody")), line({"turns": []}), "[1]\n")


def write_corpus(folder: Path, lines: Sequence[str], files: int = 6, bad: int = 0) -> Corpus:
    """Write captures to several files, one of them compressed, with bad lines sprinkled over."""
    folder.mkdir()
    where = chance(folder.name, bad)
    mixed = list(lines)
    for number in range(bad):
        mixed.insert(where.randrange(len(mixed) + 1), _BAD[number % len(_BAD)])
    places: set[tuple[str, int]] = set()
    each = -(-len(mixed) // files)
    for number in range(files):
        part = mixed[number * each : (number + 1) * each]
        path = folder / f"{number:02}.jsonl"
        if number == 1:
            path = path.with_suffix(".jsonl.gz")
            path.write_bytes(gzip.compress("".join(part).encode(), 1))
        else:
            path.write_text("".join(part))
        places |= {(path.name, i) for i, text in enumerate(part, 1) if text in _BAD}
    return Corpus(folder, len(lines), frozenset(places))


def places_of(records: Sequence[dict[str, Any]]) -> set[tuple[str, int]]:
    """Return the places of rejects, as `Corpus.bad` has them."""
    return {(Path(r["source"]).name, r["line"]) for r in records}
