"""Signals, pipes that close, and terminals: what a person at the keyboard meets."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any

import psycopg
import pytest

from tests.support.captures import line, record
from tests.support.command import COMMAND, environment, tapes
from tests.support.running import on_a_terminal

if TYPE_CHECKING:
    from pathlib import Path


def _start(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """Start a command that will get a signal.

    Without coverage: its tracer holds a lock that does not let a signal handler in again.
    """
    unmeasured = {k: v for k, v in environment(**options).items() if "COVERAGE" not in k}
    return subprocess.Popen(
        [COMMAND, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=unmeasured,
    )


LINES = "".join(line(record(f"question {i}")) for i in range(1200))


def _write_in_background(process: subprocess.Popen[bytes], lines: str) -> threading.Thread:
    """Write to the process, which may be waiting for somebody to read what it writes."""

    def write() -> None:
        # The process may be gone before it has read everything.
        with suppress(BrokenPipeError):
            stdin = _pipe(process.stdin)
            stdin.write(lines.encode())
            stdin.flush()

    thread = threading.Thread(target=write)
    thread.start()
    return thread


def _close(process: subprocess.Popen[bytes]) -> None:
    with suppress(BrokenPipeError):
        _pipe(process.stdin).close()
    _pipe(process.stdout).close()
    _pipe(process.stderr).close()


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_finishes_what_is_in_flight(
    database: str, number: signal.Signals, status: int
) -> None:
    process = _start("import", "--dsn", database, "-v", "-o", "jsonl")
    stdout = _pipe(process.stdout)
    # More than two batches, so that outcomes of the first are told while the pipe stays open.
    writing = _write_in_background(process, LINES)
    first = json.loads(stdout.readline())
    # It waits for more of the pipe now or soon, and must leave nevertheless.
    process.send_signal(number)
    rest = [json.loads(text) for text in stdout.read().splitlines()]
    assert process.wait(timeout=60) == status
    summary = rest[-1]
    assert (summary["status"], summary["exit_code"]) == ("interrupted", status)
    assert summary["records"]["stored"] == len([first, *rest]) - 1
    assert b"Stopping after the turns in flight" in _pipe(process.stderr).read()
    writing.join()
    _close(process)


def test_a_run_after_an_interruption_completes_the_work(database: str) -> None:
    process = _start("import", "--dsn", database, "-v", "-o", "jsonl")
    writing = _write_in_background(process, LINES)
    _pipe(process.stdout).readline()
    process.kill()
    writing.join()
    process.wait()
    _close(process)
    done = tapes("import", "--dsn", database, "-o", "jsonl", stdin=LINES)
    records = done.summary["records"]
    assert done.status == 0
    assert records["stored"] + records["duplicate"] == 1200
    assert records["duplicate"] >= 512


def test_a_slow_pipe_is_stored_as_it_comes(database: str) -> None:
    process = _start("import", "--dsn", database, "-q")
    stdin = _pipe(process.stdin)
    with psycopg.connect(database, autocommit=True) as conn:
        for number in range(600):
            stdin.write(line(record(f"question {number}")).encode())
            stdin.flush()
            time.sleep(0.05)
            stored = conn.execute("SELECT count(*) FROM nodes WHERE landings = 1").fetchone()
            if stored != (0,):
                break
    assert number < 400
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_validate_can_be_interrupted() -> None:
    process = _start("validate", "-o", "jsonl")
    stdin = _pipe(process.stdin)
    stdin.write((line(record()) * 20).encode())
    stdin.flush()
    _pipe(process.stdout).readline()
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads(out.splitlines()[-1])["status"] == "interrupted"


def test_a_reader_that_has_enough_is_no_failure(tmp_path: Path) -> None:
    capture = tmp_path / "many.jsonl"
    capture.write_text(line(record()) * 5000)
    done = subprocess.run(
        ["sh", "-c", f"{COMMAND} validate -o jsonl {capture} | head -n 1; true"],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_an_import_is_not_cut_short_by_a_reader_that_has_enough(database: str) -> None:
    script = f'{COMMAND} import -v -o jsonl --dsn "{database}" | head -n 1; true'
    done = subprocess.run(
        ["sh", "-c", script],
        input=LINES,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.count("\n") == 1
    assert done.stderr.count("\n") == 1
    assert "1200 stored" in done.stderr
    again = tapes("import", "--dsn", database, "-o", "jsonl", stdin=LINES)
    assert again.summary["records"]["duplicate"] == 1200


def test_a_terminal_shows_progress_on_one_line_and_then_what_a_file_was(
    database: str, tmp_path: Path
) -> None:
    capture = tmp_path / "many.jsonl"
    capture.write_text("".join(line(record(f"question {i}")) for i in range(3000)))
    shown = on_a_terminal("import", "--dsn", database, str(capture))
    assert "records read" in shown
    bar, _, told = shown.rpartition(f"{capture}: turn-record, 3000 read = 3000 stored")
    assert "\n" not in bar
    assert told.count("\n") == 1
    assert shown.endswith("\r\x1b[K")


def test_without_anything_to_read_a_terminal_is_told() -> None:
    shown = on_a_terminal("import")
    assert "There is nothing to read" in shown
