"""What reducing a provider's response needs whoever the provider is.

The reduced response is the ingest specification's, section 1. Its blocks are made by the code that
reads the provider's requests: so the message hashes like its echo in the request that follows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tapes_cli.capture.providers.base import MAX_INTEGER
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import RejectError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tapes_cli.capture.providers.events import Events
    from tapes_cli.model.blocks import Message
    from tapes_cli.model.json import JSON, JSONObject

_SURROGATE = re.compile("[\ud800-\udfff]")
_YEAR_10000 = 253402300800
_COUNTS_OF_EVERY_TURN = ("prompt_tokens", "completion_tokens", "total_tokens")


@dataclass(slots=True)
class Reduction:
    """What is known of a response besides its message.

    Attributes:
        model: the model that answered.
        created_at: when, as RFC 3339 text.
        stop_reason: in the provider's own words.
        usage: the counts of a reduced response that are known.
        extra: what has no place of its own.
        done: whether the response came to its end.
    """

    model: str = ""
    created_at: str = ""
    stop_reason: str = ""
    usage: JSONObject = field(default_factory=dict)
    extra: JSONObject = field(default_factory=dict)
    done: bool = False

    @property
    def failed(self) -> bool:
        """Whether the provider broke off with an error of its own."""
        return "error" in self.extra

    def fail(self, error: JSON) -> None:
        """Note that the provider broke off with an error of its own."""
        self.stop_reason = "error"
        self.extra["error"] = error

    def note_stream(self, events: Events) -> None:
        """Note how the stream went that has been read.

        Raises:
            RejectError: it held no event that could be read.
        """
        if events.count == 0:
            if events.unreadable == 0:
                raise RejectError(Reason.EMPTY_RESPONSE, "the stream of the response has no events")
            raise RejectError(
                Reason.RESPONSE_DECODE, "no event of the response's stream is a JSON object"
            )
        if events.unreadable:
            self.extra["unreadable_events"] = events.unreadable

    def response(self, parse: Callable[[], Message]) -> JSONObject:
        """Return the reduced response.

        Args:
            parse: returns the message, in provider-neutral form.

        Raises:
            RejectError: the message is none, or has no content.
        """
        try:
            message = parse()
        except RejectError:
            raise RejectError(
                Reason.REDUCER_ERROR, "a field of the response's message has the wrong type"
            ) from None
        if not message.content:
            if self.failed:
                raise RejectError(
                    Reason.REDUCER_ERROR, "the provider answered with nothing but an error"
                )
            raise RejectError(Reason.EMPTY_RESPONSE, "the response's message has no content")
        if not self.done:
            self.extra["incomplete"] = True
        reduced: JSONObject = {
            "model": self.model,
            "created_at": self.created_at,
            "message": {"role": message.role, "content": [*message.content]},
            "done": self.done,
            "stop_reason": self.stop_reason,
            "usage": self.usage,
            "extra": self.extra,
        }
        return {name: value for name, value in reduced.items() if name == "done" or value}


@dataclass(slots=True)
class Said:
    """A response, read: its message as the provider's requests send it back, and the rest."""

    message: JSON
    reduction: Reduction


def no_message() -> RejectError:
    """Return the reject of a response that is JSON but not of the provider's form."""
    return RejectError(Reason.REDUCER_ERROR, "the response is not of the provider's form")


def kept(value: JSONObject, *names: str) -> JSONObject:
    """Return the members of these names that say something."""
    return {name: value[name] for name in names if value.get(name)}


def member(value: JSONObject, name: str) -> JSONObject:
    """Return an object inside an object, empty if there is none."""
    inner = value.get(name)
    return inner if isinstance(inner, dict) else {}


def objects(value: JSON) -> list[JSONObject]:
    """Return the objects of a list, which is empty if there is none."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def place(value: JSON, otherwise: int = 0) -> int:
    """Return the index that something of a stream belongs to."""
    return value if type(value) is int else otherwise


def joined(pieces: Iterable[str]) -> str:
    """Return the text of pieces; halves of a character (surrogates) come together again."""
    text = "".join(pieces)
    if _SURROGATE.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def count(value: JSON) -> int | None:
    """Return a count of tokens or nanoseconds, or None for what is none."""
    return value if type(value) is int and 0 <= value <= MAX_INTEGER else None


def added(*counts: int | None) -> int | None:
    """Return the sum of the counts that are known, or None if there is none."""
    known = [number for number in counts if number is not None]
    return count(sum(known)) if known else None


def usage(**counts: int | None) -> JSONObject:
    """Return the usage of a reduced response, without what is not known.

    The total is that of prompt and completion where it is not given. Of the other counts, zero is
    as good as absent.
    """
    if counts.get("total_tokens") is None:
        prompt, completion = counts.get("prompt_tokens"), counts.get("completion_tokens")
        counts["total_tokens"] = added(prompt, completion)
    return {
        name: number
        for name, number in counts.items()
        if number or (number == 0 and name in _COUNTS_OF_EVERY_TURN)
    }


def unix_time(seconds: JSON) -> str:
    """Return a time in seconds since 1970 as RFC 3339 text, or nothing if it is none."""
    if type(seconds) not in (int, float) or not 0 < seconds < _YEAR_10000:
        return ""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
