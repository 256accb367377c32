from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapes_cli.capture.history import MAX_HISTORIES, Histories
from tapes_cli.model.blocks import Message
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import RejectError

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = ("anthropic", "s")


class Parser:
    """Keeps a copy of what it was given, as text that shows types and order."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __call__(self, raw: Any, pointer: str) -> Message:
        self.calls.append(pointer)
        return Message("user", [{"type": "raw", "content": repr(raw)}])


def said(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "text", "text": text}]}


def used(**arguments: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "tool_use", "input": arguments}]}


def sent(raw: Any) -> Any:
    """Equal, but no object of it the same: as from another line."""
    return json.loads(json.dumps(raw))


def ask(histories: Histories, raw: list[Any], key: tuple[str, str] = KEY) -> list[Message]:
    return histories.messages(key, sent(raw), 100, Parser())


def test_what_is_sent_again_is_the_same_object() -> None:
    histories = Histories()
    turn = [said("a"), used(x="b")]
    first = ask(histories, turn)
    parser = Parser()
    second = histories.messages(KEY, sent([*turn, said("c"), said("d")]), 100, parser)
    assert second[0] is first[0]
    assert second[1] is first[1]
    assert parser.calls == ["/request/messages/2", "/request/messages/3"]
    assert ask(histories, turn) == first


def test_list_belongs_to_the_caller() -> None:
    histories = Histories()
    ask(histories, [said("a")]).clear()
    again = ask(histories, [said("a")])
    assert len(again) == 1
    again.clear()
    assert len(ask(histories, [said("a")])) == 1


def test_no_messages() -> None:
    assert ask(Histories(), []) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (used(x=True), used(x=1)),
        (used(x=1), used(x=1.0)),
        (used(x=0.0), used(x=-0.0)),
        (used(x=[{"y": False}]), used(x=[{"y": 0}])),
        (used(x=2**70, y=True), used(x=2**70, y=1)),
        (used(x="\ud800", y=True), used(x="\ud800", y=1)),
        (used(a="1", b="2"), used(b="2", a="1")),
        (said(text=True), said(text=1)),
        ({"role": "user", "content": 1}, {"role": "user", "content": True}),
        ([1], [True]),
        (1, True),
    ],
)
def test_what_python_calls_equal_need_not_be_the_same(one: Any, other: Any) -> None:
    assert one == other
    histories = Histories()
    first = ask(histories, [said("a"), one, said("b")])
    second = ask(histories, [said("a"), other, said("b")])
    assert second[0] is first[0]
    assert second[1] is not first[1]
    assert second[1].content[0]["content"] == repr(other)
    third = ask(histories, [said("a"), other, said("b")])
    assert third[1] is second[1]


def test_conversations_of_a_session_take_turns() -> None:
    histories = Histories()
    raws = [[said("same"), *(said(f"{n}.{i}") for i in range(9))] for n in range(MAX_HISTORIES)]
    firsts = [ask(histories, raw) for raw in raws]
    for raw, first in zip(raws, firsts, strict=True):
        parser = Parser()
        again = histories.messages(KEY, [*sent(raw), said("new")], 100, parser)
        assert len(parser.calls) == 1
        assert again[9] is first[9]


def test_stalest_conversation_is_forgotten() -> None:
    histories = Histories()
    first = ask(histories, [said("0")])
    for number in range(1, MAX_HISTORIES + 1):
        ask(histories, [said(str(number))])
    assert ask(histories, [said("0")])[0] is not first[0]


def test_rewritten_tail_replaces_the_conversation() -> None:
    histories = Histories()
    head = [said(str(n)) for n in range(9)]
    other = ask(histories, [said("other")])
    for number in range(2 * MAX_HISTORIES):
        ask(histories, [*head, said(f"marked {number}")])
    assert ask(histories, [said("other")])[0] is other[0]


def test_sessions_are_apart() -> None:
    histories = Histories()
    first = ask(histories, [said("a")], ("anthropic", "s"))
    assert ask(histories, [said("a")], ("openai", "s"))[0] is not first[0]
    assert ask(histories, [said("a")], ("anthropic", "t"))[0] is not first[0]


def test_budget_bounds_the_memory() -> None:
    histories = Histories(budget_bytes=1000)
    firsts = {name: ask(histories, [said("a")], ("p", name)) for name in "abcdefghij"}
    assert ask(histories, [said("a")], ("p", "a"))[0] is firsts["a"][0]
    ask(histories, [said("a")], ("p", "new"))
    assert ask(histories, [said("a")], ("p", "a"))[0] is firsts["a"][0]
    assert ask(histories, [said("a")], ("p", "b"))[0] is not firsts["b"][0]
    assert histories._spent <= 1000


def test_record_larger_than_the_budget_is_not_kept() -> None:
    histories = Histories(budget_bytes=99)
    assert ask(histories, [said("a")])[0] is not ask(histories, [said("a")])[0]
    assert histories._spent == 0
    assert not histories._sessions


def test_reject_leaves_no_trace() -> None:
    histories = Histories()
    first = ask(histories, [said("a")])

    def refuse(_raw: Any, pointer: str) -> Message:
        raise RejectError(Reason.REQUEST_INVALID, "no", pointer)

    with pytest.raises(RejectError) as caught:
        histories.messages(KEY, [said("a"), said("b")], 100, refuse)
    assert caught.value.pointer == "/request/messages/1"
    again = ask(histories, [said("a"), said("b")])
    assert len(again) == 2
    assert again[0] is first[0]


def nested(depth: int) -> Any:
    value: Any = "leaf"
    for _ in range(depth):
        value = [value]
    return value


def test_deep_messages_are_parsed_but_not_compared() -> None:
    histories = Histories()
    raw = [said("a"), said(nested(500)), said("b")]
    first = ask(histories, [said("a")])
    assert len(ask(histories, raw)) == 3
    again = ask(histories, raw)
    assert len(again) == 3
    assert again[0] is first[0]
    assert len(ask(Histories(), raw)) == 3
    with pytest.raises(RejectError) as caught:
        histories.messages(KEY, [said("a"), said(nested(1000))], 100, Parser())
    assert caught.value.reason is Reason.NESTING_TOO_DEEP
    assert caught.value.pointer == "/request/messages/1"


messages = st.sampled_from(
    [
        said("a"),
        said("b"),
        said(1),
        said(text=True),
        said(1.0),
        used(a="1", b="2"),
        used(b="2", a="1"),
        used(x=[True]),
        used(x=[1]),
        None,
        "x",
        [said("a")],
    ]
)
keys = st.sampled_from([("p", "s"), ("p", "t")])


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(keys, st.lists(messages, max_size=7)), max_size=25),
    st.sampled_from([0, 250, 1 << 20]),
)
def test_same_as_parsing_everything_anew(
    requests: list[tuple[tuple[str, str], list[Any]]], budget: int
) -> None:
    histories = Histories(budget)
    shown: Callable[[list[Message]], list[Any]] = lambda ms: [m.content for m in ms]  # noqa: E731  short
    for key, raw in requests:
        expected = [Parser()(item, "") for item in raw]
        assert shown(ask(histories, raw, key)) == shown(expected)
        known = [h for kept in histories._sessions.values() for h in kept]
        assert histories._spent == sum(h.cost for h in known) <= budget
        assert all(len(h.raw) == len(h.messages) for h in known)
