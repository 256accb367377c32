"""What a session re-sends is read once, and nobody can tell: the result is that of reading anew."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tapes_cli.capture import history as history_module
from tapes_cli.capture.decode import MAX_NESTING, decode, decode_exact
from tapes_cli.capture.history import MAX_HISTORIES, Histories
from tapes_cli.capture.lines import Line, LineSplitter
from tapes_cli.capture.providers import PROVIDERS, Provider
from tapes_cli.capture.reader import Options, Reader
from tapes_cli.capture.sources import Source
from tapes_cli.capture.tools import LEAST_BYTES
from tapes_cli.merkle.chain import ChainBuilder, check_chain
from tapes_cli.model.blocks import Message
from tapes_cli.model.history import History
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import Accepted, Record, Rejected, RejectError
from tests.support.deep import lists, with_depth

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
OPTIONS = Options(now=lambda: NOON)
TURNS = 60
ENOUGH = 1 << 20
# Longer than what tells openings apart.
LONG = "word " * 30

COMPACT = (",", ":")
ANSWER = {"message": {"role": "assistant", "content": [{"type": "text", "text": "ok"}]}}


@dataclass(frozen=True, slots=True)
class Lines(Source):
    """A source that needs no file."""

    data: tuple[bytes, ...] = ()

    def split(self, splitter: LineSplitter) -> Iterator[Line]:
        del splitter
        return (Line(number, 0, data) for number, data in enumerate(self.data, 1))


def reader_of(budget: int = ENOUGH) -> Reader:
    reader = Reader(OPTIONS)
    reader._parser.histories = Histories(budget)
    return reader


def histories_of(reader: Reader) -> Histories:
    return reader._parser.histories


def read(reader: Reader, *data: bytes) -> list[Record]:
    return list(reader.read(Lines("in", None, data=data)))


def record(
    messages: Any,
    *,
    provider: str = "anthropic",
    name: str = "messages",
    session: str | None = "s",
    separators: tuple[str, str] = COMPACT,
    **changes: Any,
) -> bytes:
    """A turn record; None takes a field away."""
    whole = {
        "provider": provider,
        "request": {"model": "m", name: messages},
        "response": ANSWER,
        "session": session and {"harness_id": "h", "harness_session_id": session},
        **changes,
    }
    kept = {key: value for key, value in whole.items() if value is not None}
    return with_depth(json.dumps(kept, separators=separators).encode())


def said(text: Any, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": text}


def used(**arguments: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "tool_use", "input": arguments}]}


OPENING = said(LONG)


def history_in(reader: Reader, data: bytes) -> History:
    (found,) = read(reader, data)
    assert isinstance(found, Accepted), found
    return found.turn.history


def shown(message: Message) -> tuple[str, str]:
    """A message as text, which shows types, order and what Python calls equal."""
    return message.role, json.dumps(message.content)


def outcome(found: Record, builder: ChainBuilder | None) -> tuple[Any, ...]:
    """What there is to see of a record, with its chain if there is somebody to build it."""
    if isinstance(found, Rejected):
        return found.reason, found.message, found.pointer, found.raw
    assert isinstance(found, Accepted)
    turn = found.turn
    chain: tuple[Any, ...] = ()
    if builder is not None:
        built = builder.build(turn)
        check_chain(built)
        nodes = [(n.hash, n.parent_hash, n.model, *shown(n.message)) for n in built.nodes]
        chain = (built.hashes, nodes, len(built), built.root_hash)
    return (
        *(found.raw(), turn.provider, turn.captured, turn.envelope, turn.usage, turn.agent_name),
        *(turn.request_model, turn.response_model, turn.stop_reason, shown(turn.response)),
        [shown(message) for message in turn.history],
        chain,
    )


def alone(data: bytes, *, chained: bool = True) -> tuple[Any, ...]:
    """What becomes of a record that is the first one ever read."""
    (found,) = read(reader_of(), data)
    return outcome(found, ChainBuilder() if chained else None)


def check_memory(histories: Histories, budget: int) -> None:
    known = [one for kept in histories._histories.values() for one in kept]
    assert histories._spent == sum(one.cost for one in known) <= budget
    assert all(histories._histories.values())
    assert all(len(kept) <= MAX_HISTORIES for kept in histories._histories.values())
    for one in known:
        assert len(one.ends) == len(one.counts)
        assert len(one.text) == (one.ends[-1] if one.ends else 0)


# What captures are made of.


@dataclass(frozen=True, slots=True)
class Raw:
    """JSON that no writer would write."""

    text: str


@dataclass(frozen=True, slots=True)
class Style:
    """How a client writes JSON."""

    separators: tuple[str, str] = COMPACT
    ascii: bool = True

    def __call__(self, value: Any) -> str:
        if isinstance(value, Raw):
            return value.text
        return json.dumps(value, ensure_ascii=self.ascii, separators=self.separators)

    def array(self, values: Sequence[Any]) -> Raw:
        return Raw("[" + self.separators[0].join(map(self, values)) + "]")

    def object(self, *members: tuple[str, Any]) -> Raw:
        comma, colon = self.separators
        return Raw("{" + comma.join(f'"{k}"{colon}{self(v)}' for k, v in members) + "}")


STYLES = [
    Style(),
    Style((", ", ": ")),
    Style(ascii=False),
    Style((" , ", " : "), ascii=False),
    Style(("\t,\r", "\r :\t ")),
]

TEXTS = [
    *(
        "",
        "a",
        "b",
        "c",
        LONG,
        "é\u2028\u0085\u00a0 ü",
        "🙂",
        "\ud800",
        "\udfff \ud83d",
        "\0\x1f\x7f",
    ),
    *('"messages":[', '\\"messages\\":[{', '{"input":[{"role":"user"}]}', "]}", "],", '",', "\\"),
    *('"harness_session_id":"x"', "0123456789abcdef" * 2),
]
INPUTS: list[dict[str, Any]] = [
    *({"x": True}, {"x": 1}, {"x": 1.0}, {"x": 0}, {"x": 0.0}, {"x": -0.0}, {"x": False}),
    *({"a": "1", "b": "2"}, {"b": "2", "a": "1"}, {"x": [{"y": 0}]}, {"x": [{"y": False}]}),
    *({"x": 2**70}, {"x": 2**70 + 1}, {"x": 2**63}, {"x": -(2**63) - 1}, {"x": 1e22}, {"x": 1e-7}),
    {"messages": [{"role": "user", "content": "inner"}], "input": [{"messages": [1]}]},
    {"\ud800": {"é": [[[[]]]]}, "": None},
]
DUPLICATE = Raw('{"role":"user","content":"a","role":"assistant","content":"b","content":"a"}')
NUMBERS = Raw(
    '{"role":"assistant","content":[{"type":"tool_use","input":{"x":-0,"y":1E2,"z":0.10}}]}'
)
ODD = [
    *(None, {}, said(None), {"role": None}, said([]), DUPLICATE, NUMBERS),
    *({"content": "a", "role": "user"}, {"content": [], "role": "", "x": 2**80}),
    said("a") | {"messages": [said("b")], "input": [said("c")]},
]
DEEP = Raw('{"role":"user","content":[{"type":"x","content":' + "[" * 300 + "]" * 300 + "}]}")
TOO_DEEP = Raw('{"role":"user","content":[{"type":"x","content":' + "[" * 950 + "]" * 950 + "}]}")
JUST_TOO_DEEP = Raw("[" * 900 + "]" * 900)
HOSTILE = [
    *(5, True, "", "messages", "0123456789abcdef" * 2, [], [[]], {"role": 5}, TOO_DEEP),
    Raw("NaN"),
    Raw('"\\u"'),
    Raw("1e400"),
    Raw("}"),
    Raw("],"),
    Raw(""),
    Raw(","),
]


def call(name: str, arguments: str) -> dict[str, Any]:
    return {"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}


ANTHROPIC = [
    *map(said, TEXTS),
    *(said([{"type": "text", "text": text}], "assistant") for text in TEXTS[1:8]),
    *(used(**arguments) for arguments in INPUTS),
    said([{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]),
    said([{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "r"}]}]),
    said([{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "image"}, 2**65]}]),
    said([{"type": "thinking", "thinking": "hm", "signature": "z"}], "assistant"),
    said([{"type": "document", "source": {"messages": [1], "é": 1.5}}, None, "x", {}]),
    *ODD,
    DEEP,
]
CHAT = [
    *map(said, TEXTS),
    *(said(text, "assistant") for text in TEXTS[1:8]),
    *({"role": "assistant", "tool_calls": [call("n", json.dumps(i))]} for i in INPUTS),
    {"role": "assistant", "content": None, "tool_calls": [call("n", "no JSON")], "refusal": "no"},
    {"role": "tool", "tool_call_id": "c", "content": "result"},
    said(
        [{"type": "image_url", "image_url": {"url": "u"}}, {"type": "file", "file": {"x": 2**70}}]
    ),
    *ODD,
    DEEP,
]
OLLAMA = [
    *map(said, TEXTS),
    *(said(text, "assistant") for text in TEXTS[1:8]),
    *({"role": "assistant", "tool_calls": [{"function": {"arguments": i}}]} for i in INPUTS),
    said("a") | {"images": ["aGk="], "thinking": "hm"},
    *({}, said(None), DUPLICATE),
]
RESPONSES = [
    *map(said, TEXTS),
    *(said(text, "assistant") for text in TEXTS[:8]),
    *(
        {"type": "function_call", "call_id": "c", "name": "n", "arguments": json.dumps(arguments)}
        for arguments in INPUTS[::3]
    ),
    *({"type": "function_call_output", "call_id": "c", "output": output} for output in TEXTS[:3]),
    {"type": "custom_tool_call_output", "call_id": "c", "output": {"x": 2**70, "a": 1}},
    *({"type": "reasoning", "summary": [{"type": "summary_text", "text": t}]} for t in TEXTS[1:4]),
    {"type": "web_search_call", "id": "w", "action": {"messages": [1], "x": 1.0}},
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}]},
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]},
    *ODD,
    *(5, "x", [], [said("a")]),
]
TAKES_TURNS: list[dict[str, Any]] = [
    {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
    {"type": "function_call", "call_id": "c", "name": "n", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c", "output": "r"},
]


@dataclass(frozen=True, slots=True)
class Api:
    """Where a provider expects what messages."""

    provider: str
    name: str
    messages: list[Any]


APIS = [
    Api("anthropic", "messages", ANTHROPIC),
    Api("openai", "messages", CHAT),
    Api("ollama", "messages", OLLAMA),
    Api("openai", "input", [*RESPONSES, *(4 * TAKES_TURNS)]),
]


@dataclass(slots=True)
class Conversation:
    """A session as its client sends it."""

    api: Api
    messages: list[Any]
    style: Style = field(default_factory=Style)
    session: str | None = "s"
    request: str = "plain"
    frame: str = "plain"


INNER = {"messages": [said("x")], "input": [said("y")]}
# More than it takes to be cut out.
TOOLS = [{"name": "é🙂", "description": LEAST_BYTES * "x", "input_schema": INNER, "tools": [2**80]}]


def escaped(name: str) -> str:
    """A name as nobody writes it."""
    return f"\\u{ord(name[0]):04x}{name[1:]}"


def requested(one: Conversation, messages: list[Any]) -> Raw:
    style, name = one.style, one.api.name
    other = "input" if name == "messages" else "messages"
    sent = (name, style.array(messages))
    members: dict[str, list[tuple[str, Any]]] = {
        "plain": [("model", "m"), sent],
        "list first": [sent, ("model", "m"), ("stream", False)],
        "tools first": [("tools", [INNER]), sent],
        "tools last": [sent, ("tools", [INNER, 2**80])],
        "many tools": [sent, ("tools", TOOLS)],
        "many tools first": [("tools", TOOLS * 2), sent],
        "tools twice": [("tools", TOOLS), sent, ("tools", TOOLS * 2)],
        "odd tools": [sent, ("tools", style.array([*TOOLS, "\ud800", DEEP]))],
        "deep tools": [sent, ("tools", style.array([*TOOLS, JUST_TOO_DEEP]))],
        "tools that are none": [("x", {"tools": TOOLS}), sent, ("tools", 5)],
        "both": [(other, [said("a")]), sent],
        "both, turned": [sent, (other, [said("a")])],
        "other escaped": [sent, (escaped(other), [said("c")])],
        "other empty": [(other, []), sent],
        "other null": [sent, (other, None)],
        "twice": [sent, (name, style.array(messages[:2]))],
        "twice, turned": [(name, style.array(messages[1:])), sent],
        "twice, gone": [sent, (name, None)],
        "escaped": [(escaped(name), sent[1])],
        "escaped twice": [sent, (escaped(name), sent[1])],
        "refused": [sent, ("model", 5)],
        "text": [(name, "hello")],
    }
    return style.object(*members[one.request])


def framed(one: Conversation, messages: list[Any]) -> str:
    request = ("request", requested(one, messages))
    provider, response = ("provider", one.api.provider), ("response", ANSWER)
    session = ("session", one.session and {"harness_id": "h", "harness_session_id": one.session})
    calling = {"message": {"role": "assistant", "content": [{"type": "tool_use", "input": INNER}]}}
    members: dict[str, list[tuple[str, Any]]] = {
        "plain": [provider, request, response, session],
        "session first": [session, provider, response, request],
        "lists before": [("meta", INNER), provider, request, response, session],
        "lists after": [provider, request, ("response", calling), ("meta", INNER), session],
        "calling": [("response", calling), provider, request, session],
        "twice": [request, provider, response, session, request],
        "twice, changed": [request, provider, response, ("request", INNER)],
        "refused": [provider, request, session],
        "refused late": [provider, request, response, ("session", {"org_id": 5})],
        "inexact": [
            provider,
            request,
            response,
            session,
            ("meta", {"x": 2**70}),
            ("agent_name", 5),
        ],
        "other provider": [("provider", "ollama"), request, response, session],
        "no object": [provider, ("request", [INNER]), response],
        "turns": [provider, request, response, ("turns", 5)],
    }
    return one.style.object(*members[one.frame]).text


REQUESTS = ["plain", "list first", "tools last", "many tools", "many tools first"]
RARE_REQUESTS = [
    *("tools first", "both", "both, turned", "other empty", "other null", "twice"),
    *("twice, turned", "twice, gone", "escaped", "escaped twice", "refused", "text"),
    *("other escaped", "tools twice", "odd tools", "deep tools", "tools that are none"),
]
FRAMES = ["plain", "session first", "lists after"]
RARE_FRAMES = [
    *("lists before", "calling", "twice", "twice, changed", "refused", "refused late"),
    *("inexact", "other provider", "no object", "turns"),
]

EVENTS = [
    *("grow", "grow", "grow", "grow", "answer", "answer", "repeat", "truncate", "edit", "insert"),
    *("drop", "rewrite tail", "rewrite tail", "fork", "fork", "restyle", "other session"),
]
RARE_EVENTS = ["other api", "hostile", "hostile", "rare request", "rare frame"]
BEGINNINGS = [*(8 * [[OPENING]]), [], [said("a")], [said(LONG, "assistant")]]


class Clients:
    """Clients that send the conversations of a capture."""

    def __init__(self, draw: st.DrawFn, apis: list[Api], events: list[str]) -> None:
        self._draw = draw
        self._apis = apis
        self._events = events
        self._conversations = [self._begun() for _ in range(draw(st.integers(1, 2)))]

    def _begun(self) -> Conversation:
        api = self._pick(self._apis)
        return Conversation(
            api,
            [*self._pick(BEGINNINGS), *self._some(api, 3)],
            self._pick(STYLES),
            self._pick(["s", "s", "s", "t", None]),
            self._pick(REQUESTS),
            self._pick(FRAMES),
        )

    def _pick(self, choices: Sequence[Any]) -> Any:
        return self._draw(st.sampled_from(choices))

    def _index(self, one: Conversation) -> int:
        return self._draw(st.integers(0, len(one.messages)))

    def _some(self, api: Api, most: int) -> list[Any]:
        return self._draw(st.lists(st.sampled_from(api.messages), max_size=most))

    def send(self) -> str:
        """Go on with a conversation, and return its next record."""
        one: Conversation = self._pick(self._conversations)
        match event := self._pick(self._events):
            case "fork":
                one = replace(one, messages=one.messages[: self._index(one)])
                self._conversations.append(one)
                one.messages += self._some(one.api, 8)
            case "hostile":
                one = replace(one, messages=one.messages[:])
                one.messages.insert(self._index(one), self._pick(HOSTILE))
            case "rare request":
                one = replace(one, request=self._pick(RARE_REQUESTS))
            case "rare frame":
                one = replace(one, frame=self._pick(RARE_FRAMES))
            case "restyle":
                one.style = self._pick(STYLES)
            case "other api":
                one.api = self._pick(self._apis)
            case "other session":
                one.session = self._pick(["s", "t", None])
            case _:
                self._go_on(one, event)
        return framed(one, one.messages)

    def _go_on(self, one: Conversation, event: str) -> None:
        at = self._index(one)
        match event:
            case "grow":
                one.messages += self._some(one.api, 4)
            case "answer" if one.api.name == "input":
                one.messages += TAKES_TURNS[: self._draw(st.integers(1, 3))]
            case "answer":
                one.messages += [said("yes", "assistant"), said("on")]
            case "truncate":
                del one.messages[at:]
            case "edit":
                one.messages[at : at + 1] = self._some(one.api, 1)
            case "insert":
                one.messages[at:at] = self._some(one.api, 2)
            case "drop":
                del one.messages[at : at + 1]
            case "rewrite tail":
                del one.messages[-self._draw(st.integers(1, 5)) :]
                one.messages += self._some(one.api, 4)


def batch_of(texts: list[str]) -> tuple[bytes, list[bytes]]:
    def joined(several: list[str]) -> bytes:
        return encoded(f'{{"turns":[{",".join(several)}]}}')

    return joined(texts), [joined([text]) for text in texts]


def encoded(text: str) -> bytes:
    return text.encode(errors="backslashreplace")  # which JSON reads


def may_be_wrapped(text: str) -> bool:
    """Whether a line that holds more than this record is read as far as to the record."""
    try:
        decode_exact(encoded(f'{{"turns":[{text}]}}'))
    except RejectError:
        return False
    return True


def sound(api: Api) -> Api:
    """Only messages that a provider takes for what they are."""
    texts = ((m, json.dumps(m, ensure_ascii=False)) for m in api.messages if isinstance(m, dict))
    return replace(
        api, messages=[m for m, text in texts if encoded(text) == text.encode("utf-8", "replace")]
    )


SOUND_APIS = [*map(sound, APIS)]


@st.composite
def captures(draw: st.DrawFn, *, rare: bool) -> list[tuple[bytes, list[bytes]]]:
    """Lines, each with its records in lines of their own."""
    if rare:
        clients = Clients(draw, APIS, EVENTS + RARE_EVENTS)
    else:
        # One of OpenAI's, which alone share a name.
        apis = [*SOUND_APIS[::2], draw(st.sampled_from(SOUND_APIS[1::2]))]
        clients = Clients(draw, apis, EVENTS)
    records = [clients.send() for _ in range(draw(st.integers(4, 14)))]
    if draw(st.integers(0, 3)) == 3:
        records = draw(st.permutations(records))
    kinds = draw(st.sampled_from([["line"], ["line"], ["batch"], ["line", "batch", "reject"]]))
    lines: list[tuple[bytes, list[bytes]]] = []
    batch: list[str] = []
    for text in records:
        kind = draw(st.sampled_from(kinds)) if may_be_wrapped(text) else "line"
        if kind == "batch" and len(batch) < 5:
            batch.append(text)
            continue
        if batch:
            lines.append(batch_of(batch))
            batch = []
        line = text if kind == "line" else f'{{"type":"reject","code":"x","record":{text}}}'
        lines.append((encoded(line), [encoded(line)]))
    return [*lines, batch_of(batch)] if batch else lines


BUDGETS = st.sampled_from([*(5 * [ENOUGH]), 20_000, 8000, 4000, 2000, 500, 0])
CHAINED = st.sampled_from(["at once", "later", "in part"])


def check_against_reading_alone(
    lines: list[tuple[bytes, list[bytes]]], budget: int, chained: str
) -> None:
    reader, builder = reader_of(budget), ChainBuilder()
    read_later: list[tuple[Record, tuple[Any, ...]]] = []
    for line, records in lines:
        found = read(reader, line)
        check_memory(histories_of(reader), budget)
        assert len(found) == len(records)
        for number, (one, data) in enumerate(zip(found, records, strict=True), len(line)):
            whole = chained != "in part" or number % 2 == 0
            expected = alone(data, chained=whole)
            if chained == "later":
                read_later.append((one, expected))
            else:
                assert outcome(one, builder if whole else None) == expected
    for one, expected in read_later:
        assert outcome(one, builder) == expected


# Explaining takes longer than all the rest.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)


@settings(max_examples=200, phases=PHASES)
@given(captures(rare=False), BUDGETS, CHAINED)
def test_conversations_are_read_as_if_each_record_were_alone(
    lines: list[tuple[bytes, list[bytes]]], budget: int, chained: str
) -> None:
    check_against_reading_alone(lines, budget, chained)


@settings(max_examples=300, phases=PHASES)
@given(captures(rare=True), BUDGETS, CHAINED)
def test_anything_is_read_as_if_each_record_were_alone(
    lines: list[tuple[bytes, list[bytes]]], budget: int, chained: str
) -> None:
    check_against_reading_alone(lines, budget, chained)


@pytest.mark.parametrize("api", APIS, ids=lambda api: f"{api.provider}-{api.name}")
@pytest.mark.parametrize("frame", FRAMES + RARE_FRAMES)
def test_every_form_of_a_record_is_read_as_if_it_were_alone(api: Api, frame: str) -> None:
    messages = [OPENING, *map(said, "abcdef")]
    for request in REQUESTS + RARE_REQUESTS:
        reader, builder = reader_of(), ChainBuilder()
        plain, form = Conversation(api, []), Conversation(api, [], request=request, frame=frame)
        for number, one in enumerate((plain, plain, form, form, plain), 2):
            data = encoded(framed(one, messages[:number]))
            (found,) = read(reader, data)
            assert outcome(found, builder) == alone(data)


JUNK = [b"", b",", b"]", b"[", b"}", b"{", b'"', b"null,", b"\\", b" ", b"\xff", b"\0", b"1", b":"]


@settings(max_examples=300, phases=PHASES)
@given(st.sampled_from(SOUND_APIS), st.data())
def test_damage_is_told_as_if_the_record_were_alone(api: Api, data: st.DataObject) -> None:
    messages = [
        OPENING,
        *data.draw(st.lists(st.sampled_from(api.messages), min_size=4, max_size=6)),
    ]
    style = data.draw(st.sampled_from(STYLES))
    sent = [
        encoded(framed(Conversation(api, [], style), messages[:count]))
        for count in (2, 3, len(messages))
    ]
    reader, builder = reader_of(), ChainBuilder()
    for sound in sent[:2]:
        assert [outcome(one, builder) for one in read(reader, sound)] == [alone(sound)]
    at = data.draw(st.integers(0, len(sent[2])))
    cut = data.draw(st.integers(0, 4))
    damaged = sent[2][:at] + data.draw(st.sampled_from(JUNK)) + sent[2][at + cut :]
    for either in (damaged, sent[2], damaged):
        found = read(reader, either)
        expected = read(reader_of(), either)
        assert [outcome(one, builder) for one in found] == [
            outcome(one, ChainBuilder()) for one in expected
        ]


@pytest.mark.parametrize(
    ("sound", "broken"),
    [
        (b'"b"}', b'"b"},'),
        (b'"b"}', b'"b"'),
        (b',{"role":"user","content":"b"}', b","),
        (b',{"role":"user","content":"b"}', b" "),
        (b'"content":"b"', b'"content":b'),
        (b'"content":"b"', b'"content":1e400'),
        (b'"content":"b"', b'"content":"\xff"'),
        (b'},"response"', b',"response"'),
        (b'"provider"', b"provider"),
    ],
)
def test_a_broken_record_is_told_as_if_it_were_alone(sound: bytes, broken: bytes) -> None:
    reader, builder = reader_of(), ChainBuilder()
    data = record([OPENING, said("a"), said("b")])
    wrong = data.replace(sound, broken)
    assert wrong != data
    for either in (record([OPENING, said("a")]), wrong, data, wrong, data):
        (found,) = read(reader, either + b" ")
        assert outcome(found, builder) == alone(either + b" ")


# What is known is not read again.


@dataclass(slots=True)
class Counting:
    """A provider that notes the pointers of the messages it parses."""

    provider: Provider
    parsed: list[str]

    @property
    def name(self) -> str:
        return self.provider.name

    def request_messages(self, request: dict[str, Any]) -> list[Any]:
        return self.provider.request_messages(request)

    def parse_message(self, raw: Any, pointer: str) -> Message:
        self.parsed.append(pointer)
        return self.provider.parse_message(raw, pointer)

    def model(self, request: dict[str, Any]) -> str:
        return self.provider.model(request)


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give the pointers of all messages that were parsed."""
    pointers: list[str] = []
    for name, provider in [*PROVIDERS.items()]:
        monkeypatch.setitem(PROVIDERS, name, Counting(provider, pointers))
    return pointers


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Give the sizes of all records that were decoded, as far as they were."""
    sizes: list[int] = []

    def counting(data: bytes) -> Any:
        sizes.append(len(data))
        return decode(data)

    monkeypatch.setattr(history_module, "decode", counting)
    return sizes


def result(number: int) -> dict[str, Any]:
    return said([{"type": "tool_result", "tool_use_id": "t", "content": f"result {number}"}])


# What a client adds with every turn: two messages.
STEPS: dict[tuple[str, str], Callable[[int], list[dict[str, Any]]]] = {
    ("anthropic", "messages"): lambda number: [used(x=number), result(number)],
    ("openai", "messages"): lambda number: [
        {"role": "assistant", "tool_calls": [call("n", f"{number}")]},
        {"role": "tool", "tool_call_id": "c", "content": f"{number}"},
    ],
    ("ollama", "messages"): lambda number: [said(f"{number}", "assistant"), said(f"{number}")],
    ("openai", "input"): lambda number: [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": f"{number}"}]},
        said(f"{number}", "assistant"),
        {"type": "function_call", "call_id": "c", "name": "n", "arguments": f"{number}"},
        {"type": "function_call_output", "call_id": "c", "output": f"{number}"},
    ],
}
apis = pytest.mark.parametrize(("provider", "name"), [*STEPS])


def growing(
    provider: str,
    name: str,
    opening: dict[str, Any] = OPENING,
    separators: tuple[str, str] = COMPACT,
) -> list[bytes]:
    """The records of a session of as many turns as there are."""
    messages, records = [opening], []
    for number in range(TURNS):
        records.append(record(messages, provider=provider, name=name, separators=separators))
        messages += STEPS[provider, name](number)
    return records


@apis
def test_a_growing_session_is_read_once(
    provider: str, name: str, parsed: list[str], decoded: list[int]
) -> None:
    records = growing(provider, name)
    found = read(reader_of(), *records)
    assert parsed == [f"/request/messages/{number}" for number in range(2 * TURNS - 1)]
    steps = (STEPS[provider, name](number) for number in range(TURNS - 1))
    new = [len(record(messages, provider=provider, name=name)) for messages in steps]
    assert all(size < most + 40 for size, most in zip(decoded[1:], new, strict=True))

    builder = ChainBuilder()
    chains = [builder.build(one.turn) for one in found if isinstance(one, Accepted)]
    assert len(chains) == TURNS
    assert builder.hashes_computed == 2 * TURNS - 1 + TURNS
    for chain, data in zip(chains, records, strict=True):
        (anew,) = read(reader_of(), data)
        assert isinstance(anew, Accepted)
        assert chain.hashes == ChainBuilder().build(anew.turn).hashes


@apis
def test_a_growing_session_in_batches_is_read_once(
    provider: str, name: str, parsed: list[str]
) -> None:
    reader, builder = reader_of(), ChainBuilder()
    texts = [data.decode() for data in growing(provider, name)]
    lines = [batch_of(texts[at : at + 20])[0] for at in range(0, TURNS, 20)]
    for found in read(reader, *lines):
        assert isinstance(found, Accepted)
        builder.build(found.turn)
    assert len(parsed) == 2 * TURNS - 1
    assert builder.hashes_computed == 2 * TURNS - 1 + TURNS


@apis
def test_two_sessions_that_take_turns_are_read_once_each(
    provider: str, name: str, parsed: list[str]
) -> None:
    reader, builder = reader_of(), ChainBuilder()
    one = growing(provider, name)
    other = [data.replace(b'"harness_session_id":"s"', b'"harness_session_id":"t"') for data in one]
    for pair in zip(one, other, strict=True):
        for found in read(reader, *pair):
            assert isinstance(found, Accepted)
            builder.build(found.turn)
    assert len(parsed) == 2 * (2 * TURNS - 1)
    assert builder.hashes_computed == 2 * (2 * TURNS - 1 + TURNS)


@apis
def test_a_session_that_begins_with_short_messages_is_read_once_it_is_longer(
    provider: str, name: str, parsed: list[str]
) -> None:
    reader = reader_of()
    for data in growing(provider, name, said("a")):
        history_in(reader, data)
    assert len(parsed) <= 2 * TURNS + 10


@pytest.mark.parametrize("style", STYLES)
def test_white_space_costs_no_more_than_a_message_a_turn(style: Style, parsed: list[str]) -> None:
    reader = reader_of()
    for data in growing("anthropic", "messages", separators=style.separators):
        history_in(reader, data)
    assert len(parsed) <= 3 * TURNS


def test_text_that_is_not_ascii_is_known_by_its_bytes(parsed: list[str]) -> None:
    reader = reader_of()
    opening = LONG + "é\u2028🙂\x7f"
    for data in growing("anthropic", "messages", said(opening)):
        unescaped = json.dumps(json.loads(data), ensure_ascii=False, separators=COMPACT).encode()
        assert not unescaped.isascii()
        history = history_in(reader, unescaped)
    assert len(parsed) == 2 * TURNS - 1
    assert history[0].content == [{"type": "text", "text": opening}]


@apis
def test_tools_that_speak_of_messages_are_no_messages(
    provider: str, name: str, parsed: list[str]
) -> None:
    reader = reader_of()
    schema = {"properties": {name: {"type": "array"}, "x": [name]}, "required": [name]}
    messages = [OPENING]
    for number in range(TURNS):
        request = {"tools": [schema], name: messages, "tool_choice": schema}
        history_in(reader, record([], provider=provider, request=request))
        messages += STEPS[provider, name](number)
    assert len(parsed) == 2 * TURNS - 1


def test_a_record_without_messages_is_decoded_once(decoded: list[int]) -> None:
    data = record([])
    assert len(history_in(reader_of(), data)) == 0
    assert decoded == [len(data)]


@apis
def test_the_last_message_is_read_each_time(provider: str, name: str, parsed: list[str]) -> None:
    reader = reader_of()
    data = growing(provider, name)[10]
    again = 1 if name == "messages" else 2  # with the items before it, which are one message
    for _ in range(5):
        history = history_in(reader, data)
        assert len(history) == 21
    assert history.shared == 21 - again
    assert len(parsed) == 21 + 4 * again
    assert parsed[-1] == "/request/messages/20"


def test_what_the_model_may_go_on_saying_is_read_again() -> None:
    """Items in a row are one message: which ones is known when another message follows."""
    reader = reader_of()
    output = {"type": "function_call_output", "call_id": "c", "output": "r"}
    items = [OPENING]
    counts = []
    for item in [*TAKES_TURNS[:2], said("a", "assistant"), output, *TAKES_TURNS[:2], said("b")]:
        items.append(item)
        history = history_in(reader, record(items, provider="openai", name="input"))
        counts.append((len(history), history.shared))
    assert counts == [(2, 0), (2, 1), (2, 1), (3, 1), (4, 3), (4, 3), (5, 3)]


def marked(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages with cache marks on the last two, as a client sends them."""
    mark = {"cache_control": {"type": "ephemeral"}}
    return [
        *messages[:-2],
        *(m | {"content": [*m["content"][:-1], m["content"][-1] | mark]} for m in messages[-2:]),
    ]


def test_marks_that_move_along_the_last_messages_cost_the_same_each_turn(parsed: list[str]) -> None:
    reader, builder = reader_of(), ChainBuilder()
    messages = [said([{"type": "text", "text": LONG}]), used(x=-1), result(-1)]
    work = []
    for number in range(TURNS):
        before = len(parsed), builder.hashes_computed
        (found,) = read(reader, record(marked(messages)))
        assert isinstance(found, Accepted)
        builder.build(found.turn)
        work.append((len(parsed) - before[0], builder.hashes_computed - before[1]))
        messages += [used(x=number), result(number)]
    # Two messages are new, two have lost their mark.
    assert work == [(3, 4), *(TURNS - 1) * [(4, 5)]]
    ((known,),) = histories_of(reader)._histories.values()
    assert known.counts[-1] == 2 * TURNS + 1


# What is remembered, and for how long.


def branch(name: str) -> list[dict[str, Any]]:
    """A conversation that begins like all others and goes on by itself."""
    return [OPENING, *(said(f"{name} {number}") for number in range(9))]


def test_conversations_that_begin_alike_take_turns() -> None:
    reader = reader_of()
    names = [f"{number}" for number in range(MAX_HISTORIES)]
    for name in names:
        assert history_in(reader, record(branch(name))).shared == (name != "0")
    for name in names:
        history = history_in(reader, record([*branch(name), said("new")]))
        assert (history.shared, len(history)) == (10, 11)
        assert history[9].content == [{"type": "text", "text": f"{name} 8"}]
    (kept,) = histories_of(reader)._histories.values()
    assert len(kept) == MAX_HISTORIES


def test_a_fork_leaves_what_it_left_as_it_was() -> None:
    reader = reader_of()
    trunk = branch("trunk")
    fork = [*trunk[:4], *branch("fork")[1:]]
    for _ in range(2):
        history_in(reader, record(trunk))
        history_in(reader, record(fork))
    longer = {}
    for name, messages in (("trunk", trunk), ("fork", fork)):
        data = record([*messages, said("new")])
        assert outcome(read(reader, data)[0], ChainBuilder()) == alone(data)
        longer[name] = history_in(reader, data)
    assert {name: history.shared for name, history in longer.items()} == {"trunk": 10, "fork": 13}


def test_conversations_that_begin_differently_do_not_compete() -> None:
    reader = reader_of()
    names = [f"{number}" for number in range(2 * MAX_HISTORIES)]
    for _ in range(2):
        shared = [history_in(reader, record(branch(name)[1:] * 2)).shared for name in names]
    assert shared == [17] * len(names)


def test_the_stalest_conversation_is_forgotten() -> None:
    reader = reader_of()
    for number in range(MAX_HISTORIES):
        history_in(reader, record(branch(f"{number}")))
    history_in(reader, record(branch("0")))
    history_in(reader, record(branch("one too many")))
    assert history_in(reader, record([*branch("0"), said("new")])).shared == 10
    assert history_in(reader, record([*branch("one too many"), said("new")])).shared == 10
    assert history_in(reader, record([*branch("1"), said("new")])).shared == 1
    check_memory(histories_of(reader), ENOUGH)


def test_a_rewritten_tail_takes_no_place_of_a_conversation() -> None:
    reader = reader_of()
    history_in(reader, record(branch("other")))
    for number in range(2 * MAX_HISTORIES):
        tail = [said(f"{number} {which}") for which in range(4)]
        history = history_in(reader, record([*branch("one"), *tail]))
        assert history.shared == (10 if number else 1)
    assert history_in(reader, record([*branch("other"), said("new")])).shared == 10
    (kept,) = histories_of(reader)._histories.values()
    assert len(kept) == 2


def test_a_shorter_history_keeps_what_is_left_of_it() -> None:
    reader = reader_of()
    whole = branch("a")
    history_in(reader, record(whole))
    for count in (8, 6, 10):
        data = record(whole[:count])
        assert history_in(reader, data).shared == {8: 7, 6: 5, 10: 6}[count]
        assert outcome(read(reader, data)[0], ChainBuilder()) == alone(data)


def test_sessions_are_apart() -> None:
    reader = reader_of()
    messages = branch("a")
    for session in ("s", "t", None):
        assert history_in(reader, record(messages, session=session)).shared == 0
    for session in ("s", "t", None):
        assert history_in(reader, record(messages, session=session)).shared == 9


def cost_of(*data: bytes) -> int:
    """What is spent once these records have been read."""
    reader = reader_of()
    read(reader, *data)
    return histories_of(reader)._spent


def test_the_budget_bounds_the_memory() -> None:
    records = {session: record(branch("a"), session=session) for session in "abcd"}
    once, twice = cost_of(records["a"]), cost_of(records["a"], records["a"])
    budget = max(3 * once, twice + 2 * once)
    reader = reader_of(budget)
    for session in "abc":
        history_in(reader, records[session])
        check_memory(histories_of(reader), budget)
    assert histories_of(reader)._spent == 3 * once
    assert history_in(reader, records["a"]).shared == 9
    assert histories_of(reader)._spent == twice + 2 * once
    history_in(reader, records["d"])
    check_memory(histories_of(reader), budget)
    assert [key[-2] for key in histories_of(reader)._histories] == [b'"c', b'"a', b'"d']
    assert history_in(reader, records["a"]).shared == 9
    assert history_in(reader, records["b"]).shared == 0
    check_memory(histories_of(reader), budget)


def test_the_budget_is_for_the_conversations_seen_last() -> None:
    forks = [record(branch(f"{number}"), session="a") for number in range(3)]
    others = {session: record(branch("0"), session=session) for session in "bcdefg"}
    used_up = cost_of(*forks, forks[1]) + 5 * cost_of(others["b"])
    reader = reader_of(used_up - 1)
    for data in (*forks, others["b"], forks[1], *(others[session] for session in "cdefg")):
        history_in(reader, data)
        check_memory(histories_of(reader), used_up - 1)
    kept = histories_of(reader)._histories
    assert [key[-2] for key in kept] == [b'"a', b'"c', b'"d', b'"e', b'"f', b'"g']
    texts = [bytes(known.text) for known in next(iter(kept.values()))]
    assert [b"2 8" in text for text in texts] == [True, False]
    assert [b"1 8" in text for text in texts] == [False, True]


def test_a_record_larger_than_the_budget_is_not_kept() -> None:
    data = record(branch("a"))
    budget = cost_of(data) - 1
    reader = reader_of(budget)
    for _ in range(2):
        assert history_in(reader, data).shared == 0
        check_memory(histories_of(reader), budget)
        assert not histories_of(reader)._histories


def test_a_history_that_outgrows_the_budget_is_forgotten() -> None:
    messages = branch("a")
    sent = [record([*messages, *count * [said("more")]]) for count in range(20)]
    costs = [cost_of(*sent[: count + 1]) for count in range(20)]
    budget = costs[10]
    reader = reader_of(budget)
    for count, data in enumerate(sent):
        history = history_in(reader, data)
        check_memory(histories_of(reader), budget)
        assert len(history) == 10 + count
        if count <= 11:
            assert history.shared == (9 + count if count else 0)
            assert histories_of(reader)._spent == (costs[count] if count < 11 else 0)
    # The last of the messages is read with the next one.
    assert max(costs[:10]) < budget < min(costs[11:])


@pytest.mark.parametrize("ending", [[], [{"role": 5}]])
def test_finding_the_ends_of_messages_does_not_break_the_budget(ending: list[Any]) -> None:
    data = record([OPENING, *map(said, "abcdefghijklmnop")])
    budget = cost_of(data)
    reader = reader_of(budget)
    for again in (data, record([OPENING, *map(said, "abcdefghijklmnop"), *ending]), data):
        read(reader, again)
        check_memory(histories_of(reader), budget)


def test_a_refused_message_leaves_no_trace() -> None:
    reader, builder = reader_of(), ChainBuilder()
    messages = branch("a")
    for ending in (
        [],
        [{"role": 5}],
        [said("b")],
        [said("b"), said("c"), 5],
        [said("b"), said("c")],
    ):
        data = record([*messages, *ending])
        (found,) = read(reader, data)
        assert outcome(found, builder) == alone(data)
        if isinstance(found, Rejected):
            assert found.pointer.startswith(f"/request/messages/{9 + len(ending)}")
        else:
            assert found.turn.history.shared == (9 + len(ending) if ending else 0)  # type: ignore[union-attr]  # accepted


def test_a_turn_that_is_refused_or_never_chained_does_no_harm_to_the_next(
    parsed: list[str],
) -> None:
    reader, builder = reader_of(), ChainBuilder()
    messages = branch("a")
    assert isinstance(read(reader, record(messages, response=None))[0], Rejected)
    assert isinstance(read(reader, record([*messages, said("b")]))[0], Accepted)
    data = record([*messages, said("b"), said("c")])
    expected = alone(data)
    del parsed[:]
    (found,) = read(reader, data)
    assert isinstance(found, Accepted)
    assert found.turn.history.shared == 11
    assert len(parsed) == 1
    assert outcome(found, builder) == expected
    assert builder.hashes_computed == 13


@pytest.mark.parametrize("first", APIS, ids=lambda api: f"{api.provider}-{api.name}")
@pytest.mark.parametrize("second", APIS, ids=lambda api: f"{api.provider}-{api.name}")
def test_the_same_bytes_are_other_messages_elsewhere(first: Api, second: Api) -> None:
    reader, builder = reader_of(), ChainBuilder()
    messages = [
        said(LONG, "assistant"),
        said("a", "assistant") | {"thinking": "hm", "refusal": "no"},
        said("b"),
        said("c", "assistant"),
    ]
    for api in (first, first, second, first, second, second):
        messages.append(said("more"))
        data = record(messages, provider=api.provider, name=api.name)
        (found,) = read(reader, data)
        assert outcome(found, builder) == alone(data)


@pytest.mark.parametrize("refused", [{"type": 5}, {"role": 5}, {"role": "user", "name": 5}])
def test_an_item_that_is_refused_is_told_at_its_place(refused: dict[str, Any]) -> None:
    reader = reader_of()
    items = [OPENING, said("a"), *TAKES_TURNS, said("b")]
    for ending in ([], [said("c")], [*TAKES_TURNS, refused], [said("c"), refused], [said("c")]):
        data = record([*items, *ending], provider="openai", name="input")
        (found,) = read(reader, data)
        assert outcome(found, ChainBuilder()) == alone(data)
        if isinstance(found, Rejected):
            assert found.pointer.startswith(f"/request/input/{len(items) + len(ending) - 1}/")


@pytest.mark.parametrize("passed_over", [5, "x", None, [], [said("x")], True, 1.5])
def test_items_that_are_passed_over_do_not_count(passed_over: Any) -> None:
    reader, builder = reader_of(), ChainBuilder()
    items = [OPENING, said("a"), said("b")]
    ends = [[passed_over], [passed_over, said("c")], [said("c"), passed_over, *TAKES_TURNS]]
    for ending in ([], *ends, [said("c")], *ends):
        for begin in (items, [passed_over, *items]):
            data = record([*begin, *ending], provider="openai", name="input")
            (found,) = read(reader, data)
            assert outcome(found, builder) == alone(data)


def test_what_is_known_is_found_only_where_the_messages_begin() -> None:
    reader, builder = reader_of(), ChainBuilder()
    for messages in (branch("a"), branch("b"), [*branch("a"), said("c")]):
        for elsewhere in (branch("a"), branch("b")):
            data = record(messages, meta={"x": elsewhere, "messages": elsewhere})
            (found,) = read(reader, data)
            assert outcome(found, builder) == alone(data)


def test_what_chat_takes_and_responses_does_not_is_refused_there() -> None:
    reader = reader_of()
    messages = [said(LONG) | {"type": 5}, said("a")]
    for name in ("messages", "messages", "input"):
        messages.append(said("b"))
        data = record(messages, provider="openai", name=name)
        (found,) = read(reader, data)
        assert outcome(found, ChainBuilder()) == alone(data)
    assert isinstance(found, Rejected)


@pytest.mark.parametrize("provider", [*PROVIDERS])
@pytest.mark.parametrize("message", [[], [[]], ["x"], [said("a")], [said("a"), said("b")]])
def test_a_list_is_no_message(provider: str, message: list[Any]) -> None:
    reader, name = reader_of(), "contents" if provider == "gemini" else "messages"
    for messages in ([OPENING, message], [OPENING, message, *map(said, "abc")]):
        for _ in range(2):
            (found,) = read(reader, record(messages, provider=provider, name=name))
            assert isinstance(found, Rejected)
            assert (found.reason, found.pointer) == (
                Reason.REQUEST_INVALID,
                "/request/messages/1",
            )
    sound = record([OPENING, said("a")], provider=provider, name=name)
    assert history_in(reader, sound).shared == 0


def test_large_integers_in_what_is_known_stay_exact() -> None:
    """Lone surrogates have the whole record decoded exactly, and what is known of it not again."""
    reader = reader_of()
    messages = [OPENING, used(x=2**70 + 1), said("\ud800"), said("a"), said("b")]
    for count in (3, 4, 5):
        data = record(messages[:count])
        history = history_in(reader, data)
        assert history.shared == (count - 1 if count > 3 else 0)
        assert history[1].content[0]["tool_input"] == {"x": 2**70 + 1}
        assert outcome(read(reader, data)[0], ChainBuilder()) == alone(data)


@pytest.mark.parametrize("first", ["a", "\ud800"])
def test_what_is_nested_too_deeply_is_told_whatever_is_known(first: str) -> None:
    reader = reader_of()
    messages = [OPENING, said(first), said("b"), said("c")]
    for ending, extra in (([], 1), ([], 950), ([nested(950)], 1), ([nested(950)], 950), ([], 1)):
        data = record([*messages, *ending], extra=nested(extra))
        (found,) = read(reader, data)
        assert outcome(found, ChainBuilder()) == alone(data)


SAME_TO_PYTHON = [
    (used(x=True), used(x=1)),
    (used(x=1), used(x=1.0)),
    (used(x=0.0), used(x=-0.0)),
    (used(x=[{"y": False}]), used(x=[{"y": 0}])),
    (used(x=2**70, y=True), used(x=2**70, y=1)),
    (used(x="\ud800", y=True), used(x="\ud800", y=1)),
    (used(a="1", b="2"), used(b="2", a="1")),
    (said([{"type": "x", "content": True}]), said([{"type": "x", "content": 1}])),
]


@pytest.mark.parametrize(("one", "other"), SAME_TO_PYTHON)
def test_what_python_calls_equal_is_not_the_same(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    assert one == other
    reader = reader_of()
    found = []
    for message in (one, other, other, one):
        history = history_in(reader, record([OPENING, message, said("b")]))
        assert history.shared <= 2
        found.append(shown(history[1]))
    assert found == [
        shown(history_in(reader_of(), record([m]))[0]) for m in (one, other, other, one)
    ]
    assert found[0] != found[1]


# Where messages are nested too deeply for one of the decoders.


def nested(levels: int) -> dict[str, Any]:
    return said([{"type": "x", "content": lists(levels)}])


def within(calls: int, work: Callable[[], Any]) -> Any:
    """Do something where the stack is deep."""
    return work() if calls == 0 else within(calls - 1, work)


@pytest.mark.parametrize("levels", [300, 600, MAX_NESTING - 10])
@pytest.mark.parametrize("calls", [0, 300])
def test_deep_messages_are_read_like_others(levels: int, calls: int) -> None:
    reader, builder = reader_of(), ChainBuilder()
    messages = [OPENING, said("a"), nested(levels), said("b"), said("c")]
    for count in (2, 4, 5, 5):
        data = record(messages[:count])
        (found,) = within(calls, partial(read, reader, data))
        assert outcome(found, builder) == alone(data)


def test_messages_after_one_too_deep_to_be_found_again_are_read_anew() -> None:
    reader = reader_of()
    messages = [OPENING, said("a"), nested(MAX_NESTING - 10), *map(said, "bcdef")]
    for count in range(2, len(messages) + 1):
        history = within(300, partial(history_in, reader, record(messages[:count])))
        assert (history.shared, len(history)) == (min(count - 1, 2) if count > 2 else 0, count)


def test_levels_are_counted_from_the_record_on() -> None:
    reader, builder = reader_of(), ChainBuilder()
    most = MAX_NESTING - 6  # around: the record, request, messages, message, content, block
    for begin in ([OPENING], [OPENING, said("a")]):
        for levels, kind in ((most, Accepted), (most + 1, Rejected)):
            data = record([*begin, nested(levels)])
            (found,) = read(reader, data)
            assert isinstance(found, kind)
            assert outcome(found, builder) == alone(data)


def test_a_message_that_is_nested_too_deeply_is_told_at_its_place() -> None:
    reader = reader_of()
    messages = branch("a")
    history_in(reader, record(messages))
    for _ in range(2):
        (found,) = read(reader, record([*messages, nested(MAX_NESTING + 50), said("b")]))
        assert isinstance(found, Rejected)
        assert (found.reason, found.pointer) == (Reason.NESTING_TOO_DEEP, "/request/messages/10")
    assert history_in(reader, record([*messages, said("b")])).shared == 10


# What stands for what is known.


@pytest.mark.parametrize(
    "data",
    [
        record(["0123456789abcdef" * 2]),
        record(["0123456789abcdef" * 2, OPENING]),
        record([said("0123456789abcdef" * 2), OPENING]),
        record(["0123456789abcdef" * 2, OPENING], provider="openai", name="input"),
    ],
)
def test_a_record_cannot_pretend_to_be_known(data: bytes) -> None:
    reader = reader_of()
    for _ in range(2):
        (found,) = read(reader, data)
        assert outcome(found, ChainBuilder()) == alone(data)
        if isinstance(found, Rejected):
            assert found.pointer == "/request/messages/0"


def test_not_even_the_true_mark_is_believed_where_a_message_is() -> None:
    reader, builder = reader_of(), ChainBuilder()
    mark = histories_of(reader)._mark
    assert len(mark) == 32
    assert mark != Histories()._mark
    read(reader, record(branch("a")))
    for messages in (
        [mark],
        [mark, OPENING],
        [*branch("a"), mark],
        [OPENING, said(mark), said("a")],
    ):
        for _ in range(2):
            data = record(messages)
            assert outcome(read(reader, data)[0], builder) == alone(data)


# The history that a turn has.


def test_a_history_is_a_sequence_of_messages() -> None:
    messages = [Message("user", []) for _ in range(3)]
    for history in (
        History(messages),
        History(messages[2:], 2, load=lambda: messages[:2]),
        History([], 3, load=lambda: messages[:]),
    ):
        assert len(history) == 3
        assert [*history] == [*reversed([*reversed(history)])] == messages
        assert [history[index] for index in range(-3, 3)] == messages * 2
        assert history[1:] == messages[1:]
        assert history[::-1] == messages[::-1]
        assert history[5:] == []
        assert messages[1] in history
        assert history.index(messages[2]) == 2
        for index in (3, -4):
            with pytest.raises(IndexError):
                history[index]
    assert not History([])
    assert [*History([]).earlier()] == []


def test_earlier_messages_are_read_once_and_only_if_somebody_asks() -> None:
    calls = []

    def load() -> list[Message]:
        calls.append("read")
        return [Message("user", []), Message("assistant", [])]

    history = History([Message("user", [])], 2, load=load)
    assert history[2] is history.fresh[0]
    assert len(history) == 3
    assert calls == []
    assert history[0] is history.earlier()[0]
    assert history[1:][0] is history[1]
    assert history[-3] is history[0]
    assert calls == ["read"]


@apis
def test_earlier_messages_are_what_reading_anew_gives(
    provider: str, name: str, parsed: list[str]
) -> None:
    reader = reader_of()
    records = growing(provider, name)
    history = [history_in(reader, data) for data in records][-1]
    whole = [shown(message) for message in history_in(reader_of(), records[-1])]
    # Others come, and what is remembered changes.
    step = len(STEPS[provider, name](0))
    for kept in (1, 1 + step, -3 * step, -2 * step):
        value = json.loads(records[-1])
        value["request"][name][kept:] = [said("x")]
        history_in(reader, json.dumps(value, separators=COMPACT).encode())
    del parsed[:]
    assert history.shared == 2 * TURNS - 3
    assert [shown(message) for message in history.fresh] == whole[-2:]
    assert parsed == []
    assert shown(history[0]) == whole[0]
    assert [shown(message) for message in history.earlier()] == whole[:-2]
    assert [shown(message) for message in history] == whole
    assert parsed == [f"/request/messages/{number}" for number in range(history.shared)]
