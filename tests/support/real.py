"""Real captures to try things on. They are not part of the project; tests skip without them."""

from __future__ import annotations

import os
from pathlib import Path

REAL = Path(os.environ.get("TAPES_REAL_CAPTURES") or "/nonexistent")
"""The folder that the environment variable `TAPES_REAL_CAPTURES` names."""
