from __future__ import annotations

import gc
import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

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
from tapes_cli.model.turn import CaptureTime, Turn

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def turn(history: list[Message], response: Message) -> Turn:
    captured = CaptureTime(datetime(2026, 5, 1, tzinfo=UTC))
    return Turn("anthropic", history, response, captured, "small", "large")


def hashes(chain: Chain) -> list[str]:
    return [node.hash for node in chain.nodes]


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
    chain = ChainBuilder().build(turn(history, response))

    assert [node.message for node in chain.nodes] == [*history, response]
    assert [node.model for node in chain.nodes] == ["small", "small", "large"]
    assert [node.parent_hash for node in chain.nodes] == ["", *hashes(chain)[:-1]]
    assert chain.root.hash == node_hash("", "user", history[0].content)
    assert chain.head.hash == node_hash(chain.nodes[1].hash, "assistant", response.content)
    check_chain(chain.nodes)


def test_a_request_without_messages_gives_one_node() -> None:
    chain = ChainBuilder().build(turn([], said("c")))
    assert chain.root is chain.head
    assert chain.root.parent_hash == ""


def test_a_growing_history_is_hashed_once() -> None:
    builder = ChainBuilder()
    history: list[Message] = []
    for index in range(30):
        history.append(said(f"question {index}"))
        remembered = builder.build(turn(history[:], said(f"answer {index}")))
        assert hashes(remembered) == hashes(
            ChainBuilder().build(turn(history, said(f"answer {index}")))
        )
    assert builder.hashes_computed == 30 + 30


def test_two_conversations_that_take_turns_are_hashed_once_each() -> None:
    builder = ChainBuilder()
    shared = [said("shared")]
    branches = [shared + [said(f"{name}{i}") for i in range(20)] for name in "ab"]
    for length in range(1, 21):
        for branch in branches:
            builder.build(turn(branch[:length], said("answer")))
    assert builder.hashes_computed == 1 + 2 * 19 + 2 * 20


@given(st.lists(st.lists(st.integers(0, 3), max_size=4), max_size=6))
def test_what_is_remembered_never_shows(conversations: list[list[int]]) -> None:
    """The same messages in another place have another address, remembered or not."""
    messages = [said(str(index)) for index in range(4)]
    builder = ChainBuilder()
    for conversation in conversations:
        asked = turn([messages[index] for index in conversation], messages[0])
        assert hashes(builder.build(asked)) == hashes(ChainBuilder().build(asked))


def test_nothing_beyond_the_budget_is_remembered_longer_than_the_reader_does() -> None:
    builder = ChainBuilder(budget=0)
    builder.build(turn([said("a")], said("b")))
    gc.collect()
    assert len(builder._known) == 0


def nodes(*links: tuple[str, str]) -> Sequence[Node]:
    return [Node(address, parent, said("x"), "") for address, parent in links]


def test_a_sound_chain_passes() -> None:
    check_chain(nodes(("a", ""), ("b", "a"), ("c", "b")))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (nodes(), "empty"),
        (nodes(("a", "z")), "root .* has a parent"),
        (nodes(("a", ""), ("b", "")), "node 1 "),
        (nodes(("a", ""), ("b", "a"), ("c", "a")), "node 2 "),
    ],
)
def test_a_broken_chain_is_an_error(broken: Sequence[Node], message: str) -> None:
    with pytest.raises(ChainError, match=message):
        check_chain(broken)


def test_histories_that_begin_alike_are_told_apart() -> None:
    opening, one, other = (Message("user", [{"type": "text", "text": t}]) for t in "abc")
    builder = ChainBuilder()
    for history in ([opening, one], [opening, other], [opening], [opening, one, other], []):
        for model in ("m", "n"):
            turn = _turn(history, model)
            fresh = ChainBuilder().build(turn)
            chain = builder.build(turn)
            assert [(n.hash, n.parent_hash, n.model) for n in chain.nodes] == [
                (n.hash, n.parent_hash, n.model) for n in fresh.nodes
            ]


def test_chains_given_out_do_not_change_afterwards() -> None:
    messages = [Message("user", [{"type": "text", "text": t}]) for t in "abc"]
    builder = ChainBuilder()
    first = builder.build(_turn(messages[:1], "m"))
    before = list(first.nodes)
    builder.build(_turn(messages, "m"))
    assert first.nodes == before


def test_only_so_many_histories_are_remembered() -> None:
    builder = ChainBuilder(budget=1000)
    for number in range(100):
        message = Message("user", [{"type": "text", "text": f"{number}" * 50}])
        builder.build(_turn([message], "m"))
    assert len(builder._recent) < 10
    assert builder._bytes <= 1000


def _turn(history: list[Message], model: str) -> Turn:
    return Turn(
        provider="anthropic",
        history=history,
        response=Message("assistant", [{"type": "text", "text": "answer"}]),
        captured=CaptureTime(datetime(2025, 1, 1, tzinfo=UTC)),
        request_model=model,
    )
