"""Processes: how one names itself, and whether another one on the same machine still lives."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")
_UNKNOWN = ""
_STATE, _STARTED = 0, 19
"""Places of the fields that follow the name in `/proc/PID/stat`; see proc_pid_stat(5)."""


def own_process() -> str:
    """Return what tells this process from all others that this kernel has run or will run.

    Empty where the system does not say.
    """
    return f"{_space()} {os.getpid()} {_started(os.getpid())}" if _space() else ""


def is_dead(process: str) -> bool:
    """Tell whether a process, as it named itself, has certainly ended.

    Nothing is certain of one on another machine or in another container.
    """
    parts = process.split(" ")
    if len(parts) != len(("space", "pid", "started")) or parts[0] != _space():
        return False
    pid, started = parts[1:]
    if not (pid.isdecimal() and started.isdecimal()):
        return False
    return _is_gone(int(pid)) or _started(int(pid)) not in {started, _UNKNOWN}


def _is_gone(pid: int) -> bool:
    """Whether there is no process of this number; one of somebody else is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


def _space() -> str:
    """Return what identifies the running kernel, and the numbering of processes on it."""
    with suppress(OSError):
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{(_PROC / 'self/ns/pid').readlink()}"
    return ""


def _started(pid: int) -> str:
    """Return when a process started, in the kernel's own units; that of one that ended is -1.

    Others may not be allowed to see it.
    """
    with suppress(OSError, IndexError):
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return "-1" if fields[_STATE] in {"Z", "X"} else fields[_STARTED]
    return _UNKNOWN
