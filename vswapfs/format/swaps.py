"""The kernel's table of swap areas, /proc/swaps.

Owns what its lines mean. Never reads it: who does, reads its own /proc.
"""

import re
from collections.abc import Iterable
from itertools import islice
from typing import Final, NamedTuple

_LOOP: Final = re.compile(r"/(loop\d+)")
"""A loop device that was switched on in a mount namespace that has gone, and its /dev with it."""


class SwapArea(NamedTuple):
    device: str
    """A file or block device, as the kernel wrote it: a space in its name is ``\\040``."""
    size_bytes: int
    used_bytes: int
    priority: int


def parse(lines: Iterable[str]) -> dict[str, SwapArea]:
    """All active areas, by device. The first line is that of the headings."""
    areas = {}
    for line in islice(lines, 1, None):
        device, _kind, size_kib, used_kib, priority = line.rsplit(maxsplit=4)
        if match := _LOOP.fullmatch(device):
            device = f"/dev/{match[1]}"
        areas[device] = SwapArea(device, int(size_kib) * 1024, int(used_kib) * 1024, int(priority))
    return areas
