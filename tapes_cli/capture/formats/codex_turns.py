"""What a Codex rollout is put together to: the turn that is under way, and what came before it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tapes_cli.capture.conversation import MAX_HISTORY_BYTES, Conversation, too_large
from tapes_cli.capture.decode import dump
from tapes_cli.capture.formats.codex_lines import OPENAI, is_asked
from tapes_cli.capture.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapes_cli.capture.history import OpenedRecord
    from tapes_cli.model.blocks import ContentBlock
    from tapes_cli.model.json import JSON, JSONObject
    from tapes_cli.model.records import Location

STOP = "stop"
"""Why a turn ended that came to its end, in the words of reduced responses of this API."""

ABORTED = "aborted"
"""Why a turn ended that the user interrupted."""


@dataclass(slots=True)
class Turn:
    """A turn that the model is still speaking in, or whose count may still come.

    Attributes:
        location: where its first item stands.
        model: the model that speaks.
        copied: whether it is the parent's.
        items: what the model said, raw.
        blocks: the same in the provider-neutral form.
        after: what was told to the model meanwhile, raw.
        time: when the model said the last of it, or nothing.
        usage: what the call cost, if that is known.
        stop_reason: why it ended, if that is known.
        ended: whether the model says nothing more in it.
        size: how many bytes it takes, about, with all that waits for it.
    """

    location: Location
    model: str
    copied: bool = False
    items: list[JSON] = field(default_factory=list)
    blocks: list[ContentBlock] = field(default_factory=list)
    after: list[JSON] = field(default_factory=list)
    time: str = ""
    usage: JSONObject | None = None
    stop_reason: str = ""
    ended: bool = False
    size: int = 0

    def end(self, stop_reason: str) -> None:
        """Note that the model says nothing more in it, and why, unless that is known."""
        self.ended = True
        self.stop_reason = self.stop_reason or stop_reason

    def charge(self, usage: JSONObject) -> None:
        """Note what the call cost: it came to its end, unless the harness says otherwise."""
        self.usage = usage
        self.stop_reason = self.stop_reason or STOP

    def record(self, session: JSONObject | None) -> JSONObject:
        """Return the turn record, without the messages of its request."""
        model = {"model": self.model} if self.model else {}
        response: JSONObject = {
            **model,
            "message": {"role": "assistant", "content": self.blocks},
            "done": self.stop_reason == STOP,
            "stop_reason": self.stop_reason,
            "usage": self.usage,
        }
        return {
            "provider": OPENAI.name,
            "request": {**model},
            "response": {name: value for name, value in response.items() if value is not None},
            "session": session,
            "meta": {"captured_at": self.time} if self.time else {},
        }


class Context:
    """What the model has been told and has said so far.

    Attributes:
        known: whether it is known at all.
    """

    def __init__(self) -> None:
        self.known = False
        self._conversation = Conversation(OPENAI, "input", Spool(), MAX_HISTORY_BYTES)
        # Its messages, and the places of those that the user wrote, including what is not held.
        self._count = 0
        self._asked: list[int] = []
        self._held = True

    def add(self, message: JSON) -> None:
        """Add a raw message, which has been read before."""
        if not self.known:
            return
        if is_asked(message):
            self._asked.append(self._count)
        before = len(self._conversation)
        if self._held:
            self._conversation.append(message)
            self._held = len(self._conversation) > before
        self._count += 1

    def lose(self) -> None:
        """Note that there was something that is too large to be held."""
        self._held = False
        self._count += 1

    def forget(self) -> None:
        """Note that it is not known any more."""
        self._conversation.keep(0)
        self._count, self._asked, self._held, self.known = 0, [], True, False

    def replace(self, messages: list[JSON]) -> None:
        """Put messages in the place of all there are."""
        self.forget()
        self.known = True
        for message in messages:
            self.add(message)

    def roll_back(self, turns: int) -> None:
        """Take back what there is from the n-th last message on that the user wrote."""
        if not turns or not self._asked:
            return
        kept = max(len(self._asked) - turns, 0)
        self._count = self._asked[kept]
        del self._asked[kept:]
        if self._count <= len(self._conversation):
            self._conversation.keep(self._count)
            self._held = True

    def open(self, record: JSONObject) -> OpenedRecord:
        """Return a turn record with all messages as its history.

        Raises:
            RejectError: they are too large.
        """
        if not self._held:
            raise too_large("what was said before the turn")
        return self._conversation.open(record)

    def raw(self, record: JSONObject) -> Callable[[], bytes]:
        """Return what makes the bytes of a turn record with all messages in its request."""
        if not self.known or not self._held:
            return lambda: dump(record)
        return self._conversation.raw(record)
