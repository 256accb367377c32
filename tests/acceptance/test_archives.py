"""Folders that mix all formats, as operators have them."""

from __future__ import annotations

import gzip
import itertools
import os
import re
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tapes_cli.capture.formats import supported
from tests.fuzz.captures import CAPTURES
from tests.support.command import Result, tapes
from tests.support.real import REAL
from tests.support.reference import DOCS
from tests.support.rollouts import Rollout
from tests.support.transcripts import Transcript, call, text
from tests.support.turns import rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

_real = pytest.mark.skipif(not REAL.is_dir(), reason="no real captures")


def run(dsn: str, *words: str | Path) -> Result:
    return tapes("import", "--dsn", dsn, "-o", "jsonl", *words)


def rows_of(dsn: str) -> dict[str, list[dict[str, Any]]]:
    with psycopg.connect(dsn) as conn:
        return rows(conn)


def rows_after(dsn: str, paths: Iterable[Path]) -> dict[str, list[dict[str, Any]]]:
    """The rows after importing the files one by one into an empty database."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("TRUNCATE nodes, sessions")
    for path in paths:
        assert run(dsn, path).status == 0
    return rows_of(dsn)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A folder with a capture of every format, some of them compressed, and other files.

    No turn is captured twice in different ways: such a one stays as it was first brought.
    """
    folder = tmp_path / "archive"
    for name, files in CAPTURES.items():
        (folder / name).mkdir(parents=True)
        for file, data in files.items():
            compressed = name == "codex-rollout"
            (folder / name / file).write_bytes(gzip.compress(data) if compressed else data)
    (folder / "README.md").write_text("Notes.\n" * 20)
    (folder / "cut.jsonl.gz").write_bytes(gzip.compress(CAPTURES["batch"]["a.jsonl"])[:-9])
    mislabelled = CAPTURES["claude-code-transcript"]["b.jsonl"]
    (folder / "mislabelled.har").write_bytes(mislabelled)
    return folder


def test_a_mixed_folder_is_imported_by_any_number_of_workers(database: str, archive: Path) -> None:
    first = run(database, archive, "--workers", "1")
    summary, alone = first.summary, rows_of(database)
    assert first.status == 3
    assert {r["code"] for r in first.records if r["type"] == "reject"} == {
        "unrecognised_record",
        "source_unreadable",
    }
    assert summary["formats"].keys() == CAPTURES.keys() - {"batch-api"} | {
        "batch-api-input",
        "batch-api-output",
    }
    again = run(database, archive)
    assert (again.summary["records"]["stored"], again.summary["nodes"]["new"]) == (0, 0)
    assert rows_of(database) == alone
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("TRUNCATE nodes, sessions")
    shared = run(database, archive, "--workers", "3")
    assert rows_of(database) == alone
    for name in ("records", "reasons", "formats", "lossy", "undated"):
        assert shared.summary[name] == summary[name], name


def test_what_was_found_is_said_for_each_file(archive: Path) -> None:
    told = tapes("validate", archive).err
    for line in (
        "/README.md: 0 sound turns, 1 rejected",
        "/mislabelled.har: claude-code-transcript, 1 sound turn",
        "/wire-recording: wire-recording, 1 sound turn",
        "/codex-rollout/a.jsonl: codex-rollout, 4 sound turns",
    ):
        assert line in told
    found = tapes("validate", "-o", "jsonl", archive / "har").records
    assert {record.get("format") for record in found[:-1]} == {"har"}


def test_files_say_why_their_records_were_skipped(archive: Path) -> None:
    told = tapes("validate", archive / "raw-turns").err
    assert "raw-turns, 4 sound turns, 0 rejected, 1 skipped (transcript_row 1)" in told


def test_lossy_turns_are_marked(database: str, archive: Path) -> None:
    done = run(database, archive / "claude-code-transcript")
    assert done.summary["lossy"] == done.summary["records"]["stored"] == 5
    with psycopg.connect(database) as conn:
        sources = conn.execute("SELECT DISTINCT harness_metadata->>'source' FROM sessions")
        assert sources.fetchall() == [("claude-code-transcript",)]
    told = tapes("import", "--reread", "--dsn", database, archive / "claude-code-transcript").out
    assert "5 rebuilt from session files" in told


def test_sub_agents_are_children_of_their_session(database: str, tmp_path: Path) -> None:
    main, agent = Transcript(session="s"), Transcript(session="s", agent="a1", prefix="v")
    for each, name in ((main, "m"), (agent, "n")):
        each.prompt(f"go {name}")
        each.answer(name, text("done"))
        each.end()
    (tmp_path / "s" / "subagents").mkdir(parents=True)
    # The child comes first.
    (tmp_path / "s" / "subagents" / "agent-a1.jsonl").write_bytes(agent.data())
    (tmp_path / "s.jsonl").write_bytes(main.data())
    assert run(database, tmp_path).status == 0
    with psycopg.connect(database) as conn:
        found = conn.execute(
            "SELECT c.harness_session_id, p.harness_session_id, p.turn_count FROM sessions AS c "
            "JOIN sessions AS p ON p.org_id = c.org_id AND p.id = c.parent_session_id"
        ).fetchall()
    assert found == [("s/agent-a1", "s", 1)]


def transcript() -> bytes:
    t = Transcript()
    for number in range(4):
        t.prompt(f"question {number}")
        t.answer(f"m{number}", text("I look"), call(f"c{number}"))
        t.result(f"c{number}")
        t.answer(f"n{number}", text(f"answer {number}"))
        t.aside("custom-title", sessionId="s1", customTitle=f"title {number}")
        t.end()
    return t.data()


def rollout() -> bytes:
    r = Rollout().meta()
    for number in range(4):
        r.context().ask(f"question {number}").call(f"c{number}").output(f"c{number}").count()
        r.say(f"answer {number}").count()
    return r.event("task_complete").data


@pytest.mark.parametrize("whole", [transcript(), rollout()], ids=["transcript", "rollout"])
def test_a_file_at_any_moments_in_any_order_gives_the_rows_of_the_last(
    database: str, tmp_path: Path, whole: bytes
) -> None:
    lines = whole.splitlines(keepends=True)
    moments = []
    for number, count in enumerate((len(lines) // 4, len(lines) // 2, len(lines) - 3, len(lines))):
        moments.append(tmp_path / f"{number}.jsonl")
        moments[-1].write_bytes(b"".join(lines[:count]))
    expected = rows_after(database, moments[-1:])
    assert len(expected["nodes"]) > 8
    for order in ((0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)):
        assert rows_after(database, [moments[n] for n in order]) == expected
    # A file that has grown, under one name: the second import adds only what is new.
    growing = tmp_path / "growing.jsonl"
    growing.write_bytes(moments[1].read_bytes())
    rows_after(database, [growing])
    before = len(rows_of(database)["nodes"])
    growing.write_bytes(whole)
    done = run(database, growing)
    assert done.summary["nodes"]["new"] == len(expected["nodes"]) - before
    assert rows_of(database) == expected


def test_the_example_archive(database: str) -> None:
    """What the documents say to do, with it."""
    commands = re.findall(r"```sh\n(.*?)```", (DOCS / "formats.md").read_text(), re.DOTALL)
    for command in commands[0].splitlines():
        tool, *words = command.split()
        assert tool == "tapes-cli"
        words += ["--dsn", database] if words[0] == "import" else []
        done = tapes(*words, "-o", "jsonl", cwd=DOCS.parent)
        assert done.status == 0, done.err
        assert done.summary["records"]["stored"] == 11
        assert done.summary["reasons"] == {"batch_input": 1}
        assert len(done.summary["formats"]) == 7
    with psycopg.connect(database) as conn:
        named = conn.execute("SELECT count(*) FROM sessions WHERE name = 'Build fails'").fetchone()
        children = conn.execute(
            "SELECT harness_session_id FROM sessions WHERE parent_session_id IS NOT NULL"
        ).fetchall()
    assert named == (1,)
    assert [found for (found,) in children] == ["5b0d8a52-6a1e-4c0f-9d7e-2f3a4b5c6d7e/agent-a1f2c3"]


def test_every_format_is_documented() -> None:
    page = (DOCS / "formats.md").read_text()
    for found in supported():
        assert f"| `{found.name}` |" in page


@_real
class TestReal:
    def test_wire_and_turn_records_are_the_same(self, database: str) -> None:
        wire, records = REAL / "wire-recordings", REAL / "claude-recordings.turns.jsonl"
        for order in ((wire, records), (records, wire)):
            rows_after(database, [])
            first, second = (run(database, path).summary for path in order)
            assert (first["records"]["stored"], first["nodes"]["new"]) == (17, 34)
            assert first["tokens"] == {"input": 565318, "output": 3827}
            assert (second["records"]["duplicate"], second["nodes"]["new"]) == (17, 0)

    def test_raw_turns(self, database: str) -> None:
        done = run(database, REAL / "raw-turns")
        assert done.status == 0
        assert done.summary["records"] == {
            **dict.fromkeys(("duplicate", "rejected", "incomplete"), 0),
            "read": 24,
            "stored": 20,
            "skipped": 4,
        }
        assert done.summary["reasons"] == {"transcript_row": 4}

    @pytest.mark.parametrize("kind", ["claude-code", "codex"])
    def test_growth(self, database: str, kind: str) -> None:
        moments = sorted((REAL / kind / "growth").iterdir(), key=lambda p: p.stat().st_size)
        expected = rows_after(database, moments[-1:])
        for order in _some(list(itertools.permutations(moments))):
            assert rows_after(database, order) == expected


def _some(orders: list[Sequence[Path]]) -> list[Sequence[Path]]:
    """Every order if that is asked for, else a few."""
    return orders if os.environ.get("TAPES_ALL_ORDERS") else orders[:: len(orders) // 3]
