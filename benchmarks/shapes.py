"""Captures of the shapes that matter: how much is repeated, and how many sessions there are."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_START = datetime(2026, 1, 1, tzinfo=UTC)
_WORD_LETTERS = 7
_WORDS = 500


@dataclass(frozen=True, slots=True)
class Shape:
    """So many sessions of so many turns each, with messages of so many bytes.

    `at_once` sessions take turns in the file, then the next ones do.
    """

    name: str
    sessions: int
    turns: int
    at_once: int
    message_bytes: int = 500

    @property
    def all_turns(self) -> int:
        """How many turns there are in all."""
        return self.sessions * self.turns


SHAPES = (
    Shape("A", 1000, 40, 50),
    Shape("B", 100, 200, 10),
    Shape("C", 80_000, 1, 1),
)
"""The shapes of the table."""

WIDE = Shape("A-wide", 1000, 40, 1000)
"""As A, but with more open sessions than are usual: measured on request."""

LINEAR = tuple(Shape(f"T = {turns}", 8000 // turns, turns, 10) for turns in (50, 100, 200, 400))
"""As many turns each, in sessions that are longer and longer."""


def write(shape: Shape, path: Path) -> None:
    """Write a capture of this shape. The same shape gives the same bytes."""
    with path.open("wb") as file:
        file.writelines(_lines(shape))


def _lines(shape: Shape) -> Iterator[bytes]:
    chance = random.Random(shape.name)  # noqa: S311  # has to be the same every time
    words = ["".join(chance.choices("abcdefghij", k=_WORD_LETTERS)) for _ in range(_WORDS)]
    length = shape.message_bytes // (_WORD_LETTERS + 1)

    def said() -> list[dict[str, str]]:
        return [{"type": "text", "text": " ".join(chance.choices(words, k=length))}]

    number = 0
    for first in range(0, shape.sessions, shape.at_once):
        histories: list[list[dict[str, Any]]] = [[] for _ in range(shape.at_once)]
        for _ in range(shape.turns):
            for session, history in enumerate(histories, first):
                number += 1
                history.append({"role": "user", "content": said()})
                answer = said()
                yield orjson.dumps(_record(f"{shape.name}{session}", number, history, answer))
                yield b"\n"
                history.append({"role": "assistant", "content": answer})


def _record(session: str, number: int, history: list[Any], answer: list[Any]) -> dict[str, Any]:
    return {
        "provider": "anthropic",
        "agent_name": "claude",
        "request": {"model": "m", "max_tokens": 1000, "messages": history},
        "response": {
            "model": "m",
            "message": {"role": "assistant", "content": answer},
            "stop_reason": "end_turn",
            "usage": {"prompt_tokens": 10, "completion_tokens": 5},
        },
        "session": {"harness_id": "claude", "harness_session_id": session, "cwd": "/work"},
        "meta": {"captured_at": (_START + timedelta(seconds=number)).isoformat()},
    }
