"""Signals: the first asks the run to finish what is in flight, the second ends it at once."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from tapes_cli.errors import InterruptedRunError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from tapes_cli.errors import TapesError

T = TypeVar("T")

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequest:
    """Whether somebody asked the run to end, and the exit status that tells so.

    `waiting` is true while nothing is in flight that has to be finished first: before the run
    begins, and while it waits for the next record, perhaps of a pipe in which nothing comes.
    `before_leaving` is called before a second signal ends the process. `error` is why the run has
    to end, where it is not for a signal.
    """

    def __init__(self) -> None:
        self._signal = 0
        self.error: TapesError | None = None
        self.waiting = True
        self.before_leaving: Callable[[], None] = lambda: None

    @property
    def requested(self) -> bool:
        """Whether the run should end after what is in flight."""
        return self._signal != 0

    @property
    def exit_status(self) -> int:
        """The conventional status of a process that a signal ended: 128 and its number."""
        return 128 + self._signal

    def wait_for(self, records: Iterator[T]) -> T | None:
        """Return the next of these records, None after the last.

        Raises:
            InterruptedRunError: somebody asked the run to end.
            TapesError: the run has to end for another reason.
        """
        if self.error is not None:
            raise self.error
        self.waiting = True
        try:
            # From here on the handler raises by itself: no signal falls between the two.
            if self.requested:
                raise InterruptedRunError(self.exit_status)
            return next(records, None)
        finally:
            self.waiting = False

    def fail(self, error: TapesError) -> None:
        """Take note that the run has to end."""
        self.error = error

    def note(self, signal_number: int) -> None:
        """Take note that somebody asked the run to end."""
        self._signal = signal_number

    def end_if_waiting(self) -> None:
        """End here if nothing is in flight.

        Raises:
            InterruptedRunError: nothing is.
        """
        if self.waiting:
            raise InterruptedRunError(self.exit_status)


@contextmanager
def stop_on_signals(announce: Callable[[str], None]) -> Iterator[StopRequest]:
    """Give a request that SIGINT, SIGTERM and SIGHUP set; put the old handlers back afterwards."""
    stop = StopRequest()

    def handle(signal_number: int, _frame: FrameType | None) -> None:
        if stop.requested:
            # Whatever is not committed is undone by the server when the connection drops.
            stop.before_leaving()
            os._exit(128 + signal_number)
        stop.note(signal_number)
        announce("Stopping after the turns in flight; once more to leave at once.")
        stop.end_if_waiting()

    previous = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
