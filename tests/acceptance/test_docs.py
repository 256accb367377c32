"""The documents say what the program does, and their examples run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tapes_cli.model.reasons import EXPLANATIONS, Reason
from tests.support.command import COMMAND, environment, tapes
from tests.support.reference import COMMANDS, DOCS, PAGES

if TYPE_CHECKING:
    from pathlib import Path

ROOT = DOCS.parent
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", PAGES)
def test_the_reference_is_up_to_date(name: str) -> None:
    expected = PAGES[name]()
    assert (DOCS / name).read_text() == expected, "run: python -m tests.support.reference"


def test_every_command_is_in_the_reference() -> None:
    groups = {"sessions", "sources", "migrate", "db"}
    found = set()
    for group in ("", *groups):
        listed = tapes(*group.split(), "--help").out.partition("Commands:\n")[2]
        names = re.findall(r"^  (\w+)  ", listed, re.MULTILINE)
        found |= {f"{group} {name}".strip() for name in names}
    assert found - groups == set(COMMANDS)


def test_every_reason_is_explained() -> None:
    assert set(EXPLANATIONS) == set(Reason)


def test_every_exit_status_is_in_the_readme() -> None:
    told = {
        int(s)
        for row in re.findall(r"^\| ([\d, ]+) \|", README, re.MULTILINE)
        for s in row.split(", ")
    }
    assert told == {0, 1, 2, 3, 4, 5, 6, 7, 130, 143}


def _shell_lines() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    lines = [text for block in blocks for text in block.splitlines()]
    # The two commands that set everything up are what runs these tests and CI.
    return [text for text in lines if "pip install" not in text]


def test_the_examples_of_the_readme_run(database: str, tmp_path: Path) -> None:
    captures = tmp_path / "captures"
    shutil.copytree(ROOT / "examples" / "captures", captures)
    record = (captures / "openai-chat.jsonl").read_text().splitlines()[0]
    (tmp_path / "turn.json").write_text(record)
    (tmp_path / "day.jsonl").write_text("not json\n" + record)
    # Set up with DSN and session of this test in place of the examples'.
    script = "\n".join(["set -e", *_shell_lines()])
    script = re.sub(r"TAPES_DSN=\S+", f"TAPES_DSN='{database}'", script)
    script = script.replace("SESSION ", "chat-0007 ")
    variables = environment(
        HOME=str(tmp_path),
        PATH=f"{COMMAND.parent}{os.pathsep}{os.environ['PATH']}",
        TAPES_DSN=database,
    )
    done = subprocess.run(
        ["sh", "-c", script],
        cwd=tmp_path,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "10 stored" in done.stdout
    assert '"code":"not_json"' in done.stdout


def test_the_record_in_the_readme_is_one(tmp_path: Path) -> None:
    (block,) = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    capture = tmp_path / "turn.json"
    capture.write_text(" ".join(block.splitlines()))
    done = tapes("validate", "-o", "jsonl", capture)
    assert done.status == 0
    assert done.summary["records"]["stored"] == 1


def test_what_the_first_command_prints(database: str) -> None:
    done = tapes("import", "--dsn", database, ROOT / "examples" / "captures")
    told = re.search(r"```text\n(Stored.*?)```", README, re.DOTALL)
    assert told is not None
    assert re.sub(r"\d\.\d\d s", "", done.out) == re.sub(r"\d\.\d\d s", "", told.group(1))


def test_the_reject_in_the_readme_is_what_is_printed(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples" / "rejects", tmp_path / "captures")
    done = tapes("validate", "captures", cwd=tmp_path)
    (told,) = re.findall(r"^Rejected .*$", README, re.MULTILINE)
    assert told in done.err


def test_the_cron_example_is_silent_when_all_is_well(database: str, tmp_path: Path) -> None:
    def nightly(folder: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [ROOT / "examples" / "cron" / "tapes-import", ROOT / "examples" / folder],
            env=environment(TAPES_CLI=str(COMMAND), TAPES_STATE=str(tmp_path), TAPES_DSN=database),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    good = nightly("captures")
    assert (good.returncode, good.stdout, good.stderr) == (0, "", "")
    bad = nightly("rejects")
    assert bad.returncode == 3
    assert bad.stderr.count("Rejected ") == 4
    assert (tmp_path / "rejects.jsonl").read_text().count("\n") == 4


def _run_as_written(command: str, database: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of the documentation, with places of this test for those that it names."""
    places = {
        "/opt/tapes/bin/tapes-cli": str(COMMAND),
        "${STATE_DIRECTORY}": str(folder),
        "/var/lib/tapes": str(folder),
        "/var/log/captures": str(ROOT / "examples" / "captures"),
        "FILE": str(folder / "file"),
    }
    words = shlex.split(command)
    for written, place in places.items():
        words = [word.replace(written, place) for word in words]
    (folder / "rejects.jsonl").touch()
    return subprocess.run(
        [str(COMMAND), *words[1:]],
        env=environment(TAPES_DSN=database),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_commands_for_every_night_run(database: str, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    commands = re.findall(r"^tapes-cli .*$", page, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        # One file cannot be both of rejects and of the report.
        done = _run_as_written(
            command.replace("--report FILE", "--report FILE.json"), database, tmp_path
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "file.json").exists()


def test_the_service_for_every_night_runs(database: str, tmp_path: Path) -> None:
    unit = (ROOT / "examples" / "cron" / "tapes-import.service").read_text()
    (command,) = re.findall(r"^ExecStart=(.*)$", unit.replace("\\\n", ""), re.MULTILINE)
    done = _run_as_written(command, database, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(" read = ") == 3  # a line in the journal for each capture
    assert (tmp_path / "last-import.json").exists()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd")
def test_the_units_for_every_night_are_sound(tmp_path: Path) -> None:
    for name in ("tapes-import.service", "tapes-import.timer"):
        unit = (ROOT / "examples" / "cron" / name).read_text()
        (tmp_path / name).write_text(unit.replace("/opt/tapes/bin/tapes-cli", str(COMMAND)))
    done = subprocess.run(
        ["systemd-analyze", "verify", *tmp_path.glob("tapes-import.*")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_crontab_names_the_job() -> None:
    lines = (ROOT / "examples" / "cron" / "crontab").read_text().splitlines()
    settings = dict(line.split("=", 1) for line in lines if re.match(r"[A-Z_]+=", line))
    assert settings.keys() == {"MAILTO", "TAPES_DSN", "TAPES_CLI", "TAPES_STATE"}
    (job,) = (line for line in lines if line[:1].isdecimal())
    assert job.split()[5:] == ["/etc/tapes/tapes-import", "/var/log/captures"]
