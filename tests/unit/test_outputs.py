"""The files of a run: the report as a document, and the metrics."""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapes_cli.importer.metrics import Gauge, last_success_in, metrics_text
from tapes_cli.importer.outputs import Execution, SourceTally, report_document, write_atomically
from tapes_cli.importer.report import Accounts, Report, SourceReport, Status
from tapes_cli.importer.settled import Settled, TurnSummary
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import Incomplete, Location, Rejected, Skipped
from tapes_cli.store.base import Outcome, OutcomeKind
from tests.support.metrics import parse_metrics
from tests.support.turns import make_turn, session

if TYPE_CHECKING:
    from pathlib import Path

    from tapes_cli.model.records import Record

BEGAN = datetime(2026, 3, 2, 9, 0, 0, 123456, tzinfo=UTC)
EXECUTION = Execution(BEGAN, BEGAN + timedelta(seconds=2), 2.25, "host", 42, "1.2.3")
NEVER = 0.0


def _report(**changes: Any) -> Report:
    report = Report("import", sources=3, unchanged=4, new_nodes=7, new_sessions=2)
    report.records = Accounts(stored=5, duplicate=4, rejected=3, skipped=2, incomplete=1)
    report.input_tokens, report.output_tokens = 11, 12
    report.reasons = Counter({"not_json": 3, "sessionless": 2})
    for name, value in changes.items():
        setattr(report, name, value)
    return report


def test_metrics_are_those_of_the_run() -> None:
    report = _report(exit_code=3)
    report.count_settled(_settled(0))
    assert parse_metrics(metrics_text(report, EXECUTION, 17.5)) == {
        "tapes_import_last_run_timestamp_seconds": 1772442002.123,
        "tapes_import_last_success_timestamp_seconds": 17.5,
        "tapes_import_duration_seconds": 2.25,
        "tapes_import_exit_status": 3,
        ("tapes_import_records", "outcome", "stored"): 6,
        ("tapes_import_records", "outcome", "duplicate"): 4,
        ("tapes_import_records", "outcome", "rejected"): 3,
        ("tapes_import_records", "outcome", "skipped"): 2,
        ("tapes_import_records", "outcome", "incomplete"): 1,
        ("tapes_import_sources", "state", "read"): 3,
        ("tapes_import_sources", "state", "unchanged"): 4,
        "tapes_import_new_nodes": 8,
        ("tapes_import_sessions", "state", "new"): 2,
        ("tapes_import_sessions", "state", "touched"): 1,
        ("tapes_import_tokens", "direction", "input"): 21,
        ("tapes_import_tokens", "direction", "output"): 15,
        ("tapes_import_reasons", "code", "not_json"): 3,
        ("tapes_import_reasons", "code", "sessionless"): 2,
    }


def test_a_metric_without_samples_is_not_described() -> None:
    text = metrics_text(_report(reasons=Counter()), EXECUTION, NEVER)
    assert not any(key[0] == "tapes_import_reasons" for key in parse_metrics(text))


@given(st.dictionaries(st.text(), st.integers(0, 2**53), min_size=1), st.text(min_size=1))
def test_label_values_and_meanings_are_escaped(samples: dict[str, int], meaning: str) -> None:
    lines = Gauge("x", meaning, "code", samples).lines()
    found = parse_metrics("".join(f"{line}\n" for line in lines))
    assert found == {("tapes_import_x", "code", k): v for k, v in samples.items()}


@given(st.lists(st.sampled_from([0, 1, 2, 3, 5, 130]), min_size=1))
def test_the_last_success_outlives_failures_and_never_goes_back(statuses: list[int]) -> None:
    text, last, moment = "", NEVER, BEGAN
    for status in statuses:
        moment += timedelta(hours=1)
        execution = Execution(moment, moment, 1.0, "host", 42, "1")
        text = metrics_text(_report(exit_code=status), execution, last_success_in(text))
        found = parse_metrics(text)["tapes_import_last_success_timestamp_seconds"]
        assert found == (pytest.approx(moment.timestamp()) if status == 0 else last)
        assert found >= last
        last = found


@pytest.mark.parametrize("value", ["", "x", "NaN", "+Inf", "-5", "1 2"])
def test_metrics_that_were_damaged_know_of_no_success(value: str) -> None:
    assert last_success_in(f"tapes_import_last_success_timestamp_seconds {value}\n") == NEVER


class _Observer:
    """Remembers what it hears."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def other(self, record: Record) -> None:
        self.heard.append(record)

    def settled(self, settled: Settled) -> None:
        self.heard.append(settled)

    def source_done(self, source: SourceReport) -> None:
        self.heard.append(source)

    def progress(self, report: Report, source: str) -> None:
        self.heard.append((report, source))


def _place(number: int, name: str = "turn-record") -> Location:
    return Location(f"{number}.jsonl", 3, 40, number=number, format=name)


def _settled(number: int, kind: OutcomeKind = OutcomeKind.STORED) -> Settled:
    turn = make_turn("ab", 0, session())
    return Settled(_place(number), TurnSummary.of(turn), Outcome(kind, new_nodes=1))


def test_sources_that_were_not_finished_are_told_as_far_as_they_are_settled() -> None:
    observer = _Observer()
    tally = SourceTally(observer)
    done, last = SourceReport("1.jsonl", number=1, seconds=0.5), _settled(2, OutcomeKind.DUPLICATE)
    report = Report("import")
    said: list[Record | Settled] = [
        Rejected(_place(2, ""), Reason.NOT_JSON, "no", "", b""),
        Skipped(_place(2), Reason.SESSIONLESS),
        Incomplete(_place(1)),
        _settled(0),
        _settled(2),
        last,
    ]
    for heard in said:
        if isinstance(heard, Settled):
            tally.settled(heard)
            continue
        tally.other(heard)
        if isinstance(heard, Incomplete):
            done.count(heard)
    tally.source_done(done)
    tally.progress(report, "2.jsonl")
    assert observer.heard == [*said, done, (report, "2.jsonl")]
    first, second, third = tally.records()
    assert (first["source"], first["finished"]) == ("0.jsonl", False)
    assert second == {**done.as_dict(), "finished": True}
    assert third.pop("seconds") >= 0
    assert third == {
        "source": "2.jsonl",
        "format": ["turn-record"],
        "records": {
            "read": 4,
            "stored": 1,
            "duplicate": 1,
            "rejected": 1,
            "skipped": 1,
            "incomplete": 0,
        },
        "reasons": {"not_json": 1, "sessionless": 1},
        "finished": False,
    }


def test_the_document_is_the_summary_and_what_is_known_of_the_run() -> None:
    report = _report(rejects_file="r.jsonl")
    report.fail("Lost.", "Look for it.", 5)
    document = json.loads(report_document(report, EXECUTION, [{"source": "a"}]))
    summary = report.as_dict()
    assert {name: document[name] for name in summary} == summary
    assert {name: value for name, value in document.items() if name not in summary} == {
        "started_at": "2026-03-02T09:00:00.123Z",
        "finished_at": "2026-03-02T09:00:02.123Z",
        "host": "host",
        "pid": 42,
        "version": "1.2.3",
        "failure": {"message": "Lost.", "hint": "Look for it."},
        "rejects_file": "r.jsonl",
        "per_source": [{"source": "a"}],
    }
    assert summary["status"] == Status.FAILED.value


def test_a_run_that_did_not_fail_has_no_failure() -> None:
    document = json.loads(report_document(_report(), EXECUTION, []))
    assert (document["failure"], document["rejects_file"]) == (None, None)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0, 0o644)])
def test_a_file_is_replaced_as_a_whole(tmp_path: Path, umask: int, mode: int) -> None:
    path = tmp_path / ("x" * 250)
    path.write_text("old")
    path.chmod(0o600)
    before = os.umask(umask)
    try:
        write_atomically(path, "new")
    finally:
        os.umask(before)
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert [*tmp_path.iterdir()] == [path]


def test_a_file_that_cannot_be_written_is_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "report.json"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [*tmp_path.iterdir()] == [path]
