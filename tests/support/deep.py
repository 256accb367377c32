"""JSON that is nested more deeply than Python writes from wherever it is called.

A value holds a string in the place of what is nested, and its text gets the brackets afterwards.
"""

from __future__ import annotations

import re

_PLACE = re.compile(rb'"<(\d+) (lists|objects)>"')
_WRITTEN = {b"lists": (b"[", b"0", b"]"), b"objects": (b'{"a":', b"0", b"}")}


def lists(levels: int) -> str:
    """Return what stands for so many lists, one in the other."""
    return f"<{levels} lists>"


def objects(levels: int) -> str:
    """Return what stands for so many objects, one in the other."""
    return f"<{levels} objects>"


def with_depth(data: bytes) -> bytes:
    """Return JSON text with what those strings stand for."""
    return _PLACE.sub(_written, data)


def _written(place: re.Match[bytes]) -> bytes:
    levels, (opening, leaf, closing) = int(place[1]), _WRITTEN[place[2]]
    return opening * levels + leaf + closing * levels
