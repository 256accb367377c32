"""The installed command, run as a user runs it: in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

COMMAND = Path(sysconfig.get_path("scripts")) / "tapes-cli"
# Where rejects from stdin go. Removed when the tests end.
_DATA = tempfile.TemporaryDirectory(prefix="tapes-")  # for as long as we live
_KEPT = ("PATH", "COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG", "COVERAGE_FILE", "LANG")


@dataclass(frozen=True, slots=True)
class Result:
    """What a command said, and its exit status."""

    status: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        """The JSON Lines on stdout."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def summary(self) -> dict[str, Any]:
        """The last record, which is the summary."""
        last = self.records[-1]
        assert last["type"] == "summary"
        return last


def environment(**variables: str) -> dict[str, str]:
    """Return an environment with nothing in it that would name a database."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {**kept, "HOME": "/nonexistent", "TAPES_DATA_DIR": _DATA.name, **variables}


def tapes(
    *arguments: str | Path,
    stdin: str | bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Result:
    """Run `tapes-cli` with these arguments; without `stdin` it has none."""
    done = subprocess.run(
        [COMMAND, *map(str, arguments)],
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        env=environment(**(env or {})),
        cwd=cwd,
        timeout=120,
        check=False,
    )
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())
