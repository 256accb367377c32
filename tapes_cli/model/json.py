"""Names for JSON as Python holds it."""

from __future__ import annotations

from typing import Any, TypeAlias

JSON: TypeAlias = Any
"""Any JSON value: None, bool, int, float, str, list or dict with str keys."""

JSONObject: TypeAlias = dict[str, Any]
"""A JSON object."""
