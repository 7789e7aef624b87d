"""The last resort when swap stands still and the machine has no memory: the OOM killer, by hand.

Owns three files, opened at the start. Allocates nothing later, and waits for nothing. The kernel
needs a little memory of its own to hand a page to the loop device and on to FUSE. With none left,
whoever could free some waits for that page, and the kernel calls its OOM killer for nobody who may
not do I/O: it tries for ever. This ends that, at the price of the process that the OOM killer
chooses. Always holds: it does nothing while the device completes anything, or memory is to be had.
"""

import os
from typing import Final

from vswapfs.host import memory

STALLED_S: Final = 20.0
"""Requests under way and none completed for so long. A slow disk does not take so long; a hung task
is told of after 120 s."""

STAT: Final = "/sys/block/{}/stat"
TRIGGER: Final = "/proc/sysrq-trigger"

_READS, _WRITES, _IN_FLIGHT, _DISCARDS = 0, 4, 8, 11
"""Columns of /sys/block/*/stat."""


class Rescue:
    """Raises OSError if the machine does not let us."""

    def __init__(self, device: str) -> None:
        self._stat_fd = os.open(STAT.format(device), os.O_RDONLY | os.O_CLOEXEC)
        self._trigger_fd = os.open(TRIGGER, os.O_WRONLY | os.O_CLOEXEC)
        self._memory = memory.Watch()
        self._completed, self._since_s = -1, 0.0
        self.look(0.0)  # whatever the kernel allocates for these files, it has now
        self._completed = -1

    def look(self, now_s: float) -> bool:
        """To be called about once a second; True if a process was ended."""
        columns = os.pread(self._stat_fd, 256, 0).split()
        completed = sum(int(columns[at]) for at in (_READS, _WRITES, _DISCARDS))
        if completed != self._completed or columns[_IN_FLIGHT] == b"0":
            self._completed, self._since_s = completed, now_s
        can_spare_some = self._memory.can_spare_some()
        if can_spare_some or now_s - self._since_s < STALLED_S:
            return False
        os.write(self._trigger_fd, b"f")
        self._since_s = now_s
        return True
