"""Sessions and their conversations: found, given titles, laid out to be read.

The nodes of a session form trees. A tree is read as branches: each begins at a root, or where it
left an earlier branch, and ends at a leaf, so that no message is shown twice.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from heapq import heappop, heappush
from typing import TYPE_CHECKING
from uuid import UUID

from tapes_cli.errors import UsageError
from tapes_cli.merkle.projection import project_text
from tapes_cli.store.postgres.queries import MOST_CANDIDATES, SessionFilter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tapes_cli.store.postgres.queries import NodeRow, Queries, SessionRow

PAGE_SIZE = 500
"""Sessions that are read at once where all are wanted."""

ID_DIGITS = 8
"""Hex digits at the end of a session's id by which people name it.

The beginning of a UUIDv7 is a time and tells the sessions of one import hardly apart.
"""

_CURSOR_SEPARATOR = "_"
_TAG_ALONE = re.compile(r"</?[\w-]+>")


@dataclass(frozen=True, slots=True)
class ListedSession:
    """A session with a title: its name, else the first line that the user said, else empty."""

    row: SessionRow
    title: str


@dataclass(frozen=True, slots=True)
class SessionPage:
    """Sessions, newest activity first. `next_cursor` is empty on the last page."""

    sessions: tuple[ListedSession, ...]
    next_cursor: str


@dataclass(frozen=True, slots=True)
class Branch:
    """A line of messages that stand below each other, the upmost first.

    Attributes:
        number: its place among the branches, from 1.
        nodes: the messages that no earlier branch has.
        first_position: the place of its first message in the conversation, from 1.
        from_branch: the number of the branch that it left after message `first_position` - 1, or
            None for a conversation of its own.
    """

    number: int
    nodes: tuple[NodeRow, ...]
    first_position: int
    from_branch: int | None

    @property
    def parent_missing(self) -> bool:
        """Whether it goes on from a message that is not in the database."""
        return self.from_branch is None and self.nodes[0].parent_hash is not None


@dataclass(frozen=True, slots=True)
class Conversation:
    """A session with everything that was said in it.

    Attributes:
        session: the session, with its title.
        parent: the session that it names as its parent.
        children: the sessions that name it as theirs, the oldest first.
        owners: other sessions that own part of the history, by id.
        models: the models that answered in the session's turns, in order of appearance.
        branches: the messages.
    """

    session: ListedSession
    parent: SessionRow | None
    children: tuple[SessionRow, ...]
    owners: dict[UUID, SessionRow]
    models: tuple[str, ...]
    branches: tuple[Branch, ...]


def short_id(session_id: UUID) -> str:
    """Return the end of a session's id, enough for people to name it."""
    return session_id.hex[-ID_DIGITS:]


def list_sessions(queries: Queries, chosen: SessionFilter, limit: int | None) -> SessionPage:
    """Return sessions, newest activity first: a page of so many, or all where `limit` is None."""
    if limit is None:
        return SessionPage(tuple(_all_sessions(queries, chosen)), "")
    rows = queries.sessions(chosen, limit + 1)
    cursor = format_cursor(rows[limit - 1]) if len(rows) > limit else ""
    return SessionPage(tuple(_with_titles(queries, rows[:limit])), cursor)


def _all_sessions(queries: Queries, chosen: SessionFilter) -> Iterator[ListedSession]:
    while rows := queries.sessions(chosen, PAGE_SIZE):
        yield from _with_titles(queries, rows)
        chosen = chosen.following(rows[-1])


def format_cursor(row: SessionRow) -> str:
    """Return the cursor of the page that follows this row."""
    return f"{row.last_seen_at.isoformat()}{_CURSOR_SEPARATOR}{row.id}"


def parse_cursor(text: str) -> tuple[datetime, UUID]:
    """Return where the page before ended: last activity and id.

    Raises:
        UsageError: the text is no cursor.
    """
    moment, _, session_id = text.partition(_CURSOR_SEPARATOR)
    try:
        at = datetime.fromisoformat(moment)
        return at if at.tzinfo else at.replace(tzinfo=UTC), UUID(session_id)
    except ValueError:
        raise UsageError(
            "--cursor is not one that `sessions list` has given.",
            hint="Copy next_cursor of the page before, or leave the option out.",
        ) from None


def title_of(row: SessionRow, said: Iterable[str]) -> str:
    """Return the session's name, else the first line that the user said, else nothing.

    What a harness puts into a user's message is not the user's and is left out, and so are lines
    that hold nothing but a tag.
    """
    if row.name and row.name.strip():
        return row.name.strip()
    for text in said:
        for line in project_text(text).split("\n"):
            if line.strip() and not _TAG_ALONE.fullmatch(line.strip()):
                return line.strip()
    return ""


def _with_titles(queries: Queries, rows: Sequence[SessionRow]) -> Iterator[ListedSession]:
    nameless: dict[UUID, list[UUID]] = defaultdict(list)
    for row in rows:
        if not row.name and row.turn_count:
            nameless[row.org_id].append(row.id)
    openings = {org_id: queries.openings(org_id, ids) for org_id, ids in nameless.items()}
    for row in rows:
        yield ListedSession(row, title_of(row, openings.get(row.org_id, {}).get(row.id, ())))


def find_session(queries: Queries, name: str, chosen: SessionFilter) -> SessionRow:
    """Return the session that is meant: by id, harness session id, or beginning or end of one.

    Raises:
        UsageError: there is no such session, or there are several.
    """
    found = queries.find(name, chosen) if name else []
    if not found:
        raise UsageError(
            f"There is no session {name!r}.",
            hint="Run tapes-cli sessions list to see which there are; an id, a harness session id, "
            "or the beginning or end of either will do.",
        )
    if len(found) > 1:
        raise UsageError(
            f"{name!r} may mean several sessions: {_candidates(found)}.",
            hint="Use a whole id, or narrow it down with --org or --harness.",
        )
    return found[0]


def _candidates(found: Sequence[SessionRow]) -> str:
    shown = [f"{row.id} ({row.harness_id})" for row in found[: MOST_CANDIDATES - 1]]
    if len(found) == MOST_CANDIDATES:
        shown.append("and more")
    return ", ".join(shown)


def read_conversation(queries: Queries, session: SessionRow) -> Conversation:
    """Return the session's relatives and everything that was said in it."""
    branches = lay_out(queries.conversation(session))
    nodes = [node for branch in branches for node in branch.nodes]
    wanted = {node.session_id for node in nodes} | {session.parent_session_id}
    rows = queries.relatives(session, [i for i in wanted if i is not None])
    known = {row.id: row for row in rows}
    (listed,) = _with_titles(queries, [session])
    return Conversation(
        session=listed,
        parent=known.get(session.parent_session_id) if session.parent_session_id else None,
        children=tuple(row for row in rows if row.parent_session_id == session.id),
        owners={row.id: row for row in rows if row.id in wanted},
        models=_models(session, nodes),
        branches=branches,
    )


def _models(session: SessionRow, nodes: Iterable[NodeRow]) -> tuple[str, ...]:
    answered = (n.model for n in nodes if n.turn and n.turn.session_id == session.id and n.model)
    return tuple(dict.fromkeys(answered))


def lay_out(nodes: Sequence[NodeRow]) -> tuple[Branch, ...]:
    """Arrange nodes, in whatever order they come, into branches, each node in exactly one.

    Where messages follow the same one, the branch goes on with the one captured first; each of
    the others begins a branch. Branches stand in the order in which they were captured, but
    never before the one that they left.
    """
    here = {node.hash for node in nodes}
    following: dict[str | None, list[NodeRow]] = defaultdict(list)
    for node in sorted(nodes, key=_age):
        following[node.parent_hash if node.parent_hash in here else None].append(node)
    # The hash settles equal ages, so nodes themselves are never compared.
    waiting: list[tuple[tuple[datetime, str], NodeRow, int, int | None]] = []
    for root in following[None]:
        heappush(waiting, (_age(root), root, 1, None))
    branches: list[Branch] = []
    while waiting:
        _, first, position, from_branch = heappop(waiting)
        number = len(branches) + 1
        line = [first]
        while after := following.get(line[-1].hash):
            for other in after[1:]:
                heappush(waiting, (_age(other), other, position + len(line), number))
            line.append(after[0])
        branches.append(Branch(number, tuple(line), position, from_branch))
    return tuple(branches)


def _age(node: NodeRow) -> tuple[datetime, str]:
    return node.created_at, node.hash
