"""`tapes-cli validate`: what an import would do, without a database."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.captures import line, record
from tests.support.command import tapes

VECTORS = Path(__file__).parents[1] / "data" / "hash-vectors.jsonl"


def test_records_come_in_input_order() -> None:
    lines = line(record()) + "bad\n" + line({"turns": [record("b"), 5]})
    done = tapes("validate", "-o", "jsonl", stdin=lines)
    assert done.status == 3
    assert [(r["type"], r.get("line"), r.get("index")) for r in done.records] == [
        ("turn", 1, None),
        ("reject", 2, None),
        ("turn", 3, 0),
        ("reject", 3, 1),
        ("summary", None, None),
    ]
    turn = done.records[0]
    assert turn["session"] == {
        "org_id": "00000000-0000-0000-0000-000000000000",
        "harness_id": "claude",
        "harness_session_id": "s1",
        "synthetic": False,
    }
    assert turn["captured_at"] == "2026-03-02T09:00:00Z"
    assert turn["usage"] == {"input_tokens": 5, "output_tokens": 2}
    assert turn["sanitised"] is False
    assert len(turn["chain"]) == 2


def test_the_golden_hashes_come_out_of_the_command() -> None:
    vectors = [json.loads(text) for text in VECTORS.read_text().split("\n") if text]
    done = tapes("validate", "-o", "jsonl", stdin="\n".join(v["line"] for v in vectors) + "\n")
    found = {r["line"]: r.get("chain") for r in done.records[:-1]}
    assert [found[number] for number in range(1, len(vectors) + 1)] == [
        v.get("chain") for v in vectors
    ]


def test_text_output_counts(tmp_path: Path) -> None:
    capture = tmp_path / "a.jsonl"
    capture.write_text(line(record("a\0")) + "bad\n" + '{"provider"')
    done = tapes("validate", capture)
    assert done.status == 3
    assert "1 sound turn with 2 distinct nodes in 1 session; 1 would be rejected." in done.out
    assert "1 with characters that PostgreSQL cannot store" in done.out
    assert f"Rejected {capture}:2: " in done.err
    assert f"Incomplete {capture}:3: " in done.err


@pytest.mark.parametrize(("option", "read"), [(["--strict"], 1), (["--max-errors", "2"], 3)])
def test_it_stops_early_on_request(option: list[str], read: int) -> None:
    done = tapes("validate", *option, "-o", "jsonl", stdin="x\n" * 5)
    assert done.status == 4
    assert done.summary["records"]["rejected"] == read


def test_sessionless_turns_can_be_refused() -> None:
    done = tapes("validate", "--sessionless", "reject", stdin=line(record(session=None)))
    assert done.status == 3
    assert "[sessionless]" in done.err


def test_quiet_says_nothing() -> None:
    done = tapes("validate", "--quiet", stdin=line(record()))
    assert (done.status, done.out, done.err) == (0, "", "")


def test_a_skipped_database_needs_no_server() -> None:
    done = tapes("validate", "-o", "json", stdin=line(record()), env={"TAPES_DSN": "host=/none"})
    assert json.loads(done.out)["summary"]["exit_code"] == 0
