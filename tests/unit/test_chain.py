from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from tapes_cli.merkle.canonical import CanonicalError
from tapes_cli.merkle.chain import (
    Chain,
    ChainBuilder,
    ChainError,
    Node,
    check_chain,
    node_hash,
)
from tapes_cli.merkle.projection import project_content
from tapes_cli.model.blocks import ContentBlock, Message
from tapes_cli.model.history import History
from tapes_cli.model.turn import CaptureTime, Turn

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
BLOCKS = st.fixed_dictionaries(
    {"type": TEXT},
    optional={
        "text": TEXT,
        "tool_name": TEXT,
        "is_error": st.booleans(),
        "tool_input": st.dictionaries(TEXT, st.none() | st.integers(-9, 9) | st.floats(0, 1)),
        "content": st.lists(st.floats(0, 1) | TEXT, max_size=2),
    },
)


def said(text: str, role: str = "user") -> Message:
    return Message(role, [{"type": "text", "text": text}])


def turn(history: History, response: Message, model: str = "small") -> Turn:
    captured = CaptureTime(datetime(2026, 5, 1, tzinfo=UTC))
    return Turn("anthropic", history, response, captured, model, "large")


def after(history: History, *fresh: Message, shared: int | None = None) -> History:
    """The history that goes on after so many messages of another one: all, unless told."""
    count = len(history) if shared is None else shared
    return History([*fresh], count, history.mark, lambda: history[:count])


def unread() -> list[Message]:
    raise AssertionError("nobody needs what is known")


def links(chain: Chain) -> list[tuple[str, str, str, str, Any]]:
    return [
        (node.hash, node.parent_hash, node.model, node.message.role, node.message.content)
        for node in chain.nodes
    ]


@given(st.sampled_from(["", "ab" * 32]), TEXT, st.lists(BLOCKS, max_size=3))
def test_a_hash_is_the_digest_of_the_canonical_bucket_and_parent(
    parent: str, role: str, content: Any
) -> None:
    blocks: list[ContentBlock] = content
    hashed: Any = {
        "parent": parent,
        "content": {"type": "message", "role": role, "content": project_content(blocks)},
    }
    assert node_hash(parent, role, blocks) == hashlib.sha256(rfc8785.dumps(hashed)).hexdigest()


def test_lone_surrogates_in_a_role_are_replaced() -> None:
    assert node_hash("", "a\ud800", []) == node_hash("", "a\ufffd", [])


def test_a_number_without_a_double_has_no_address() -> None:
    with pytest.raises(CanonicalError):
        node_hash("", "user", [{"type": "tool_use", "tool_input": {"k": 10**400}}])


def test_the_chain_of_a_turn() -> None:
    history = [said("a"), said("b", "assistant")]
    response = said("c", "assistant")
    chain = ChainBuilder().build(turn(History(history), response))

    assert [node.message for node in chain.nodes] == [*history, response]
    assert [node.model for node in chain.nodes] == ["small", "small", "large"]
    assert [node.parent_hash for node in chain.nodes] == ["", *chain.hashes[:-1]]
    assert chain.root_hash == node_hash("", "user", history[0].content)
    assert chain.head.hash == node_hash(chain.nodes[1].hash, "assistant", response.content)
    check_chain(chain)


def test_a_request_without_messages_gives_one_node() -> None:
    chain = ChainBuilder().build(turn(History([]), said("c")))
    assert len(chain) == 1
    assert chain.nodes == [chain.head]
    assert chain.root_hash == chain.head.hash == node_hash("", "user", said("c").content)
    assert chain.head.parent_hash == ""


def test_what_is_known_is_in_the_chain_like_the_rest() -> None:
    messages = [said("a"), said("b", "assistant"), said("c")]
    response = said("d", "assistant")
    builder = ChainBuilder()
    opening = History(messages[:2])
    builder.build(turn(opening, said("b2", "assistant")))
    chain = builder.build(turn(after(opening, messages[2]), response))
    whole = ChainBuilder().build(turn(History(messages), response))

    assert (len(chain.earlier), len(chain.fresh)) == (2, 2)
    assert len(chain) == len(whole) == 4
    assert chain.hashes == whole.hashes
    assert [chain.hash_at(index) for index in range(4)] == whole.hashes
    assert [chain.node(index) for index in range(4)] == chain.nodes
    assert links(chain) == links(whole)
    assert [node.message for node in chain.nodes] == [*messages, response]
    assert (chain.root_hash, chain.head) == (whole.root_hash, whole.nodes[-1])
    check_chain(chain)


def test_a_growing_history_is_hashed_once() -> None:
    builder = ChainBuilder()
    messages = [said("question")]
    history = History(messages[:])
    for index in range(30):
        chain = builder.build(turn(history, said(f"answer {index}")))
        anew = ChainBuilder().build(turn(History(messages), said(f"answer {index}")))
        assert chain.hashes == anew.hashes
        messages.append(said(f"question {index}"))
        history = History(messages[-1:], len(history), history.mark, unread)
    assert builder.hashes_computed == 30 + 30


def test_two_conversations_that_take_turns_are_hashed_once_each() -> None:
    builder = ChainBuilder()
    shared = History([said("shared")])
    builder.build(turn(shared, said("answer")))
    branches = dict.fromkeys("ab", shared)
    for number in range(20):
        for name, branch in branches.items():
            fresh = [said(f"{name}{number}")]
            branches[name] = History(fresh, len(branch), branch.mark, unread)
            builder.build(turn(branches[name], said("answer")))
    assert builder.hashes_computed == 1 + 2 * 20 + 1 + 2 * 20


def test_what_is_known_of_a_turn_that_was_never_chained_is_hashed_after_all() -> None:
    messages = [said(name) for name in "abc"]
    builder = ChainBuilder()
    never = History(messages[:2])
    history = after(never, messages[2])
    chain = builder.build(turn(history, said("d")))
    assert builder.hashes_computed == 4
    assert chain.earlier == chain.hashes[:2]
    assert links(chain) == links(ChainBuilder().build(turn(History(messages), said("d"))))
    again = History([said("e")], 3, history.mark, unread)
    builder.build(turn(again, said("f")))
    assert builder.hashes_computed == 6


def test_a_turn_without_an_address_leaves_no_addresses() -> None:
    sound = said("a")
    endless = Message("user", [{"type": "tool_use", "tool_input": {"k": 10**400}}])
    builder = ChainBuilder()
    broken = History([sound, endless])
    with pytest.raises(CanonicalError):
        builder.build(turn(broken, said("b")))
    chain = builder.build(turn(after(broken, said("c"), shared=1), said("d")))
    anew = ChainBuilder().build(turn(History([sound, said("c")]), said("d")))
    assert chain.hashes == anew.hashes


def test_what_is_remembered_goes_with_the_histories() -> None:
    builder = ChainBuilder()
    for number in range(100):
        builder.build(turn(History([said(f"{number}" * 50)]), said("answer")))
    assert vars(builder) == {"hashes_computed": 200}


requests = st.lists(
    st.tuples(
        st.integers(0, 9),  # which earlier history, if there are so many
        st.integers(0, 9),  # how many of its messages, if it has so many
        st.lists(st.sampled_from("abc"), max_size=3),
        st.booleans(),  # whether it is chained
    ),
    max_size=8,
)


@given(requests)
def test_what_is_remembered_never_shows(asked: list[tuple[int, int, list[str], bool]]) -> None:
    """The same messages in another place have another address, remembered or not."""
    builder = ChainBuilder()
    histories: list[tuple[History, list[Message]]] = []
    for which, shared, words, chained in asked:
        known, begun = histories[which % len(histories)] if histories else (History([]), [])
        count = min(shared, len(known))
        fresh = [said(word) for word in words]
        messages = [*begun[:count], *fresh]
        load = messages[:count].copy
        history = History(fresh, count, known.mark if count else None, load)
        histories.append((history, messages))
        if chained:
            chain = builder.build(turn(history, said("answer")))
            anew = ChainBuilder().build(turn(History(messages), said("answer")))
            assert links(chain) == links(anew)
            assert chain.hashes == anew.hashes


def chain_of(earlier: str, *linked: tuple[str, str]) -> Chain:
    messages = [said("x") for _ in [*earlier, *linked]]
    nodes = [Node(address, parent, said("x"), "") for address, parent in linked]
    return Chain(nodes, [*earlier], History(messages[:-1]), "")


@pytest.mark.parametrize(
    "sound",
    [
        chain_of("", ("a", "")),
        chain_of("", ("a", ""), ("b", "a"), ("c", "b")),
        chain_of("ab", ("c", "b"), ("d", "c")),
    ],
)
def test_a_sound_chain_passes(sound: Chain) -> None:
    check_chain(sound)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (chain_of(""), "empty"),
        (chain_of("a"), "empty"),
        (chain_of("", ("a", "z")), "root .* has a parent"),
        (chain_of("", ("a", ""), ("b", "")), "node 1 "),
        (chain_of("", ("a", ""), ("b", "a"), ("c", "a")), "node 2 "),
        (chain_of("a", ("b", "")), "node 1 "),
        (chain_of("ab", ("c", "a")), "node 2 "),
        (chain_of("ab", ("c", "b"), ("d", "b")), "node 3 "),
    ],
)
def test_a_broken_chain_is_an_error(broken: Chain, message: str) -> None:
    with pytest.raises(ChainError, match=message):
        check_chain(broken)


def test_a_chain_that_lost_its_root_is_an_error() -> None:
    chain = ChainBuilder().build(turn(History([said("a"), said("b")]), said("c")))
    with pytest.raises(ChainError):
        check_chain(replace(chain, fresh=chain.fresh[1:]))


def test_histories_that_begin_alike_are_told_apart() -> None:
    opening, one, other = (said(word) for word in "abc")
    builder = ChainBuilder()
    root = History([opening])
    builder.build(turn(root, said("answer")))
    long = after(root, one, other)
    builder.build(turn(long, said("answer")))
    expected = {
        after(root, one): [opening, one],
        after(root, other): [opening, other],
        after(root): [opening],
        after(long, shared=2): [opening, one],
        after(long, opening, shared=1): [opening, opening],
        after(long, shared=3): [opening, one, other],
        History([]): [],
    }
    for history, messages in expected.items():
        for model in ("m", "n"):
            chain = builder.build(turn(history, said("answer"), model))
            anew = ChainBuilder().build(turn(History(messages), said("answer"), model))
            assert links(chain) == links(anew)


def test_chains_given_out_do_not_change_afterwards() -> None:
    builder = ChainBuilder()
    first = History([said("a")])
    chain = builder.build(turn(first, said("d")))
    before = (links(chain), chain.hashes)
    second = after(first, said("b"), said("c"))
    longer = builder.build(turn(second, said("d")))
    assert (links(chain), chain.hashes) == before
    addresses = longer.hashes
    longer.earlier.clear()
    longer.fresh.clear()
    longer.hashes.clear()
    assert builder.build(turn(after(second), said("d"))).hashes == addresses
    assert (links(chain), chain.hashes) == before
