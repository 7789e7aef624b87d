"""Swap areas: mkswap, swapon, swapoff, and what /proc/swaps says.

Owns these steps. Never decides whether to take them.
"""

import threading
from pathlib import Path
from typing import Final

from vswapfs import procfs
from vswapfs.format import swaps
from vswapfs.host import swapin
from vswapfs.host.command import run

AREAS_LEAST: Final = 23
"""Every kernel takes so many (MAX_SWAPFILES is 32 less what it uses of them for other things)."""

ON_TIMEOUT_S: Final = 600.0
"""The kernel makes its tables meanwhile: of 16 TiB more than half a minute."""


def active_areas() -> dict[str, swaps.SwapArea]:
    """All active swap areas by device."""
    return swaps.parse(procfs.lines(Path("/proc/swaps")))


def make(device: str, label: str) -> None:
    """Write a swap header."""
    run(f"mkswap {device}", "mkswap", "--label", label, device)


def on(device: str, priority: int | None) -> None:
    """Activate with discards: whole at once now, and of each cluster that becomes free."""
    options = ["--discard"] if priority is None else ["--discard", "--priority", str(priority)]
    count = len(active_areas())
    # Said by the kernel in the words of a missing permission.
    remedy = f"{count} areas are active, and the kernel has room for 23 to 29: swapoff one of them"
    run(
        f"swapon {device}", "swapon", *options, device, timeout_s=ON_TIMEOUT_S,
        remedy=remedy if count >= AREAS_LEAST else "",
    )  # fmt: skip


def off(device: str) -> None:
    """Deactivate: every page comes back into memory first, which takes as long as it takes.

    Raises HostError (often: not enough memory for the pages); the area is active as before then.
    """
    ended = threading.Event()
    # Beside it and not before: while swapoff runs, no page is swapped out to this device again.
    ahead = threading.Thread(target=swapin.ask_for_all, args=(ended,), name="swap-in", daemon=True)
    ahead.start()
    try:
        run(f"swapoff {device}", "swapoff", device, timeout_s=None)
    finally:
        ended.set()
        ahead.join()
