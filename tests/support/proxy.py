"""A proxy that stands between an importer and a server, and cuts connections."""

from __future__ import annotations

import socket
import threading
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

from tapes_cli.store.embedded.cluster import SOCKET_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Cut:
    """When and how a connection ends.

    Attributes:
        after: bytes that pass in both directions together; the next piece passes in part.
        deaf: whether requests go on to the server for a while when answers do not come back any
            more: what it commits then, nobody hears of.
    """

    after: int
    deaf: bool = False


class Proxy:
    """Passes bytes between importers and a server, until it is time to cut a connection.

    Attributes:
        target: the socket of the server; may change, and holds for the next connections.
        plan: says by its number when a connection is cut; None lets it be.
        cuts: how many were cut.
    """

    def __init__(self, folder: Path, target: Path) -> None:
        folder.mkdir()
        self.target = target
        self.plan: Callable[[int], Cut | None] = lambda _number: None
        self.cuts = 0
        self._folder = folder
        self._connections = count()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / SOCKET_NAME))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def dsn(self, dsn: str) -> str:
        """Return the DSN that leads to the same database through the proxy."""
        return f"host={self._folder} port=5432 user=postgres dbname={dsn.rpartition('/')[2]}"

    def close(self) -> None:
        """Take no more connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            cut = self.plan(next(self._connections))
            try:
                server.connect(str(self.target))
            except OSError:
                server.close()
                client.close()
                continue
            link = _Link(self, client, server, cut)
            threading.Thread(target=link.pass_requests, daemon=True).start()
            threading.Thread(target=link.pass_answers, daemon=True).start()


@dataclass(slots=True)
class _Link:
    """One connection through the proxy."""

    proxy: Proxy
    client: socket.socket
    server: socket.socket
    cut: Cut | None
    passed: int = 0
    is_cut: bool = False
    ended: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def pass_requests(self) -> None:
        self._pass(self.client, self.server, answers=False)

    def pass_answers(self) -> None:
        self._pass(self.server, self.client, answers=True)

    def _pass(self, source: socket.socket, goal: socket.socket, *, answers: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                goal.sendall(self._allowed(data, answers=answers))
                if self.is_cut and not (self.cut and self.cut.deaf):
                    break
        self._end()

    def _allowed(self, data: bytes, *, answers: bool) -> bytes:
        """Return what is passed on of a piece, counting it."""
        if self.cut is None:
            return data
        with self.lock:
            left = max(self.cut.after - self.passed, 0)
            self.passed += len(data)
            if left >= len(data):
                return data
            if not self.is_cut:
                self.is_cut = True
                self.proxy.cuts += 1
                if self.cut.deaf:
                    threading.Timer(0.1, self._hang_up).start()
        return data if self.cut.deaf and not answers else data[:left]

    def _end(self) -> None:
        self._hang_up()
        with self.lock:
            self.ended += 1
            if self.ended == len((self.client, self.server)):
                self.client.close()
                self.server.close()

    def _hang_up(self) -> None:
        for each in (self.client, self.server):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxied(folder: Path, target: Path) -> Iterator[Proxy]:
    """Give a proxy."""
    with closing(Proxy(folder, target)) as proxy:
        yield proxy
