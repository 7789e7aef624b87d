"""Reads that are started now and end later, by the kernel's io_uring.

Owns one ring, and the memory that is read into. Never waits: a read that could not start at once
ends with EAGAIN. For the lane, which reads single records of a tier by itself: through an I/O
thread a random touch of a page on a tier took 221 and 245 us, so it takes 142 and 154, as two
hand-overs of the interpreter lock are saved. Not by the older io_submit: a process that uses that
takes 30 ms longer to end when it is killed, and its successor waits for that (both in one run, on
2 cores, kernel 6.18). Interface: linux/io_uring.h; layout of the rings: io_uring_setup(2).
"""

import ctypes
import mmap
import os
import struct
from typing import Final, NamedTuple

from vswapfs.backing.scratch import scratch
from vswapfs.errors import HostError

READS_MAX: Final = 32
"""Under way at once."""

READ_MAX_BYTES: Final = 64 << 10

_SETUP: Final = 425  # the same numbers on all architectures
_ENTER: Final = 426
_REGISTER: Final = 427

# struct io_uring_params: sizes, flags, features; then where in the rings head, tail, mask, entries,
# flags, dropped and array of submissions are, and head, tail, mask, entries, overflow and entries
# of completions.
_PARAMS: Final = struct.Struct("<10I 8IQ 8IQ")
_FEATURES: Final = 5
_FEATURE_ONE_MAPPING: Final = 1
_SUBMISSIONS: Final = 10
_COMPLETIONS: Final = 19
_RING_OFFSET: Final = 0
_ENTRIES_OFFSET: Final = 0x1000_0000
# opcode, flags, priority, descriptor, offset, address, length, flags of the read, user data
_ENTRY: Final = struct.Struct("<BBHiQQIIQ24x")
_COMPLETION: Final = struct.Struct("<QiI")  # user data, result, flags
_WORD_BYTES: Final = 4
_WORD_MASK: Final = 0xFFFF_FFFF
_READ: Final = 22
_RWF_NOWAIT: Final = 8
_REGISTER_EVENTFD: Final = 4

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
        params = ctypes.create_string_buffer(_PARAMS.size)
        self._fd = _call(_SETUP, READS_MAX, ctypes.byref(params))
        fields = _PARAMS.unpack(params.raw)
        try:
            if not fields[_FEATURES] & _FEATURE_ONE_MAPPING:
                raise HostError("io_uring", "this kernel's is too old (before 5.4)")
            _head, tail, mask, _entries, _flags, _dropped, array = fields[_SUBMISSIONS:][:7]
            head, ctail, cmask, centries, _overflow, completions = fields[_COMPLETIONS:][:6]
            ring_bytes = max(
                array + fields[0] * _WORD_BYTES, completions + centries * _COMPLETION.size
            )
            self._ring = mmap.mmap(self._fd, ring_bytes, offset=_RING_OFFSET)
            self._entries = mmap.mmap(self._fd, READS_MAX * _ENTRY.size, offset=_ENTRIES_OFFSET)
            _call(_REGISTER, self._fd, _REGISTER_EVENTFD, ctypes.byref(ctypes.c_int(event_fd)), 1)
        except BaseException:
            os.close(self._fd)
            raise
        # Words that the kernel looks at while we are at them: as one word, in one store or load.
        # struct writes bytes, and once the kernel saw a head far behind, took the ring for full and
        # kept the completion to itself: a process waited for its page for ever.
        words_bytes = ring_bytes // _WORD_BYTES * _WORD_BYTES
        self._words = memoryview(self._ring)[:words_bytes].cast("I")
        self._tail_at, self._array_at = tail // _WORD_BYTES, array // _WORD_BYTES
        self._head_at, self._completed_at = head // _WORD_BYTES, ctail // _WORD_BYTES
        self._completions_at = completions
        self._mask = self._words[mask // _WORD_BYTES]
        self._completion_mask = self._words[cmask // _WORD_BYTES]
        self._view = scratch(READS_MAX * READ_MAX_BYTES)
        self._memory_at = ctypes.addressof(ctypes.c_char.from_buffer(self._view))
        self._submit_one = tuple(map(ctypes.c_long, (_ENTER, self._fd, 1, 0, 0, 0, 0)))
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
        """Start a read; returns its number, which is in use until ``done_with``; or -1 if there is
        no room for it."""
        if not self._free:
            return -1
        number = self._free[-1]
        words = self._words
        tail = words[self._tail_at]
        index = tail & self._mask
        _ENTRY.pack_into(
            self._entries, index * _ENTRY.size,
            _READ, 0, 0, fd, offset, self._memory_at + number * READ_MAX_BYTES, length,
            _RWF_NOWAIT, number,
        )  # fmt: skip
        words[self._array_at + index] = index
        words[self._tail_at] = tail + 1 & _WORD_MASK
        if _libc.syscall(*self._submit_one) != 1:
            words[self._tail_at] = tail  # not taken: nobody reads the entry
            return -1
        self._free.pop()
        return number

    def ended(self) -> list[Ended]:
        """The reads that have ended since the last call."""
        found = []
        head, tail = self.head(), self._words[self._completed_at]
        while head != tail:
            at = self._completions_at + (head & self._completion_mask) * _COMPLETION.size
            number, result, _flags = _COMPLETION.unpack_from(self._ring, at)
            found.append(Ended(number, result))
            head = head + 1 & _WORD_MASK
        if found:
            self._words[self._head_at] = head
        return found

    def head(self) -> int:
        """How far completions were taken, as the kernel sees it."""
        head: int = self._words[self._head_at]
        return head

    def done_with(self, number: int) -> None:
        """The memory of a read that has ended is not needed any more."""
        self._free.append(number)

    def close(self) -> None:
        """What is under way ends by itself, in memory that stays until then."""
        os.close(self._fd)


def _call(number: int, *arguments: object) -> int:
    """Raises HostError."""
    longs = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *longs)
    if result < 0:
        raise HostError("io_uring", os.strerror(ctypes.get_errno()))
    return result
