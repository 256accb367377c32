"""The chain of a turn: one node per message, each addressed by its content and its parent."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING

from tapes_cli.merkle.canonical import canonical, canonical_exact, canonical_plain, is_plain
from tapes_cli.merkle.projection import project_content

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tapes_cli.model.blocks import ContentBlock, Message
    from tapes_cli.model.history import History
    from tapes_cli.model.json import JSONObject
    from tapes_cli.model.turn import Turn

_LONGEST_USUAL_ROLE = 32

ROOT_PARENT = ""
"""What stands for the parent of a root."""


class ChainError(ValueError):
    """A chain is not one: empty, with a parent before its root, or broken in between."""


@dataclass(slots=True)
class Node:
    """A message in its place.

    Attributes:
        hash: the content address, 64 lower-case hexadecimal digits.
        parent_hash: the address of the node before it, `ROOT_PARENT` at the root.
        message: what was said, as it is stored.
        model: the model that the request named, or, at the head, that answered. May be empty.
    """

    hash: str
    parent_hash: str
    message: Message
    model: str


@dataclass(slots=True)
class Chain:
    """The nodes of a turn, root first. The last one, the head, is the response.

    Attributes:
        fresh: the nodes that are at hand: the head, and those before it that are new.
        earlier: the addresses of the nodes before them, which an earlier turn had as well.
        history: the messages of the nodes before the head.
        request_model: the model of these nodes.
    """

    fresh: list[Node]
    earlier: list[str]
    history: History
    request_model: str

    def __len__(self) -> int:
        """Return how many nodes there are."""
        return len(self.earlier) + len(self.fresh)

    @property
    def head(self) -> Node:
        """The last node: the response."""
        return self.fresh[-1]

    @property
    def root_hash(self) -> str:
        """The address of the first node."""
        return self.earlier[0] if self.earlier else self.fresh[0].hash

    @property
    def hashes(self) -> list[str]:
        """The addresses of all nodes."""
        return [*self.earlier, *(node.hash for node in self.fresh)]

    @property
    def nodes(self) -> list[Node]:
        """All nodes. Those that are not at hand are made anew."""
        return [self.node(index) for index in range(len(self))]

    def hash_at(self, index: int) -> str:
        """Return the address of a node, counted from the root."""
        known = len(self.earlier)
        return self.earlier[index] if index < known else self.fresh[index - known].hash

    def node(self, index: int) -> Node:
        """Return a node, counted from the root."""
        known = len(self.earlier)
        if index >= known:
            return self.fresh[index - known]
        parent = self.earlier[index - 1] if index else ROOT_PARENT
        return Node(self.earlier[index], parent, self.history[index], self.request_model)


def node_hash(parent_hash: str, role: str, content: Iterable[ContentBlock]) -> str:
    """Return the content address of a message after the node `parent_hash`.

    Raises:
        CanonicalError: the content holds a number that no double can hold.
    """
    return sha256(_hashed(parent_hash, role, content)).hexdigest()


def _hashed(parent_hash: str, role: str, content: Iterable[ContentBlock]) -> bytes:
    # The canonical form of {"content": {"content", "role", "type"}, "parent"}.
    return b'{"content":{"content":%b,"role":%b,"type":"message"},"parent":"%b"}' % (
        _canonical_blocks(project_content(content)),
        _role(role),
        parent_hash.encode(),
    )


def _canonical_blocks(projected: list[JSONObject]) -> bytes:
    # Only these two fields hold more than text and truth values, for which no look is needed.
    for block in projected:
        for field in ("tool_input", "content"):
            if field in block and not is_plain(block[field]):
                return canonical_exact(projected)
    return canonical_plain(projected)


def _role(role: str) -> bytes:
    return _usual_role(role) if len(role) <= _LONGEST_USUAL_ROLE else canonical(role)


@lru_cache(maxsize=64)
def _usual_role(role: str) -> bytes:
    return canonical(role)


class ChainBuilder:
    """Builds chains, hashing a message once however often a session re-sends it.

    What a reader marks as known (`History.known`) is not hashed again.

    Attributes:
        hashes_computed: how many hashes were worked out so far.
    """

    def __init__(self) -> None:
        self.hashes_computed = 0

    def build(self, turn: Turn) -> Chain:
        """Return the chain of a turn: its history, then its response.

        Raises:
            CanonicalError: a message holds a number that no double can hold.
        """
        history, model = turn.history, turn.request_model
        earlier = self._earlier(history)
        addresses = earlier[:]
        parent = earlier[-1] if earlier else ROOT_PARENT
        fresh = []
        for message in history.fresh:
            address = self._address(parent, message)
            fresh.append(Node(address, parent, message, model))
            addresses.append(address)
            parent = address
        history.mark.addresses = addresses
        head = self._address(parent, turn.response)
        fresh.append(Node(head, parent, turn.response, turn.response_model))
        return Chain(fresh, earlier, history, model)

    def _earlier(self, history: History) -> list[str]:
        """Return the addresses of what the history shares with an earlier one."""
        if history.known is not None and history.known.addresses is not None:
            return history.known.addresses[: history.shared]
        addresses: list[str] = []
        parent = ROOT_PARENT
        for message in history.earlier():
            parent = self._address(parent, message)
            addresses.append(parent)
        return addresses

    def _address(self, parent: str, message: Message) -> str:
        self.hashes_computed += 1
        return node_hash(parent, message.role, message.content)


def check_chain(chain: Chain) -> None:
    """Check that the nodes are a chain; nothing is repaired.

    Raises:
        ChainError: there are no nodes, the root has a parent, or a node's parent is not the node
            before it.
    """
    if not chain.fresh:
        raise ChainError("the chain is empty")
    known = len(chain.earlier)
    parent = chain.earlier[-1] if known else ROOT_PARENT
    for index, node in enumerate(chain.fresh, known):
        if node.parent_hash != parent:
            raise ChainError(
                f"node {index} of the chain is not chained to the node before it"
                if index
                else "the root of the chain has a parent"
            )
        parent = node.hash
