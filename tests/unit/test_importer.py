from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tapes_cli.capture.reader import read
from tapes_cli.capture.sources import Source
from tapes_cli.errors import InterruptedRunError, UsageError
from tapes_cli.importer.prepare import Preparer
from tapes_cli.importer.rejects import RejectsFile
from tapes_cli.importer.report import Accounts, Report, Status
from tapes_cli.importer.settled import Settled, TurnSummary
from tapes_cli.importer.stop import StopRequest, stop_on_signals
from tapes_cli.model.envelope import NIL_ORG, Envelope
from tapes_cli.model.reasons import Reason
from tapes_cli.model.records import Incomplete, Location, Rejected, RejectError, Skipped
from tapes_cli.model.sessionless import Sessionless
from tapes_cli.store.base import ChainedTurn, Outcome, OutcomeKind
from tapes_cli.store.memory import MemoryStore
from tests.support.captures import line, record
from tests.support.turns import make_turn, session

PLACE = Location("a.jsonl", 3, 40)


def _rejected(raw: bytes) -> Rejected:
    return Rejected(PLACE, Reason.NOT_JSON, "the line is not valid JSON", "", raw)


def test_accounts_add_up() -> None:
    accounts = Accounts(stored=1, duplicate=2)
    accounts.count(_rejected(b""))
    accounts.count(Skipped(PLACE, Reason.SESSIONLESS))
    accounts.count(Incomplete(PLACE))
    assert accounts.as_dict() == {
        "read": 6,
        "stored": 1,
        "duplicate": 2,
        "rejected": 1,
        "skipped": 1,
        "incomplete": 1,
    }


def _settled(turn: ChainedTurn, outcome: Outcome) -> Settled:
    return Settled(PLACE, TurnSummary.of(turn), outcome)


def test_a_report_counts_what_a_turn_brings() -> None:
    report = Report("import")
    for words, envelope, sanitised in (
        ("ab", session(), True),
        ("cd", Envelope(), False),
        ("ef", None, False),
    ):
        stored = Outcome(OutcomeKind.STORED, new_nodes=2, new_session=True, sanitised=sanitised)
        report.count_settled(_settled(make_turn(words, 0, envelope), stored))
    report.count_settled(_settled(make_turn("ab", 0, session()), Outcome(OutcomeKind.DUPLICATE)))
    report.count_other(Skipped(PLACE, Reason.SESSIONLESS))
    report.close(2.0)
    found = report.as_dict()
    assert found["records"]["stored"] == 3
    assert found["nodes"] == {"new": 6}
    assert found["sessions"] == {"new": 3, "touched": 2}
    assert found["tokens"] == {"input": 30, "output": 9}
    assert (found["sanitised"], found["synthetic"], found["undated"]) == (1, 1, 0)
    assert found["reasons"] == {"sessionless": 1}
    assert (found["status"], found["exit_code"]) == ("ok", 0)
    assert found["turns_per_second"] == 1.5


def test_rejects_end_a_good_run_with_3_but_do_not_hide_another_end() -> None:
    good, stopped = Report("import"), Report("import", Status.STOPPED, 4)
    for report in (good, stopped):
        report.count_other(_rejected(b""))
        report.close(0.0)
    assert (good.status, good.exit_code) == (Status.REJECTS, 3)
    assert (stopped.status, stopped.exit_code) == (Status.STOPPED, 4)


@pytest.mark.parametrize(
    ("raw", "field", "value"),
    [
        (b'{"a": 1.0}', "record", {"a": 1.0}),
        ("{é".encode(), "record_text", "{é"),
        (b"\xff{", "record_base64", "/3s="),
    ],
)
def test_a_reject_keeps_the_records_own_bytes(
    tmp_path: Path, raw: bytes, field: str, value: object
) -> None:
    rejects = RejectsFile(tmp_path / "r.jsonl")
    rejects.write(_rejected(raw))
    rejects.close()
    kept = json.loads(rejects.path.read_text())
    assert kept[field] == value
    assert (kept["source"], kept["line"], kept["byte_offset"]) == ("a.jsonl", 3, 40)
    assert rejects.path.stat().st_mode & 0o077 == 0
    if field == "record":
        assert raw in rejects.path.read_bytes()


def test_a_line_that_was_cut_short_is_ended_first(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('{"type":"reject","rec')
    rejects = RejectsFile(path)
    rejects.write(_rejected(b"{}"))
    rejects.close()
    assert json.loads(path.read_text().split("\n")[1])["record"] == {}


def test_a_folder_is_no_rejects_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        RejectsFile(tmp_path)


def test_rejects_are_made_only_when_there_are_any(tmp_path: Path) -> None:
    rejects = RejectsFile(tmp_path / "r.jsonl")
    rejects.flush()
    rejects.close()
    assert not rejects.written
    assert not rejects.path.exists()


def test_what_was_not_kept_cannot_be_tried_again(tmp_path: Path) -> None:
    rejects = RejectsFile(tmp_path / "r.jsonl")
    rejects.write(_rejected(b""))
    rejects.close()
    (record,) = read(Source("r", rejects.path))
    assert isinstance(record, Rejected)
    assert record.reason is Reason.RECORD_INVALID
    assert "import its source again" in record.message


def test_the_rejects_file_is_told_from_others(tmp_path: Path) -> None:
    rejects = RejectsFile(tmp_path / "r.jsonl")
    rejects.write(_rejected(b"{}"))
    (tmp_path / "link").symlink_to(rejects.path)
    (tmp_path / "other").touch()
    assert rejects.is_file(tmp_path / "link")
    assert not rejects.is_file(tmp_path / "other")
    assert not rejects.is_file(tmp_path / "none")
    rejects.close()


def test_a_full_disk_is_told() -> None:
    rejects = RejectsFile(Path("/dev/full"))
    with pytest.raises(UsageError, match="cannot be written: No space left on device"):
        rejects.write(_rejected(b"{}"))
    rejects.close()


@pytest.mark.parametrize("raw", [b"{oops", b"\xff", b"[1]", b'{"turns": 5}'])
def test_a_record_that_is_rejected_twice_can_still_be_tried(tmp_path: Path, raw: bytes) -> None:
    capture = tmp_path / "capture"
    capture.write_bytes(raw + b"\n")
    reasons = []
    for round_number in range(3):
        (record,) = read(Source("x", capture))
        assert isinstance(record, Rejected)
        reasons.append(record.reason)
        rejects = RejectsFile(tmp_path / f"{round_number}.jsonl")
        rejects.write(record)
        rejects.close()
        capture = rejects.path
    assert len(set(reasons)) == 1


@pytest.mark.parametrize(
    "text",
    [
        '{"type": "reject", "code": "x", "record_base64": "!"}',
        '{"type": "reject", "code": "x", "record_base64": 5}',
        '{"type": "reject", "code": "x", "record_text": 5}',
    ],
)
def test_a_broken_rejects_file_is_told(tmp_path: Path, text: str) -> None:
    capture = tmp_path / "r.jsonl"
    capture.write_text(text + "\n")
    (record,) = read(Source("x", capture))
    assert isinstance(record, Rejected)
    assert record.reason is Reason.RECORD_INVALID


def test_sessions_are_given_to_turns_without_an_envelope() -> None:
    def prepared(mode: Sessionless) -> object:
        return Preparer(mode).prepare(make_turn("ab", 0, None).turn).session

    assert prepared(Sessionless.LEGACY) is None
    synthetic = Preparer().prepare(make_turn("ab", 0, None).turn)
    assert synthetic.session is not None
    assert synthetic.session.org_id == NIL_ORG
    assert synthetic.session.harness_session_id == synthetic.chain.root_hash[:16]
    with pytest.raises(RejectError) as caught:
        prepared(Sessionless.REJECT)
    assert caught.value.reason is Reason.SESSIONLESS


def test_a_derived_session_may_not_be_its_own_parent() -> None:
    root = make_turn("ab", 0, Envelope()).chain.root_hash[:16]
    turn = make_turn("ab", 0, Envelope(parent=("unknown", root))).turn
    with pytest.raises(RejectError) as caught:
        Preparer().prepare(turn)
    assert caught.value.reason is Reason.PARENT_SELF


def test_a_signal_ends_what_waits_and_only_asks_what_works() -> None:
    stop = StopRequest()
    stop.note(signal.SIGTERM)
    with pytest.raises(InterruptedRunError) as caught:
        stop.end_if_waiting()
    assert caught.value.exit_status == 143
    working = StopRequest()
    working.waiting = False
    working.note(signal.SIGINT)
    working.end_if_waiting()
    assert working.requested
    assert working.exit_status == 130


def test_a_signal_between_two_records_is_not_forgotten() -> None:
    stop = StopRequest()
    records = iter("ab")
    assert stop.wait_for(records) == "a"
    stop.note(signal.SIGINT)
    stop.end_if_waiting()
    with pytest.raises(InterruptedRunError):
        stop.wait_for(records)
    assert not stop.waiting
    assert next(records) == "b"


def test_the_handlers_note_announce_and_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    announced: list[str] = []
    with stop_on_signals(announced.append) as stop:
        stop.waiting = False
        signal.raise_signal(signal.SIGTERM)
        assert stop.exit_status == 143
    assert len(announced) == 1
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_memory_store_knows_nodes_by_org() -> None:
    store, turn = MemoryStore(), make_turn("ab", 0, session())
    assert [store.put(NIL_ORG, node) for node in turn.chain.nodes] == [True, True]
    assert store.put(NIL_ORG, turn.chain.head) is False
    assert len(store) == 2


def test_a_place_reads_like_a_path() -> None:
    assert str(PLACE) == "a.jsonl:3"
    assert str(Location("a", 1, 0, 2)) == "a:1: turns[2]"


def test_a_signal_in_the_middle_of_a_format_is_no_fault_of_the_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> bool:
        raise InterruptedRunError(130)

    (tmp_path / "a").write_text(line(record()))
    monkeypatch.setattr("tapes_cli.capture.formats._says_yes", interrupted)
    with pytest.raises(InterruptedRunError):
        list(read(Source("a", tmp_path / "a")))
