"""What an import remembers of captures, and what makes it read them again."""

from __future__ import annotations

import gzip
import json
import os
import time
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tapes_cli.cli.reading import Asked
from tapes_cli.importer import checkpoints as remembering
from tapes_cli.importer.rejects import RejectsFile
from tapes_cli.model.sessionless import Sessionless
from tapes_cli.store.postgres.checkpoints import CheckpointStore
from tapes_cli.store.postgres.migrations import migrate_down, migrate_up
from tests.support.captures import line, record
from tests.support.corpus import setting, turns_of
from tests.support.exchanges import exchange, history, wire_files
from tests.support.importing import Heard, How, import_here
from tests.support.provider_bodies import whole
from tests.support.schema import query
from tests.support.transcripts import Transcript, text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tapes_cli.importer.report import Report, SourceReport

TURNS = turns_of(3, 20)
_moments = count(int(time.time()) - 7200)


def _write(path: Path, *pieces: str | bytes, mode: str = "w") -> Path:
    """Write a file, at a moment of its own."""
    with path.open(f"{mode}b") as file:
        file.writelines(p.encode() if isinstance(p, str) else p for p in pieces)
    return _touch(path)


def _append(path: Path, *pieces: str | bytes) -> Path:
    return _write(path, *pieces, mode="a")


def _touch(path: Path) -> Path:
    moment = next(_moments)
    os.utime(path, (moment, moment))
    return path


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """Give a capture of four turns in a folder of its own."""
    (tmp_path / "captures").mkdir()
    return _write(tmp_path / "captures" / "a.jsonl", *TURNS[:4])


# --- what is not read again ----------------------------------------------------------------------


def test_what_did_not_change_is_not_opened(
    database: str, capture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_here(database, [capture])
    opened: list[Path] = []
    open_ = Path.open

    def noted(path: Path, *arguments: Any, **options: Any) -> Any:
        opened.append(path)
        return open_(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", noted)
    heard = import_here(database, [capture])
    assert (heard.files, heard.read) == ((0, 1), 0)
    assert capture not in opened
    heard = import_here(database, [_touch(capture)])
    assert (heard.files, heard.read) == ((1, 0), 4)
    assert capture in opened


def test_many_files_that_did_not_change_take_no_time(database: str, tmp_path: Path) -> None:
    files = setting("TAPES_FAULT_FILES", 2_000)
    for number in range(files):
        place = tmp_path / str(number % 40)
        place.mkdir(exist_ok=True)
        (place / f"{number}.jsonl").write_text(line(record(f"question {number}")))
    assert import_here(database, [tmp_path]).report.records.stored == files
    began = time.monotonic()
    assert import_here(database, [tmp_path]).files == (0, files)
    assert time.monotonic() - began < 2 * max(1, files / 10_000)


def test_a_file_that_has_grown_is_read_from_where_it_was_left(database: str, capture: Path) -> None:
    import_here(database, [capture])
    heard = import_here(database, [_append(capture, *TURNS[4:7])])
    assert (heard.files, heard.read, heard.report.records.stored) == ((1, 0), 3, 3)
    assert import_here(database, [capture]).files == (0, 1)


def test_a_file_that_was_rotated_is_known_under_its_new_name(database: str, capture: Path) -> None:
    import_here(database, [capture])
    folder, rotated = capture.parent, capture.with_name("a.jsonl.1")
    capture.rename(rotated)
    _write(capture, *TURNS[4:6])
    heard = import_here(database, [folder])
    assert (heard.files, dict(heard.turns)) == ((1, 1), {"a.jsonl": 2})
    # What still was in somebody's buffer when it was renamed.
    heard = import_here(database, [_append(rotated, *TURNS[6:7]), capture])
    assert (heard.files, dict(heard.turns)) == ((1, 1), {"a.jsonl.1": 1})
    assert import_here(database, [folder]).files == (0, 2)


def test_a_file_that_another_machine_has_read_is_known_by_what_it_holds(
    database: str, capture: Path
) -> None:
    import_here(database, [capture])
    elsewhere = How(host="another machine")
    assert import_here(database, [capture], elsewhere).files == (0, 1)
    assert query(database, "SELECT host FROM import_sources") == [("another machine",)]
    # Another file, of which inode, size and time happen to be the same.
    before = capture.stat()
    _write(capture, *(turn.replace(": 0", ": 1") for turn in TURNS[:4]))
    os.utime(capture, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert import_here(database, [capture]).report.records.stored == 4


# --- what is read again --------------------------------------------------------------------------


def test_a_file_that_was_rewritten_is_read_again(database: str, capture: Path) -> None:
    import_here(database, [capture])
    size = capture.stat().st_size
    _write(capture, *(turn.replace(": 0", ": 1") for turn in TURNS[:4]))
    assert capture.stat().st_size == size
    assert import_here(database, [capture]).report.records.stored == 4
    _write(capture, TURNS[9], *TURNS[:4])
    assert import_here(database, [capture]).read == 5
    os.truncate(capture, len(TURNS[9]))
    assert import_here(database, [_touch(capture)]).read == 1


def test_an_archive_that_has_grown_is_read_whole(database: str, tmp_path: Path) -> None:
    archive = _write(tmp_path / "a.jsonl.gz", gzip.compress("".join(TURNS[:4]).encode()))
    import_here(database, [archive])
    assert import_here(database, [archive]).files == (0, 1)
    _append(archive, gzip.compress("".join(TURNS[4:6]).encode()))
    records = import_here(database, [archive]).report.records
    assert (records.stored, records.duplicate) == (2, 4)


def test_a_session_file_that_has_grown_is_read_whole(database: str, tmp_path: Path) -> None:
    session = Transcript()
    session.prompt("Hello")
    session.answer("m1", text("Hi"))
    session.prompt("Go on")
    session.answer("m2", text("Done"))
    session.end()
    file = _write(tmp_path / "s1.jsonl", session.data())
    assert import_here(database, [file]).report.records.stored == 2
    assert import_here(database, [file]).files == (0, 1)
    session.prompt("And then?")
    session.answer("m3", text("Nothing"))
    session.end()
    records = import_here(database, [_write(file, session.data())]).report.records
    # What was said before is in the chain of the third turn, although it stands further up.
    assert (records.stored, records.duplicate) == (1, 2)
    (row,) = query(database, "SELECT count(*), max(turn_count) FROM nodes, sessions")
    assert row == (6, 3)


def test_a_recording_is_read_again_when_a_file_of_it_changes(database: str, tmp_path: Path) -> None:
    recordings = tmp_path / "recordings"
    for name, told in (("turn-1", exchange(texts=["one"])), ("turn-2", exchange())):
        (recordings / name).mkdir(parents=True)
        for file, data in wire_files(told).items():
            _write(recordings / name / file, data)
    assert import_here(database, [recordings]).report.records.stored == 2
    assert import_here(database, [recordings]).files == (0, 2)
    _touch(recordings / "turn-2" / "response.sse")
    heard = import_here(database, [recordings])
    assert (heard.files, dict(heard.turns)) == ((1, 1), {"turn-2": 1})


READINGS = (
    How(asked=Asked(org="11111111-1111-4111-8111-111111111111")),
    How(asked=Asked(project="p")),
    How(asked=Asked(format="turn-record")),
    How(asked=Asked(since="2026-03-01")),
    How(sessionless=Sessionless.LEGACY),
    How(again=True),
)


@pytest.mark.parametrize("how", READINGS)
def test_another_way_of_reading_reads_again(database: str, capture: Path, how: How) -> None:
    import_here(database, [capture])
    assert import_here(database, [capture], how).read == 4
    assert import_here(database, [capture]).files == (0, 1)
    if not how.again:
        assert import_here(database, [capture], how).files == (0, 1)


@pytest.mark.parametrize(("bad", "read"), [("[]\n", 5), ("", 0)])
def test_another_version_looks_again_at_what_was_passed_over(
    database: str, capture: Path, monkeypatch: pytest.MonkeyPatch, bad: str, read: int
) -> None:
    _append(capture, bad)
    import_here(database, [capture])
    assert import_here(database, [capture]).read == 0
    monkeypatch.setattr(remembering, "version", lambda _name: "99.0")
    assert import_here(database, [capture]).read == read
    assert import_here(database, [capture]).read == 0


def _emptied(database: str) -> None:
    query(database, "TRUNCATE nodes, sessions")


def _migrated_down_and_up(database: str) -> None:
    migrate_down(database)
    migrate_up(database)


@pytest.mark.parametrize("forget", [_emptied, _migrated_down_and_up])
def test_a_database_that_begins_anew_remembers_nothing(
    database: str, capture: Path, forget: Callable[[str], None]
) -> None:
    folder = capture.parent
    import_here(database, [folder])
    forget(database)
    other = _write(folder / "b.jsonl", *TURNS[4:5])
    import_here(database, [other])
    heard = import_here(database, [folder])
    assert (heard.files, heard.turns["a.jsonl"]) == ((1, 1), 4)


# --- rejects and what is incomplete --------------------------------------------------------------


def test_a_line_that_was_incomplete_is_taken_up_where_it_stands(
    database: str, capture: Path
) -> None:
    _append(capture, TURNS[4][:100])
    heard = import_here(database, [capture])
    assert (heard.read, heard.incomplete) == (5, [("a.jsonl", 5)])
    assert import_here(database, [capture]).read == 1
    _append(capture, TURNS[4][100:], "\n[]\n", '{"half')
    heard = import_here(database, [capture])
    assert (heard.turns["a.jsonl"], heard.read) == (1, 3)
    assert heard.rejected == [("a.jsonl", 7, "not_object")]
    assert heard.incomplete == [("a.jsonl", 8)]
    _append(capture, " no more}\n[]\n", TURNS[5])
    heard = import_here(database, [capture])
    assert [(number, reason) for _, number, reason in heard.rejected] == [
        (8, "not_json"),
        (9, "not_object"),
    ]
    assert import_here(database, [capture]).files == (0, 1)


def test_strict_does_not_get_past_a_reject(database: str, capture: Path) -> None:
    _append(capture, "[]\n", *TURNS[4:6])
    for _ in range(2):
        heard = import_here(database, [capture], How(strict=True))
        assert heard.report.exit_code == 4
        assert heard.rejected == [("a.jsonl", 5, "not_object")]
    heard = import_here(database, [capture])
    assert heard.rejected == [("a.jsonl", 5, "not_object")]
    assert heard.turns["a.jsonl"] == 6
    assert import_here(database, [capture]).files == (0, 1)


class KilledError(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("workers", [1, 2])
def test_rejects_are_on_the_disk_before_what_holds_them_is_remembered(
    database: str, capture: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, workers: int
) -> None:
    _append(capture, "[]\n")
    _write(capture.with_name("b.jsonl"), "[]\n", *TURNS[4:9])
    done: list[str] = []
    write, fsync = RejectsFile.write, os.fsync

    def written(*arguments: Any) -> None:
        done.append("write")
        write(*arguments)

    def brought_to_disk(number: int) -> None:
        done.append("fsync")
        fsync(number)

    def killed(*_arguments: Any) -> None:
        done.append("save")
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(remembering, "_SAVE_EVERY_SECONDS", 0.0)
        patch.setattr(RejectsFile, "write", written)
        patch.setattr(os, "fsync", brought_to_disk)
        patch.setattr(CheckpointStore, "save", killed)
        how = How(rejects=tmp_path / "rejects", workers=workers)
        with pytest.raises(KilledError):
            import_here(database, [capture.parent], how)
    before_the_first = done[: done.index("save")]
    assert before_the_first[-1] == "fsync"
    assert "write" in before_the_first
    heard = import_here(database, [capture.parent], how)
    assert (heard.report.records.rejected, heard.report.records.duplicate) == (2, 9)
    assert len((tmp_path / "rejects").read_text().splitlines()) == 2 + done.count("write")


@pytest.mark.parametrize("workers", [1, 2])
def test_what_holds_rejects_that_nobody_kept_is_not_remembered(
    database: str, capture: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(remembering, "_SAVE_EVERY_SECONDS", 0.0)
    _write(capture.with_name("b.jsonl"), *TURNS[4:5], "[]\n")
    heard = import_here(database, [capture.parent], How(rejects=Path("/dev/full"), workers=workers))
    assert heard.report.exit_code == 2
    assert import_here(database, [capture.parent]).rejected == [("b.jsonl", 2, "not_object")]


class _Swapper(Heard):
    """Lets another database take the place of the one that is imported into, after all is stored.

    So it is after a failover to a server that did not have everything.
    """

    def __init__(self, server: str, database: str, other: str) -> None:
        super().__init__()
        self._server = server
        self._names = [dsn.rpartition("/")[2] for dsn in (database, other)]

    def source_done(self, source: SourceReport) -> None:
        del source
        self.swap()

    def swap(self) -> None:
        first, second = self._names
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = ANY (%s)"
        with psycopg.connect(self._server, autocommit=True) as conn:
            conn.execute(ended, (self._names,))
            for old, new in ((first, "aside"), (second, first), ("aside", second)):
                conn.execute(f"ALTER DATABASE {old} RENAME TO {new}".encode())


def test_nothing_is_remembered_where_the_turns_are_not(
    postgres_server: str, database: str, empty_database: str, capture: Path
) -> None:
    migrate_up(empty_database)
    import_here(empty_database, [_write(capture.parent.parent / "other", line(record()))])
    heard = import_here(
        database, [capture], heard=_Swapper(postgres_server, database, empty_database)
    )
    assert heard.report.records.stored == 4
    assert import_here(database, [capture]).report.records.stored == 4


def test_answers_of_a_batch_are_tried_again_when_the_requests_come(
    database: str, tmp_path: Path
) -> None:
    body = json.loads(whole("openai", [{"type": "text", "text": "Hi"}]))
    answer = {"status_code": 200, "request_id": "r", "body": body}
    output = {"id": "b1", "custom_id": "q1", "response": answer, "error": None}
    asked = {"custom_id": "q1", "method": "POST", "url": "/v1/chat/completions"}
    _write(tmp_path / "out.jsonl", line(output))
    _write(tmp_path / "other.jsonl", line(record()))
    for _ in range(2):
        heard = import_here(database, [tmp_path])
        assert heard.rejected == [("out.jsonl", 1, "batch_unmatched")]
    assert heard.files == (1, 1)
    _write(tmp_path / "in.jsonl", line(asked | {"body": history("openai", ["question"])}))
    heard = import_here(database, [tmp_path])
    assert (heard.rejected, dict(heard.turns)) == ([], {"out.jsonl": 1})
    assert import_here(database, [tmp_path]).files == (0, 3)


# --- in the middle of a file ---------------------------------------------------------------------


class _Killer(Heard):
    """Ends the import when so many turns are told of."""

    def __init__(self, turns: int) -> None:
        super().__init__()
        self._turns = turns

    def progress(self, report: Report, source: str) -> None:
        del report, source
        if self.turns.total() >= self._turns:
            raise KilledError


def _large(path: Path, lines: Sequence[str], bad: int) -> Path:
    return _write(path, *lines[:bad], "[]\n", *lines[bad:])


@pytest.mark.parametrize("workers", [1, 2])
def test_a_large_file_is_read_on_from_where_an_import_was_killed(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(remembering, "_MARK_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(remembering, "_SAVE_EVERY_SECONDS", 0.0)
    lines = turns_of(40, 60)
    capture = _large(tmp_path / "large.jsonl", lines, bad=300)
    how = How(workers=workers, rejects=tmp_path / "rejects")
    with pytest.raises(KilledError):
        import_here(database, [capture], how, _Killer(len(lines) // 2))
    heard = import_here(database, [capture], how)
    assert heard.report.exit_code == 0
    assert 0 < heard.read < len(lines)
    (landed,) = query(database, "SELECT count(*) FROM nodes WHERE landings = 1")[0]
    assert landed == len(lines)
    assert len((tmp_path / "rejects").read_text().splitlines()) == 1
    assert import_here(database, [capture], how).files == (0, 1)
