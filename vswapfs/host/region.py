"""Memory regions: the flat buffers of the store, as files in memory that smaps shows by name.

Owns mapping, giving memory back, and measuring what is resident. Never looks into the bytes.
Files rather than anonymous memory: they have a name in /proc/PID/smaps (``/vswap0-pool``), and they
can be handed to another process. They lie in a tmpfs of their own that is attached nowhere and ends
with its last file, because a tmpfs can be kept out of swap, and can have huge pages whatever the
machine's setting for other shared memory is.

Always holds: no page of a region is swapped out, to ourselves at that. Small pages are kept by
mlockall; huge pages that were given back in part are not (measured: the daemon waited for itself),
so there are huge pages only in a tmpfs with ``noswap`` (Linux 6.4).
"""

import ctypes
import mmap
import os
from typing import Final

from vswapfs.core.buffers import Buffers, Geometry
from vswapfs.errors import HostError
from vswapfs.units import format_size

_FALLOC_KEEP_SIZE_PUNCH_HOLE: Final = 1 | 2
_SYS_FSOPEN: Final = 430  # the number of all architectures, as of the next two
_SYS_FSCONFIG: Final = 431
_SYS_FSMOUNT: Final = 432
_CLOEXEC: Final = 1
_FSCONFIG_SET_FLAG: Final = 0
_FSCONFIG_SET_STRING: Final = 1
_FSCONFIG_CMD_CREATE: Final = 6

HUGE_PARTS: Final = ("pool",)
"""Regions in huge pages where the kernel has them: a first touch then costs 0.2 to 0.3 us a page
instead of 4.0 to 4.6 (tools/bench touch). The descriptors stay in small pages: they are sparse."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_libc.syscall.restype = ctypes.c_long


class MemoryRegion:
    """A sparse file in memory, mapped whole: a page takes memory once it is written."""

    def __init__(self, name: str, size_bytes: int, directory_fd: int, *, huge: bool) -> None:
        self._size_bytes = size_bytes
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._fd = os.open(name, flags, 0o600, dir_fd=directory_fd)
            os.ftruncate(self._fd, size_bytes)
            self._map = mmap.mmap(self._fd, size_bytes)
            if huge:
                self._map.madvise(mmap.MADV_HUGEPAGE)
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
    """The buffers of a store, and the same by name. Raises HostError."""
    directory_fd, has_huge_pages = make_tmpfs()
    try:
        regions = {
            part: MemoryRegion(
                f"{name}-{part}",
                size_bytes,
                directory_fd,
                huge=has_huge_pages and part in HUGE_PARTS,
            )
            for part, size_bytes in geometry.sizes_bytes().items()
        }
    finally:
        os.close(directory_fd)
    return Buffers(**regions), regions


def make_tmpfs() -> tuple[int, bool]:
    """A tmpfs without limits; its root directory, and whether it has huge pages for who asks."""
    try:
        context = _syscall(_SYS_FSOPEN, b"tmpfs", _CLOEXEC)
        try:
            # The pool limit is ours; the default would be half of the machine's memory.
            _syscall(_SYS_FSCONFIG, context, _FSCONFIG_SET_STRING, b"size", b"0", 0)
            has_huge_pages = True
            try:
                _syscall(_SYS_FSCONFIG, context, _FSCONFIG_SET_FLAG, b"noswap", None, 0)
                _syscall(_SYS_FSCONFIG, context, _FSCONFIG_SET_STRING, b"huge", b"advise", 0)
            except OSError:
                has_huge_pages = False
            _syscall(_SYS_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0)
            return _syscall(_SYS_FSMOUNT, context, _CLOEXEC, 0), has_huge_pages
        finally:
            os.close(context)
    except OSError as error:
        raise HostError(
            "make a tmpfs", error.strerror or "", remedy="this needs root and Linux 5.2 or newer"
        ) from None


def _syscall(number: int, *arguments: int | bytes | None) -> int:
    result: int = _libc.syscall(number, *arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
