"""Loads a core in bursts: ``python -m levelfield.harness.selftest.burner SEED FILE``.

Bursts last 0.5 to 20 s, log-uniform. The pauses between them leave four fifths of the time quiet.
The process writes one line "begin end" in seconds since 1970 per burst. It ends when its standard
input closes.
"""

from __future__ import annotations

import random
import select
import sys
import time
from pathlib import Path

SHORTEST, LONGEST, QUIET = 0.5, 20.0, 4.0  # seconds, seconds, and ratio of pause to burst


def main(seed: str, path: str) -> None:
    """Burn and rest by turns."""
    generator = random.Random(seed)
    with Path(path).open("w", buffering=1) as log:
        while True:
            burst = SHORTEST * (LONGEST / SHORTEST) ** generator.random()
            if select.select([sys.stdin], [], [], burst * QUIET * generator.uniform(0.5, 1.5))[0]:
                return
            begin, start = time.time(), time.monotonic()
            number = 1
            while time.monotonic() - start < burst:
                for _ in range(10_000):
                    number = (number * 1103515245 + 12345) & 0x7FFFFFFF
            log.write(f"{begin} {time.time()}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
