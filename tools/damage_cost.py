"""What the checksum costs: xxh3-64, crc32 and none, alone and within a store and a load.

Owns the measuring. Never asserts: a figure is printed, not judged.
"""

import statistics
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from damage_kinds import SEGMENT_BYTES
from damage_lab import make_buffers
from workload import PageContents

from vswapfs.core import store as store_module
from vswapfs.core import verify as verify_module
from vswapfs.core.buffers import Geometry
from vswapfs.core.store import Store
from vswapfs.format.codec import checksum

CHECKSUMS: Final[dict[str, Callable[[bytes], int]]] = {
    "xxh3-64": checksum,
    "crc32": zlib.crc32,
    "none": len,  # the cheapest call there is, so that the loop is the same
}
PAGE_KINDS: Final = ("text", "random")
PAGES: Final = 256
ROUNDS: Final = 25


class Cost(NamedTuple):
    """Nanoseconds a page, medians of the rounds."""

    pages: str
    checksum: str
    alone_ns: float
    """Of the call in a loop, the loop included."""
    store_ns: float
    load_ns: float

    @property
    def store_share(self) -> float:
        return self.alone_ns / self.store_ns

    @property
    def load_share(self) -> float:
        return self.alone_ns / self.load_ns


@contextmanager
def _in_place(function: Callable[[bytes], int]) -> Iterator[None]:
    """Let the store compute another checksum."""
    for module in (store_module, verify_module):
        setattr(module, "checksum", function)  # noqa: B010
    try:
        yield
    finally:
        for module in (store_module, verify_module):
            setattr(module, "checksum", checksum)  # noqa: B010


def measure(rounds: int = ROUNDS) -> list[Cost]:
    """All in turn in each round, so that what else the machine does meets all alike."""
    geometry = Geometry(page_count=PAGES, slot_count=16, segment_bytes=SEGMENT_BYTES)
    stores = {kind: Store(geometry, make_buffers(geometry)) for kind in PAGE_KINDS}
    pages = {
        kind: [contents.page(number, 0) for number in range(PAGES)]
        for kind in PAGE_KINDS
        for contents in [PageContents(1, {kind: 1})]
    }
    times: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for _ in range(rounds):
        for kind in PAGE_KINDS:
            for name, function in CHECKSUMS.items():
                with _in_place(function):
                    found = _round(stores[kind], pages[kind], function)
                times.setdefault((kind, name), []).append(found)
    return [
        Cost(kind, name, *(statistics.median(column) for column in zip(*found, strict=True)))
        for (kind, name), found in times.items()
    ]


def _round(
    store: Store, pages: list[bytes], function: Callable[[bytes], int]
) -> tuple[float, float, float]:
    """Nanoseconds a page: the checksum alone, a store, a load."""
    began = time.perf_counter_ns()
    for data in pages:
        function(data)
    alone = time.perf_counter_ns()
    for page, data in enumerate(pages):
        store.store(page, data)
    stored = time.perf_counter_ns()
    for page in range(len(pages)):
        store.load(page)
    loaded = time.perf_counter_ns()
    return (alone - began) / PAGES, (stored - alone) / PAGES, (loaded - stored) / PAGES
