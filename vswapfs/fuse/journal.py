"""The journal: requests that were read and not answered yet, for kernels that cannot resend them.

Owns the layout of its region: slots of one request each, with its length in front, 0 when there is
none. Always holds: a request is in the journal from before ``readv`` returns until after its reply.
The lane reads into slot 0; what cannot be answered at once is copied to another slot before slot 0
is used again. A successor serves again what it finds there, before it reads anything new. A request
done twice does no harm, and its second reply is refused with ENOENT.

Slot 0 needs no mark that its request was answered: nothing newer was read then, so to do it again
changes nothing. The kernel fills it in one go, even if the process is killed meanwhile, because all
of it is mapped before (MADV_POPULATE_WRITE).
"""

from typing import Final, Protocol

from vswapfs.core.buffers import Region
from vswapfs.fuse import wire
from vswapfs.units import PAGE_BYTES

SLOT_BYTES: Final = PAGE_BYTES + wire.REQUEST_BUFFER_BYTES
SLOT_COUNT: Final = 512
"""The kernel has at most 64 background requests in flight, and one for each process that waits."""
JOURNAL_BYTES: Final = SLOT_COUNT * SLOT_BYTES

_KEPT_BYTES: Final = 4 * PAGE_BYTES
"""Slots keep so much of their memory when they are free again."""


class _JournalRegion(Region, Protocol):
    def populate(self, start: int, stop: int) -> None: ...


class Journal:
    """Called on the lane. ``buffer`` is where requests are to be read to."""

    def __init__(self, region: _JournalRegion) -> None:
        self._region = region
        self._view = region.view
        region.populate(0, SLOT_BYTES)
        self.buffer = self._slot(0)[PAGE_BYTES:]
        self._free = list(reversed(range(1, SLOT_COUNT)))
        self._kept: dict[int, int] = {}
        """Slots by the unique number of their request."""

    def _slot(self, number: int) -> memoryview:
        return self._view[number * SLOT_BYTES : (number + 1) * SLOT_BYTES]

    def keep(self, request: memoryview, unique: int) -> None:
        """The request waits: it must not be forgotten when the buffer is used again."""
        if unique in self._kept or not self._free:
            return
        number = self._free.pop()
        slot = self._slot(number)
        slot[PAGE_BYTES : PAGE_BYTES + len(request)] = request
        slot[:8].cast("Q")[0] = len(request)
        self._kept[unique] = number

    def answered(self, header: bytes) -> None:
        """A reply with this header was given."""
        number = self._kept.pop(_unique_of(header), None)
        if number is not None:
            self._clear(number)

    def _clear(self, number: int) -> None:
        words = self._slot(number)[:8].cast("Q")
        length_bytes, words[0] = words[0], 0
        if length_bytes > _KEPT_BYTES:
            start = number * SLOT_BYTES
            self._region.release(start + PAGE_BYTES + _KEPT_BYTES, start + SLOT_BYTES)
        self._free.append(number)

    def left(self) -> list[bytes]:
        """What a predecessor left, to be served again. Each of them is kept until it is answered;
        the one in the buffer too, because others are served before."""
        touched = {
            number
            for start, stop in self._region.extents()
            for number in range(start // SLOT_BYTES, -(-stop // SLOT_BYTES))
        }
        found = []
        for number in touched - {0}:
            slot = self._slot(number)
            length_bytes = slot[:8].cast("Q")[0]
            if length_bytes:
                request = bytes(slot[PAGE_BYTES : PAGE_BYTES + length_bytes])
                found.append(request)
                self._kept[_unique_of(request)] = number
        taken = set(self._kept.values())
        self._free = [number for number in self._free if number not in taken]
        length_bytes = int.from_bytes(self.buffer[:4], "little")
        if length_bytes >= wire.IN_HEADER_BYTES:
            last = bytes(self.buffer[:length_bytes])
            if _unique_of(last) not in self._kept:
                found.append(last)
        opcodes = [int.from_bytes(request[4:8], "little") for request in found]
        return [
            request
            for request, opcode in zip(found, opcodes, strict=True)
            if opcode not in wire.OPS_WITHOUT_REPLY
        ]


def _unique_of(message: bytes) -> int:
    return int.from_bytes(message[wire.UNIQUE_OFFSET : wire.UNIQUE_OFFSET + 8], "little")
