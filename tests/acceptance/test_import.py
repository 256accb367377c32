"""`tapes-cli import` as its users run it."""

from __future__ import annotations

import gzip
import json
import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.captures import line, record
from tests.support.command import COMMAND, environment, tapes
from tests.support.turns import rows

EXAMPLES = Path(__file__).parents[2] / "examples"


def _rows(dsn: str) -> dict[str, list[dict[str, Any]]]:
    with psycopg.connect(dsn) as conn:
        return rows(conn)


def test_the_examples_are_stored_once(database: str) -> None:
    first = tapes("import", "--dsn", database, "-o", "jsonl", EXAMPLES / "captures")
    assert first.status == 0
    assert first.summary["records"]["stored"] == first.summary["records"]["read"] == 10
    assert first.summary["nodes"] == {"new": 21}
    assert first.summary["sessions"] == {"new": 5, "touched": 5}
    assert first.summary["tokens"] == {"input": 12370, "output": 412}
    stored = _rows(database)
    again = tapes("import", "--dsn", database, "-o", "jsonl", EXAMPLES / "captures")
    assert again.summary["sources"] == {"read": 0, "unchanged": 3}
    again = tapes("import", "--reread", "--dsn", database, "-o", "jsonl", EXAMPLES / "captures")
    assert again.status == 0
    assert again.summary["sources"] == {"read": 3, "unchanged": 0}
    assert again.summary["records"]["duplicate"] == 10
    assert again.summary["nodes"] == {"new": 0}
    assert _rows(database) == stored


def test_a_pipe_without_arguments_is_read(database: str) -> None:
    done = tapes("import", "-o", "jsonl", stdin=line(record()), env={"TAPES_DSN": database})
    assert done.status == 0
    assert done.summary["records"]["stored"] == 1


def test_text_output_says_what_happened(database: str, tmp_path: Path) -> None:
    capture = tmp_path / "day.jsonl"
    capture.write_text(line(record()))
    done = tapes("import", "--dsn", database, capture)
    assert done.out.startswith("Stored 1 turn as 2 new nodes in 1 session (1 new)")
    assert "1 read = 1 stored + 0 duplicate + 0 rejected + 0 skipped + 0 incomplete" in done.out
    assert f"{capture}: turn-record, 1 read = 1 stored" in done.err


def test_quiet_is_silent_on_success(database: str) -> None:
    done = tapes("import", "--dsn", database, "--quiet", EXAMPLES / "captures")
    assert (done.status, done.out, done.err) == (0, "", "")


def test_verbose_names_every_turn(database: str) -> None:
    done = tapes("import", "--dsn", database, "-v", "-o", "jsonl", stdin=line(record()) * 2)
    first, second = (r for r in done.records if r["type"] == "turn")
    assert (first["outcome"], first["new_nodes"], first["line"]) == ("stored", 2, 1)
    assert (second["outcome"], second["new_nodes"], second["line"]) == ("duplicate", 0, 2)


def test_json_is_one_document(database: str) -> None:
    done = tapes("import", "--dsn", database, "-o", "json", stdin="nonsense\n" + line(record()))
    document = json.loads(done.out)
    assert [r["code"] for r in document["records"]] == ["not_json"]
    assert document["summary"]["status"] == "rejects"


BAD: dict[str, Any] = {
    "not_json": "{oops",
    "not_object": [1],
    "unrecognised_record": {"hello": 1},
    "batch_empty": {"turns": []},
    "provider_unsupported": record(provider="someai"),
    "request_invalid": record(request={"messages": 5}),
    "response_invalid": record(response=None),
    "role_missing": record(response={"message": {"content": [{"type": "text", "text": "x"}]}}),
    "content_missing": record(response={"message": {"role": "assistant", "content": []}}),
    "block_type_missing": record(response={"message": {"role": "a", "content": [{"text": "x"}]}}),
    "block_invalid": record(
        response={"message": {"role": "a", "content": [{"type": "text", "text": 5}]}}
    ),
    "usage_invalid": record(
        response={
            "message": {"role": "a", "content": [{"type": "text", "text": "x"}]},
            "usage": {"prompt_tokens": True},
        }
    ),
    "number_overflow": '{"provider": "anthropic", "request": {"model": 1e999}}',
    "org_id_invalid": record(session={"org_id": "acme"}),
    "parent_empty": record(session={"harness_id": "c", "parent_harness_session_id": ""}),
    "parent_self": record(
        session={
            "harness_id": "c",
            "harness_session_id": "s",
            "parent_harness_session_id": "s",
        }
    ),
    "parent_harness_alone": record(session={"harness_id": "c", "parent_harness_id": "d"}),
    "metadata_invalid": record(session={"harness_metadata": None}),
    "session_invalid": record(session={"cwd": 5}),
}


def _bad_line(value: object) -> str:
    return value + "\n" if isinstance(value, str) else line(value)


def test_every_kind_of_bad_line_is_rejected_alone(database: str, tmp_path: Path) -> None:
    capture, rejects = tmp_path / "mixed.jsonl", tmp_path / "rejects.jsonl"
    lines = [
        text
        for number, bad in enumerate(BAD.values())
        for text in (line(record(f"question {number}")), _bad_line(bad))
    ]
    capture.write_text("".join(lines))
    done = tapes("import", "--dsn", database, "-o", "jsonl", "--rejects", rejects, capture)
    found = [r for r in done.records if r["type"] == "reject"]
    assert done.status == 3
    assert done.summary["records"]["stored"] == len(BAD)
    assert [r["code"] for r in found] == list(BAD)
    assert [r["line"] for r in found] == list(range(2, 2 * len(BAD) + 1, 2))
    assert [r["byte_offset"] for r in found] == [
        sum(len(text) for text in lines[: r["line"] - 1]) for r in found
    ]
    assert done.summary["reasons"] == dict.fromkeys(sorted(BAD), 1)
    assert "secret-me" not in done.out + done.err
    kept = [json.loads(text) for text in rejects.read_text().splitlines()]
    assert [r["code"] for r in kept] == list(BAD)


def test_rejects_are_imported_after_a_fix(database: str, tmp_path: Path) -> None:
    rejects = tmp_path / "rejects.jsonl"
    bad = record(session={"org_id": "acme"})
    first = tapes(
        "import", "--dsn", database, "--rejects", rejects, stdin=line(bad) + "{}}\n" + line([1])
    )
    assert first.status == 3
    rejects.write_text(rejects.read_text().replace('"acme"', '""'))
    second = tapes("import", "--dsn", database, "-o", "jsonl", rejects)
    assert second.summary["records"]["stored"] == 1
    assert second.summary["reasons"] == {"not_json": 1, "not_object": 1}


def test_rejects_from_a_pipe_are_kept(database: str, tmp_path: Path) -> None:
    done = tapes(
        "import", "--dsn", database, stdin=b"\xff\n", env={"TAPES_DATA_DIR": str(tmp_path)}
    )
    (kept,) = (tmp_path / "rejects").iterdir()
    assert done.status == 3
    assert str(kept) in done.out
    assert json.loads(kept.read_text())["record_base64"] == "/w=="


def test_an_unfinished_line_from_a_pipe_is_kept(database: str, tmp_path: Path) -> None:
    unfinished = '{"provider": "anthr'
    done = tapes(
        "import",
        *("--dsn", database, "-o", "jsonl"),
        stdin=line(record()) + unfinished,
        env={"TAPES_DATA_DIR": str(tmp_path)},
    )
    (kept,) = (tmp_path / "rejects").iterdir()
    assert done.summary["records"]["incomplete"] == 1
    assert json.loads(kept.read_text())["record_text"] == unfinished


def test_strict_stops_at_the_first_reject(database: str) -> None:
    lines = line(record("a")) + "bad\n" + line(record("b"))
    done = tapes("import", "--dsn", database, "--strict", "-o", "jsonl", stdin=lines)
    assert done.status == 4
    assert done.summary["status"] == "stopped"
    assert done.summary["records"] == {
        "read": 2,
        "stored": 1,
        "duplicate": 0,
        "rejected": 1,
        "skipped": 0,
        "incomplete": 0,
    }


def test_max_errors_bears_as_many(database: str) -> None:
    done = tapes("import", "--dsn", database, "--max-errors", "1", "-o", "jsonl", stdin="x\ny\nz\n")
    assert done.status == 4
    assert done.summary["records"]["rejected"] == 2


def test_only_the_first_rejects_are_shown(database: str) -> None:
    done = tapes("import", "--dsn", database, stdin="x\n" * 12)
    assert done.err.count("Rejected ") == 10
    assert "… and 2 more rejected" in done.err


def test_a_line_that_is_being_written_is_incomplete(database: str, tmp_path: Path) -> None:
    capture = tmp_path / "growing.jsonl"
    capture.write_text(line(record()) + '{"provider": "anthr')
    done = tapes("import", "--dsn", database, "-o", "jsonl", capture)
    assert done.status == 0
    assert done.records[0] == {
        "type": "incomplete",
        "source": str(capture),
        "line": 2,
        "format": None,
        "byte_offset": len(line(record())),
        "code": "incomplete_line",
    }
    told = tapes("import", "--dsn", database, capture)
    assert f"Incomplete {capture}:2: the last line has no newline" in told.err


def test_a_damaged_archive_is_an_error_behind_its_good_lines(database: str, tmp_path: Path) -> None:
    capture = tmp_path / "cut.gz"
    capture.write_bytes(gzip.compress(line(record()).encode() * 400, mtime=0)[:-9])
    done = tapes("import", "--dsn", database, "-o", "jsonl", capture)
    assert done.status == 3
    assert done.summary["records"]["stored"] == 1
    assert done.summary["reasons"] == {"source_unreadable": 1}


def test_a_value_that_postgresql_refuses_rejects_that_turn_alone(database: str) -> None:
    long = "".join(chr(0x4E00 + (i * 7919) % 20000) for i in range(4000))
    refused = record("b", session={"harness_id": "claude", "harness_session_id": long})
    lines = line(record("a")) + line(refused) + line(record("c"))
    done = tapes("import", "--dsn", database, "-o", "jsonl", stdin=lines)
    assert done.status == 3
    (reject,) = (r for r in done.records if r["type"] == "reject")
    assert (reject["code"], reject["line"]) == ("value_refused", 2)
    assert "harness_session_id" in reject["message"]
    assert done.summary["records"]["stored"] == 2


def test_characters_that_postgresql_cannot_store_are_replaced(database: str) -> None:
    odd = record("a\0b", session={"harness_id": "claude", "harness_session_id": "s\0\ud800"})
    done = tapes("import", "--dsn", database, "-o", "jsonl", stdin=line(odd) * 2)
    assert done.summary["records"]["stored"] == 1
    assert done.summary["records"]["duplicate"] == 1
    assert done.summary["sanitised"] == 1
    stored = _rows(database)
    assert stored["sessions"][0]["harness_session_id"] == "s\ufffd\ufffd"
    assert any(n["content"] == [{"type": "text", "text": "a\ufffdb"}] for n in stored["nodes"])


@pytest.mark.parametrize(
    ("mode", "sessions", "synthetic", "code"),
    [("synthetic", 1, 1, None), ("legacy", 0, 0, None), ("reject", 0, 0, "sessionless")],
)
def test_turns_without_an_envelope(
    database: str, mode: str, sessions: int, synthetic: int, code: str | None
) -> None:
    bare = line(record(session=None))
    done = tapes("import", "--dsn", database, "--sessionless", mode, "-o", "jsonl", stdin=bare)
    assert len(_rows(database)["sessions"]) == sessions
    assert done.summary["synthetic"] == synthetic
    assert done.summary["reasons"] == ({code: 1} if code else {})


def test_org_and_project_are_given_to_turns_that_have_none(database: str) -> None:
    org = "11111111-1111-4111-8111-111111111111"
    lines = line(record()) + line(record("b", session=None))
    done = tapes("import", "--dsn", database, "--org", org, "--project", "p", stdin=lines)
    stored = _rows(database)
    assert done.status == 0
    assert {n["org_id"] for n in stored["nodes"]} == {org}
    assert {n["project"] for n in stored["nodes"]} == {"p"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["no-such-file.jsonl"], "no-such-file.jsonl: no such file or folder."),
        (["--org", "acme", "-"], "--org is not a UUID."),
        ([""], "'': no such file or folder."),
        (["--dsn", "", "-"], "--dsn is empty."),
    ],
)
def test_wrong_usage_is_told_in_a_sentence(
    database: str, arguments: list[str], sentence: str
) -> None:
    done = tapes("import", "--dsn", database, *arguments, stdin="")
    assert done.status == 2
    assert sentence in done.err
    assert "Traceback" not in done.err


def test_a_folder_without_files_is_told(database: str, tmp_path: Path) -> None:
    done = tapes("import", "--dsn", database, tmp_path)
    assert done.status == 0
    assert "the arguments name no files" in done.err


def test_a_document_over_several_lines_is_read(database: str) -> None:
    done = tapes("import", "--dsn", database, "-o", "jsonl", stdin=json.dumps(record(), indent=1))
    assert done.status == 0
    assert done.summary["records"]["stored"] == 1


def test_a_file_that_is_no_capture_is_refused_once_and_the_folder_goes_on(
    database: str, tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl").write_text(line(record()))
    (tmp_path / "notes.md").write_text("Some words.\n" * 50)
    (tmp_path / "other.jsonl").write_text(line({"level": "info", "text": "x"}) * 50)
    (tmp_path / "export.json").write_text(json.dumps({"schema": 1, "traces": [{}]}, indent=1))
    done = tapes("import", "--dsn", database, "-o", "jsonl", tmp_path)
    *rejects, summary = done.records
    assert [(Path(r["source"]).name, r["code"]) for r in rejects] == [
        ("export.json", "derived_export"),
        ("notes.md", "unrecognised_record"),
        ("other.jsonl", "unrecognised_record"),
    ]
    assert summary["records"] | {"stored": 1, "rejected": 3, "read": 4} == summary["records"]
    told = "none of the first 50 lines is of a supported capture format "
    assert rejects[1]["message"].startswith(told + "(`tapes-cli formats` lists them); line 1: ")
    assert rejects[2]["message"].endswith("has a record with the keys level, text")
    assert done.status == 3


def test_keys_that_may_be_content_are_not_repeated(database: str) -> None:
    done = tapes("import", "--dsn", database, stdin=line({"my password is hunter2": 1, "a_b": 2}))
    assert "hunter2" not in done.err
    assert "…, a_b" in done.err


def test_a_rejects_file_that_cannot_be_written_is_told(database: str) -> None:
    done = tapes("import", "--dsn", database, "--rejects", "/proc/none/x.jsonl", stdin="x\n")
    assert done.status == 2
    assert "/proc/none/x.jsonl cannot be written" in done.err


def test_the_rejects_file_is_not_read_while_it_is_written(database: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("bad\n")
    rejects = tmp_path / "rejects.jsonl"
    asked = ("--reread", "--dsn", database, "-o", "jsonl")
    for count in (1, 2):
        done = tapes("import", *asked, "--rejects", rejects, tmp_path)
        assert done.summary["records"]["rejected"] == 1
        assert rejects.read_text().count("\n") == count
    refused = tapes("import", "--dsn", database, "--rejects", rejects, rejects)
    assert refused.status == 2
    assert "is both read and written" in refused.err
    with rejects.open("rb") as piped:
        done_piped = subprocess.run(
            [COMMAND, "import", "--dsn", database, "--rejects", str(rejects)],
            stdin=piped,
            env=environment(),
            capture_output=True,
            check=False,
            timeout=60,
        )
    assert done_piped.returncode == 2


def test_a_rejects_file_that_stays_empty_is_not_left_behind(database: str, tmp_path: Path) -> None:
    rejects = tmp_path / "rejects.jsonl"
    done = tapes("import", "--dsn", database, "--rejects", rejects, stdin=line(record()))
    assert done.status == 0
    assert not rejects.exists()


def test_a_full_disk_under_the_rejects_ends_the_run_with_its_accounts(database: str) -> None:
    lines = line(record("a")) + "bad\n" + line(record("b"))
    done = tapes("import", "--dsn", database, "--rejects", "/dev/full", "-o", "jsonl", stdin=lines)
    assert done.status == 2
    assert done.summary["status"] == "failed"
    assert done.summary["records"]["stored"] == 1
    assert done.summary["records"]["rejected"] == 1
    assert "No space left on device" in done.err


def test_results_that_nobody_takes_do_not_stop_the_import(database: str) -> None:
    script = f'{COMMAND} import -v -o jsonl --dsn "{database}"'
    lines = "".join(line(record(f"question {i}")) for i in range(700))
    for target in (">/dev/full", ">&-", ">&- 2>&-"):
        done = subprocess.run(
            ["sh", "-c", f"{script} {target}"],
            input=lines,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0
        assert "Traceback" not in done.stderr
    again = tapes("import", "--dsn", database, "-o", "jsonl", stdin=lines)
    assert again.summary["records"]["duplicate"] == 700


def test_a_named_server_is_never_migrated_silently(empty_database: str) -> None:
    refused = tapes("import", "--dsn", empty_database, stdin=line(record()))
    assert refused.status == 6
    assert "tapes-cli migrate up" in refused.err
    done = tapes("import", "--dsn", empty_database, "--migrate", stdin=line(record()))
    assert done.status == 0


def test_a_server_that_is_away_is_told(tmp_path: Path) -> None:
    done = tapes("import", "--dsn", f"host={tmp_path} user=me password=hunter2", stdin="")
    assert done.status == 5
    assert "hunter2" not in done.err
    assert "Traceback" not in done.err


def test_hostile_names_do_not_reach_the_terminal(database: str, tmp_path: Path) -> None:
    capture = tmp_path / "evil\x1b[2J\nname.jsonl"
    capture.write_text("x\n")
    done = tapes("import", "--dsn", database, capture)
    assert done.status == 3
    assert "\x1b" not in done.err
    assert "evil\\x1b[2J\\nname.jsonl:1" in done.err


def test_a_period_leaves_out_what_was_captured_outside_it(
    database: str, empty_database: str, tmp_path: Path
) -> None:
    capture, wanted = tmp_path / "all.jsonl", tmp_path / "wanted.jsonl"
    messages: list[dict[str, Any]] = []
    lines = []
    for day in range(1, 7):
        messages += [{"role": "user", "content": f"question {day} " * 40}]
        request = {"model": "m", "messages": messages}
        moment = {"captured_at": f"2026-05-{day:02}T12:00:00Z"}
        lines.append(line(record(answer=f"answer {day}", request=request, meta=moment)))
        messages = [*messages, {"role": "assistant", "content": f"answer {day}"}]
    capture.write_text("".join(lines))
    wanted.write_text("".join(lines[2:4]))
    period = ("--since", "2026-05-03", "--until", "2026-05-05T00:00Z")
    done = tapes("import", "--dsn", database, "-o", "jsonl", *period, capture)
    assert done.status == 0
    assert done.summary["records"]["stored"] == 2
    assert done.summary["reasons"] == {"outside_period": 4}
    tapes("import", "--migrate", "--dsn", empty_database, wanted)
    assert _rows(database) == _rows(empty_database)
    checked = tapes("validate", "-o", "jsonl", *period, capture)
    assert checked.summary["reasons"] == {"outside_period": 4}
    rest = tapes("import", "--dsn", database, "-o", "jsonl", capture)
    assert rest.summary["records"] == {**rest.summary["records"], "stored": 4, "duplicate": 2}


def test_a_period_that_is_none_is_refused(tmp_path: Path) -> None:
    done = tapes("validate", "--since", "yesterday", tmp_path)
    assert done.status == 2
    assert "--since is not a time" in done.err
