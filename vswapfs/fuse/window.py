"""The polling window: how long the lane looks for the next request before it sleeps.

Owns that decision, and with it when the machine's idle processors are to be kept awake. Never
polls itself. A wake-up costs more than the answer (45 us against 25 us for a page, measured), so
polling pays as long as requests come soon after each other (as KVM's halt polling does).
"""

import os
from collections.abc import Callable
from typing import Final

_AVERAGE_SHIFT: Final = 3  # the average wait is over about 8 requests


class PollWindow:
    """``ns`` is the window now: as long as was set, or 0."""

    def __init__(self, keep_awake: Callable[[bool], None], most_us: int) -> None:
        """``keep_awake`` is told when requests begin to come often, and when none has come for a
        while."""
        self._keep_awake = keep_awake
        self._may_poll = (os.cpu_count() or 1) > 1
        self.keeps_awake = False
        self.set(most_us)

    def set(self, most_us: int) -> None:
        """Poll for so long at most, before going to sleep; 0: never. On the lane, if it runs."""
        self._most_ns = most_us * 1000
        self._forget()

    def learn(self, waited_ns: int) -> None:
        """A request came, or something else to do, after so long.

        Poll as long as requests come, on average, before polling would have been given up. A long
        wait counts as two windows at most: one pause does not end polling, and an idle instance
        stops after a few requests that came late.
        """
        self._average_wait_ns += (
            min(waited_ns, 2 * self._most_ns) - self._average_wait_ns >> _AVERAGE_SHIFT
        )
        often = self._average_wait_ns < self._most_ns
        self.ns = self._most_ns if self._may_poll and often else 0
        if self.ns and not self.keeps_awake:
            self.keeps_awake = True
            self._keep_awake(True)

    def rest(self) -> None:
        """No request has come for a while: what was learned is forgotten."""
        self._forget()
        if self.keeps_awake:
            self.keeps_awake = False
            self._keep_awake(False)

    def _forget(self) -> None:
        self._average_wait_ns = 2 * self._most_ns
        self.ns = 0
