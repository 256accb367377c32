"""Transcripts of Claude Code: `<session>.jsonl`, and `agent-<id>.jsonl` of its sub-agents.

A transcript holds each message once, not the requests. A turn is a message of the model; its
request is put together from what the thread has said before. The system prompt, the tools and
what the harness attached are not in the file, so the request is an approximation.

The rules are the capture specification's; and so that a file that has grown gives the same turns
as before, and more:

* A message is given out when a later line proves that no more lines of it can come. What the user
  says is such a proof, so lines of the message behind it are rejected, and what they hold is lost.
* A message without proof is incomplete, unless the file is finished and the message is likely to
  be all there: see `looks_complete`. A file is finished if nobody has written to it for a day; not
  for a message behind which a line was cut short or cannot be read, or the file is damaged.
* Where a line follows one that is not in the file so far, something is missing. From there on,
  the turns of the thread are skipped until it begins anew; so is the message before, unless a line
  has proved that it is over, as the missing line may be of that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tapes_cli.capture.conversation import MAX_HISTORY_BYTES, Conversation, too_large
from tapes_cli.capture.decode import decode_faithfully, dump, too_deep
from tapes_cli.capture.formats.base import Capture, Draft, Found, SourceFormat, refused
from tapes_cli.capture.formats.claude_code_index import (
    MAIN,
    Bad,
    CutShort,
    Heard,
    Index,
    Place,
    Restart,
    Spoken,
)
from tapes_cli.capture.formats.claude_code_lines import (
    has_counts,
    is_result,
    looks_complete,
    recognises,
)
from tapes_cli.capture.providers import PROVIDERS
from tapes_cli.capture.spool import Spool
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import Incomplete, RejectError, Skipped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapes_cli.model.json import JSON, JSONObject
    from tapes_cli.model.records import Location

_NAME = "claude-code-transcript"
_HARNESS = "claude"
_PROVIDER = PROVIDERS["anthropic"]
_METADATA = {"source": _NAME, "lossy": True}
_RESPONSE_FIELDS = ("id", "model", "stop_reason", "stop_sequence", "usage")
# What a piece takes in memory, about, beside its bytes: there may be a million of a few bytes each.
_PIECE_BYTES = 256
_UNTRUSTED = ("stop_reason", "stop_sequence", "usage")


def _read(capture: Capture) -> Iterator[Found]:
    """Yield what a transcript holds. See `SourceFormat.read`."""
    spool = Spool()
    index = Index(spool)
    index.read(capture.lines)
    rebuilding = _Rebuilding(capture, spool, index.bad)
    for event in index.events:
        if isinstance(event, Heard):
            rebuilding.talk(event.thread).hear(event)
        elif isinstance(event, Restart):
            rebuilding.talk(event.thread).restart()
        elif isinstance(event, Spoken):
            yield rebuilding.turn(event)
        else:
            yield rebuilding.leftover(event)
    if index.damage is not None:
        raise index.damage


@dataclass(slots=True)
class _Talk:
    """What a thread has said so far.

    Attributes:
        conversation: the messages.
        spool: where the contents are.
        heard: what is not a message yet, as more may belong to it.
        waiting: how many bytes that takes, about.
        broken: whether something is missing in the conversation.
    """

    conversation: Conversation
    spool: Spool
    heard: list[Heard] = field(default_factory=list)
    waiting: int = 0
    broken: bool = False

    def hear(self, heard: Heard) -> None:
        """Take something that is said to the model, if there is room for it."""
        self.waiting += heard.piece.length + _PIECE_BYTES
        if self.conversation.reserve(self.waiting):
            self.heard.append(heard)
        else:
            self.heard.clear()

    def check(self, spoken: Spoken) -> None:
        """Check that a message, and what was said before it, can be held in memory.

        Raises:
            RejectError: they cannot; nor can what follows, until the thread begins anew.
        """
        self.conversation.check()
        size = sum(piece.length + _PIECE_BYTES for piece in spoken.pieces)
        if size > MAX_HISTORY_BYTES:
            self.conversation.reserve(size)
            raise too_large("the turn")

    def restart(self) -> None:
        """Forget everything."""
        self.heard.clear()
        self.waiting = 0
        self.conversation.keep(0)
        self.broken = False

    def settle(self) -> int:
        """Make one message of what was heard. Return how many bytes that were."""
        contents = [decode_faithfully(self.spool.read(heard.piece)) for heard in self.heard]
        size = sum(heard.place.length for heard in self.heard)
        self.heard.clear()
        self.waiting = 0
        content = _merged(contents)
        if content is not None:
            self.conversation.append({"role": "user", "content": content})
        return size


@dataclass(slots=True)
class _Rebuilding:
    """Makes turns of messages, in the order of places. `bad` is that of the index at its end."""

    capture: Capture
    spool: Spool
    bad: int
    talks: dict[str, _Talk] = field(default_factory=dict)

    def talk(self, thread: str) -> _Talk:
        """Return what a thread has said."""
        found = self.talks.get(thread)
        if found is None:
            conversation = Conversation(_PROVIDER, "messages", self.spool)
            found = self.talks[thread] = _Talk(conversation, self.spool)
        return found

    def leftover(self, event: Bad | CutShort) -> Found:
        """Return what became of a line that is none."""
        location = self._at(event.place)
        raw = self.spool.read(event.piece)
        if isinstance(event, CutShort):
            return Incomplete(location, raw)
        return refused(location, event.error, raw)

    def turn(self, spoken: Spoken) -> Found:
        """Return what became of a message of the model."""
        location = self._at(spoken.place)
        if spoken.synthetic:
            return Skipped(location, Reason.SYNTHETIC_MESSAGE)
        talk = self.talk(spoken.thread)
        if spoken.orphan or talk.broken:
            return Skipped(location, Reason.HISTORY_MISSING)
        try:
            talk.check(spoken)
            return self._turn(spoken, talk, location)
        except RejectError as refusal:
            error = refusal
        except RecursionError:
            # How deep is too deep depends on the caller, too: a little less was fine before.
            error = too_deep()
        talk.broken = error.reason is not Reason.HISTORY_TOO_LARGE
        # Not even its bytes are kept: without its history, it would be another turn.
        return refused(location, error, b"")

    def _turn(self, spoken: Spoken, talk: _Talk, location: Location) -> Found:
        size = spoken.size + talk.settle()
        last, blocks = self._message(spoken)
        record = _record(spoken, last)
        if blocks:
            record["response"] = _response(last, blocks)
        finished = self.capture.finished and spoken.bad == self.bad
        complete = finished and looks_complete(last, blocks, spoken.results)
        if not spoken.over and not complete:
            so_far = talk.conversation.raw(record)()
            return Incomplete(location, so_far, Reason.INCOMPLETE_TURN)
        if not blocks:
            return Skipped(location, Reason.EMPTY_RESPONSE)
        raw = talk.conversation.raw(record)
        found = Draft(location, talk.conversation.open(record), raw, size)
        talk.conversation.append({"role": "assistant", "content": blocks})
        return found

    def _message(self, spoken: Spoken) -> tuple[JSONObject, list[JSON]]:
        """Return the body of a message's last line, and the blocks of all its lines."""
        body: JSONObject = {}
        blocks: list[JSON] = []
        for piece in spoken.pieces:
            body = decode_faithfully(self.spool.read(piece))
            blocks += body["content"]
        return body, blocks

    def _at(self, place: Place) -> Location:
        return self.capture.at(place.line, place.byte_offset)


def _merged(contents: list[JSON]) -> JSON:
    """Return one message's content for what was said in a row, None for nothing.

    The harness sends it as one message, the results of tools first.
    """
    if len(contents) == 1 and isinstance(contents[0], str):
        return contents[0]
    blocks: list[JSONObject] = []
    for content in contents:
        blocks += [{"type": "text", "text": content}] if isinstance(content, str) else content
    return sorted(blocks, key=lambda block: not is_result(block)) or None


def _record(spoken: Spoken, last: JSONObject) -> JSONObject:
    """Return a turn record without messages and response. `last` is the message's last line."""
    session = spoken.session
    envelope = {
        "harness_id": _HARNESS,
        "harness_session_id": session if spoken.thread == MAIN else f"{session}/{spoken.thread}",
        "parent_harness_session_id": None if spoken.thread == MAIN else session,
        "harness_version": last["version"],
        "cwd": last["cwd"],
        "name": spoken.name,
        "harness_metadata": _METADATA,
    }
    meta = {"captured_at": last["timestamp"], "request_id": last["requestId"]}
    return {
        "provider": _PROVIDER.name,
        "request": _said(model=last["model"]),
        "session": _said(**envelope),
        "meta": _said(**meta),
    }


def _response(last: JSONObject, blocks: list[JSON]) -> JSONObject:
    """Return the reduced response that a message is, by the rules for the provider's own."""
    message = {name: last[name] for name in _RESPONSE_FIELDS}
    if not has_counts(last["version"]):
        message |= dict.fromkeys(_UNTRUSTED)
    message |= {"type": "message", "role": "assistant", "content": blocks}
    return _PROVIDER.reduce(dump(message))


def _said(**fields: JSON) -> JSONObject:
    """Return the fields that say something."""
    return {name: value for name, value in fields.items() if value}


FORMAT = SourceFormat(
    name=_NAME,
    title="Claude Code transcript",
    sign="`sessionId` with `uuid` or `message`, or a line of bookkeeping such as `summary`",
    recognises=recognises,
    lossy=True,
    read=_read,
)
