"""Page-aligned memory for direct I/O.

Owns buffers that are kept from one use to the next. Always holds: a kept buffer has its memory, so
whoever gets one takes none from a machine that may have none left, and maps nothing.
"""

import contextlib
import mmap
from collections.abc import Iterator
from typing import Final

_MADV_POPULATE_WRITE: Final = 23


def scratch(size_bytes: int) -> memoryview:
    """For once."""
    buffer = mmap.mmap(-1, size_bytes)
    buffer.madvise(_MADV_POPULATE_WRITE)
    return memoryview(buffer)


class Scratch:
    """Buffers of one size. Any number of threads may use it at once."""

    def __init__(self, size_bytes: int, kept_count: int = 0) -> None:
        self._size_bytes = size_bytes
        self._free = [scratch(size_bytes) for _ in range(kept_count)]

    def keep(self, count: int) -> None:
        """Have at least so many from now on, while none is in use."""
        self._free += [scratch(self._size_bytes) for _ in range(count - len(self._free))]

    @contextlib.contextmanager
    def buffer(self) -> Iterator[memoryview]:
        """One of them, for a while; a new one, which is kept then, if all are in use."""
        try:
            buffer = self._free.pop()
        except IndexError:
            buffer = scratch(self._size_bytes)
        try:
            yield buffer
        finally:
            self._free.append(buffer)
