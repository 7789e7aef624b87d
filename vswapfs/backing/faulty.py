"""A medium that does wrong on purpose, by plan: for tests.

Owns the count of operations (read, write, trim, flush, in the order in which they begin, from 0)
and what goes wrong at each. Never random: the same calls with the same plan do the same.
"""

import errno
import threading
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final, NoReturn

from vswapfs.backing.api import BLOCK_BYTES, Backing

_SPREAD: Final = 2654435761  # so that the bits flipped at successive operations lie apart


class Fault(Enum):
    """What goes wrong. A fault that an operation cannot have does nothing to it."""

    ERROR = "error"
    """Any operation raises EIO and nothing is done."""
    SHORT = "short"
    """A read or write does the first half of its blocks and raises EIO."""
    FLIP = "flip"
    """A read returns one bit wrong."""
    LOST = "lost"
    """A write, trim or flush says it is done and is not."""
    MISPLACED = "misplaced"
    """A read or write goes to the blocks next to those that were meant."""


class FaultyBacking:
    """A Backing around another."""

    def __init__(self, inner: Backing, plan: Mapping[int, Fault]) -> None:
        self._inner = inner
        self._plan = plan
        self._lock = threading.Lock()
        self.operation_count = 0
        self.injected: list[int] = []
        """The operations at which something went wrong."""

    @property
    def size_bytes(self) -> int:
        return self._inner.size_bytes

    @property
    def direct_fd(self) -> int:
        return -1  # or reads would go past the faults

    def read_into(self, offset: int, buffer: memoryview) -> None:
        number, fault = self._begin(Fault.SHORT, Fault.FLIP, Fault.MISPLACED)
        if fault is Fault.SHORT:
            _do_half(self._inner.read_into, "read", offset, buffer)
        if fault is Fault.MISPLACED:
            offset = self._elsewhere(offset, len(buffer))
        self._inner.read_into(offset, buffer)
        if fault is Fault.FLIP:
            at, bit = divmod(number * _SPREAD % (len(buffer) * 8), 8)
            buffer[at] ^= 1 << bit

    def write(self, offset: int, buffer: memoryview) -> None:
        _number, fault = self._begin(Fault.SHORT, Fault.LOST, Fault.MISPLACED)
        if fault is Fault.SHORT:
            _do_half(self._inner.write, "write", offset, buffer)
        if fault is Fault.MISPLACED:
            offset = self._elsewhere(offset, len(buffer))
        if fault is not Fault.LOST:
            self._inner.write(offset, buffer)

    def trim(self, offset: int, length: int) -> bool:
        _number, fault = self._begin(Fault.LOST)
        return fault is Fault.LOST or self._inner.trim(offset, length)

    def flush(self) -> None:
        _number, fault = self._begin(Fault.LOST)
        if fault is not Fault.LOST:
            self._inner.flush()

    def close(self) -> None:
        self._inner.close()

    def _begin(self, *possible: Fault) -> tuple[int, Fault | None]:
        """The number of this operation, and the fault that it is to show itself."""
        with self._lock:
            number = self.operation_count
            self.operation_count += 1
            fault = self._plan.get(number)
            if fault is not Fault.ERROR and fault not in possible:
                return number, None
            self.injected.append(number)
        if fault is Fault.ERROR:
            raise OSError(errno.EIO, f"operation {number} fails (planned)")
        return number, fault

    def _elsewhere(self, offset: int, length: int) -> int:
        after = offset + length
        return after if after + length <= self.size_bytes else max(0, offset - length)


def _do_half(
    operation: Callable[[int, memoryview], None], name: str, offset: int, buffer: memoryview
) -> NoReturn:
    half = len(buffer) // BLOCK_BYTES // 2 * BLOCK_BYTES
    operation(offset, buffer[:half])
    raise OSError(errno.EIO, f"short {name} at byte {offset + half} (planned)")
