"""The polling window: how long the lane looks for the next request before it sleeps.

Owns that decision, and with it when the machine's idle processors are to be kept awake. Never
polls itself. A wake-up costs more than the answer (45 us against 25 us for a page, measured), so
polling pays as long as requests come soon after each other (as KVM's halt polling does).
"""

import os
from collections.abc import Callable
from typing import Final

WINDOW_NS: Final = 200_000
"""How long to poll at most before going to sleep (KVM's default for halt_poll_ns); a task that
swaps at random comes back within 10 to 60 us."""

_AVERAGE_SHIFT: Final = 3  # the average wait is over about 8 requests


class PollWindow:
    """``ns`` is the window now: WINDOW_NS or 0."""

    def __init__(self, keep_awake: Callable[[bool], None]) -> None:
        """``keep_awake`` is told when requests begin to come often, and when none has come for a
        while."""
        self._keep_awake = keep_awake
        self._may_poll = (os.cpu_count() or 1) > 1
        self._average_wait_ns = 2 * WINDOW_NS
        self.ns = 0
        self.keeps_awake = False

    def learn(self, waited_ns: int) -> None:
        """A request came, or something else to do, after so long.

        Poll as long as requests come, on average, before polling would have been given up. A long
        wait counts as two windows at most: one pause does not end polling, and an idle instance
        stops after a few requests that came late.
        """
        self._average_wait_ns += (
            min(waited_ns, 2 * WINDOW_NS) - self._average_wait_ns >> _AVERAGE_SHIFT
        )
        self.ns = WINDOW_NS if self._may_poll and self._average_wait_ns < WINDOW_NS else 0
        if self.ns and not self.keeps_awake:
            self.keeps_awake = True
            self._keep_awake(True)

    def rest(self) -> None:
        """No request has come for a while: what was learned is forgotten."""
        self._average_wait_ns = 2 * WINDOW_NS
        self.ns = 0
        if self.keeps_awake:
            self.keeps_awake = False
            self._keep_awake(False)
