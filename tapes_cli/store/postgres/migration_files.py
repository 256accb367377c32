"""The migrations that come with this program, as files: `<version>_<name>.up.sql`, `.down.sql`.

Versions and the table that keeps the current one are those of golang-migrate, so that a database
made by the reference service is recognised.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import tapes_cli
from tapes_cli.errors import SchemaError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.resources.abc import Traversable

LOCK_KEY = int.from_bytes(b"tapes-mg", "big")
"""Key of the advisory lock that whoever migrates holds."""

CREATE_VERSION_TABLE = (
    "CREATE TABLE IF NOT EXISTS schema_migrations"
    " (version bigint PRIMARY KEY, dirty boolean NOT NULL);"
)
LOCK_VERSION_TABLE = "LOCK TABLE schema_migrations IN ACCESS EXCLUSIVE MODE;"
TAKE_LOCK = f"SELECT pg_advisory_xact_lock({LOCK_KEY});"

_FILE_NAME = re.compile(r"(?P<version>[0-9]+)_(?P<name>[a-z0-9_]+)\.(?P<direction>up|down)\.sql")
_REINSTALL = "Install tapes-cli again."


class Direction(StrEnum):
    """Which way a migration goes."""

    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema: the SQL that takes it and the SQL that undoes it."""

    version: int
    name: str
    up: str = field(repr=False)
    down: str = field(repr=False)

    def __str__(self) -> str:
        """Return `<version>_<name>`, as the files are called."""
        return f"{self.version}_{self.name}"

    def sql(self, direction: Direction) -> str:
        """Return the SQL for one direction."""
        return self.up if direction is Direction.UP else self.down


def load_migrations(directory: Traversable | None = None) -> list[Migration]:
    """Read the migrations, oldest first.

    Args:
        directory: where the files are; None for those that come with this program.

    Raises:
        SchemaError: a file is misnamed, half of a pair is missing, two migrations have the
            same version, or there are none at all.
    """
    directory = directory or _packaged()
    halves: dict[int, dict[Direction, tuple[str, str]]] = {}
    names = sorted(entry.name for entry in directory.iterdir() if entry.name.endswith(".sql"))
    for file_name in names:
        match = _FILE_NAME.fullmatch(file_name)
        if match is None:
            raise SchemaError(
                f"{file_name}: a migration is called <version>_<name>.up.sql or .down.sql.",
                hint=_REINSTALL,
            )
        direction = Direction(match["direction"])
        pair = halves.setdefault(int(match["version"]), {})
        if direction in pair:
            raise SchemaError(
                f"{file_name}: another migration has the same version.", hint=_REINSTALL
            )
        pair[direction] = (match["name"], (directory / file_name).read_text(encoding="utf-8"))
    if not halves:
        raise SchemaError("This installation has no migrations.", hint=_REINSTALL)
    return [_paired(version, halves[version]) for version in sorted(halves)]


def script(steps: Sequence[Migration], direction: Direction, below: int | None) -> str:
    """Return SQL that takes the steps in their order, each in one transaction with its version.

    Args:
        steps: what to run, in the order of running.
        direction: which way.
        below: for `down`, the version that remains after the last step, or None for no schema.
    """
    parts = []
    for place, step in enumerate(steps):
        version: int | None = step.version
        if direction is Direction.DOWN:
            version = steps[place + 1].version if place + 1 < len(steps) else below
        table = f"{CREATE_VERSION_TABLE}\n" if direction is Direction.UP else ""
        parts.append(
            f"-- {step} {direction}\n"
            "BEGIN;\n"
            f"{TAKE_LOCK}\n"
            f"{table}{LOCK_VERSION_TABLE}\n\n"
            f"{step.sql(direction).strip()}\n\n"
            f"{record_version(version)}\n"
            "COMMIT;\n"
        )
    return "\n".join(parts)


def record_version(version: int | None) -> str:
    """Return SQL that makes a version the current one; None when no schema is left.

    The table holds one row, or none before the first migration, as golang-migrate keeps it.
    """
    forget = "DELETE FROM schema_migrations;"
    if version is None:
        return forget
    return f"{forget}\nINSERT INTO schema_migrations (version, dirty) VALUES ({version}, false);"


def _paired(version: int, pair: dict[Direction, tuple[str, str]]) -> Migration:
    for direction in Direction:
        if direction not in pair:
            raise SchemaError(f"Migration {version} has no {direction} file.", hint=_REINSTALL)
    (name, up), (name_down, down) = pair[Direction.UP], pair[Direction.DOWN]
    if name != name_down:
        raise SchemaError(
            f"Migration {version} is called {name} one way and {name_down} the other.",
            hint=_REINSTALL,
        )
    return Migration(version, name, up, down)


def _packaged() -> Traversable:
    """Return the folder inside the package, or beside it in a source checkout."""
    import importlib.resources  # noqa: PLC0415  # keeps start-up fast

    inside = importlib.resources.files(tapes_cli) / "migrations"
    if inside.is_dir():
        return inside
    return Path(tapes_cli.__file__).parent.parent / "migrations"
