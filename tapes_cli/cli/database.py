"""From options to a database: chosen, started where it is the embedded one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tapes_cli import settings
from tapes_cli.cli.console import say


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
