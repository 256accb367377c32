from __future__ import annotations

import re
import time
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapes_cli.merkle.projection import (
    REWRITTEN_TAGS,
    WHITE_SPACE,
    project_block,
    project_content,
    project_text,
    prune,
)

if TYPE_CHECKING:
    from tapes_cli.model.blocks import ContentBlock

# Small pieces of tags and white space, so that chance puts them together in every way.
PIECES = st.sampled_from(
    [
        *(f"<{tag}>" for tag in REWRITTEN_TAGS[:3]),
        *(f"</{tag}>" for tag in REWRITTEN_TAGS[:3]),
        "<system-",
        "reminder>",
        "<command-na",
        "me>",
        "<",
        "<c",
        *" \t\r\n\v\u0085\u00a0\u001cab",
        "\r\n",
        "  \n\n",
    ]
)
TEXTS = st.lists(PIECES, max_size=14).map("".join)


def by_the_letter(text: str) -> str:
    """Follow the specification's steps, without a thought for time."""
    for tag in REWRITTEN_TAGS:
        opening, closing = f"<{tag}>", f"</{tag}>"
        while (start := text.find(opening)) >= 0:
            end = text.find(closing, start + len(opening))
            text = text[:start] + (text[end + len(closing) :] if end >= 0 else "")
    text = text.replace("\r\n", "\n")
    text = re.sub("[ \t]+\n", "\n", text)
    text = re.sub("\n{2,}", "\n", text)
    while text and text[0] in WHITE_SPACE:
        text = text[1:]
    while text and text[-1] in WHITE_SPACE:
        text = text[:-1]
    return text


@given(TEXTS)
def test_text_is_projected_by_the_letter(text: str) -> None:
    assert project_text(text) == by_the_letter(text)


@given(TEXTS, st.sampled_from(REWRITTEN_TAGS), st.text("xyz<>/\n", max_size=8))
def test_a_reminder_at_the_end_changes_nothing(text: str, tag: str, inside: str) -> None:
    if f"<{tag}>" in project_text(text) or "<" in text:
        return
    assert project_text(f"{text}\n<{tag}>{inside}</{tag}>\n") == project_text(text)


@pytest.mark.parametrize(
    ("text", "projected"),
    [
        ("a<system-reminder>x</system-reminder>b", "ab"),
        ("a<system-<system-reminder>x</system-reminder>reminder>y</system-reminder>b", "ab"),
        (
            "a<system-reminder>x<system-reminder>y</system-reminder>z</system-reminder>b",
            "az</system-reminder>b",
        ),
        ("a<command-name>x<system-reminder>y</command-name>z</system-reminder>b", "a"),
        ("a <local-command-caveat>the rest", "a"),
        ("a<System-Reminder>x</System-Reminder>b", "a<System-Reminder>x</System-Reminder>b"),
        ("a \t\r\n\r\n\r\nb", "a\nb"),
        ("a\rb\r", "a\rb"),
        ("\u001ca\u001f", "\u001ca\u001f"),
        ("\u3000a\u200b", "a\u200b"),
    ],
)
def test_text(text: str, projected: str) -> None:
    assert project_text(text) == projected


def test_white_space_is_unicodes_own() -> None:
    python_only = {"\u001c", "\u001d", "\u001e", "\u001f"}
    assert set(WHITE_SPACE) == {c for c in map(chr, range(0x110000)) if c.isspace()} - python_only
    assert len(WHITE_SPACE) == len(set(WHITE_SPACE))


@pytest.mark.parametrize(
    "text",
    [
        " " * 400_000 + "x \nb",
        "<system-reminder></system-reminder>" * 12_000,
        "<system-" * 10_000
        + "<system-reminder></system-reminder>"
        + "reminder></system-reminder>" * 10_000,
        "\n" * 400_000 + "x",
    ],
    ids=["blanks", "many spans", "spans within spans", "line feeds"],
)
def test_hostile_text_takes_time_in_proportion(text: str) -> None:
    begun = time.process_time()
    project_text(text)
    # Measured: 0.02 s. Work that grows with the square of the length takes minutes.
    assert time.process_time() - begun < 5


def test_is_error_is_always_there_and_other_empty_fields_never() -> None:
    block: ContentBlock = {
        "type": "tool_use",
        "text": "",
        "image_url": "",
        "tool_input": {},
        "tool_output": "",
        "thinking": "",
        "content": [],
    }
    assert project_block(block) == {"type": "tool_use", "is_error": False}


def test_a_whole_block_goes_with_its_text() -> None:
    content: list[ContentBlock] = [
        {"type": "text", "text": " <system-reminder>x</system-reminder>\n"},
        {"type": "text", "text": ""},
        {"type": "text", "text": " a "},
    ]
    assert project_content(content) == [
        {"type": "text", "is_error": False},
        {"type": "text", "is_error": False, "text": "a"},
    ]


def test_what_is_hashed_of_each_field() -> None:
    block: ContentBlock = {
        "type": "x",
        "text": " t ",
        "image_url": "u",
        "image_base64": "b",
        "media_type": "m",
        "tool_use_id": "i",
        "tool_name": "n",
        "tool_input": {"a": 1, "b": None},
        "tool_result_id": "r",
        "tool_output": " o ",
        "is_error": True,
        "thinking": " k ",
        "thinking_signature": "s",
        "content": {"null": None},
    }
    before = deepcopy(block)
    expected: dict[str, Any] = {**block, "text": "t", "tool_input": {"a": 1}}
    del expected["thinking_signature"]
    assert project_block(block) == expected
    assert block == before


@pytest.mark.parametrize("content", [0, False, 0.0, "x", ["x"], {"a": None}])
def test_raw_content_that_says_something_is_hashed(content: object) -> None:
    assert project_block({"type": "x", "content": content}) == {
        "type": "x",
        "is_error": False,
        "content": content,
    }


@pytest.mark.parametrize("kind", ["tool_result", ""])
def test_raw_parts_of_a_tool_result_are_not_hashed(kind: str) -> None:
    block: ContentBlock = {"type": kind, "tool_output": "o", "content": [{"type": "image"}]}
    assert project_block(block) == {"type": kind, "is_error": False, "tool_output": "o"}


JSON_VALUES = st.recursive(
    st.sampled_from([None, False, True, 0, 0.0, -1, "", " "]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=1), inner, max_size=3)
    ),
    max_leaves=10,
)


def pruned_by_the_letter(members: dict[str, Any]) -> dict[str, Any]:
    kept = {}
    for key, value in members.items():
        inner = pruned_by_the_letter(value) if isinstance(value, dict) else value
        if inner is None or inner is False or inner in ("", 0, [], {}):
            continue
        kept[key] = inner
    return kept


@given(st.dictionaries(st.text("abc", max_size=1), JSON_VALUES, max_size=3))
def test_arguments_are_pruned_by_the_letter(tool_input: dict[str, Any]) -> None:
    before = deepcopy(tool_input)
    assert prune(tool_input) == pruned_by_the_letter(tool_input)
    assert tool_input == before
    assert prune(prune(tool_input)) == prune(tool_input)


def test_pruning_knows_no_depth() -> None:
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"a": deep}
    assert prune(deep) == {}
