"""What is done when swap stands still and the machine has no memory: first some is given back
(relief.py), then, as the last resort, the OOM killer is called by hand.

Owns three files, opened at the start. Allocates nothing later, and waits for nothing. The kernel
needs a little memory of its own to hand a page to the loop device and on to FUSE. With none left,
whoever could free some waits for that page, and the kernel calls its OOM killer for nobody who may
not do I/O: it tries for ever. And it tries for long where stores are refused because the pool is
full. This ends both, if need be at the price of the process that the OOM killer chooses. Always
holds: it does nothing while the device completes anything but refusals, or memory is to be had.
"""

import os
from typing import Final

from vswapfs.host import memory
from vswapfs.host.relief import Relief

RELIEF_S: Final = 2.0
"""Requests under way and none completed for so long: what is kept for that is given back."""

REFUSED_SHARE: Final = 0.9
"""Of what was stored, loaded and refused in a second. More, and nothing is completed: the kernel
keeps each page that was refused, tries the next, and finds no reason to call its OOM killer, as
swap has room: a guest of 192 MiB without a tier went on so for 80 s, at 1800 refusals a second."""

REFUSED_FOR_S: Final = 3.0
"""So long the figures of a second count: they come once a second, if the worker has the time."""

AGAIN_S: Final = 10.0
"""Until it is taken again."""

STALLED_S: Final = 20.0
"""The same, for the OOM killer. A slow disk does not take so long; a hung task is told of after
120 s."""

STALLED_IN_RAM_S: Final = 5.0
"""Where there is no disk to wait for."""

STAT: Final = "/sys/block/{}/stat"
TRIGGER: Final = "/proc/sysrq-trigger"

_READS, _WRITES, _IN_FLIGHT, _DISCARDS = 0, 4, 8, 11
"""Columns of /sys/block/*/stat."""


class Rescue:
    """Raises OSError if the machine does not let us."""

    def __init__(self, device: str, relief: Relief | None = None) -> None:
        self._relief = relief or Relief()
        self._stat_fd = os.open(STAT.format(device), os.O_RDONLY | os.O_CLOEXEC)
        self._trigger_fd = os.open(TRIGGER, os.O_WRONLY | os.O_CLOEXEC)
        self._memory = memory.Watch()
        self._completed, self._since_s, self._given_s = -1, 0.0, 0.0
        self._served, self._refused = 0, 0
        self._refuses_until_s = 0.0
        self.look(0.0)  # whatever the kernel allocates for these files, it has now
        self._completed = -1

    def look(
        self, now_s: float, *, has_tiers: bool = True, served: int = 0, refused: int = 0
    ) -> bool:
        """To be called about once a second; True if a process was ended. ``served``: pages stored
        and loaded, and ``refused``: stores, so far."""
        columns = os.pread(self._stat_fd, 256, 0).split()
        completed = sum(int(columns[at]) for at in (_READS, _WRITES, _DISCARDS))
        self._compare(now_s, served, refused)
        is_idle = completed == self._completed and columns[_IN_FLIGHT] == b"0"
        refuses = now_s < self._refuses_until_s
        if is_idle or (completed != self._completed and not refuses):
            self._since_s = now_s
            if now_s - self._given_s > AGAIN_S:
                self._relief.take_again()
        self._completed = completed
        stalled_s = now_s - self._since_s
        if stalled_s < RELIEF_S or self._memory.can_spare_some():
            return False
        if self._relief.give_back():
            self._given_s = now_s
        if stalled_s < (STALLED_S if has_tiers else STALLED_IN_RAM_S):
            return False
        os.write(self._trigger_fd, b"f")
        self._since_s = now_s
        return True

    def _compare(self, now_s: float, served: int, refused: int) -> None:
        """Whether nearly all is refused. Figures of another worker begin anew."""
        served_now, refused_now = served - self._served, refused - self._refused
        self._served, self._refused = served, refused
        if served_now or refused_now:
            all_now = served_now + refused_now
            refuses = served_now >= 0 and refused_now > REFUSED_SHARE * all_now
            self._refuses_until_s = now_s + REFUSED_FOR_S if refuses else 0.0
