"""How sessions and conversations look: complete, cut where promised, and harmless."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from tapes_cli.cli.conversation_text import print_conversation
from tapes_cli.cli.session_text import cut, label, middle_cut, rounded, session_table
from tapes_cli.inspection.sessions import Conversation, ListedSession, lay_out
from tapes_cli.model.turn import Usage
from tapes_cli.store.postgres.queries import LandedTurn, NodeRow, SessionRow

if TYPE_CHECKING:
    from tapes_cli.model.json import JSON

EPOCH = datetime(2025, 1, 1, tzinfo=UTC)
SESSION = SessionRow(
    org_id=UUID(int=0),
    id=UUID("01a2057a-55ba-7552-896f-2bcc70c199b4"),
    harness_id="claude",
    harness_session_id="ac9b5a71-50d4-47c2-b771-4d5c3e96d899",
    name=None,
    cwd=None,
    harness_version=None,
    parent_session_id=None,
    started_at=EPOCH,
    last_seen_at=EPOCH,
    turn_count=2,
    total_input_tokens=565_318,
    total_output_tokens=3_827,
    placeholder=False,
)
OTHER = replace(SESSION, id=UUID("01a2057a-55ba-7552-896f-2bcceeeeeeee"), placeholder=True)
_ESCAPES = re.compile(r"\x1b\[[\d;]*m")
_LETHAL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\u2066]")


def node(name: str, content: JSON, parent: str | None = None, at: int = 0) -> NodeRow:
    role = "assistant" if parent else "user"
    moment = EPOCH + timedelta(seconds=at)
    return NodeRow(name, parent, role, content, "model", moment, SESSION.id, None)


def conversation(*nodes: NodeRow, title: str = "", session: SessionRow = SESSION) -> Conversation:
    return Conversation(ListedSession(session, title), None, (), {}, (), lay_out(nodes))


def plain(
    found: Conversation, capsys: pytest.CaptureFixture[str], *, full: bool = False
) -> list[str]:
    print_conversation(found, Console(file=io.StringIO()), full=full)
    return capsys.readouterr().out.splitlines()


def said(content: JSON, capsys: pytest.CaptureFixture[str], *, full: bool = False) -> list[str]:
    """Return what is shown below the heading of a single message."""
    lines = plain(conversation(node("a", content)), capsys, full=full)
    return lines[lines.index("#1 user") + 1 :]


def coloured(found: Conversation, *, width: int = 60, color: bool = True) -> str:
    terminal = Console(
        file=io.StringIO(),
        force_terminal=True,
        width=width,
        markup=False,
        highlight=False,
        color_system="standard",
        no_color=not color,
    )
    print_conversation(found, terminal, full=False)
    assert isinstance(terminal.file, io.StringIO)
    return terminal.file.getvalue()


def test_the_heading_says_where_a_session_belongs(capsys: pytest.CaptureFixture[str]) -> None:
    session = replace(SESSION, cwd="/home/me", harness_version="2.1")
    found = replace(
        conversation(node("a", []), title="A title", session=session),
        parent=OTHER,
        children=(replace(OTHER, harness_session_id="kid", placeholder=False),),
        owners={OTHER.id: OTHER},
        models=("m1", "m2"),
    )
    assert plain(found, capsys)[:12] == [
        "Session 01a2057a-55ba-7552-896f-2bcc70c199b4",
        "  title     A title",
        "  harness   claude 2.1",
        "  known as  ac9b5a71-50d4-47c2-b771-4d5c3e96d899",
        "  org       00000000-0000-0000-0000-000000000000",
        "  folder    /home/me",
        "  time      2025-01-01 00:00:00 to 2025-01-01 00:00:00 UTC",
        "  turns     2; 565,318 tokens in, 3,827 out",
        "  models    m1, m2",
        "  parent    eeeeeeee (claude ac9b5a71-50d4-47c2-b771-4d5c3e96d899, a placeholder)",
        "  child     eeeeeeee (claude kid)",
        f"  history   in part from {label(OTHER)}",
    ]


def test_a_placeholder_says_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert "placeholder" in plain(conversation(session=OTHER), capsys)[1]


def test_messages_stand_one_after_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    usage = Usage(1_200, 30, cache_read_input_tokens=1_000)
    turn = LandedTurn(EPOCH, SESSION.id, "end_turn", usage)
    answer = replace(node("b", [{"type": "text", "text": "Hello."}], "a"), turn=turn)
    question = node("a", [{"type": "text", "text": "Hi.\n\n  there"}])
    lines = plain(conversation(question, answer), capsys)
    assert lines[lines.index("") :] == [
        "",
        "#1 user",
        "  Hi.",
        "",
        "    there",
        "",
        "#2 assistant",
        "  Hello.",
        "  · model · 1,200 tokens in (1,000 cached) · 30 out · end_turn · 2025-01-01 00:00:00 UTC",
    ]


def test_a_turn_that_says_little_is_shown_with_what_it_says(
    capsys: pytest.CaptureFixture[str],
) -> None:
    turn = LandedTurn(None, SESSION.id, "", Usage())
    shown = plain(conversation(replace(node("a", []), turn=turn)), capsys)
    assert shown[-1] == "  · model"


def test_the_turn_of_another_session_is_not_counted_here(
    capsys: pytest.CaptureFixture[str],
) -> None:
    turn = LandedTurn(EPOCH, OTHER.id, "end_turn", Usage(1, 1))
    shared = replace(node("a", []), turn=turn, session_id=OTHER.id)
    orphan = replace(node("b", [], "a"), session_id=None, role="")
    lines = plain(conversation(shared, orphan), capsys)
    assert lines[-3:] == ["#1 user, from session eeeeeeee", "", "#2 (no role), from no session"]


def test_branches_say_where_they_left(capsys: pytest.CaptureFixture[str]) -> None:
    nodes = [node("a", []), node("b", [], "a", 1), node("c", [], "a", 2), node("d", [], None, 3)]
    lines = plain(conversation(*nodes, node("e", [], "gone", 4)), capsys)
    assert [line for line in lines if line.startswith("──")] == [
        "── branch 1 of 4 ──",
        "── branch 2 of 4, from message 1 of branch 1 ──",
        "── branch 3 of 4, a conversation of its own ──",
        "── branch 4 of 4, goes on from a message that is not in the database ──",
    ]
    assert [line for line in lines if line.startswith("#")][:3] == [
        "#1 user",
        "#2 assistant",
        "#2 assistant",
    ]


def test_a_tool_and_its_result_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    content = [
        {"type": "tool_use", "tool_use_id": "t", "tool_name": "Bash", "tool_input": {"c": "ls"}},
        {"type": "tool_use", "tool_use_id": "u", "content": "free text"},
        {"type": "tool_use", "tool_name": "Now"},
        {"type": "tool_result", "tool_result_id": "t", "tool_output": "a\nb", "is_error": False},
        {"type": "tool_result", "tool_result_id": "x", "tool_output": "broken", "is_error": True},
        {"type": "tool_result", "tool_result_id": "t"},
    ]
    assert said(content, capsys) == [
        '  → Bash {"c":"ls"}',
        '  → (no name) "free text"',
        "  → Now {}",
        "  ← result of Bash",
        "    a",
        "    b",
        "  ← error",
        "    broken",
        "  ← result of Bash",
    ]


def test_long_input_and_output_are_cut_unless_all_is_wanted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    content = [
        {"type": "tool_use", "tool_name": "Bash", "tool_input": {"c": "x" * 1_000}},
        {"type": "tool_result", "tool_output": "\n".join(map(str, range(30)))},
        {"type": "tool_result", "tool_output": "y" * 1_000},
    ]
    lines = said(content, capsys)
    assert lines[0].endswith("… (708 more characters)")
    assert lines[1:11] == [
        "  ← result",
        *(f"    {n}" for n in range(8)),
        "    … 22 more lines; --full shows all",
    ]
    assert lines[-2:] == [f"    {'y' * 800}", "    … 200 more characters; --full shows all"]
    whole = "\n".join(said(content, capsys, full=True))
    assert "x" * 1_000 in whole
    assert "y" * 1_000 in whole
    assert "    29\n" in whole
    assert "more" not in whole


def test_thinking_is_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    content = [{"type": "thinking", "thinking": "Hm.\nYes."}, {"type": "thinking"}]
    assert said(content, capsys) == [
        "  (thinking)",
        "    Hm.",
        "    Yes.",
        "  (thinking that was not shown)",
    ]


def test_images_are_named_with_type_and_size(capsys: pytest.CaptureFixture[str]) -> None:
    jpeg = {"type": "base64", "media_type": "image/jpeg", "data": "AAAA" * 50}
    content = [
        {"type": "image", "media_type": "image/png", "image_base64": "AAAA" * 999 + "AA=="},
        {"type": "image", "image_url": "https://example.com/x.png"},
        {"type": "image", "image_url": "data:image/gif;base64,AAAA"},
        {"type": "image", "content": {"file_id": "f"}},
        {
            "type": "tool_result",
            "tool_output": "shot",
            "content": [
                {"type": "text", "text": "shot"},
                {"type": "image", "source": jpeg},
                {"type": "pdf"},
            ],
        },
    ]
    assert said(content, capsys) == [
        "  [image image/png, 2,998 bytes]",
        "  [image https://example.com/x.png]",
        "  [image image/gif, 3 bytes]",
        "  [image (no name)]",
        "  ← result",
        "    shot",
        "    [image image/jpeg, 150 bytes]",
        "    [pdf]",
    ]


def test_blocks_of_other_kinds_show_their_json(capsys: pytest.CaptureFixture[str]) -> None:
    content = [{"type": "server_tool_use", "content": {"q": "x"}}, {"odd": 1}]
    assert said(content, capsys) == [
        '  [server_tool_use] {"content":{"q":"x"}}',
        '  [(no name)] {"odd":1}',
    ]


@pytest.mark.parametrize(
    ("content", "lines"),
    [(None, []), ("words", ["  words"]), ([1, "words"], ["  words"]), ([{"type": "text"}], [""])],
)
def test_content_that_others_have_written_is_shown_as_far_as_it_goes(
    content: JSON, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(content, capsys) == lines


HOSTILE = "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x9b2J \u202eback \r over [bold]b[/bold]\n#9 user"


def test_nothing_in_a_capture_acts_on_the_terminal_or_looks_like_a_heading(
    capsys: pytest.CaptureFixture[str],
) -> None:
    kinds = [
        {"type": "text", "text": HOSTILE},
        {"type": "thinking", "thinking": HOSTILE},
        {"type": "tool_use", "tool_name": HOSTILE, "tool_input": {HOSTILE: HOSTILE}},
        {"type": "tool_result", "tool_output": HOSTILE, "content": [{"type": HOSTILE}]},
        {"type": "image", "media_type": HOSTILE, "image_url": HOSTILE},
        {"type": HOSTILE, "content": HOSTILE},
    ]
    turn = LandedTurn(EPOCH, SESSION.id, HOSTILE, Usage())
    hostile = replace(
        SESSION,
        harness_id=HOSTILE,
        harness_session_id=HOSTILE,
        cwd=HOSTILE,
        harness_version=HOSTILE,
    )
    last = replace(node("a", kinds), role=HOSTILE, model=HOSTILE, turn=turn)
    found = replace(
        conversation(last, title=HOSTILE, session=hostile),
        parent=hostile,
        children=(hostile,),
        owners={hostile.id: hostile},
        models=(HOSTILE,),
    )
    text = "\n".join(plain(found, capsys))
    assert not _LETHAL.search(text)
    assert "[bold]b[/bold]" in text
    shown = _ESCAPES.sub("", coloured(found))
    assert not _LETHAL.search(shown)
    for line in (*text.splitlines(), *shown.splitlines()):
        assert not line.startswith("#9")
    table = Console(file=io.StringIO(), width=120)
    table.print(session_table([ListedSession(hostile, HOSTILE)], 120))
    assert isinstance(table.file, io.StringIO)
    assert not _LETHAL.search(table.file.getvalue())


@given(text=st.text(max_size=40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_any_text_is_indented_and_harmless(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_conversation(
        conversation(node("a", [{"type": "text", "text": text}])),
        Console(file=io.StringIO()),
        full=False,
    )
    out = capsys.readouterr().out
    assert not _LETHAL.search(out)
    message = out.partition("#1 user\n")[2]
    assert all(line.startswith("  ") or not line for line in message.split("\n"))


def test_on_a_terminal_text_wraps_below_its_indent_and_reminders_are_dim() -> None:
    reminder = "<system-reminder>be nice</system-reminder>"
    text = f"{reminder}{'word ' * 30}\n<system-reminder>never closed"
    shown = coloured(conversation(node("a", [{"type": "text", "text": text}])))
    message = shown.partition("#1 user")[2].split("\n")[1:]
    assert len(message) > 4
    assert all(_ESCAPES.sub("", line).startswith("  ") for line in message if line)
    assert all(cell_len(_ESCAPES.sub("", line)) <= 60 for line in message)
    assert f"\x1b[2m{reminder}" in shown
    assert "\x1b[2m<system-reminder>never closed" in shown
    assert "\x1b[2mword" not in shown


def test_errors_are_red_unless_colour_is_off() -> None:
    content = [{"type": "tool_result", "tool_output": "broken", "is_error": True}]
    found = conversation(node("a", content))
    assert "\x1b[31mbroken" in coloured(found)
    assert "\x1b[31m" not in coloured(found, color=False)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1_000, "1.0k"),
        (9_949, "9.9k"),
        (9_960, "10k"),
        (565_318, "565k"),
        (999_499, "999k"),
        (999_500, "1.0M"),
        (7_800_000_000, "7.8G"),
        (5_000_000_000_000, "5000G"),
    ],
)
def test_counts_are_rounded_to_four_characters(number: int, text: str) -> None:
    assert rounded(number) == text


@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["C", "M", "Z"])), st.integers(3, 20)
)
def test_cut_text_fits(text: str, cells: int) -> None:
    for shown in (cut(text, cells), middle_cut(text, cells)):
        assert cell_len(shown) <= max(cells, 0)
        assert shown == text or "…" in shown


def table_lines(width: int, *sessions: ListedSession) -> list[str]:
    terminal = Console(file=io.StringIO(), width=width)
    terminal.print(session_table(sessions, width))
    assert isinstance(terminal.file, io.StringIO)
    return [line.rstrip() for line in terminal.file.getvalue().splitlines()]


def test_the_list_fits_eighty_columns_and_shows_ids_whole() -> None:
    child = replace(OTHER, parent_session_id=SESSION.id, placeholder=False, turn_count=0)
    lines = table_lines(
        80,
        ListedSession(SESSION, "Run the generate-claude-fixture skill, and then some"),
        ListedSession(child, ""),
        ListedSession(OTHER, ""),
    )
    assert lines == [
        "ID       LAST SEEN (UTC)  HARNESS SESSION   TURNS    TOKENS TITLE",
        "70c199b4 2025-01-01 00:00 claude  ac9b…d899     2 565k/3.8k Run the generate-cl…",
        "eeeeeeee 2025-01-01 00:00 claude  ac9b…d899     0 565k/3.8k ↳ -",
        "eeeeeeee 2025-01-01 00:00 claude  ac9b…d899     2 565k/3.8k (placeholder)",
    ]


def test_a_wide_terminal_shows_the_title_and_a_narrow_one_the_id() -> None:
    session = ListedSession(SESSION, "Run the generate-claude-fixture skill")
    assert table_lines(140, session)[1].endswith("  Run the generate-claude-fixture skill")
    narrow = table_lines(50, session)
    assert "SESSION" not in narrow[0]
    assert narrow[1].startswith("70c199b4 2025-01-01 00:00 claude  Run")
