"""What a capture format is: how its records are recognised, and what turn records they hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tapes_cli.model.json import JSON, JSONObject


@dataclass(frozen=True, slots=True)
class Item:
    """One turn record inside a line.

    `index` is its place in a batch, or None where the record is the line.
    """

    record: JSON
    index: int | None = None


@dataclass(frozen=True, slots=True)
class Format:
    """A capture format.

    Attributes:
        name: what users call it.
        recognises: tells by the keys whether a record is of this format.
        items: yields the turn records of a record that was recognised; raises `RejectError` for
            the record as a whole.
    """

    name: str
    recognises: Callable[[JSONObject], bool]
    items: Callable[[JSONObject], Iterator[Item]]
