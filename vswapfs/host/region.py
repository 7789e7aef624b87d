"""Memory regions: the flat buffers of the store, as files in memory that smaps shows by name.

Owns mapping, giving memory back, and measuring what is resident. Never looks into the bytes.
Files in memory rather than anonymous memory: they have a name in /proc/PID/smaps
(``/memfd:vswap0-pool``), and they can be handed to another process.
"""

import ctypes
import mmap
import os
from typing import Final

from vswapfs.core.buffers import Buffers, Geometry
from vswapfs.errors import HostError
from vswapfs.units import format_size

_FALLOC_KEEP_SIZE_PUNCH_HOLE: Final = 1 | 2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class MemoryRegion:
    """A sparse file in memory, mapped whole: a page takes memory once it is written."""

    def __init__(self, name: str, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        try:
            self._fd = os.memfd_create(name, os.MFD_CLOEXEC)
            os.ftruncate(self._fd, size_bytes)
            self._map = mmap.mmap(self._fd, size_bytes)
        except OSError as error:
            raise HostError(
                f"memory for {name} ({format_size(size_bytes)})", error.strerror or ""
            ) from None
        self._view = memoryview(self._map)

    @property
    def view(self) -> memoryview:
        return self._view

    def release(self, start: int, stop: int) -> None:
        """Give whole pages back to the machine; they read as zero then."""
        # Punching the file works on locked memory; MADV_REMOVE is refused there (EINVAL).
        if _libc.fallocate(self._fd, _FALLOC_KEEP_SIZE_PUNCH_HOLE, start, stop - start) != 0:
            self._view[start:stop] = bytes(stop - start)

    def resident_bytes(self) -> int:
        """What the file takes of RAM now."""
        return os.fstat(self._fd).st_blocks * 512


def make_buffers(name: str, geometry: Geometry) -> tuple[Buffers, dict[str, MemoryRegion]]:
    """The buffers of a store, and the same by name."""
    regions = {
        part: MemoryRegion(f"{name}-{part}", size_bytes)
        for part, size_bytes in geometry.sizes_bytes().items()
    }
    return Buffers(**regions), regions
