"""What a reader makes of a capture: turns and rejects, each with its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tapes_cli.model.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapes_cli.model.turn import Turn


@dataclass(frozen=True, slots=True)
class Location:
    """Where a record stands.

    `line` counts from 1, `byte_offset` from 0 in the decompressed stream; `index` is the place
    in a batch, counted from 0, or None outside one. `number` is the source's place among all
    sources of a run. `format` is the name of the capture format, empty where none was recognised.
    """

    source: str
    line: int
    byte_offset: int
    index: int | None = None
    number: int = 0
    format: str = ""

    def moved(self, line: int, byte_offset: int, index: int | None = None) -> Location:
        """Return another place in the same source."""
        return Location(self.source, line, byte_offset, index, self.number, self.format)

    def of_format(self, name: str) -> Location:
        """Return the same place, with the name of the format that was found there."""
        return Location(self.source, self.line, self.byte_offset, self.index, self.number, name)

    @property
    def order(self) -> tuple[int, int, int, int]:
        """What sorts records in the order of the input; a line may hold several objects."""
        return self.number, self.line, self.byte_offset, -1 if self.index is None else self.index

    def __str__(self) -> str:
        """Return `source:line`, with `turns[i]` for a record of a batch."""
        place = f"{self.source}:{self.line}"
        return place if self.index is None else f"{place}: turns[{self.index}]"


class RejectError(Exception):
    """A record that cannot become a turn. Raised by readers, turned into a `Reject` at once.

    `pointer` is a JSON Pointer (RFC 6901) into the record. The message never holds content.
    """

    def __init__(self, reason: Reason, message: str, pointer: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.pointer = pointer


@dataclass(frozen=True, slots=True)
class Accepted:
    """A record that is a turn.

    Attributes:
        location: where it stands.
        turn: what it says.
        raw: returns the record's own bytes.
        size: how many bytes were read for it, about.
    """

    location: Location
    turn: Turn
    raw: Callable[[], bytes]
    size: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that is no turn, with the reason. `raw` are the record's own bytes."""

    location: Location
    reason: Reason
    message: str
    pointer: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class Skipped:
    """A record that is sound but holds nothing to store."""

    location: Location
    reason: Reason


@dataclass(frozen=True, slots=True)
class Incomplete:
    """Something at the end that somebody is still writing. `raw` is what there is of it."""

    location: Location
    raw: bytes = b""
    reason: Reason = Reason.INCOMPLETE


Record = Accepted | Rejected | Skipped | Incomplete
"""What became of one record of a capture."""
