"""The descriptor table and the segment table of an instance, fetched in bulk and taken apart.

Owns the states as small numbers and the columns by slot. Never verifies a record: that is desc.
A table is of one moment only while nothing is stored; under load its parts are some milliseconds
apart.
"""

from array import array
from itertools import compress
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
from vswapfs.ctl import client
from vswapfs.format.table import Area, AskTable, Segment, Segments, Words
from vswapfs.units import PAGE_BYTES

EMPTY: Final = 0
ZERO: Final = 1
SAME: Final = 2
POOL: Final = 3
DISK: Final = 4
DAMAGED: Final = 5
STATE_NAMES: Final = ("empty", "zero", "same", "pool", "disk", "damaged")

_CLUSTER_BYTES: Final = CLUSTER_PAGES * DESCRIPTOR_BYTES
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
        home_of = {n: DISK if segment.tier else POOL for n, segment in self.segments.items()}.get
        for number, cluster in enumerate(words.clusters):
            taken = array("Q", words.words[number * _CLUSTER_BYTES : (number + 1) * _CLUSTER_BYTES])
            self.words[cluster] = taken
            first = cluster << CLUSTER_SHIFT
            # One that was opened meanwhile is not known, and in RAM.
            self.states[first : first + CLUSTER_PAGES] = bytes(
                home_of(word >> SEGMENT_SHIFT, POOL)
                if word & KIND_MASK == STORED
                else _state_without_record(word)
                for word in taken
            )
            self.stored_bytes[first : first + CLUSTER_PAGES] = array(
                "H",
                [
                    word >> LENGTH_SHIFT & LENGTH_MASK if word & KIND_MASK == STORED else 0
                    for word in taken
                ],
            )

    def pages(self, state: int) -> int:
        return self.states.count(state)

    def bytes_in(self, state: int) -> int:
        """What the records of all pages in POOL or DISK take, headers included."""
        chosen = self.states.translate(_only(state))
        return sum(compress(self.stored_bytes, chosen))

    def segments_on(self, tier: int) -> dict[int, Segment]:
        """The segments in RAM (0) or on a tier, by number."""
        return {n: segment for n, segment in self.segments.items() if segment.tier == tier}

    def oldest_s(self, cluster: int) -> int | None:
        """How long ago the oldest segment with a page of the cluster was sealed; None of none."""
        numbers = {
            word >> SEGMENT_SHIFT for word in self.words[cluster] if word & KIND_MASK == STORED
        }
        ages = [self.segments[number].age_s for number in numbers & self.segments.keys()]
        return max(ages, default=None)


def _only(state: int) -> bytes:
    return bytes(1 if number == state else 0 for number in range(256))


def _state_without_record(word: int) -> int:
    if not word:
        return EMPTY
    if word & KIND_MASK == FILLED:
        return SAME if word >> INDEX_SHIFT else ZERO
    return DAMAGED


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
