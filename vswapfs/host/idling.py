"""Keeps the machine's idle processors from halting while pages come and go.

Owns the latency request (/dev/cpu_dma_latency, the kernel's PM QoS). A page fault waits through
three or four wake-ups. In a virtual machine each one of a halted processor is a trap to the host:
a page of 4 KiB took 55 us to read, and 25 us with this (tools/bench device). Only where the kernel
idles through the haltpoll driver, as it does in such a machine; what it would win elsewhere has not
been measured. Never kept longer than requests come, as it costs the host processor time.
"""

import os
import struct
from pathlib import Path
from typing import Final

from vswapfs.host.hardening import Outcome

_DRIVER: Final = Path("/sys/devices/system/cpu/cpuidle/current_driver")
_DEVICE: Final = "/dev/cpu_dma_latency"
_NAME: Final = "idle_processors"
_AT_ONCE: Final = struct.pack("<i", 0)  # idle by polling
_WHENEVER: Final = struct.pack("<i", -1)  # the kernel's default


class IdleProcessors:
    """Ends with its process: the kernel forgets a request whose file is closed."""

    def __init__(self) -> None:
        self._fd = -1
        self.outcome = Outcome(_NAME, True, "left to the kernel: no haltpoll driver")
        if not _DRIVER.exists() or _DRIVER.read_text().strip() != "haltpoll":
            return
        try:
            self._fd = os.open(_DEVICE, os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            detail = (
                f"{_DEVICE}: {error.strerror}: wake-ups of halted processors slow page I/O down"
            )
            self.outcome = Outcome(_NAME, False, detail)
        else:
            self.outcome = Outcome(_NAME, True, "kept from halting while requests come")

    def keep_awake(self, awake: bool) -> None:
        """From now on, or no longer."""
        if self._fd >= 0:
            os.write(self._fd, _AT_ONCE if awake else _WHENEVER)
