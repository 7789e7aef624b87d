"""Histograms of latencies: which bucket a time is in, and what the counts say.

Owns the buckets: logarithmic, four to a doubling, so that a bound is at most 25 % above a time in
its bucket. Counts are of fixed length and only ever added up; the difference of two is that of the
time between.
"""

from collections.abc import Sequence
from typing import Final

_UNIT_SHIFT: Final = 8
"""Of nanoseconds: the first buckets are 256 ns wide."""

PER_DOUBLING: Final = 4
_SUB_BITS: Final = 2
BUCKETS: Final = 112
"""The last one is for all that took longer than 30 s."""


def bucket_of(time_ns: int) -> int:
    """The bucket of a time."""
    units = time_ns >> _UNIT_SHIFT
    shift = max(0, units.bit_length() - 1 - _SUB_BITS)
    return min((shift << _SUB_BITS) + (units >> shift), BUCKETS - 1)


def upper_us(bucket: int) -> float:
    """The end of a bucket: every time in it is below, but for the last one, which has no end."""
    shift = max(0, (bucket >> _SUB_BITS) - 1)
    units = (bucket - (shift << _SUB_BITS) + 1) << shift
    return (units << _UNIT_SHIFT) / 1000


def percentile_us(counts: Sequence[int], percent: float) -> float | None:
    """The end of the bucket in which that share of all times is reached; None without any."""
    wanted = sum(counts) * percent / 100
    reached = 0
    for bucket, count in enumerate(counts):
        reached += count
        if count and reached >= wanted:
            return upper_us(bucket)
    return None
