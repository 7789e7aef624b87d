"""The date, as the write budget needs it: read once, and carried on by a clock that nobody sets.

Owns that reading. The date of a machine may be set while an instance serves, by hand or when its
clock first hears of the time; a day of the budget must last a day all the same. The clock that
carries it on also goes while the machine sleeps. Each worker reads the date anew.
"""

import time


class SteadyDate:
    """Begins as the date of the machine."""

    def __init__(self) -> None:
        self._boot_unix_s = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)

    def now_s(self) -> int:
        """Whole seconds since 1970."""
        return int(self._boot_unix_s + time.clock_gettime(time.CLOCK_BOOTTIME))
