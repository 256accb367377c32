"""What is said on stderr: nothing where nothing is to be said, and in a form to be collected."""

from __future__ import annotations

import json
import signal
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.captures import line, record
from tests.support.command import tapes
from tests.support.running import on_a_terminal, start_import

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.command import Result

NOBODY_THERE = "postgresql://nobody@127.0.0.1:1/none?connect_timeout=2"
CUT_SHORT = '{"provider": "anthr'
SKIPPED = {"source": "transcript", "raw_request": {}}


def _capture(folder: Path) -> Path:
    """Write a capture with which all is well, though much could be said of it."""
    capture = folder / "day.jsonl"
    capture.write_text(line(record()) * 2 + line(SKIPPED) + CUT_SHORT)
    return capture


def _messages(done: Result) -> list[dict[str, Any]]:
    found = [json.loads(text) for text in done.err.splitlines()]
    for message in found:
        assert [*message][:3] == ["time", "level", "message"]
        assert datetime.fromisoformat(message["time"]).utcoffset() is not None
        assert message["level"] in {"info", "warning", "error"}
        assert "\n" not in message["message"]
    return found


# Quiet.


def test_quiet_says_nothing_of_what_is_no_failure(empty_database: str, tmp_path: Path) -> None:
    arguments = ("import", "--dsn", empty_database, "--migrate", _capture(tmp_path))
    for more in ("--quiet", "--verbose"):
        done = tapes(*arguments, "--quiet", more)
        assert (done.status, done.out, done.err) == (0, "", "")
    said = tapes(*arguments, "--reread").err
    assert "Incomplete " in said
    assert "1 skipped" in said


def test_quiet_says_nothing_of_an_embedded_server(reachable_path: Path, tmp_path: Path) -> None:
    capture, folder = _capture(tmp_path), reachable_path / "data"
    done = tapes("import", "--quiet", "--data-dir", folder, capture)
    stopped = tapes("db", "stop", "--quiet", "--data-dir", folder)
    assert (done.status, done.out, done.err) == (0, "", "")
    assert stopped.status == 0


def test_quiet_says_nothing_of_nothing(database: str, tmp_path: Path) -> None:
    done = tapes("import", "--quiet", "--dsn", database, tmp_path)
    assert (done.status, done.out, done.err) == (0, "", "")


def test_quiet_says_all_of_a_run_with_rejects(database: str, tmp_path: Path) -> None:
    capture = _capture(tmp_path)
    capture.write_text("nonsense\n" * 12 + capture.read_text())
    quiet = tapes("import", "--quiet", "--dsn", database, capture)
    assert (quiet.status, quiet.out) == (3, "")
    loud = tapes("validate", capture)
    *rejects, more, first, records = quiet.err.splitlines()[:13]
    assert rejects == loud.err.splitlines()[:10]
    assert more.startswith("… and 2 more rejected: ")
    assert first.startswith("Stored 1 turn as 2 new nodes in 1 session (1 new), ")
    assert "16 read = 1 stored + 1 duplicate + 12 rejected + 1 skipped + 1 incomplete" in records
    assert "Incomplete " not in quiet.err


def test_a_quiet_run_that_fails_says_what_others_say(database: str, tmp_path: Path) -> None:
    rejects = tmp_path / "rejects.jsonl"
    arguments = ("import", "--dsn", database, "--rejects", rejects, "--strict")
    loud = tapes(*arguments, stdin="nonsense\n")
    quiet = tapes(*arguments, "--quiet", stdin="nonsense\n")
    assert (loud.status, quiet.status, quiet.out) == (4, 4, "")
    reject, *summary = quiet.err.splitlines()
    assert reject in loud.err
    assert f"  rejects   {rejects}" in summary
    assert [text.split(", 0.")[0] for text in summary] == [
        text.split(", 0.")[0] for text in loud.out.splitlines()
    ]


def test_quiet_leaves_results_for_machines_as_they_are(database: str) -> None:
    arguments = ("import", "--dsn", database, "-o", "jsonl")
    loud = tapes(*arguments, stdin="nonsense\n")
    quiet = tapes(*arguments, "--quiet", stdin="nonsense\n")
    assert [r["type"] for r in quiet.records] == [r["type"] for r in loud.records]
    assert quiet.status == 3
    assert quiet.err.startswith("Rejected <stdin>:1: ")
    assert "\nStored 0 turns" in quiet.err
    assert tapes(*arguments, "--quiet", stdin=line(record())).err == ""


def test_a_quiet_run_that_is_interrupted_says_so_once(database: str) -> None:
    process = start_import(database, "--quiet")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (143, b"")
    assert err.startswith(b"Stored 1 turn as ")
    assert err.count(b"Interrupted: what is called stored is stored.") == 1


@pytest.mark.parametrize("form", ["text", "json"])
def test_quiet_says_what_failed(form: str) -> None:
    done = tapes(
        *("import", "--quiet", "--log-format", form, "--dsn", NOBODY_THERE), stdin=line(record())
    )
    assert (done.status, done.out) == (5, "")
    if form == "json":
        (message,) = _messages(done)
        assert message["exit_code"] == 5
    else:
        assert done.err.startswith("Error: ")


def test_quiet_validation_says_what_would_be_rejected(tmp_path: Path) -> None:
    capture = _capture(tmp_path)
    good = tapes("validate", "--quiet", capture)
    assert (good.status, good.out, good.err) == (0, "", "")
    capture.write_text(line(record()) + "nonsense\n" * 12)
    bad = tapes("validate", "--quiet", capture)
    assert (bad.status, bad.out) == (3, "")
    assert bad.err.count("Rejected ") == 12
    assert "12 would be rejected." in bad.err


# One JSON object a line.


def test_a_log_has_each_source_and_each_reject(database: str, tmp_path: Path) -> None:
    capture = tmp_path / "day.jsonl"
    capture.write_text(line(record()) + line(record(session={"org_id": "acme"})) + CUT_SHORT)
    done = tapes("import", "--dsn", database, "--log-format", "json", "-v", capture)
    reject, incomplete, stored, source = _messages(done)
    assert done.status == 3
    assert {name: reject[name] for name in ("level", "source", "line", "code", "pointer")} == {
        "level": "warning",
        "source": str(capture),
        "line": 2,
        "code": "org_id_invalid",
        "pointer": "/session/org_id",
    }
    assert reject["message"].startswith(f"Rejected {capture}:2: session.org_id: ")
    assert (incomplete["line"], incomplete["code"]) == (3, "incomplete_line")
    assert (stored["message"], stored["line"]) == (f"Stored {capture}:1", 1)
    assert source["level"] == "info"
    assert source["message"].startswith(f"{capture}: turn-record, 3 read = 1 stored, ")
    assert (source["source"], source["format"]) == (str(capture), ["turn-record"])
    assert source["records"] == {
        "read": 3,
        "stored": 1,
        "duplicate": 0,
        "rejected": 1,
        "skipped": 0,
        "incomplete": 1,
    }
    assert source["reasons"] == {"org_id_invalid": 1}
    assert 0 <= source["seconds"] < 60


def test_a_log_of_a_validation(tmp_path: Path) -> None:
    capture = _capture(tmp_path)
    capture.write_text("nonsense\n" + capture.read_text())
    done = tapes("validate", "--log-format", "json", capture)
    reject, incomplete, source = _messages(done)
    assert (reject["code"], incomplete["code"]) == ("not_json", "incomplete_line")
    assert (source["records"]["stored"], source["records"]["skipped"]) == (2, 1)
    assert done.out.startswith("2 sound turns with ")


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--dsn", NOBODY_THERE, "-"], 5),
        (["no-such-file.jsonl"], 2),
        (["--org", "acme", "-"], 2),
        (["--report", "/no/such/folder/x", "-"], 2),
    ],
)
def test_what_failed_is_one_object(arguments: list[str], status: int) -> None:
    done = tapes("import", "--log-format", "json", *arguments, stdin="")
    assert done.status == status
    (message,) = _messages(done)
    assert (message["level"], message["exit_code"]) == ("error", status)
    assert not message["message"].startswith("Error")
    assert message["hint"]


def test_a_schema_that_is_missing_is_one_object(empty_database: str) -> None:
    done = tapes("import", "--log-format", "json", "--dsn", empty_database, stdin="")
    (message,) = _messages(done)
    assert (done.status, message["exit_code"]) == (6, 6)
    assert "migrate up" in message["hint"]


def test_the_summary_of_a_quiet_run_is_one_object(database: str) -> None:
    arguments = ("--dsn", database, "--log-format", "json", "--quiet", "-o", "jsonl")
    done = tapes("import", *arguments, stdin="nonsense\n" * 11)
    *rejects, more, summary = _messages(done)
    assert len(rejects) == 10
    assert more["message"].startswith("… and 1 more rejected")
    assert summary["summary"] == done.summary
    assert (summary["level"], summary["message"][:15]) == ("warning", "Stored 0 turns ")


def test_a_log_of_an_interruption(database: str) -> None:
    process = start_import(database, "--log-format", "json", "-v")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    said = [json.loads(text) for text in err.splitlines()]
    assert "Stopping after the turns in flight; once more to leave at once." in {
        message["message"] for message in said if message["level"] == "warning"
    }
    assert b"Interrupted: " in out


def test_names_of_files_do_what_they_like_and_harm_nobody(tmp_path: Path) -> None:
    capture = tmp_path / "a\n\x1b[2J\u202e.jsonl"
    capture.write_text("nonsense\n")
    done = tapes("validate", "--log-format", "json", capture)
    assert done.err.isascii()
    reject, _ = _messages(done)
    assert "\x1b" not in reject["message"]
    assert reject["message"].startswith(f"Rejected {tmp_path}/a\\n\\x1b[2J\\u202e.jsonl:1: ")


def test_a_log_on_a_terminal_has_no_progress_bar(database: str, tmp_path: Path) -> None:
    capture = tmp_path / "many.jsonl"
    capture.write_text("".join(line(record(f"question {i}")) for i in range(3000)))
    shown = on_a_terminal("import", "--dsn", database, "--log-format", "json", str(capture))
    (source,) = (json.loads(text) for text in shown.splitlines())
    assert source["records"]["stored"] == 3000
