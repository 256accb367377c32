"""The tree of errors. Each knows its exit status; its hint says what to do about it.

    TapesError                      1
    ├── UsageError                  2
    │   └── FormatError             2
    ├── DatabaseUnavailableError    5
    ├── SchemaError                 6
    ├── MigrationLockedError        7
    └── ImportLockedError           7

    InterruptedRunError           130 / 143   no TapesError: whoever catches those must let it pass

A record that cannot be stored is not an error but a value: see `tapes_cli.model.reasons`.
"""

from __future__ import annotations


class TapesError(Exception):
    """Something went wrong that the user should hear about in one sentence.

    Attributes:
        exit_status: the status with which the command ends.
        hint: what to do, as a sentence, or empty where the message says it all.
    """

    exit_status = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(TapesError):
    """The command was called in a way that cannot work."""

    exit_status = 2


class FormatError(UsageError):
    """A capture format that another package adds cannot be used."""


class DatabaseUnavailableError(TapesError):
    """The database cannot be reached, or was lost for good."""

    exit_status = 5


class SchemaError(TapesError):
    """The schema is missing, behind, ahead of this program, or dirty."""

    exit_status = 6


class MigrationLockedError(TapesError):
    """Somebody else is changing the schema."""

    exit_status = 7


class ImportLockedError(TapesError):
    """Another import is running, and this one is not to overlap with it."""

    exit_status = 7


class InterruptedRunError(BaseException):
    """A signal asked the run to end. The exit status is 128 and the signal's number.

    It may come anywhere, as `KeyboardInterrupt` does, and must not be taken for a failure of what
    it came into.
    """

    hint = ""

    def __init__(self, exit_status: int) -> None:
        super().__init__("Interrupted; nothing that was in flight is lost.")
        self.exit_status = exit_status
