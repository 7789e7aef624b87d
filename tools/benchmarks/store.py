"""What the store costs beside its payload: metadata, density of the pool, write amplification.

Owns the measuring of one instance from outside, by its file and what vswapctl says.
"""

import fcntl
import mmap
import os
import random
import re
import statistics
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from rich.progress import Progress
from rich.table import Table

from benchmarks.host import MIB, vswapctl_json
from benchmarks.peers import DISK_DIRECTORY, INSTANCE, block_device, vswapfs_file
from benchmarks.report import console
from vswapfs.daemon.mapped import KEPT_DESCRIPTOR_BYTES
from vswapfs.units import PAGE_BYTES, format_size

PoolBytes = tuple[int, int, int]
"""Payload; all memory taken for it; of that, in hand for stores to come."""

CHUNK_PAGES: Final = 256
BLKDISCARD: Final = 0x1277
CHURN_WRITES_PER_S: Final = 2000
SETTLING_ROUNDS: Final = 2.0
"""Overwrites before write amplification is measured. In the first round the tier's free slots are
used up, which flatters."""

# "Virtual Swap Space" v5, cover letter: memory of the descriptors for 32 GiB of swap, MiB.
KERNEL_SERIES_MIB: Final = {0: 0.0, 25: 48.25, 50: 96.5, 75: 144.75, 100: 193.0}


def pool_stats() -> dict[str, Any]:
    pool: dict[str, Any] = vswapctl_json("stats", INSTANCE)["pool"]
    return pool


def resident_bytes() -> int:
    """The worker's memory, all told, as the kernel counts it."""
    (status,) = vswapctl_json("status", INSTANCE)
    rollup = Path(f"/proc/{status['worker_pid']}/smaps_rollup").read_text()
    found = re.search(r"Rss: +(\d+) kB", rollup)
    assert found
    return int(found[1]) * 1024


def beyond_payload_bytes() -> int:
    """The worker's memory without payloads, and without what it has in hand for stores to come."""
    pool = pool_stats()
    payload_bytes: int = pool["live_bytes"] - pool["header_bytes"] + pool["in_hand_bytes"]
    return resident_bytes() - payload_bytes


def empty_bytes(beyond_bytes: int) -> int:
    """Of a worker with hardly a page: descriptors that it keeps in memory from its start on are of
    the pages to come."""
    return beyond_bytes - KEPT_DESCRIPTOR_BYTES


def metadata(size_gib: int) -> None:
    """Memory beyond payload, as an area fills with stored and with filled pages."""
    table = Table("slots used", title=f"metadata for {size_gib} GiB of slots")
    for heading in ("kernel series MiB", "stored MiB", "bytes/page", "filled MiB", "bytes/page"):
        table.add_column(heading, justify="right")
    rows: dict[int, list[str]] = {pct: [] for pct in KERNEL_SERIES_MIB}
    page_count = (size_gib << 30) // PAGE_BYTES
    for kind in ("stored", "filled"):
        with (
            vswapfs_file("--size", f"{size_gib}G", "--pool-limit", "2G") as server,
            Progress(console=console, transient=True) as progress,
        ):
            task = progress.add_task(f"{kind} pages", total=page_count)
            fd = os.open(server.file, os.O_RDWR | os.O_DIRECT)
            before_bytes = empty_bytes(beyond_payload_bytes())
            written = 0
            for pct in KERNEL_SERIES_MIB:
                for first in range(written, page_count * pct // 100, CHUNK_PAGES):
                    os.pwrite(fd, chunk(kind, first), first * PAGE_BYTES)
                    progress.update(task, completed=first)
                written = page_count * pct // 100
                used_bytes = beyond_payload_bytes() - before_bytes
                per_page = f"{used_bytes / written:.2f}" if written else "-"
                rows[pct] += [f"{used_bytes / MIB:.2f}", per_page]
            os.close(fd)
    for pct, cells in rows.items():
        kernel_mib = KERNEL_SERIES_MIB[pct] * size_gib / 32
        table.add_row(f"{pct} %", f"{kernel_mib:.2f}", *cells)
    console.print(table)
    console.print(
        f"the empty worker, without memory kept ready: {format_size(before_bytes)} resident"
    )


def chunk(kind: str, first: int) -> mmap.mmap:
    """1 MiB of pages: all 0xff ("filled"), or zeros ("stored") or random bytes ("incompressible")
    with the page number in them."""
    if kind not in _buffers:
        buffer = _buffers[kind] = mmap.mmap(-1, CHUNK_PAGES * PAGE_BYTES)
        if kind == "filled":
            buffer[:] = b"\xff" * len(buffer)
        elif kind == "incompressible":
            buffer[:] = random.Random(1).randbytes(len(buffer))
    buffer = _buffers[kind]
    if kind != "filled":
        for index in range(CHUNK_PAGES):
            struct.pack_into("<Q", buffer, index * PAGE_BYTES + 100, first + index)
    return buffer


_buffers: dict[str, mmap.mmap] = {}


def density(size_mib: int, seconds: int) -> None:
    """Payload per RAM taken while pages are overwritten at random, and 10 s later, beside zram."""
    table = Table("", title=f"density after {seconds} s of churn, {size_mib} MiB")
    for heading in (
        "during churn", "but for memory in hand", "10 s after", "but for memory in hand",
        "payload MiB", "RAM MiB", "in hand MiB",
    ):  # fmt: skip
        table.add_column(heading, justify="right")

    def ours() -> PoolBytes:
        pool = pool_stats()
        return pool["live_bytes"], pool["used_bytes"], pool["in_hand_bytes"]

    with block_device("vswapfs", size_mib * MIB) as device:
        table.add_row("vswapfs", *_churned(device.path, size_mib, seconds, ours))

    with block_device("zram", size_mib * MIB) as device:
        mm_stat = Path("/sys/block", Path(device.path).name, "mm_stat")

        def zram() -> PoolBytes:
            figures = mm_stat.read_text().split()
            return int(figures[1]), int(figures[2]), 0

        table.add_row("zram lz4", *_churned(device.path, size_mib, seconds, zram))
    console.print(table)


def _churned(path: str, size_mib: int, seconds: int, figures: Callable[[], PoolBytes]) -> list[str]:
    rng = random.Random(1)
    page_count = size_mib * MIB // PAGE_BYTES
    during = []
    fd = os.open(path, os.O_RDWR | os.O_DIRECT)
    buffer = mmap.mmap(-1, 16 * PAGE_BYTES)
    try:
        for page in range(0, page_count // 2, 16):
            buffer[:] = b"".join(churn_page(rng) for _ in range(16))
            os.pwrite(fd, buffer, page * PAGE_BYTES)
        writes = 0
        sample_at_s = time.monotonic() + 1
        # As many writes for both, not as much time, or the slower one would churn less.
        while writes < seconds * CHURN_WRITES_PER_S:
            count = rng.randrange(1, 17)
            offset = rng.randrange(page_count // 2 - 16) * PAGE_BYTES
            if rng.random() < 0.1:
                run_length = struct.pack("<QQ", offset, count * PAGE_BYTES)
                fcntl.ioctl(fd, BLKDISCARD, run_length)
            else:
                buffer[: count * PAGE_BYTES] = b"".join(churn_page(rng) for _ in range(count))
                os.pwrite(fd, memoryview(buffer)[: count * PAGE_BYTES], offset)
            writes += 1
            if time.monotonic() >= sample_at_s:
                during.append(_densities(*figures()))
                sample_at_s += 1
        time.sleep(10)
    finally:
        os.close(fd)
    after = figures()
    medians = (statistics.median(column) for column in zip(*during, strict=True))
    return [
        *(f"{density:.1%}" for density in (*medians, *_densities(*after))),
        *(f"{amount / MIB:.1f}" for amount in after),
    ]


def _densities(live_bytes: int, used_bytes: int, in_hand_bytes: int) -> tuple[float, float]:
    """Of all memory taken, and of that without what is in hand for stores to come."""
    return live_bytes / used_bytes, live_bytes / (used_bytes - in_hand_bytes)


def churn_page(rng: random.Random) -> bytes:
    """A page that LZ4 shortens to between a few hundred bytes and nearly all of it."""
    part = rng.randrange(200, 3700)
    return rng.randbytes(part) + bytes(PAGE_BYTES - part)


def write_amplification(
    tier_mib: int, pool_mib: int, fill: float, rounds: float, skew: float
) -> None:
    """Bytes to disk over bytes of records accepted, for random overwrites of a tier that full."""
    rng = random.Random(1)
    live_pages = int(tier_mib * MIB * fill) // 4110
    with tempfile.TemporaryDirectory(dir=DISK_DIRECTORY) as directory:
        tier = ("--tier", f"{directory}/tier:{tier_mib}M")
        with vswapfs_file(
            "--size", f"{tier_mib}M", "--pool-limit", f"{pool_mib}M", *tier
        ) as server:
            fd = os.open(server.file, os.O_RDWR | os.O_DIRECT)
            buffer = mmap.mmap(-1, PAGE_BYTES)

            def write(page: int) -> None:
                buffer[:] = rng.randbytes(PAGE_BYTES)
                os.pwrite(fd, buffer, page * PAGE_BYTES)

            with Progress(console=console, transient=True) as progress:
                settling, overwrites = int(live_pages * SETTLING_ROUNDS), int(live_pages * rounds)
                task = progress.add_task("writing", total=live_pages + settling + overwrites)
                for page in range(live_pages):
                    write(page)
                    progress.advance(task)
                for turn in range(settling + overwrites):
                    if turn == settling:
                        before = tier_written_bytes()
                    hot = rng.random() < skew
                    write(rng.randrange(live_pages // 10 if hot else live_pages))
                    progress.advance(task)
            after = tier_written_bytes()
            os.close(fd)
    console.print(
        f"tier {tier_mib} MiB, pool {pool_mib} MiB, {fill:.0%} live, {overwrites} pages "
        f"overwritten, skew {skew}: "
        f"write amplification {(after - before) / (overwrites * 4110):.2f}"
    )


def tier_written_bytes() -> int:
    found: int = vswapctl_json("tier", "list", INSTANCE)["tiers"][0]["written_bytes"]
    return found
