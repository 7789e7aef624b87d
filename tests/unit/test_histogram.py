"""Buckets of latencies, and what is told from their counts."""

import itertools
import time

import pytest

from vswapfs.format.histogram import BUCKETS, bucket_of, percentile_us, upper_us
from vswapfs.fuse.figures import Latency


def test_buckets_follow_one_another_without_a_gap() -> None:
    ends = [upper_us(bucket) for bucket in range(BUCKETS)]
    assert ends == sorted(set(ends))
    for bucket, end in enumerate(ends[:-1]):
        assert bucket_of(round(end * 1000) - 1) == bucket
        assert bucket_of(round(end * 1000)) == bucket + 1
    wide = [later / end for end, later in itertools.pairwise(ends)]
    assert max(wide[8:]) <= 1.25


@pytest.mark.parametrize(("time_ns", "bucket"), [(0, 0), (255, 0), (256, 1), (1 << 62, 111)])
def test_ends_of_the_range(time_ns: int, bucket: int) -> None:
    assert bucket_of(time_ns) == bucket


def test_percentiles() -> None:
    counts = [0] * BUCKETS
    assert percentile_us(counts, 50) is None
    for time_us in range(1, 101):
        counts[bucket_of(time_us * 1000)] += 1
    for percent in (1, 50, 90, 99, 100):
        found = percentile_us(counts, percent)
        assert found is not None
        assert percent < found <= percent * 1.25 + 1


def test_latency_counts_what_took_how_long() -> None:
    latency = Latency()
    began_ns = time.perf_counter_ns()
    latency.add_since(began_ns - 20_000_000)
    latency.add_since(began_ns)
    told = latency.told()
    assert sum(told.counts) == 2
    assert told.sum_us >= 20_000
    longest_us = percentile_us(told.counts, 100)
    assert longest_us is not None
    assert longest_us > 20_000
