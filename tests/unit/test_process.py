"""A process that has ended is told from one that lives."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tapes_cli.importer.process import is_dead, own_process

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")

_TELL = "from tapes_cli.importer.process import own_process; print(own_process(), flush=True)"


def test_a_process_lives_until_it_ends() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", f"{_TELL}; input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    name = child.stdout.readline().strip()
    assert not is_dead(name)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_dead(name)  # not buried yet
    child.communicate()
    assert is_dead(name)


def test_another_process_with_the_same_number_is_not_the_same() -> None:
    space, pid, started = own_process().split(" ")
    assert not is_dead(f"{space} {pid} {started}")
    assert is_dead(f"{space} {pid} {int(started) - 1}")


@pytest.mark.parametrize("name", ["", "elsewhere/pid:[1] 1 2", "x", "a b c d"])
def test_nothing_is_said_of_processes_elsewhere(name: str) -> None:
    assert not is_dead(name)
