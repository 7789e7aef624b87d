"""A kill at every instant: the buffers alone must give a successor every page, old or new."""

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import pytest
from regions import (
    EMPTY_PAGE,
    Model,
    attach,
    clone,
    crash_points,
    deadline,
    make_buffers,
    make_page,
    regions_of,
)

from vswapfs.core.buffers import RESERVE_SEGMENTS, Buffers, Geometry
from vswapfs.core.check import check
from vswapfs.core.segment import FREE, SLOT_SHIFT
from vswapfs.core.store import Store
from vswapfs.errors import PoolFullError
from vswapfs.format.record import HEADER_BYTES
from vswapfs.format.tier import SEGMENT_HEADER_BYTES

GEOMETRY = Geometry(page_count=520, slot_count=6, segment_bytes=1 << 14)
OVER = ("zero", "same", "text", "random")


@dataclass
class Scene:
    """A store with pages in it, which ``act`` is about to change."""

    geometry: Geometry = GEOMETRY
    rng: random.Random = field(default_factory=lambda: random.Random(7))

    def __post_init__(self) -> None:
        self.buffers = make_buffers(self.geometry)
        self.store = Store(self.geometry, self.buffers)
        self.truth: dict[int, bytes] = {}

    def put(self, page: int, kind: str) -> None:
        kind = OVER[2 + page % 2] if kind == "mixed" else kind
        data = make_page(self.rng, kind)
        self.store.store(page, data)
        self.truth[page] = data

    def discard(self, first: int, count: int = 1) -> None:
        self.store.discard(first, count)
        for page in range(first, first + count):
            self.truth.pop(page, None)

    def fill(self, kind: str) -> None:
        """Store until the pool is full."""
        with suppress(PoolFullError), deadline(2):
            for page in range(self.geometry.page_count):
                self.put(page, kind)

    def crash(self, act: Callable[[], object], after: dict[int, bytes]) -> list[Buffers]:
        """Kill at every instant of ``act``, which turns the pages into ``after``, and verify."""
        points = crash_points(self.buffers, act)
        for number, point in enumerate(points):
            with deadline(5):
                self.verify(number, point, after)
        return points

    def verify(self, number: int, point: Buffers, after: dict[int, bytes]) -> None:
        store = attach(self.geometry, point)
        assert check(store) == []
        found = {}
        for page in range(self.geometry.page_count):
            old = self.truth.get(page, EMPTY_PAGE)
            found[page] = store.load(page)
            assert found[page] in (old, after.get(page, old)), f"page {page} at instant {number}"
        model = Model(self.geometry, number, store=store, buffers=point, truth=found)
        for _ in range(8):
            model.step()
        model.verify_all()


@pytest.mark.parametrize("old", ["empty", *OVER])
@pytest.mark.parametrize("new", OVER)
def test_store_over_each_kind(old: str, new: str) -> None:
    scene = Scene()
    scene.put(4, "text")
    scene.put(5, "random")
    if old != "empty":
        scene.put(3, old)
    data = make_page(scene.rng, new)
    points = scene.crash(lambda: scene.store.store(3, data), {3: data})
    assert len(points) >= 2 + 2 * (new in ("text", "random"))


@pytest.mark.parametrize("count", [5, 512], ids=["part of a cluster", "whole cluster"])
def test_discard(count: int) -> None:
    scene = Scene()
    for page in range(9):
        scene.put(page, OVER[page % len(OVER)])
    scene.put(515, "text")
    scene.crash(lambda: scene.store.discard(0, count), dict.fromkeys(range(count), EMPTY_PAGE))


def test_pattern_whose_index_is_used_again() -> None:
    scene = Scene()
    for page in range(3):
        scene.put(page, "same")
    free = b"abcdefgh" * 512
    scene.store.store(9, free)
    scene.discard(9)
    data = b"hgfedcba" * 512
    scene.crash(lambda: scene.store.store(1, data), {1: data})


@pytest.mark.parametrize("counting", [False, True])
def test_rollover_of_a_head(counting: bool) -> None:
    """Of a head whose segment has live records, and of one whose segment is freed at once, or by
    a successor when all is counted."""
    for live in (True, False):
        scene = Scene()
        for page in range(513, 516):
            scene.put(page, "random")  # three raw records fill a segment of 16 KiB
        if counting:
            scene.store = Store.attach(scene.geometry, scene.buffers)
        if not live:
            scene.discard(513, 3)
        data = make_page(scene.rng, "random")
        scene.crash(partial(scene.store.store, 9, data), {9: data})
        assert scene.store.heads[1].position == SEGMENT_HEADER_BYTES + HEADER_BYTES + len(data)
        assert (scene.store.recount is not None) == counting


def test_last_record_of_a_segment_dies() -> None:
    scene = Scene()
    for page in range(4):
        scene.put(page, "random")
    scene.discard(0, 2)
    free = scene.store.segments.free_count
    scene.crash(lambda: scene.store.discard(2, 1), {2: EMPTY_PAGE})
    assert scene.store.segments.free_count == free + 1


def test_killed_free_gives_the_memory_back() -> None:
    """A free segment takes no memory, also if the kill came between its home and its memory."""
    scene = Scene()
    for page in range(4):
        scene.put(page, "random")
    for point in crash_points(scene.buffers, lambda: scene.store.discard(0, 3)):
        store = attach(scene.geometry, point)
        store.segments.ram.cool()
        homes = [store.segments.homes[n] for n in range(GEOMETRY.slot_count)]
        slots = {home >> SLOT_SHIFT for home in homes if home & 3 != FREE}
        pool = regions_of(point)["pool"].data
        for slot in set(range(GEOMETRY.slot_count)) - slots:
            base = slot * GEOMETRY.segment_bytes
            assert not any(pool[base : base + GEOMETRY.segment_bytes]), f"slot {slot}"


def at_the_limit(segment_bytes: int, kill: int) -> Scene:
    """A full pool in which ``kill`` records of the first segment are dead."""
    scene = Scene(Geometry(page_count=160, slot_count=5, segment_bytes=segment_bytes))
    scene.fill("mixed")
    assert scene.store.segments.free_count == RESERVE_SEGMENTS
    scene.discard(0, kill)
    return scene


@pytest.mark.parametrize("segment_bytes", [1 << 14, 1 << 15])
def test_cleaning_at_the_limit(segment_bytes: int) -> None:
    scene = at_the_limit(segment_bytes, kill=5)
    before = scene.store.segments.free_count
    points = scene.crash(scene.store.cleaner.run_victim, {})
    assert scene.store.cleaner.cleaned_total == 1
    assert scene.store.segments.free_count == before
    # The instants at which the reserve is in use must be among them.
    assert any(attach(scene.geometry, clone(p)).segments.free_count == 0 for p in points)


def test_cleaning_below_the_limit() -> None:
    scene = Scene()
    for page in range(7):
        scene.put(page, "random")
    scene.put(8, "text")
    scene.discard(1)
    scene.discard(5)
    scene.crash(scene.store.cleaner.run_victim, {})
    assert scene.store.cleaner.moved_pages_total > 0


def test_recompressing() -> None:
    scene = Scene(Geometry(page_count=300, slot_count=6, segment_bytes=1 << 14))
    scene.fill("words")
    for page in range(0, 100, 5):
        scene.discard(page)
    cleaner = scene.store.cleaner
    cleaner.recompress(sealed_before_s=0)
    assert cleaner.recompressing
    scene.crash(lambda: scene.store.clean(1 << 30, idle=True), {})
    assert cleaner.recompression_saved_bytes_total > 0


def test_store_that_has_to_clean_first() -> None:
    scene = Scene(Geometry(page_count=300, slot_count=5, segment_bytes=1 << 14))
    scene.fill("text")
    for page in range(0, 100, 2):
        scene.discard(page)
    page = max(scene.truth) + 1
    while scene.store.heads[0].room_bytes > 1200:
        scene.put(page, "text")
        page += 1
    data = (scene.rng.randbytes(1200) * 4)[:4096]
    scene.crash(lambda: scene.store.store(page, data), {page: data})
    assert scene.store.cleaner.cleaned_total > 0


def test_attach_itself_is_killed() -> None:
    scene = at_the_limit(1 << 14, kill=5)
    points = crash_points(scene.buffers, scene.store.cleaner.run_victim)
    for first in points[:: max(1, len(points) // 12)]:
        again = crash_points(first, partial(attach, scene.geometry, first))
        for point in again:
            with deadline(5):
                scene.verify(0, point, {})


@pytest.mark.parametrize("kills", [1, 2, 6])
@pytest.mark.parametrize("segment_bytes", [1 << 14, 1 << 17])
def test_kills_while_cleaning_at_the_limit_leave_the_reserve_whole(
    segment_bytes: int, kills: int
) -> None:
    """Each successor is killed while it copies a record; the last one must still get through:
    a victim that was begun can always be finished, and after it the reserve is whole again."""
    geometry = Geometry(page_count=512, slot_count=3, segment_bytes=segment_bytes)
    scene = Scene(geometry)
    scene.fill("random")
    # The fullest victim that the policy takes.
    raw = segment_bytes // 4110
    scene.discard(0, raw - int(0.95 * segment_bytes) // 4110 or 1)
    buffers = scene.buffers
    for _ in range(kills):
        points = crash_points(buffers, attach(geometry, buffers).cleaner.run_victim)
        begun = survivor_word(points[0])
        reserved = (p for p in points if survivor_word(p) != begun and survivor_word(p) & LAST_MASK)
        buffers = next(reserved, points[-1])
    store = attach(geometry, buffers)
    with deadline(5):
        for _ in range(10):
            if not store.cleaner.run_victim():
                break
    assert store.segments.free_count >= RESERVE_SEGMENTS
    assert all(store.load(page) == data for page, data in scene.truth.items())


LAST_MASK = 0x1FFF << 1  # in a HEAD word: the length of the last reservation


def survivor_word(point: Buffers) -> int:
    return int(regions_of(point)["heads"].view.cast("Q")[2])
