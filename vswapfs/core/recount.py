"""What is found through the descriptors: counts, for a successor; and the pages of a segment.

The recount: a successor counts again what its predecessor had derived, while it serves. Owns which
clusters have been counted. Counts live bytes, pages of clusters and patterns from the
descriptors alone, a cluster (512 pages) at a time and in any order: before a page changes, its
cluster is counted (``reach``), so that the change adjusts a count that is there. Always holds: what
is counted of a segment or a pattern is at most what is there. Therefore, until all is counted,
nobody may conclude from a count of 0: no segment is freed or cleaned (SegmentTable.counting), and
the recount holds one reference more on each pattern. Free segments are opened, and sealed: what
points to them is in clusters that were counted.

Clusters of which no byte was ever written are not read: that would take memory for them.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from vswapfs.core.descriptor import (
    CLUSTER_BYTES,
    CLUSTER_PAGES,
    CLUSTER_SHIFT,
    EMPTY,
    FILLED,
    INDEX_SHIFT,
    KIND_MASK,
    LENGTH_MASK,
    LENGTH_SHIFT,
    OFFSET_MASK,
    OFFSET_SHIFT,
    SEGMENT_SHIFT,
    STORED,
    parity_holds,
    place,
)
from vswapfs.core.segment import FREE, STATE_MASK
from vswapfs.format.record import HEADER_BYTES, RECORD_MAX_BYTES

if TYPE_CHECKING:
    from vswapfs.core.store import Store

_EMPTY_CLUSTER: Final = bytes(CLUSTER_BYTES)


class Recount:
    """Over a store whose segment table was derived and whose heads were opened."""

    def __init__(self, store: "Store", extents: "list[tuple[int, int]]") -> None:
        """``extents``: the bytes of the descriptors that may be other than zero."""
        self._store = store
        self._descriptors = store.words.cast("B")
        self._counted = bytearray(b"\1" * store.geometry.cluster_count)
        self._waiting: list[int] = []
        for start, stop in extents:
            for cluster in range(start // CLUSTER_BYTES, -(-stop // CLUSTER_BYTES)):
                if self._counted[cluster]:
                    self._counted[cluster] = 0
                    self._waiting.append(cluster)
        self._waiting.reverse()
        self._is_used = bytearray(store.segments.count)
        for segment, home in store.segments.in_use():
            self._is_used[segment] = home & STATE_MASK != FREE

    def reach(self, first: int, page_count: int) -> None:
        """These pages are about to change."""
        for cluster in range(first >> CLUSTER_SHIFT, (first + page_count - 1 >> CLUSTER_SHIFT) + 1):
            if not self._counted[cluster]:
                self._count(cluster)

    def step(self, clusters: int) -> bool:
        """Count so many clusters on; False when all are counted."""
        while self._waiting and clusters > 0:
            cluster = self._waiting.pop()
            if not self._counted[cluster]:
                self._count(cluster)
                clusters -= 1
        return bool(self._waiting)

    def _count(self, cluster: int) -> None:
        self._counted[cluster] = 1
        start = cluster * CLUSTER_BYTES
        if self._descriptors[start : start + CLUSTER_BYTES] == _EMPTY_CLUSTER:
            return
        store = self._store
        live_bytes, live_pages = store.segments.live_bytes, store.segments.live_pages
        is_used, segment_bytes = self._is_used, store.geometry.segment_bytes
        segment_count, pattern_count = len(is_used), store.patterns.used_count
        first = cluster << CLUSTER_SHIFT
        words: list[int] = store.words[first : first + CLUSTER_PAGES].tolist()
        store.cluster_pages[cluster] = CLUSTER_PAGES - words.count(EMPTY)
        damaged = incompressible = 0
        # Each word is looked at once, with nothing called.
        for word in words:
            if word == EMPTY:
                continue
            segment = word >> SEGMENT_SHIFT
            length_bytes = word >> LENGTH_SHIFT & LENGTH_MASK
            if (
                word & KIND_MASK == STORED
                and not word.bit_count() & 1
                and segment < segment_count
                and is_used[segment]
                and HEADER_BYTES < length_bytes <= RECORD_MAX_BYTES
                and (word >> OFFSET_SHIFT & OFFSET_MASK) + length_bytes <= segment_bytes
            ):
                live_bytes[segment] += length_bytes
                live_pages[segment] += 1
                if length_bytes == RECORD_MAX_BYTES:
                    incompressible += 1
            elif (
                word & KIND_MASK == FILLED
                and not word.bit_count() & 1
                and word >> INDEX_SHIFT < pattern_count
            ):
                store.patterns.count(word >> INDEX_SHIFT)
            else:
                damaged += 1
        store.incompressible_pages += incompressible
        store.damaged_descriptors += damaged


def pages_in(store: "Store", segment: int) -> Iterator[int]:
    """All pages whose records lie in the segment, found through the descriptors."""
    segment_bytes = store.geometry.segment_bytes
    for cluster, page_count in enumerate(store.cluster_pages):
        if not page_count:
            continue
        first = cluster << CLUSTER_SHIFT
        for page, word in enumerate(store.words[first : first + CLUSTER_PAGES].tolist(), first):
            if word >> SEGMENT_SHIFT == segment and word & KIND_MASK == STORED:
                _segment, offset_bytes, length_bytes = place(word)
                if (
                    parity_holds(word)
                    and HEADER_BYTES < length_bytes <= RECORD_MAX_BYTES
                    and offset_bytes + length_bytes <= segment_bytes
                ):
                    yield page
