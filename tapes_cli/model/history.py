"""The messages of a request, most of which an earlier request of the session had as well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapes_cli.model.blocks import Message


class Mark:
    """Stands for a list of messages: who has seen it need not look at them again.

    Attributes:
        addresses: the hashes of the messages' nodes, root first, once they are worked out.
    """

    __slots__ = ("addresses",)

    def __init__(self) -> None:
        self.addresses: list[str] | None = None


class History(Sequence["Message"]):
    """The messages of a request, in order.

    Those that an earlier request had as well are not read again unless somebody asks for them.

    Attributes:
        fresh: the messages that are at hand, the last ones.
        shared: how many messages come before them.
        known: stands for the earlier request's messages, of which the first `shared` are these.
        mark: stands for all messages of this history.
    """

    __slots__ = ("_earlier", "_load", "fresh", "known", "mark", "shared")

    def __init__(
        self,
        fresh: list[Message],
        shared: int = 0,
        known: Mark | None = None,
        load: Callable[[], Sequence[Message]] | None = None,
    ) -> None:
        self.fresh = fresh
        self.shared = shared
        self.known = known
        self.mark = Mark()
        self._load = load
        self._earlier: Sequence[Message] = ()

    def __len__(self) -> int:
        """Return how many messages there are."""
        return self.shared + len(self.fresh)

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> list[Message]: ...
    def __getitem__(self, index: int | slice) -> Message | list[Message]:
        """Return messages, reading the earlier ones if need be."""
        if isinstance(index, int) and index >= self.shared:
            return self.fresh[index - self.shared]
        if isinstance(index, int) and index >= 0:
            return self.earlier()[index]
        return [*self.earlier(), *self.fresh][index]

    def earlier(self) -> Sequence[Message]:
        """Return the messages that an earlier request had as well, reading them if need be."""
        if self._load is not None and not self._earlier:
            self._earlier = self._load()
        return self._earlier
