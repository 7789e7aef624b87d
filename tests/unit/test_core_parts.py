"""The parts of the core one by one: descriptor, fill patterns, codec, segment table, log head."""

import random
from itertools import product

import pytest
from regions import BytesRegion, make_buffers

from vswapfs.core import descriptor
from vswapfs.core.buffers import PATTERN_COUNT_MAX, Geometry
from vswapfs.core.check import check
from vswapfs.core.figures import figures
from vswapfs.core.loghead import COMPRESSED, INCOMPRESSIBLE, LogHead
from vswapfs.core.samefill import ZERO, FillPatterns, pattern_of
from vswapfs.core.segment import FREE, OPEN, SEALED, SegmentTable
from vswapfs.core.store import SameFilled, Store
from vswapfs.errors import PoolFullError, UsageError
from vswapfs.format.codec import INCOMPRESSIBLE_BYTES, DecodeError, checksum, decode, encode
from vswapfs.format.record import (
    CODEC_LZ4,
    CODEC_RAW,
    HEADER_BYTES,
    PAGE_NONE,
    RECORD_MAX_BYTES,
)

# -- geometry --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 4096, 8191, 8193, 12288, 1 << 21])
def test_segment_size_is_refused(size: int) -> None:
    with pytest.raises(UsageError):
        Geometry(1, 2, size)


@pytest.mark.parametrize(("pages", "slots"), [(0, 2), (PAGE_NONE, 2), (-1, 2), (1, 1), (1, 0)])
def test_geometry_is_refused(pages: int, slots: int) -> None:
    with pytest.raises(UsageError):
        Geometry(pages, slots)


@pytest.mark.parametrize("pages", [1, 511, 512, 513, PAGE_NONE - 1])
def test_buffers_are_whole_pages_and_hold_every_page(pages: int) -> None:
    sizes = Geometry(pages, 257, 1 << 13).sizes_bytes()
    assert all(size % 4096 == 0 for size in sizes.values())
    assert sizes["descriptors"] >= 8 * pages
    assert sizes["segments"] >= 16 * 257


# -- descriptor ------------------------------------------------------------------------------


def test_stored_descriptor_keeps_all_extremes() -> None:
    segments = (0, 1, descriptor.SEGMENT_MAX_COUNT - 1)
    offsets = (0, 1, descriptor.SEGMENT_MAX_BYTES - 1)
    assert (segments[-1], offsets[-1]) == (2**28 - 1, 2**20 - 1)
    words = set()
    for place in product(segments, offsets, (HEADER_BYTES + 1, RECORD_MAX_BYTES)):
        word = descriptor.stored(*place)
        assert 0 < word < 1 << 64
        assert word & descriptor.KIND_MASK == descriptor.STORED
        assert descriptor.place(word) == place
        assert descriptor.parity_holds(word)
        assert not descriptor.parity_holds(word ^ 1 << 40)
        words.add(word)
    assert len(words) == 18


@pytest.mark.parametrize("index", [0, 1, PATTERN_COUNT_MAX - 1, 2**61 - 1])
def test_filled_descriptor(index: int) -> None:
    word = descriptor.filled(index)
    assert 0 < word < 1 << 64
    assert word & descriptor.KIND_MASK == descriptor.FILLED
    assert word >> descriptor.INDEX_SHIFT == index


# -- fill patterns ---------------------------------------------------------------------------


def pattern(number: int) -> bytes:
    return number.to_bytes(8, "little")


def patterns() -> FillPatterns:
    return FillPatterns(BytesRegion(PATTERN_COUNT_MAX * 8).view)


@pytest.mark.parametrize("at", [0, 7, 8, 9, 2048, 4087, 4088, 4095])
def test_one_other_byte_is_not_same_filled(at: int) -> None:
    page = bytearray(b"12345678" * 512)
    assert pattern_of(bytes(page)) == b"12345678"
    page[at] ^= 1
    assert pattern_of(bytes(page)) is None


def test_pattern_of_another_period_is_not_same_filled() -> None:
    assert pattern_of(b"0123456789abcdef" * 256) is None
    assert pattern_of(b"ab" * 2048) == b"abababab"


def test_patterns_count_their_pages() -> None:
    table = patterns()
    assert table.acquire(pattern(0)) == ZERO
    first = table.acquire(pattern(7))
    second = table.acquire(pattern(2**64 - 1))
    assert first is not None
    assert second is not None
    assert len({ZERO, first, second}) == 3
    assert table.acquire(pattern(7)) == first
    assert (table.pages(first), table.pages(ZERO), table.page_count) == (2, 1, 4)
    assert table.distinct_count == 2
    assert table.page(second) == b"\xff" * 4096
    table.drop(first)
    assert table.acquire(pattern(7)) == first
    table.drop(first)
    table.drop(first)
    table.drop(ZERO)
    assert (table.distinct_count, table.page_count) == (1, 1)
    assert table.acquire(pattern(9)) == first, "the free index is used again"
    assert table.page(first) == pattern(9) * 512
    assert table.page(second) == b"\xff" * 4096


def test_pattern_table_is_full() -> None:
    table = patterns()
    indexes = [table.acquire(pattern(number)) for number in range(1, PATTERN_COUNT_MAX)]
    assert sorted(index or 0 for index in indexes) == list(range(1, PATTERN_COUNT_MAX))
    assert table.acquire(pattern(PATTERN_COUNT_MAX)) is None
    assert table.acquire(pattern(1)) == indexes[0], "a pattern in the table still finds its place"
    assert table.acquire(pattern(0)) == ZERO
    assert table.page_count == PATTERN_COUNT_MAX + 1


def test_patterns_recount_after_a_kill_between_entry_and_descriptor() -> None:
    region = BytesRegion(PATTERN_COUNT_MAX * 8)
    table = FillPatterns(region.view)
    first, second = table.acquire(pattern(5)), table.acquire(pattern(6))
    assert (first, second) == (1, 2)
    successor = FillPatterns(region.view)
    successor.begin_recount()
    for _ in range(3):
        successor.count(1)  # nothing refers to 6
    assert successor.acquire(pattern(7)) == 3, "not free before all are counted"
    successor.drop(3)
    successor.end_recount()
    assert successor.acquire(pattern(5)) == 1
    assert successor.pages(1) == 4
    assert successor.acquire(pattern(8)) == 2
    assert successor.used_count == 4


def test_store_falls_back_when_the_pattern_table_is_full() -> None:
    geometry = Geometry(PATTERN_COUNT_MAX + 8, 4, 1 << 14)
    store = Store(geometry, make_buffers(geometry))
    for number in range(1, PATTERN_COUNT_MAX + 1):
        store.store(number, pattern(number) * 512)
    stats = figures(store)
    assert stats["refusals.patterns_full"] == stats["pages.pool"] == 1
    assert stats["pages.same"] == stats["pool.patterns"] == PATTERN_COUNT_MAX - 1
    assert store.load(PATTERN_COUNT_MAX) == pattern(PATTERN_COUNT_MAX) * 512
    store.discard(17, 1)
    store.store(PATTERN_COUNT_MAX, pattern(PATTERN_COUNT_MAX) * 512)
    assert figures(store)["pages.pool"] == 0
    assert check(store) == []


@pytest.mark.parametrize(
    ("scope", "kinds"),
    [
        (SameFilled.SAME, (1, 1, 0)),
        (SameFilled.ZERO, (1, 0, 1)),
        (SameFilled.OFF, (0, 0, 2)),
    ],
)
def test_same_filled_scope(scope: SameFilled, kinds: tuple[int, int, int]) -> None:
    geometry = Geometry(16, 4, 1 << 14)
    store = Store(geometry, make_buffers(geometry), scope)
    store.store(0, bytes(4096))
    store.store(1, b"\x01" * 4096)
    stats = figures(store)
    assert (stats["pages.zero"], stats["pages.same"], stats["pages.pool"]) == kinds
    assert (store.load(0), store.load(1)) == (bytes(4096), b"\x01" * 4096)
    assert stats["refusals.patterns_full"] == 0


# -- codec -----------------------------------------------------------------------------------


def page_of_noise(count: int) -> bytes:
    return random.Random(1).randbytes(4096)[:count] + bytes(4096 - count)


def test_codec_changes_exactly_at_the_limit() -> None:
    lengths = {}
    for count in range(INCOMPRESSIBLE_BYTES - 100, INCOMPRESSIBLE_BYTES + 20):
        page = page_of_noise(count)
        codec, payload = encode(page)
        assert decode(codec, memoryview(payload)) == page
        lengths[len(payload)] = codec
    assert lengths[INCOMPRESSIBLE_BYTES - 1] == CODEC_LZ4
    assert lengths[4096] == CODEC_RAW
    assert not [n for n in lengths if INCOMPRESSIBLE_BYTES <= n < 4096]


def test_codec_of_the_smallest_payload() -> None:
    codec, payload = encode(bytes(4096))
    assert codec == CODEC_LZ4
    assert 1 <= len(payload) < 40
    assert decode(codec, memoryview(payload)) == bytes(4096)


def decoded_or_none(codec: int, payload: bytes) -> bytes | None:
    try:
        return decode(codec, memoryview(payload))
    except DecodeError:
        return None


@pytest.mark.parametrize("codec", range(16))
def test_decode_of_random_bytes(codec: int) -> None:
    rng = random.Random(codec)
    for length in [*range(20), *(rng.randrange(20, 4200) for _ in range(2000)), 4095, 4096, 4097]:
        found = decoded_or_none(codec, rng.randbytes(length))
        assert found is None or len(found) == 4096
        assert found is None or codec in (CODEC_LZ4, CODEC_RAW)


@pytest.mark.parametrize("count", [3, 500, 3000])
def test_decode_of_a_damaged_payload(count: int) -> None:
    page = page_of_noise(count)
    _codec, payload = encode(page)
    expected = checksum(page)
    for bit in range(8 * len(payload)):
        damaged = bytearray(payload)
        damaged[bit // 8] ^= 1 << bit % 8
        found = decoded_or_none(CODEC_LZ4, bytes(damaged))
        if found is not None:
            assert len(found) == 4096
            assert found == page or checksum(found) != expected
    for length in range(len(payload)):
        found = decoded_or_none(CODEC_LZ4, payload[:length])
        assert found is None or len(found) == 4096
    # A payload that would become more or less than a page.
    for other in (page[:-1], page + b"\0"):
        assert decoded_or_none(CODEC_LZ4, encode(other)[1]) is None
    assert decoded_or_none(0, payload) is None


# -- segment table and log head --------------------------------------------------------------

GEOMETRY = Geometry(64, 4, 1 << 14)


def make_table() -> tuple[SegmentTable, BytesRegion, BytesRegion]:
    sizes = GEOMETRY.sizes_bytes()
    region, pool = BytesRegion(sizes["segments"]), BytesRegion(sizes["pool"])
    return SegmentTable(region.view, pool, GEOMETRY), region, pool


def test_segments_are_given_out_down_to_the_reserve() -> None:
    table, _region, _pool = make_table()
    opened = [table.open(0, reserve=False) for _ in range(3)]
    with pytest.raises(PoolFullError):
        table.open(0, reserve=False)
    assert table.free_count == 1
    opened.append(table.open(2, reserve=True))
    with pytest.raises(PoolFullError):
        table.open(2, reserve=True)
    assert sorted(opened) == [0, 1, 2, 3]
    assert sorted(table.base(n) for n in opened) == [n << 14 for n in range(4)]
    assert [table.sequence(n) for n in opened] == [1, 2, 3, 4]


def test_segment_lives_and_is_freed() -> None:
    table, region, pool = make_table()
    segment = table.open(0, reserve=False)
    pool.data[:9000] = b"x" * 9000
    table.live_bytes[segment] += 5000
    table.live_pages[segment] += 1
    table.live_bytes[segment] += 4000
    table.live_pages[segment] += 1
    assert not table.drop_live(segment, 4000)
    table.seal(segment, 9000)
    assert (table.state(segment), table.fill_bytes(segment)) == (SEALED, 9000)
    assert (table.sealed_live_bytes, table.sealed_resident_bytes) == (5000, 12288)
    successor = SegmentTable(region.view, pool, GEOMETRY)
    assert successor.free_count == 3
    assert successor.next_sequence == 2
    assert table.drop_live(segment, 5000)
    assert table.state(segment) == FREE
    assert (table.sealed_live_bytes, table.sealed_resident_bytes) == (0, 0)
    assert table.free_count == 4
    table.ram.cool()
    assert not any(pool.data)
    assert table.open(1, reserve=False) >= 0


def test_a_slot_that_the_count_frees_is_warm_and_has_its_memory() -> None:
    table, region, pool = make_table()
    segment = table.open(0, reserve=False)
    table.live_bytes[segment] = 9000
    table.seal(segment, 9000)
    pool.data[:] = b"x" * len(pool.data)
    successor = SegmentTable(region.view, pool, GEOMETRY)
    successor.adopt(set(), 0)
    successor.counted()  # of what was in it nothing lives
    assert successor.ram.warm_count == 1
    assert pool.data.count(b"x") == 1 << 14


def test_open_segment_with_no_live_byte_stays_and_is_freed_when_sealed() -> None:
    table, _region, _pool = make_table()
    segment = table.open(0, reserve=False)
    table.live_bytes[segment] += 100
    table.live_pages[segment] += 1
    assert not table.drop_live(segment, 100)
    assert table.state(segment) == OPEN
    table.seal(segment, 1 << 14)
    assert table.state(segment) == FREE
    assert table.free_count == 4


def test_head_bumps_to_the_last_byte() -> None:
    table, _region, _pool = make_table()
    words = BytesRegion(4096).view.cast("Q")
    head = LogHead(INCOMPRESSIBLE, words, table, 1 << 14)
    assert (head.segment, head.reserve(1), head.room_bytes) == (-1, -1, 0)
    head.open(reserve=False)
    assert [head.reserve(n) for n in (4110, 4110, 4110)] == [64, 4174, 8284]
    left = (1 << 14) - 64 - 3 * 4110
    assert head.reserve(left + 1) == -1
    assert head.reserve(left) == 64 + 3 * 4110
    assert head.room_bytes == 0
    successor = LogHead(INCOMPRESSIBLE, words, table, 1 << 14)
    assert (successor.segment, successor.position) == (head.segment, 1 << 14)
    assert LogHead(COMPRESSED, words, table, 1 << 14).segment == -1


def test_head_of_the_largest_segment_keeps_its_position() -> None:
    geometry = Geometry(64, 2, 1 << 20)
    sizes = geometry.sizes_bytes()
    table = SegmentTable(BytesRegion(sizes["segments"]).view, BytesRegion(sizes["pool"]), geometry)
    words = BytesRegion(4096).view.cast("Q")
    head = LogHead(0, words, table, 1 << 20)
    head.open(reserve=False)
    head.position = (1 << 20) - RECORD_MAX_BYTES
    assert head.reserve(RECORD_MAX_BYTES) == (1 << 20) - RECORD_MAX_BYTES
    successor = LogHead(0, words, table, 1 << 20)
    assert successor.position == 1 << 20
    # What lies there is not a page's record.
    successor.take_back_unfinished(words[:64], 64, memoryview(bytearray(sizes["pool"])))
    assert successor.position == (1 << 20) - RECORD_MAX_BYTES
    table.live_bytes[head.segment] += 1
    table.live_pages[head.segment] += 1
    segment = head.segment
    head.close()
    assert table.fill_bytes(segment) == 1 << 20


def test_head_that_was_killed_while_closing_is_closed() -> None:
    table, region, pool = make_table()
    words = BytesRegion(4096).view.cast("Q")
    head = LogHead(0, words, table, 1 << 14)
    head.open(reserve=False)
    head.reserve(100)
    table.live_bytes[head.segment] += 100
    table.live_pages[head.segment] += 1
    table.seal(head.segment, head.position)  # and not a step further
    successor = LogHead(0, words, SegmentTable(region.view, pool, GEOMETRY), 1 << 14)
    assert successor.segment == -1
    assert words[0] == 0
