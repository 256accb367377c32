"""`tapes-cli doctor`, as the installed command."""

from __future__ import annotations

import json
import re
import socket
from typing import TYPE_CHECKING

from psycopg.conninfo import make_conninfo

from tapes_cli.store.embedded import EmbeddedServer
from tests.support.command import tapes
from tests.support.reference import DOCS

if TYPE_CHECKING:
    from pathlib import Path

README = (DOCS.parent / "README.md").read_text()
ALWAYS = ["program", "data_directory"]
OF_A_DATABASE = [
    "connection",
    "server",
    "encoding",
    "schema",
    "rights",
    "disk",
    "settings",
    "free_connections",
    "import_lock",
    "long_transactions",
]
# The tests' server is not made to survive a power failure.
UNSAFE = "fsync and full_page_writes and synchronous_commit off"


def test_all_is_in_place(database: str) -> None:
    done = tapes("doctor", "--dsn", make_conninfo(database, password="open-sesame"))
    lines = done.out.splitlines()
    assert done.status == 0
    names = [name.replace("_", " ") for name in ALWAYS + OF_A_DATABASE]
    shown = [line for line in lines if not line.startswith(" ")]
    assert [line[9:28].strip() for line in shown] == names
    assert {line[:9].strip() for line in shown} == {"ok", "warning"}
    (harm,) = [n for n, line in enumerate(lines) if line.startswith("warning")]
    assert UNSAFE in lines[harm]
    assert lines[harm + 1].startswith("         → Turn on fsync")
    assert done.err == "An import can run, with what the warnings say.\n"
    assert "sesame" not in done.out


def test_for_machines(database: str) -> None:
    done = tapes("doctor", "--quiet", "-o", "jsonl", env={"TAPES_DSN": database})
    *checks, summary = done.records
    assert [check["name"] for check in checks] == ALWAYS + OF_A_DATABASE
    assert {tuple(check) for check in checks} == {("type", "name", "verdict", "found", "remedy")}
    assert re.search(r" \(from TAPES_DSN\), \d+ ms$", checks[2]["found"])
    assert checks[2]["remedy"] is None
    assert summary == {
        "type": "summary",
        "command": "doctor",
        "status": "warnings",
        "exit_code": 0,
        "checks": {"ok": 11, "warning": 1, "failed": 0, "skipped": 0},
    }
    assert done.err == ""
    document = json.loads(tapes("doctor", "-o", "json", env={"TAPES_DSN": database}).out)
    assert document["summary"] == summary
    assert [check["name"] for check in document["records"]] == ALWAYS + OF_A_DATABASE


def test_the_remedy_for_a_missing_schema_is_one(empty_database: str) -> None:
    sick = tapes("doctor", "--quiet", "--dsn", empty_database)
    assert sick.status == 6
    assert sick.out.startswith("failed   schema ")
    assert sick.err == ""
    command = re.search(r"→ Run: tapes-cli (migrate up --dsn) '(.*)'$", sick.out, re.MULTILINE)
    assert command is not None
    assert tapes(*command[1].split(), command[2]).status == 0
    assert tapes("doctor", "--dsn", empty_database).status == 0


def test_what_the_readme_shows_is_printed(empty_database: str) -> None:
    (told,) = re.findall(r"```text\n(failed   schema.*?)```", README, re.DOTALL)
    assert told in tapes("doctor", env={"TAPES_DSN": empty_database}).out


def test_no_server(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    variables = {"PGHOST": "127.0.0.1", "PGPORT": str(port), "PGPASSWORD": "open-sesame"}
    done = tapes("doctor", "-q", "--data-dir", tmp_path, env=variables)
    assert done.status == 5
    assert re.fullmatch(
        rf"failed   connection .* at 127.0.0.1:{port} as .*: no server listens there\n"
        r"         → Start the server.*\n",
        done.out,
    )
    asked = tapes("doctor", "-o", "jsonl", "--data-dir", tmp_path, env=variables)
    assert asked.summary["status"] == "failed"
    assert asked.summary["exit_code"] == 5
    assert asked.summary["checks"] == {"ok": 2, "warning": 0, "failed": 1, "skipped": 9}
    assert "sesame" not in done.out + asked.out


def test_a_fresh_machine_is_in_order_and_stays_fresh(reachable_path: Path) -> None:
    folder = reachable_path / "none"
    done = tapes("doctor", "--data-dir", folder)
    assert done.status == 0
    assert "none yet: the first import creates it" in done.out
    assert done.out.count("\nskipped  ") == len(OF_A_DATABASE)
    assert done.err == "Everything is in place.\n"
    quiet = tapes("doctor", "--quiet", "--data-dir", folder)
    assert (quiet.status, quiet.out, quiet.err) == (0, "", "")
    assert not folder.exists()


def test_the_embedded_server_that_runs(reachable_path: Path) -> None:
    server = EmbeddedServer(reachable_path / "data", settings={"fsync": "off"})
    with server.attach():
        done = tapes("doctor", env={"TAPES_DATA_DIR": str(reachable_path / "data")})
        assert server.status().running
    assert done.status == 0
    assert re.search(r"^ok {7}connection +database tapes at ", done.out, re.MULTILINE)


def test_a_file_in_the_place_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = tapes("doctor", "-q", "--data-dir", tmp_path / "file")
    assert done.status == 2
    assert f"{tmp_path / 'file'} is not a directory" in done.out


def test_an_empty_dsn_is_refused() -> None:
    done = tapes("doctor", "--dsn", "")
    assert (done.status, done.out) == (2, "")


def test_a_terminal_that_knows_few_characters(tmp_path: Path) -> None:
    (tmp_path / "ü\x1b[31m").touch()
    done = tapes(
        "doctor",
        "--data-dir",
        tmp_path / "ü\x1b[31m",
        env={"PYTHONIOENCODING": "ascii"},
    )
    assert done.status == 2
    assert r"\xfc\x1b[31m is not a directory" in done.out
    assert r"\u2192 Choose another directory" in done.out


def test_colour_is_never_piped(database: str) -> None:
    done = tapes("doctor", "--dsn", database, env={"TERM": "xterm-256color"})
    assert "\x1b" not in done.out
