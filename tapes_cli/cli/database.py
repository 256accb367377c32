"""From options to a database: chosen, started where it is the embedded one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tapes_cli import settings
from tapes_cli.cli.console import say
from tapes_cli.errors import UsageError


@contextmanager
def open_existing_database(
    dsn: str | None, data_dir: Path | None, *, quiet: bool = False
) -> Iterator[tuple[str, settings.Connection]]:
    """Give the chosen database as `open_database` does, but never create the embedded one.

    Raises:
        UsageError: nothing has been imported into the embedded database yet.
        DatabaseUnavailableError: the embedded server cannot be started.
    """
    if settings.connection(dsn).embedded:
        from tapes_cli.store.embedded import EmbeddedServer  # noqa: PLC0415  # keeps start-up fast

        folder = settings.data_dir(data_dir)
        if not EmbeddedServer(folder).status().initialised:
            raise UsageError(
                f"There is no embedded database in {folder}: nothing was imported yet.",
                hint="Import something with tapes-cli import PATH, or name a server with --dsn.",
            )
    with open_database(dsn, data_dir, quiet=quiet) as opened:
        yield opened


@contextmanager
def open_database(
    dsn: str | None, data_dir: Path | None, *, quiet: bool = False
) -> Iterator[tuple[str, settings.Connection]]:
    """Give the DSN of the chosen database, and how it was chosen; the embedded one is running.

    Raises:
        DatabaseUnavailableError: the embedded server cannot be started.
    """
    chosen = settings.connection(dsn)
    if chosen.dsn is not None:
        yield chosen.dsn, chosen
        return
    from tapes_cli.store.embedded import EmbeddedServer  # noqa: PLC0415  # keeps start-up fast

    server = EmbeddedServer(settings.data_dir(data_dir))
    with server.attach(announce=lambda message: say(message, quiet=quiet)) as attached:
        yield attached.dsn, chosen
