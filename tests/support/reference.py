"""Makes the reference pages in `docs/` from the program itself.

`python -m tests.support.reference` writes them; a test compares.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tapes_cli.model.reasons import EXPLANATIONS
from tests.support.command import COMMAND, environment

DOCS = Path(__file__).parents[2] / "docs"

COMMANDS = (
    "import",
    "validate",
    "formats",
    "sources list",
    "sources forget",
    "sessions list",
    "sessions show",
    "migrate up",
    "migrate down",
    "migrate status",
    "migrate redo",
    "migrate sql",
    "db start",
    "db stop",
    "db status",
    "db url",
    "db psql",
    "doctor",
)


def help_of(command: str) -> str:
    """Return what `tapes-cli COMMAND --help` prints on a terminal of 80 columns."""
    return subprocess.run(
        [COMMAND, *command.split(), "--help"],
        capture_output=True,
        check=True,
        text=True,
        env=environment(COLUMNS="80", TERM="dumb", PATH=os.environ["PATH"]),
    ).stdout


def cli_page() -> str:
    """Return `docs/cli.md`."""
    parts = [
        (
            "# The command line\n\n"
            "What each command prints with `--help`. Exit statuses stand in the\n"
            "[README](../README.md#every-night), reason codes in [reasons.md](reasons.md).\n"
        )
    ]
    parts += [f"## `tapes-cli {c}`\n\n```text\n{help_of(c).strip()}\n```\n" for c in COMMANDS]
    return "\n".join(parts)


def reasons_page() -> str:
    """Return `docs/reasons.md`."""
    rows = "".join(
        f"| `{reason.value}` | {told.meaning} | {told.remedy} |\n"
        for reason, told in EXPLANATIONS.items()
    )
    return (
        "# Reason codes\n\n"
        "Why a record was not stored: the closed list. The codes stand in the messages, in the\n"
        "summary's `reasons` and in the rejects file.\n\n"
        f"| Code | Meaning | What to do |\n|---|---|---|\n{rows}"
    )


PAGES = {"cli.md": cli_page, "reasons.md": reasons_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())
