"""In one process, without a mount: what memory for the pool costs, what compressors make of pages.

Owns the measuring; the regions and the codec are the daemon's own.
"""

import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from lz4.block import compress
from rich.table import Table

from benchmarks.host import MIB, BenchError
from benchmarks.report import console
from vswapfs.host.region import MemoryRegion, memory_file
from vswapfs.units import PAGE_BYTES

ROUNDS: Final = 5
TOUCHED_BYTES: Final = 64 * MIB
SAMPLE_PAGES: Final = 4000

COMPRESSORS: Final = {
    "fast (a store)": {},
    "HC 4 (--recompress)": {"mode": "high_compression", "compression": 4},
    "HC 9": {"mode": "high_compression", "compression": 9},
    "HC 12": {"mode": "high_compression", "compression": 12},
}


def touch() -> None:
    """First and second touch of every page of a region, and giving it back."""
    rows = [_touch_once() for _ in range(ROUNDS)]
    title = f"one byte of each page of {TOUCHED_BYTES // MIB} MiB, median, us/page"
    table = Table("first touch", "again", "give back", title=title)
    table.add_row(*(f"{statistics.median(each):.2f}" for each in zip(*rows, strict=True)))
    console.print(table)


def _touch_once() -> tuple[float, float, float]:
    region = MemoryRegion(memory_file("bench", TOUCHED_BYTES), TOUCHED_BYTES)
    view = region.view

    def write() -> None:
        for at in range(0, TOUCHED_BYTES, PAGE_BYTES):
            view[at] = 1

    def give_back() -> None:
        for at in range(0, TOUCHED_BYTES, MIB):
            region.release(at, at + MIB)

    return _us_per_page(write), _us_per_page(write), _us_per_page(give_back)


def _us_per_page(step: Callable[[], None]) -> float:
    began_s = time.perf_counter()
    step()
    return (time.perf_counter() - began_s) / (TOUCHED_BYTES // PAGE_BYTES) * 1e6


def recompress(directory: str) -> None:
    """Of pages of the files there, those that LZ4 makes shorter."""
    pages = [
        page for page in _sample(directory) if len(compress(page, store_size=False)) < PAGE_BYTES
    ]
    if not pages:
        raise BenchError(f"{directory}: no pages there that can be compressed")
    table = Table("compressor", title=f"{len(pages)} pages of {directory}")
    for heading in ("bytes/page", "of the fast one", "us/page"):
        table.add_column(heading, justify="right")
    reference_bytes = 0.0
    for name, options in COMPRESSORS.items():
        began_s = time.perf_counter()
        total = sum(len(compress(page, store_size=False, **options)) for page in pages)
        took_us = (time.perf_counter() - began_s) / len(pages) * 1e6
        mean_bytes = total / len(pages)
        reference_bytes = reference_bytes or mean_bytes
        share = mean_bytes / reference_bytes
        table.add_row(name, f"{mean_bytes:.0f}", f"{share:.1%}", f"{took_us:.1f}")
    console.print(table)


def _sample(directory: str) -> list[bytes]:
    """Pages of files all over the directory, the same each time."""
    paths = sorted(path for path in Path(directory).rglob("*") if path.is_file())
    rng = random.Random(1)
    rng.shuffle(paths)
    pages: list[bytes] = []
    for path in paths:
        data = path.read_bytes()
        whole = [data[at : at + PAGE_BYTES] for at in range(0, len(data) - PAGE_BYTES, PAGE_BYTES)]
        pages += rng.sample(whole, min(len(whole), 50))
        if len(pages) >= SAMPLE_PAGES:
            break
    return pages[:SAMPLE_PAGES]
