"""Memory beyond payload, and the time of one page, as an area and its tiers grow.

Owns what is written where, and the timing of reads and writes of 4 KiB, one at a time, through the
mounted file. Sizes take the place of peers: each figure stands beside that of the smallest. Little
is written to disk: to a tier of any size the same number of pages.
"""

import mmap
import os
import random
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter_ns
from typing import Final, NamedTuple

from benchmarks import bars
from benchmarks.host import MIB, VSWAPCTL, BenchError, run, time_limit
from benchmarks.peers import DISK_DIRECTORY, INSTANCE, TIER_POOL_BYTES, vswapfs_file
from benchmarks.report import ROUNDS, Report, rotated
from benchmarks.serving import Server
from benchmarks.store import (
    CHUNK_PAGES,
    beyond_payload_bytes,
    chunk,
    empty_bytes,
    pool_stats,
    resident_bytes,
)
from vswapfs.errors import VswapError
from vswapfs.fuse import mount
from vswapfs.units import PAGE_BYTES

CLUSTER_PAGES: Final = 512
SPARSE_PAGES: Final = 8
"""Of each cluster."""

OPERATIONS: Final = 5000
POOL_BYTES: Final = 2048 * MIB
TIMEOUT_S: Final = 300.0
"""Of filling one area and of timing it."""


class Layout(NamedTuple):
    """What is in an area while it is measured."""

    name: str
    kind: str
    """Of the pages, as ``store.chunk`` names them."""
    cluster_pages: int
    sizes_gib: tuple[int, ...]
    quick_sizes_gib: tuple[int, ...]
    tier_pages: int = 0
    """Written, if they are to go to a tier as large as the area; otherwise all of it is."""

    def page_count(self, size_gib: int) -> int:
        clusters = (size_gib << 30) // PAGE_BYTES // CLUSTER_PAGES
        return self.tier_pages or clusters * self.cluster_pages

    def offset(self, index: int) -> int:
        """Where the page of that index is."""
        cluster, place = divmod(index, self.cluster_pages)
        return (cluster * CLUSTER_PAGES + place) * PAGE_BYTES


LAYOUTS: Final = (
    Layout("sparse", "stored", SPARSE_PAGES, (1, 4, 16, 64), (1, 4, 16)),
    Layout("stored", "stored", CLUSTER_PAGES, (1, 4, 16), (1, 4)),
    Layout("filled", "filled", CLUSTER_PAGES, (1, 4, 16, 64), (1, 4, 16)),
    Layout("on a tier", "incompressible", CLUSTER_PAGES, (1, 4, 16), (1, 4), 512 * MIB // 4096),
)


def measure(*, quick: bool) -> Report:
    """All layouts at all their sizes."""
    sizes = {each: each.quick_sizes_gib if quick else each.sizes_gib for each in LAYOUTS}
    all_sizes = sorted(set().union(*sizes.values()))
    report = Report("scale", (), reference=label(all_sizes[0]))
    for size_gib in all_sizes:
        report.how[label(size_gib)] = "size of the area, and of its tier if it has one"
    with report.progress(ROUNDS * sum(map(len, sizes.values()))) as step:
        for layout, number in ((each, number) for each in LAYOUTS for number in range(ROUNDS)):
            for name in rotated(map(label, sizes[layout]), number):
                step(f"{layout.name}, round {number + 1}, {name}")
                try:
                    measure_size(report, layout, int(name.split()[0]), number + 1)
                except (BenchError, VswapError, OSError) as error:
                    report.give_up(f"{layout.name}, {name}", error)
    return report


def label(size_gib: int) -> str:
    return f"{size_gib} GiB"


def measure_size(report: Report, layout: Layout, size_gib: int, number: int) -> None:
    def add(case: str, value: float, unit: str) -> None:
        case = f"{layout.name}: {case}"
        report.add(case, label(size_gib), round_number=number, value=value, unit=unit)

    with instance(layout, size_gib) as server:
        report.how[layout.name] = server.how
        add("empty daemon", empty_bytes(beyond_payload_bytes()) / MIB, bars.MIB)
        fd = os.open(server.file, os.O_RDWR | os.O_DIRECT)
        try:
            with time_limit(TIMEOUT_S, lambda: mount.abort(server.connection)):
                count = layout.page_count(size_gib)
                page = mmap.mmap(-1, PAGE_BYTES)
                # What the daemon needs to work at all is not of the pages.
                fill(fd, layout, CHUNK_PAGES)
                if layout.tier_pages:
                    run(VSWAPCTL, "writeback", INSTANCE, "--all")
                os.preadv(fd, [page], 0)
                before_bytes = empty_bytes(metadata_bytes(layout))
                fill(fd, layout, count)
                used_bytes = metadata_bytes(layout) - before_bytes
                add("metadata a page", used_bytes / count, bars.BYTES)
                rng = random.Random(number)
                offsets = [layout.offset(rng.randrange(count)) for _ in range(OPERATIONS)]
                add("read", median_us(lambda at: os.preadv(fd, [page], at), offsets), bars.US)
                page[:] = chunk(layout.kind, 0)[:PAGE_BYTES]
                add("write", median_us(lambda at: os.pwrite(fd, page, at), offsets), bars.US)
        finally:
            os.close(fd)


@contextmanager
def instance(layout: Layout, size_gib: int) -> Iterator[Server]:
    size = f"{size_gib}G"
    if not layout.tier_pages:
        with vswapfs_file("--size", size, "--pool-limit", str(POOL_BYTES)) as server:
            yield server
        return
    with tempfile.TemporaryDirectory(dir=DISK_DIRECTORY) as directory:
        tier = ("--tier", f"{Path(directory, 'tier')}:{size}")
        with vswapfs_file("--size", size, "--pool-limit", str(TIER_POOL_BYTES), *tier) as server:
            yield server


def fill(fd: int, layout: Layout, count: int) -> None:
    run_pages = min(CHUNK_PAGES, layout.cluster_pages)
    for first in range(0, count, run_pages):
        pages = memoryview(chunk(layout.kind, first))[: run_pages * PAGE_BYTES]
        os.pwrite(fd, pages, layout.offset(first))


def metadata_bytes(layout: Layout) -> int:
    """The worker's memory without payloads. Beside a tier the pool comes and goes: without it."""
    if layout.tier_pages:
        return resident_bytes() - int(pool_stats()["used_bytes"])
    return beyond_payload_bytes()


def median_us(operation: Callable[[int], object], offsets: list[int]) -> float:
    took_ns = []
    for offset in offsets:
        began_ns = perf_counter_ns()
        operation(offset)
        took_ns.append(perf_counter_ns() - began_ns)
    return statistics.median(took_ns) / 1000
