"""Recognises the history that a session re-sends with every request.

A conversation of n turns sends its first message n times. What was parsed once is handed out
again as the very same `Message` objects, so that neither the parser nor the hasher sees it twice.
The result is the same as parsing everything anew; only the work differs.
"""

from __future__ import annotations

import marshal
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import orjson

from tapes_cli.capture.decode import check_nesting

if TYPE_CHECKING:
    from collections.abc import Callable

    from tapes_cli.model.blocks import Message
    from tapes_cli.model.json import JSON

DEFAULT_BUDGET_BYTES = 48 << 20
"""Raw bytes of the records whose histories are remembered, in all."""

MAX_HISTORIES = 16
"""Histories remembered for a session: its sub-agents take turns with it."""

HistoryKey: TypeAlias = tuple[str, str]
"""The provider, and a hint that tells sessions apart; turns without a session share one."""

_REWRITTEN_TAIL = 4
"""Harnesses move cache marks along the last messages: a conversation that differs in no more than
these has gone on, and is no fork."""

_LEVELS_ABOVE = 3
"""A message lies in the list of messages, in the request, in the record."""


@dataclass(slots=True)
class _History:
    """Raw messages and what they were parsed to, position by position.

    `proofs` has the exact bytes of those messages for which `==` says too little.
    """

    cost: int = 0
    raw: list[JSON] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    proofs: dict[int, bytes] = field(default_factory=dict)

    def match(self, raw: list[JSON]) -> int:
        """Return how many messages at the start of `raw` are the ones known here."""
        length = min(len(raw), len(self.raw))
        if not length or raw[0] != self.raw[0]:
            return 0
        if raw[:length] != self.raw[:length]:
            length = next(i for i in range(length) if raw[i] != self.raw[i])
        for index, proof in self.proofs.items():
            if index < length and _exact_bytes(raw[index]) != proof:
                length = index
        return length

    def fork(self, length: int) -> _History:
        """Return a history with the first `length` messages of this one."""
        proofs = {i: proof for i, proof in self.proofs.items() if i < length}
        return _History(0, self.raw[:length], self.messages[:length], proofs)


class Histories:
    """A bounded memory of the histories seen last. Not safe for threads."""

    def __init__(self, budget_bytes: int = DEFAULT_BUDGET_BYTES) -> None:
        self._budget = budget_bytes
        self._spent = 0
        # Sessions, and the histories of each, least recently used first.
        self._sessions: OrderedDict[HistoryKey, list[_History]] = OrderedDict()

    def messages(
        self,
        key: HistoryKey,
        raw: list[JSON],
        cost: int,
        parse: Callable[[JSON, str], Message],
    ) -> list[Message]:
        """Return the messages of a request, parsing only what no earlier request had.

        Args:
            key: the provider and the session.
            raw: the request's message items. Kept, so not to be changed afterwards.
            cost: bytes of the record, as an estimate of the memory that it takes.
            parse: parses one item, given its JSON Pointer. What it raises leaves the memory
                unchanged.

        Raises:
            RejectError: a new message is nested too deeply; and whatever `parse` raises.
        """
        if not raw:
            return []
        known, length = self._best(key, raw)
        fresh: list[Message] = []
        proofs: dict[int, bytes] = {}
        comparable = True
        for index in range(length, len(raw)):
            item, pointer = raw[index], f"/request/messages/{index}"
            comparable &= check_nesting(item, _LEVELS_ABOVE, pointer)
            fresh.append(parse(item, pointer))
            if not _plain(item):
                proofs[index] = _exact_bytes(item)
        if not comparable:
            return [*(known.messages[:length] if known else ()), *fresh]
        if known is not None and length == len(raw):
            self._keep(key, known, known.cost)
            return known.messages[:length]
        if known is None:
            known = _History()
        elif length < len(known.raw):
            grown = known.fork(length)
            if len(known.raw) - length <= _REWRITTEN_TAIL:
                self._forget(key, known)
            known = grown
        known.raw += raw[length:]
        known.messages += fresh
        known.proofs |= proofs
        self._keep(key, known, cost)
        return known.messages[:]

    def _best(self, key: HistoryKey, raw: list[JSON]) -> tuple[_History | None, int]:
        best, length = None, 0
        for history in reversed(self._sessions.get(key, ())):
            matched = history.match(raw)
            if matched > length:
                best, length = history, matched
                if length == len(raw):
                    break
        return best, length

    def _keep(self, key: HistoryKey, history: _History, cost: int) -> None:
        """Put the history at the fresh end, and forget the stalest beyond the budget."""
        self._forget(key, history)
        history.cost = cost
        self._spent += cost
        self._sessions.setdefault(key, []).append(history)
        self._sessions.move_to_end(key)
        if len(self._sessions[key]) > MAX_HISTORIES:
            self._forget(key, self._sessions[key][0])
        while self._spent > self._budget:
            stalest, histories = next(iter(self._sessions.items()))
            self._forget(stalest, histories[0])

    def _forget(self, key: HistoryKey, history: _History) -> None:
        """Drop the history, and the session with its last one."""
        histories = self._sessions.get(key, [])
        for index, other in enumerate(histories):
            if other is history:
                del histories[index]
                self._spent -= history.cost
                break
        if not histories:
            self._sessions.pop(key, None)


def _exact_bytes(item: JSON) -> bytes:
    """Return bytes that are equal only for values that are alike in type and order, too."""
    try:
        return orjson.dumps(item)
    except orjson.JSONEncodeError:
        # The second version of the format: later ones depend on how often a string is used.
        return marshal.dumps(item, 2)


def _plain(item: JSON) -> bool:
    """Whether `==` with a re-sent message means that both parse to the same.

    Not where a number or a boolean stands (True == 1 == 1.0), and not where the order of keys
    might show, which is below the message and its blocks: there, values may be kept as text.
    """
    if not isinstance(item, dict):
        return False
    return all(
        _plain_block(block)
        for value in item.values()
        for block in (value if isinstance(value, list) else (value,))
    )


def _plain_block(block: JSON) -> bool:
    if isinstance(block, dict):
        return all(_plain_value(value) for value in block.values())
    return block is None or isinstance(block, str)


def _plain_value(value: JSON) -> bool:
    if isinstance(value, dict):
        return not value
    if isinstance(value, list):
        return all(_plain_leaf(item) for item in value)
    return value is None or isinstance(value, str)


def _plain_leaf(item: JSON) -> bool:
    return item is None or isinstance(item, str)
