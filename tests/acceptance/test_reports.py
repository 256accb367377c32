"""What an import leaves behind when nobody watches: `--report` and `--metrics`."""

from __future__ import annotations

import json
import os
import signal
import socket
from datetime import datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.captures import line, record
from tests.support.command import tapes
from tests.support.metrics import parse_metrics
from tests.support.running import start_import

if TYPE_CHECKING:
    from pathlib import Path

NOBODY_THERE = "postgresql://nobody@127.0.0.1:1/none?connect_timeout=2"
LAST_SUCCESS = "tapes_import_last_success_timestamp_seconds"
SKIPPED = {"source": "transcript", "raw_request": {}}


def _captures(folder: Path) -> Path:
    folder.mkdir()
    (folder / "a.jsonl").write_text(line(record("a")) * 2 + "nonsense\n" + line([1]))
    (folder / "b.jsonl").write_text(line(SKIPPED) + line(record("b")) + '{"provider": "anthr')
    return folder


def _report(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def test_the_report_has_the_summary_and_each_source(database: str, tmp_path: Path) -> None:
    captures, report, rejects = _captures(tmp_path / "in"), tmp_path / "report.json", tmp_path / "r"
    done = tapes(
        "import",
        *("--dsn", database, "-o", "jsonl", "--report", report, "--rejects", rejects),
        captures,
    )
    found = _report(report)
    assert (done.status, found["exit_code"]) == (3, 3)
    assert {name: found[name] for name in done.summary} == done.summary
    assert (found["host"], found["version"]) == (socket.gethostname(), version("tapes-cli"))
    began, ended = (datetime.fromisoformat(found[name]) for name in ("started_at", "finished_at"))
    assert 0 < (ended - began).total_seconds() < 60
    assert found["pid"] > 0
    assert (found["failure"], found["rejects_file"]) == (None, str(rejects))
    for source in found["per_source"]:
        assert source.pop("seconds") >= 0
    nothing = dict.fromkeys(found["records"], 0)
    assert found["per_source"] == [
        {
            "source": str(captures / "a.jsonl"),
            "format": ["turn-record"],
            "records": nothing | {"read": 4, "stored": 1, "duplicate": 1, "rejected": 2},
            "reasons": {"not_json": 1, "not_object": 1},
            "finished": True,
        },
        {
            "source": str(captures / "b.jsonl"),
            "format": ["raw-turns", "turn-record"],
            "records": nothing | {"read": 3, "stored": 1, "skipped": 1, "incomplete": 1},
            "reasons": {"transcript_row": 1},
            "finished": True,
        },
    ]


def test_several_workers_report_the_same(database: str, tmp_path: Path) -> None:
    captures, report = _captures(tmp_path / "in"), tmp_path / "report.json"
    tapes("import", "--dsn", database, "--report", report, "--workers", "2", captures)
    found = _report(report)
    assert [source["records"]["read"] for source in found["per_source"]] == [4, 3]
    assert all(source["finished"] for source in found["per_source"])


def test_metrics_tell_how_the_run_went(database: str, tmp_path: Path) -> None:
    captures, metrics = _captures(tmp_path / "in"), tmp_path / "tapes.prom"
    done = tapes("import", "--dsn", database, "-o", "jsonl", "--metrics", metrics, captures)
    found = parse_metrics(metrics.read_text())
    for outcome in ("stored", "duplicate", "rejected", "skipped", "incomplete"):
        assert found["tapes_import_records", "outcome", outcome] == done.summary["records"][outcome]
    assert found["tapes_import_sources", "state", "read"] == 2
    assert found["tapes_import_new_nodes"] == done.summary["nodes"]["new"]
    assert found["tapes_import_tokens", "direction", "input"] == done.summary["tokens"]["input"]
    assert found["tapes_import_exit_status"] == 3
    assert found["tapes_import_reasons", "code", "transcript_row"] == 1
    assert found["tapes_import_duration_seconds"] > 0
    assert found[LAST_SUCCESS] == 0


def test_the_last_success_is_kept_while_runs_fail(database: str, tmp_path: Path) -> None:
    capture, metrics = tmp_path / "a.jsonl", tmp_path / "tapes.prom"
    capture.write_text(line(record()))
    runs = []
    for dsn, status in ((database, 0), (NOBODY_THERE, 5), (NOBODY_THERE, 5), (database, 0)):
        assert tapes("import", "--dsn", dsn, "--metrics", metrics, capture).status == status
        runs.append(parse_metrics(metrics.read_text()))
    assert [found["tapes_import_exit_status"] for found in runs] == [0, 5, 5, 0]
    successes = [found[LAST_SUCCESS] for found in runs]
    assert successes[0] == successes[1] == successes[2] < successes[3]
    ends = [found["tapes_import_last_run_timestamp_seconds"] for found in runs]
    assert ends == sorted(set(ends))
    assert (successes[0], successes[3]) == (ends[0], ends[3])


def test_a_database_that_is_away_is_in_the_report(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = tapes("import", "--dsn", NOBODY_THERE, "--report", report, stdin=line(record()))
    found = _report(report)
    assert (done.status, found["exit_code"], found["status"]) == (5, 5, "failed")
    assert f"Error: {found['failure']['message']}\n" in done.err
    assert found["failure"]["hint"] in done.err
    assert found["records"]["read"] == 0
    assert found["per_source"] == []


def test_a_schema_that_is_missing_is_in_the_report(empty_database: str, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = tapes("import", "--dsn", empty_database, "--report", report, stdin=line(record()))
    assert (done.status, _report(report)["exit_code"]) == (6, 6)


def test_an_import_that_is_interrupted_reports_what_is_settled(
    database: str, tmp_path: Path
) -> None:
    captures, report, metrics = (tmp_path / name for name in ("in", "report", "tapes.prom"))
    process = start_import(
        database, "-o", "jsonl", "--report", report, "--metrics", metrics, _captures(captures), "-"
    )
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    found = _report(report)
    assert process.returncode == found["exit_code"] == 130
    summary = json.loads(out.splitlines()[-1])
    assert {name: found[name] for name in summary} == summary
    *done, last = found["per_source"]
    assert [source["finished"] for source in done] == [True, True]
    assert (last["source"], last["finished"]) == ("<stdin>", False)
    for name, count in summary["records"].items():
        assert sum(source["records"][name] for source in found["per_source"]) == count
    assert last["records"]["read"] >= 500
    assert parse_metrics(metrics.read_text())["tapes_import_exit_status"] == 130


def test_a_dry_run_reports_but_leaves_the_metrics(database: str, tmp_path: Path) -> None:
    report, metrics = tmp_path / "report.json", tmp_path / "tapes.prom"
    metrics.write_text("# HELP tapes_import_exit_status x\n")
    arguments = ("--report", report, "--metrics", metrics)
    done = tapes("import", "--dsn", database, "--dry-run", *arguments, stdin=line(record()))
    assert done.status == 0
    assert _report(report)["dry_run"] is True
    assert metrics.read_text() == "# HELP tapes_import_exit_status x\n"


def test_the_files_are_readable_and_nothing_else_is_left(database: str, tmp_path: Path) -> None:
    report, metrics = tmp_path / "report.json", tmp_path / "tapes.prom"
    report.touch(0o600)
    arguments = ("--report", report, "--metrics", metrics)
    before = os.umask(0o027)
    try:
        tapes("import", "--dsn", database, *arguments, stdin=line(record()))
    finally:
        os.umask(before)
    assert {*tmp_path.iterdir()} == {report, metrics}
    assert [path.stat().st_mode & 0o777 for path in (report, metrics)] == [0o640, 0o640]


def test_a_link_is_followed(database: str, tmp_path: Path) -> None:
    target, report = tmp_path / "report.json", tmp_path / "link"
    report.symlink_to(target)
    assert tapes("import", "--dsn", database, "--report", report, stdin="").status == 0
    assert report.is_symlink()
    assert _report(target)["status"] == "ok"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--report", "none/x.json"], "cannot be written: there is no folder"),
        (["--report", "capture.jsonl/x.json"], "cannot be written: there is no folder"),
        (["--report", "folder"], "it is no regular file."),
        (["--report", "/dev/null"], "it is no regular file."),
        (["--report", "capture.jsonl"], "something else is there, which would be lost."),
        (["--metrics", "capture.prom"], "something else is there, which would be lost."),
        (["--metrics", "metrics.txt"], "the name does not end in .prom."),
        (["--report", "x.prom", "--metrics", "./x.prom"], "name the same file."),
        (["--report", "x", "--rejects", "folder/../x"], "name the same file."),
    ],
)
def test_files_that_cannot_be_written_are_told_before_the_run(
    tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "capture.jsonl").write_text(line(record()))
    (tmp_path / "capture.prom").write_text(line(record()))
    done = tapes("import", "--dsn", NOBODY_THERE, *arguments, "capture.jsonl", cwd=tmp_path)
    assert done.status == 2
    assert sentence in done.err
    assert (tmp_path / "capture.jsonl").read_text() == line(record())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_not_writable_is_told_before_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o555)
    done = tapes("import", "--report", folder / "x.json", stdin="")
    assert done.status == 2
    assert "is not writable." in done.err


def test_a_report_that_cannot_be_written_in_the_end_fails_the_run(
    database: str, tmp_path: Path
) -> None:
    folder, metrics = tmp_path / "folder", tmp_path / "tapes.prom"
    folder.mkdir()
    process = start_import(
        database, "-o", "jsonl", "--report", folder / "report.json", "--metrics", metrics
    )
    folder.rmdir()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2
    summary = json.loads(out.splitlines()[-1])
    assert (summary["status"], summary["exit_code"]) == ("failed", 2)
    assert summary["records"]["stored"] == 1
    assert f"Error: --report {folder / 'report.json'} cannot be written: " in err.decode()
    found = parse_metrics(metrics.read_text())
    assert (found["tapes_import_exit_status"], found[LAST_SUCCESS]) == (2, 0)


def test_reports_in_the_folder_of_the_captures_are_not_read(database: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(line(record()))
    arguments = ("--report", tmp_path / "report.json", "--metrics", tmp_path / "tapes.prom")
    for _ in range(2):
        done = tapes("import", "--dsn", database, "-o", "jsonl", *arguments, tmp_path)
        assert done.status == 0
        assert sum(done.summary["sources"].values()) == 1
