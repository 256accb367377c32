"""What imports remember of captures: listed, and forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.captures import line, record
from tests.support.command import tapes

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.command import Result


@pytest.fixture
def captures(database: str, tmp_path: Path) -> Path:
    folder = tmp_path / "captures"
    folder.mkdir()
    for name in "abc":
        (folder / name).write_text(line(record(name)) + ("bad\n" if name == "a" else ""))
    (folder / "c").write_text(line(record("c")) + '{"half')
    assert tapes("import", "-q", "--dsn", database, folder).status == 3
    return folder


def _list(database: str, *words: str | Path) -> Result:
    return tapes("sources", "list", "--dsn", database, "-o", "jsonl", *words)


def test_captures_are_listed_with_what_was_found(database: str, captures: Path) -> None:
    first, second, third = _list(database).records[:-1]
    assert first["location"] == str(captures / "a")
    assert (first["turns"], first["rejected"], first["format"]) == (1, 1, "turn-record")
    assert (second["lines"], second["byte_offset"]) == (1, second["size"])
    assert (second["done"], third["done"], third["incomplete"]) == (True, False, 1)
    told = tapes("sources", "list", "--dsn", database).out.splitlines()
    assert told[0].split()[:2] == ["READ", "AT"]
    assert [row.split()[2] for row in told[1:]] == ["done", "done", "line"]
    assert told[3].endswith(str(captures / "c"))


def test_only_some_are_listed(database: str, captures: Path, tmp_path: Path) -> None:
    assert _list(database, captures / "b").summary["sources"] == 1
    assert _list(database, tmp_path / "cap").summary["sources"] == 0
    assert _list(database, tmp_path).summary["sources"] == 3
    assert _list(database, "--limit", "2").summary["sources"] == 2
    assert "There are more" in tapes("sources", "list", "-n", "2", "--dsn", database).err
    (captures / "b").unlink()
    (missing,) = _list(database, "--missing").records[:-1]
    assert missing["location"] == str(captures / "b")


def test_what_is_forgotten_is_read_again(database: str, captures: Path) -> None:
    again = ("import", "--dsn", database, "-o", "jsonl", captures)
    assert tapes(*again).summary["sources"] == {"read": 1, "unchanged": 2}
    done = tapes("sources", "forget", "--dsn", database, "--yes", captures / "a")
    assert "Forgot 1 capture." in done.err
    found = tapes(*again).summary
    assert found["sources"] == {"read": 2, "unchanged": 1}
    assert (found["records"]["duplicate"], found["records"]["rejected"]) == (1, 1)
    everything = tapes("sources", "forget", "--all", "-y", "-o", "json", "--dsn", database)
    assert '"forgotten":3' in everything.out


def test_it_is_not_forgotten_unasked(database: str, captures: Path) -> None:
    refused = tapes("sources", "forget", "--dsn", database, captures)
    assert (refused.status, _list(database).summary["sources"]) == (2, 3)
    assert "--yes" in refused.err
    for words in ((), ("--all", str(captures))):
        assert tapes("sources", "forget", "--dsn", database, "-y", *words).status == 2


def test_rejects_are_tried_again_from_their_file(database: str, tmp_path: Path) -> None:
    capture, rejects = tmp_path / "a.jsonl", tmp_path / "r.jsonl"
    capture.write_text(line(record(session={"org_id": "x"})))
    assert tapes("import", "--dsn", database, "--rejects", rejects, capture).status == 3
    rejects.write_text(rejects.read_text().replace('"org_id": "x"', '"org_id": ""'))
    done = tapes("import", "--from-rejects", rejects, "--dsn", database, "-o", "jsonl")
    assert (done.status, done.summary["records"]["stored"]) == (0, 1)
    together = tapes("import", "--from-rejects", rejects, "--dsn", database, capture)
    assert together.status == 2
    other = tapes("import", "--from-rejects", capture, "--dsn", database)
    assert other.status == 3
    assert "the record is no line of a rejects file, as --format has it" in other.err
