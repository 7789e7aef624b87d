"""The flat buffers that hold all state of a store, and how large each has to be.

Owns the geometry. The buffers are handed in; this package never allocates, maps or frees memory.
All state that must survive the process is in them: what else the store keeps (live bytes,
free lists, reference counts) is derived and can be counted again from them.

    descriptors  8 bytes a page, one word each (descriptor.py)
    pool         RAM slots of ``segment_bytes`` each, with the records (format/record.py)
    patterns     8 bytes a fill pattern (samefill.py)
    segments     three words a segment: home, sequence and write number (segment.py)
    heads        one word a log head (loghead.py)

In all of them, all-zero means empty.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from vswapfs.core.descriptor import (
    CLUSTER_BYTES,
    CLUSTER_PAGES,
    SEGMENT_MAX_BYTES,
    SEGMENT_MAX_COUNT,
)
from vswapfs.errors import UsageError
from vswapfs.format.chunk import BLOCK_BYTES, PLAIN_CHUNK_BYTES
from vswapfs.format.record import PAGE_NONE, RECORD_MAX_BYTES
from vswapfs.units import PAGE_BYTES, format_size

HEAD_COUNT = 3
PATTERN_COUNT_MAX = 4096
RESERVE_SEGMENTS = 1
"""Segments that stores may not take (the guarantee is stated in cleaner.py)."""


class Region(Protocol):
    """A flat writable buffer of whole pages."""

    @property
    def view(self) -> memoryview: ...

    def release(self, start: int, stop: int) -> None:
        """Give the memory of bytes [start, stop), whole pages, back: they read as zero then."""

    def extents(self) -> Iterable[tuple[int, int]]:
        """Byte ranges outside of which all is zero, ascending, in whole pages."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes of a store. ``slot_count`` is the number of RAM slots; ``segment_capacity`` is how
    many segments the table can name, in RAM and on tiers that may be added later; ``chunk_bytes``
    how much of a segment a block of a tier holds (format/chunk.py)."""

    page_count: int
    slot_count: int
    segment_bytes: int = SEGMENT_MAX_BYTES
    segment_capacity: int = 0  # 0: as many as RAM slots
    chunk_bytes: int = PLAIN_CHUNK_BYTES

    def __post_init__(self) -> None:
        if not 1 <= self.page_count < PAGE_NONE:
            raise UsageError(
                f"an area of {self.page_count} pages: it must have 1 to {PAGE_NONE - 1} pages",
                remedy=f"at most {format_size((PAGE_NONE - 1) * PAGE_BYTES)}",
            )
        size = self.segment_bytes
        if size & (size - 1) or not RECORD_MAX_BYTES <= size <= SEGMENT_MAX_BYTES:
            raise UsageError(
                f"segments of {size} bytes: a power of two from 8192 to {SEGMENT_MAX_BYTES}"
            )
        if not self.segment_capacity:
            object.__setattr__(self, "segment_capacity", self.slot_count)
        if not RESERVE_SEGMENTS < self.slot_count <= self.segment_capacity <= SEGMENT_MAX_COUNT:
            raise UsageError(
                f"a pool of {self.slot_count} segments: more than the reserve of "
                f"{RESERVE_SEGMENTS}, at most {SEGMENT_MAX_COUNT}"
            )

    @property
    def cluster_count(self) -> int:
        return -(-self.page_count // CLUSTER_PAGES)

    @property
    def fill_max_bytes(self) -> int:
        """How far a segment may be filled, so that it fits a slot of a tier."""
        return self.segment_bytes // BLOCK_BYTES * self.chunk_bytes

    def sizes_bytes(self) -> Mapping[str, int]:
        """The bytes of each buffer, by its name in Buffers; whole pages."""
        return {
            "descriptors": self.cluster_count * CLUSTER_BYTES,
            "pool": self.slot_count * self.segment_bytes,
            "patterns": PATTERN_COUNT_MAX * 8,
            "segments": _whole_pages(self.segment_capacity * 24),
            "heads": PAGE_BYTES,
        }


@dataclass(frozen=True, slots=True)
class Buffers:
    """One Region for each name in Geometry.sizes_bytes."""

    descriptors: Region
    pool: Region
    patterns: Region
    segments: Region
    heads: Region


def _whole_pages(size_bytes: int) -> int:
    return -(-size_bytes // PAGE_BYTES) * PAGE_BYTES
