"""Codex rollouts: the log that the harness Codex keeps of a session (`rollout-*.jsonl`).

A rollout holds each item of the conversation once, what was told to the model and what it said,
between notes on what the harness did. The requests are put together from it: `input` are the items
so far. Instructions, tools and settings are not in it, so its turns are `lossy`.

Where a turn begins and ends. A turn is one call of the API: the items that the model said since
the turn before. Outputs of tools that ran while it still spoke stand between them; in the request
that follows they come after all of them. A turn is given out when nothing can be added to it:

* at a `token_count` whose total has changed: the call is over, and this is what it cost. Counts
  without a total, or that repeat it, tell of rate limits and prove nothing;
* where something else begins: `task_started`, `turn_context`, `compacted`, `thread_rolled_back`;
* at what the model says after the end of its turn (`task_complete`, `turn_aborted`) or after what
  the user asked next. These end a turn, but do not prove that its count will not follow: until
  one of the proofs, a count that comes late is that of the turn that has ended;
* at the end of a file that is finished, if there was never a count with a total: early versions
  write none, while later ones write that of each call that comes to its end. Any other last turn
  without proof is incomplete: reported, and read again next time.

A file is finished if nobody has written to it for a day; not if it ends in a line that was cut
short or in a damage, since then nobody knows how it goes on.

So a turn never depends on what stands behind its proof, and what a growing file has given once
it gives again. Early versions write the count of a call *before* its items: a count that finds no
turn is that of the items that follow, unless something else begins in between (it was that of a
compaction, of which there are no items).

Stop reasons: `stop` where the call came to its end, whether tools were called or not, as reduced
responses of this API have it; `aborted` where the user interrupted it; else none, since the
rollout does not say how it ended.

Context. `compacted` replaces it: by its `replacement_history`, or in early versions by nothing but
its `message`, which is taken for a message of the user. `thread_rolled_back` takes it back to
before the n-th last message that the user wrote. Both change what later turns build on, not the
turns before. A file that does not begin with `session_meta` is a piece, and one that refers to
another rollout in place of a copy lacks what is there. A line that cannot be read, or that the
context depends on but that is faulty, leaves a hole: also in the turn that it stands in, unless
that has ended. In all these, turns are skipped until `compacted` gives the whole context. What an
agent's rollout has of its parent's, where it says up to which `ordinal` that goes, is context
only: the parent's turns are not all there, and are its own. What a fork has of its parent's are
the parent's very turns; stored twice, a turn counts once.

Session. It is that of the first `session_meta`. If that is faulty, a sound repetition counts as the
first; it is one if the id is the same, as others may be the parent's. Turns are skipped until the
session is known.

The time of a turn is that of the last item that the model said, as no other line is always there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapes_cli.capture.conversation import MAX_HISTORY_BYTES, too_large
from tapes_cli.capture.decode import decode_faithfully
from tapes_cli.capture.formats import codex_lines as lines
from tapes_cli.capture.formats.base import Draft, SourceFormat, refused
from tapes_cli.capture.formats.codex_turns import ABORTED, STOP, Context, Turn
from tapes_cli.capture.sources import SourceReadError
from tapes_cli.capture.times import parse_time
from tapes_cli.capture.values import is_cut_short, pieces_of
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import Incomplete, RejectError, Skipped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tapes_cli.capture.formats.base import Capture, Found
    from tapes_cli.capture.lines import Line
    from tapes_cli.model.json import JSON, JSONObject
    from tapes_cli.model.records import Location


def _is_rollout(record: JSONObject) -> bool:
    return isinstance(record.get("type"), str) and "payload" in record


def _read(capture: Capture) -> Iterator[Found]:
    yield from _Rollout(capture).read()


class _Rollout:
    """A rollout while it is read."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._context = Context()
        self._began = False
        self._open_end = False
        self._session: JSONObject | None = None
        # The id in a first session_meta that is faulty otherwise, empty if it has none.
        self._session_id: str | None = None
        self._copied = False
        self._own_from = 0
        self._model = ""
        self._time = ""
        self._total: JSONObject | None = None
        self._usage: JSONObject | None = None
        self._turn: Turn | None = None
        # What was found, in the order of places; and what waits for the turn to be given out.
        self._found: list[Found] = []
        self._waiting: list[Found] = []
        self._bytes = 0
        self._records: dict[str, Callable[[JSONObject, Location], None]] = {
            "session_meta": self._session_meta,
            "turn_context": self._turn_context,
            "response_item": self._response_item,
            "event_msg": self._event,
            "compacted": self._compacted,
            "rollout_reference": self._reference,
            "fork_reference": self._reference,
        }
        self._events: dict[str, Callable[[JSONObject], None]] = {
            "token_count": self._token_count,
            "task_started": lambda _: self._begin_anew(),
            "turn_started": lambda _: self._begin_anew(),
            "task_complete": lambda _: self._end(STOP),
            "turn_complete": lambda _: self._end(STOP),
            "turn_aborted": lambda _: self._end(ABORTED),
            "thread_rolled_back": self._rolled_back,
        }

    def read(self) -> Iterator[Found]:
        damage: SourceReadError | None = None
        try:
            for line in self._capture.lines:
                self._bytes += len(line.data)
                self._line(line)
                if self._turn is not None and self._turn.size > MAX_HISTORY_BYTES:
                    self._give_up(self._turn)
                yield from self._found
                self._found.clear()
        except SourceReadError as error:
            damage = error
            self._open_end = True
        self._finish()
        yield from self._found
        if damage is not None:
            raise damage

    def _line(self, line: Line) -> None:
        location = self._capture.at(line.number, line.byte_offset)
        if line.too_long:
            error = RejectError(Reason.LINE_TOO_LONG, "the line is longer than the limit")
            self._unreadable(line, location, error)
            return
        try:
            value = decode_faithfully(line.data)
        except RejectError as error:
            self._damaged(line, location, error)
            return
        try:
            self._record(value, location, len(line.data))
        except RejectError as error:
            if lines.makes_context(value):
                self._leave_hole()
            self._reject(location, error, line.data)

    def _damaged(self, line: Line, location: Location, error: RejectError) -> None:
        pieces = pieces_of(line, error)
        if len(pieces) > 1:
            for piece in pieces:
                self._line(piece)
        elif is_cut_short(line, error):
            self._open_end = True
            self._find(Incomplete(location, line.data), len(line.data))
        else:
            self._unreadable(line, location, error)

    def _unreadable(self, line: Line, location: Location, error: RejectError) -> None:
        if line.terminated:
            self._leave_hole()
        else:
            self._open_end = True
        self._reject(location, error, line.data)

    def _leave_hole(self) -> None:
        """Note that something is missing here, and may be in the turn, unless that has ended."""
        if self._turn is not None and self._turn.ended:
            self._give_out(self._turn)
        self._context.forget()

    def _reject(self, location: Location, error: RejectError, data: bytes) -> None:
        self._find(refused(location, error, data), len(data))

    def _find(self, found: Found, size: int) -> None:
        if self._turn is None:
            self._found.append(found)
        else:
            self._waiting.append(found)
            self._turn.size += size

    def _record(self, record: JSON, location: Location, size: int) -> None:
        if not isinstance(record, dict):
            raise RejectError(Reason.NOT_OBJECT, "the line is not an object")
        if not record.keys() >= {"type", "payload"}:
            raise RejectError(Reason.UNRECOGNISED, "the record is none of a Codex rollout")
        kind = record["type"]
        if not isinstance(kind, str):
            raise lines.invalid("type is not a string", "/type")
        if not self._began:
            self._began = True
            self._context.known = kind == "session_meta"
        self._note_copy(record.get("ordinal"))
        if parse_time(record.get("timestamp")) is not None:
            self._time = record["timestamp"]
        if (handle := self._records.get(kind)) is not None:
            if not isinstance(payload := record["payload"], dict):
                raise lines.invalid("payload is not an object", "/payload")
            handle(payload, location)
            if self._turn is not None and kind == "response_item":
                self._turn.size += size

    def _note_copy(self, ordinal: JSON) -> None:
        copied = type(ordinal) is int and ordinal < self._own_from
        if self._copied and not copied:
            self._begin_anew()
        self._copied = copied

    def _session_meta(self, payload: JSONObject, _location: Location) -> None:
        """Take the session from the first one: later ones are a fork's parent's, or repeat it."""
        if self._session is not None:
            return
        session_id = payload.get("id")
        if self._session_id is None:
            self._session_id = session_id if isinstance(session_id, str) else ""
            self._own_from = lines.read_start(payload)
            if payload.get("history_base"):
                self._context.forget()
        elif session_id != self._session_id:
            return
        self._session = lines.read_session(payload)

    def _turn_context(self, payload: JSONObject, _location: Location) -> None:
        model = lines.text_at(payload, "model")
        self._begin_anew()
        self._model = model or self._model

    def _compacted(self, payload: JSONObject, _location: Location) -> None:
        messages = lines.read_replacement(payload)
        summary = lines.text_at(payload, "message")
        self._begin_anew()
        if messages is not None:
            self._context.replace(messages)
        elif self._context.known:
            content = [{"type": "input_text", "text": summary}]
            self._context.replace([{"type": "message", "role": "user", "content": content}])

    def _reference(self, _payload: JSONObject, _location: Location) -> None:
        self._begin_anew()
        self._context.forget()

    def _event(self, payload: JSONObject, _location: Location) -> None:
        if (handle := self._events.get(lines.text_at(payload, "type"))) is not None:
            handle(payload)

    def _rolled_back(self, payload: JSONObject) -> None:
        turns = lines.read_turns(payload)
        self._begin_anew()
        self._context.roll_back(turns)

    def _response_item(self, payload: JSONObject, location: Location) -> None:
        item = lines.read_item(payload)
        if not lines.was_sent(item.raw):
            return
        if item.said:
            self._say(item, location)
        else:
            self._tell(item.raw)

    def _say(self, item: lines.ReadItem, location: Location) -> None:
        turn = self._turn
        if turn is not None and turn.ended:
            self._give_out(turn)
            turn = None
        if turn is None:
            turn = self._turn = Turn(location, self._model, self._copied)
            if self._usage is not None:
                turn.charge(self._usage)
                self._usage = None
        turn.items.append(item.raw)
        turn.blocks += item.blocks
        turn.time = self._time

    def _tell(self, message: JSONObject) -> None:
        if lines.is_abort(message):
            self._end(ABORTED)
        elif lines.is_asked(message):
            self._end("")
        if self._turn is None:
            self._context.add(message)
        else:
            self._turn.after.append(message)

    def _token_count(self, payload: JSONObject) -> None:
        told = lines.read_token_count(payload)
        if told is None or told.total == self._total:
            return
        self._total = told.total
        turn = self._turn
        if turn is None:
            self._usage = told.usage
        elif turn.usage is None:
            turn.charge(told.usage)
            self._give_out(turn)
        else:
            self._give_out(turn)
            self._usage = told.usage

    def _end(self, stop_reason: str) -> None:
        """End the turn; it is given out if its count is known."""
        self._usage = None
        if (turn := self._turn) is not None:
            turn.end(stop_reason)
            if turn.usage is not None:
                self._give_out(turn)

    def _begin_anew(self) -> None:
        """Give out the turn: something else begins."""
        self._usage = None
        if self._turn is not None:
            self._give_out(self._turn)

    def _give_out(self, turn: Turn) -> None:
        if not turn.copied:
            self._found.append(self._made(turn))
        self._context.add(tuple(turn.items))
        for message in turn.after:
            self._context.add(message)
        self._close()

    def _made(self, turn: Turn) -> Found:
        size, self._bytes = self._bytes, 0
        if not self._context.known or self._session is None:
            return Skipped(turn.location, Reason.HISTORY_MISSING)
        record = turn.record(self._session)
        raw = self._context.raw(record)
        try:
            return Draft(turn.location, self._context.open(record), raw, size)
        except RejectError as error:
            return refused(turn.location, error, raw())

    def _give_up(self, turn: Turn) -> None:
        self._found.append(refused(turn.location, too_large("the turn"), b""))
        self._context.lose()
        self._close()

    def _close(self) -> None:
        self._turn = None
        self._found += self._waiting
        self._waiting.clear()

    def _finish(self) -> None:
        turn = self._turn
        if turn is None:
            return
        if self._capture.finished and not self._open_end and self._total is None:
            self._give_out(turn)
            return
        if not turn.copied:
            record = turn.record(self._session)
            raw = self._context.raw(record)()
            self._found.append(Incomplete(turn.location, raw, Reason.INCOMPLETE_TURN))
        self._close()


FORMAT = SourceFormat(
    name="codex-rollout",
    title="Codex rollout",
    sign="`type` and `payload`",
    recognises=_is_rollout,
    lossy=True,
    read=_read,
)
