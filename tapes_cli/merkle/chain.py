"""The chain of a turn: one node per message, each addressed by its content and its parent."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from tapes_cli.merkle.canonical import canonical, canonical_exact, canonical_plain, is_plain
from tapes_cli.merkle.projection import project_content

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tapes_cli.model.blocks import ContentBlock, Message
    from tapes_cli.model.json import JSONObject
    from tapes_cli.model.turn import Turn

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
    """The nodes of a turn, root first. The last one, the head, is the response."""

    nodes: list[Node]

    @property
    def root(self) -> Node:
        """The first node."""
        return self.nodes[0]

    @property
    def head(self) -> Node:
        """The last node: the response."""
        return self.nodes[-1]


def node_hash(parent_hash: str, role: str, content: Iterable[ContentBlock]) -> str:
    """Return the content address of a message after the node `parent_hash`.

    Raises:
        CanonicalError: the content holds a number that no double can hold.
    """
    # The canonical form of {"content": {"content", "role", "type"}, "parent"}.
    return sha256(
        b'{"content":{"content":%b,"role":%b,"type":"message"},"parent":"%b"}'
        % (_canonical_blocks(project_content(content)), _role(role), parent_hash.encode())
    ).hexdigest()


def _canonical_blocks(projected: list[JSONObject]) -> bytes:
    # Only these two fields hold more than text and truth values, for which no look is needed.
    for block in projected:
        for field in ("tool_input", "content"):
            if field in block and not is_plain(block[field]):
                return canonical_exact(projected)
    return canonical_plain(projected)


@lru_cache(maxsize=64)
def _role(role: str) -> bytes:
    return canonical(role)


class ChainBuilder:
    """Builds chains, hashing a message once however often a session re-sends it.

    It relies on a reader that hands out the same `Message` object for the same message of a
    history. Message objects must not be changed once they have been in a chain.

    Attributes:
        hashes_computed: how many hashes were worked out, not remembered, so far.
    """

    def __init__(self) -> None:
        self.hashes_computed = 0
        # For as long as the reader keeps the message: its last parent, and its hash there.
        self._known: WeakKeyDictionary[Message, tuple[str, str]] = WeakKeyDictionary()

    def build(self, turn: Turn) -> Chain:
        """Return the chain of a turn: its history, then its response.

        Raises:
            CanonicalError: a message holds a number that no double can hold.
        """
        parent = ROOT_PARENT
        nodes = []
        for message in turn.history:
            address = self._address(parent, message)
            nodes.append(Node(address, parent, message, turn.request_model))
            parent = address
        head = self._address(parent, turn.response)
        nodes.append(Node(head, parent, turn.response, turn.response_model))
        return Chain(nodes)

    def _address(self, parent: str, message: Message) -> str:
        known = self._known.get(message)
        if known is not None and known[0] == parent:
            return known[1]
        address = node_hash(parent, message.role, message.content)
        self._known[message] = (parent, address)
        self.hashes_computed += 1
        return address


def check_chain(nodes: Sequence[Node]) -> None:
    """Check that the nodes are a chain; nothing is repaired.

    Raises:
        ChainError: there are no nodes, the root has a parent, or a node's parent is not the node
            before it.
    """
    if not nodes:
        raise ChainError("the chain is empty")
    parent = ROOT_PARENT
    for index, node in enumerate(nodes):
        if node.parent_hash != parent:
            raise ChainError(
                f"node {index} of the chain is not chained to the node before it"
                if index
                else "the root of the chain has a parent"
            )
        parent = node.hash
