"""Makes room for the image before anything is frozen, or says how much is missing.

Owns how much is needed, and the reclaim of cgroups (cgroup v2, memory.reclaim). Once tasks are
frozen nothing can be swapped out, and the kernel needs a free page for each one that it cannot
drop: half of the memory.
"""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Final

from vswapfs.errors import HostError
from vswapfs.hibernate.rest import CGROUPS
from vswapfs.host import memory
from vswapfs.units import format_size

_MARGIN_BYTES: Final = 16 << 20
"""What the kernel keeps for I/O (4 MiB) and for drivers (twice /sys/power/reserved_size, 1 MiB),
and what its own lists take."""
_MORE_SHARE: Final = 1 / 32
"""Of the memory, what each further try asks for in addition."""

_STEP_BYTES: Final = 32 << 20
_LEAST_GAIN_BYTES: Final = 1 << 20


def needed_bytes(tries: int) -> int:
    """MemAvailable that an image needs, when ``tries`` have failed for want of memory."""
    total_bytes = memory.total_bytes()
    return total_bytes // 2 + _MARGIN_BYTES + int(tries * _MORE_SHARE * total_bytes)


def make(needed: int, spill: Callable[[int], None]) -> None:
    """Reclaim until that much is available; what is still missing then, ``spill`` is told.

    Raises HostError with the figures if it is too little all the same.
    """
    _reclaim(needed)
    if (missing := needed - memory.available_bytes()) > 0:
        spill(missing)
        _reclaim(needed)
    available = memory.available_bytes()
    if available < needed:
        raise HostError(
            "make room for the image",
            f"memory is too full: {format_size(needed)} must be available, half of the memory and "
            f"a margin; {format_size(available)} are, after all was swapped out that could be",
            remedy=f"end programs that take {format_size(needed - available)}, add a tier and "
            "vswapctl writeback, or make the area larger",
        )


def _reclaim(needed: int) -> None:
    files = {path.parent: path for path in CGROUPS.glob("*/memory.reclaim")}
    while files and (missing := needed - memory.available_bytes()) > 0:
        before = memory.available_bytes()
        largest = sorted(files, key=_current_bytes, reverse=True)
        for cgroup in largest:
            _reclaim_of(files[cgroup], min(missing, _STEP_BYTES))
            if (missing := needed - memory.available_bytes()) <= 0:
                return
        if memory.available_bytes() - before < _LEAST_GAIN_BYTES:
            return


def _current_bytes(cgroup: Path) -> int:
    try:
        return int((cgroup / "memory.current").read_text())
    except OSError:
        return 0  # it has been removed


def _reclaim_of(path: Path, wanted_bytes: int) -> None:
    try:
        path.write_text(str(wanted_bytes))
    except OSError as error:
        # EAGAIN: less than was asked for; ENOENT, ENODEV: the cgroup has been removed.
        if error.errno not in (errno.EAGAIN, errno.EINTR, errno.ENOENT, errno.ENODEV):
            raise HostError(f"reclaim by {path}", error.strerror or str(error)) from None
