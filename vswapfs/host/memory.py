"""How much memory the machine has, and how much of it the pool may take.

Owns the rule of the machine's reserve. A pool that may grow to the size of the machine hangs it
(measured in a guest: docs/swap-safety.md), so the limit leaves room whatever is asked for.
"""

import os
import re
from pathlib import Path
from typing import Final

from vswapfs.units import PAGE_BYTES

RESERVE_SHARE: Final = 1 / 8
RESERVE_MIN_BYTES: Final = 128 << 20


def total_bytes() -> int:
    return _meminfo_bytes("MemTotal")


def available_bytes() -> int:
    """What programs could still take without swapping (MemAvailable)."""
    return _meminfo_bytes("MemAvailable")


def pressure_pct() -> float | None:
    """Share of the last 10 s in which some task waited for memory; None without PSI."""
    try:
        some = Path("/proc/pressure/memory").read_text().splitlines()[0]
    except OSError:
        return None
    return float(some.split()[1].removeprefix("avg10="))


def reserve_bytes() -> int:
    """What is left to the machine."""
    return max(int(total_bytes() * RESERVE_SHARE), RESERVE_MIN_BYTES)


def largest_pool_bytes() -> int:
    """The largest pool limit that leaves the machine its reserve."""
    return max(0, total_bytes() - reserve_bytes())


def default_pool_bytes() -> int:
    """The most that a pool takes if nobody says how much; of a small machine it is the largest."""
    return min(total_bytes() // 4, largest_pool_bytes())


SPARE_SHARE: Final = 1 / 16
SPARE_MIN_BYTES: Final = 32 << 20


class Watch:
    """Looks at the machine's memory without allocating any: the file stays open, and the kernel has
    the page that it writes to from the first look on."""

    def __init__(self) -> None:
        self._fd = os.open("/proc/meminfo", os.O_RDONLY | os.O_CLOEXEC)
        self._spare_bytes = max(int(total_bytes() * SPARE_SHARE), SPARE_MIN_BYTES)
        self._low_bytes = _low_marks_bytes()
        self.can_spare_some()

    def can_spare_some(self) -> bool:
        """Whether to take a MiB now will not have the caller wait for reclaim.

        Much more than that has to be available: 16 of a guest's 212 MiB were said to be to the end,
        when nothing was (pages of programs that run).
        """
        return self._bytes_of(b"MemAvailable:") >= self._spare_bytes

    def is_free(self, size_bytes: int) -> bool:
        """Whether so much can be taken now without any reclaim: the kernel reclaims in the
        background as long as less is free than its low-memory marks, and up to a mark above."""
        return self._bytes_of(b"MemFree:") - size_bytes >= self._low_bytes

    def _bytes_of(self, key: bytes) -> int:
        _, _, rest = os.pread(self._fd, 256, 0).partition(key)
        return int(rest.split(None, 1)[0]) << 10


def _low_marks_bytes() -> int:
    """Of all zones: below them kswapd reclaims."""
    pages = re.findall(r"^ +low +(\d+)$", Path("/proc/zoneinfo").read_text(), re.MULTILINE)
    return sum(map(int, pages)) * PAGE_BYTES


def figures() -> dict[str, int | float]:
    """The machine's share of the field table."""
    found: dict[str, int | float] = {
        "memory.total_bytes": total_bytes(),
        "memory.available_bytes": available_bytes(),
        "memory.reserve_bytes": reserve_bytes(),
    }
    if (pressure := pressure_pct()) is not None:
        found["memory.pressure_pct"] = pressure
    return found


def _meminfo_bytes(key: str) -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/meminfo has no {key}")
