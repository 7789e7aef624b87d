"""The lane's own figures: what it counted, and how long requests took.

Owns the counters' keys (those of the field table) and the sampling of latencies. Changed on the
lane only. A latency is that of a request, of however many pages, from the time the lane has it to
its answer; where it waits for a tier or for room, that is in it.
"""

from time import perf_counter_ns

from vswapfs.format.histogram import BUCKETS, bucket_of
from vswapfs.format.message import Histogram

COUNTERS = (
    "requests.read",
    "requests.write",
    "requests.discard",
    "requests.forwarded",
    "requests.parked",
    "refusals.pool_full",
    "refusals.out_of_range",
    "refusals.fallocate_mode",
    "refusals.malformed",
    "refusals.forward_busy",
    "internal_errors",
    "lane.polls_hit_total",
    "lane.sleeps_total",
)


class Latency:
    """Times by bucket."""

    def __init__(self) -> None:
        self._counts = [0] * BUCKETS
        self._sum_ns = 0

    def add_since(self, began_ns: int) -> None:
        """A request that began then (perf_counter_ns) is answered."""
        took_ns = perf_counter_ns() - began_ns
        self._counts[bucket_of(took_ns)] += 1
        self._sum_ns += took_ns

    def told(self) -> Histogram:
        return Histogram(self._counts.copy(), self._sum_ns // 1000)
