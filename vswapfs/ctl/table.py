"""The descriptor table and the segment table of an instance, fetched in bulk and taken apart.

Owns the states as small numbers and the columns by slot. Never verifies a record: that is desc.
A table is of one moment only while nothing is stored; under load its parts are some milliseconds
apart.
"""

from array import array
from itertools import compress, repeat
from typing import Final

from vswapfs.core.descriptor import (
    CLUSTER_PAGES,
    CLUSTER_SHIFT,
    DESCRIPTOR_BYTES,
    FILLED,
    INDEX_SHIFT,
    KIND_MASK,
    LENGTH_MASK,
    LENGTH_SHIFT,
    SEGMENT_SHIFT,
    STORED,
)
from vswapfs.ctl import client, columns
from vswapfs.format.table import Area, AskTable, Segment, Segments, Words
from vswapfs.units import PAGE_BYTES

EMPTY: Final = 0
ZERO: Final = 1
SAME: Final = 2
POOL: Final = 3
DISK: Final = 4
DAMAGED: Final = 5
STATE_NAMES: Final = ("empty", "zero", "same", "pool", "disk", "damaged")

_LOW_BITS: Final = bytes(number & (1 << INDEX_SHIFT) - 1 for number in range(256))
"""Kind and parity, of the lowest byte of a descriptor."""
_INDEX_BITS: Final = bytes(number >> INDEX_SHIFT for number in range(256))
_SOMETHING_BEYOND: Final = 1 << INDEX_SHIFT
_BEYOND: Final = bytes(_SOMETHING_BEYOND if number else 0 for number in range(256))


def _state(code: int) -> int:
    """Of kind and parity, and whether there is anything beyond: in RAM, if it has a record."""
    if code == 0:
        return EMPTY
    if code & KIND_MASK == FILLED:
        return SAME if code & _SOMETHING_BEYOND else ZERO
    return POOL if code & KIND_MASK == STORED else DAMAGED


_STATES: Final = bytes(map(_state, range(256)))
IS_STORED: Final = bytes(0xFF if number & KIND_MASK == STORED else 0 for number in range(256))
_WITHOUT_POOL: Final = bytes(0 if state == POOL else state for state in range(256))
_TIMEOUT_S: Final = 30.0


class Table:
    """``states`` and ``stored_bytes`` have an entry for each slot of the area."""

    def __init__(self, area: Area) -> None:
        self.area = area
        self.page_count = area.page_count
        # Whole clusters, so that the last one needs no care; beyond the area all is empty.
        slots = -(-area.page_count // CLUSTER_PAGES) * CLUSTER_PAGES
        self.states = bytearray(slots)
        """One of the numbers above."""
        self.stored_bytes = array("H", bytes(2 * slots))
        """The record's length with its header; 0 where there is no record."""
        self.segments: dict[int, Segment] = {}
        self.words: dict[int, array[int]] = {}
        """Descriptors by cluster, for clusters that hold something."""

    def take(self, words: Words) -> None:
        """Enter some clusters. The segments must have been entered before."""
        states, stored_bytes = self._decoded(words.words)
        whole = array("Q", words.words)
        for number, cluster in enumerate(words.clusters):
            here = slice(number << CLUSTER_SHIFT, number + 1 << CLUSTER_SHIFT)
            slots = slice(cluster << CLUSTER_SHIFT, cluster + 1 << CLUSTER_SHIFT)
            self.words[cluster] = whole[here]
            self.states[slots] = states[here]
            self.stored_bytes[slots] = stored_bytes[here]

    def _decoded(self, data: bytes) -> "tuple[bytes, array[int]]":
        """The states of descriptors, and the lengths of their records."""
        low, *others = (data[at::DESCRIPTOR_BYTES] for at in range(DESCRIPTOR_BYTES))
        beyond = columns.any_of((low.translate(_INDEX_BITS), *others)).translate(_BEYOND)
        states = columns.any_of((low.translate(_LOW_BITS), beyond)).translate(_STATES)
        is_stored = low.translate(IS_STORED)
        lengths = columns.field(array("H", data)[::4], LENGTH_SHIFT, LENGTH_MASK)
        disk = {number: DISK for number, segment in self.segments.items() if segment.tier}
        if disk:
            # One that was opened meanwhile is not known, and in RAM.
            homes = bytes(map(disk.get, segment_numbers(data), repeat(POOL)))
            other = states.translate(_WITHOUT_POOL)
            states = columns.any_of((other, columns.both(homes, is_stored)))
        return states, columns.where(lengths, is_stored)

    def pages(self, state: int) -> int:
        return self.states.count(state)

    def bytes_in(self, state: int, states: bytes | None = None) -> int:
        """What the records of pages in POOL or DISK take, headers included; of all pages, or of
        those that have it in ``states``."""
        chosen = (self.states if states is None else states).translate(columns.only(state))
        return sum(compress(self.stored_bytes, chosen))

    def segments_on(self, tier: int) -> dict[int, Segment]:
        """The segments in RAM (0) or on a tier, by number."""
        return {n: segment for n, segment in self.segments.items() if segment.tier == tier}

    def oldest_s(self, cluster: int) -> int | None:
        """How long ago the oldest segment with a page of the cluster was sealed; None of none."""
        data = self.words[cluster].tobytes()
        is_stored = data[::DESCRIPTOR_BYTES].translate(IS_STORED)
        numbers = {*compress(segment_numbers(data), is_stored)}
        ages = [self.segments[number].age_s for number in numbers & self.segments.keys()]
        return max(ages, default=None)


def segment_numbers(data: bytes) -> "array[int]":
    """The segment that each descriptor names, if it has a record; any number if it has none."""
    # A number has the highest bits of a word, so it is in its upper half.
    upper = SEGMENT_SHIFT - 32
    return columns.field(array("I", data)[1::2], upper, (1 << 32 - upper) - 1)


def fetch(name: str, *, words: bool = True) -> Table:
    """Ask the daemon; without ``words`` only for the segments. Raises what client.ask raises."""
    table: Table | None = None
    for answer in client.answers(name, AskTable(words), _TIMEOUT_S):
        match answer:
            case Area():
                table = Table(answer)
            case Segments() if table:
                table.segments |= {segment.number: segment for segment in answer.segments}
            case Words() if table:
                table.take(answer)
    if table is None:
        raise client.not_understood(name, "another kind of answer was due")
    return table


def ratio(pages: int, stored_bytes: int) -> float | None:
    """Original over stored size, None of nothing."""
    return round(pages * PAGE_BYTES / stored_bytes, 2) if stored_bytes else None
