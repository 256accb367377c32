"""A turn: a provider request that re-sends the history, and its response."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from tapes_cli.model.blocks import Message
    from tapes_cli.model.envelope import Envelope
    from tapes_cli.model.history import History


@dataclass(frozen=True, slots=True)
class Usage:
    """What a response cost, as the provider counted it. Tokens; nanoseconds for durations.

    `prompt_tokens` includes the tokens written to and read from the cache. None is "not said".
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    total_duration_ns: int | None = None
    prompt_duration_ns: int | None = None


class TimeSource(StrEnum):
    """Where a turn's capture time comes from, best first."""

    RECORD = "record"
    FILE = "file"
    CLOCK = "clock"


@dataclass(frozen=True, slots=True)
class CaptureTime:
    """When a turn was captured (UTC), and how we know."""

    at: datetime
    source: TimeSource = TimeSource.RECORD

    @property
    def dated(self) -> bool:
        """Whether the record itself says when it was captured."""
        return self.source is TimeSource.RECORD


@dataclass(slots=True)
class Turn:
    """One captured turn, checked and in provider-neutral form.

    `history` are the messages of the request, in order; `response` is the answer. `envelope` is
    None where the capture had none. `lossy` is whether the turn was rebuilt from a harness's own
    notes, and differs from what went over the wire.
    """

    provider: str
    history: History
    response: Message
    captured: CaptureTime
    request_model: str = ""
    response_model: str = ""
    stop_reason: str = ""
    usage: Usage = field(default_factory=Usage)
    agent_name: str = ""
    project: str = ""
    envelope: Envelope | None = None
    lossy: bool = False
