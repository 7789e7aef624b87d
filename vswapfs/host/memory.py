"""How much memory the machine has, and how much of it the pool may take.

Owns the rule of the machine's reserve. A pool that may grow to the size of the machine hangs it
(measured in a guest: docs/swap-safety.md), so the limit leaves room whatever is asked for.
"""

from pathlib import Path
from typing import Final

RESERVE_SHARE: Final = 1 / 8
RESERVE_MIN_BYTES: Final = 128 << 20


def total_bytes() -> int:
    """MemTotal."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/meminfo has no MemTotal")


def largest_pool_bytes() -> int:
    """The largest pool limit that leaves the machine its reserve."""
    total = total_bytes()
    return max(0, total - max(int(total * RESERVE_SHARE), RESERVE_MIN_BYTES))
