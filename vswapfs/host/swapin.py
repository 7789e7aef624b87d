"""Asks for the swapped pages of all processes ahead of swapoff, many at a time.

Owns the walk over processes and their anonymous memory. Speed only: whatever fails here, swapoff
does page by page. swapoff alone waits for each page or two before it asks for the next (the kernel
widens its readahead by faults, and there are none), which through a loop device and a file system
in user space is a chain of wake-ups; asked for together (process_madvise, MADV_WILLNEED) they come
in requests of up to 128 KiB. Memory of files is left alone: there the same advice would read files.
"""

import contextlib
import ctypes
import os
import re
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from vswapfs import procfs

_PROCESS_MADVISE: Final = 440  # the same number on all architectures
_MADV_WILLNEED: Final = 3
_CHUNK_BYTES: Final = 4 << 20
"""Asked for in one call: it returns when the last of these pages has been requested."""

_IOVEC: Final = struct.Struct("@PN")
_MAPPING: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ (\d+)")

_libc = ctypes.CDLL(None, use_errno=True)


def ask_for_all(stopped: threading.Event) -> None:
    """Until every process has been looked at once, or ``stopped``."""
    for directory in Path("/proc").glob("[0-9]*"):
        if stopped.is_set():
            return
        pid = int(directory.name)
        # Ended meanwhile, or not ours to touch.
        with contextlib.suppress(OSError):
            if pid != os.getpid() and _swapped_kib(directory):
                _ask_for(pid, directory, stopped)


def _swapped_kib(directory: Path) -> int:
    found = re.search(r"^VmSwap:\s*(\d+)", procfs.text(directory / "status"), re.MULTILINE)
    return int(found[1]) if found else 0


def _ask_for(pid: int, directory: Path, stopped: threading.Event) -> None:
    pidfd = os.pidfd_open(pid)
    try:
        for start, stop in _swapped_ranges(procfs.lines(directory / "smaps")):
            for at in range(start, stop, _CHUNK_BYTES):
                if stopped.is_set():
                    return
                vector = _IOVEC.pack(at, min(_CHUNK_BYTES, stop - at))
                # Some kernels refuse one range (locked memory, a device); the next may do.
                _libc.syscall(
                    ctypes.c_long(_PROCESS_MADVISE), ctypes.c_int(pidfd), vector,
                    ctypes.c_ulong(1), ctypes.c_int(_MADV_WILLNEED), ctypes.c_uint(0),
                )  # fmt: skip
    finally:
        os.close(pidfd)


def _swapped_ranges(smaps: list[str]) -> Iterator[tuple[int, int]]:
    """Anonymous mappings of which something is swapped."""
    mapping: tuple[int, int] | None = None
    for line in smaps:
        if line.startswith("Swap:"):
            if mapping and line.split()[1] != "0":
                yield mapping
        elif found := _MAPPING.match(line):
            start, stop, flags, inode = found.groups()
            is_anonymous = inode == "0" and flags.endswith("p")
            mapping = (int(start, 16), int(stop, 16)) if is_anonymous else None
