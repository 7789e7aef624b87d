"""What is decoded ahead is given out only as long as it is what a load would return."""

import random
from typing import cast

import pytest
from regions import make_buffers, make_page

from vswapfs.core.buffers import Geometry
from vswapfs.core.descriptor import CLUSTER_PAGES
from vswapfs.core.store import Store
from vswapfs.fuse.ahead import GAP_PAGES_MAX, PAGES_AHEAD, DecodedAhead

GEOMETRY = Geometry(400, 24, 1 << 14, 0)


@pytest.fixture
def pages() -> list[bytes]:
    rng = random.Random(5)
    return [make_page(rng, "text") for _ in range(100)]


@pytest.fixture
def store(pages: list[bytes]) -> Store:
    store = Store(GEOMETRY, make_buffers(GEOMETRY))
    for number, data in enumerate(pages):
        store.store(number, data)
    return store


@pytest.fixture
def ahead(store: Store) -> DecodedAhead:
    """After two neighbouring reads of 8 pages."""
    ahead = DecodedAhead(store)
    ahead.was_read(0, 8)
    assert not ahead.step(), "one read is no sequence"
    ahead.was_read(8, 16)
    return ahead


def decode_all(ahead: DecodedAhead) -> int:
    count = 0
    while ahead.step():
        count += 1
    return count


def test_the_next_pages_are_ready(ahead: DecodedAhead, store: Store, pages: list[bytes]) -> None:
    assert decode_all(ahead) == PAGES_AHEAD
    assert store.loaded_total == 0, "nobody has asked for them yet"
    assert [ahead.take(page) for page in range(16, 24)] == pages[16:24]
    assert store.loaded_total == 8
    assert ahead.take(24) is None


def test_what_is_ready_is_kept_as_the_reader_goes_on(
    ahead: DecodedAhead, pages: list[bytes]
) -> None:
    decode_all(ahead)
    ahead.was_read(17, 20)  # page 16 was left out
    assert decode_all(ahead) == 4
    assert ahead.take(19) is None
    assert [ahead.take(page) for page in range(20, 28)] == pages[20:28]


def test_random_reads_are_not_followed(ahead: DecodedAhead) -> None:
    for first, stop in ((50, 58), (20, 28), (28 + GAP_PAGES_MAX + 1, 60), (5, 6)):
        ahead.was_read(first, stop)
        assert decode_all(ahead) == 0


def test_a_page_that_was_stored_or_discarded_meanwhile_is_not_given_out(
    ahead: DecodedAhead, store: Store, pages: list[bytes]
) -> None:
    decode_all(ahead)
    store.store(16, pages[0])
    store.discard(17, 1)
    assert ahead.take(16) is None
    assert ahead.take(17) is None
    assert ahead.take(18) == pages[18]


def test_a_page_whose_segment_is_another_one_now_is_not_given_out(
    ahead: DecodedAhead, store: Store, pages: list[bytes]
) -> None:
    decode_all(ahead)
    # The same number, place and length: only the sequence tells that the segment is a new one.
    for segment in range(store.segments.count):
        store.segments._sequences[segment] += 1 << 8
    assert ahead.take(16) is None


def test_a_damaged_page_is_left_to_the_load(ahead: DecodedAhead, store: Store) -> None:
    word = store.words[18]
    store.words[18] = word ^ 1 << 20
    decode_all(ahead)
    assert ahead.take(17) is not None
    assert ahead.take(18) is None
    assert ahead.take(19) is None
    assert store.checksum_errors == 0


def test_the_end_of_the_area_is_the_end(store: Store) -> None:
    ahead = DecodedAhead(store)
    ahead.was_read(GEOMETRY.page_count - 16, GEOMETRY.page_count - 4)
    ahead.was_read(GEOMETRY.page_count - 4, GEOMETRY.page_count)
    assert decode_all(ahead) == 0


def test_descriptors_that_may_have_no_memory_are_not_looked_at() -> None:
    geometry = Geometry(2 * CLUSTER_PAGES, 24, 1 << 14, 0)
    store = Store(geometry, make_buffers(geometry))
    first = CLUSTER_PAGES - 4  # to the end of the cluster
    for page in range(first, CLUSTER_PAGES):
        store.store(page, make_page(random.Random(page), "text"))
    ahead = DecodedAhead(store)
    ahead.was_read(first, first + 1)
    ahead.was_read(first + 1, first + 2)
    looked = LookedAt(store.words)
    store.words = cast("memoryview", looked)
    assert decode_all(ahead) == 2
    assert max(looked.pages) == CLUSTER_PAGES - 1


class LookedAt:
    def __init__(self, words: memoryview) -> None:
        self._words = words
        self.pages: list[int] = []

    def __getitem__(self, page: int) -> int:
        self.pages.append(page)
        return int(self._words[page])
