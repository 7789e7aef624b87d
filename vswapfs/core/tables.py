"""The tables in bulk, copied out of the store.

Owns what is copied, and how the copy becomes messages. Never changes anything. Copies are quick and
are made where the store may be touched; what is made of them can be made anywhere.
"""

from array import array
from collections.abc import Sequence
from typing import NamedTuple

from vswapfs.core.descriptor import CLUSTER_BYTES, CLUSTER_SHIFT
from vswapfs.core.segment import (
    FILL_MASK,
    FILL_SHIFT,
    HEAD_MASK,
    OPEN,
    SEQUENCE_SHIFT,
    SLOT_SHIFT,
    STATE_MASK,
    TIER_MASK,
    TIER_SHIFT,
)
from vswapfs.core.store import Store
from vswapfs.format.table import Segment, Words


class SegmentCopy(NamedTuple):
    """The columns of the segment table at one instant."""

    homes: list[int]
    sequences: list[int]
    """Words: head and number."""
    live_bytes: "array[int]"
    live_pages: "array[int]"
    sealed_at_s: "array[int]"
    positions: dict[int, int]
    """Of the open segments: how far they are filled."""


def copy_segments(store: Store) -> SegmentCopy:
    """To be called where the store may be touched: 0.1 ms for 10 000 segments."""
    segments = store.segments
    return SegmentCopy(
        segments.homes[: segments.count].tolist(),
        segments.sequence_words(),
        segments.live_bytes[:],
        segments.live_pages[:],
        segments.sealed_at_s[:],
        {head.segment: head.position for head in store.heads if head.segment >= 0},
    )


def used_clusters(store: Store) -> list[int]:
    """The clusters that hold a page."""
    return [cluster for cluster, pages in enumerate(store.cluster_pages) if pages]


def copy_words(store: Store, clusters: Sequence[int]) -> Words:
    """To be called where the store may be touched: 2 us a cluster."""
    parts = [
        store.words[cluster << CLUSTER_SHIFT : cluster + 1 << CLUSTER_SHIFT]
        .tobytes()
        .ljust(CLUSTER_BYTES, b"\0")
        for cluster in clusters
    ]
    return Words(list(clusters), b"".join(parts))


def segments_of(copy: SegmentCopy, now_s: int) -> list[Segment]:
    """The segments in use; ``now_s`` is of the clock that the store is told."""
    found = []
    for number, home in enumerate(copy.homes):
        if not home & STATE_MASK:
            continue
        is_open = home & STATE_MASK == OPEN
        sequence = copy.sequences[number]
        found.append(
            Segment(
                number,
                is_open,
                sequence & HEAD_MASK,
                home >> TIER_SHIFT & TIER_MASK,
                home >> SLOT_SHIFT,
                copy.positions.get(number, home >> FILL_SHIFT & FILL_MASK),
                copy.live_bytes[number],
                copy.live_pages[number],
                sequence >> SEQUENCE_SHIFT,
                0 if is_open else max(0, now_s - copy.sealed_at_s[number]),
            )
        )
    return found
