"""Titles, cursors, and the branches in which a session's messages are read."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapes_cli.errors import UsageError
from tapes_cli.inspection.sessions import (
    format_cursor,
    lay_out,
    parse_cursor,
    short_id,
    title_of,
)
from tapes_cli.store.postgres.queries import NodeRow, SessionRow

if TYPE_CHECKING:
    from collections.abc import Sequence

EPOCH = datetime(2025, 1, 1, tzinfo=UTC)
SESSION = SessionRow(
    org_id=UUID(int=0),
    id=UUID("01a2057a-55ba-7552-896f-2bcc70c199b4"),
    harness_id="claude",
    harness_session_id="s1",
    name=None,
    cwd=None,
    harness_version=None,
    parent_session_id=None,
    started_at=EPOCH,
    last_seen_at=EPOCH,
    turn_count=1,
    total_input_tokens=0,
    total_output_tokens=0,
    placeholder=False,
)


def node(name: str, parent: str | None = None, at: int = 0) -> NodeRow:
    moment = EPOCH + timedelta(seconds=at)
    return NodeRow(name, parent, "user", [], "", moment, SESSION.id, None)


def shape(nodes: Sequence[NodeRow]) -> list[tuple[str, int, int | None]]:
    """Return the branches: names of their nodes, first position, the branch they left."""
    return [
        ("".join(n.hash for n in branch.nodes), branch.first_position, branch.from_branch)
        for branch in lay_out(nodes)
    ]


def test_a_chain_is_one_branch() -> None:
    assert shape([node("c", "b", 1), node("a"), node("b", "a", 1)]) == [("abc", 1, None)]


def test_a_fork_goes_on_with_the_earlier_message_and_names_where_the_other_left() -> None:
    nodes = [node("a"), node("b", "a"), node("x", "b", 9), node("c", "b", 5), node("y", "x", 9)]
    assert shape(nodes) == [("abc", 1, None), ("xy", 3, 1)]


def test_branches_stand_in_the_order_of_their_capture() -> None:
    nodes = [node("a"), node("b", "a", 1), node("x", "a", 7), node("r", None, 3), node("s", "x", 8)]
    nodes.append(node("t", "x", 9))
    assert shape(nodes) == [("ab", 1, None), ("r", 1, None), ("xs", 2, 1), ("t", 3, 3)]


def test_a_branch_never_stands_before_the_one_it_left() -> None:
    nodes = [node("a", None, 9), node("b", "a", 1), node("c", "a", 2)]
    assert shape(nodes) == [("ab", 1, None), ("c", 2, 1)]


def test_a_message_whose_parent_is_gone_begins_a_branch_and_says_so() -> None:
    (whole, torn) = lay_out([node("a"), node("b", "gone", 1)])
    assert not whole.parent_missing
    assert torn.parent_missing


def test_no_messages_no_branches() -> None:
    assert lay_out([]) == ()


def test_a_very_long_conversation_is_laid_out() -> None:
    nodes = [node(str(i), str(i - 1) if i else None, i) for i in range(20_000)]
    (branch,) = lay_out(nodes)
    assert len(branch.nodes) == 20_000


@st.composite
def forests(draw: st.DrawFn) -> list[NodeRow]:
    nodes = []
    for number in range(draw(st.integers(0, 25))):
        parent = draw(st.none() | st.integers(-1, number - 1))
        at = draw(st.integers(0, 3))
        nodes.append(node(str(number), None if parent is None else str(parent), at))
    return nodes


@given(nodes=forests(), data=st.data())
def test_every_message_stands_in_one_branch_below_its_parent(
    nodes: list[NodeRow], data: st.DataObject
) -> None:
    branches = lay_out(nodes)
    assert sorted(n.hash for b in branches for n in b.nodes) == sorted(n.hash for n in nodes)
    placed: dict[str | None, tuple[int, int]] = {}
    for branch in branches:
        for index, found in enumerate(branch.nodes):
            if index:
                assert found.parent_hash == branch.nodes[index - 1].hash
            elif branch.from_branch is not None:
                left = (branch.from_branch, branch.first_position - 1)
                assert placed[found.parent_hash] == left
            placed[found.hash] = (branch.number, branch.first_position + index)
    assert lay_out(data.draw(st.permutations(nodes))) == branches


@pytest.mark.parametrize(
    ("name", "said", "title"),
    [
        ("A name", ["words"], "A name"),
        ("  ", ["words"], "words"),
        (None, ["first\nsecond"], "first"),
        (None, ["<system-reminder>no</system-reminder>", "yes"], "yes"),
        (None, ["<session>\n  the prompt\n</session>"], "the prompt"),
        (None, ["", "\n", "<x>"], ""),
        (None, [], ""),
    ],
)
def test_the_title_is_the_name_or_what_the_user_said_first(
    name: str | None, said: list[str], title: str
) -> None:
    assert title_of(replace(SESSION, name=name), said) == title


@given(
    st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5))])),
    st.uuids(),
)
def test_a_cursor_says_where_the_page_ended(at: datetime, session_id: UUID) -> None:
    row = replace(SESSION, last_seen_at=at, id=session_id)
    assert parse_cursor(format_cursor(row)) == (at, session_id)


@pytest.mark.parametrize("text", ["x", "2025-01-01_x", f"_{SESSION.id}", "2025-01-01"])
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--cursor"):
        parse_cursor(text)


def test_a_cursor_without_a_zone_is_utc() -> None:
    assert parse_cursor(f"2025-01-01_{SESSION.id}") == (EPOCH, SESSION.id)


def test_a_short_id_is_the_end_of_the_id() -> None:
    assert str(SESSION.id).endswith(short_id(SESSION.id))
    assert len(short_id(SESSION.id)) == 8
