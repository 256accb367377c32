"""The rejects file: every record that was not stored, so that it can be tried again.

One JSON object a line: `source`, `line`, `byte_offset`, `index` in a batch, `code`, `message`,
`pointer`, and the record's own bytes: as `record` where they are JSON, else as `record_text`, else
as `record_base64`. The file is a capture format of its own: after a fix it is imported as it is.
"""

from __future__ import annotations

import base64
import errno
import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import orjson

from tapes_cli.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from tapes_cli.model.records import Rejected


def reject_record(rejected: Rejected) -> dict[str, Any]:
    """Return the place and reason of a reject as the machine output has them."""
    location = rejected.location
    record: dict[str, Any] = {
        "type": "reject",
        "source": location.source,
        "line": location.line,
        "byte_offset": location.byte_offset,
        "code": rejected.reason.value,
        "message": rejected.message,
        "pointer": rejected.pointer,
    }
    if location.index is not None:
        record["index"] = location.index
    return record


class RejectsFile:
    """Appends rejects to a file."""

    def __init__(self, path: Path) -> None:
        """Open the file, so that it is known before the run whether that can be done.

        Raises:
            UsageError: the file cannot be written.
        """
        self.path = path
        self.written = False
        """Whether there was anything to write."""
        self._made = not path.exists()
        try:
            # Rejects are captures: nobody else's business.
            self._file = open(path, "ab", buffering=0, opener=_private)  # noqa: SIM115  # see close
        except OSError as error:
            raise self._unwritable(error) from error

    def is_file(self, path: Path) -> bool:
        """Tell whether this path leads to the rejects file."""
        with suppress(OSError):
            return path.samefile(self.path)
        return False

    def write(self, rejected: Rejected) -> None:
        """Append one reject.

        Raises:
            UsageError: the file cannot be written.
        """
        unwritten = memoryview(_line(rejected))
        self.written = True
        try:
            while unwritten:
                unwritten = unwritten[self._file.write(unwritten) :]
        except OSError as error:
            raise self._unwritable(error) from error

    def flush(self) -> None:
        """Bring what was written to the disk.

        Raises:
            UsageError: the disk does not take it.
        """
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            if error.errno == errno.EINVAL:
                return  # a terminal, a pipe: nothing to bring to a disk
            raise self._unwritable(error) from error

    def close(self) -> None:
        """Flush and close; leave no empty file behind that was not there before."""
        with self._file:
            self.flush()
        if self._made and not self.written:
            self.path.unlink(missing_ok=True)

    def _unwritable(self, error: OSError) -> UsageError:
        return UsageError(
            f"The rejects file {self.path} cannot be written: {error.strerror}.",
            hint="Name a writable file with --rejects; run the import again to go on.",
        )


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _line(rejected: Rejected) -> bytes:
    head = json.dumps(reject_record(rejected), separators=(",", ":")).encode()
    return head[:-1] + b"," + _record_bytes(rejected.raw) + b"}\n"


def _record_bytes(raw: bytes) -> bytes:
    if not raw:
        return b'"record":null'  # too long to keep, or unreadable: only its source has it
    try:
        orjson.loads(raw)
    except orjson.JSONDecodeError:
        pass
    else:
        return b'"record":' + raw.replace(b"\n", b" ")
    try:
        return b'"record_text":' + json.dumps(raw.decode()).encode()
    except UnicodeDecodeError:
        return b'"record_base64":"' + base64.b64encode(raw) + b'"'
