"""A Claude Code transcript, read once: where its messages are, and what belongs to them.

What is found at a place depends on nothing behind it, apart from the lines of a message until it
is over. So a session that has grown gives the same turns as before, and more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from tapes_cli.capture.decode import dump, too_deep
from tapes_cli.capture.formats.claude_code_lines import (
    Answer,
    Note,
    Prompt,
    Stem,
    Title,
    record_of,
    results_in,
    said_by,
    stem_of,
)
from tapes_cli.capture.sources import SourceReadError
from tapes_cli.capture.values import is_cut_short, pieces_of
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import RejectError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapes_cli.capture.lines import Line
    from tapes_cli.capture.spool import Piece, Spool

MAX_TITLE_LENGTH = 1000
"""Longer titles, in characters, are none."""

MAIN = ""
"""The thread of the session itself."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a line begins, and how long it is: its number from 1, bytes from 0."""

    line: int
    byte_offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Bad:
    """A line that is no line of a transcript. `piece` holds its bytes."""

    place: Place
    error: RejectError
    piece: Piece


@dataclass(frozen=True, slots=True)
class CutShort:
    """A last line that somebody is still writing. `piece` holds what there is of it."""

    place: Place
    piece: Piece


@dataclass(frozen=True, slots=True)
class Restart:
    """The place where a thread forgets what was said so far."""

    thread: str


@dataclass(frozen=True, slots=True)
class Heard:
    """Something that is said to the model. `piece` holds its content."""

    thread: str
    place: Place
    piece: Piece


@dataclass(slots=True)
class Spoken:
    """A message of the model, at the place of its first line.

    Attributes:
        thread: `MAIN`, or what tells a sub-agent's thread from others of the session.
        session: the id of the session.
        place: where its first line is.
        name: what the session is called by then.
        synthetic: whether no model has said it.
        orphan: whether what was said before it, or a line of its own, is not in the file.
        bad: in how many places before it nobody knows what there is.
        over: whether a later line proves that no more lines of it can come.
        results: the ids of the calls whose results came before that.
        pieces: the bodies of its lines: see `Answer`.
        size: bytes of its lines.
    """

    thread: str
    session: str
    place: Place
    name: str
    synthetic: bool
    orphan: bool
    bad: int
    over: bool = False
    results: set[str] = field(default_factory=set)
    pieces: list[Piece] = field(default_factory=list)
    size: int = 0


Event: TypeAlias = Bad | CutShort | Restart | Heard | Spoken


@dataclass(frozen=True, slots=True, eq=False)
class _Origin:
    """A line from which others descend.

    `thread` is what tells the descendants apart where they are an unnamed sub-agent's; `whole` is
    whether nothing was said before it; `lost` is whether the line that it follows is not in the
    file so far.
    """

    thread: str
    side: bool
    whole: bool
    lost: bool


@dataclass(slots=True)
class _Thread:
    """The state of a thread while its lines are read."""

    key: str
    origin: _Origin | None = None
    orphan: bool = False
    current: Spoken | None = None
    current_id: str = ""
    over: set[str] = field(default_factory=set)
    holes: set[_Origin] = field(default_factory=set)

    def leave_hole(self, origin: _Origin) -> None:
        """Note that something is missing: the message that is not over yet may lack it, too."""
        self.holes.add(origin)
        self.orphan = True
        if self.current is not None:
            self.current.orphan = True

    def close(self) -> None:
        """Note that the message that was spoken last is over."""
        if self.current is not None:
            self.current.over = True
            self.current.results.clear()
            self.over.add(self.current_id)
            self.current = None


class _Family:
    """The lines seen so far, by their ids, and what they descend from."""

    def __init__(self) -> None:
        self._origins: dict[str, _Origin] = {}

    def __contains__(self, uuid: str) -> bool:
        """Whether a line with this id was seen."""
        return uuid in self._origins

    def take(self, stem: Stem) -> _Origin:
        """Note a line, if it has an id. Return what it descends from."""
        origin = self._origins.get(stem.uuid) or self._origin(stem)
        if stem.uuid:
            self._origins[stem.uuid] = origin
        return origin

    def _origin(self, stem: Stem) -> _Origin:
        parent = self._origins.get(stem.parent)
        if parent is not None and parent.side == stem.side:
            return parent
        # A sub-agent that a line of the session starts begins there.
        whole = stem.root or (stem.side and parent is not None and parent.whole)
        lost = bool(stem.parent) and parent is None
        return _Origin(stem.uuid if stem.side else MAIN, stem.side, whole, lost)


class _Titles:
    """What sessions are called, by the lines read so far."""

    def __init__(self) -> None:
        self._sessions: dict[str, str] = {}
        self._names: dict[tuple[str, str], str] = {}
        self._waiting: dict[str, str] = {}

    def met(self, stem: Stem) -> None:
        """Note the session of a line: a summary names it by one of its lines."""
        if not stem.uuid or not stem.session:
            return
        session = self._sessions.setdefault(stem.session, stem.session)
        self._sessions[stem.uuid] = session
        if (text := self._waiting.pop(stem.uuid, None)) is not None:
            self._names["summary", session] = text

    def take(self, title: Title, session: str) -> None:
        """Note a title."""
        if len(title.text) > MAX_TITLE_LENGTH:
            return
        if title.kind != "summary":
            self._names[title.kind, session] = title.text
        elif (found := self._sessions.get(title.leaf)) is not None:
            self._names["summary", found] = title.text
        else:
            self._waiting[title.leaf] = title.text

    def of(self, session: str) -> str:
        """Return the name of a session: the user's own before the harness's, else nothing."""
        kinds = ("custom-title", "ai-title", "summary")
        return next(filter(None, (self._names.get((kind, session)) for kind in kinds)), "")


class Index:
    """What is in a transcript, in the order of places.

    Memory grows by a few hundred bytes a line: contents are in the spool.

    Attributes:
        events: what was found.
        damage: why the source could not be read to its end, if so.
        bad: in how many places, including a damage, nobody knows what there is.
    """

    def __init__(self, spool: Spool) -> None:
        self.events: list[Event] = []
        self.damage: SourceReadError | None = None
        self.bad = 0
        self._spool = spool
        self._family = _Family()
        self._titles = _Titles()
        self._threads: dict[str, _Thread] = {}
        # Lines whose sound copies are not to be taken for repetitions.
        self._bad: set[str] = set()

    def read(self, lines: Iterator[Line]) -> None:
        """Take all lines of a source, up to where it can be read."""
        try:
            for line in lines:
                self._line(line)
        except SourceReadError as error:
            self.damage = error
            self.bad += 1

    def _line(self, line: Line) -> None:
        place = Place(line.number, line.byte_offset, len(line.data))
        try:
            self._record(line, place)
        except RejectError as error:
            pieces = pieces_of(line, error)
            if len(pieces) > 1:
                for piece in pieces:
                    self._line(piece)
                return
            kept = self._spool.write(line.data)
            self.bad += 1
            if is_cut_short(line, error):
                self.events.append(CutShort(place, kept))
            else:
                self.events.append(Bad(place, error, kept))
        except RecursionError:
            self.bad += 1
            self.events.append(Bad(place, too_deep(), self._spool.write(line.data)))

    def _record(self, line: Line, place: Place) -> None:
        if line.too_long:
            raise RejectError(Reason.LINE_TOO_LONG, "the line is longer than the limit")
        record = record_of(line.data)
        stem = stem_of(record)
        if stem.uuid in self._family and stem.uuid not in self._bad:
            # The same line, written again.
            return
        origin = self._family.take(stem)
        self._titles.met(stem)
        try:
            said = said_by(record, line.data)
            self._take(said, stem, origin, place)
        except (RejectError, RecursionError):
            self._bad.add(stem.uuid)
            raise
        self._bad.discard(stem.uuid)

    def _take(
        self, said: Answer | Prompt | Note | Title, stem: Stem, origin: _Origin, place: Place
    ) -> None:
        if isinstance(said, Title):
            self._titles.take(said, stem.session)
        elif isinstance(said, Note):
            self._note(said, stem, origin)
        elif isinstance(said, Prompt):
            self._prompt(said, self._thread(stem, origin), origin, place)
        else:
            self._answer(said, stem, origin, place)

    def _note(self, note: Note, stem: Stem, origin: _Origin) -> None:
        if not note.ends:
            return
        thread = self._thread(stem, origin)
        thread.close()
        if note.compacts:
            self._restart(thread, origin)

    def _prompt(self, prompt: Prompt, thread: _Thread, origin: _Origin, place: Place) -> None:
        if not prompt.sent:
            return
        kept = dump(prompt.content)
        self._look_for_hole(thread, origin)
        if thread.current is not None:
            thread.current.results |= results_in(prompt.content)
        if prompt.ends:
            thread.close()
        if prompt.summary:
            self._restart(thread, origin)
        else:
            self._descend(thread, origin)
        if not thread.orphan:
            self.events.append(Heard(thread.key, place, self._spool.write(kept)))

    def _answer(self, answer: Answer, stem: Stem, origin: _Origin, place: Place) -> None:
        thread = self._thread(stem, origin)
        if answer.message_id in thread.over:
            raise RejectError(
                Reason.LINE_INVALID,
                "the line goes on with a message that is over by then",
                "/message/id",
            )
        kept = dump(answer.body)
        self._look_for_hole(thread, origin)
        if thread.current is None or thread.current_id != answer.message_id:
            thread.close()
            self._descend(thread, origin)
            spoken = Spoken(
                thread=thread.key,
                session=stem.session,
                place=place,
                name=self._titles.of(stem.session) if thread.key == MAIN else "",
                synthetic=answer.synthetic,
                orphan=thread.orphan,
                bad=self.bad,
            )
            self.events.append(spoken)
            thread.current, thread.current_id = spoken, answer.message_id
        thread.current.pieces.append(self._spool.write(kept))
        thread.current.size += place.length

    def _thread(self, stem: Stem, origin: _Origin) -> _Thread:
        """Return the thread of a line.

        Raises:
            RejectError: the line is a sub-agent's, but nothing says which one's.
        """
        key = MAIN
        if stem.side:
            key = f"agent-{stem.agent}" if stem.agent else origin.thread
            if not key:
                raise RejectError(
                    Reason.LINE_INVALID, "uuid and agentId of a sub-agent's line are missing"
                )
        thread = self._threads.get(key)
        if thread is None:
            thread = self._threads[key] = _Thread(key)
        return thread

    def _look_for_hole(self, thread: _Thread, origin: _Origin) -> None:
        if origin.lost and origin not in thread.holes:
            thread.leave_hole(origin)

    def _descend(self, thread: _Thread, origin: _Origin) -> None:
        """Forget what was said if a line begins anew, and not by chance in the middle."""
        if thread.origin is None:
            thread.origin, thread.orphan = origin, not origin.whole
        elif origin.whole and origin is not thread.origin:
            self._restart(thread, origin)

    def _restart(self, thread: _Thread, origin: _Origin) -> None:
        thread.origin, thread.orphan = origin, False
        self.events.append(Restart(thread.key))
