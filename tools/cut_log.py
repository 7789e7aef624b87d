"""What a medium was told, in order: kept by a backing that records, or read from a log of QEMU's.

Owns the operations, and what each of them is to a tier. Never changes a medium. Always holds: an
operation is in the log after it was done, so that those before a flush were done when it began.
"""

import mmap
import os
import struct
from pathlib import Path
from typing import Final, NamedTuple

from vswapfs.backing.claim import Claim
from vswapfs.backing.file import FileBacking
from vswapfs.format.tier import SUPERBLOCK_BYTES, SUPERBLOCK_COPY_OFFSET

MIB: Final = 1 << 20
WRITE, TRIM, FLUSH = "write", "trim", "flush"
KINDS: Final = ("clear", "discard", "copy", "superblock", "segment", "trim", "erase", "flush")

_SUPERBLOCK_MAGIC: Final = b"vswapfs\0"


class Operation(NamedTuple):
    verb: str
    offset: int = 0
    length_bytes: int = 0
    data: bytes | memoryview = b""
    """Of a write."""

    @property
    def kind(self) -> str:
        """What it is to a tier, one of KINDS; where the kernel split it, of each part."""
        if self.verb == FLUSH:
            return "flush"
        if self.verb == TRIM:
            return "trim" if self.offset >= MIB else "discard"
        if self.offset >= MIB:
            return "segment"
        if self.data[: len(_SUPERBLOCK_MAGIC)] == _SUPERBLOCK_MAGIC:
            return "superblock" if self.offset == 0 else "copy"
        at_a_copy = self.offset in (0, SUPERBLOCK_COPY_OFFSET)
        return "erase" if at_a_copy and self.length_bytes == SUPERBLOCK_BYTES else "clear"


def recording(logs: dict[str, list[Operation]]) -> type[FileBacking]:
    """A FileBacking that keeps what it did, by the path of its file."""

    class RecordingBacking(FileBacking):
        def __init__(self, taken: Claim, size_bytes: int) -> None:
            super().__init__(taken, size_bytes)
            self._log = logs.setdefault(os.readlink(f"/proc/self/fd/{taken.fd}"), [])  # noqa: PTH115

        def write(self, offset: int, buffer: memoryview) -> None:
            super().write(offset, buffer)
            self._log.append(Operation(WRITE, offset, len(buffer), bytes(buffer)))

        def trim(self, offset: int, length: int) -> bool:
            done = super().trim(offset, length)
            self._log.append(Operation(TRIM, offset, length))
            return done

        def flush(self) -> None:
            super().flush()
            self._log.append(Operation(FLUSH))

    return RecordingBacking


# -- QEMU's log ---------------------------------------------------------------------------------

# drivers/md/dm-log-writes.c: a sector for the log as a whole; then for each operation a sector with
# first sector, sectors, flags and a length that is not used here, and behind it what was written.
_SECTOR_BYTES: Final = 512
_ENTRY: Final = struct.Struct("<QQQQ")
_FLAG_FLUSH: Final = 1
_FLAG_DISCARD: Final = 4


class QemuLog:
    """A log that may still grow. Its file must stay as long as the operations are used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next = _SECTOR_BYTES
        self.operations: list[Operation] = []

    def read_on(self) -> list[Operation]:
        """The operations since the last call, which are added to the others."""
        known = len(self.operations)
        with self._path.open("rb") as file:
            size_bytes = os.fstat(file.fileno()).st_size
            if size_bytes <= self._next:
                return []
            start = self._next // mmap.PAGESIZE * mmap.PAGESIZE
            mapped = mmap.mmap(file.fileno(), size_bytes - start, prot=mmap.PROT_READ, offset=start)
        view = memoryview(mapped)
        while self._next + _SECTOR_BYTES <= size_bytes:
            at = self._next - start
            sector, sectors, flags, _length = _ENTRY.unpack_from(view, at)
            if not sectors and not flags:
                break  # those behind it were on their way when the machine was killed
            at += _SECTOR_BYTES
            offset, length_bytes = sector * _SECTOR_BYTES, sectors * _SECTOR_BYTES
            if flags & _FLAG_FLUSH:
                self.operations.append(Operation(FLUSH))
            elif flags & _FLAG_DISCARD:
                self.operations.append(Operation(TRIM, offset, length_bytes))
            elif at + length_bytes > len(view):
                break
            else:
                data = view[at : at + length_bytes]
                self.operations.append(Operation(WRITE, offset, length_bytes, data))
                at += length_bytes
            self._next = start + at
        return self.operations[known:]
