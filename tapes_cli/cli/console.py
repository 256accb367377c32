"""The one place that talks to the terminal.

stdout is data, stderr is messages: text, or JSON for those who collect it. Text that comes from a
capture is hostile: it is shown with control characters made visible and never as markup.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, TextIO

import typer

from tapes_cli.cli.options import LogFormat, Output
from tapes_cli.errors import UsageError
from tapes_cli.settings import wants_color

if TYPE_CHECKING:
    from rich.console import Console

# Control, direction and invisible characters: Unicode's categories Cc, Cs, Zl and Zp, and those of
# Cf that are no part of a script.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def visible(text: str, *, keep_newlines: bool = False) -> str:
    r"""Return text that is safe to print: control and direction characters shown as `\xNN`."""
    shown = _HIDDEN.sub(_escape, text)
    return shown if keep_newlines else shown.replace("\n", "\\n").replace("\t", "\\t")


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else ascii(chr(code))[1:-1]  # noqa: PLR2004  # one byte


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


class Level(StrEnum):
    """How much a message matters."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class _Message:
    """A message.

    Attributes:
        level: how much it matters.
        sentence: what it says.
        lines: how people read it.
        fields: what it says, for machines.
    """

    level: Level
    sentence: str
    lines: Sequence[str]
    fields: dict[str, Any]


def _write_text(message: _Message) -> None:
    write_to_stderr("".join(visible(line) + "\n" for line in message.lines))


def _write_object(now: Callable[[], str], message: _Message) -> None:
    record = {
        "time": now(),
        "level": message.level.value,
        "message": visible(message.sentence),
        **message.fields,
    }
    write_to_stderr(json.dumps(record, separators=(",", ":")) + "\n")


@dataclass(slots=True)
class _Messages:
    """How messages are written. Chosen once, before the first of them."""

    write: Callable[[_Message], None] = _write_text


_messages = _Messages()


def write_messages_as(form: LogFormat) -> None:
    """Choose how messages are written to stderr."""
    if form is LogFormat.JSON:
        from tapes_cli.capture.times import rfc3339, utc_now  # noqa: PLC0415  # keeps start-up fast

        _messages.write = partial(_write_object, lambda: rfc3339(utc_now()))
    else:
        _messages.write = _write_text


def messages_are_text() -> bool:
    """Tell whether messages are for people."""
    return _messages.write is _write_text


def say(
    message: str,
    *more: str,
    quiet: bool = False,
    level: Level = Level.INFO,
    fields: dict[str, Any] | None = None,
) -> None:
    """Write a message to stderr.

    Args:
        message: a sentence on one line.
        more: lines that people read below it.
        quiet: whether it is left unsaid.
        level: how much it matters.
        fields: what it says, lines and all, for machines. `time`, `level` and `message` are taken.
    """
    if not quiet:
        _messages.write(_Message(level, message, (message, *more), fields or {}))


def say_error(message: str, *, hint: str = "", exit_code: int | None = None) -> None:
    """Write what went wrong to stderr.

    Args:
        message: what it is.
        hint: what to do about it.
        exit_code: the status with which the command ends for it; None if it goes on.
    """
    lines = [f"Error: {message}", *([f"       {hint}"] if hint else [])]
    fields = {"hint": hint or None, "exit_code": exit_code}
    _messages.write(_Message(Level.ERROR, message, lines, fields))


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
        say_error(f"the results cannot be written: {error.strerror}.")


def open_closed_streams() -> None:
    """Send to nowhere what a caller has closed, so that nobody else has to ask."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115  # for as long as we live
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115  # as above


def escape_what_cannot_be_written() -> None:
    """Write as an escape what the encoding of a terminal lacks, instead of failing on it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


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
