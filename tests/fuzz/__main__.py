"""Tries broken captures on every reader for a while: `python -m tests.fuzz --minutes 10`."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter
from random import SystemRandom

from tests.fuzz.captures import CAPTURES
from tests.fuzz.check import faults, read_broken

_MOST_SEED = 2**32


def main() -> int:
    """Try until the time is over; return the exit status: 1 if anything failed."""
    asked = _arguments()
    names = asked.format or sorted(CAPTURES)
    tried: Counter[str] = Counter()
    records: Counter[str] = Counter()
    end = time.monotonic() + 60 * asked.minutes
    seeds = SystemRandom()
    while time.monotonic() < end:
        for name in names:
            seed = asked.seed if asked.seed is not None else seeds.randrange(_MOST_SEED)
            try:
                found = read_broken(CAPTURES, name, seed)
                wrong = faults(found)
            except Exception:  # noqa: BLE001  # anything is a finding
                wrong = [traceback.format_exc()]
            if wrong:
                _say("; ".join(wrong))
                _say(f"Again: python -m tests.fuzz --format {name} --seed {seed}")
                return 1
            records[name] += len(found)
            tried[name] += 1
        if asked.seed is not None:
            break
    for name in names:
        _say(f"{name:28} {tried[name]:>9,} broken captures, {records[name]:>11,} records: sound")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long to try")
    parser.add_argument("--format", action="append", choices=sorted(CAPTURES), help="only these")
    parser.add_argument("--seed", type=int, help="one case again")
    return parser.parse_args()


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
