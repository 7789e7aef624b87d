"""Memory regions: the flat buffers of the store, as files in memory that smaps shows by name.

Owns mapping, giving memory back, and measuring what is resident. Never looks into the bytes.
Files in memory rather than anonymous memory: they have a name in /proc/PID/smaps
(``/run/vswapfs/vswap0/state/pool``), and a successor of this process maps them again.
"""

import ctypes
import errno
import mmap
import os
from collections.abc import Iterator, Mapping
from typing import Final

from vswapfs.errors import HostError
from vswapfs.units import PAGE_BYTES, format_size

_FALLOC_KEEP_SIZE_PUNCH_HOLE: Final = 1 | 2
_MADV_POPULATE_WRITE: Final = 23

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def memory_file(name: str, size_bytes: int) -> int:
    """A sparse file in memory that may be swapped out unless it is locked; its descriptor."""
    try:
        fd = os.memfd_create(name, os.MFD_CLOEXEC)
        os.ftruncate(fd, size_bytes)
    except OSError as error:
        raise HostError(
            f"memory for {name} ({format_size(size_bytes)})", error.strerror or ""
        ) from None
    return fd


class MemoryRegion:
    """A sparse file in memory, mapped whole: a page takes memory once it is written."""

    def __init__(self, fd: int, size_bytes: int) -> None:
        self._fd = fd
        self._size_bytes = size_bytes
        self.kept_bytes = 0
        """From the begin on: these have their memory for good."""
        self._is_locked = True  # as the process is
        try:
            self._map = mmap.mmap(fd, size_bytes)
        except OSError as error:
            raise HostError(f"map {format_size(size_bytes)}", error.strerror or "") from None
        self._view = memoryview(self._map)

    @property
    def view(self) -> memoryview:
        return self._view

    def release(self, start: int, stop: int) -> None:
        """Give whole pages back to the machine, if they are not kept; they read as zero then."""
        # Punching the file works on locked memory; MADV_REMOVE is refused there (EINVAL).
        if (
            start < self.kept_bytes
            or _libc.fallocate(self._fd, _FALLOC_KEEP_SIZE_PUNCH_HOLE, start, stop - start) != 0
        ):
            self.clear(start, stop)

    def clear(self, start: int, stop: int) -> None:
        """They are zero then, and keep their memory."""
        self._view[start:stop] = bytes(stop - start)

    def unlock(self) -> None:
        """For memory that is never swapped out as it is: unmapping 256 MiB of it at the end of a
        process takes 8.5 ms, and 11.5 ms if it is locked as well."""
        size = ctypes.c_size_t(self._size_bytes)
        if _libc.munlock(ctypes.c_void_p(self._address()), size) != 0:
            raise HostError("munlock", os.strerror(ctypes.get_errno()))
        self._is_locked = False

    def resident_bytes(self) -> int:
        """What the file takes of RAM now."""
        return os.fstat(self._fd).st_blocks * 512

    def extents(self) -> Iterator[tuple[int, int]]:
        """Where there is memory: whole pages, ascending. All else is zero, and to read it would
        take memory for it."""
        at = 0
        while at < self._size_bytes:
            try:
                start = os.lseek(self._fd, at, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                return
            at = os.lseek(self._fd, start, os.SEEK_HOLE)
            yield start, at

    def prefault(self) -> None:
        """Have the kernel map what there is, for a process that is to serve at once.

        Not by writing: another process changes these bytes meanwhile.
        """
        for start, stop in self.extents():
            self._map.madvise(_MADV_POPULATE_WRITE, start, stop - start)

    def populate(self, start: int, stop: int) -> None:
        """Take memory for these bytes, and map it: the kernel may copy to them without a fault."""
        first = start // PAGE_BYTES * PAGE_BYTES
        self._map.madvise(_MADV_POPULATE_WRITE, first, stop - first)

    def keep(self, most_bytes: int) -> None:
        """Take memory for the first so many bytes now, whatever they are, and never give it back.
        In a process that takes over, they are in use by another."""
        self.kept_bytes = min(most_bytes // PAGE_BYTES * PAGE_BYTES, self._size_bytes)
        self._map.madvise(_MADV_POPULATE_WRITE, 0, self.kept_bytes)

    def take(self, start: int, stop: int) -> None:
        """Take memory for these bytes, whole pages, however long that takes; and map it, or it is
        not locked (it was swapped out, to ourselves), and whoever touches it first needs memory for
        a page table. What is in them stays as it is. Raises OSError.

        Other threads do not wait meanwhile, unless they give memory of this region back; or, if it
        is locked, map anything.
        """
        if not self._is_locked:
            # Not in a page fault, which has whoever maps memory wait. Locked memory is taken in
            # one: between the two even 64 KiB were swapped out.
            os.posix_fallocate(self._fd, start, stop - start)
        address, size = ctypes.c_void_p(self._address() + start), ctypes.c_size_t(stop - start)
        if _libc.madvise(address, size, _MADV_POPULATE_WRITE) != 0:  # without Python's lock
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def _address(self) -> int:
        return ctypes.addressof(ctypes.c_char.from_buffer(self._map))


def map_files(
    fds: Mapping[str, int], sizes_bytes: Mapping[str, int], *, locked: bool
) -> dict[str, MemoryRegion]:
    """The buffers of a store, over a file for each; ``locked``: as the process is."""
    regions = {part: MemoryRegion(fds[part], size) for part, size in sizes_bytes.items()}
    if not locked:
        for region in regions.values():
            region.unlock()
    return regions
