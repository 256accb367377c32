from __future__ import annotations

import errno
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from tapes_cli.errors import DatabaseUnavailableError
from tapes_cli.store.embedded import accounts, binaries, cluster, default_data_dir
from tapes_cli.store.embedded.layout import Layout
from tapes_cli.store.embedded.locks import News
from tapes_cli.store.embedded.process import dsn_of


@pytest.fixture
def ordinary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setattr(sys, "platform", "linux")


def test_the_variable_goes_first() -> None:
    assert default_data_dir({"TAPES_DATA_DIR": "/x/../y", "HOME": "/h"}) == Path("/y")
    assert default_data_dir({"TAPES_DATA_DIR": "rel"}) == Path.cwd() / "rel"


def test_root_has_its_own_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    expected = Path("/var/lib/tapes")
    assert default_data_dir({"HOME": "/root", "XDG_DATA_HOME": "/d"}) == expected


@pytest.mark.usefixtures("ordinary")
@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"HOME": "/h"}, "/h/.local/share/tapes"),
        ({"HOME": "/h", "XDG_DATA_HOME": "/d"}, "/d/tapes"),
        ({"HOME": "/h", "XDG_DATA_HOME": "d"}, "/h/.local/share/tapes"),
        ({"HOME": "/h", "XDG_DATA_HOME": "", "TAPES_DATA_DIR": ""}, "/h/.local/share/tapes"),
    ],
)
def test_a_user_keeps_data_where_the_platform_says(environ: dict[str, str], expected: str) -> None:
    assert default_data_dir(environ) == Path(expected)


@pytest.mark.usefixtures("ordinary")
def test_macos_keeps_it_in_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    expected = Path("/h/Library/Application Support/tapes")
    assert default_data_dir({"HOME": "/h", "XDG_DATA_HOME": "/d"}) == expected


@pytest.mark.usefixtures("ordinary")
@pytest.mark.parametrize("environ", [{}, {"HOME": ""}])
def test_without_home_the_passwd_entry_serves(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = pwd.struct_passwd(("u", "x", 12345, 1, "", "/home/u", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda _uid: entry)
    assert default_data_dir(environ) == Path("/home/u/.local/share/tapes")


@pytest.mark.usefixtures("ordinary")
def test_without_any_home_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_uid: int) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(DatabaseUnavailableError, match="12345") as caught:
        default_data_dir({})
    assert "TAPES_DATA_DIR" in caught.value.hint


@given(
    st.text(st.characters(exclude_characters="\0,", exclude_categories=["Cs"]), min_size=1).filter(
        lambda name: "\0" not in name
    )
)
def test_libpq_reads_the_socket_directory_back(name: str) -> None:
    parsed = conninfo_to_dict(dsn_of(Path(f"/{name}")))
    assert parsed["host"] == str(Path(f"/{name}"))
    assert (parsed["port"], parsed["user"], parsed["dbname"]) == ("5432", "postgres", "tapes")


def test_a_path_that_is_no_text_is_percent_encoded() -> None:
    dsn = dsn_of(Path(os.fsdecode(b"/\xff")))
    assert dsn == "postgresql://postgres@%2F%FF:5432/tapes"
    assert unquote("%2F") == "/"


def test_news_comes_after_a_second_then_when_there_is_some() -> None:
    said: list[str] = []
    news = News(said.append)
    for elapsed, doing in [(0.9, ""), (1.0, "a"), (2.0, "a"), (3.0, "b"), (12.9, "b"), (13.0, "b")]:
        news.tell(elapsed, "Waiting", doing)
    assert said == ["Waiting (1 s): a", "Waiting (3 s): b", "Waiting (13 s): b"]


def test_the_last_lines_become_one() -> None:
    assert cluster.last_lines("\n".join("abcdefg") + "\n\n") == "c / d / e / f / g"
    assert cluster.last_lines("") == ""


@pytest.mark.parametrize(
    "text", ["", "12", "12\n/data\n1\n5432\n/s\n\n7 7", "x\n/d\n1\n5432\n/s\n\n7 7\nready   \n"]
)
def test_a_half_written_postmaster_file_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "postmaster.pid").write_text(text)
    assert cluster.read_postmaster(tmp_path) is None


@pytest.mark.parametrize(("status", "ready"), [("ready   ", True), ("starting", False)])
def test_the_postmaster_file_is_read(tmp_path: Path, status: str, *, ready: bool) -> None:
    text = f"12\n/data\n1\n5432\n/so ck\n\n7 7\n{status}\n"
    (tmp_path / "postmaster.pid").write_text(text)
    assert cluster.read_postmaster(tmp_path) == cluster.Postmaster(12, Path("/so ck"), ready)


def test_newer_versions_go_first() -> None:
    paths = [Path(f"/usr/lib/postgresql/{version}/bin") for version in ("9.6", "15", "18", "9.10")]
    ordered = sorted(paths, key=binaries._version_in_path, reverse=True)
    assert [path.parent.name for path in ordered] == ["18", "15", "9.10", "9.6"]


def test_a_socket_directory_of_somebody_else_is_not_removed(tmp_path: Path) -> None:
    layout = Layout.of(tmp_path)
    for place in (tmp_path / "tapes-x", Path("/tmp/tapes-that-is-not-there")):
        cluster.remove_socket(place, layout, accounts.Account(54321, 54321))
    (tmp_path / "tapes-x").mkdir()
    cluster.remove_socket(tmp_path / "tapes-x", layout, accounts.Account(os.geteuid(), 0))
    assert (tmp_path / "tapes-x").is_dir()


def test_a_process_that_is_gone_serves_nothing(tmp_path: Path) -> None:
    assert not cluster.serves(2**30, tmp_path)
    assert not cluster.serves(os.getpid(), tmp_path)


def test_the_option_tells_where_a_server_has_its_data(tmp_path: Path) -> None:
    # Like a server whose working directory we may not see.
    command = ["/bin/sh", "-c", "echo up; read -r _", "-D", str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert cluster.serves(process.pid, tmp_path)
        assert not cluster.serves(process.pid, tmp_path.parent)
        # Where there is no /proc, the arguments come without their separators.
        assert cluster._arguments_by_ps(process.pid)[:2] == ["-D", str(tmp_path)]
        process.communicate()


def test_without_ps_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cluster._arguments_by_ps(2**30) == []
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    assert cluster._arguments_by_ps(os.getpid()) == []


def ourselves() -> accounts.Account:
    return accounts.Account(os.geteuid(), os.getegid())


def test_programs_run_without_our_language_and_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LANG", "LANGUAGE", "LC_TIME", "PGPORT", "OTHER"):
        monkeypatch.setenv(name, "x")
    status, printed = accounts.run(["/usr/bin/env"], ourselves())
    names = {line.partition("=")[0] for line in printed.splitlines()}
    assert status == 0
    assert "OTHER" in names
    assert not names & {"LANG", "LANGUAGE", "LC_TIME", "PGPORT"}


def test_an_interrupted_program_is_killed() -> None:
    with pytest.raises(KeyboardInterrupt):
        accounts.run(["/bin/sh", "-c", f"kill -INT {os.getpid()}; exec sleep 600"], ourselves())


def test_a_program_that_is_none_is_an_error_of_the_system() -> None:
    with pytest.raises(PermissionError):
        accounts.run(["/etc/passwd"], ourselves())


def test_a_root_that_may_not_become_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(DatabaseUnavailableError, match="user id 54321"):
        accounts.run(["/bin/true"], accounts.Account(54321, 54321, switch=True))


def test_a_root_without_other_users(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_name: str) -> None:
        raise KeyError

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(pwd, "getpwnam", unknown)
    with pytest.raises(DatabaseUnavailableError, match="refuses to run as root"):
        accounts.server_account(Layout(Path("/that-is/not-there")))


def program(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def bare_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the only directory on the PATH of a system without any PostgreSQL."""
    monkeypatch.setattr("tapes_cli.store.embedded.binaries.find_spec", lambda _name: None)
    monkeypatch.setattr(binaries, "_SYSTEM_PATTERNS", ())
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    return tmp_path / "path"


def test_pg_config_knows_where_the_programs_are(bare_system: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "pg" / "bin"
    program(bare_system / "pg_config", f"echo '{elsewhere}'")
    program(elsewhere / "initdb", "")
    program(elsewhere / "postgres", "echo 'postgres (PostgreSQL) 16.2 (Debian 16.2-1)'")
    assert binaries.installed_binaries() == binaries.Binaries(elsewhere, "16.2", 16)
    program(bare_system / "pg_config", "exit 1")
    assert binaries.installed_binaries() is None


def test_the_path_knows_where_the_programs_are(bare_system: Path) -> None:
    program(bare_system / "initdb", "")
    program(bare_system / "postgres", "echo 'postgres (PostgreSQL) 19beta1'")
    assert binaries.find_binaries() == bare_system
    assert binaries.installed_binaries() == binaries.Binaries(bare_system, "19beta1", 19)


@pytest.mark.parametrize("script", ["exit 1", "echo surprise", "echo 'postgres (PostgreSQL) 9.6'"])
def test_programs_that_do_not_serve_are_passed_over(bare_system: Path, script: str) -> None:
    program(bare_system / "initdb", "")
    program(bare_system / "postgres", script)
    assert binaries.installed_binaries() is None


@pytest.mark.parametrize("content", [b"", b"#!/not/there\n", b"\x7fELF"])
def test_programs_of_another_machine_are_passed_over(bare_system: Path, content: bytes) -> None:
    program(bare_system / "initdb", "")
    program(bare_system / "postgres", "")
    (bare_system / "postgres").write_bytes(content)
    assert binaries.installed_binaries() is None
