"""When to clean, and which segment. Pure functions of the statistics.

Owns the thresholds. Never changes anything.

Cost-benefit is that of the log-structured file system (Rosenblum and Ousterhout, 1992) and of
RAMCloud: the space won, weighed by how long it will stay won (age), over the bytes moved.
"""

from typing import Final

from vswapfs.format.record import RECORD_MAX_BYTES

CLEAN_MAX_UTILIZATION: Final = 0.95
"""Segments fuller than this are left alone: the pool is then as dense as zram's allocator (95 to
96 % payload, measured)."""

FREE_LOW_SHARE: Final = 1 / 32
"""Below this share of free segments the cleaner runs between requests, ahead of the stores that
will need the room."""


def score(live_bytes: int, segment_bytes: int, age: int) -> float:
    """Cost-benefit of cleaning a sealed segment; 0 when it is not worth it. Higher is better.

    A segment packed by the cleaner ends with less room than a record needs. Nothing that full is
    worth it, whatever the share (in small segments a record is more than 5 %), or cleaning would
    go round in circles.
    """
    utilization = live_bytes / segment_bytes
    if utilization > CLEAN_MAX_UTILIZATION or live_bytes > segment_bytes - RECORD_MAX_BYTES:
        return 0.0
    return (1 - utilization) * (age + 1) / (1 + utilization)


def short_of_segments(free_count: int, slot_count: int, reserve: int) -> bool:
    """True when the cleaner should run even while requests come in."""
    return free_count <= reserve + int(slot_count * FREE_LOW_SHARE)


def density_low(sealed_resident_bytes: int, sealed_live_bytes: int, segment_bytes: int) -> bool:
    """True when idle time should be spent on packing the pool: at least a segment to win."""
    dead_bytes = sealed_resident_bytes - sealed_live_bytes
    return (
        dead_bytes >= segment_bytes
        and sealed_live_bytes < sealed_resident_bytes * CLEAN_MAX_UTILIZATION
    )
