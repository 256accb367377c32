"""Locks that die with their holder: flock, with or without a child that inherits it."""

from __future__ import annotations

import fcntl
import os
import time
from typing import TYPE_CHECKING, Self, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Announce: TypeAlias = "Callable[[str], None]"
"""Is told, in one line, what takes so long."""

_FIRST_NEWS_AFTER = 1.0
_LONGEST_SILENCE = 10.0
_FIRST_PAUSE = 0.002
_LONGEST_PAUSE = 0.1


def pauses() -> Iterator[float]:
    """Yield the seconds waited so far, sleeping a little longer between each two."""
    started = time.monotonic()
    pause = _FIRST_PAUSE
    while True:
        yield time.monotonic() - started
        time.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE)


class News:
    """Says what is being waited for: after a second, then when it changes or every ten."""

    def __init__(self, announce: Announce) -> None:
        self._announce = announce
        self._next = _FIRST_NEWS_AFTER
        self._told = ""

    def tell(self, elapsed: float, waiting: str, doing: str = "") -> None:
        """Announce it, if it is time to.

        Args:
            elapsed: seconds waited so far.
            waiting: what for.
            doing: what is known of its progress.
        """
        if elapsed < _FIRST_NEWS_AFTER or (elapsed < self._next and doing == self._told):
            return
        self._next = elapsed + _LONGEST_SILENCE
        self._told = doing
        self._announce(f"{waiting} ({elapsed:.0f} s){f': {doing}' if doing else ''}")


class FileLock:
    """One holder of the lock on a file.

    A child that inherits the descriptor holds the same lock: it lasts until the last of them
    has closed it, or one has unlocked it.
    """

    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, 0o600)
        if os.geteuid() == 0:
            # Whoever owns the directory must be able to use it without root's help.
            owner = path.parent.stat()
            os.fchown(self._descriptor, owner.st_uid, owner.st_gid)

    def __enter__(self) -> Self:
        """Return the lock, not yet taken."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close our descriptor; a child that inherited it keeps the lock."""
        self.close()

    def fileno(self) -> int:
        """Return the descriptor, for a child to inherit."""
        return self._descriptor

    def try_exclusive(self) -> bool:
        """Take the lock for ourselves alone, if nobody else has it."""
        return _try_lock(self._descriptor, fcntl.LOCK_EX)

    def try_shared(self) -> bool:
        """Take the lock together with others, if nobody has it alone."""
        return _try_lock(self._descriptor, fcntl.LOCK_SH)

    def unlock(self) -> None:
        """Give the lock up, also for children that inherited it."""
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close our descriptor, once."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def is_held(path: Path) -> bool:
    """Tell whether somebody holds the lock on a file for himself alone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _try_lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
