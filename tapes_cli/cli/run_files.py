"""The files that an import leaves behind for those who did not watch it."""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from tapes_cli import settings
from tapes_cli.cli.console import say_error
from tapes_cli.errors import InterruptedRunError, TapesError, UsageError

if TYPE_CHECKING:
    from tapes_cli.capture.sources import Source, SourceProblem
    from tapes_cli.importer.ledger import Observer
    from tapes_cli.importer.outputs import Execution, SourceTally
    from tapes_cli.importer.report import Report

REPORTS = "Reports of a run that nobody watches"

_LOOKED_AT_BYTES = 256

ReportOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="FILE",
        help="Write the summary to this file as a JSON document, with the accounts of each "
        "source; also when the run fails or is interrupted.",
        rich_help_panel=REPORTS,
        show_default=False,
    ),
]
MetricsOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--metrics",
        metavar="FILE",
        help="Write metrics to this file for the textfile collector of Prometheus' "
        "node_exporter. Its name ends in .prom. A dry run writes none.",
        rich_help_panel=REPORTS,
        show_default=False,
    ),
]


@dataclass(frozen=True, slots=True)
class _Output:
    """A file to be written.

    Attributes:
        option: how it was asked for.
        path: where it is, links followed.
        beginning: how all such files begin, without white space.
    """

    option: str
    path: Path
    beginning: bytes

    def check(self) -> None:
        """Check that it can be written, so that it is known before the run.

        Raises:
            UsageError: it cannot, or something else is there.
        """
        folder = self.path.parent
        try:
            if not folder.is_dir():
                raise self._unusable(f"there is no folder {folder}.")
            if not os.access(folder, os.W_OK | os.X_OK):
                raise self._unusable(f"the folder {folder} is not writable.")
            if self.path.exists():
                self._check_what_is_there()
        except OSError as error:
            raise self._unusable(f"{error.strerror}.") from error

    def read(self) -> str:
        """Return what is there, nothing if it cannot be read."""
        with suppress(OSError):
            return self.path.read_text(encoding="utf-8", errors="replace")
        return ""

    def write(self, text: str) -> UsageError | None:
        """Write it; return what went wrong, if anything did."""
        from tapes_cli.importer.outputs import write_atomically  # noqa: PLC0415  # keeps start-up fast

        try:
            write_atomically(self.path, text)
        except OSError as error:
            return self._unusable(f"{error.strerror}.")
        return None

    def _check_what_is_there(self) -> None:
        if not self.path.is_file():
            raise self._unusable("it is no regular file.")
        with self.path.open("rb") as file:
            found = b"".join(file.read(_LOOKED_AT_BYTES).split())
        if found and not found.startswith(self.beginning):
            raise self._unusable("something else is there, which would be lost.")

    def _unusable(self, reason: str) -> UsageError:
        return UsageError(
            f"{self.option} {self.path} cannot be written: {reason}", hint="Name another file."
        )


class RunFiles:
    """The report and the metrics of one run."""

    def __init__(self, report: Path | None, metrics: Path | None, rejects: Path | None) -> None:
        """Check that what was asked for can be written. The run begins here.

        Args:
            report: where the report goes, if anywhere.
            metrics: where the metrics go, if anywhere.
            rejects: where rejected records go, which must be elsewhere.

        Raises:
            UsageError: it cannot be written.
        """
        from tapes_cli.capture.times import utc_now  # noqa: PLC0415  # keeps start-up fast

        if metrics is not None and metrics.suffix != ".prom":
            raise UsageError(
                f"--metrics {metrics}: the name does not end in .prom.",
                hint="The textfile collector ignores other files.",
            )
        self._report = _output("--report", report, b'{"type":"summary"')
        self._metrics = _output("--metrics", metrics, b"#HELPtapes_import_")
        self._outputs = [output for output in (self._report, self._metrics) if output]
        paths = [output.path for output in self._outputs]
        paths += [Path(os.path.realpath(rejects))] if rejects else []
        if len(set(paths)) < len(paths):
            raise UsageError(
                "--report, --metrics and --rejects name the same file.",
                hint="Give each a file of its own.",
            )
        for output in self._outputs:
            output.check()
        self._started_at, self._started = utc_now(), time.monotonic()
        self._sources: SourceTally | None = None

    def without(
        self, sources: Iterable["Source | SourceProblem"]
    ) -> Iterator["Source | SourceProblem"]:
        """Yield the sources that are none of these files."""
        from tapes_cli.capture.sources import Source  # noqa: PLC0415  # keeps start-up fast

        for source in sources:
            path = source.path if isinstance(source, Source) else None
            if path is None or not any(_is_same(path, output.path) for output in self._outputs):
                yield source

    def listening(self, observer: "Observer") -> "Observer":
        """Return an observer that passes on what it hears, if anything is to be made of it."""
        from tapes_cli.importer.outputs import SourceTally  # noqa: PLC0415  # as above

        if self._report is None:
            return observer
        self._sources = SourceTally(observer)
        return self._sources

    @contextmanager
    def written(self, report: "Report") -> Iterator[None]:
        """Write the files when the run has ended, however it does.

        A run that went well has failed if they cannot be written.
        """
        try:
            yield
        except BaseException as error:
            _note(report, error)
            raise
        finally:
            before = self._metrics.read() if self._metrics else ""
            failures = self._write(report, before)
            for failure in failures:
                _fail(report, failure)
            if failures:
                self._write(report, before)  # the other file is to say so

    def _write(self, report: "Report", before: str) -> list[UsageError]:
        """Write the files, given the metrics of the run before; return what went wrong."""
        found = [output.write(text) for output, text in self._texts(report, before)]
        return [failure for failure in found if failure is not None]

    def _texts(self, report: "Report", before: str) -> Iterator[tuple[_Output, str]]:
        from tapes_cli.importer.metrics import last_success_in, metrics_text  # noqa: PLC0415  # as above
        from tapes_cli.importer.outputs import report_document  # noqa: PLC0415  # as above

        execution = self._execution()
        if self._report:
            sources = self._sources.records() if self._sources else []
            yield self._report, report_document(report, execution, sources)
        if self._metrics and not report.dry_run:
            yield self._metrics, metrics_text(report, execution, last_success_in(before))

    def _execution(self) -> "Execution":
        from tapes_cli.capture.times import utc_now  # noqa: PLC0415  # keeps start-up fast
        from tapes_cli.importer.outputs import Execution  # noqa: PLC0415  # as above

        seconds = time.monotonic() - self._started
        return Execution(
            self._started_at,
            utc_now(),
            seconds,
            settings.host_name(),
            os.getpid(),
            version("tapes-cli"),
        )


def _output(option: str, path: Path | None, beginning: bytes) -> _Output | None:
    return _Output(option, Path(os.path.realpath(path)), beginning) if path is not None else None


def _is_same(one: Path, other: Path) -> bool:
    with suppress(OSError):
        return one.samefile(other)
    return False


def _note(report: "Report", error: BaseException) -> None:
    """Note why a run ended that has not said so itself."""
    from tapes_cli.importer.report import Status  # noqa: PLC0415  # keeps start-up fast

    if isinstance(error, InterruptedRunError):
        report.status, report.exit_code = Status.INTERRUPTED, error.exit_status
    elif isinstance(error, TapesError):
        report.fail(str(error), error.hint, error.exit_status)
    else:
        what = f"Internal error: {type(error).__name__}."
        hint = "Run it again with --debug, and report it."
        report.fail(what, hint, TapesError.exit_status)


def _fail(report: "Report", failure: UsageError) -> None:
    """Let a run have failed, unless it has something worse to say."""
    from tapes_cli.importer.report import Status  # noqa: PLC0415  # keeps start-up fast

    if report.status in {Status.OK, Status.REJECTS}:
        report.fail(str(failure), failure.hint, failure.exit_status)
    else:
        say_error(str(failure), hint=failure.hint)
