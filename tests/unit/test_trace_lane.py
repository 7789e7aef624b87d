"""The tracer over a store: what it notes, how it is bounded, and that it leaves nothing behind."""

import random
from typing import cast

import pytest
from regions import make_buffers, make_page

from vswapfs.core.buffers import Geometry
from vswapfs.core.store import Store
from vswapfs.errors import PoolFullError
from vswapfs.format.trace import EVENTS
from vswapfs.fuse import wire
from vswapfs.fuse.lane import Lane
from vswapfs.fuse.trace import EVENTS_MAX, Tracer

PAGE = 4096
AREA = 512 * PAGE


class Serving:
    """As much of a lane as is traced."""

    def __init__(self) -> None:
        self.rng = random.Random(1)
        geometry = Geometry(512, 24, 1 << 20, 1 << 10)
        self.store = Store(geometry, make_buffers(geometry))
        self._request = bytearray(wire.IN_HEADER_BYTES + wire.FALLOCATE_IN.size)
        self.kinds = ["text"]

    def _read(self, unique: int, offset: int, size: int) -> None:
        for page in range(offset // PAGE, (offset + size) // PAGE):
            self.store.load(page)

    def _write(self, unique: int, offset: int, size: int) -> None:
        if not self.kinds:
            raise PoolFullError("no room")
        data = b"".join(
            make_page(self.rng, self.kinds[number % len(self.kinds)])
            for number in range(size // PAGE)
        )
        self.store.store(offset // PAGE, data)

    def _fallocate(self, unique: int) -> None:
        _, offset, size, _ = wire.FALLOCATE_IN.unpack_from(self._request, wire.IN_HEADER_BYTES)
        self.store.discard(offset // PAGE, size // PAGE)

    def discard(self, offset: int, size: int) -> None:
        wire.FALLOCATE_IN.pack_into(self._request, wire.IN_HEADER_BYTES, 0, offset, size, 0)
        self._fallocate(1)


def trace(lane: Serving, *events: str, start: int = 0, end: int = AREA) -> Tracer:
    return Tracer(cast("Lane", lane), events or EVENTS, start, end)


def test_requests_and_the_states_of_their_pages() -> None:
    lane = Serving()
    tracer = trace(lane)
    lane.kinds = ["zero", "text", "random", "same"]
    lane._write(1, 8 * PAGE, 8 * PAGE)
    lane._read(2, 8 * PAGE, PAGE)
    lane.discard(8 * PAGE, 4 * PAGE)
    stored, loaded, discarded = tracer.take().events
    assert (stored.event, stored.offset, stored.pages) == ("store", 8 * PAGE, 8)
    assert stored.states == {"zero": 2, "pool": 4, "same": 2}
    assert (loaded.event, loaded.states) == ("load", {"zero": 1})
    assert (discarded.event, discarded.pages) == ("discard", 4)
    assert 0 < stored.at_s <= loaded.at_s
    assert stored.us > 0
    assert tracer.take().events == []


def test_a_refused_store_is_noted_and_still_refused() -> None:
    lane = Serving()
    tracer = trace(lane)
    lane.kinds = []
    with pytest.raises(PoolFullError):
        lane._write(1, 0, PAGE)
    (event,) = tracer.take().events
    assert event.error == "no room"


def test_only_what_was_asked_for() -> None:
    lane = Serving()
    tracer = trace(lane, "store", start=4 * PAGE, end=6 * PAGE)
    for page in range(10):
        lane._write(1, page * PAGE, PAGE)
        lane._read(1, page * PAGE, PAGE)
    lane._write(1, 0, 5 * PAGE)
    assert [(e.event, e.offset) for e in tracer.take().events] == [
        ("store", 4 * PAGE), ("store", 5 * PAGE), ("store", 0)
    ]  # fmt: skip


def test_segments_that_move_and_the_cleaner() -> None:
    lane = Serving()
    store = lane.store
    store.segments.add_tier(4)
    tracer = trace(lane)
    lane.kinds = ["random"]
    for _ in range(3):
        lane._write(1, 0, 500 * PAGE)
    tracer.take()
    segment = store.homes.candidates()[0]
    plan = store.homes.plan_write(segment)
    assert plan
    assert store.homes.end_write(plan, ok=True)
    plan = store.homes.plan_fetch(segment)
    assert plan
    assert not store.homes.end_fetch(plan, ok=False)
    written, fetched = tracer.take().events
    assert (written.event, written.segment, written.tier) == ("writeback", segment, 1)
    assert (fetched.event, fetched.error) == ("fetch", "failed: see the log")
    for page in range(0, 500, 2):
        lane.discard(page * PAGE, PAGE)
    tracer.take()
    while store.clean(64, idle=True):
        pass
    events = tracer.take().events
    assert {event.event for event in events} == {"clean"}
    assert sum(event.pages or 0 for event in events) == store.cleaner.moved_pages_total > 0


def test_it_is_bounded_and_tells_what_it_left_out() -> None:
    lane = Serving()
    tracer = trace(lane, "load")
    for _ in range(3 * EVENTS_MAX):
        lane._read(1, 0, PAGE)
    first = tracer.take()
    assert (len(first.events), first.one_in, first.left_out) == (EVENTS_MAX, 1, 2 * EVENTS_MAX)
    for _ in range(3 * EVENTS_MAX):
        lane._read(1, 0, PAGE)
    second = tracer.take()
    assert (len(second.events), second.one_in) == (EVENTS_MAX, 3)
    lane._read(1, 0, PAGE)
    tracer.take()
    lane._read(1, 0, PAGE)
    assert (tracer.take().one_in, tracer.take().one_in) == (1, 1)


def test_nothing_is_left_when_it_stops() -> None:
    lane = Serving()
    owners = (lane, lane.store.homes, lane.store.cleaner)
    before = [set(vars(owner)) for owner in owners]
    tracer = trace(lane)
    assert "_read" in vars(lane)
    tracer.stop()
    assert [set(vars(owner)) for owner in owners] == before
    lane._write(1, 0, PAGE)
    assert tracer.take().events == []
