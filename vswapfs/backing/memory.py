"""A medium in memory, for tests and simulation, that can lose power.

Owns its bytes, and for each block what it held since the last flush. Never touches the machine.
Always holds: a clone made by a crash has for each block something that was written to it since
the last flush, or what it held then; a block of 4096 bytes is never torn itself.
"""

import errno
import os
import threading
from random import Random
from typing import Final, Literal

from vswapfs.backing.api import BLOCK_BYTES, check_range

_ZEROS: Final = bytes(BLOCK_BYTES)


class MemoryBacking:
    """A Backing in memory; trimmed blocks read as zero."""

    def __init__(self, size_bytes: int) -> None:
        check_range(size_bytes, 0, size_bytes)
        self._data = bytearray(size_bytes)
        self._earlier: dict[int, list[bytes]] = {}
        """By offset: what a block held at the last flush and since, without what it holds now."""
        self._lock = threading.Lock()
        self._closed = False

    @property
    def size_bytes(self) -> int:
        return len(self._data)

    @property
    def direct_fd(self) -> int:
        return -1

    def read_into(self, offset: int, buffer: memoryview) -> None:
        with self._checked(offset, len(buffer)):
            buffer[:] = self._data[offset : offset + len(buffer)]

    def write(self, offset: int, buffer: memoryview) -> None:
        with self._checked(offset, len(buffer)):
            for at in range(0, len(buffer), BLOCK_BYTES):
                self._replace(offset + at, bytes(buffer[at : at + BLOCK_BYTES]))

    def trim(self, offset: int, length: int) -> bool:
        with self._checked(offset, length):
            for at in range(offset, offset + length, BLOCK_BYTES):
                self._replace(at, _ZEROS)
        return True

    def flush(self) -> None:
        with self._checked(0, 0):
            self._earlier.clear()

    def close(self) -> None:
        self._closed = True

    def crash_clone(self, kept: Random | Literal["none", "all"]) -> "MemoryBacking":
        """The medium as it could be after a power cut now.

        Of what was not flushed everything is kept, nothing, or what the random numbers say: each
        block on its own, in any of its states since the last flush.
        """
        clone = MemoryBacking(len(self._data))
        with self._lock:
            clone._data[:] = self._data
            for offset, earlier in sorted(self._earlier.items()):
                if kept == "none":
                    state = earlier[0]
                elif isinstance(kept, Random):
                    state = kept.choice([*earlier, self._block(offset)])
                else:
                    state = self._block(offset)
                clone._data[offset : offset + BLOCK_BYTES] = state
        return clone

    def _checked(self, offset: int, length: int) -> threading.Lock:
        if self._closed:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        check_range(len(self._data), offset, length)
        return self._lock

    def _block(self, offset: int) -> bytes:
        return bytes(self._data[offset : offset + BLOCK_BYTES])

    def _replace(self, offset: int, block: bytes) -> None:
        self._earlier.setdefault(offset, []).append(self._block(offset))
        self._data[offset : offset + BLOCK_BYTES] = block
