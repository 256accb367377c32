from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapes_cli.capture import tools as tools_module
from tapes_cli.capture.reader import Reader
from tapes_cli.capture.sources import Source
from tapes_cli.capture.tools import Tools
from tapes_cli.model.records import Accepted
from tests.support.captures import record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

MARK = b'"0123456789abcdef"'
LONG = "x" * tools_module.LEAST_BYTES


def tool(name: str, description: str = LONG) -> dict[str, Any]:
    return {"name": name, "description": description, "input_schema": {"type": "object"}}


def turn(number: int, *, first: dict[str, Any] | None = None, **request: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"{LONG} {i}"} for i in range(number)]
    return record(
        request={**(first or {}), "model": "m", "messages": messages, **request},
        answer=f"answer {number}",
    )


def dump(value: Any) -> bytes:
    return json.dumps(value).encode()


@pytest.fixture
def short_lists_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools_module, "LEAST_BYTES", 1)


def told(reader: Reader, path: Path, data: bytes) -> list[Any]:
    path.write_bytes(data + b"\n")
    return [
        (
            [(m.role, json.dumps(m.content)) for m in (*found.turn.history, found.turn.response)],
            found.turn.request_model,
            found.raw(),
        )
        if isinstance(found, Accepted)
        else found
        for found in reader.read(Source("s", path))
    ]


def known(reader: Reader) -> list[bytes]:
    return list(reader._parser.histories._tools._known)


def check(lines: Sequence[bytes], path: Path) -> Reader:
    """Read the lines with one reader; each must be read as it is by a new one."""
    reader = Reader()
    for data in lines:
        assert told(reader, path, data) == told(Reader(), path, data)
    return reader


def test_tools_that_are_sent_again_are_cut_out(tmp_path: Path) -> None:
    lines = [dump(turn(n, tools=[tool("a"), tool("b")])) for n in range(1, 6)]
    reader = check(lines, tmp_path / "c")
    assert known(reader) == [dump([tool("a"), tool("b")])]


def test_tools_may_stand_before_the_messages(tmp_path: Path) -> None:
    lines = [dump(turn(n, first={"tools": [tool("a")]})) for n in range(1, 6)]
    assert known(check(lines, tmp_path / "c")) == [dump([tool("a")])]


def test_other_lists_called_tools_are_no_tools(tmp_path: Path) -> None:
    inner = {"role": "user", "content": [{"type": "x", "tools": [tool("inner")]}]}
    lines = []
    for n in range(1, 6):
        made = turn(n, tools=[tool("a")])
        made["request"]["messages"].insert(n - 1, inner)
        lines.append(dump(made))
    assert dump([tool("inner")]) not in known(check(lines, tmp_path / "c"))


def test_short_lists_are_left_alone(tmp_path: Path) -> None:
    lines = [dump(turn(n, tools=[tool("a", "")])) for n in range(1, 4)]
    assert known(check(lines, tmp_path / "c")) == []


def test_lone_surrogates_are_left_alone(tmp_path: Path) -> None:
    lines = [dump(turn(n, tools=[tool("a", LONG + "\ud800")])) for n in range(1, 4)]
    assert known(check(lines, tmp_path / "c")) == []


# What the decoder of the whole record refuses, and the one that finds the end of a list does not.
ONLY_ALMOST_JSON = [
    *((value, "") for value in (b"NaN", b"-Infinity", b"1e400", b"1" * 400)),
    *((value, "") for value in (b'"\xff"', b'"\xed\xa0\x80"')),
    (b"[" * 900 + b"]" * 900, "\ud800"),
]
NO_JSON = [
    *((value, "") for value in (b"01", b'"\1"', b'"\\x"', b"nul", b"[}", b"1,", b'{"a":1,}')),
    (b"[" * 900 + b"]" * 900, ""),
]


@pytest.mark.parametrize(("value", "text"), [*NO_JSON, *ONLY_ALMOST_JSON])
def test_what_is_no_json_is_told_wherever_it_is(tmp_path: Path, value: bytes, text: str) -> None:
    lines = []
    for n in range(1, 4):
        made = turn(n, tools=[tool("a"), "hole"])
        made["request"]["messages"].append({"role": "user", "content": text})
        lines.append(dump(made))
    broken = [line.replace(b'"hole"', value) for line in lines]
    check([*lines[:2], broken[2], lines[2], *broken], tmp_path / "c")


def test_lists_nested_too_deeply_are_left_alone() -> None:
    deep = b'{"tools": ' + b"[" * 5000 + b"]" * 5000 + b"}"
    assert Tools(MARK).cut_new(deep) is None


def test_only_so_much_is_remembered() -> None:
    kept = Tools(MARK)
    lists = [dump([tool(str(n), "x" * 1_000_000)]) for n in range(6)]
    for tools in lists:
        kept.keep(tools)
        kept.keep(tools)
    assert list(kept._known) == lists[-4:]
    assert kept._spent == sum(map(len, lists[-4:]))
    assert kept.cut_known(b'{"tools": ' + lists[0] + b"}") is None
    cut = kept.cut_known(b'{"tools": ' + lists[-2] + b', "tools": 1}')
    assert cut is not None
    assert cut.data == b'{"tools": ' + MARK + b', "tools": 1}'


VALUES = st.sampled_from(
    [
        None,
        "none",
        [],
        [tool("a", "")],
        [tool("b", "é\u2028")],
        [{"tools": [tool("c", "")]}],
        [1.5e300],
    ]
)


@st.composite
def captures(draw: st.DrawFn) -> Iterator[bytes] | list[bytes]:
    lines = []
    for n in range(1, draw(st.integers(2, 6))):
        place = draw(st.sampled_from(["before", "after", "both", "outside", "in a message"]))
        tools = draw(VALUES)
        made = turn(n, first={"tools": tools} if place in {"before", "both"} else None)
        if place in {"after", "both"}:
            made["request"]["extra"] = {"tools": draw(VALUES)}
            made["request"] = {**made["request"], "tools": tools}
        elif place == "outside":
            made = {"tools": tools, **made}
        elif place == "in a message":
            made["request"]["messages"][-1]["content"] = [{"type": "x", "tools": tools}]
        separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : ")]))
        lines.append(json.dumps(made, separators=separators).encode())
    return lines


@settings(max_examples=150)
@given(lines=captures())
@pytest.mark.usefixtures("short_lists_count")
def test_what_is_cut_out_never_shows(
    lines: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    check(lines, tmp_path_factory.getbasetemp() / "capture.jsonl")
