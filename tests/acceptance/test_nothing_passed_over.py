"""What was not read is not remembered as read."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from typing import TYPE_CHECKING

from tests.support.captures import line, record
from tests.support.command import COMMAND, environment, tapes

if TYPE_CHECKING:
    from pathlib import Path


def _stored(database: str, *words: str | Path) -> int:
    done = tapes("import", "--dsn", database, "-o", "jsonl", *words)
    assert done.status == 0, done.err
    stored: int = done.summary["records"]["stored"]
    return stored


def test_an_archive_of_a_worker_that_ended_early_is_read_again(
    database: str, tmp_path: Path
) -> None:
    many = line(record("again")) * 40_000 + "".join(line(record(f"last {i}")) for i in range(20))
    (tmp_path / "a.gz").write_bytes(gzip.compress(many.encode(), 1))
    (tmp_path / "b.gz").write_bytes(gzip.compress(b"bad\n" + line(record("b")).encode()))
    asked = ("--workers", "2", "--strict", "--dsn", database, tmp_path)
    assert tapes("import", "-q", *asked).status == 4
    (tmp_path / "b.gz").unlink()
    tapes("import", "-q", "--dsn", database, tmp_path)
    found = tapes("import", "--reread", "--dsn", database, "-o", "jsonl", tmp_path).summary
    assert found["records"]["stored"] == 0


def test_a_capture_that_is_rotated_before_it_is_read_is_not_taken_for_read(
    database: str, tmp_path: Path
) -> None:
    capture = tmp_path / "a.jsonl"
    capture.write_text("".join(line(record(f"old {i}")) for i in range(20)))
    process = subprocess.Popen(
        [COMMAND, "import", "-q", "--dsn", database, "-", str(capture)],
        stdin=subprocess.PIPE,
        env=environment(),
    )
    assert process.stdin is not None
    # More than a pipe holds, so that the run has begun, and the files are listed.
    process.stdin.write(line(record("piped")).encode() * 1000)
    process.stdin.flush()
    capture.rename(tmp_path / "a.1.jsonl")
    capture.write_text("".join(line(record(f"new {i}")) for i in range(7)))
    process.communicate()
    assert process.returncode == 0
    assert _stored(database, tmp_path) == 20


def test_documents_over_several_lines_are_not_read_on_from_their_middle(
    database: str, tmp_path: Path
) -> None:
    capture = tmp_path / "a.json"
    documents = [json.dumps(record(f"q{i}"), indent=1) + "\n" for i in range(15)]
    capture.write_text("".join(documents[:10]))
    assert _stored(database, "--workers", "2", tmp_path) == 10
    capture.write_text("".join(documents))
    assert _stored(database, "--workers", "2", tmp_path) == 5


def test_another_file_with_inode_size_and_time_of_one_that_is_gone_is_read(
    database: str, tmp_path: Path
) -> None:
    first, second = tmp_path / "day1", tmp_path / "day2"
    first.write_text(line(record("one")))
    os.utime(first, (1e9, 1e9))
    assert _stored(database, tmp_path) == 1
    first.rename(second)  # the inode goes on, the content does not
    second.write_text(line(record("two")))
    os.utime(second, (1e9, 1e9))
    assert _stored(database, tmp_path) == 1
