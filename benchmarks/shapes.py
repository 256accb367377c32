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
    """So many sessions of so many turns each, interleaved, with messages of so many bytes."""

    name: str
    sessions: int
    turns: int
    message_bytes: int = 500


SHAPES = {
    shape.name: shape for shape in (Shape("A", 200, 40), Shape("B", 20, 200), Shape("C", 16000, 1))
}


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

    histories: list[list[dict[str, Any]]] = [[] for _ in range(shape.sessions)]
    for number in range(shape.turns * shape.sessions):
        session = number % shape.sessions
        history = histories[session]
        history.append({"role": "user", "content": said()})
        answer = said()
        yield (
            orjson.dumps(
                {
                    "provider": "anthropic",
                    "agent_name": "claude",
                    "request": {"model": "m", "max_tokens": 1000, "messages": history},
                    "response": {
                        "model": "m",
                        "message": {"role": "assistant", "content": answer},
                        "stop_reason": "end_turn",
                        "usage": {"prompt_tokens": 10, "completion_tokens": 5},
                    },
                    "session": {
                        "harness_id": "claude",
                        "harness_session_id": f"{shape.name}{session}",
                        "cwd": "/work",
                    },
                    "meta": {"captured_at": (_START + timedelta(seconds=number)).isoformat()},
                }
            )
            + b"\n"
        )
        history.append({"role": "assistant", "content": answer})
