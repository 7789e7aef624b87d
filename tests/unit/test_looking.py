"""Looking at descriptors: damaged ones are told, and those that never were take no memory."""

import random
from collections import Counter

import pytest
from regions import make_buffers, make_page

from vswapfs.core.buffers import Buffers, Geometry
from vswapfs.core.describe import describe, describe_range
from vswapfs.core.descriptor import CLUSTER_PAGES
from vswapfs.core.store import Store
from vswapfs.format.message import STATES
from vswapfs.host.region import MemoryRegion, memory_file
from vswapfs.units import PAGE_BYTES

GEOMETRY = Geometry(20 * CLUSTER_PAGES, 8, 1 << 16)


@pytest.mark.parametrize("kind", ["same", "random", "words"])
def test_a_descriptor_with_any_bit_changed_is_told_as_damaged(kind: str) -> None:
    store = Store(GEOMETRY, make_buffers(GEOMETRY))
    store.store(7, make_page(random.Random(1), kind))
    right = store.words[7]
    assert describe(store, 7).state in STATES
    for bit in range(64):
        store.words[7] = right ^ 1 << bit
        (found,) = describe_range(store, 7, 8, "damaged")
        assert found.verified is False
        assert "damaged" in str(found.error)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_a_descriptor_is_it_is_told(seed: int) -> None:
    store, rng = Store(GEOMETRY, make_buffers(GEOMETRY)), random.Random(seed)
    store.store(0, make_page(rng, "random"))
    seen: Counter[str] = Counter()
    for _ in range(3000):
        store.words[0] = rng.getrandbits(64) >> rng.choice((0, 28, 40, 60))
        seen[describe(store, 0).state] += 1
    assert set(seen) <= {*STATES, "damaged"}
    assert seen["damaged"] > 1000


def test_looking_takes_no_memory() -> None:
    sizes = GEOMETRY.sizes_bytes()
    regions = {part: MemoryRegion(memory_file(part, size), size) for part, size in sizes.items()}
    store = Store(GEOMETRY, Buffers(**regions))
    store.segments.add_tier(4)
    store.store(5 * CLUSTER_PAGES, bytes(PAGE_BYTES))
    before = regions["descriptors"].resident_bytes()
    found = describe_range(store, 0, GEOMETRY.page_count, None)
    assert Counter(page.state for page in found) == {"zero": 1, "empty": GEOMETRY.page_count - 1}
    assert store.missing(0, GEOMETRY.page_count) == []
    for page in range(GEOMETRY.page_count):
        assert store.load(page) == bytes(PAGE_BYTES)
    assert regions["descriptors"].resident_bytes() == before


def test_a_successor_loads_pages_that_it_has_not_counted() -> None:
    buffers = make_buffers(GEOMETRY)
    store, page = Store(GEOMETRY, buffers), make_page(random.Random(1), "random")
    store.store(9 * CLUSTER_PAGES, page)
    successor = Store.attach(GEOMETRY, buffers)
    assert successor.load(9 * CLUSTER_PAGES) == page
    assert successor.words_of(9 * CLUSTER_PAGES - 1, 9 * CLUSTER_PAGES + 1)[1]
    assert successor.recount is not None
