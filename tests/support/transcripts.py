"""Claude Code transcripts made for tests, line by line as the harness writes them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

START = datetime(2026, 3, 2, 9, tzinfo=UTC)

Line = dict[str, Any]


def text(words: str) -> Line:
    """Return a block of text."""
    return {"type": "text", "text": words}


def thinking(words: str) -> Line:
    """Return a block of thinking."""
    return {"type": "thinking", "thinking": words, "signature": f"signature of {words}"}


def call(call_id: str, **arguments: Any) -> Line:
    """Return a tool call."""
    return {"type": "tool_use", "id": call_id, "name": "Bash", "input": arguments}


def output(call_id: str, words: str = "done") -> Line:
    """Return what a tool has returned."""
    return {"type": "tool_result", "tool_use_id": call_id, "content": words}


def dump(lines: list[Line]) -> bytes:
    """Return lines as a file."""
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


@dataclass
class Transcript:
    """A transcript that is being written. Each line follows the one before it.

    Attributes:
        session: the session of the lines.
        version: the harness's version.
        agent: the sub-agent whose lines they are.
        prefix: what the ids of its lines begin with.
        lines: what was written so far.
    """

    session: str = "s1"
    version: str = "2.1.209"
    agent: str = ""
    prefix: str = "u"
    lines: list[Line] = field(default_factory=list)
    parent: str | None = None

    def write(self, kind: str, **fields: Any) -> Line:
        """Write a line of any type that stands in the chain of lines."""
        number = len(self.lines)
        line: Line = {
            "parentUuid": self.parent,
            "isSidechain": bool(self.agent),
            "sessionId": self.session,
            "version": self.version,
            "cwd": "/home/me/work",
            "type": kind,
            "uuid": f"{self.prefix}{number}",
            "timestamp": (START + timedelta(seconds=number)).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        }
        if self.agent:
            line["agentId"] = self.agent
        line |= fields
        self.lines.append(line)
        self.parent = line["uuid"]
        return line

    def prompt(self, content: str | list[Line], **fields: Any) -> Line:
        """Write what the user says, or a tool."""
        return self.write("user", message={"role": "user", "content": content}, **fields)

    def result(self, call_id: str, words: str = "done", **fields: Any) -> Line:
        """Write what a tool has returned."""
        return self.prompt([output(call_id, words)], **fields)

    def answer(
        self,
        message_id: str,
        *blocks: Line,
        tokens: int = 7,
        stop: str | None = None,
        **fields: Any,
    ) -> None:
        """Write what the model says, one line for each block."""
        for block in blocks:
            message = {
                "id": message_id,
                "type": "message",
                "role": "assistant",
                "model": "claude-test",
                "content": [block],
                "stop_reason": stop,
                "stop_sequence": None,
                "usage": {
                    "input_tokens": 10,
                    "cache_creation_input_tokens": 200,
                    "cache_read_input_tokens": 3000,
                    "output_tokens": tokens,
                },
            }
            self.write("assistant", message=message, requestId=f"req-{message_id}", **fields)

    def end(self) -> Line:
        """Write that the harness has done what it was asked."""
        return self.write("system", subtype="turn_duration", durationMs=5)

    def compact(self, summary: str, **fields: Any) -> None:
        """Write that a summary takes the place of what was said."""
        self.write(
            "system", subtype="compact_boundary", parentUuid=None, logicalParentUuid=self.parent
        )
        flags = {"isCompactSummary": True, "isVisibleInTranscriptOnly": True}
        self.prompt(summary, **flags, **fields)

    def aside(self, kind: str, **fields: Any) -> None:
        """Write a line that stands outside the chain of lines."""
        self.lines.append({"type": kind, **fields})

    def data(self) -> bytes:
        """Return the file."""
        return dump(self.lines)
