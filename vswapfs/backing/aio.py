"""Reads that are started now and end later, by the kernel's native asynchronous I/O (io_submit).

Owns one context of the kernel, its control blocks and the memory that is read into. Never waits: a
read that could not start at once is not started. For the lane, which reads single records of a tier
by itself: through an I/O thread a record took 162 us to come, two hand-overs of the interpreter
lock among them (tools/bench swap). Interface: linux/aio_abi.h; there is none for it in Python.
"""

import ctypes
import mmap
import os
import platform
import struct
from typing import Final, NamedTuple

from vswapfs.errors import HostError

READS_MAX: Final = 32
"""Under way at once."""

READ_MAX_BYTES: Final = 64 << 10

_SYSTEM_CALLS: Final = {
    # setup, destroy, getevents, submit
    "x86_64": (206, 207, 208, 209),
    "aarch64": (0, 1, 4, 2),
}
# data, key, rw_flags, opcode, priority, descriptor, buffer, length, offset, reserved, flags, resfd
_CONTROL_BLOCK: Final = struct.Struct("<QIiHhIQQqQII")
_PREAD: Final = 0
_RESFD: Final = 1
_RWF_NOWAIT: Final = 8
_EVENT: Final = struct.Struct("<QQqq")  # data, control block, result, result2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class Ended(NamedTuple):
    """A read that has ended: its number, and how many bytes were read or minus the errno."""

    number: int
    result: int


class AsyncReads:
    """Up to READS_MAX reads at a time, each of up to READ_MAX_BYTES into memory of its own.

    One thread only. Raises HostError if the kernel offers none of it.
    """

    def __init__(self, event_fd: int) -> None:
        """``event_fd`` is signalled by the kernel when reads have ended."""
        calls = _SYSTEM_CALLS.get(platform.machine())
        if calls is None:
            raise HostError("asynchronous reads", f"not known on {platform.machine()}")
        self._setup, self._destroy, self._getevents, self._submit = map(ctypes.c_long, calls)
        context = ctypes.c_ulong(0)
        if _libc.syscall(self._setup, ctypes.c_long(READS_MAX), ctypes.byref(context)) != 0:
            raise HostError("asynchronous reads", os.strerror(ctypes.get_errno()))
        self._context = context
        self._event_fd = event_fd
        self._memory = mmap.mmap(-1, READS_MAX * READ_MAX_BYTES)
        self._view = memoryview(self._memory)
        self._blocks = ctypes.create_string_buffer(READS_MAX * _CONTROL_BLOCK.size)
        self._events = ctypes.create_string_buffer(READS_MAX * _EVENT.size)
        self._memory_at = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        blocks_at = ctypes.addressof(self._blocks)
        self._lists = [
            (ctypes.c_uint64 * 1)(blocks_at + number * _CONTROL_BLOCK.size)
            for number in range(READS_MAX)
        ]
        self._none = ctypes.c_long(0)
        self._one = ctypes.c_long(1)
        self._all = ctypes.c_long(READS_MAX)
        self._free = list(reversed(range(READS_MAX)))

    @property
    def free_count(self) -> int:
        """How many reads may still be started."""
        return len(self._free)

    def memory(self, number: int) -> memoryview:
        """What a read reads into."""
        start = number * READ_MAX_BYTES
        return self._view[start : start + READ_MAX_BYTES]

    def start(self, fd: int, offset: int, length: int) -> int:
        """Start a read; returns its number, which is in use until ``done_with``; or -1 if it cannot
        be started at once."""
        if not self._free:
            return -1
        number = self._free[-1]
        _CONTROL_BLOCK.pack_into(
            self._blocks, number * _CONTROL_BLOCK.size,
            number, 0, _RWF_NOWAIT, _PREAD, 0, fd, self._memory_at + number * READ_MAX_BYTES,
            length, offset, 0, _RESFD, self._event_fd,
        )  # fmt: skip
        if _libc.syscall(self._submit, self._context, self._one, self._lists[number]) != 1:
            return -1
        self._free.pop()
        return number

    def ended(self) -> list[Ended]:
        """The reads that have ended since the last call."""
        found = _libc.syscall(
            self._getevents, self._context, self._none, self._all, self._events, None
        )
        return [
            Ended(number, result)
            for number, _, result, _ in _EVENT.iter_unpack(
                self._events.raw[: max(0, found) * _EVENT.size]
            )
        ]

    def done_with(self, number: int) -> None:
        """The memory of a read that has ended is not needed any more."""
        self._free.append(number)

    def close(self) -> None:
        """Waits for what is under way."""
        _libc.syscall(self._destroy, self._context)
