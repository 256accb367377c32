"""The one place that talks to the terminal.

stdout is data, stderr is messages. Text that comes from a capture is hostile: it is shown with
control characters made visible and never as markup.
"""

import json
import os
import re
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

import typer

from tapes_cli.cli.options import Output
from tapes_cli.errors import UsageError
from tapes_cli.settings import wants_color

if TYPE_CHECKING:
    from rich.console import Console

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


def visible(text: str, *, keep_newlines: bool = False) -> str:
    r"""Return text that is safe to print: control and direction characters shown as `\xNN`."""
    shown = _HIDDEN.sub(_escape, text)
    return shown if keep_newlines else shown.replace("\n", "\\n").replace("\t", "\\t")


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"  # noqa: PLR2004  # one byte


def console(*, stderr: bool = False, no_color: bool = False) -> "Console":
    """Return a rich console that prints text as it is: no markup, no guessing of highlights."""
    from rich.console import Console  # noqa: PLC0415  # keeps start-up fast

    return Console(
        stderr=stderr,
        no_color=no_color or not wants_color(),
        markup=False,
        highlight=False,
        emoji=False,
        soft_wrap=True,
    )


def say(message: str, *, quiet: bool = False) -> None:
    """Write one line for people to stderr."""
    if not quiet:
        write_to_stderr(visible(message) + "\n")


def write_to_stderr(text: str) -> None:
    """Write to stderr at once; if nobody reads it any more, go on without."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        _send_to_nowhere(sys.stderr)


def write_line(text: str) -> None:
    """Write one line of results to stdout; if nobody reads them any more, go on without.

    Whoever has seen enough of the results, as `head` has, does not want the work undone.
    """
    _write(text + "\n")


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
    except OSError as error:
        _give_up_results(error)


def flush() -> None:
    """Bring the results to whoever reads them, if anybody does."""
    try:
        sys.stdout.flush()
    except OSError as error:
        _give_up_results(error)


def _give_up_results(error: OSError) -> None:
    _send_to_nowhere(sys.stdout)
    if not isinstance(error, BrokenPipeError):
        say(f"Error: the results cannot be written: {error.strerror}.")


def open_closed_streams() -> None:
    """Send to nowhere what a caller has closed, so that nobody else has to ask."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115  # for as long as we live
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115  # as above


def _send_to_nowhere(stream: TextIO) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def write_json(value: dict[str, Any]) -> None:
    """Write one JSON object as a line of its own to stdout."""
    write_line(json.dumps(value, separators=(",", ":")))


class Results:
    """Results for machines on stdout, one JSON object a line, as they come.

    `json` makes one document of them, `{"records": […], "summary": {…}}`; `text` writes nothing.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self._separator = '{"records": [\n'

    def write(self, record: dict[str, Any]) -> None:
        """Write one record."""
        if self._output is Output.JSONL:
            write_json(record)
        elif self._output is Output.JSON:
            _write(self._separator + json.dumps(record, separators=(",", ":")))
            self._separator = ",\n"

    def close(self, summary: dict[str, Any]) -> None:
        """Write the summary, the last record."""
        if self._output is Output.JSONL:
            write_json(summary)
        elif self._output is Output.JSON:
            opening = self._separator if self._separator != ",\n" else ""
            _write(f'{opening}\n], "summary": {json.dumps(summary, separators=(",", ":"))}}}\n')


def write_document(records: Iterable[dict[str, Any]], summary: dict[str, Any]) -> None:
    """Write `{"records": […], "summary": {…}}` to stdout, a record a line."""
    results = Results(Output.JSON)
    for record in records:
        results.write(record)
    results.close(summary)


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is changed.

    Raises:
        UsageError: there is no terminal to ask on, and `--yes` was not given.
        typer.Exit: the answer was no.
    """
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("This changes data and there is no terminal to ask on.", hint="Add --yes.")
    if not typer.confirm(question, err=True):
        say("Nothing was changed.")
        raise typer.Exit(0)
