"""How much memory a command takes, with all the processes that it starts."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_EVERY_SECONDS = 0.05


def peak_megabytes(command: Sequence[str]) -> float:
    """Run a command; return the most memory that its processes had together at any moment.

    Pages that several of them share count once (PSS). Linux only; looked at 20 times a second.
    """
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603  # ours
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(map(_kilobytes, _tree(process.pid))))
        time.sleep(_EVERY_SECONDS)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return peak / 1024


def _tree(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(found for child in children for found in _tree(int(child)))]


def _kilobytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
