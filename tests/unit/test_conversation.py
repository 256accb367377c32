from __future__ import annotations

import gc
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapes_cli.capture.conversation import Conversation
from tapes_cli.capture.formats.turn_records import TurnParser
from tapes_cli.capture.history import OpenedRecord
from tapes_cli.capture.providers import PROVIDERS
from tapes_cli.capture.spool import Piece, Spool
from tapes_cli.capture.times import Fallback
from tapes_cli.merkle.chain import ChainBuilder
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import RejectError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapes_cli.model.history import History

RESPONSE = {"message": {"role": "assistant", "content": [{"type": "text", "text": "ok"}]}}
RECORD = {"provider": "anthropic", "request": {"model": "m"}, "response": RESPONSE}
FALLBACK = Fallback(None)
LARGE = 2**70 + 1


def conversation(most: int = 1 << 20, spool: Spool | None = None) -> Conversation:
    return Conversation(PROVIDERS["anthropic"], "messages", spool or Spool(), most)


def chain(opened: OpenedRecord, builder: ChainBuilder | None = None) -> list[str]:
    return (builder or ChainBuilder()).build(TurnParser().parse(opened, FALLBACK)).hashes


def whole(messages: list[Any]) -> list[str]:
    """The chain of a turn record that has all of its messages."""
    return chain(OpenedRecord({**RECORD, "request": {"model": "m", "messages": messages}}))


steps = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.text(max_size=5)),
        st.tuples(st.just("turn"), st.just("")),
        st.tuples(st.just("keep"), st.integers(0, 4)),
    ),
    max_size=25,
)


@settings(deadline=None)
@given(steps, st.booleans())
def test_every_turn_is_as_if_its_record_had_all_messages(
    doings: list[tuple[str, Any]],
    one_builder: bool,  # noqa: FBT001  # hypothesis names it
) -> None:
    talk, builder = conversation(), ChainBuilder()
    said: list[Any] = []
    made: list[tuple[list[Any], Callable[[], bytes], History]] = []
    for kind, value in doings:
        if kind == "say":
            message = {"role": "user", "content": value}
            talk.append(message)
            said.append(message)
        elif kind == "keep":
            talk.keep(value)
            said = said[:value]
        else:
            raw, opened = talk.raw(RECORD), talk.open(RECORD)
            assert chain(opened, builder if one_builder else None) == whole(said)
            assert opened.history is not None
            made.append(([*said], raw, opened.history))
        assert len(talk) == len(said)
    for messages, raw, history in made:
        assert json.loads(raw()) == {**RECORD, "request": {"model": "m", "messages": messages}}
        assert [m.content[0]["text"] for m in history] == [m["content"] for m in messages]


def test_what_is_rolled_back_costs_what_it_is_long() -> None:
    talk = conversation()
    for number in range(10):
        talk.append({"role": "user", "content": str(number)})
    raw = talk.raw(RECORD)
    entries = talk._entries
    for _ in range(3):
        talk.append({"role": "user", "content": "more"})
        talk.keep(10)
    assert talk._entries is entries
    # Nobody looks at the copy that this makes, so it is the last one.
    talk.keep(9)
    entries = talk._entries
    talk.keep(5)
    assert talk._entries is entries
    assert len(json.loads(raw())["request"]["messages"]) == 10


def test_histories_see_what_they_saw() -> None:
    talk = conversation()
    for number in range(4):
        talk.append({"role": "user", "content": str(number)})
    talk.open(RECORD)
    history = talk.open(RECORD).history
    talk.keep(1)
    talk.append({"role": "user", "content": "another"})
    assert history is not None
    assert [message.content[0]["text"] for message in history] == [*"0123"]


def test_what_is_rolled_back_makes_room() -> None:
    talk = conversation(100)
    for _ in range(5):
        talk.append({"role": "user", "content": "x" * 20})
        talk.append({"role": "user", "content": "y" * 10})
        talk.check()
        talk.keep(1)
        talk.keep(0)
    assert talk.reserve(100)
    assert not talk.reserve(101)
    with pytest.raises(RejectError):
        talk.check()


def test_a_message_is_hashed_once() -> None:
    talk, builder = conversation(), ChainBuilder()
    for turn in range(50):
        talk.append({"role": "user", "content": str(turn)})
        chain(talk.open(RECORD), builder)
    assert builder.hashes_computed == 100


def test_only_what_is_asked_for_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool()
    talk = conversation(spool=spool)
    for number in range(20):
        talk.append({"role": "user", "content": str(number)})
    talk.open(RECORD)
    history = talk.open(RECORD).history
    assert history is not None
    read, reads = Spool.read, []

    def counted(self: Spool, piece: Piece) -> bytes:
        reads.append(piece)
        return read(self, piece)

    monkeypatch.setattr(Spool, "read", counted)
    assert history[7].content[0]["text"] == "7"
    assert [message.content[0]["text"] for message in history.earlier()[3:5]] == ["3", "4"]
    assert len(reads) == 3
    with pytest.raises(IndexError):
        history.earlier()[20]


def test_raw_is_what_it_was_when_the_turn_was_made() -> None:
    talk = conversation()
    talk.append({"role": "user", "content": "a"})
    raw = talk.raw(RECORD)
    talk.append({"role": "user", "content": "b"})
    talk.keep(0)
    assert [m["content"] for m in json.loads(raw())["request"]["messages"]] == ["a"]


def test_large_integers_are_kept() -> None:
    talk = conversation()
    call = {"type": "tool_use", "id": "i", "name": "n", "input": {"a": LARGE}}
    talk.append({"role": "assistant", "content": [call]})
    assert json.loads(talk.raw(RECORD)())["request"]["messages"][0]["content"] == [call]
    talk.open(RECORD)
    history = talk.open(RECORD).history
    assert history is not None
    assert history[0].content[0]["tool_input"] == {"a": LARGE}


def test_items_in_a_row_are_one_message() -> None:
    record = {**RECORD, "provider": "openai"}
    talk = Conversation(PROVIDERS["openai"], "input", Spool())
    items = [
        {"type": "function_call", "call_id": "c", "name": "n", "arguments": "{}"},
        {"type": "function_call", "call_id": "d", "name": "n", "arguments": "{}"},
    ]
    talk.append({"role": "user", "content": "a"})
    talk.append(tuple(items))
    raw = talk.raw(record)
    talk.open(record)
    history = talk.open(record).history
    assert history is not None
    assert [len(message.content) for message in history] == [1, 2]
    assert json.loads(raw())["request"]["input"][1:] == items


def test_a_history_that_is_too_large_is_a_reject_until_it_begins_again() -> None:
    talk = conversation(100)
    talk.append({"role": "user", "content": "x" * 60})
    talk.open(RECORD)
    talk.append({"role": "user", "content": "x" * 60})
    with pytest.raises(RejectError) as caught:
        talk.open(RECORD)
    assert caught.value.reason is Reason.HISTORY_TOO_LARGE
    talk.append({"role": "user", "content": "late"})
    with pytest.raises(RejectError):
        talk.open(RECORD)
    talk.keep(0)
    talk.append({"role": "user", "content": "new"})
    assert chain(talk.open(RECORD)) == whole([{"role": "user", "content": "new"}])


def test_a_message_that_is_refused_is_left_out() -> None:
    talk = conversation()
    with pytest.raises(RejectError):
        talk.append({"role": 5})
    assert len(talk) == 0
    talk.append({"role": "user", "content": "a"})
    assert chain(talk.open(RECORD)) == whole([{"role": "user", "content": "a"}])


class TestSpool:
    @pytest.mark.parametrize("in_memory", [1, 1 << 20])
    def test_what_is_put_aside_comes_back(self, in_memory: int) -> None:
        spool = Spool(in_memory)
        data = [bytes([n]) * n for n in range(20)]
        pieces = [spool.write(each) for each in data]
        assert [spool.read(piece) for piece in reversed(pieces)] == data[::-1]
        assert pieces[3] == Piece(3, 3)

    def test_one_thread_reads_while_another_writes(self) -> None:
        spool = Spool(1000)
        wrong: list[int] = []
        pieces = [spool.write(b"%04d" % n) for n in range(100)]

        def read() -> None:
            for _ in range(50):
                wrong.extend(n for n, p in enumerate(pieces) if spool.read(p) != b"%04d" % n)

        thread = threading.Thread(target=read)
        thread.start()
        for n in range(5000):
            spool.write(b"%d" % n)
        thread.join()
        assert not wrong

    def test_the_file_is_closed_with_the_last_reference(self) -> None:
        spool = Spool(1)
        spool.write(b"more than one")
        file = spool._file
        del spool
        gc.collect()
        assert file.closed
