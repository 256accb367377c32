"""Formats of other packages, with the one that the documents work out."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.support.captures import line, record
from tests.support.command import Result, tapes

PAGE = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()


def block(language: str) -> str:
    """A block of the worked example in the documents."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


def package(folder: Path, module: str, entry: str, name: str = "helpdesk-format") -> None:
    """Put a package into a folder as an installer would."""
    (folder / f"{name.replace('-', '_')}.py").write_text(module)
    about = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[tapes_cli.formats]\n{entry}\n")


def run(folder: Path, *words: str | Path, stdin: str = "") -> Result:
    return tapes(*words, stdin=stdin, env={"PYTHONPATH": str(folder)})


@pytest.fixture
def helpdesk(tmp_path: Path) -> Path:
    entry = block("toml").splitlines()[1].replace('"', "")
    package(tmp_path, block("python"), entry)
    return tmp_path


def test_the_worked_example_reads_its_capture(helpdesk: Path) -> None:
    done = run(helpdesk, "validate", "-o", "jsonl", stdin=block("json") + line(record()))
    turn, other, summary = done.records
    assert done.status == 0
    assert (turn["format"], other["format"]) == ("helpdesk-log", "turn-record")
    assert turn["session"]["harness_session_id"] == "ticket-17"
    assert turn["captured_at"] == "2026-03-02T09:00:00Z"
    assert len(turn["chain"]) == 2
    assert summary["formats"] == {"helpdesk-log": 1, "turn-record": 1}


def test_the_worked_example_is_listed(helpdesk: Path) -> None:
    assert "helpdesk-log" in run(helpdesk, "formats").out
    listed = [r["name"] for r in run(helpdesk, "formats", "-o", "jsonl").records]
    assert "helpdesk-log" in listed
    assert "helpdesk-log" not in tapes("formats").out


def test_what_the_format_trips_over_is_a_reject(helpdesk: Path) -> None:
    module = block("python").replace('record["question"]', 'record["missing"]')
    (helpdesk / "helpdesk_format.py").write_text(module)
    done = run(helpdesk, "validate", "-o", "jsonl", stdin=block("json") + line(record()))
    reject, turn, _ = done.records
    assert (reject["code"], turn["type"]) == ("format_failed", "turn")
    assert reject["message"] == "the format helpdesk-log failed with KeyError"
    assert (done.status, done.err) == (3, "")


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("raise OSError", "The capture format helpdesk-log of helpdesk-format cannot be loaded"),
        ("FORMAT = 5", "helpdesk_format:FORMAT of helpdesk-format is no capture format"),
        (
            '{python}\nFORMAT = replace(FORMAT, name="batch")',
            "Two capture formats have the name batch",
        ),
    ],
)
def test_a_format_that_cannot_be_used_is_told(tmp_path: Path, module: str, said: str) -> None:
    code = "from dataclasses import replace\n" + block("python")
    entry = "helpdesk-log = helpdesk_format:FORMAT"
    package(tmp_path, module.replace("{python}", code), entry)
    done = run(tmp_path, "validate", stdin=json.dumps({"a": 1}))
    assert done.status == 2
    assert said in done.err
    assert "Traceback" not in done.err
