"""`tapes-cli sessions`, as the installed command."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
import pytest

from tapes_cli.merkle.chain import ChainBuilder
from tapes_cli.model.blocks import Message
from tapes_cli.model.history import History
from tapes_cli.model.turn import Turn, Usage
from tapes_cli.store.base import ChainedTurn
from tapes_cli.store.postgres.store import PostgresStore
from tests.support.command import COMMAND, Result, environment, tapes
from tests.support.turns import make_turn, moment, session, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tapes_cli.model.blocks import ContentBlock

ORG = UUID("11111111-1111-4111-8111-111111111111")
SECRET = "subject-that-nobody-may-see"
_MOST_NESTED = 880  # a little less than what may be imported
HOSTILE = "\x1b[2J\x1b]0;owned\x07 \u202e[red]x[/red]"


def answered(content: list[ContentBlock], at: int, **envelope: Any) -> ChainedTurn:
    turn = Turn(
        provider="anthropic",
        history=History([text("user", f"Please look. {HOSTILE}")]),
        response=Message("assistant", content),
        captured=moment(at),
        request_model="asked",
        response_model="answered",
        stop_reason="end_turn",
        usage=Usage(10, 3, 13),
        envelope=session(**envelope),
    )
    return ChainedTurn.of(turn, ChainBuilder().build(turn))


def store(dsn: str, turns: Sequence[ChainedTurn]) -> None:
    target = PostgresStore(dsn)
    target.ingest(turns)
    target.close()


@pytest.fixture
def filled(database: str) -> str:
    """Give a database with a session, its fork with two answers, and a placeholder."""
    metadata = {"token": SECRET}
    store(
        database,
        [
            make_turn(
                ["q", "a"], 1, session("main-run", auth_subject=SECRET, harness_metadata=metadata)
            ),
            make_turn(["q", "a", "r", "b"], 2, session("side-run", parent=("claude", "main-run"))),
            make_turn(["q", "a", "s", "c"], 3, session("side-run", parent=("claude", "main-run"))),
            make_turn(["z", "y"], 4, session("lost-run", parent=("cursor", "never-seen"))),
        ],
    )
    with psycopg.connect(database) as conn:
        # Times that are equal would leave the order to the ids, which are random.
        conn.execute("UPDATE sessions SET last_seen_at = '2025-01-01 00:00:05Z' WHERE placeholder")
    return database


def run(dsn: str, *arguments: str) -> Result:
    result = tapes("sessions", *arguments, "--dsn", dsn)
    assert SECRET not in result.out + result.err
    return result


def on_a_terminal(dsn: str, *arguments: str) -> str:
    """Run the command on a terminal; give what it shows."""
    terminal, far_end = pty.openpty()
    process = subprocess.Popen(
        [COMMAND, "sessions", *arguments, "--dsn", dsn],
        stdin=far_end,
        stdout=far_end,
        stderr=far_end,
        env=environment(TERM="xterm-256color", COLUMNS="80"),
    )
    os.close(far_end)
    shown = b""
    try:
        while chunk := os.read(terminal, 4096):
            shown += chunk
    except OSError:
        pass  # Linux reports the end of a terminal as an error.
    os.close(terminal)
    assert process.wait() == 0
    return shown.decode()


def test_the_list_shows_the_newest_first_in_eighty_columns(filled: str) -> None:
    result = run(filled, "list")
    assert result.status == 0
    heading, *lines = [line.split() for line in result.out.splitlines()]
    assert heading == [
        "ID",
        "LAST",
        "SEEN",
        "(UTC)",
        "HARNESS",
        "SESSION",
        "TURNS",
        "TOKENS",
        "TITLE",
    ]
    assert [line[4] for line in lines] == ["neve…seen", "lost-run", "side-run", "main-run"]
    assert lines[0][-1] == "(placeholder)"
    assert lines[2][5:] == ["2", "20/6", "↳", "q"]
    assert max(map(len, result.out.splitlines())) <= 80
    assert "\x1b" not in result.out
    for line in lines:
        assert run(filled, "show", line[0]).status == 0


def test_the_list_for_machines(filled: str) -> None:
    *records, summary = run(filled, "list", "-o", "jsonl").records
    assert summary == {
        "type": "summary",
        "command": "sessions list",
        "sessions": 4,
        "next_cursor": None,
    }
    placeholder, _, side, main = records
    assert (placeholder["placeholder"], placeholder["title"]) == (True, None)
    assert side["parent_session_id"] == main["id"]
    assert {key: main[key] for key in main if key != "id"} == {
        "type": "session",
        "org_id": str(UUID(int=0)),
        "harness_id": "claude",
        "harness_session_id": "main-run",
        "name": None,
        "cwd": None,
        "harness_version": None,
        "parent_session_id": None,
        "started_at": "2025-01-01T00:00:01Z",
        "last_seen_at": "2025-01-01T00:00:01Z",
        "turn_count": 1,
        "total_input_tokens": 10,
        "total_output_tokens": 3,
        "placeholder": False,
        "title": "q",
    }
    document = json.loads(run(filled, "list", "-o", "json").out)
    assert document == {"records": records, "summary": summary}


def test_pages_follow_each_other(filled: str) -> None:
    first = run(filled, "list", "--limit", "3", "-o", "jsonl")
    cursor = first.summary["next_cursor"]
    rest = run(filled, "list", "--limit", "3", "--cursor", cursor, "-o", "jsonl")
    names = [record["harness_session_id"] for record in first.records[:-1] + rest.records[:-1]]
    assert names == ["never-seen", "lost-run", "side-run", "main-run"]
    assert rest.summary["next_cursor"] is None
    assert run(filled, "list", "--limit", "1", "--all", "-o", "jsonl").summary["sessions"] == 4
    told = run(filled, "list", "--limit", "3")
    assert f"--cursor {cursor}" in told.err
    assert run(filled, "list", "--limit", "3", "-q").err == ""


def test_the_list_is_narrowed_down(filled: str) -> None:
    def count(*arguments: str) -> int:
        sessions = run(filled, "list", "-o", "jsonl", *arguments).summary["sessions"]
        assert isinstance(sessions, int)
        return sessions

    assert count("--harness", "cursor") == 1
    assert count("--org", str(ORG)) == 0
    assert count("--since", "2025-01-01T00:00:03Z") == 3
    assert count("--since", "2025-01-01T01:00:03+01:00") == 3
    assert count("--until", "2025-01-01 00:00:03") == 1
    assert "no such session" in run(filled, "list", "--org", str(ORG)).err


def test_an_empty_database_says_so_in_one_line(database: str) -> None:
    result = run(database, "list")
    assert (result.status, result.out) == (0, "")
    assert result.err == "No session has been imported yet: tapes-cli import PATH\n"
    assert run(database, "list", "-q").err == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("list", "--since", "yesterday"), "--since is not a time"),
        (("list", "--cursor", "x"), "--cursor is not one"),
        (("list", "--org", "x"), "--org is not a UUID"),
        (("show", "nobody"), "There is no session 'nobody'"),
        (("show", "run"), "may mean several sessions"),
        (("show", " "), "There is no session ''"),
        (("show", os.fsdecode(b"\xff\xfe")), "There is no session"),
    ],
)
def test_wrong_use_is_one_sentence_and_what_to_do(
    filled: str, arguments: tuple[str, ...], message: str
) -> None:
    result = run(filled, *arguments)
    assert (result.status, result.out) == (2, "")
    assert message in result.err
    assert result.err.count("\n") == 2


def test_a_missing_schema_is_not_made(empty_database: str) -> None:
    for arguments in (("list",), ("show", "x")):
        result = run(empty_database, *arguments)
        assert (result.status, result.out) == (6, "")
        assert "migrate up" in result.err


def test_a_conversation_is_shown_with_its_forks_and_relatives(filled: str) -> None:
    result = run(filled, "show", "side-run")
    assert result.status == 0
    header, _, body = result.out.partition("\n\n")
    assert re.search(r"^  parent    [0-9a-f]{8} \(claude main-run\)$", header, re.MULTILINE)
    shown = re.sub(r"[0-9a-f]{8}\n", "MAIN\n", body)
    assert [line for line in shown.splitlines() if line and not line.startswith("  · ")] == [
        "── branch 1 of 2 ──",
        "#1 user, from session MAIN",
        "  q",
        "#2 assistant, from session MAIN",
        "  a",
        "#3 user",
        "  r",
        "#4 assistant",
        "  b",
        "── branch 2 of 2, from message 2 of branch 1 ──",
        "#3 user",
        "  s",
        "#4 assistant",
        "  c",
    ]
    main = run(filled, "show", "main-run").out
    assert re.search(r"^  child     [0-9a-f]{8} \(claude side-run\)$", main, re.MULTILINE)
    lost = run(filled, "show", "lost-run").out
    assert re.search(r"^  parent .*\(cursor never-seen, a placeholder\)$", lost, re.MULTILINE)


def test_a_conversation_for_machines(filled: str) -> None:
    *nodes, summary = run(filled, "show", "side-run", "-o", "jsonl").records
    assert [(n["branch"], n["position"], n["content"][0]["text"]) for n in nodes] == [
        (1, 1, "q"),
        (1, 2, "a"),
        (1, 3, "r"),
        (1, 4, "b"),
        (2, 3, "s"),
        (2, 4, "c"),
    ]
    assert [n["parent_hash"] for n in nodes] == [
        None,
        *(nodes[i]["hash"] for i in (0, 1, 2)),
        nodes[1]["hash"],
        nodes[4]["hash"],
    ]
    side, main = summary["session"], summary["parent"]
    assert {n["session_id"] for n in nodes[:2]} == {main["id"]}
    assert nodes[0]["turn"] is None
    assert nodes[1]["turn"]["session_id"] == main["id"]
    assert nodes[3] == {
        "type": "node",
        "hash": nodes[3]["hash"],
        "parent_hash": nodes[2]["hash"],
        "branch": 1,
        "position": 4,
        "role": "assistant",
        "content": [{"type": "text", "text": "b"}],
        "model": "answered",
        "created_at": "2025-01-01T00:00:02Z",
        "session_id": side["id"],
        "turn": {
            "at": "2025-01-01T00:00:02Z",
            "session_id": side["id"],
            "stop_reason": "end_turn",
            "usage": {
                "input_tokens": 10,
                "output_tokens": 3,
                "total_tokens": 13,
                "cache_creation_input_tokens": None,
                "cache_read_input_tokens": None,
                "total_duration_ns": None,
                "prompt_duration_ns": None,
            },
        },
    }
    assert summary["branches"] == [
        {"branch": 1, "nodes": 4, "from_branch": None, "from_position": None},
        {"branch": 2, "nodes": 2, "from_branch": 1, "from_position": 2},
    ]
    document = json.loads(run(filled, "show", "side-run", "-o", "json").out)
    assert document == {"records": nodes, "summary": summary}


def test_the_same_session_in_two_orgs_is_told_apart_by_org(filled: str) -> None:
    store(filled, [make_turn(["q", "a"], 9, replace(session("main-run"), org_id=ORG))])
    assert run(filled, "show", "main-run").status == 2
    found = run(filled, "show", "main-run", "--org", str(ORG), "-o", "jsonl")
    assert found.summary["session"]["org_id"] == str(ORG)


def test_hostile_text_does_nothing_on_a_terminal(database: str) -> None:
    content: list[ContentBlock] = [
        {"type": "text", "text": HOSTILE},
        {"type": "tool_use", "tool_name": HOSTILE, "tool_input": {"a": HOSTILE}},
        {"type": "tool_result", "tool_output": HOSTILE, "is_error": True},
    ]
    store(database, [answered(content, 1, session_id=f"run {HOSTILE}", name=HOSTILE, cwd=HOSTILE)])
    for arguments in (("list",), ("show", "run")):
        shown = on_a_terminal(database, *arguments)
        assert "\x1b[2J" not in shown
        assert "\x1b]0;" not in shown
        assert "\x07" not in shown
        assert "\u202e" not in shown
        assert "[red]x[/red]" in shown or "…" in shown
        assert "\x1b[" in shown
        plain = on_a_terminal(database, *arguments, "--no-color")
        assert not re.search(r"\x1b\[(?:\d+;)*3[1-7]m", plain)


def test_deep_content_and_long_conversations_are_shown(database: str) -> None:
    words = [f"w{n}" for n in range(5_000)]
    store(database, [make_turn(words, 2, session("long")), make_turn("ab", 1, session("deep"))])
    deep = '{"a":' * _MOST_NESTED + "1" + "}" * _MOST_NESTED
    with psycopg.connect(database) as conn:
        conn.execute(
            "UPDATE nodes SET content = jsonb_build_array("
            """jsonb_build_object('type', 'tool_use', 'tool_input', %s::jsonb))"""
            " WHERE content -> 0 ->> 'text' = 'b'",
            (deep,),
        )
    assert "(no name)" in run(database, "show", "deep").out
    assert deep in run(database, "show", "deep", "-o", "jsonl").out
    assert len(run(database, "show", "long", "-o", "jsonl").records) == 5_001
    assert "#5000 assistant" in run(database, "show", "long").out
