"""A dry run says what an import then does, and writes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg

from tests.support.captures import line, record
from tests.support.command import tapes

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.command import Result

_CLOCKS = frozenset({"seconds", "turns_per_second", "dry_run"})


def _summary(done: Result) -> dict[str, Any]:
    return {name: value for name, value in done.summary.items() if name not in _CLOCKS}


def _everything(dsn: str) -> list[tuple[Any, ...]]:
    """All rows with where they lie: whatever is written again lies elsewhere."""
    with psycopg.connect(dsn) as conn:
        return [
            row
            for table in ("sessions", "nodes", "import_sources", "import_leases")
            for row in conn.execute(
                f"SELECT ctid, xmin, t FROM {table} AS t ORDER BY ctid".encode()
            )
        ]


def _conversation(session: str, turns: int) -> str:
    messages: list[dict[str, Any]] = []
    lines = []
    for number in range(turns):
        messages = [*messages, {"role": "user", "content": f"question {number}"}]
        envelope = {
            "harness_id": "claude",
            "harness_session_id": session,
            "parent_harness_session_id": "parent",
        }
        request = {"model": "m", "messages": messages}
        lines.append(
            line(record(f"a\0{number}", f"answer {number}", request=request, session=envelope))
        )
        messages = [*messages, {"role": "assistant", "content": f"answer {number}"}]
    return "".join(lines)


def test_it_reports_what_the_import_then_does(database: str, tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    first.write_text(_conversation("s1", 30) + "bad\n" + line(record("q", session=None)))
    second.write_text(_conversation("s1", 40) + _conversation("s2", 700))
    asked = ("--dsn", database, "-o", "jsonl", "-v", tmp_path)
    before = _everything(database)
    for _ in range(2):
        tried = tapes("import", "--dry-run", *asked)
        assert _everything(database) == before
        done = tapes("import", *asked)
        assert _summary(tried) == _summary(done)
        assert (tried.status, tried.err.count("Rejected")) == (
            done.status,
            done.err.count("Rejected"),
        )
        assert [r for r in tried.records if r["type"] == "turn"] == [
            r for r in done.records if r["type"] == "turn"
        ]
        assert tried.summary["dry_run"]
        before = _everything(database)
        first.write_text(first.read_text() + line(record("more")))


def test_it_takes_no_rejects_and_says_that_it_wrote_nothing(database: str, tmp_path: Path) -> None:
    capture, rejects = tmp_path / "a.jsonl", tmp_path / "r.jsonl"
    capture.write_text("bad\n" + line(record()))
    done = tapes("import", "--dry-run", "--dsn", database, "--rejects", rejects, capture)
    assert done.status == 3
    assert "Would store 1 turn as 2 new nodes in 1 session (1 new)" in done.out
    assert "Nothing was written." in done.out
    assert not rejects.exists()


def test_it_runs_beside_an_import_and_where_nothing_may_be_written(
    database: str, tmp_path: Path
) -> None:
    capture = tmp_path / "a.jsonl"
    capture.write_text(line(record()))
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute(
            "INSERT INTO import_leases VALUES ('import', gen_random_uuid(), 'elsewhere', 1, '',"
            " clock_timestamp(), clock_timestamp(), 30)"
        )
        name = conn.info.dbname
        conn.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
    done = tapes("import", "--dry-run", "--dsn", database, "-o", "jsonl", capture)
    assert done.summary["records"]["stored"] == 1


def test_it_never_migrates(empty_database: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(line(record()))
    done = tapes("import", "--dry-run", "--migrate", "--dsn", empty_database, tmp_path)
    assert done.status == 6
