"""Bits that flip in memory: the right bytes or LostPageError, and never a second page lost."""

import random

import pytest
from regions import EMPTY_PAGE, attach, clone, deadline, make_buffers, make_page

from vswapfs.core import descriptor
from vswapfs.core.buffers import Buffers, Geometry
from vswapfs.core.check import check
from vswapfs.core.loghead import COMPRESSED
from vswapfs.core.store import Store
from vswapfs.errors import LostPageError
from vswapfs.format.codec import encode
from vswapfs.format.record import CODEC_LZ4, HEADER_BYTES
from vswapfs.format.tier import SEGMENT_HEADER_BYTES

GEOMETRY = Geometry(page_count=64, slot_count=8, segment_bytes=1 << 14)
PAGE = 3
FILLED_PAGES = range(40, 45)  # patterns 2 to 6, if page 3 has pattern 1


def make_store(kind: str) -> tuple[Store, Buffers, dict[int, bytes]]:
    """Three sealed segments and three heads with pages, and page 3 of that kind among them."""
    rng = random.Random(11)
    buffers = make_buffers(GEOMETRY)
    store = Store(GEOMETRY, buffers)
    pages = {page: make_page(rng, "random") for page in range(20, 29)}
    pages |= {page: make_page(rng, "text") for page in range(30, 38)}
    pages |= {page: bytes([page]) * 4096 for page in FILLED_PAGES}
    if kind != "empty":
        pages[PAGE] = make_page(rng, kind)
    for page in sorted(pages):
        store.store(page, pages[page])
    return store, buffers, pages


def flip(buffer: memoryview, bit: int) -> None:
    buffer[bit // 8] ^= 1 << bit % 8


def load_or_none(store: Store, page: int) -> bytes | None:
    try:
        return store.load(page)
    except LostPageError:
        return None


def others_load(store: Store, pages: dict[int, bytes]) -> None:
    for page, data in pages.items():
        if page != PAGE:
            assert store.load(page) == data, f"page {page}"


@pytest.mark.parametrize("kind", ["text", "tight", "random"])
def test_every_bit_of_a_record(kind: str) -> None:
    store, _buffers, pages = make_store(kind)
    segment, offset, length = descriptor.place(store.words[PAGE])
    at = store.segments.base(segment) + offset
    record = store.pool[at : at + length]
    lost = 0
    for bit in range(8 * length):
        flip(record, bit)
        found = load_or_none(store, PAGE)
        assert found in (None, pages[PAGE]), f"bit {bit}"
        lost += found is None
        flip(record, bit)
    assert lost == store.checksum_errors > 8 * length * 0.9
    assert store.load(PAGE) == pages[PAGE]


KINDS = ["empty", "same", "text", "random"]


@pytest.mark.parametrize("kind", KINDS)
def test_load_with_each_bit_of_the_descriptor_flipped(kind: str) -> None:
    """Wrong bytes are possible by design only where the word is that of another page in use: a
    pattern that exists (one bit makes pattern 1 of it 0, 3 or 5)."""
    store, _buffers, pages = make_store(kind)
    word = store.words[PAGE]
    by_design = {EMPTY_PAGE, *(pages[page] for page in FILLED_PAGES)} if kind == "same" else set()
    wrong = []
    for bit in range(64):
        store.words[PAGE] = word ^ 1 << bit
        try:
            found = store.load(PAGE)
        except LostPageError:
            continue
        except Exception as error:
            wrong.append(f"bit {bit}: {error!r}")
            continue
        if found != pages.get(PAGE, EMPTY_PAGE) and found not in by_design:
            wrong.append(f"bit {bit}: wrong bytes")
    assert wrong == []


def test_descriptor_flipped_to_an_older_record_of_the_same_page() -> None:
    """Dead records keep page and checksum; a descriptor must not lead back to one of them."""
    store = Store(GEOMETRY, make_buffers(GEOMETRY))
    old, new = page_with_record_of(64, seed=1), page_with_record_of(64, seed=2)
    store.store(PAGE, old)
    first = descriptor.place(store.words[PAGE])
    store.store(PAGE + 1, new)
    store.store(PAGE, new)
    assert load_or_none(store, PAGE) == new
    store.words[PAGE] ^= 128 << descriptor.OFFSET_SHIFT  # from 192 to 64
    assert descriptor.place(store.words[PAGE]) == first
    assert load_or_none(store, PAGE) is None


@pytest.mark.parametrize("verb", ["store", "store filled", "discard", "attach"])
@pytest.mark.parametrize("kind", KINDS)
def test_verbs_with_each_bit_of_the_descriptor_flipped(verb: str, kind: str) -> None:
    """No other exception than LostPageError, and no other page is harmed."""
    wrong = []
    for bit in range(64):
        store, buffers, pages = make_store(kind)
        store.words[PAGE] ^= 1 << bit
        assert check(store) != []
        try:
            if verb == "store":
                store.store(PAGE, b"x" * 4095 + b"y")
                assert store.load(PAGE) == b"x" * 4095 + b"y"
            elif verb == "store filled":
                store.store(PAGE, b"z" * 4096)
                assert store.load(PAGE) == b"z" * 4096
            elif verb == "discard":
                store.discard(0, 10)
                assert store.load(PAGE) == EMPTY_PAGE
            else:
                store = attach(GEOMETRY, clone(buffers))
                load_or_none(store, PAGE)
            others_load(store, pages)
        except Exception as error:
            wrong.append(f"bit {bit}: {error!r}")
    assert wrong == []


def test_damaged_descriptor_costs_no_other_page() -> None:
    """What a damaged word says of its segment must not be taken from another segment's live
    bytes: it would be freed with a live record in it."""
    store = Store(GEOMETRY, make_buffers(GEOMETRY))
    pages = {page: make_page(random.Random(page), "random") for page in range(12)}
    for page, data in pages.items():
        store.store(page, data)  # three raw records a segment: page 3 is in the second
    assert descriptor.place(store.words[PAGE]).segment == 1
    store.words[PAGE] ^= 1 << descriptor.SEGMENT_SHIFT  # now in the first, with pages 0, 1 and 2
    with pytest.raises(LostPageError):
        store.load(PAGE)
    store.store(PAGE, pages[PAGE])
    store.discard(0, 2)
    assert store.load(2) == pages[2]


HEADER_BITS = [*range(8 * 8, 8 * HEADER_BYTES)]


@pytest.mark.parametrize("attached", [False, True])
def test_cleaner_meets_a_damaged_header(attached: bool) -> None:
    """Page and tag: check reports the damage, the cleaner ends, all other pages still load."""
    for bit in HEADER_BITS:
        buffers = make_buffers(GEOMETRY)
        store = Store(GEOMETRY, buffers)
        rng = random.Random(bit)
        pages = {page: make_page(rng, "text") for page in range(60)}
        for page, data in pages.items():
            store.store(page, data)
        segment, offset, _length = descriptor.place(store.words[PAGE])
        base = store.segments.base(segment)
        flip(store.pool[base + offset : base + offset + HEADER_BYTES], bit)
        if attached:
            store = attach(GEOMETRY, buffers)
        assert check(store) != [], f"bit {bit}"
        store.discard(4, 2)
        for page in (4, 5):
            del pages[page]
        with deadline(2):
            while store.clean(100):
                pass
        others_load(store, pages)
        assert load_or_none(store, PAGE) in (None, pages[PAGE])
        assert check(store) != [], f"bit {bit}"
        # The page can be stored again, and then nothing of the damage is left.
        store.store(PAGE, pages[PAGE])
        store.discard(0, 60)
        assert check(store) == [], f"bit {bit}"


def page_with_record_of(length_bytes: int, seed: int) -> bytes:
    """A page whose LZ4 record has exactly that length."""
    noise = random.Random(seed).randbytes(4096)
    for count in range(max(1, length_bytes - 60), length_bytes):
        page = noise[:count] + bytes(4096 - count)
        codec, payload = encode(page)
        if codec == CODEC_LZ4 and len(payload) + HEADER_BYTES == length_bytes:
            return page
    raise AssertionError(length_bytes)


def test_damaged_length_at_the_very_end_of_the_pool() -> None:
    """The walk then stands less than a header before the end of the last slot."""
    geometry = Geometry(page_count=64, slot_count=4, segment_bytes=1 << 13)
    store = Store(geometry, make_buffers(geometry))
    store.segments.ram._cold.reverse()  # the last slot comes first
    lengths = [2700, 2636, 2792]  # 8128; the last one's tag is 2792 - 15 = 0b101011011001
    assert SEGMENT_HEADER_BYTES + sum(lengths) == geometry.segment_bytes
    pages = {page: page_with_record_of(length, page) for page, length in enumerate(lengths)}
    for page, data in pages.items():
        store.store(page, data)
    head = store.heads[COMPRESSED]
    assert head.room_bytes == 0
    assert head.base + geometry.segment_bytes == len(store.pool)
    store.store(10, pages[1])  # seals it
    at = descriptor.place(store.words[2]).offset_bytes
    base = len(store.pool) - geometry.segment_bytes
    flip(store.pool[base + at + 12 : base + at + HEADER_BYTES], 3)  # 8 bytes shorter
    store.discard(0, 1)
    assert check(store) != []
    with deadline(2):
        while store.clean(100):
            pass
    assert store.load(1) == pages[1]
    assert load_or_none(store, 2) in (None, pages[2])


def test_damaged_victim_at_the_limit_leaves_the_reserve_whole() -> None:
    """The victim is begun with the reserve, and then cannot be finished."""
    geometry = Geometry(page_count=128, slot_count=5, segment_bytes=1 << 15)
    store = Store(geometry, make_buffers(geometry))
    rng = random.Random(5)
    pages = {page: make_page(rng, "random") for page in range(28)}  # seven a segment
    for page, data in pages.items():
        store.store(page, data)
    assert store.segments.free_count == 1
    for page in (3, 10, 11, 17, 18):
        store.discard(page, 1)
        del pages[page]
    victim = descriptor.place(store.words[7]).segment
    at = store.segments.base(victim) + descriptor.place(store.words[12]).offset_bytes
    flip(store.pool[at : at + HEADER_BYTES], 8 * 12 + 5)
    with deadline(2):
        for _ in range(6):
            if not store.cleaner.run_victim():
                break
    for page, data in pages.items():
        if page != 12:
            assert store.load(page) == data
    assert store.segments.free_count >= 1
