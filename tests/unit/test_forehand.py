"""Descriptors whose memory is there before a page comes (daemon/forehand.py)."""

import errno
import queue
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from vswapfs.core.buffers import Buffers, Geometry
from vswapfs.core.descriptor import CLUSTER_BYTES, CLUSTER_PAGES
from vswapfs.core.store import Store
from vswapfs.daemon.forehand import CLUSTERS_AHEAD, Forehand
from vswapfs.errors import PoolFullError
from vswapfs.fuse.lane import Lane
from vswapfs.host.region import MemoryRegion, memory_file

CLUSTERS = 200
GEOMETRY = Geometry(page_count=CLUSTERS * CLUSTER_PAGES, slot_count=16)


def page_of(cluster: int) -> bytes:
    return cluster.to_bytes(8, "little") + bytes(range(256)) * 15 + bytes(248)


class FakeLane:
    """Takes what threads hand over; ``drain`` is the lane's turn."""

    def __init__(self) -> None:
        self.handed: queue.Queue[tuple[Callable[[], Any], Callable[..., None]]] = queue.Queue()
        self.parked_served = 0

    def submit(self, job: Callable[[], Any], done: Callable[..., None]) -> None:
        self.handed.put((job, done))

    def serve_parked(self) -> None:
        self.parked_served += 1

    def drain(self, count: int) -> None:
        for _ in range(count):
            job, done = self.handed.get(timeout=10)
            try:
                result = job()
            except OSError as error:
                done(None, error)
            else:
                done(result, None)


class Setup:
    def __init__(self, predecessor: "Setup | None" = None) -> None:
        if predecessor is None:
            self.regions = {
                part: MemoryRegion(memory_file(f"test-{part}", size), size)
                for part, size in GEOMETRY.sizes_bytes().items()
            }
            self.store = Store(GEOMETRY, Buffers(**self.regions))
        else:
            self.regions = predecessor.regions
            self.store = Store.attach(GEOMETRY, Buffers(**self.regions))
        self.lane = FakeLane()
        self.descriptors = self.regions["descriptors"]
        lane = cast("Lane", self.lane)
        self.forehand = Forehand(self.store, lane, self.regions["pool"], self.descriptors)
        self.can_spare = True
        self.forehand._memory.can_spare_some = lambda: self.can_spare  # type: ignore[method-assign]

    def has_memory(self, cluster: int) -> bool:
        start = cluster * CLUSTER_BYTES
        return any(first <= start < stop for first, stop in self.descriptors.extents())

    def put(self, cluster: int) -> None:
        self.store.store(cluster * CLUSTER_PAGES, page_of(cluster))


@pytest.fixture
def setup() -> Iterator[Setup]:
    made = Setup()
    made.forehand.start()
    yield made
    made.forehand.stop()


def test_the_next_clusters_get_their_memory(setup: Setup) -> None:
    setup.put(3)
    setup.lane.drain(len(CLUSTERS_AHEAD))
    there = {cluster for cluster in range(CLUSTERS) if setup.has_memory(cluster)}
    assert there == {3, *(3 + ahead for ahead in CLUSTERS_AHEAD)}
    setup.can_spare = False
    setup.put(3 + CLUSTERS_AHEAD[0])


def test_a_store_is_refused_when_there_is_none_and_works_once_there_is(setup: Setup) -> None:
    setup.put(0)  # the pool has its memory
    setup.lane.drain(len(CLUSTERS_AHEAD))
    setup.can_spare = False
    with pytest.raises(PoolFullError, match="no memory for descriptors"):
        setup.put(7)
    served = setup.lane.parked_served
    setup.lane.drain(1)
    assert setup.lane.parked_served == served + 1
    setup.put(7)
    assert setup.store.load(7 * CLUSTER_PAGES) == page_of(7)


def test_nothing_is_given_back_while_some_is_being_taken(setup: Setup) -> None:
    setup.put(5)  # the threads' answers are still on their way
    setup.store.discard(5 * CLUSTER_PAGES, CLUSTER_PAGES)
    assert setup.has_memory(5)
    assert setup.store.load(5 * CLUSTER_PAGES) == bytes(4096)
    setup.lane.drain(len(CLUSTERS_AHEAD))
    setup.put(5)
    setup.store.discard(5 * CLUSTER_PAGES, CLUSTER_PAGES)
    assert not setup.has_memory(5)
    setup.can_spare = False
    with pytest.raises(PoolFullError):
        setup.put(5)


def test_what_is_kept_is_there_for_good(setup: Setup) -> None:
    setup.descriptors.keep(4 * CLUSTER_BYTES)
    setup.put(3)
    setup.lane.drain(len(CLUSTERS_AHEAD))
    setup.store.discard(3 * CLUSTER_PAGES, CLUSTER_PAGES)
    setup.can_spare = False
    setup.put(3)


def test_a_successor_has_memory_in_hand_once_it_has_counted(setup: Setup) -> None:
    """Also if the count is looked after while it goes on, and changes nothing."""
    setup.put(3)
    successor = Setup(setup)
    successor.forehand.start()
    ram = successor.store.segments.ram
    successor.forehand.look_after()
    was_warming = ram.is_warming
    successor.store.finish_count()
    successor.forehand.look_after()
    assert (was_warming, ram.is_warming) == (False, True)
    successor.forehand.stop()


def test_stores_that_wait_for_a_slot_are_told_once_there_is_no_memory(setup: Setup) -> None:
    ram = setup.store.segments.ram
    ram.kept_warm = 4
    was_taking = setup.forehand.is_taking
    assert ram.begin_warming() is not None  # the thread waits for memory
    assert (was_taking, setup.forehand.is_taking) == (False, True)
    setup.forehand.look_again()
    assert (ram.will_be_warm, setup.lane.parked_served) == (True, 0)
    setup.can_spare = False
    setup.forehand.look_again()
    assert (ram.will_be_warm, setup.lane.parked_served) == (False, 1)


def test_stores_that_wait_are_told_when_memory_cannot_be_taken(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_start: int, _stop: int) -> None:
        raise OSError(errno.ENOMEM, "no")

    monkeypatch.setattr(setup.regions["pool"], "take", refuse)
    setup.store.segments.ram.kept_warm = 4
    setup.forehand.look_after()
    assert setup.forehand.is_taking
    setup.lane.drain(1)
    assert (setup.forehand.is_taking, setup.lane.parked_served) == (False, 1)


def test_a_thread_that_waits_for_memory_ends_with_the_worker() -> None:
    setup = Setup()
    setup.forehand._memory.is_free = lambda size_bytes: False  # type: ignore[method-assign]
    setup.forehand.start()
    setup.put(0)
    setup.forehand.stop()
    assert not setup.has_memory(CLUSTERS_AHEAD[0])


def test_taking_leaves_what_is_there(setup: Setup) -> None:
    setup.put(9)
    setup.descriptors.take(9 * CLUSTER_BYTES, 10 * CLUSTER_BYTES)
    assert setup.store.load(9 * CLUSTER_PAGES) == page_of(9)
