"""Codex rollouts made for tests, and how they are read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from tapes_cli.capture.formats.codex import FORMAT
from tapes_cli.capture.reader import Options, Reader
from tapes_cli.capture.sources import Source
from tapes_cli.merkle.chain import ChainBuilder
from tapes_cli.model.records import Accepted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tapes_cli.capture.lines import Line, LineSplitter
    from tapes_cli.merkle.chain import Chain
    from tapes_cli.model.records import Record
    from tapes_cli.model.turn import Turn

START = datetime(2026, 6, 17, 10, tzinfo=UTC)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
SESSION = "019ed50c-0000-7000-8000-000000000001"


class Rollout:
    """Writes a rollout, a line a second."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self._total = [0, 0, 0, 0]

    @property
    def data(self) -> bytes:
        """The rollout so far."""
        return b"".join(line + b"\n" for line in self.lines)

    def time(self, line: int) -> datetime:
        """Return when a line was written; lines count from 1."""
        return START + timedelta(seconds=line)

    def add(self, kind: str, payload: object, **fields: object) -> Rollout:
        """Write a record."""
        time = self.time(len(self.lines) + 1).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        record = {"timestamp": time, "type": kind, "payload": payload, **fields}
        self.lines.append(json.dumps(record).encode())
        return self

    def raw(self, line: bytes) -> Rollout:
        """Write a line as it is."""
        self.lines.append(line)
        return self

    def glue(self) -> Rollout:
        """Lose the newline between the last two lines."""
        last = self.lines.pop()
        self.lines[-1] += last
        return self

    def meta(self, session: str = SESSION, **fields: object) -> Rollout:
        """Write what begins a rollout."""
        known = {"id": session, "cwd": "/home/me", "cli_version": "0.142.4", "source": "cli"}
        return self.add("session_meta", {**known, "model_provider": "openai", **fields})

    def context(self, model: object = "gpt-5.5") -> Rollout:
        """Write a turn's settings."""
        return self.add("turn_context", {"cwd": "/home/me", "model": model})

    def item(self, kind: str, **fields: object) -> Rollout:
        """Write an item of a request."""
        return self.add("response_item", {"type": kind, **fields})

    def told(self, words: str, role: str = "user") -> Rollout:
        """Write a message to the model."""
        return self.item("message", role=role, content=[{"type": "input_text", "text": words}])

    def ask(self, words: str) -> Rollout:
        """Write what the user asks, as the item and as the event that repeats it."""
        return self.told(words).event("user_message", message=words)

    def say(self, words: str) -> Rollout:
        """Write what the model says."""
        content = [{"type": "output_text", "text": words}]
        return self.item("message", role="assistant", content=content, phase="commentary")

    def call(self, name: str) -> Rollout:
        """Write a tool call; its id is its name."""
        return self.item(
            "function_call", call_id=name, name="exec", arguments=f'{{"cmd":"{name}"}}'
        )

    def output(self, name: str, output: object = "ok") -> Rollout:
        """Write what a tool put out."""
        return self.item("function_call_output", call_id=name, output=output)

    def event(self, kind: str, **fields: object) -> Rollout:
        """Write an event."""
        return self.add("event_msg", {"type": kind, **fields})

    def count(self, prompt: int = 100, cached: int = 60, completion: int = 7) -> Rollout:
        """Write what a call has cost; all zero repeats the total."""
        last = [prompt, cached, completion, prompt + completion]
        self._total = [a + b for a, b in zip(self._total, last, strict=True)]
        info = {"total_token_usage": _usage(self._total), "last_token_usage": _usage(last)}
        return self.event("token_count", info=info, rate_limits={"limit_id": "codex"})

    def answer(self, words: str) -> Rollout:
        """Write a whole turn that is nothing but words."""
        return self.say(words).count()


def _usage(counts: list[int]) -> dict[str, int]:
    names = ("input_tokens", "cached_input_tokens", "output_tokens", "total_tokens")
    return dict(zip(names, counts, strict=True))


def begun() -> Rollout:
    """Return a rollout whose user has asked something, in lines 1 to 4."""
    return Rollout().meta().context().ask("What is here?")


@dataclass(frozen=True)
class InMemory(Source):
    """A source that is no file."""

    data: bytes = b""

    def split(self, splitter: LineSplitter) -> Iterator[Line]:
        """Yield its lines."""
        return splitter.split([self.data])


def records(data: bytes, mtime: datetime | None = None, **options: Any) -> list[Record]:
    """Return what a reader makes of a rollout that was last written to at `mtime`."""
    source = InMemory("rollout.jsonl", None, mtime=mtime, data=data)
    return list(Reader(Options(format=FORMAT, **options)).read(source))


def records_of(path: Path) -> list[Record]:
    """Return what a reader makes of a file."""
    return list(Reader(Options(format=FORMAT)).read(Source(path.name, path)))


def turns(data: bytes, mtime: datetime | None = None) -> list[Turn]:
    """Return the turns of a rollout, in which there is nothing else."""
    found = []
    for record in records(data, mtime):
        assert isinstance(record, Accepted), record
        found.append(record.turn)
    return found


def accepted(found: list[Record]) -> list[Turn]:
    """Return the turns among records."""
    return [record.turn for record in found if isinstance(record, Accepted)]


def chains(found: list[Turn]) -> list[Chain]:
    """Return the chains of turns, in order."""
    builder = ChainBuilder()
    return [builder.build(turn) for turn in found]


def identities(found: list[Turn]) -> list[object]:
    """Return all that is stored of turns, in a form that can be compared."""
    return [
        (
            chain.hashes,
            turn.envelope,
            turn.usage,
            turn.stop_reason,
            turn.captured,
            turn.request_model,
            turn.response_model,
            turn.response.content,
        )
        for turn, chain in zip(found, chains(found), strict=True)
    ]


def words(turn: Turn) -> list[str]:
    """Return a turn's messages in short: texts as they are, else what the blocks are about."""
    return [
        f"{message.role}: " + " ".join(map(_in_short, message.content))
        for message in (*turn.history, turn.response)
    ]


def _in_short(block: Any) -> str:
    for name in ("text", "thinking", "tool_use_id", "tool_result_id"):
        if name in block:
            return str(block[name])
    return str(block["type"])
